"""What may be said of an answer: the body of /v1/feedback. Knows no models."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from deployments.api.shapes import ChatShape, Json, TextShape
from deployments.api.wire import Wire
from deployments.given import Given, Kept

_PREFIXES = (ChatShape.prefix, TextShape.prefix)
Name = Annotated[str, Field(min_length=1, max_length=256)]


class FeedbackBody(Wire):
    """How good an answer was, or which of two members answers a question better."""

    model: str
    """The ensemble that has answered, or is to learn."""
    id: Name | None = None
    """Of the answer. Either this or ``question``."""
    choice: Annotated[int, Field(ge=0)] = 0
    """Which of the answer's choices, by its ``index``; of several prompts they are numbered through. Omitted: the
    first."""
    question: Annotated[str, Field(min_length=1)] | None = None
    """The text that was asked. Either this or ``id``."""
    member: Name | None = None
    """Whose answer ``quality`` is of, as the trace of the route names members. Omitted: who has answered."""
    quality: Annotated[float, Field(ge=0, le=1)] | None = None
    """0, wrong, to 1, right."""
    winner: Name | None = None
    """The member with the better answer."""
    loser: Name | None = None
    """The other one."""
    tie: bool = False
    """Both were as good."""
    key: Name | None = None
    """What is sent twice under one key counts once. Omitted: an answer's member, or pair of members, is judged once;
    what is said of a question counts as often as it is sent."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.id is None) == (self.question is None):
            raise _wrong("id", "or question must be given, one of them")
        if (self.quality is None) == (self.winner is None and self.loser is None):
            raise _wrong("quality", "or winner and loser must be given, one of both")
        if self.quality is not None:
            self._of_one()
        else:
            self._of_two()
        return self

    def _of_one(self) -> None:
        if self.tie:
            raise _wrong("tie", "goes with winner and loser")
        if self.question is not None and self.member is None:
            raise _wrong("member", "is required where there is no id")
        if self.question is not None and self.choice:
            raise _wrong("choice", "goes with id")

    def _of_two(self) -> None:
        if self.winner is None or self.loser is None:
            raise _wrong("winner" if self.winner is None else "loser", "is required")
        if self.winner == self.loser:
            raise _wrong("loser", "must be another than winner")
        if self.member is not None:
            raise _wrong("member", "goes with quality")

    def given(self) -> Given:
        """As it is kept."""
        said = self.model_dump(exclude={"model", "id"})
        return Given(ensemble=self.model, id=None if self.id is None else _bare(self.id), **said)


def _bare(id: str) -> str:
    """Without the prefix of its endpoint."""
    return next((id.removeprefix(prefix) for prefix in _PREFIXES if id.startswith(prefix)), id)


def _wrong(field: str, rule: str) -> PydanticCustomError:
    return PydanticCustomError("feedback", "{rule}", {"field": field, "rule": rule})


def feedback_object(kept: Kept) -> Json:
    """What is told of feedback that is on the disk."""
    return {"object": "feedback", "sequence": kept.sequence, "duplicate": kept.duplicate}
