"""Feedback as it is given and taken: values that cross the boundaries of processes, and why it may be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ensemble.errors import BadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Feedback as it was sent: how good an answer was, or which of two was better."""

    ensemble: str
    id: str | None = None
    """Of the answer, without prefix; ``None``: the question is given."""
    choice: int = 0
    question: str | None = None
    member: str | None = None
    """Who was judged; ``None``: who has answered."""
    quality: float | None = None
    winner: str | None = None
    loser: str | None = None
    tie: bool = False
    key: str | None = None
    """Of the client: what is sent twice under one key counts once."""

    @property
    def members(self) -> dict[str, str]:
        """Members that it names, by the field."""
        named = {field: getattr(self, field) for field in ("member", "winner", "loser")}
        return {field: name for field, name in named.items() if name is not None}


def prompt_id(id: str, first: int) -> str:
    """Of a prompt within a request that has several.

    Args:
        id: of the reply.
        first: which of the reply's choices is this prompt's first.
    """
    return f"{id}.{first}" if first else id


def told_as(id: str, choice: int) -> tuple[str, int]:
    """Id of the reply, and which of its choices it is, where a prompt's request knows its own.

    >>> told_as(prompt_id("f00", 4), 1)
    ('f00', 5)
    """
    reply, _, first = id.rpartition(".")
    return (reply, int(first) + choice) if reply and first.isdecimal() else (id, choice)


class UnknownAnswer(BadRequest):
    """There is no answer of that id, or it was too long ago."""

    status = 404
    code = "answer_not_found"


class OtherFeedback(BadRequest):
    """The same answer was judged otherwise before, under the same key."""

    status = 409
    code = "feedback_conflict"


class Kept(NamedTuple):
    """Feedback that is on disk."""

    sequence: int
    """Its number, from 1."""
    duplicate: bool = False
    """It was there already."""
