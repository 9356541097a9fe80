"""DeePEn: members meet in a space of similarities to shared tokens, and the main member searches its way back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, Self, cast

import numpy as np
from pydantic import Field

from ensemble.during.token.election.ballot import Ballot
from ensemble.during.token.election.certificate import Certain, Evidence, tally, verdict, whole
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.during.token.lockstep import Decision, Panel, Rule, lockstep
from ensemble.during.token.pivoting.digits import elected_number
from ensemble.during.token.pivoting.heads import ResidentOptions, check_heads, check_writer, writer
from ensemble.during.token.pivoting.projected import NOTHING, PivotUnion, pivot_union_of
from ensemble.errors import BadAnswer, BadRequest, ConfigurationError
from ensemble.member import Capability, Card, Distribution, Floats, Next
from ensemble.method import Members, Method, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import draw, seeded

_KIND = "relative"
_LEAST = 1e-30
"""Smallest probability of an anchor that has a logarithm in a message."""


class DeepenOptions(ResidentOptions):
    """Options of ``deepen``."""

    main: str | None = None
    """Name of the member that searches and writes. Omitted: the first member."""
    head: str = "deepen"
    """Name of the head of kind ``relative`` at every member. Omitted: ``deepen``."""
    weights: Weights = "average"
    """One number for each member, normalised; a member with 0 is never called, and the main one may not have it. The
    paper's adaptive weights are members' scores on development data. Omitted: all equal."""
    step: float = Field(0.15, ge=0, le=10)
    """Learning rate of the search (the paper's η), in units of logits; 0: the main member alone. Omitted: 0.15."""
    steps: int = Field(5, ge=1)
    """Of the search (the paper's T). Omitted: 5."""
    digits: bool = False
    """Where the main member's likeliest token is a number, members vote with their likeliest tokens, and what most of
    them say is written if it is a number; of several the one that comes first. Omitted: false."""
    topk: int = Field(20, ge=1)
    """Tokens of the main member that its search lists; all are asked for where they do not decide. Omitted: 20."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference``: the search divides the divergence by the number of anchors and decays logits, as published."""


@method(
    "deepen",
    stage=Stage.TOKEN,
    paper="2404.12715",
    needs={Capability.GENERATE, Capability.SESSIONS},
    options=DeepenOptions,
)
class Deepen(Method[DeepenOptions]):
    """Fusion in a relative space (arXiv 2404.12715): rᵢ = pᵢ·Rᵢ over tokens that all vocabularies share, r̄ = Σ wᵢ·rᵢ;
    the main member searches logits x whose softmax(x)·R is r̄, by T steps from its own; argmax of x.

    Asks of members: sessions, and a resident head of kind ``relative`` at each, of one fit (``ensemble fit deepen``);
    above temperature 0 full distributions of the main member. Two exchanges for each token: one with every member at
    once, 8 bytes up for each anchor, and one with the main member without a pass, 4 bytes down for each anchor and
    8·topk up. For 25,000 anchors that is 200 kB up for each member and token, and a matrix of V × anchors at each; the
    search reads the main member's 2·steps times. ``digits`` adds an exchange with all, of one token each.

    Where the main member's likeliest token is a stop id its answer ends, whatever the others say.

    Departures from the paper and its code:

    * The divergence is a sum over anchors, not a mean, and logits do not decay (``fidelity: reference`` has both as
      published). A search that has arrived at r̄ up to rounding takes no further steps.
    * Anchors are texts of equal bytes, not of equal spellings; special tokens are none.
    * Ids of the main member that stand for the same bytes are one class, and so are its stop ids. Ties go to the stop
      class, then to the smaller bytes; control ids are never elected.
    * A member with a token of its own for what was elected appends that; others adopt the text and keep the common
      prefix. Published code re-encodes everything at every token.
    * Stop strings end the text when they are written; published code lets the main member end alone behind them. A
      member that is late is a matter of the ensemble's failure policy.
    * Sampling (temperature, top-p, top-k) from softmax(x) is an extension.
    """

    options: DeepenOptions
    caps = MappingProxyType({"topk": 1024, "steps": 20})
    naming = ("main",)

    def check(self, members: Sequence[Card]) -> None:
        check_weights(self.options.weights, members)
        weights = shares(self.options.weights, len(members))
        main = check_writer("main", self.options.main, weights, members)
        heads = check_heads(self.options, members, weights, _KIND, self.name)
        for seat, head in heads.items():
            if head.space and heads[main].space and head.space != heads[main].space:
                names = f"{members[main].name} and {members[seat].name}"
                rule = f"the heads of {names} have different anchors; fit those of all members at once"
                raise ConfigurationError(rule, param="head")

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        main = members[writer(self.options.main, [card.name for card in members])]
        if not request.sampling.greedy and Capability.FULL_DISTRIBUTION not in main.capabilities:
            rule = "temperature must be 0: drawing from what was found needs full distributions"
            name = main.name
            raise BadRequest(f"{rule}, and {name} does not give them", param="temperature", member=name)

    def among(self, names: Sequence[str], present: Sequence[int]) -> Self:
        some = super().among(names, present)
        return type(self)(some.options.of_some(names[i] for i in present))

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        weights = shares(self.options.weights, len(members))
        main = writer(self.options.main, members.names)
        heads = {seat: self.options.head_at(members.names[seat]) for seat in weights}
        return lockstep(request, members, RelativeAverage(self.options, weights, main, heads, request.sampling))


class RelativeAverage(Rule):
    """The rule of DeePEn."""

    def __init__(
        self,
        options: DeepenOptions,
        weights: Mapping[int, float],
        main: int,
        heads: Mapping[int, str],
        sampling: Sampling,
    ) -> None:
        """
        Args:
            weights: by seat, summing to 1; seats that are missing are never asked.
            main: its seat.
            heads: by seat.
            sampling: with a seed unless greedy.
        """
        self._options, self._main, self._heads, self._sampling = options, main, heads, sampling
        alone = {main: 1.0}
        self._weights = alone if not options.step else {seat: weights[seat] for seat in (main, *weights)}
        self._listed = max(options.topk, sampling.logprobs or 0) if sampling.greedy else 0

    async def elect(self, panel: Panel, position: int) -> Decision:
        if len(self._weights) == 1:
            return await self._found(panel, "", None, position)
        if self._options.digits and (number := await elected_number(panel, list(self._weights))) is not None:
            return number
        target = np.log(np.maximum(await self._agreed(panel), _LEAST))
        reference = float(self._options.fidelity == "reference")
        given = np.concatenate([[self._options.step, self._options.steps, reference], target]).astype(np.float32)
        return await self._found(panel, self._heads[self._main], given, position)

    async def _agreed(self, panel: Panel) -> Floats:
        """The weighted mean of the members' relative vectors, shape [anchors]."""
        told = await panel.ask({seat: Next(0, head=self._heads[seat]) for seat in self._weights})
        vectors = {seat: cast(Distribution, vector) for seat, vector in told.items()}
        size = vectors[self._main].size
        mean = np.zeros(size)
        for seat, vector in vectors.items():
            if vector.size != size:
                rule = f"the heads of {panel.member(self._main).name} and {panel.member(seat).name} differ in anchors"
                raise ConfigurationError(f"{rule}; fit those of all members at once", param="head")
            mean[vector.ids] += self._weights[seat] * vector.probabilities
        return mean

    async def _found(self, panel: Panel, head: str, given: Floats | None, position: int) -> Decision:
        """The decision by what the main member's search finds; by its own distribution without a head."""
        decision = await self._listing(panel, Next(self._listed, head=head, given=given), position)
        if decision is None:
            decision = await self._listing(panel, Next(0, head=head, given=given), position)
        if decision is None:
            raise BadAnswer(f"{panel.member(self._main).name} has no text token or stop id to elect")
        return decision

    async def _listing(self, panel: Panel, question: Next, position: int) -> Decision | None:
        """The decision by one list; ``None`` if it does not decide."""
        told = Evidence.of(cast(Distribution, (await panel.ask({self._main: question}))[self._main]))
        # What is found counts for all that it was found with.
        union, all_ = self._union(panel), [told] * len(self._weights)
        seen = (tally if question.topk else whole)(union, all_, list(self._weights.values()))
        if not seen.known.any() or not (told.tail == 0 or isinstance(verdict(seen), Certain)):
            return None
        with np.errstate(divide="ignore"):
            column = draw(np.log(seen.known), self._sampling, position)
        facts = [(told.ids, told.masses), *[NOTHING] * (len(all_) - 1)]
        ballot = Ballot(union, self._weights, seen.classes, seen.masses, seen.known, facts)
        return ballot.decision(column, self._sampling.logprobs)

    def _union(self, panel: Panel) -> PivotUnion:
        return pivot_union_of([panel.vocabulary(seat) for seat in self._weights])
