"""Best of N: sample many answers, return the one that a judge rewards most (as described in arXiv 2510.00931)."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import comb
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, model_validator

from ensemble.after.answers import KEYS, AnswerPattern, Key, extract
from ensemble.after.fan_out import Candidate, drawn, fan_out, require_one_each, shares
from ensemble.after.votes import Vote, tallied
from ensemble.errors import BadAnswer, BudgetExceeded
from ensemble.judges.rewards import Reduction, reduced
from ensemble.member import Capability, Card
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Finish, Request, Trace


class BestOfNOptions(Options):
    samples: int = Field(default=8, ge=1)
    """Candidates over all members, split evenly, the first members getting one more where it does not come out even."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Temperature of the candidates; a request's own temperature goes first where it is above 0."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Top-p of the candidates; a request's own goes first where it is below 1."""
    steps: Literal["whole", "lines"] = "whole"
    """What the judge sees as a step: the whole answer, or each line."""
    reduce: Reduction = "last"
    """How the rewards of an answer's steps become its reward."""
    weighted: bool = False
    """Candidates vote for their answers with their rewards; of the winning answer the best candidate is returned."""
    vote: Literal["exact", "numeric"] = "exact"
    """Which answers agree, for ``weighted``: equal texts, or equal numbers."""
    answer: AnswerPattern = None
    """For ``weighted``: regular expression whose one group is the answer, in its last match. Only the configuration
    sets it. Omitted: the text."""

    @model_validator(mode="after")
    def _applicable(self) -> Self:
        for option in ("vote", "answer"):
            if option in self.model_fields_set and not self.weighted:
                raise ValueError(f"{option} applies only where weighted is true")
        return self


@dataclass(frozen=True, slots=True)
class Rated:
    """A candidate and what the judge made of it."""

    candidate: Candidate
    steps: Sequence[float]
    reward: float


@method(
    "best_of_n",
    stage=Stage.SELECTION,
    paper="2510.00931",
    needs={Capability.GENERATE},
    options=BestOfNOptions,
    judge=True,
)
class BestOfN(Method[BestOfNOptions]):
    """Sample, judge, take the best; the first candidate in declared order among equals.

    One call to each member, all at once, and one to the judge for each candidate as soon as it is there. The judge
    sees the whole answer, text that the request began it with included. The text comes when the last one is judged.
    """

    caps = MappingProxyType({"samples": 64})
    fixed = ("answer",)

    def calls(self, members: int) -> Sequence[int]:
        return shares(self.options.samples, members)

    def check(self, members: Sequence[Card]) -> None:
        require_one_each(self.options.samples, len(members))

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        """Answer one request.

        Raises:
            BadAnswer: there is no candidate, or the vote is weighted and none holds an answer.
        """
        sampling = drawn(request.sampling, self.options.temperature, self.options.top_p)
        counts = shares(self.options.samples, len(members))
        rated = await self._rated(fan_out(request, members, counts, sampling), request, members)
        best = self._best(rated, request.partial)
        for one in rated:
            yield _trace(one, elected=one is best)
        for event in _told(best.candidate):
            yield event

    async def _rated(
        self, arriving: AsyncGenerator[Candidate, None], request: Request, members: Members
    ) -> list[Rated]:
        """All candidates with their rewards, in declared order; the first failure ends everything."""
        try:
            async with asyncio.TaskGroup() as group, aclosing(arriving) as candidates:
                tasks = [group.create_task(self._rate(c, request, members)) async for c in candidates]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        rated = [one for task in tasks if (one := task.result()) is not None]
        if not rated:
            raise BadAnswer("there is no candidate to choose from", reason="empty")
        return sorted(rated, key=lambda rated: rated.candidate.place)

    async def _rate(self, candidate: Candidate, request: Request, members: Members) -> Rated | None:
        """``None`` where the budget ended before the judge had seen it, and the answer may be a partial one."""
        text = request.partial + candidate.text
        solution = [text] if self.options.steps == "whole" else lines(text)
        try:
            (rewards,) = await members.judge.judge(request, [solution])
        except BudgetExceeded as error:
            if not members.settle(error):
                raise
            return None
        return Rated(candidate, rewards, reduced(rewards, self.options.reduce))

    def _best(self, rated: Sequence[Rated], partial: str) -> Rated:
        if self.options.weighted:
            winners = self._winners(rated, partial)
            rated = [one for one in rated if one.candidate.place in winners]
        return max(rated, key=lambda one: one.reward)

    def _winners(self, rated: Sequence[Rated], partial: str) -> set[tuple[int, int]]:
        votes = [Vote(one.candidate.place, self._key(partial + one.candidate.text), one.reward) for one in rated]
        tallies = tallied(votes)
        if not tallies:
            none = f"none of the {len(votes)} samples holds an answer that could be counted"
            raise BadAnswer(none, reason="empty")
        return {vote.place for vote in tallies[0].votes}

    def _key(self, text: str) -> Key | None:
        answer = extract(text, self.options.answer)
        return None if answer is None else KEYS[self.options.vote](answer)


def lines(text: str) -> list[str]:
    """The lines of a text, line ends kept, so that they join exactly; an empty text is one empty line.

    >>> lines("a\\n\\nb"), lines("")
    (['a\\n', '\\n', 'b'], [''])
    """
    return re.findall(r"[^\n]*\n|[^\n]+", text) or [""]


def expected_best(rewards: Sequence[float], k: int) -> float:
    """Unbiased estimate of the expected reward of the best of ``k`` candidates, from N ≥ k independent rewards.

    Σ C(i − 1, k − 1) / C(N, k) · r over the rewards in ascending order, i from k to N.

    >>> round(expected_best([0.9, 0.2, 0.5, 0.4], k=2), 4)
    0.6833
    """
    ways = comb(len(rewards), k)
    return math.fsum(comb(i, k - 1) / ways * reward for i, reward in enumerate(sorted(rewards)))


def _trace(rated: Rated, *, elected: bool) -> Trace:
    member, sample = rated.candidate.writer, rated.candidate.place[1]
    rewards = {"reward": rated.reward, "steps": list(rated.steps)}
    return Trace("score", {"member": member, "sample": sample, **rewards, "elected": elected})


def _told(elected: Candidate) -> Iterator[Event]:
    yield from elected.traces
    yield from elected.spans()
    yield Finish(elected.finish)
