"""The strings of one step of UniTE: who nominates them, how each member scores them, and which leads whatever the lists
leave out.

Pure functions over lists; nothing here knows how members are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ensemble.member import Distribution, Floats
from ensemble.vocabulary import NO_CLASS, STOP, Ids, Union

Duplicates = Literal["keep", "mask", "reference"]
"""What becomes of a string that is scored by the first sub-token of another; see ``UniteOptions.duplicates``."""

ROUNDING = 1e-5
"""Shares made of float32 log-probabilities are off by less."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one member scores each string of the union. S strings."""

    ids: tuple[tuple[int, ...], ...]
    """Per string: its own ids, or the first sub-token, or none if the member cannot spell it."""
    duplicate: npt.NDArray[np.bool_]
    """Shape [S]: it is scored by a first sub-token that scores another string already."""


def nominated(union: Union, listed: Sequence[Distribution], topk: int) -> Ids:
    """Classes of the first ``topk`` tokens of each list, shape [S], ascending; none of control ids or without mass."""
    tops = [d.ids[:topk][d.logprobs[:topk] > -np.inf] for d in listed]
    classes = {class_ for i, ids in enumerate(tops) for class_ in union.classes[i][ids].tolist()}
    return np.array(sorted(classes - {NO_CLASS}), np.int32)


def spelling(strings: Sequence[bytes], own: Sequence[tuple[int, ...]], first: Mapping[bytes, int]) -> Spelling:
    """Own ids come first; the other strings get their first sub-tokens in order.

    >>> spelling([b"Pa", b"Par", b"Pas"], [(4,), (), ()], {b"Par": 4, b"Pas": 7}).duplicate.tolist()
    [False, True, False]
    """
    if not first:
        return Spelling(tuple(own), np.zeros(len(own), bool))
    used = {i for ids in own for i in ids}
    ids, duplicate = list(own), np.zeros(len(own), bool)
    for position, string in enumerate(strings):
        if not own[position] and string in first:
            ids[position] = (first[string],)
            duplicate[position] = first[string] in used
            used.add(first[string])
    return Spelling(tuple(ids), duplicate)


def known_masses(listed: Distribution, spelt: Spelling, kept: bool) -> tuple[list[float], list[int]]:
    """Of each string of the union: the mass that a list tells, and how many of its ids the list does not have.

    Args:
        kept: strings that are scored by the sub-token of another string have its mass too; else they have none.
    """
    told = dict(zip(listed.ids.tolist(), listed.probabilities.tolist(), strict=True))
    masses, unknown = [0.0] * len(spelt.ids), [0] * len(spelt.ids)
    skipped = () if kept else np.flatnonzero(spelt.duplicate).tolist()
    for string, ids in enumerate(spelt.ids):
        if string not in skipped:
            for i in ids:
                if (mass := told.get(i)) is None:
                    unknown[string] += 1
                else:
                    masses[string] += mass
    return masses, unknown


def leader(union: Union, listed: Sequence[Distribution], weights: Sequence[float], topk: int) -> int | None:
    """The class that has the largest weighted mean share wherever the others' look-ups lie; ``None`` without one.

    Only nominees are looked at: a string that a member did not nominate has the mass of its last nominee at most, by
    each of its ids, as first sub-tokens that score another string count for nothing. So it holds for ``mask`` alone.
    Most steps have a leader, and plain Python is faster than numpy over so few tokens.

    Args:
        listed: of each member, in the order of the union's vocabularies.
        topk: tokens that each nominates.
    """
    least: dict[int, float] = {}
    most: dict[int, float] = {}
    unseen = 0.0
    for member, (weight, told) in enumerate(zip(weights, listed, strict=True)):
        classes, masses = union.classes[member][told.ids[:topk]].tolist(), np.exp(told.logprobs[:topk]).tolist()
        own = sum(mass for class_, mass in zip(classes, masses, strict=True) if class_ != NO_CLASS)
        if not own:
            return None
        tail = max(0.0, 1.0 - sum(masses))
        unseen += weight / own * min(tail, max(union.largest[member], union.count(member, STOP), 1) * masses[-1])
        for class_, mass in zip(classes, masses, strict=True):
            least[class_] = least.get(class_, 0.0) + weight * mass / (own + tail)
            most[class_] = most.get(class_, 0.0) + weight * mass / own
    least.pop(NO_CLASS, None)
    winner = max(least, key=least.__getitem__)
    rival = max((mass for class_, mass in most.items() if class_ not in (winner, NO_CLASS)), default=0.0)
    return winner if least[winner] > rival + unseen + ROUNDING else None


def certain(masses: Floats, missing: Floats, weights: Floats) -> int | None:
    """The column that has the largest weighted mean share whatever is missing; ``None`` if that depends on it.

    Args:
        masses: shape [M, S], what is known of each string at each member.
        missing: shape [M, S], what may have to be added to it at most.
        weights: shape [M].

    >>> masses, missing = np.array([[0.5, 0.3, 0.0], [0.4, 0.0, 0.3]]), np.array([[0, 0, 0.01], [0, 0.01, 0]])
    >>> certain(masses, missing, np.array([0.5, 0.5])), certain(masses, 90 * missing, np.array([0.5, 0.5]))
    (0, None)
    """
    least = masses.sum(axis=1, keepdims=True)
    if not least.all():
        return None
    lower = weights @ (masses / (least + missing.sum(axis=1, keepdims=True)))
    upper = weights @ ((masses + missing) / least)
    column = int(lower.argmax())
    upper[column] = 0.0
    return column if lower[column] > upper.max() + ROUNDING else None


def shares_within(
    scores: Floats, duplicate: npt.NDArray[np.bool_], duplicates: Duplicates, *, zero: float = 0.0
) -> Floats:
    """One member's probabilities inside the union.

    Args:
        scores: shape [S], logits or log-probabilities (they differ by a constant, which has no effect), ``-inf`` for
            strings that the member cannot spell.
        duplicate: shape [S].
        zero: where a raw logit of 0 lies on the scale of ``scores``; only ``reference`` asks.

    Returns:
        Shape [S], sums to 1; all 0 if the member has no score for any string.

    >>> scores, duplicate = np.array([3.6, 3.0, 3.0]), np.array([False, False, True])
    >>> [shares_within(scores, duplicate, how).round(3).tolist() for how in ("keep", "mask")]
    [[0.477, 0.262, 0.262], [0.646, 0.354, 0.0]]
    """
    if duplicates != "keep":
        scores = np.where(duplicate, -np.inf if duplicates == "mask" else zero, scores)
    if not np.isfinite(scores).any():
        return np.zeros(len(scores))
    masses = np.exp(scores - scores.max())
    return np.asarray(masses / masses.sum())


def logsum(logprobs: Sequence[float]) -> float:
    """Logarithm of the probability that several ids have together; ``-inf`` for none."""
    if len(logprobs) == 1:
        return logprobs[0]
    with np.errstate(divide="ignore"):
        return float(np.log(sum(np.exp(logprobs)))) if logprobs else -np.inf
