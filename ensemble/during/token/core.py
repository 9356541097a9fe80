"""CoRE: a switch that makes any aligned rule robust, by how consistent members are with one another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, cast

import numpy as np
from pydantic import Field

from ensemble.during.token.election.ballot import Ballot
from ensemble.during.token.election.certificate import Evidence, Tally, tally
from ensemble.during.token.election.consistency import SHARPNESS, Similarity, Task, consistent
from ensemble.during.token.lockstep import Decision, Panel, Rule, lockstep
from ensemble.during.token.pivoting.heads import check_projection
from ensemble.during.token.pivoting.projected import NOTHING, evidence_of, pivot_union_of
from ensemble.during.token.unite import UnionTopK, UniteOptions
from ensemble.errors import BadAnswer, ConfigurationError
from ensemble.member import Capability, Card, Distribution, Floats, Next, Question
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import draw, seeded
from ensemble.vocabulary import STOP, Ids, Union

Aligned = Literal["gac", "unite", "eva"]

_HEAD = "eva"
_LISTED = 64
"""Tokens that members list where each scores the others' strings; those after the first topk only save look-ups."""


class CoreOptions(Options):
    """Options of ``core``."""

    aligned: Aligned = "unite"
    """What brings members of different vocabularies together. ``gac``: classes of equal bytes, each member's own top-k
    list. ``unite``: the strings in any member's list, each member scoring all of them. ``eva``: tokens of the main
    member, onto which the others' lists are projected."""
    head: str | None = Field(None, min_length=1)
    """Name of the head of kind ``projection`` at every member but the main one. Only with ``aligned: eva``. Omitted:
    ``eva``."""
    main: str | None = None
    """Name of the member that has at least half of the weight. Omitted: the first member."""
    similarity: Similarity = "rbf"
    """What a deviation d from the mean counts as. ``rbf``: exp(-sharpness·d), scaled to end at 0; ``linear``: 1 - d;
    ``power``: (1 - d)^sharpness; ``reciprocal``: 1/(1 + sharpness·d), scaled to end at 0 with the largest deviation of
    the step."""
    sharpness: float | None = Field(None, gt=0, le=100)
    """Of ``similarity``; ``linear`` has none. Omitted: 2 (``rbf``), 5 (``power``) or 1 (``reciprocal``)."""
    task: Task = "generative"
    """``choice``: answers are picked from given ones. Members then count by how sure they are alone, all their tokens
    count alike, and no prefix is guarded."""
    topk: int = Field(10, ge=1)
    """Tokens each member takes part with. Omitted: 10."""


@method(
    "core", stage=Stage.TOKEN, paper="2510.13855", needs={Capability.GENERATE, Capability.SESSIONS}, options=CoreOptions
)
class Core(Method[CoreOptions]):
    """CoRE (arXiv 2510.13855): P = m_main·p_main + Σ mᵢ·pᵢ·sᵢ. sᵢ(u) falls with |pᵢ(u) - mean(u)|; mᵢ is the sum of
    the scores over the entropy of pᵢ, and the main member's is raised to that of all others together.

    Where the elected string and the one that the main member likes best begin alike up to the shorter one's end, the
    main member's is written. Where the main member would stop it decides alone.

    Asks of members: sessions; with ``aligned: unite`` also ``tokenise``. For each token one exchange with each member,
    all at once: 8·topk bytes up with ``gac`` and ``eva``, which needs a projection at each member but the main one
    (``ensemble fit eva``); with ``unite`` 512, and another exchange (4 bytes for each look-up) where
    a member has not listed a string. All that is added to the rule is arithmetic over at most members·topk classes, but
    every member is asked at every token: the pace is the slowest member's, though the main one decides most steps.

    Departures from the paper and its code:

    * Classes of equal bytes replace the main member's vocabulary: what only a helper has a token for can be elected,
      and the prefix guard then decides between its spelling and the main member's.
    * All stop ids are one class; the prefix guard takes no notice of it. Stop strings cut text as in every method.
    * ``aligned: unite`` scores every nominated string at every member; published code has each member's own top k.
    * The task is an option; published code tells it by the name of a data set.
    * ``reciprocal`` gives 1 where nothing deviates; published code divides 0 by 0.
    * Sampling from P is an extension, without the prefix guard; where the main member's likeliest is to stop, from its
      own distribution.
    * A member that answers late is waited for, or lost by the ensemble's policy; published code goes on without it.
    """

    options: CoreOptions
    caps = MappingProxyType({"topk": 128})
    naming = ("main",)

    def check(self, members: Sequence[Card]) -> None:
        names = [card.name for card in members]
        if self.options.main is not None and self.options.main not in names:
            rule = f"main {self.options.main!r} is no member; members: {', '.join(names)}"
            raise ConfigurationError(rule, param="main")
        if self.options.sharpness is not None and self.options.similarity == "linear":
            kinds = ", ".join(SHARPNESS)
            rule = f"sharpness has no meaning with similarity: linear; it has one with {kinds}"
            raise ConfigurationError(rule, param="sharpness")
        if self.options.aligned == "eva":
            self._check_heads(members)
        elif self.options.head is not None:
            raise ConfigurationError("head has a meaning only with aligned: eva", param="head")

    def _check_heads(self, members: Sequence[Card]) -> None:
        main = members[self._main([card.name for card in members])]
        for card in members:
            if card is not main:
                check_projection(card, self.options.head or _HEAD, main, self.name)

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        switch = _Switch(self.options, self._main(members.names))
        return lockstep(request, members, RULES[self.options.aligned](switch, len(members), request.sampling))

    def _main(self, names: Sequence[str]) -> int:
        return 0 if self.options.main is None else names.index(self.options.main)


@dataclass(frozen=True, slots=True)
class _Switch:
    """What CoRE makes of aligned masses, whatever aligned them."""

    options: CoreOptions
    main: int
    """Seat of the main member; all members are asked."""

    def ballot(
        self,
        union: Union,
        seats: Sequence[int],
        classes: Ids,
        masses: Floats,
        told: Sequence[tuple[Ids, Floats]],
    ) -> Ballot:
        """
        Args:
            seats: of the members, in the order of rows.
            masses: shape [M, C], rows sum to 1 at most, to 0 for a member that has nothing to say.
        """
        row = seats.index(self.main)
        main = masses[row]
        if not main.any():
            raise BadAnswer("the main member has no text token or stop id to elect")
        if classes[main.argmax()] == STOP:
            return Ballot(union, {seat: float(seat == self.main) for seat in seats}, classes, masses, main, told)
        o = self.options
        sharpness = o.sharpness or SHARPNESS.get(o.similarity, 1.0)
        found = consistent(masses, row, o.similarity, sharpness, o.task)
        weights = dict(zip(seats, found.weights.tolist(), strict=True))
        return Ballot(union, weights, classes, found.parts, found.mean / found.mean.sum(), told)

    def column(self, union: Union, classes: Ids, main: Floats, mean: Floats, sampling: Sampling, position: int) -> int:
        """The column that is written. ``main``: shape [C], the main member's masses."""
        with np.errstate(divide="ignore"):
            winner = draw(np.log(mean), sampling, position)
        if not sampling.greedy or self.options.task == "choice":
            return winner
        own = int(main.argmax())
        elected, liked = (union.bytes_of(int(classes[column])) for column in (winner, own))
        alike = elected and liked and (elected.startswith(liked) or liked.startswith(elected))
        return own if alike else winner


class ConsistentLists(Rule):
    """GaC's classes over each member's own list, made robust."""

    def __init__(self, switch: _Switch, members: int, sampling: Sampling) -> None:
        self._switch = switch
        self._seats = range(members)
        self._sampling = sampling

    async def elect(self, panel: Panel, position: int) -> Decision:
        union, classes, masses, told = await self._aligned(panel)
        ballot = self._switch.ballot(union, self._seats, classes, masses, told)
        main = masses[self._switch.main]
        column = self._switch.column(union, classes, main, ballot.mean, self._sampling, position)
        return ballot.decision(column, self._sampling.logprobs)

    async def _aligned(self, panel: Panel) -> tuple[Union, Ids, Floats, list[tuple[Ids, Floats]]]:
        """Lists as masses of classes that sum to 1; lists of nothing but control ids are made longer."""
        topk = self._switch.options.topk
        while True:
            listed = await panel.next(dict.fromkeys(self._seats, topk))
            evidence = [Evidence.of(distribution) for distribution in listed.values()]
            union = panel.union(self._seats)
            seen = tally(union, evidence, [1.0] * len(evidence))
            sums = seen.masses.sum(axis=1, keepdims=True)
            if sums.all() or all(distribution.complete for distribution in listed.values()):
                told = [(e.ids, e.masses) for e in evidence]
                return union, seen.classes, seen.masses / np.where(sums > 0, sums, 1.0), told
            topk *= 2


class ConsistentUnion(UnionTopK):
    """The shares of UniTE, made robust."""

    averages = False

    def __init__(self, switch: _Switch, members: int, sampling: Sampling) -> None:
        topk = switch.options.topk
        weights = dict.fromkeys(range(members), 1.0)
        super().__init__(UniteOptions(topk=topk, listed=max(topk, _LISTED)), weights, sampling)
        self._switch = switch

    def ballot(self, union: Union, classes: Ids, masses: Floats, told: Sequence[tuple[Ids, Floats]]) -> Ballot:
        return self._switch.ballot(union, range(len(masses)), classes, masses, told)

    def favourite(self, union: Union, listed: Mapping[int, Distribution]) -> Decision | None:
        # What all like best need not win: where masses deviate they count less.
        return None

    def certain(self, masses: Floats, missing: Floats) -> int | None:
        # Scores depend on all masses; there is no bound worth computing.
        return None

    def choose(self, union: Union, classes: Ids, masses: Floats, mean: Floats, position: int) -> int:
        main = masses[self._switch.main]
        return self._switch.column(union, classes, main, mean, self._sampling, position)


class ConsistentProjections(Rule):
    """What members say in the main member's tokens (EVA), made robust."""

    def __init__(self, switch: _Switch, members: int, sampling: Sampling) -> None:
        self._switch = switch
        # The main member's vocabulary is what the others are projected onto: it comes first.
        self._seats = [switch.main, *(seat for seat in range(members) if seat != switch.main)]
        self._sampling = sampling

    async def elect(self, panel: Panel, position: int) -> Decision:
        union, own, seen = await self._aligned(panel)
        # Which of several ids a helper would have taken, its projection does not tell.
        facts = [(own.ids, own.masses), *[NOTHING] * (len(self._seats) - 1)]
        ballot = self._switch.ballot(union, self._seats, seen.classes, seen.masses, facts)
        column = self._switch.column(union, seen.classes, seen.masses[0], ballot.mean, self._sampling, position)
        return ballot.decision(column, self._sampling.logprobs)

    async def _aligned(self, panel: Panel) -> tuple[Union, Evidence, Tally]:
        """What the main member has told, and what all have, as masses of its classes; its own sum to 1, and lists of it
        that name none are made longer."""
        main, topk = self._switch.main, self._switch.options.topk
        heads = dict.fromkeys(self._seats, self._switch.options.head or _HEAD) | {main: ""}
        while True:
            asked: dict[int, Question] = {seat: Next(topk, head=head) for seat, head in heads.items()}
            told = cast(dict[int, Distribution], await panel.ask(asked))
            union = pivot_union_of([panel.vocabulary(seat) for seat in self._seats])
            evidence = [self._evidence(panel, seat, told[seat]) for seat in self._seats]
            seen = tally(union, evidence, [1.0] * len(evidence))
            own = float(seen.masses[0].sum())
            if own or told[main].complete:
                seen.masses[0] /= own or 1.0
                return union, evidence[0], seen
            topk *= 2

    def _evidence(self, panel: Panel, seat: int, told: Distribution) -> Evidence:
        if seat == self._switch.main:
            return Evidence.of(told)
        return evidence_of(told, panel.vocabulary(self._switch.main).size, normalised=False)


RULES: Mapping[Aligned, type[ConsistentLists] | type[ConsistentUnion] | type[ConsistentProjections]] = {
    "gac": ConsistentLists,
    "unite": ConsistentUnion,
    "eva": ConsistentProjections,
}
"""By name of the method whose alignment it is."""
