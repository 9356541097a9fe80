"""Mixtures that every member can veto: P(u) ∝ Π pᵢ(u)^wᵢ, or P(u) ∝ minᵢ pᵢ(u), over one vocabulary.

Any function of a class's masses that no larger mass makes smaller can take the place of the weighted mean: upper bounds
of the masses then give upper bounds of its values, so that lists decide wherever the whole vocabularies could not
decide otherwise. Knows nothing of what the mixtures are good for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ensemble.during.token.drafting.rulings import DraftRule, Ruling, counted, one_hot
from ensemble.during.token.election.ballot import Ballot
from ensemble.during.token.election.certificate import Certain, Evidence, Tally, verdict
from ensemble.during.token.election.poll import Poll
from ensemble.during.token.lockstep import Decision, Panel
from ensemble.during.token.unite import UnionTopK
from ensemble.errors import BadAnswer, BadRequest, ConfigurationError
from ensemble.member import Capability, Card, Distribution, Floats
from ensemble.request import Request, Sampling
from ensemble.sampling import draw, processed
from ensemble.vocabulary import Ids, Union, Vocabulary, union_of

_LEAST = float(np.finfo(np.float32).tiny)
"""What a share of 0 counts as in a product: a veto, but an order is left where all strings are vetoed."""
_ROUNDING = 1e-5
"""Logarithms of shares made of float32 log-probabilities are off by less."""

Pooling = Callable[[Floats], Floats]
"""From masses, shape [M, C], to values of classes, shape [C]: at least 0, and no smaller where a mass is larger."""


def geometric(exponents: Sequence[float]) -> Pooling:
    """The product of powers of the masses; 0 where a member with an exponent above 0 has none.

    >>> geometric([0.5, 0.5])(np.array([[0.9, 0.05, 0.05], [0.1, 0.6, 0.3]])).round(6).tolist()
    [0.3, 0.173205, 0.122474]
    """
    powers = np.array(exponents)

    def pool(masses: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(np.exp(powers @ np.log(masses)))

    return pool


def least(masses: Floats) -> Floats:
    """The smallest of the masses."""
    return np.asarray(masses.min(axis=0))


class Pool(DraftRule):
    """The largest class of a mixture, or a draw from it after temperature, top-k and top-p."""

    def __init__(self, weights: Mapping[int, float], pooling: Pooling, sampling: Sampling, topk: int) -> None:
        """
        Args:
            weights: by seat, of its masses in credits; seats that are missing are never asked.
            sampling: with a seed unless greedy.
            topk: tokens listed at first; whole distributions are asked for where tokens are drawn or reported.
        """
        self.weights = weights
        self.seats = list(weights)
        self.listed = topk if sampling.greedy and sampling.logprobs is None else 0
        self._pooling = pooling
        self._sampling = sampling

    async def elect(self, panel: Panel, position: int) -> Decision:
        poll = _Pooled(panel, self.listed, self._pooling)
        await poll.ask(self.seats)
        if not position:
            _require_one([panel.vocabulary(seat) for seat in self.seats])
        if self._sampling.greedy:
            seen, column = await poll.settled(self.weights)
            _require_mass(seen)
        else:
            seen = poll.tally(self.weights)
            _require_mass(seen)
            with np.errstate(divide="ignore"):
                column = draw(np.log(seen.known), self._sampling, position)
        self.decided(panel.union(self.seats), seen)
        ballot = poll.ballot(self.weights, replace(seen, known=seen.known / seen.known.sum()))
        return ballot.decision(column, self._sampling.logprobs)

    def ruling(self, vocabularies: Sequence[Vocabulary], told: Sequence[Distribution]) -> Ruling | None:
        union = union_of(vocabularies)
        counts, ballot = counted(union, told, self.weights)
        evidence = [Evidence.of(distribution) for distribution in told] if counts.missing.any() or counts.rest else []
        seen = pooled(union, counts, evidence, self._pooling)
        chances = self._chances(seen)
        if chances is None:
            return None
        _require_mass(seen)
        self.decided(union, seen)
        return Ruling(replace(ballot, mean=seen.known / seen.known.sum()), chances)

    def decided(self, union: Union, seen: Tally) -> None:
        """A decision has been taken from this tally, in order of positions. For rules that keep an account."""

    def _chances(self, seen: Tally) -> Floats | None:
        if not self._sampling.greedy:
            _require_mass(seen)
            with np.errstate(divide="ignore"):
                return processed(np.log(seen.known), self._sampling)
        found = verdict(seen)
        return one_hot(len(seen.classes), found.column) if isinstance(found, Certain) else None


class _Pooled(Poll):
    """A poll that is decided by pooled masses."""

    def __init__(self, panel: Panel, topk: int, pooling: Pooling) -> None:
        super().__init__(panel, topk, union_of)
        self._pooling = pooling

    def tally(self, seats: Mapping[int, float]) -> Tally:
        evidence = [self._evidence[seat] for seat in seats]
        return pooled(self._union(seats), super().tally(seats), evidence, self._pooling)


def pooled(union: Union, seen: Tally, evidence: Sequence[Evidence], pooling: Pooling) -> Tally:
    """A tally whose sums and bounds are those of pooled masses.

    Args:
        seen: what ``evidence``, in the order of the union's vocabularies, says of the masses.
    """
    known = pooling(seen.masses)
    if not seen.rest and not seen.missing.any():
        return replace(seen, known=known)
    floors, tails = (np.array([[getattr(told, name)] for told in evidence]) for name in ("floor", "tail"))
    upper = pooling(seen.masses + np.minimum(tails, seen.unseen * floors))
    rest = pooling(np.minimum(tails, floors * np.array(union.largest)[:, None]))
    return replace(seen, known=known, missing=np.maximum(upper - known, 0.0), rest=float(rest[0]))


class GeometricUnion(UnionTopK):
    """The shares of UniTE, combined by their weighted geometric mean: for members of different vocabularies."""

    averages = False

    def ballot(self, union: Union, classes: Ids, masses: Floats, told: Sequence[tuple[Ids, Floats]]) -> Ballot:
        mean = np.exp(self._logs(masses) - self._logs(masses).max())
        return Ballot(union, self._weights, classes, masses, mean / mean.sum(), told)

    def certain(self, masses: Floats, missing: Floats) -> int | None:
        # What a member's shares are divided by is the same for all strings, so that masses are compared as they are.
        lower, upper = self._logs(masses), self._logs(masses + missing)
        column = int(lower.argmax())
        upper[column] = -np.inf
        sure = masses[:, column].all() and lower[column] > upper.max() + _ROUNDING
        return column if sure else None

    def _logs(self, masses: Floats) -> Floats:
        return np.asarray(np.array(list(self._weights.values())) @ np.log(np.maximum(masses, _LEAST)))


def check_one_vocabulary(members: Sequence[Card], rule: str) -> None:
    """Refuse members whose cards tell that their vocabularies differ.

    Args:
        rule: what is needed, as the message begins.

    Raises:
        ConfigurationError: naming two of them.
    """
    known = [card for card in members if card.vocabulary]
    for card in known:
        if card.vocabulary != known[0].vocabulary:
            differ = f"those of {known[0].name} and {card.name} differ"
            raise ConfigurationError(f"{rule}; {differ}", param="members")


def admit_pooled(request: Request, seats: Sequence[int], members: Sequence[Card]) -> None:
    """Refuse a request that takes whole distributions where members do not give them.

    Raises:
        BadRequest: naming the field and the member.
    """
    sampling = request.sampling
    if sampling.greedy and sampling.logprobs is None:
        return
    param, rule = ("logprobs", "left out") if sampling.greedy else ("temperature", "0")
    for seat in seats:
        if Capability.FULL_DISTRIBUTION not in members[seat].capabilities:
            name = members[seat].name
            why = f"{param} must be {rule}: a product of probabilities is normalised over full distributions"
            raise BadRequest(f"{why}, and {name} does not give them", param=param, member=name)


def _require_one(vocabularies: Sequence[Vocabulary]) -> None:
    if len({vocabulary.fingerprint for vocabulary in vocabularies}) > 1:
        raise BadRequest("a product of probabilities needs members of one vocabulary; these differ", param="model")


def _require_mass(seen: Tally) -> None:
    if not seen.known.any():
        raise BadAnswer("there is no text token or stop id that all members hold possible")
