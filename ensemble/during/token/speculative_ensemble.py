"""Speculative Ensemble: exact ensembles of members of one vocabulary, decided in blocks that members draft in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from ensemble.during.token.drafting.drafts import Drafting
from ensemble.during.token.drafting.rulings import DraftRule
from ensemble.during.token.drafting.speculation import admit_drafting, check_drafting, speculative
from ensemble.during.token.election.targets import Contrast, Mixture
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.during.token.gac import Average
from ensemble.errors import ConfigurationError
from ensemble.member import Capability, Card
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import seeded

_ALPHA = 0.1
_PLAUSIBILITY = 0.1


class SpeculativeEnsembleOptions(Options):
    """Options of ``speculative_ensemble``."""

    target: Literal["weights", "contrastive"] = "weights"
    """``weights``: the weighted mean of the members' probabilities. ``contrastive``: softmax of log p - alpha·log q, p
    the expert's probabilities and q the amateur's; for two members."""
    weights: Weights | None = None
    """One number for each member, normalised; only with ``weights``. A member with 0 only drafts, or is never called
    (see ``draft.lengths``). Omitted: all equal."""
    alpha: float | None = Field(None, gt=0, le=1)
    """How much the amateur counts; only with ``contrastive``. Omitted: 0.1."""
    amateur: str | None = None
    """Name of the weaker member; only with ``contrastive``. Omitted: the first member."""
    plausibility: float | None = Field(None, ge=0, le=1)
    """Only tokens with at least this part of the likeliest token's probability at the expert can be elected; only with
    ``contrastive``. 0: all, so that a token that neither finds likely may win; needs whole distributions. Omitted:
    0.1."""
    processing: Literal["members", "ensemble"] = "members"
    """Whether temperature, top_p and top_k shape each member's distribution, or the combined one. At temperature 0
    there is no difference: the likeliest token of the combined distributions is taken."""
    topk: int = Field(20, ge=1, le=1024)
    """Tokens listed at each position at temperature 0; a position that lists do not decide is asked about again."""
    draft: Drafting = Drafting()
    """How members draft."""


@method(
    "speculative_ensemble",
    stage=Stage.TOKEN,
    paper="2502.01662",
    needs={Capability.GENERATE, Capability.SESSIONS},
    options=SpeculativeEnsembleOptions,
)
class SpeculativeEnsemble(Method[SpeculativeEnsembleOptions]):
    """Speculative ensemble (arXiv 2502.01662): drafts are accepted against the ensemble's distribution, not a
    member's; the token that a verifier adds opens the next block.

    Asks of members: sessions and one vocabulary; with temperature above 0 also full distributions. For each block one
    exchange with the member that drafts and one with each that verifies: 8·topk bytes for each position, or at
    temperature above 0 all log-probabilities.

    Departures from the paper and its code:

    * Members that lack distributions at queued positions score them at the same time, each on its own machine;
      published code lets them score in turn, each adding to the queue. One of them adds. With two members it is the
      same.
    * The first token is elected without drafts, as prompts are then read by all members at once.
    * At temperature 0 lists travel, with a certificate that they decide as whole distributions would.
    * Draft lengths follow acceptance and measured speed (``draft.adaptive: false`` keeps them).
    * Contrastive targets take log-probabilities for logits, which is the same, and have a plausibility constraint. Of
      top_p and top_k under ``processing: members`` the amateur is spared: leaving a token out would favour it.
    * Ids of equal bytes, and all stop ids, are one choice; a draft is kept only where all members commit the very id.
    """

    options: SpeculativeEnsembleOptions

    def check(self, members: Sequence[Card]) -> None:
        options = self.options
        check_drafting(options.draft, members)
        if options.target == "weights":
            for name in ("alpha", "amateur", "plausibility"):
                if getattr(options, name) is not None:
                    raise ConfigurationError(f"{name} has a meaning only with target: contrastive", param=name)
            check_weights(options.weights or "average", members)
            return
        names = [card.name for card in members]
        if options.weights is not None:
            raise ConfigurationError("weights have a meaning only with target: weights", param="weights")
        if len(members) != 2:
            rule = f"target: contrastive takes two members, an expert and an amateur; there are {len(members)}"
            raise ConfigurationError(rule, param="members")
        if options.amateur is not None and options.amateur not in names:
            rule = f"amateur {options.amateur!r} is no member; members: {', '.join(names)}"
            raise ConfigurationError(rule, param="amateur")
        if options.plausibility == 0:
            _require_whole(members)

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        options = self.options
        weights = options.weights if options.target == "weights" else None
        seats = list(shares(weights or "average", len(members)))
        admit_drafting(request, options.draft, seats, members)

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        rule = self._rule(request.sampling, members.names)
        return speculative(request, members, rule, self.options.draft)

    def _rule(self, sampling: Sampling, names: Sequence[str]) -> DraftRule:
        options = self.options
        each = options.processing == "members" and not sampling.greedy
        if options.target == "weights":
            weights = shares(options.weights or "average", len(names))
            return Mixture(weights, sampling) if each else Average(weights, sampling, options.topk)
        amateur = 0 if options.amateur is None else names.index(options.amateur)
        alpha = _ALPHA if options.alpha is None else options.alpha
        least = _PLAUSIBILITY if options.plausibility is None else options.plausibility
        return Contrast(1 - amateur, amateur, sampling, options.topk, alpha=alpha, plausibility=least, each=each)


def _require_whole(members: Sequence[Card]) -> None:
    for card in members:
        if Capability.FULL_DISTRIBUTION not in card.capabilities:
            rule = f"plausibility must be above 0: without it {card.name} would have to give full distributions"
            raise ConfigurationError(rule, param="plausibility", member=card.name)
