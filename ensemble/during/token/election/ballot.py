"""From masses of classes to a decision: each member's own spelling, its part in the outcome, and the alternatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.during.token.lockstep import Decision
from ensemble.member import Floats
from ensemble.vocabulary import Ids, Union


@dataclass(frozen=True, slots=True)
class Ballot:
    """What was voted on in one step. M members, C classes."""

    union: Union
    """Of the vocabularies of the members below, in the same order."""
    weights: Mapping[int, float]
    """Of each member, by seat."""
    classes: Ids
    """Shape [C], ascending."""
    masses: Floats
    """Shape [M, C]: of each class at each member."""
    mean: Floats
    """Shape [C]: weighted sum of the masses."""
    told: Sequence[tuple[Ids, Floats]]
    """Per member: ids whose masses it has told, and these."""

    def decision(self, column: int, alternatives: int | None) -> Decision:
        """The class in this column as a decision.

        Args:
            alternatives: how many of the likeliest classes to report with it; ``None``: no report.
        """
        class_ = int(self.classes[column])
        seats = list(enumerate(self.weights.items()))
        spelling = {seat: ids for member, (seat, _) in seats if (ids := self._spelling(member, class_))}
        return Decision(
            text=self.union.bytes_of(class_),
            spelling=spelling,
            shares={seat: weight * float(self.masses[member, column]) for member, (seat, weight) in seats},
            logprob=log(self.mean[column]),
            top=self._top(alternatives or 0),
        )

    def _spelling(self, member: int, class_: int) -> tuple[int, ...]:
        """The member's id for a class: of several the likeliest it has told of, else the first; empty without one."""
        return likeliest_spelling(self.union.ids(member, class_), *self.told[member])

    def _top(self, count: int) -> tuple[tuple[bytes, float], ...]:
        if not count:
            return ()
        best = np.argsort(-self.mean, kind="stable")[:count]
        return tuple((self.union.bytes_of(int(self.classes[c])), log(self.mean[c])) for c in best if self.mean[c] > 0)


def likeliest_spelling(ids: tuple[int, ...], known: Ids, masses: Floats) -> tuple[int, ...]:
    """Of several ids for one class the likeliest of those known, else the first; empty without one.

    Args:
        known, masses: shape [n], ids that a member has told of, and their masses.
    """
    if len(ids) < 2:
        return ids
    named = np.isin(known, ids)
    return (int(known[named][np.argmax(masses[named])]),) if named.any() else ids[:1]


def log(mass: float) -> float:
    return math.log(mass) if mass > 0 else -math.inf
