"""GaC: every next token is elected by the weighted mean of all members' probabilities over a union vocabulary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.during.token.drafting.drafts import Drafting
from ensemble.during.token.drafting.rulings import DraftRule, Ruling, averaged
from ensemble.during.token.drafting.speculation import admit_drafting, check_drafting, speculative
from ensemble.during.token.election.poll import Poll, Unite
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.during.token.lockstep import Decision, Panel, Rule, lockstep
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.member import Capability, Card, Distribution
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import draw, seeded
from ensemble.vocabulary import Ids, Union, Vocabulary, union_of


class GacOptions(Options):
    """Options of ``gac``."""

    weights: Weights = "average"
    """One number for each member, normalised; a member with 0 is never called, unless it drafts. Omitted: all equal."""
    threshold: float | None = Field(None, ge=0, le=1)
    """The primary decides alone wherever its likeliest class has more than this probability; 0: always, 1: never.
    Omitted: every step is decided by all."""
    primary: str | None = None
    """Name of the member that is asked first; only with ``threshold``. Omitted: the first member."""
    topk: int = Field(20, ge=1)
    """Tokens a member lists at first; doubled in a step that they do not decide. Omitted: 20."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference``: each stop id of each vocabulary is a class of its own, so that stop mass is split as published."""
    draft: Drafting | None = None
    """Decide in blocks that members draft (``speculative_ensemble``): the same answers, or as likely ones, sooner. For
    members of one vocabulary, without ``threshold``. Omitted: token by token."""


@method(
    "gac", stage=Stage.TOKEN, paper="2406.12585", needs={Capability.GENERATE, Capability.SESSIONS}, options=GacOptions
)
class Gac(Method[GacOptions]):
    """Generation as classification (arXiv 2406.12585): P(u) = Σ wᵢ·pᵢ(u) over classes u of equal bytes, argmax.

    Asks of members: sessions; with temperature above 0 also full distributions. One exchange with each member for each
    token, all at once: about 8·topk bytes up and an id down. Lists that do not decide cost a look-up at the members
    concerned, or longer lists. With ``threshold`` the primary is asked first, and the others only where it is unsure.

    Departures from the paper and its code:

    * Classes of equal bytes replace display strings, so that byte tokens and multi-byte characters meet.
    * All stop ids of all members are one class (``fidelity: reference`` splits them).
    * Greedy decisions are taken from top-k lists with a certificate that they are those of the whole vocabularies.
    * Ties go to the stop class, then to the smaller bytes; the published order is arbitrary.
    * A member without an id for what was elected re-tokenises the answer and keeps the common prefix; published code
      appends several ids and drops the cache. Others that the primary left out catch up in the same way.
    * The primary is asked before the others; published code starts all and cancels.
    * Contexts are used whole, not to three quarters.
    * Sampling (temperature, top-p, top-k) from the mean is an extension; the paper is greedy.
    """

    options: GacOptions
    caps = MappingProxyType({"topk": 1024})
    naming = ("primary",)

    def check(self, members: Sequence[Card]) -> None:
        check_weights(self.options.weights, members)
        if self.options.draft is not None:
            if self.options.threshold is not None:
                raise ConfigurationError("draft is for decisions by all; it takes no threshold", param="draft")
            check_drafting(self.options.draft, members)
        names = [card.name for card in members]
        primary = self.options.primary
        if primary is None and self.options.threshold is None:
            return
        if self.options.threshold is None:
            raise ConfigurationError("primary has a meaning only with a threshold", param="primary")
        if primary is not None and primary not in names:
            raise ConfigurationError(f"primary {primary!r} is no member; members: {', '.join(names)}", param="primary")
        if self._primary(names) not in shares(self.options.weights, len(members)):
            rule = "a primary decides alone where it is sure, so its weight must be above 0"
            raise ConfigurationError(rule, param="weights")

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        if request.sampling.greedy:
            return
        if self.options.draft is not None:
            seats = list(shares(self.options.weights, len(members)))
            admit_drafting(request, self.options.draft, seats, members)
        for seat in shares(self.options.weights, len(members)):
            if Capability.FULL_DISTRIBUTION not in members[seat].capabilities:
                rule = "temperature must be 0: drawing from the mean needs full distributions"
                name = members[seat].name
                raise BadRequest(f"{rule}, and {name} does not give them", param="temperature", member=name)

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        weights = shares(self.options.weights, len(members))
        unite = union_of if self.options.fidelity == "fixed" else split_union_of
        request = replace(request, sampling=seeded(request.sampling))
        average = Average(weights, request.sampling, self.options.topk, unite)
        if self.options.draft is not None:
            return speculative(request, members, average, self.options.draft)
        threshold = self.options.threshold
        if threshold is None or threshold == 1:
            return lockstep(request, members, average)
        return lockstep(request, members, Thresholded(average, self._primary(members.names), threshold))

    def _primary(self, names: Sequence[str]) -> int:
        return 0 if self.options.primary is None else names.index(self.options.primary)


class Average(DraftRule):
    """The weighted mean of the members' distributions: its largest class, or a draw from it."""

    def __init__(self, weights: Mapping[int, float], sampling: Sampling, topk: int, unite: Unite = union_of) -> None:
        """
        Args:
            weights: by seat, summing to 1; seats that are missing are never asked.
            sampling: with a seed unless greedy.
            topk: tokens listed at first in greedy steps, which need whole distributions only where lists do not decide.
        """
        self.weights = weights
        self.seats = list(weights)
        self.listed = max(topk, sampling.logprobs or 0) if sampling.greedy else 0
        self._sampling = sampling
        self._unite = unite

    def poll(self, panel: Panel) -> Poll:
        """A step's questions."""
        return Poll(panel, self.listed, self._unite)

    async def elect(self, panel: Panel, position: int) -> Decision:
        return await self.decide(self.poll(panel), self.weights, position)

    def ruling(self, vocabularies: Sequence[Vocabulary], told: Sequence[Distribution]) -> Ruling | None:
        return averaged(self._unite(vocabularies), told, self.weights, self._sampling)

    async def decide(self, poll: Poll, weights: Mapping[int, float], position: int) -> Decision:
        """By the mean of some seats."""
        await poll.ask(weights)
        if self._sampling.greedy and self._sampling.logprobs is None and (clear := poll.clear(weights)) is not None:
            return clear
        if self._sampling.greedy:
            seen, column = await poll.settled(weights)
        else:
            seen = poll.tally(weights)
            with np.errstate(divide="ignore"):
                column = draw(np.log(seen.known), self._sampling, position)
        if (alternatives := self._sampling.logprobs) is not None:
            seen = await poll.filled(weights, seen, range(len(seen.classes)) if alternatives else [column])
        return poll.ballot(weights, seen).decision(column, alternatives)


class Thresholded(Rule):
    """The primary alone where it is sure, the mean elsewhere; the others are not called where they are not needed."""

    def __init__(self, average: Average, primary: int, threshold: float) -> None:
        self._average = average
        self._alone = {primary: 1.0}
        self._threshold = threshold

    async def elect(self, panel: Panel, position: int) -> Decision:
        poll = self._average.poll(panel)
        sure = await self._sure(poll)
        return await self._average.decide(poll, self._alone if sure else self._average.weights, position)

    async def _sure(self, poll: Poll) -> bool:
        """Whether the primary's likeliest class has more than the threshold."""
        await poll.ask(self._alone)
        if poll.tally(self._alone).ceiling <= self._threshold:
            return False
        seen, column = await poll.settled(self._alone)
        if seen.known[column] <= self._threshold < seen.known[column] + seen.missing[column]:
            seen = await poll.filled(self._alone, seen, [column])
        return bool(seen.known[column] > self._threshold)


class SplitStops(Union):
    """A union in which each stop id of each vocabulary is a class of its own; equal vocabularies share theirs."""

    def __init__(self, vocabularies: Sequence[Vocabulary]) -> None:
        self._stops: dict[tuple[str, int], int] = {}
        super().__init__(vocabularies)

    def _classes(self, vocabulary: Vocabulary) -> Ids:
        classes = super()._classes(vocabulary)
        for stop in sorted(vocabulary.stop_ids):
            classes[stop] = self._slot(vocabulary.fingerprint, stop)
        return classes

    def _slot(self, fingerprint: str, stop: int) -> int:
        if (fingerprint, stop) not in self._stops:
            self._stops[fingerprint, stop] = len(self._bytes)
            self._bytes.append(b"")
        return self._stops[fingerprint, stop]


_split_unions: dict[tuple[str, ...], SplitStops] = {}


def split_union_of(vocabularies: Sequence[Vocabulary]) -> SplitStops:
    """The union of these vocabularies with stop ids kept apart; built once per process."""
    key = tuple(v.fingerprint for v in vocabularies)
    if key not in _split_unions:
        _split_unions[key] = SplitStops(vocabularies)
    return _split_unions[key]
