"""The loop of token routing: one member writes until a gate leaves a token to another, which writes it, and so on.

A segment takes one message, however many tokens it has; the gate is watched where the writer is. The driver's bytes are
the truth: a member of the writer's vocabulary learns the ids that it missed, any other spells the text anew from where
it differs. A member is first called when it is first needed. Nothing here knows what the gate looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from ensemble.concurrency import shielded
from ensemble.during.token.lockstep import Decision, NoRoom, Transcript
from ensemble.errors import ContextTooLong
from ensemble.member import Append, Edit, Gate, Member, Proposal, Propose, Session, SyncText, Until
from ensemble.request import Event, Finish, FinishReason, Request, Sampling, Trace
from ensemble.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who writes when."""

    first: int
    """Seat of the member that writes as long as the gate lets it."""
    other: int | None
    """Seat of the member that writes where it does not; ``None``: the gate is not looked at."""
    gate: Gate
    turn: int
    """Tokens that the other writes when it is its turn."""
    segment: int
    """Tokens of the first one's in a message at most: they are streamed together."""


async def handover(request: Request, members: Sequence[Member], plan: Plan) -> AsyncGenerator[Event, None]:
    """Write one answer.

    Args:
        request: with a seed unless greedy.

    Raises:
        EnsembleError: a member failed; all sessions are closed.
    """
    answer = _Answer(request, members, plan)
    try:
        while answer.finish is None:
            for event in await answer.segment():
                yield event
        if rest := answer.transcript.flush():
            yield rest
        yield answer.share()
        yield Finish(answer.finish)
    finally:
        await shielded(answer.close())


class Pen:
    """A member as a writer: its session, once it has been needed, and what others have written since it wrote."""

    def __init__(self, seat: int, member: Member, request: Request) -> None:
        self.seat, self.name = seat, member.name
        self._member, self._request = member, request
        self._session: Session | None = None
        self._missed: list[int] | None = None
        """Ids to be appended; ``None``: all of the text is to be spelt."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Of a pen that has written."""
        assert self._session is not None, "a pen's vocabulary is known once it has written"
        return self._session.vocabulary

    async def write(self, text: bytes, until: Until, sampling: Sampling, topk: int) -> Proposal:
        """Go on after ``text``; counts as written, at least as far as others do not say otherwise.

        Raises:
            NoRoom: the text does not fit into the context.
        """
        if self._session is None:
            self._session = await self._member.start(self._request)
            self._missed = [] if text == self._request.partial.encode() else None
        try:
            payload = (await self._session.exchange(Propose(until, sampling, topk), edit=self._edit(text))).payload
        except ContextTooLong as error:
            raise NoRoom from error
        assert isinstance(payload, Proposal)
        self._missed = []
        return payload

    def learn(self, ids: Sequence[int], vocabulary: Vocabulary) -> None:
        """What has been written after what it knows, by itself or by another."""
        if self._session is None or self._missed is None:
            return
        if self._session.vocabulary.fingerprint == vocabulary.fingerprint:
            self._missed.extend(ids)
        else:
            self._missed = None

    def _edit(self, text: bytes) -> Edit | None:
        if self._missed is None:
            return SyncText(text)
        return Append(tuple(self._missed)) if self._missed else None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class _Answer:
    """One answer under way."""

    def __init__(self, request: Request, members: Sequence[Member], plan: Plan) -> None:
        self.finish: FinishReason | None = None
        self.transcript = Transcript(request.sampling, [member.name for member in members])
        self._plan, self._sampling = plan, request.sampling
        self._names = [member.name for member in members]
        self._first = Pen(plan.first, members[plan.first], request)
        self._other = None if plan.other is None else Pen(plan.other, members[plan.other], request)
        self._text = request.partial.encode()
        self._left = request.sampling.max_tokens
        self._written: dict[int, int] = {}

    async def segment(self) -> list[Event]:
        """What is written until the first member has had its say, and the other its turn where there is one."""
        gate = self._plan.gate if self._other is not None else None
        try:
            ended, events = await self._write(self._first, Until(self._at_most(self._plan.segment), gate=gate))
            if ended == "gate" and self._other is not None:
                ended, more = await self._write(self._other, Until(self._at_most(self._plan.turn)))
                events += more
        except NoRoom:
            self.finish, events = "length", []
        return events

    def share(self) -> Trace:
        """Which part of the tokens each member has written."""
        whole = sum(self._written.values()) or 1
        return Trace("share", {self._names[seat]: count / whole for seat, count in sorted(self._written.items())})

    async def close(self) -> None:
        pens = [self._first] if self._other is None else [self._first, self._other]
        await asyncio.gather(*(pen.close() for pen in pens))

    def _at_most(self, tokens: int) -> int:
        return tokens if self._left is None else min(tokens, self._left)

    async def _write(self, pen: Pen, until: Until) -> tuple[str, list[Event]]:
        proposal = await pen.write(self._text, until, self._sampling, self._sampling.logprobs or 0)
        events = self._taken(pen, proposal)
        if self.finish is None and proposal.finish in ("stop", "context"):
            self.finish = "stop" if proposal.finish == "stop" else "length"
        return proposal.finish, events

    def _taken(self, pen: Pen, proposal: Proposal) -> list[Event]:
        """A proposal becomes a part of the answer, up to where the answer ends."""
        events: list[Event] = []
        for decision in decisions(pen, proposal):
            self._text += decision.text
            self._written[pen.seat] = self._written.get(pen.seat, 0) + 1
            if delta := self.transcript.write(decision):
                events.append(delta)
            if self._left is not None:
                self._left -= 1
            if self.transcript.stopped or self._left == 0:
                self.finish = "stop" if self.transcript.stopped else "length"
                return events
        for other in (self._first, self._other):
            if other is not None:
                other.learn(proposal.ids, pen.vocabulary)
        return events


def decisions(pen: Pen, proposal: Proposal) -> list[Decision]:
    """Each token of a proposal, a closing stop left out."""
    vocabulary = pen.vocabulary
    lists = proposal.distributions or (None,) * len(proposal.ids)
    return [
        Decision(
            text=vocabulary.tokens[token],
            spelling={},
            shares={pen.seat: 1.0},
            logprob=float(logprob),
            top=() if listed is None else _top(vocabulary, listed.ids.tolist(), listed.logprobs.tolist()),
        )
        for token, logprob, listed in zip(proposal.ids, proposal.logprobs, lists, strict=True)
        if token not in vocabulary.stop_ids
    ]


def _top(vocabulary: Vocabulary, ids: Sequence[int], logprobs: Sequence[float]) -> tuple[tuple[bytes, float], ...]:
    return tuple((vocabulary.tokens[i], logprob) for i, logprob in zip(ids, logprobs, strict=True))
