"""Judges: what tells a good step or answer from a bad one. One file per kind; the contract is ``judge.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ensemble.errors import ConfigurationError
from ensemble.judges.equalities import EqualityJudge
from ensemble.judges.judge import Judge
from ensemble.judges.verdict import VerdictJudge
from ensemble.member import Member

KINDS: dict[str, type[EqualityJudge | VerdictJudge]] = {"equalities": EqualityJudge, "verdict": VerdictJudge}
"""Kinds of judges by the name that a configuration gives; each has its options model as ``Options``."""


def build(kind: str, name: str, options: Mapping[str, Any], model: Member | None = None) -> Judge:
    """A judge of this kind under this name, with validated options.

    Raises:
        ConfigurationError: unknown kind or option, a value that is not allowed, or a model given to a kind that
            takes none (or missing where one is needed).
    """
    if kind not in KINDS:
        raise ConfigurationError(f"unknown kind of judge {kind!r}; known: {', '.join(sorted(KINDS))}", param="kind")
    try:
        valid = KINDS[kind].Options.model_validate(dict(options)).model_dump()
    except ValidationError as error:
        raise _refusal(kind, name, error) from error
    if kind == "equalities":
        if model is not None:
            raise ConfigurationError(f"judge {name} of kind equalities takes no model", param="model")
        return EqualityJudge(name, **valid)
    if model is None:
        raise ConfigurationError(f"judge {name} of kind {kind} needs a model", param="model")
    return VerdictJudge(name, model, **valid)


def _refusal(kind: str, name: str, error: ValidationError) -> ConfigurationError:
    problem = error.errors()[0]
    option = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(KINDS[kind].Options.model_fields))
        return ConfigurationError(f"judge {name} has no option {option!r}; {kind} has: {allowed}", param=option)
    return ConfigurationError(f"judge {name}: {option or 'options'}: {problem['msg']}", param=option or None)
