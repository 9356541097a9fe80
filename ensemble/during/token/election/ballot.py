"""From masses of classes to a decision: each member's own spelling, its part in the outcome, and the alternatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.during.token.lockstep import Decision
from ensemble.member import Floats
from ensemble.vocabulary import NO_CLASS, STOP, Ids, Union


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


def favourite(union: Union, weights: Mapping[int, float], told: Sequence[tuple[Ids, Floats]]) -> Decision | None:
    """The class that every member holds likelier than it can hold any other; ``None`` without one.

    It wins any mean that grows with each member's masses, so that no more of their lists has to be looked at.

    Args:
        weights: of each member, by seat.
        told: per member: ids, likeliest first, and the probabilities of two of them at least.
    """
    firsts = {int(union.classes[member][ids[0]]) for member, (ids, _) in enumerate(told)}
    if len(firsts) > 1 or NO_CLASS in firsts:
        return None
    (class_,) = firsts
    shares: dict[int, float] = {}
    for member, ((seat, weight), (_, chances)) in enumerate(zip(weights.items(), told, strict=True)):
        # Another class may have as many ids as its largest, each as likely as the second; this one has one alone.
        others = max(union.largest[member], union.count(member, STOP))
        if len(chances) < 2 or union.count(member, class_) > 1 or chances[0] <= others * chances[1]:
            return None
        shares[seat] = weight * float(chances[0])
    return Decision(
        text=union.bytes_of(class_),
        spelling={seat: (int(ids[0]),) for seat, (ids, _) in zip(weights, told, strict=True)},
        shares=shares,
        logprob=log(sum(shares.values())),
    )


def decided(union: Union, weights: Mapping[int, float], class_: int, told: Sequence[tuple[Ids, Floats]]) -> Decision:
    """A class that is known to win, as a decision; shares are of what members have told.

    Args:
        weights: of each member, by seat.
        told: per member: ids and their log-probabilities.
    """
    spelling: dict[int, tuple[int, ...]] = {}
    shares = dict.fromkeys(weights, 0.0)
    for member, ((seat, weight), (known, logprobs)) in enumerate(zip(weights.items(), told, strict=True)):
        if ids := union.ids(member, class_):
            named = known == ids[0] if len(ids) == 1 else np.isin(known, ids)
            shares[seat] = weight * float(np.exp(logprobs[named]).sum())
            spelling[seat] = likeliest_spelling(ids, known, logprobs)
    return Decision(text=union.bytes_of(class_), spelling=spelling, shares=shares, logprob=log(sum(shares.values())))


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
