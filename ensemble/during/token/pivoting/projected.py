"""What members say in the vocabulary of a pivot: evidence of its tokens, and who agrees with whom.

Pure functions over lists; nothing here knows how members are asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.during.token.election.certificate import Evidence
from ensemble.errors import ConfigurationError
from ensemble.member import Distribution
from ensemble.vocabulary import NO_CLASS, Ids, Union, Vocabulary

WHOLE = 4096
"""Entries to ask for where all of a projection is wanted: it has 10 for each of 320 tokens, and stop ids."""
NOTHING = (np.zeros(0, np.int32), np.zeros(0))
"""Ids of its own that a member has told of, and their masses, where it has told of none."""
_NONE = -46.0
"""Log-probability of what has no mass; a helper that has nothing to say says so with smaller ones."""
_WIDER = 1e-5
"""Part by which bounds made of float32 log-probabilities are widened."""
_EXCESS = 1e-3
"""Masses made of float32 log-probabilities exceed 1 by less."""


def truncated(told: Distribution) -> Evidence:
    """A pivot's list as all there is: its masses sum to 1.

    >>> truncated(Distribution(np.array([4, 2], np.int32), np.log([0.6, 0.2]), 9)).masses.round(6).tolist()
    [0.75, 0.25]
    """
    masses = np.exp(told.logprobs, dtype=np.float64)
    return Evidence(told.ids, masses / masses.sum(), told.size, 0.0, 0.0)


def evidence_of(told: Distribution, size: int, normalised: bool) -> Evidence:
    """A helper's projected list. Entries without mass are left out; behind the first of them there is nothing.

    Args:
        size: of the pivot's vocabulary.
        normalised: whether a projection may not make more mass than there is.

    Raises:
        ConfigurationError: the projection is of another vocabulary, or makes more mass than it may.
    """
    if told.size != size:
        rule = f"a projection has {told.size} outcomes, the pivot's vocabulary has {size} tokens"
        raise ConfigurationError(f"{rule}; fit it for this pivot", param="pivot")
    possible = int(np.count_nonzero(told.logprobs > _NONE))
    masses = np.exp(told.logprobs[:possible], dtype=np.float64)
    mass = float(masses.sum())
    if normalised and mass > 1 + _EXCESS:
        rule = f"a projection makes {mass:.3f} out of a mass of 1"
        raise ConfigurationError(f"{rule}; fit it with fidelity: fixed, or set fidelity: reference", param="fidelity")
    if told.complete or possible < len(told.ids):
        return Evidence(told.ids[:possible], masses, size, 0.0, 0.0)
    floor = float(masses[-1]) * (1 + _WIDER)
    tail = max(0.0, 1.0 - mass) + _EXCESS if normalised else np.inf
    return Evidence(told.ids, masses, size, floor, tail)


def beginning(told: Evidence, count: int) -> Evidence:
    """The first of a list, with what is left as not known.

    >>> told = Evidence(np.array([4, 2, 7]), np.array([0.5, 0.3, 0.2]), 9, 0.0, 0.0)
    >>> found = beginning(told, 2); found.ids.tolist(), round(found.floor, 3), round(found.tail, 3)
    ([4, 2], 0.2, 0.2)
    """
    if len(told.ids) <= count:
        return told
    floor, tail = float(told.masses[count]) * (1 + _WIDER), told.tail + float(told.masses[count:].sum()) * (1 + _WIDER)
    return Evidence(told.ids[:count], told.masses[:count], told.size, floor, tail)


def favourites(told: Evidence, classes: Ids, count: int) -> list[int]:
    """Classes of the likeliest ids that may be elected, best first, ``count`` ids at most.

    Args:
        classes: of each id.
    """
    named = classes[told.ids]
    named = named[named != NO_CLASS][:count]
    return [int(class_) for class_ in named]


def agreeing(tops: Sequence[Sequence[int]]) -> list[int]:
    """Places of those whose first choice is among another's choices; all where there is none.

    >>> agreeing([[0, 1], [1, 0], [3, 2]]), agreeing([[0], [1]])
    ([0, 1], [0, 1])
    """
    others = [[top for j, top in enumerate(tops) if j != i] for i in range(len(tops))]
    kept = [i for i, own in enumerate(tops) if own and any(own[0] in top for top in others[i])]
    return kept or list(range(len(tops)))


class PivotUnion(Union):
    """Classes of a pivot, the first of the vocabularies, that all members speak of; each commits ids of its own."""

    def __init__(self, vocabularies: Sequence[Vocabulary]) -> None:
        super().__init__(vocabularies)
        self.classes = [self.classes[0]] * len(vocabularies)
        self.largest = (self.largest[0],) * len(vocabularies)

    def count(self, member: int, class_: int) -> int:
        """How many ids of the pivot's are in a class."""
        return super().count(0, class_)


_unions: dict[tuple[str, ...], PivotUnion] = {}


def pivot_union_of(vocabularies: Sequence[Vocabulary]) -> PivotUnion:
    """The union of these vocabularies, the pivot's first; built once per process."""
    key = tuple(v.fingerprint for v in vocabularies)
    if key not in _unions:
        _unions[key] = PivotUnion(vocabularies)
    return _unions[key]
