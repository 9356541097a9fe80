"""What every fit has in common: what it is given, what it gives, and which methods have one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from ensemble.artifacts import Artifact
from ensemble.errors import BadRequest, ConfigurationError, UnknownOption
from jobs.evaluation.grading import Grade
from jobs.evaluation.questions import Question
from jobs.fitting.models import Opened
from jobs.fitting.stages import Stages

Told = Callable[[str, int, int], None]
"""Told (what is being done, units done, of how many)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One fit."""

    models: Sequence[Opened]
    options: Any
    """An instance of the fit's options."""
    questions: Sequence[Question]
    """Empty for fits that need no data."""
    data: str
    """Digest of the file they are from."""
    grade: Grade
    stages: Stages
    told: Told

    @property
    def others(self) -> Mapping[str, str]:
        """Members and the fingerprints of their vocabularies."""
        return {model.name: model.vocabulary.fingerprint for model in self.models}


class Fit(Protocol):
    """How one method is fitted."""

    options: type
    """A dataclass."""
    members: str
    """What the members are, in their order."""
    least: int
    most: int | None
    answer: str | None
    """Column of the data whose values a question goes with, unless another is named; ``None``: no data is needed."""
    compares: bool
    """Whether the questions are divided, so that the fit is measured on those it has not seen."""
    run: Callable[[Task], Awaitable[Mapping[str, Artifact]]]
    """Artifacts by the member that each is for."""


def options_for(fit: Fit, method: str, given: Mapping[str, Any]) -> Any:
    """
    Raises:
        UnknownOption: the fit has no such option; the message lists those it has.
        BadRequest: a value that an option does not allow.
    """
    known = {field.name: field.type for field in fields(fit.options)}
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            allowed = ", ".join(sorted(known))
            raise UnknownOption(f"the fit of {method} has no option {name!r}{hint}; it has: {allowed}", param=name)
    try:
        return TypeAdapter(fit.options).validate_python(dict(given))
    except ConfigurationError as error:
        raise BadRequest(f"the fit of {method}: {error.message}", param=error.param) from error
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(str(part) for part in problem["loc"])
        raise BadRequest(f"option {option!r} of the fit of {method}: {problem['msg']}", param=option) from error


def fitted(task: Task, artifact: Artifact, method: str) -> Artifact:
    """The artifact with what only the task knows: the data, and everybody who took part."""
    own = artifact.manifest.member
    others = {name: fingerprint for name, fingerprint in task.others.items() if name != own}
    changes = {"method": method, "others": others, "data": task.data}
    return artifact._replace(manifest=artifact.manifest.model_copy(update=changes))
