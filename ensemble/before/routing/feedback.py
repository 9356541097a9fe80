"""What is told of answers afterwards, as values: how good one was, or which of two was better.

Each has a number; a router that learns takes them in by number, so that all copies of it agree. Knows nothing of how
they are kept.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ensemble.before.heads.head import Outcome, Preference
from ensemble.before.routing.router import Router
from ensemble.outcomes.dense import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How good an answer was."""

    sequence: int
    question: str
    member: str
    """As the router knows it."""
    quality: float
    """0 to 1."""
    cost: float = math.nan
    """Money."""
    latency: float = math.nan
    """Seconds."""
    propensity: float = math.nan
    """Probability with which that member was to answer."""

    def take(self, router: Router, x: Floats) -> None:
        """Have the router learn it.

        Args:
            x: [d], embedding of the question.

        Raises:
            BadRequest: the router does not know the member.
        """
        propensity = 1.0 if math.isnan(self.propensity) else self.propensity
        router.learn(
            Outcome(
                x=x,
                member=router.place(self.member),
                quality=self.quality,
                cost=self.cost,
                latency=self.latency,
                propensity=propensity,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred:
    """Which of two answers was better."""

    sequence: int
    question: str
    winner: str
    loser: str
    tie: bool = False

    def take(self, router: Router, x: Floats) -> None:
        """Have the router learn it.

        Args:
            x: [d], embedding of the question.

        Raises:
            BadRequest: the router does not know one of the members.
        """
        router.prefer(Preference(x=x, winner=router.place(self.winner), loser=router.place(self.loser), tie=self.tie))


Feedback = Judged | Preferred


class Page(NamedTuple):
    """Feedback in order."""

    rows: Sequence[Feedback]
    through: int
    """Number up to which there is nothing that is not told."""
    complete: bool
    """Whether there was nothing after these when it was asked for."""


Pull = Callable[[int], Awaitable[Page]]
"""Feedback of one ensemble after this number."""


def read(record: Mapping[str, Any]) -> Feedback | None:
    """The feedback of a journal's record; ``None``: the record is of something else."""
    shared: dict[str, Any] = {"sequence": int(record["sequence"]), "question": str(record["question"])}
    if record.get("kind") == "outcome":
        numbers: dict[str, Any] = {name: _number(record.get(name)) for name in ("cost", "latency", "propensity")}
        return Judged(**shared, member=str(record["member"]), quality=float(record["quality"]), **numbers)
    if record.get("kind") == "preference":
        return Preferred(
            **shared, winner=str(record["winner"]), loser=str(record["loser"]), tie=bool(record.get("tie", False))
        )
    return None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
