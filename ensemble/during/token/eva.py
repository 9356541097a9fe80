"""EVA: helpers answer in the pivot's vocabulary, through projections that live with them; who agrees is averaged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, Self, cast

import numpy as np
from pydantic import Field

from ensemble.during.token.election.ballot import Ballot
from ensemble.during.token.election.certificate import (
    Certain,
    Evidence,
    Tally,
    clear_winner,
    tally,
    verdict,
    weighted,
)
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.during.token.lockstep import Decision, Panel, Rule, lockstep
from ensemble.during.token.pivoting.heads import ResidentOptions, check_heads, check_projection, check_writer, writer
from ensemble.during.token.pivoting.projected import (
    NOTHING,
    WHOLE,
    PivotUnion,
    agreeing,
    beginning,
    evidence_of,
    favourites,
    pivot_union_of,
    truncated,
)
from ensemble.errors import BadAnswer
from ensemble.member import Capability, Card, Distribution, Floats, Next, Payload, Question
from ensemble.method import Members, Method, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import draw, seeded
from ensemble.vocabulary import Ids

_KIND = "projection"
_FEW = 32
"""Tokens of each list that mostly decide."""


class EvaOptions(ResidentOptions):
    """Options of ``eva``."""

    pivot: str | None = None
    """Name of the member in whose vocabulary members meet. Omitted: the first member."""
    head: str = "eva"
    """Name of the head of kind ``projection`` at every helper. Omitted: ``eva``."""
    weights: Weights = "average"
    """One number for each member, normalised over those that are averaged; a member with 0 is never called, and the
    pivot may not have it. Omitted: all equal."""
    drop: int | None = Field(5, ge=0)
    """A member counts in a step only if its likeliest token is among this many likeliest of another; if that leaves
    none, all count. 0 or null: all count in every step. Omitted: 5."""
    topk: int = Field(320, ge=1, le=320)
    """Tokens that the pivot lists, as many as its helpers project; the rest have no part. Omitted: 320."""
    listed: int = Field(64, ge=1)
    """Projected tokens that a helper lists at first; all of them are asked for where these do not decide, and where
    tokens are drawn or reported. Omitted: 64."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference``: projections whose rows are not normalised, as published, are taken as they are; else one that
    makes more mass than there is is refused."""


@method(
    "eva", stage=Stage.TOKEN, paper="2404.09492", needs={Capability.GENERATE, Capability.SESSIONS}, options=EvaOptions
)
class Eva(Method[EvaOptions]):
    """Ensemble via vocabulary alignment (arXiv 2404.09492): q = softmax of the top-k logits · S at each helper, S a
    sparse matrix between vocabularies; members whose favourite nobody else finds plausible are dropped; the weighted
    mean of the others, argmax in the pivot's vocabulary.

    Asks of members: sessions, and of each helper a resident head of kind ``projection`` that was fitted for the pivot
    (``ensemble fit eva``). One exchange with each member for each token, all at once: 8·topk bytes up from the pivot,
    8·listed from a helper. Lists that do not decide cost a second exchange with the helpers, without a pass, of up to
    33 kB; so does every step in which tokens are drawn or log-probabilities reported.

    Of two members, one that is unsure stays in more often than one that is sure: its favourite is easily among what the
    sure one holds for the least unlikely, not the other way round. ``drop: 0`` averages both, and did better wherever
    members had different skills.

    A word that the pivot can only spell in pieces gets a helper's mass on tokens that are similar in meaning to it, not
    on its first piece: a helper that alone is right may be heard as saying something else.

    Departures from the paper and its code:

    * Rows of S sum to 1 (``fidelity: reference`` takes rows that do not: then helpers with many similar tokens outvote
      the pivot).
    * Ids of the pivot that stand for the same bytes are one class, and so are all its stop ids; the stop ids of helpers
      are aligned with them. Published code aligns ids 0, 1 and 2 of all models.
    * A member with a token of its own for what was elected appends that; others adopt the text and keep the common
      prefix. Published code re-encodes everything at every token.
    * Ties go to the stop class, then to the smaller bytes. Weights other than equal ones, and sampling from the mean
      (temperature, top-p, top-k), are extensions.
    """

    options: EvaOptions
    caps = MappingProxyType({"listed": 4096})
    naming = ("pivot",)

    def check(self, members: Sequence[Card]) -> None:
        check_weights(self.options.weights, members)
        weights = shares(self.options.weights, len(members))
        pivot = check_writer("pivot", self.options.pivot, weights, members)
        helpers = [seat for seat in weights if seat != pivot]
        check_heads(self.options, members, helpers, _KIND, self.name)
        for seat in helpers:
            check_projection(members[seat], self.options.head_at(members[seat].name), members[pivot], self.name)

    def among(self, names: Sequence[str], present: Sequence[int]) -> Self:
        some = super().among(names, present)
        return type(self)(some.options.of_some(names[i] for i in present))

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        weights = shares(self.options.weights, len(members))
        pivot = writer(self.options.pivot, members.names)
        heads = {seat: self.options.head_at(members.names[seat]) for seat in weights if seat != pivot}
        return lockstep(request, members, PivotAverage(self.options, weights, pivot, heads, request.sampling))


class PivotAverage(Rule):
    """The rule of EVA."""

    def __init__(
        self,
        options: EvaOptions,
        weights: Mapping[int, float],
        pivot: int,
        heads: Mapping[int, str],
        sampling: Sampling,
    ) -> None:
        """
        Args:
            weights: by seat, summing to 1; seats that are missing are never asked.
            pivot: its seat.
            heads: of the helpers, by seat.
            sampling: with a seed unless greedy.
        """
        self._options, self._pivot, self._heads, self._sampling = options, pivot, heads, sampling
        self._weights = {seat: weights[seat] for seat in (pivot, *heads)}
        self._whole = not sampling.greedy or sampling.logprobs is not None

    async def elect(self, panel: Panel, position: int) -> Decision:
        told = await self._told(panel)
        if not self._whole and (clear := self._clear(panel, told)) is not None:
            return clear
        ballot, seen = self._counted(panel, told)
        if not (self._whole or isinstance(verdict(seen), Certain)):
            told |= self._evidence(panel, await panel.ask(self._questions(WHOLE)))
            ballot, seen = self._counted(panel, told)
        if not seen.known.any():
            raise BadAnswer("no member has a text token or a stop id of the pivot's to elect")
        with np.errstate(divide="ignore"):
            column = draw(np.log(seen.known), self._sampling, position)
        return ballot.decision(column, self._sampling.logprobs)

    async def _told(self, panel: Panel) -> dict[int, Evidence]:
        """What all have told, by seat, the pivot first."""
        listed = WHOLE if self._whole else max(self._options.listed, self._options.drop or 0)
        answers = await panel.ask({self._pivot: Next(self._options.topk), **self._questions(listed)})
        pivot = cast(Distribution, answers.pop(self._pivot))
        return {self._pivot: truncated(pivot), **self._evidence(panel, answers)}

    def _questions(self, listed: int) -> dict[int, Question]:
        return {seat: Next(listed, head=head) for seat, head in self._heads.items()}

    def _evidence(self, panel: Panel, answers: Mapping[int, Payload]) -> dict[int, Evidence]:
        size, normalised = panel.vocabulary(self._pivot).size, self._options.fidelity == "fixed"
        return {seat: evidence_of(cast(Distribution, told), size, normalised) for seat, told in answers.items()}

    def _clear(self, panel: Panel, told: Mapping[int, Evidence]) -> Decision | None:
        """What leads by the first tokens of all lists, whatever the rest would add; ``None`` where it takes more."""
        union, evidence = self._union(panel, told), list(told.values())
        weights = self._heard(union, evidence)
        led = clear_winner(union, [beginning(own, _FEW) for own in evidence], list(weights.values()))
        if led is None:
            return None
        masses = np.array(led[1])[:, None]
        mean = weighted(list(weights.values()), masses)
        facts = self._facts(evidence)
        return Ballot(union, weights, np.array(led[:1], np.int32), masses, mean, facts).decision(0, None)

    def _counted(self, panel: Panel, told: Mapping[int, Evidence]) -> tuple[Ballot, Tally]:
        """What those that are kept say; the others have no weight."""
        union, evidence = self._union(panel, told), list(told.values())
        weights = self._heard(union, evidence)
        seen = tally(union, evidence, list(weights.values()))
        whole = float(seen.known.sum()) if self._whole else 1.0
        mean = seen.known / (whole or 1.0)
        return Ballot(union, weights, seen.classes, seen.masses, mean, self._facts(evidence)), seen

    def _heard(self, union: PivotUnion, evidence: Sequence[Evidence]) -> dict[int, float]:
        """Weights by seat; 0 of those whose favourite nobody else finds plausible."""
        if not self._options.drop:
            return self._weights
        kept = agreeing([favourites(own, union.classes[0], self._options.drop) for own in evidence])
        left = {seat: weight for i, (seat, weight) in enumerate(self._weights.items()) if i in kept}
        return {seat: left.get(seat, 0.0) / sum(left.values()) for seat in self._weights}

    def _facts(self, evidence: Sequence[Evidence]) -> list[tuple[Ids, Floats]]:
        # Which of several ids a helper would have taken, its projection does not tell.
        return [(evidence[0].ids, evidence[0].masses), *[NOTHING] * len(self._heads)]

    @staticmethod
    def _union(panel: Panel, told: Mapping[int, Evidence]) -> PivotUnion:
        return pivot_union_of([panel.vocabulary(seat) for seat in told])
