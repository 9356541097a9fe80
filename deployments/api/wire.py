"""JSON objects from outside: every field known, the first problem told in a sentence, no value repeated.

Knows nothing of what the fields mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ensemble.errors import BadRequest, UnknownOption

W = TypeVar("W", bound="Wire")


class Wire(BaseModel):
    """A JSON object whose fields are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        for field in (field for field in fields if field not in cls.model_fields):
            cls._mean_nothing(field, fields[field])
        return {field: value for field, value in fields.items() if field in cls.model_fields}

    @classmethod
    def _mean_nothing(cls, field: str, value: Any) -> None:
        if field not in cls.not_offered:
            allowed = ", ".join(sorted(cls.model_fields))
            raise PydanticCustomError(
                "unknown_field", "is unknown; known here: {allowed}", {"field": field, "allowed": allowed}
            )
        if value is not None and value not in cls.not_offered[field]:
            allowed = ", ".join(map(json.dumps, (None, *cls.not_offered[field])))
            rule = "is not offered by this server; leave it out, or send what means nothing: {allowed}"
            raise PydanticCustomError("not_offered", rule, {"field": field, "allowed": allowed})


def parse(kind: type[W], fields: Mapping[str, Any]) -> W:
    """The fields as an object of this kind.

    Raises:
        UnknownOption: a field that there is not; the message lists those there are.
        BadRequest: the first field that is missing or wrong; ``param`` is its dotted path.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> BadRequest:
    problem = error.errors(include_url=False, include_input=False)[0]
    field = problem.get("ctx", {}).get("field")
    location = (*problem["loc"], field) if field is not None else problem["loc"]
    path = ".".join(str(part)[:64] for part in location)
    rule = problem["msg"].replace("Input should be", "must be").replace("List should have", "must have")
    rule = rule.replace(" after validation", "")
    message = f"{path} is required" if problem["type"] == "missing" else f"{path} {rule}"
    return (UnknownOption if problem["type"] == "unknown_field" else BadRequest)(message, param=path)
