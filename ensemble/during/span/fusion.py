"""Fusing at one place of a draft: the rules of token-level methods, asked about a place instead of the answer's end.

Lists that came with the draft and with its reading are used first; only what they leave open is asked for, by moving
the sessions to the place. Nothing here knows why the place was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

from ensemble.concurrency import together
from ensemble.during.span.sharpening import UNSURE, Sharpening, sharpened
from ensemble.during.span.verifying import Standing
from ensemble.during.token.election.certificate import weighted
from ensemble.during.token.election.strings import Spelling
from ensemble.during.token.gac import Average
from ensemble.during.token.lockstep import Decision, Panel, Rule
from ensemble.during.token.unite import UnionTopK, UniteOptions
from ensemble.member import Distribution, Floats, Member, Next, Payload, Question
from ensemble.request import Sampling
from ensemble.vocabulary import Ids, Union, Vocabulary

_NOMINEES = 10
"""Tokens each member nominates under UniTE's rule, as in its paper."""


class Place(Panel):
    """The members that stand at one place of a draft, by seat."""

    def __init__(self, standings: Mapping[int, Standing]) -> None:
        self._standings = standings

    async def ask(self, questions: Mapping[int, Question]) -> dict[int, Payload]:
        """Ask several seats at once.

        Raises:
            NoRoom: the place does not fit into a member's context.
        """
        payloads = await together(_answer(self._standings[seat], question) for seat, question in questions.items())
        return dict(zip(questions, payloads, strict=True))

    def member(self, seat: int) -> Member:
        return self._standings[seat].seat.member

    def vocabulary(self, seat: int) -> Vocabulary:
        return self._standings[seat].seat.vocabulary


async def _answer(standing: Standing, question: Question) -> Payload:
    listed = standing.listed
    if isinstance(question, Next) and (listed.complete or 0 < question.topk <= len(listed.ids)):
        return listed
    return (await standing.seat.ask(question, standing.ids)).payload


class SharpenedAverage(Rule):
    """The rule of GaC, sharpened: ``heur`` adds up what the lists tell, ``geom`` has every listed string looked up."""

    def __init__(self, weights: Mapping[int, float], topk: int, sampling: Sampling, sharpening: Sharpening) -> None:
        self._weights = weights
        self._average = Average(weights, sampling, topk)
        self._alternatives = sampling.logprobs
        self._sharpening = sharpening

    async def elect(self, panel: Panel, position: int) -> Decision:
        poll = self._average.poll(panel)
        await poll.ask(self._weights)
        seen, column = await poll.settled(self._weights)
        if self._alternatives is not None or (self._sharpening == "geom" and seen.known[column] < UNSURE):
            seen = await poll.filled(self._weights, seen, range(len(seen.classes)))
        ballot = poll.ballot(self._weights, seen)
        if self._sharpening != "none":
            strings = [ballot.union.bytes_of(int(c)) for c in ballot.classes]
            column = sharpened(self._sharpening, strings, ballot.masses, ballot.mean, list(self._weights.values()))
        return ballot.decision(column, self._alternatives)


class SharpenedUnion(UnionTopK):
    """The rule of UniTE, sharpened."""

    averages = False

    def __init__(self, weights: Mapping[int, float], topk: int, sampling: Sampling, sharpening: Sharpening) -> None:
        super().__init__(UniteOptions(topk=min(topk, _NOMINEES), listed=topk), weights, sampling)
        self._sharpening = sharpening

    def favourite(self, union: Union, listed: Mapping[int, Distribution]) -> Decision | None:
        decision = super().favourite(union, listed)
        # Shares are divided by what the union has, so that they are not below these probabilities.
        sure = decision is not None and sum(decision.shares.values()) >= UNSURE
        return decision if sure or self._sharpening == "none" else None

    def clear(self, listed: Mapping[int, Distribution], spellings: Mapping[int, Spelling]) -> Floats | None:
        masses = super().clear(listed, spellings)
        if masses is None or self._sharpening == "none":
            return masses
        sure = weighted(list(self._weights.values()), masses).max() >= UNSURE
        return masses if sure else None

    def choose(self, union: Union, classes: Ids, masses: Floats, mean: Floats, position: int) -> int:
        strings = [union.bytes_of(int(c)) for c in classes]
        return sharpened(self._sharpening, strings, masses, mean, list(self._weights.values()))


RULES: Mapping[str, type[SharpenedAverage] | type[SharpenedUnion]] = {"gac": SharpenedAverage, "unite": SharpenedUnion}
"""By name of the method whose rule it is."""
