"""Rules that can decide from distributions that they have not asked for themselves, so that drafts can be held against
them: the interface, and the weighted average. Knows nothing of who proposes drafts and how they are verified.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.during.token.election.ballot import Ballot
from ensemble.during.token.election.certificate import Certain, Evidence, Tally, tally, verdict, whole
from ensemble.during.token.lockstep import Decision, Rule
from ensemble.member import Distribution, Floats
from ensemble.request import Sampling
from ensemble.sampling import processed
from ensemble.vocabulary import NO_CLASS, Union, Vocabulary


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a rule makes of one position. C classes."""

    ballot: Ballot
    chances: Floats
    """Shape [C], sums to 1: what the elected class is drawn from; one-hot where nothing is drawn."""

    def decision(self, column: int, sampling: Sampling) -> Decision:
        """The class in this column as a decision."""
        return self.ballot.decision(column, sampling.logprobs)

    def column(self, id_: int) -> int | None:
        """Where the class of an id stands; ``None`` if it is not among those that can be elected here."""
        class_ = self.ballot.union.classes[0][id_]
        place = int(np.searchsorted(self.ballot.classes, class_))
        return place if place < len(self.ballot.classes) and self.ballot.classes[place] == class_ else None

    def drawn_from(self, chances: Floats) -> Floats:
        """Probabilities of ids, shape [size], as those of the classes here, shape [C]."""
        return by_class(self.ballot.union, chances)[self.ballot.classes]


class DraftRule(Rule):
    """A rule over one vocabulary whose every decision follows from the distributions of some seats at one position."""

    seats: Sequence[int]
    """Whose."""
    listed: int
    """Tokens of each that it needs to be listed; 0: all."""

    @abstractmethod
    def ruling(self, vocabularies: Sequence[Vocabulary], told: Sequence[Distribution]) -> Ruling | None:
        """What these distributions decide; ``None`` if ``elect`` has to ask further.

        Args:
            vocabularies: of ``seats``, in order.
            told: of ``seats``, in order. Whole ones may list their tokens in any order.
        """


def counted(union: Union, told: Sequence[Distribution], weights: Mapping[int, float]) -> tuple[Tally, Ballot]:
    """What the distributions of these seats, in order, say about their weighted mean."""
    evidence = [Evidence.of(distribution) for distribution in told]
    count = whole if all(distribution.complete for distribution in told) else tally
    seen = count(union, evidence, list(weights.values()))
    facts = [(e.ids, e.masses) for e in evidence]
    return seen, Ballot(union, weights, seen.classes, seen.masses, seen.known, facts)


def averaged(
    union: Union, told: Sequence[Distribution], weights: Mapping[int, float], sampling: Sampling
) -> Ruling | None:
    """The weighted mean of probabilities: its largest class, or a draw from it.

    Args:
        told: of each seat in ``weights``; complete unless ``sampling`` is greedy.
    """
    seen, ballot = counted(union, told, weights)
    if not sampling.greedy:
        with np.errstate(divide="ignore"):
            return Ruling(ballot, processed(np.log(seen.known), sampling))
    found = verdict(seen)
    if not isinstance(found, Certain):
        return None
    reported = seen.unseen if sampling.logprobs else seen.unseen[:, [found.column]]
    if sampling.logprobs is not None and reported.any():
        return None
    return Ruling(ballot, one_hot(len(seen.classes), found.column))


def one_hot(size: int, column: int) -> Floats:
    vector = np.zeros(size)
    vector[column] = 1.0
    return vector


def row_of(distribution: Distribution) -> Floats:
    """Log-probabilities in order of id, shape [size], of a complete distribution."""
    row = np.empty(distribution.size, distribution.logprobs.dtype)
    row[distribution.ids] = distribution.logprobs
    return row


def by_class(union: Union, chances: Floats) -> Floats:
    """Probabilities of ids of the one vocabulary, shape [size], summed up by class, shape [union.size]."""
    return np.bincount(union.classes[0] - NO_CLASS, chances, union.size + 1)[1:].astype(np.float64)


def own_chances(row: Floats, vocabulary: Vocabulary, sampling: Sampling) -> Floats:
    """What a member draws its next token from, shape [size]."""
    return processed(np.where(vocabulary.writable, row, -np.inf), sampling)
