"""PackLLM: how surprised each member is by the prompt decides how much it counts in the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ensemble.during.token.drafting.drafts import Drafting
from ensemble.during.token.drafting.rulings import DraftRule
from ensemble.during.token.drafting.speculation import admit_drafting, check_drafting, speculative
from ensemble.during.token.election.geometric import GeometricUnion, Pool, admit_pooled, geometric
from ensemble.during.token.gac import Average
from ensemble.during.token.lockstep import lockstep
from ensemble.during.token.prompting.reading import Reading, read
from ensemble.during.token.prompting.weighing import fitted_weights, positions, softmax_weights
from ensemble.during.token.unite import UnionTopK, UniteOptions
from ensemble.errors import ConfigurationError
from ensemble.member import Capability, Card, Floats, Member
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request, Sampling, Trace
from ensemble.sampling import seeded

_TAU = 1.0
_STEP = 0.05


class PackllmOptions(Options):
    """Options of ``packllm``."""

    weights: Literal["sim", "opt", "top1"] = "sim"
    """How members' losses on the prompt become weights. ``sim``: softmax(-loss / tau). ``opt``: the weights with which
    the mixture has the smallest loss on the prompt, found member by member. ``top1``: all to the smallest loss."""
    tau: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Nats for each byte (for each token with ``fidelity: reference``) by which a loss must differ to change a weight
    e-fold; smaller trusts losses more. Only with ``sim``. Omitted: 1."""
    offsets: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None
    """One number for each member: nats for each byte (or token) by which its losses are larger for other reasons than
    skill, as ``ensemble fit packllm`` finds them; taken off before losses are compared. Omitted: 0 for all."""
    step: float | None = Field(None, gt=0, le=0.5)
    """Width of the grid on which weights are tried. Only with ``opt``. Omitted: 0.05."""
    prompt_topk: int = Field(256, ge=1)
    """Tokens a member lists at each position of the prompt, with ``opt``; what is not listed counts as one token.
    Omitted: 256."""
    release: float = Field(0.01, ge=0, lt=1)
    """Members with less weight take no part in the answer. Omitted: 0.01."""
    combine: Literal["logits", "probabilities"] = "logits"
    """``logits``: weighted sums of logits, that is P ∝ Π pᵢ^wᵢ. ``probabilities``: P = Σ wᵢ·pᵢ."""
    topk: int = Field(10, ge=1)
    """Tokens each member nominates where vocabularies differ. Omitted: 10."""
    listed: int = Field(64, ge=1)
    """Tokens each member lists at first at temperature 0. Omitted: 64."""
    duplicates: Literal["keep", "mask"] | None = None
    """As in ``unite``, where vocabularies differ. Omitted: ``keep`` with ``logits``, where no share would be a veto;
    ``mask`` with ``probabilities``."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference``: losses are means over each member's own tokens, which favours coarse vocabularies; else they are
    means over bytes."""
    draft: Drafting | None = None
    """Decide in blocks that members draft (``speculative_ensemble``): the same answers, or as likely ones, sooner. For
    members of one vocabulary. Omitted: token by token."""


@method(
    "packllm",
    stage=Stage.TOKEN,
    paper="2404.11531",
    needs={Capability.GENERATE, Capability.SESSIONS},
    options=PackllmOptions,
)
class Packllm(Method[PackllmOptions]):
    """PackLLM (arXiv 2404.11531): weights per prompt, from the members' losses on it; then weighted sums of logits.

    A trace ``weights`` comes before any text: by member ``weights`` and ``losses`` (nats for each byte, or token), and
    ``positions``, those that ``opt`` could compare.

    What is scored is the last user message (or the raw prompt) alone, without template, less its first characters.

    Asks of members: sessions and ``tokenise``. First the prompt, at all members at once: one list of texts to spell,
    and one session that reads it and is closed. With ``opt`` 8·prompt_topk bytes come back for each of its tokens,
    and 1/step sums over all of these for each member but the first are taken in a thread; with the others 4 bytes. As
    the conversation in its template is read again for the answer, the prompt costs a member up to twice its tokens.
    The answer costs what ``purify`` (one vocabulary) or ``unite`` (several) cost, for members that are not released: as
    a rule, the pace of the slowest. Members that are released are not called for it; with ``top1`` one answers.

    Departures from the paper and its code:

    * Each member reads the prompt in its own tokenisation; published code feeds it a token-by-token translation of
      another's. Losses are means over bytes (``fidelity: reference``: over tokens).
    * Chat templates are not scored.
    * ``opt`` compares members where all have the same bytes as their next token, from lists; published code compares
      whole logits of translated tokens. Where there is no such place the weights are those of ``sim``, and
      ``positions`` is 0. From lists the losses of members are exact and those of mixtures estimates.
    * Log-probabilities replace logits: the same mixture, whatever constants logits have.
    * Strings are brought together by bytes, as in ``unite``, not by edit distance.
    * Weights are found once for a prompt and kept for the answer; members with little weight are released. After a
      member has been lost those that are left are weighed anew.
    * ``offsets`` and ``tau`` can be fitted to who should answer; published weights have τ = 1 and no offsets.
    * A prompt of fewer than two characters has no loss: all weights are equal with ``sim`` and ``opt``.
    * Drawing needs full distributions where all members have one vocabulary; else strings are drawn from the union of
      the members' lists.
    """

    options: PackllmOptions
    caps = MappingProxyType({"topk": 128, "listed": 1024, "prompt_topk": 1024})

    def check(self, members: Sequence[Card]) -> None:
        options = self.options
        for name, weights in (("tau", "sim"), ("step", "opt")):
            if getattr(options, name) is not None and options.weights != weights:
                raise ConfigurationError(f"{name} has a meaning only with weights: {weights}", param=name)
        if options.offsets is not None and len(options.offsets) != len(members):
            names = ", ".join(card.name for card in members)
            rule = f"needs one number for each of the {len(members)} members ({names}); it has {len(options.offsets)}"
            raise ConfigurationError(f"offsets {rule}", param="offsets")
        if options.draft is not None:
            check_drafting(options.draft, members)

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        seats = range(len(members))
        if _one_vocabulary(members) and not self._averages_greedily(request.sampling):
            admit_pooled(request, seats, members)
        if self.options.draft is not None:
            admit_drafting(request, self.options.draft, seats, members)

    def calls(self, members: int) -> Sequence[int]:
        return (2,) * members

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        found = await self._weighed(request.question, members)
        yield found.trace(members.names)
        weights = _kept(found.weights, self.options.release)
        async with aclosing(self._answer(request, members, weights)) as events:
            async for event in events:
                yield event

    async def _weighed(self, text: str, members: Sequence[Member]) -> Weighed:
        options = self.options
        readings: list[Reading] = []
        if len(text) > 1:
            readings = await read(members, text, options.prompt_topk if options.weights == "opt" else 0)
        losses = self._losses(readings, len(members))
        if options.weights == "top1":
            return Weighed(np.eye(len(losses))[int(np.argmin(losses))], losses)
        if options.weights == "opt" and readings:
            # Some ten million additions for a long prompt: other requests go on meanwhile.
            weights, count = await asyncio.to_thread(_fitted, readings, losses, options.step or _STEP)
            if weights is not None:
                return Weighed(weights, losses, count)
        return Weighed(softmax_weights(losses, options.tau or _TAU), losses)

    def _losses(self, readings: Sequence[Reading], members: int) -> list[float]:
        """By member, less what they have for other reasons than skill; all 0 where nothing was read."""
        if not readings:
            return [0.0] * members
        told = [reading.loss(by_token=self.options.fidelity == "reference") for reading in readings]
        return [loss - offset for loss, offset in zip(told, self.options.offsets or (0.0,) * members, strict=True)]

    def _averages_greedily(self, sampling: Sampling) -> bool:
        """Whether lists are enough even where log-probabilities are reported."""
        return sampling.greedy and self.options.combine == "probabilities"

    def _answer(self, request: Request, members: Members, weights: Mapping[int, float]) -> AsyncGenerator[Event, None]:
        cards = [members[seat].card for seat in weights]
        whole = all(Capability.FULL_DISTRIBUTION in card.capabilities for card in cards)
        plain = request.sampling.greedy and request.sampling.logprobs is None
        listed = plain or self._averages_greedily(request.sampling)
        rule = self._rule(weights, request.sampling, exact=_one_vocabulary(cards) and (listed or whole))
        if self.options.draft is not None:
            return speculative(request, members, rule, self.options.draft)
        return lockstep(request, members, rule)

    def _rule(self, weights: Mapping[int, float], sampling: Sampling, *, exact: bool) -> DraftRule:
        options = self.options
        logits = options.combine == "logits"
        if exact and logits:
            return Pool(weights, geometric(list(weights.values())), sampling, options.listed)
        if exact:
            return Average(weights, sampling, options.listed)
        duplicates = options.duplicates or ("keep" if logits else "mask")
        union = UniteOptions(topk=options.topk, listed=options.listed, duplicates=duplicates)
        return (GeometricUnion if logits else UnionTopK)(union, weights, sampling)


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the prompt said of the members. M members."""

    weights: Floats
    """Shape [M], sums to 1."""
    losses: Sequence[float]
    """Nats for each byte or token."""
    positions: int = 0
    """Those that mixtures were compared at."""

    def trace(self, names: Sequence[str]) -> Trace:
        weights, losses = (dict(zip(names, map(float, row), strict=True)) for row in (self.weights, self.losses))
        return Trace("weights", {"weights": weights, "losses": losses, "positions": self.positions})


def _fitted(readings: Sequence[Reading], losses: Sequence[float], step: float) -> tuple[Floats | None, int]:
    """Weights of the mixture with the smallest loss, and the number of positions; ``None`` without any."""
    where = positions(readings)
    return (None, 0) if where is None else (fitted_weights(where, losses, step), len(where.starts))


def _kept(weights: Floats, least: float) -> dict[int, float]:
    """Weights by seat, summing to 1, without those below ``least``; the largest always stays.

    >>> _kept(np.array([0.6, 0.399, 0.001]), 0.01)
    {0: 0.6006006006006006, 1: 0.39939939939939945}
    """
    kept = {seat: float(w) for seat, w in enumerate(weights) if w > 0 and (w >= least or w == weights.max())}
    return {seat: w / sum(kept.values()) for seat, w in kept.items()}


def _one_vocabulary(members: Sequence[Card]) -> bool:
    """Whether the cards tell so."""
    return bool(members[0].vocabulary) and len({card.vocabulary for card in members}) == 1
