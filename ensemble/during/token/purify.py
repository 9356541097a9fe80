"""Purify: a strong model and a small benign one, mixed so that the answer cannot stray far from either (CP-Δ)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.during.token.drafting.drafts import Drafting
from ensemble.during.token.drafting.speculation import admit_drafting, check_drafting, speculative
from ensemble.during.token.election.certificate import Tally
from ensemble.during.token.election.geometric import Pool, Pooling, admit_pooled, check_one_vocabulary, geometric, least
from ensemble.during.token.lockstep import lockstep
from ensemble.errors import ConfigurationError
from ensemble.member import Capability, Card, Floats
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Finish, Request, Sampling, Trace
from ensemble.sampling import processed, seeded
from ensemble.vocabulary import Union

_ALPHA = 0.5

Divergence = Literal["kl", "max"]


class PurifyOptions(Options):
    """Options of ``purify``."""

    benign: str | None = None
    """Name of the member that was trained on clean data alone. Omitted: the last member."""
    divergence: Divergence = "kl"
    """``kl``: P ∝ p_large^alpha · p_benign^beta. ``max``: P ∝ min(p_large, p_benign)."""
    alpha: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Exponent of the large member's probabilities; larger is more able and less clean; 0: it is never asked. Only with
    ``kl``. Omitted: 0.5."""
    beta: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Exponent of the benign member's probabilities; 0: it is never asked, and nothing is bounded. Only with ``kl``.
    Omitted: 1 - alpha."""
    floor: float = Field(0.0, ge=0, lt=1)
    """The benign member's probability of any text counts as at least this, so that rare words that it does not know
    are not lost. The bound is then one on the divergence from the benign member so raised, and grows by up to
    ln(1 + floor · tokens of the vocabulary) for each token. Omitted: 0."""
    topk: int = Field(64, ge=1, le=4096)
    """Tokens listed at first at temperature 0; more are asked for where they do not decide. Longer lists make the
    reported bound tighter. Omitted: 64."""
    draft: Drafting | None = None
    """Decide in blocks that members draft (``speculative_ensemble``): the same answers, or as likely ones, sooner.
    Omitted: token by token."""


@method(
    "purify",
    stage=Stage.TOKEN,
    paper="2402.14845",
    needs={Capability.GENERATE, Capability.SESSIONS},
    options=PurifyOptions,
)
class Purify(Method[PurifyOptions]):
    """CP-Δ (arXiv 2402.14845): P(u) ∝ p_large(u)^α · p_benign(u)^β over classes u of equal bytes, or the smaller of
    both. What one of the two holds impossible is never written; an average of probabilities would write it.

    The stream ends with one trace ``purity``: ``steps``, tokens decided; ``bound``, in nats over the answer, and
    ``largest``, that of a single token; ``exact``, whether ``bound`` comes from whole distributions. Else it comes from
    lists and is too large by what they leave out, never too small. With Z the normaliser of a step:

    * ``kl``: KL(P‖p_benign) ≤ -ln Z / β. With α = β = ½ that is -2 ln Z = KL(P‖p_large) + KL(P‖p_benign). Exponents
      that sum to less than 1 add (1 - α - β) · ln(size of the vocabulary) to -ln Z.
    * ``max``: ln P(u)/p(u) ≤ -ln Z for every u and both members.

    The bound is that of the mixture at temperature 1. ``drawn`` is what was really drawn from, after temperature, top_p
    and top_k: the sum of KL(·‖p_benign), or of the largest log-ratio with ``max``; null at temperature 0, where nothing
    is drawn, and infinite values are null as well.

    Asks of members: sessions and one vocabulary; above temperature 0, and where log-probabilities are reported, full
    distributions (4 bytes for each token of the vocabulary and member). At temperature 0 one exchange with each for
    each token, both at once: 8·topk bytes up and an id down. Lists that do not decide cost a look-up or longer lists.
    Both members compute every token: the large one's pace, the cost of both.

    Departures from the paper:

    * Classes of equal bytes and one stop class replace ids.
    * Temperature is applied once, to the mixture, as are top_p and top_k.
    * ``floor`` and the exact divergence of what was drawn are extensions.
    * With ``draft`` tokens that were decided behind a stop string count as well: the sums may be too large.
    """

    options: PurifyOptions
    naming = ("benign",)

    def check(self, members: Sequence[Card]) -> None:
        options, names = self.options, [card.name for card in members]
        if len(members) != 2:
            rule = f"purify takes two members, a large one and a benign one; there are {len(members)}"
            raise ConfigurationError(rule, param="members")
        if options.benign is not None and options.benign not in names:
            rule = f"benign {options.benign!r} is no member; members: {', '.join(names)}"
            raise ConfigurationError(rule, param="benign")
        check_one_vocabulary(members, "purify needs members of one vocabulary")
        if options.divergence == "max":
            for name in ("alpha", "beta"):
                if getattr(options, name) is not None:
                    raise ConfigurationError(f"{name} has a meaning only with divergence: kl", param=name)
        elif self._exponents()[1] < 0:
            raise ConfigurationError("alpha must be at most 1 where beta is left out", param="alpha")
        elif not any(self._exponents()):
            raise ConfigurationError("alpha or beta must be above 0", param="alpha")
        if options.draft is not None:
            check_drafting(options.draft, members)

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        seats = list(self._weights([card.name for card in members]))
        admit_pooled(request, seats, members)
        if self.options.draft is not None:
            admit_drafting(request, self.options.draft, seats, members)

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        rule = Purifying(self.options, self._weights(members.names), self._benign(members.names), request.sampling)
        drafting = self.options.draft
        async with aclosing(
            lockstep(request, members, rule) if drafting is None else speculative(request, members, rule, drafting)
        ) as events:
            async for event in events:
                if isinstance(event, Finish):
                    yield Trace("purity", rule.account())
                yield event

    def _exponents(self) -> tuple[float, float]:
        alpha = _ALPHA if self.options.alpha is None else self.options.alpha
        return alpha, 1 - alpha if self.options.beta is None else self.options.beta

    def _benign(self, names: Sequence[str]) -> int:
        return len(names) - 1 if self.options.benign is None else names.index(self.options.benign)

    def _weights(self, names: Sequence[str]) -> dict[int, float]:
        """Exponents by seat; seats that are never asked are left out."""
        benign = self._benign(names)
        alpha, beta = self._exponents() if self.options.divergence == "kl" else (0.5, 0.5)
        return {seat: w for seat in range(2) if (w := beta if seat == benign else alpha) > 0}


class Purifying(Pool):
    """The mixture of CP-Δ, and the account of how far it is from the benign member."""

    def __init__(self, options: PurifyOptions, weights: Mapping[int, float], benign: int, sampling: Sampling) -> None:
        """
        Args:
            weights: exponents by seat; of ``divergence: max`` those of credits.
            benign: its seat; it may have no exponent.
        """
        self._row = list(weights).index(benign) if benign in weights else None
        """The benign member's, among those that are asked."""
        self._max = options.divergence == "max"
        self._exponents = list(weights.values())
        self._floor = options.floor
        pooling = least if self._max else geometric(self._exponents)
        if self._row is not None and self._floor:
            pooling = floored(pooling, self._row, self._floor)
        super().__init__(weights, pooling, sampling, options.topk)
        self._bounds: list[float] = []
        self._drawn: list[float] = []
        self._exact = True

    def decided(self, union: Union, seen: Tally) -> None:
        self._exact = self._exact and not seen.rest and not seen.missing.any()
        self._bounds.append(self._bound(float(seen.known.sum()), union.size))
        if not self._sampling.greedy:
            self._drawn.append(self._divergence(seen))

    def account(self) -> dict[str, float | bool | None]:
        """What the trace holds."""
        return {
            "steps": len(self._bounds),
            "bound": _finite(sum(self._bounds)),
            "largest": _finite(max(self._bounds, default=0.0)),
            "exact": self._exact,
            "drawn": None if self._sampling.greedy else _finite(sum(self._drawn)),
        }

    def _bound(self, normaliser: float, size: int) -> float:
        """Nats between the mixture and the benign member at most; the less of the normaliser is known, the more."""
        if self._row is None:
            return math.inf
        raised = math.log1p(self._floor * size)
        if self._max:
            return max(0.0, -math.log(normaliser)) + raised
        flatter = max(0.0, 1 - sum(self._exponents)) * math.log(size)
        return max(0.0, flatter - math.log(normaliser)) / self._exponents[self._row] + raised

    def _divergence(self, seen: Tally) -> float:
        """Nats between what is drawn from and the benign member."""
        if self._row is None:
            return math.inf
        with np.errstate(divide="ignore"):
            drawn = processed(np.log(seen.known), self._sampling)
        benign = seen.masses[self._row]
        if self._floor:
            benign = np.maximum(benign, self._floor)
            benign = benign / benign.sum()
        ratios = np.log(drawn[drawn > 0] / benign[drawn > 0])
        return float(ratios.max() if self._max else drawn[drawn > 0] @ ratios)


def floored(pooling: Pooling, row: int, floor: float) -> Pooling:
    """The pooling of masses of which those in one row count as ``floor`` at least."""

    def pool(masses: Floats) -> Floats:
        raised = masses.copy()
        raised[row] = np.maximum(raised[row], floor)
        return pooling(raised)

    return pool


def _finite(nats: float) -> float | None:
    return nats if math.isfinite(nats) else None
