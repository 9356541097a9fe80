"""The loop of drafting and verifying: draft, read, dispute, fuse, commit, until the answer ends.

The driver's bytes are the truth. Tokens are written as soon as their draft has been read; while it is read, the
drafter goes on as if nothing would be disputed. Nothing here knows how a place is judged or fused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ensemble.concurrency import cancel, shielded, together
from ensemble.during.span.alignment import disputed, whole
from ensemble.during.span.drafting import Draft, Drafted, Drafter
from ensemble.during.span.fusion import RULES, Place
from ensemble.during.span.seats import Seat
from ensemble.during.span.sharpening import Sharpening
from ensemble.during.span.verifying import Mirror, Reader, Reading, Standing, Verifier
from ensemble.during.token.lockstep import Decision, NoRoom, Transcript
from ensemble.member import Member
from ensemble.request import Event, Finish, FinishReason, Request, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who does what, and when tokens are disputed."""

    drafter: int
    """Seat of the member that writes."""
    weights: Mapping[int, float]
    """In what is fused, by seat; seats that are missing are never called."""
    draft_tokens: int
    threshold: float
    agreement: float
    fuse: Literal["gac", "unite"]
    sharpening: Sharpening
    topk: int
    """Tokens listed at each place."""
    overlap: bool
    reference: bool


async def relay(request: Request, members: Sequence[Member], plan: Plan) -> AsyncGenerator[Event, None]:
    """Write one answer.

    Raises:
        EnsembleError: a member failed; its siblings are cancelled and all sessions are closed.
    """
    answer = _Answer(request, members, plan)
    try:
        await answer.open()
        while answer.finish is None:
            try:
                await answer.block()
            except NoRoom:
                answer.finish = "length"
            for event in answer.news():
                yield event
        if rest := answer.transcript.flush():
            yield rest
        yield Finish(answer.finish)
    finally:
        await shielded(answer.close())


class _Answer:
    """One answer under way."""

    def __init__(self, request: Request, members: Sequence[Member], plan: Plan) -> None:
        self.finish: FinishReason | None = None
        self.transcript = Transcript(request.sampling, [member.name for member in members])
        self._request, self._plan = request, plan
        self._drafter = Drafter(Seat(plan.drafter, members[plan.drafter]), plan.topk)
        verifying = (seat for seat in plan.weights if seat != plan.drafter and plan.threshold > 0)
        self._verifiers = [self._verifier(Seat(seat, members[seat])) for seat in verifying]
        self._committed = request.partial.encode()
        self._left = request.sampling.max_tokens
        self._pending: tuple[Drafted, ...] = ()
        self._ended: FinishReason | None = None
        """Why nothing can be drafted after what is pending."""
        self._events: list[Event] = []
        self._ahead: asyncio.Task[Draft] | None = None
        self._dropped: asyncio.Task[Draft] | None = None

    def _verifier(self, seat: Seat) -> Verifier:
        plan, stops = self._plan, not self._plan.reference
        if seat.member.card.vocabulary == self._drafter.seat.member.card.vocabulary and not plan.reference:
            return Mirror(seat, plan.topk, self._drafter, stops=stops)
        return Reader(seat, plan.topk, self._request, stops=stops)

    async def open(self) -> None:
        """Open all sessions at once."""
        seats = [self._drafter.seat, *(verifier.seat for verifier in self._verifiers)]
        await together(seat.open(self._request) for seat in seats)

    async def close(self) -> None:
        drafts = [task for task in (self._ahead, self._dropped) if task]
        await cancel(drafts)
        # Drafts that had failed already: the answer has ended, so nobody else will ask why.
        await asyncio.gather(*drafts, return_exceptions=True)
        seats = [self._drafter.seat, *(verifier.seat for verifier in self._verifiers)]
        await asyncio.gather(*(seat.close() for seat in seats))

    def news(self) -> list[Event]:
        """What was written since the last time."""
        events, self._events = self._events, []
        return events

    async def block(self) -> None:
        """Draft on, have the draft read, and commit what stands of it.

        Raises:
            NoRoom: a member's context is full; the answer ends with what was written.
        """
        await self._draft()
        ready = len(self._pending) if self._ended else self._whole()
        if not ready:
            return
        if self._plan.overlap and not self._ended:
            self._ahead = asyncio.create_task(self._drafted())
        readings = await together(v.read(self._committed, self._pending[:ready]) for v in self._verifiers)
        await self._write(ready, readings)

    async def _draft(self) -> None:
        if self._dropped:
            # The session must not be moved on under a message that is still being answered.
            await self._dropped
            self._dropped = None
        draft = await (self._ahead or self._drafted())
        self._ahead = None
        self._pending += draft.tokens
        self._ended = draft.ended or ("length" if self._left == len(self._pending) else None)

    async def _drafted(self) -> Draft:
        tokens = self._plan.draft_tokens
        if self._left is not None:
            tokens = min(tokens, self._left - len(self._pending))
        return await self._drafter.draft(self._pending, tokens)

    def _whole(self) -> int:
        """How many pending tokens end before a character that has only begun."""
        text = self._committed + b"".join(token.text for token in self._pending)
        begun = len(text) - whole(text)
        count = len(self._pending)
        while begun > 0 and count:
            count -= 1
            begun -= len(self._pending[count].text)
        return count

    async def _write(self, ready: int, readings: Sequence[Reading]) -> None:
        draft, self._pending = self._pending[:ready], self._pending[ready:]
        for place, token in enumerate(draft):
            decision = self._alone(token)
            if any(self._disputes(token, reading, place) for reading in readings):
                decision = await self._fused(place, draft, readings)
                self._events.append(_trace(token, decision))
            self._commit(token, decision)
            if self.finish or decision.text != token.text:
                return
        self.finish = self._ended

    def _disputes(self, token: Drafted, reading: Reading, place: int) -> bool:
        opinion = reading.opinions.get(place)
        if opinion is None:
            return False
        return disputed(token.probability, opinion, self._plan.threshold, self._plan.agreement)

    def _alone(self, token: Drafted) -> Decision:
        texts = self._drafter.seat.vocabulary.tokens
        listed = list(zip(token.listed.ids, token.listed.logprobs, strict=True))[: self._request.sampling.logprobs or 0]
        top = tuple((texts[i], float(logprob)) for i, logprob in listed)
        return Decision(text=token.text, spelling={}, shares={self._plan.drafter: 1.0}, logprob=token.logprob, top=top)

    async def _fused(self, place: int, draft: Sequence[Drafted], readings: Sequence[Reading]) -> Decision:
        standings = {self._plan.drafter: Standing(self._drafter.seat, [*self._drafter.ids], draft[place].listed)}
        standings |= {r.seat.number: r.standing(place) for r in readings if place in r.opinions}
        present = {seat: weight for seat, weight in self._plan.weights.items() if seat in standings}
        weights = {seat: weight / sum(present.values()) for seat, weight in present.items()}
        rule = RULES[self._plan.fuse](weights, self._plan.topk, self._request.sampling, self._plan.sharpening)
        return await rule.elect(Place(standings), place)

    def _commit(self, token: Drafted, decision: Decision) -> None:
        if not decision.text:
            self.finish = "stop"
            return
        self._committed += decision.text
        if decision.text == token.text:
            self._drafter.ids.append(token.id)
        else:
            self._replace(decision)
        if delta := self.transcript.write(decision):
            self._events.append(delta)
        if self._left is not None:
            self._left -= 1
        if self.transcript.stopped:
            self.finish = "stop"
        elif self._left == 0:
            self.finish = "length"

    def _replace(self, decision: Decision) -> None:
        """Write on after another token than the one drafted."""
        ids = decision.spelling.get(self._plan.drafter)
        if ids:
            self._drafter.ids += ids
        else:
            self._drafter.adopt(self._committed)
        self._pending, self._ended = (), None
        self._dropped, self._ahead = self._ahead, None


def _trace(token: Drafted, decision: Decision) -> Trace:
    drafted, elected = (text.decode(errors="replace") for text in (token.text, decision.text))
    return Trace("dispute", {"drafted": drafted, "elected": elected})
