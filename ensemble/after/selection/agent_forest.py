"""Agent-Forest: sample many answers, return the one that agrees best with the others (arXiv 2402.05120)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ensemble.after.answers import KEYS, AnswerPattern, Key, exact, extract
from ensemble.after.fan_out import Candidate, Place, drawn, fan_out, require_one_each, shares
from ensemble.after.votes import SIMILARITIES, Vote, decided, support, tallied
from ensemble.errors import BadAnswer
from ensemble.member import Capability, Card
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Delta, Event, Finish, Request, Trace

Credits = Mapping[str, float]


class AgentForestOptions(Options):
    samples: int = Field(default=10, ge=1)
    """Candidates over all members, split evenly, the first members getting one more where it does not come out even."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Temperature of the candidates; a request's own temperature goes first where it is above 0."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Top-p of the candidates; a request's own goes first where it is below 1."""
    vote: Literal["exact", "numeric", "text"] = "exact"
    """``exact``: equal answers agree; ``numeric``: equal numbers agree; ``text``: the text likest all others wins."""
    answer: AnswerPattern = None
    """Regular expression whose one group is the answer, in its last match. Only the configuration sets it. Omitted: the
    whole text is the answer."""
    early_stop: bool = True
    """Cancel what is outstanding once it cannot change the result. Never for ``vote: text``, where all count."""
    similarity: Literal["f1", "bleu"] = "f1"
    """How alike two texts are, for ``vote: text``: F1 of their words, or sentence BLEU."""

    @model_validator(mode="after")
    def _applicable(self) -> Self:
        if self.vote == "text" and "early_stop" in self.model_fields_set and self.early_stop:
            raise ValueError("early_stop applies to vote exact or numeric; a vote of texts needs all samples")
        if self.vote != "text" and "similarity" in self.model_fields_set:
            raise ValueError(f"similarity applies to vote text, not to vote {self.vote}")
        return self


@method(
    "agent_forest",
    stage=Stage.SELECTION,
    paper="2402.05120",
    needs={Capability.GENERATE},
    options=AgentForestOptions,
)
class AgentForest(Method[AgentForestOptions]):
    """Sample and vote.

    One call to each member, all at once; the text comes when it is elected. Plurality is decided as soon as the
    leader's votes minus the runner-up's exceed the outstanding ones; the elected text is then that of the first
    candidate in declared order that gave the winning answer, so early stopping and arrival order never change it
    (the tally counts the votes cast until then). Samples without an answer do not vote.

    Departures from the paper: unreadable samples are dropped instead of being a class of their own; ties go to the
    declared order instead of the order of arrival; the default similarity of texts is symmetric.
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
            BadAnswer: no sample holds an answer.
        """
        counts = shares(self.options.samples, len(members))
        sampling = drawn(request.sampling, self.options.temperature, self.options.top_p)
        outstanding = {(member, sample) for member, count in enumerate(counts) for sample in range(count)}
        candidates: dict[Place, Candidate] = {}
        votes: list[Vote] = []
        async with aclosing(fan_out(request, members, counts, sampling)) as arriving:
            async for candidate in arriving:
                candidates[candidate.place] = candidate
                votes.append(Vote(candidate.place, self._key(request.partial + candidate.text)))
                outstanding.discard(candidate.place)
                if self._stops_early and decided(votes, outstanding):
                    break
        place, credits, data = await self._elected(votes, members.names)
        for event in _told(candidates[place], credits, {**data, "outstanding": len(outstanding)}):
            yield event

    @property
    def _stops_early(self) -> bool:
        return self.options.early_stop and self.options.vote != "text"

    def _key(self, text: str) -> Key | None:
        answer = extract(text, self.options.answer)
        return None if answer is None else KEYS.get(self.options.vote, exact)(answer)

    async def _elected(self, votes: Sequence[Vote], names: Sequence[str]) -> tuple[Place, Credits, dict[str, Any]]:
        """Place of the elected candidate, its credits, and how the vote went."""
        voters = sorted((vote for vote in votes if vote.key is not None), key=lambda vote: vote.place)
        if not voters:
            none = f"none of the {len(votes)} samples holds an answer that could be counted"
            raise BadAnswer(none, reason="empty")
        if self.options.vote == "text":
            return await self._by_likeness(voters, names)
        tallies = tallied(voters)
        winner = tallies[0]
        credits = {name: count / len(winner.votes) for name, count in winner.by_name(names).items()}
        shown = [{"answer": str(t.key), "votes": len(t.votes), "members": t.by_name(names)} for t in tallies]
        return winner.first, credits, {"tally": shown, "without_answer": len(votes) - len(voters)}

    async def _by_likeness(self, voters: Sequence[Vote], names: Sequence[str]) -> tuple[Place, Credits, dict[str, Any]]:
        matrix = await asyncio.to_thread(SIMILARITIES[self.options.similarity], [str(vote.key) for vote in voters])
        scores = support(matrix)
        place = voters[scores.index(max(scores))].place
        shown = [
            {"member": names[vote.place[0]], "sample": vote.place[1], "support": float(score)}
            for vote, score in zip(voters, scores, strict=True)
        ]
        return place, {names[place[0]]: 1.0}, {"support": shown}


def _told(elected: Candidate, credits: Credits, vote: dict[str, Any]) -> Iterator[Event]:
    yield from elected.traces
    writer = {"member": elected.writer, "sample": elected.place[1]}
    yield Trace("vote", {**vote, "elected": writer})
    tokens = tuple(token for delta in elected.deltas for token in delta.tokens)
    yield Delta(elected.text, credits, tokens)
    yield Finish(elected.finish)
