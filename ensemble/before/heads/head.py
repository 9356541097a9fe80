"""The contract of quality heads, and what a router has learned from when it is in service."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from ensemble.before.routing.parts import NeedsFit, Part
from ensemble.outcomes.dense import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one answer."""

    x: Floats
    """[d], embedding of the query."""
    member: int
    """Position of who answered."""
    quality: float
    """0 to 1."""
    cost: float = float("nan")
    """Money."""
    latency: float = float("nan")
    """Seconds."""
    propensity: float = 1.0
    """Probability with which that member was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Which of two answers was the better one."""

    x: Floats
    """[d], embedding of the query."""
    winner: int
    loser: int
    tie: bool = False


class Head(Part):
    """Says how well each member will answer. One fitted instance; ``fit`` of the subclasses makes it.

    Subclasses are dataclasses (``@dataclass(slots=True)`` or plain) whose fields are arrays, JSON values or parts.
    """

    reads: ClassVar[bool] = True
    """Whether scores depend on the query; where they do not, no embedding of it is needed."""
    learns: ClassVar[bool] = False
    """Whether single outcomes change it."""
    prefers: ClassVar[bool] = False
    """Whether preferences change it."""
    probabilities: ClassVar[bool] = True
    """Whether scores are expected quality in [0, 1]; else they only rank members, unless calibrated."""

    @abstractmethod
    def scores(self, x: Floats) -> Floats:
        """[n, M] of the queries' embeddings [n, d]; higher is better."""

    def spread(self, x: Floats) -> Floats | None:
        """[n, M], standard deviation of the scores; ``None`` where the head does not know."""
        return None

    def learn(self, outcome: Outcome) -> None:
        """Take in one outcome, at once. Only where ``learns``."""
        raise NotImplementedError(f"heads of kind {self.kind} do not learn from single outcomes")

    def prefer(self, preference: Preference) -> None:
        """Take in one preference, at once. Only where ``prefers``."""
        raise NotImplementedError(f"heads of kind {self.kind} do not learn from preferences")

    def widen(self, x: Floats, quality: Floats) -> Head:
        """The same head with one more member, last, known from few outcomes only: what it knows of the others stays.

        So their scores do, unless scores are shares, ranks or wins, in which one more takes part.

        Args:
            x: [k, d], queries that it has answered, k ≥ 0.
            quality: [k].

        Raises:
            NeedsFit: this kind takes nobody without a fit.
        """
        raise NeedsFit(f"heads of kind {self.kind} take no member without a fit")

    def priced(self, cost: float) -> Self:
        """The same head, told what an answer of its last member costs on average; most do not ask."""
        return self
