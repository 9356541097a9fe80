"""Voting as pure functions over values: plurality, weighted plurality, and the medoid of texts.

Sums are exact, so no result depends on the order in which votes came in; ties go to the candidate declared first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from ensemble.after.answers import Key
from ensemble.after.fan_out import Place

Matrix = Sequence[Sequence[float]]
"""Row i, column j: similarity of text i to text j."""

_WORD = re.compile(r"\w+|[^\w\s]")
_ORDERS = 4


@dataclass(frozen=True, slots=True)
class Vote:
    """One candidate's vote for an answer; ``None`` is no answer and counts for nothing."""

    place: Place
    key: Key | None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes for one answer."""

    key: Key
    votes: tuple[Vote, ...]
    """In declared order."""
    weight: Fraction
    """Exact sum of their weights."""

    @property
    def first(self) -> Place:
        """The candidate that stands for this answer."""
        return self.votes[0].place

    def by_name(self, names: Sequence[str]) -> dict[str, int]:
        """Number of votes by the name of the member that cast them."""
        return dict(Counter(names[vote.place[0]] for vote in self.votes))


def tallied(votes: Collection[Vote]) -> list[Tally]:
    """One tally for each answer, the winner first.

    >>> [tally.key for tally in tallied([Vote((0, 0), "a"), Vote((0, 1), "b"), Vote((1, 0), "b")])]
    ['b', 'a']
    """
    by_key: dict[Key, list[Vote]] = {}
    for vote in sorted(votes, key=lambda vote: vote.place):
        if vote.key is not None:
            by_key.setdefault(vote.key, []).append(vote)
    tallies = [Tally(key, tuple(cast), sum(map(_weight, cast), Fraction())) for key, cast in by_key.items()]
    return sorted(tallies, key=lambda tally: (-tally.weight, tally.first))


def decided(votes: Collection[Vote], outstanding: Collection[Place]) -> bool:
    """Whether no outstanding vote (of weight 1 each) can change the winner or the candidate that stands for it.

    >>> decided([Vote((0, 0), "a"), Vote((0, 1), "a")], outstanding=[(0, 2)])
    True
    """
    tallies = tallied(votes)
    if not tallies:
        return not outstanding
    leader, runner_up = tallies[0], tallies[1].weight if len(tallies) > 1 else 0
    return leader.weight - runner_up > len(outstanding) and all(leader.first < place for place in outstanding)


def support(similarities: Matrix) -> list[Fraction]:
    """How much each text is like all the others: its row's exact sum without the diagonal. The largest is the medoid.

    >>> [float(s) for s in support([[1, 0.5, 0.25], [0.5, 1, 0.125], [0.25, 0.125, 1]])]
    [0.75, 0.625, 0.375]
    """
    return [
        sum((Fraction(value) for j, value in enumerate(row) if j != i), Fraction())
        for i, row in enumerate(similarities)
    ]


def unigram_f1(texts: Sequence[str]) -> Matrix:
    """Symmetric: twice the words (and punctuation marks) in common over the words of both, lower-cased.

    >>> unigram_f1(["return a + b", "print ( a )"])[0]
    [1.0, 0.25]
    """
    bags = [Counter(_words(text)) for text in texts]
    return [[_f1(left, right) for right in bags] for left in bags]


def sentence_bleu(texts: Sequence[str]) -> Matrix:
    """Lower-cased sentence BLEU in [0, 1] of text i as hypothesis against text j; not symmetric, favours short texts.

    Up to 4-grams, orders that the hypothesis is too short for left out; the k-th order without a match counts
    1 / 2^k matches.

    >>> matrix = sentence_bleu(["return a + b", "return a + b + 0"])
    >>> round(100 * matrix[0][1], 2), round(100 * matrix[1][0], 2)
    (60.65, 50.81)
    """
    grams = [_grams(_words(text)) for text in texts]
    return [[_bleu(hypothesis, reference) for reference in grams] for hypothesis in grams]


SIMILARITIES: Mapping[str, Callable[[Sequence[str]], Matrix]] = {"f1": unigram_f1, "bleu": sentence_bleu}
"""Similarities of texts, by option value."""


def _weight(vote: Vote) -> Fraction:
    return Fraction(vote.weight)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _f1(left: Counter[str], right: Counter[str]) -> float:
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else 1.0


def _grams(words: Sequence[str]) -> list[Counter[tuple[str, ...]]]:
    return [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, _ORDERS + 1)]


def _bleu(hypothesis: list[Counter[tuple[str, ...]]], reference: list[Counter[tuple[str, ...]]]) -> float:
    written, wanted = hypothesis[0].total(), reference[0].total()
    totals = [grams.total() for grams in hypothesis if grams]
    matches = [(mine & theirs).total() for mine, theirs in zip(hypothesis, reference, strict=True)][: len(totals)]
    if not any(matches):
        return float(written == wanted == 0)
    misses = accumulate(int(not match) for match in matches)
    logs = (
        math.log((match or 0.5**missed) / total) for match, missed, total in zip(matches, misses, totals, strict=True)
    )
    return math.exp(math.fsum(logs) / len(totals) + min(0.0, 1 - wanted / written))
