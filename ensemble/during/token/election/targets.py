"""What a speculative ensemble draws from besides the mean of raw distributions: mixtures of what members would draw
from themselves, and contrasts. Rules that can be used token by token as well; they know nothing of drafts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ensemble.during.token.drafting.rulings import DraftRule, Ruling, by_class, counted, one_hot, own_chances, row_of
from ensemble.during.token.election.certificate import Tally, weighted
from ensemble.during.token.election.poll import Poll
from ensemble.during.token.lockstep import Decision, Panel
from ensemble.member import Distribution, Floats
from ensemble.request import Sampling
from ensemble.sampling import pick, processed, uniform
from ensemble.vocabulary import Union, Vocabulary, union_of

_LEAST = float(np.finfo(np.float32).tiny)
"""What a probability of 0 counts as where its logarithm is taken."""


class WholeRule(DraftRule):
    """A rule that draws, from whole distributions."""

    def __init__(self, seats: Sequence[int], sampling: Sampling) -> None:
        self.seats = seats
        self.listed = 0
        self._sampling = sampling

    async def elect(self, panel: Panel, position: int) -> Decision:
        told = await panel.next(dict.fromkeys(self.seats, 0))
        ruling = self.ruling([panel.vocabulary(seat) for seat in self.seats], list(told.values()))
        assert ruling is not None, "whole distributions decide"
        point = uniform(self._sampling.seed or 0, position)
        return ruling.decision(pick(ruling.chances, point), self._sampling)


class Mixture(WholeRule):
    """A draw from the weighted mean of what members would draw from, each after temperature, top-k and top-p."""

    def __init__(self, weights: Mapping[int, float], sampling: Sampling) -> None:
        """
        Args:
            weights: by seat, summing to 1.
            sampling: not greedy; with a seed.
        """
        super().__init__(list(weights), sampling)
        self._weights = weights

    def ruling(self, vocabularies: Sequence[Vocabulary], told: Sequence[Distribution]) -> Ruling:
        union = union_of(vocabularies)
        own = [
            by_class(union, own_chances(row_of(distribution), vocabulary, self._sampling))
            for distribution, vocabulary in zip(told, vocabularies, strict=True)
        ]
        _, ballot = counted(union, told, self._weights)
        return Ruling(ballot, weighted(list(self._weights.values()), own))


class Contrast(WholeRule):
    """Softmax of log p - α·log q over plausible classes: its largest class, or a draw from it."""

    def __init__(
        self,
        expert: int,
        amateur: int,
        sampling: Sampling,
        topk: int,
        *,
        alpha: float,
        plausibility: float,
        each: bool = False,
    ) -> None:
        """
        Args:
            sampling: with a seed unless greedy.
            topk: tokens listed at first in greedy steps.
            each: temperature, top-k and top-p shape the expert's distribution, and temperature the amateur's; else
                they shape the contrast.
        """
        super().__init__([expert, amateur], sampling)
        self.listed = max(topk, sampling.logprobs or 0) if sampling.greedy and plausibility else 0
        self._weights = {expert: 1.0, amateur: 0.0}
        """The amateur writes nothing: what is elected is the expert's, adjusted."""
        self._alpha, self._plausibility, self._each = alpha, plausibility, each

    async def elect(self, panel: Panel, position: int) -> Decision:
        return await super().elect(panel, position) if not self.listed else await self._settled(panel)

    def ruling(self, vocabularies: Sequence[Vocabulary], told: Sequence[Distribution]) -> Ruling | None:
        union = union_of(vocabularies)
        seen, ballot = counted(union, told, self._weights)
        columns = self._plausible(seen)
        if columns is None or seen.unseen[1, columns].any():
            return None
        scores = self._scores(*seen.masses)
        ballot = replace(ballot, mean=_softmax(scores))
        if self._sampling.greedy:
            return Ruling(ballot, one_hot(len(scores), int(np.argmax(scores))))
        if self._each:
            return Ruling(ballot, _softmax(self._scores(*self._own(union, vocabularies, told))))
        return Ruling(ballot, processed(scores, self._sampling))

    async def _settled(self, panel: Panel) -> Decision:
        """Lists of the expert's that hold all that is plausible, and the amateur's masses of these."""
        topk, columns = self.listed, None
        while columns is None:
            poll = Poll(panel, topk, union_of)
            await poll.ask(self.seats)
            seen = poll.tally(self._weights)
            columns, topk = self._plausible(seen), 2 * topk
        seen = await poll.filled(self._weights, seen, columns)
        scores = self._scores(*seen.masses)
        ballot = replace(poll.ballot(self._weights, seen), mean=_softmax(scores))
        return ballot.decision(int(np.argmax(scores)), self._sampling.logprobs)

    def _plausible(self, seen: Tally) -> npt.NDArray[np.int64] | None:
        """Columns that can be elected; ``None`` if the expert may hold back another."""
        # The amateur has weight 0, so that the tally's sums and bounds are the expert's.
        least = self._plausibility * seen.known.max()
        hidden = max(float(np.where(seen.missing > 0, seen.known + seen.missing, 0.0).max()), seen.rest)
        if hidden > 0 and hidden >= least:
            return None
        return np.flatnonzero((seen.known >= least) & (seen.known > 0))

    def _own(
        self, union: Union, vocabularies: Sequence[Vocabulary], told: Sequence[Distribution]
    ) -> tuple[Floats, Floats]:
        """What both would draw from, shape [C]; of the amateur's nothing is left out."""
        tempered = replace(self._sampling, top_k=0, top_p=1.0)
        rows = [row_of(distribution) for distribution in told]
        expert = own_chances(rows[0], vocabularies[0], self._sampling)
        return by_class(union, expert), by_class(union, own_chances(rows[1], vocabularies[1], tempered))

    def _scores(self, expert: Floats, amateur: Floats) -> Floats:
        return contrast(expert, amateur, self._alpha, self._plausibility)


def contrast(expert: Floats, amateur: Floats, alpha: float, plausibility: float) -> Floats:
    """log p - α·log q, shape [C]; ``-inf`` where the expert has less than a part of its largest.

    Args:
        expert, amateur: shape [C], probabilities.

    >>> p, q = np.exp([0.5, 1.5, 0.0]), np.exp([1.0, 0.0, -1.0])
    >>> z = np.exp(contrast(p / p.sum(), q / q.sum(), 0.1, 0.1))
    >>> (z / z.sum()).round(6).tolist()
    [0.210749, 0.633125, 0.156127]
    """
    plausible = (expert >= plausibility * expert.max()) & (expert > 0)
    logs = np.log(np.maximum(expert, _LEAST)) - alpha * np.log(np.maximum(amateur, _LEAST))
    return np.where(plausible, logs, -np.inf)


def _softmax(scores: Floats) -> Floats:
    masses = np.exp(scores - scores.max())
    return np.asarray(masses / masses.sum())
