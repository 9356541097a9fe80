"""The loop that token-level methods share: ask members, elect the next token, commit it to all, until the answer ends.

A rule says whom to ask what and elects; the loop keeps sessions, committed bytes, text, limits and clean-up. The
driver's bytes are the truth: a member with an id of its own for what was elected appends it, any other makes its
continuation spell all committed bytes anew. Commit and next question travel in one exchange, so a step that asks each
member once costs one round trip. A member that a rule does not ask is not called: its session is opened by the first
question and brought up to date by the next. Nothing here knows how a token is elected.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

from ensemble.concurrency import settled, shielded, together
from ensemble.errors import ContextTooLong
from ensemble.member import (
    Append,
    Distribution,
    Edit,
    Floats,
    LogprobsAt,
    Member,
    Next,
    Payload,
    Question,
    Reply,
    Session,
    SyncText,
)
from ensemble.request import Delta, Event, Finish, FinishReason, Request, Sampling, TokenLogprob
from ensemble.text import TextStream
from ensemble.vocabulary import Union, Vocabulary, union_of

_NEGLIGIBLE = 1e-3
"""Members with a smaller part in a decision are not credited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a rule elected for one step."""

    text: bytes
    """To be committed; empty to end the answer."""
    spelling: Mapping[int, tuple[int, ...]]
    """Ids of ``text`` by seat, for members that have it in their vocabulary; the others adopt the text."""
    shares: Mapping[int, float]
    """Each seat's part in the decision, up to a common factor; not all 0."""
    logprob: float
    """Natural logarithm, in the combined distribution."""
    top: tuple[tuple[bytes, float], ...] = ()
    """Alternatives with their log-probabilities, best first, where ``Sampling.logprobs`` asks for them."""


class Rule(ABC):
    """How members agree on one token. An instance serves one request and may keep state from step to step."""

    @abstractmethod
    async def elect(self, panel: Panel, position: int) -> Decision:
        """Ask whom it needs and decide.

        Args:
            panel: the members, by seat: their number in the configured order.
            position: number of the step, counted from 0.
        """

    async def close(self) -> None:
        """Free what it holds besides the panel; the loop calls it when the answer has ended, however it ended."""
        return


class Panel:
    """The members of one run around the text committed so far."""

    def __init__(self, request: Request, members: Sequence[Member]) -> None:
        self._seats = [_Seat(member, request) for member in members]
        self._committed = request.partial.encode()

    async def ask(self, questions: Mapping[int, Question]) -> dict[int, Payload]:
        """Ask several seats at once; each first learns what has been committed since it was last asked.

        Raises:
            NoRoom: what was committed does not fit into a member's context.
            EnsembleError: a member failed; the other questions are cancelled.
        """
        seats = [self._seats[number] for number in questions]
        if any(seat.session is None for seat in seats):
            await together(seat.open() for seat in seats if seat.session is None)
        posted = [seat.post(question) for seat, question in zip(seats, questions.values(), strict=True)]
        try:
            replies = await settled(posted)
        except ContextTooLong as error:
            raise NoRoom from error
        return {n: seat.took(reply) for n, seat, reply in zip(questions, seats, replies, strict=True)}

    async def next(self, topk: Mapping[int, int]) -> dict[int, Distribution]:
        """Next-token distributions by seat; ``topk``: how many tokens each lists, 0 for all."""
        return cast(dict[int, Distribution], await self.ask({seat: Next(k) for seat, k in topk.items()}))

    async def logprobs_at(self, ids: Mapping[int, tuple[int, ...]]) -> dict[int, Floats]:
        """Log-probabilities of ids in the distributions just asked for, by seat."""
        return cast(dict[int, Floats], await self.ask({seat: LogprobsAt(wanted) for seat, wanted in ids.items()}))

    def member(self, seat: int) -> Member:
        return self._seats[seat].member

    def vocabulary(self, seat: int) -> Vocabulary:
        """Of a seat that has been asked before."""
        session = self._seats[seat].session
        assert session is not None, "a seat's vocabulary is known once it has been asked"
        return session.vocabulary

    def union(self, seats: Sequence[int]) -> Union:
        """The union of these seats' vocabularies, in this order; all have been asked before."""
        return union_of([self.vocabulary(seat) for seat in seats])

    def commit(self, decision: Decision) -> None:
        """Let every seat learn the elected text when it is next asked."""
        self._committed += decision.text
        for number, seat in enumerate(self._seats):
            seat.learn(decision.spelling.get(number), self._committed)

    @property
    def full(self) -> bool:
        """A member that took part in this step has no room for a token after the one elected."""
        return any(seat.up_to_date and seat.room <= 1 for seat in self._seats)

    async def close(self) -> None:
        """Close all sessions at once."""
        await asyncio.gather(*(seat.session.close() for seat in self._seats if seat.session is not None))


class NoRoom(Exception):
    """A member's context cannot hold what was committed; the answer ends here with reason ``length``."""


class _Seat:
    """One member's place: its session, once it has been asked, and what it does not know yet."""

    def __init__(self, member: Member, request: Request) -> None:
        self.member = member
        self.session: Session | None = None
        self.room = 0
        self._request = request
        self._edit: Edit | None = None

    @property
    def up_to_date(self) -> bool:
        return self.session is not None and self._edit is None

    async def open(self) -> None:
        self.session = await self.member.start(self._request)

    def post(self, question: Question) -> asyncio.Future[Reply]:
        """Tell what it does not know yet, and ask."""
        assert self.session is not None, "a seat is opened before it is asked"
        return self.session.post(question, edit=self._edit)

    def took(self, reply: Reply) -> Payload:
        """It has learnt what it was told."""
        self._edit, self.room = None, reply.room
        return reply.payload

    def learn(self, ids: tuple[int, ...] | None, committed: bytes) -> None:
        self._edit = Append(ids) if ids and self.up_to_date else SyncText(committed)


class Transcript:
    """Decisions as events: whole characters, stop strings, credits and reports."""

    def __init__(self, sampling: Sampling, names: Sequence[str]) -> None:
        self._stream = TextStream(sampling.stop)
        self._report = sampling.logprobs is not None
        self._names = names
        self._held: list[Mapping[str, float]] = []
        """Credits of the decisions since text came out."""
        self._last: Mapping[str, float] = {}

    @property
    def stopped(self) -> bool:
        return self._stream.stopped

    def write(self, decision: Decision) -> Delta | None:
        """The text that has become certain, and the report on this decision."""
        self._last = _credits(self._names, decision.shares)
        self._held.append(self._last)
        tokens = (TokenLogprob(decision.text, decision.logprob, decision.top),) if self._report else ()
        return self._delta(self._stream.push(decision.text), tokens)

    def flush(self) -> Delta | None:
        """What was held back."""
        return self._delta(self._stream.flush(), ())

    def _delta(self, text: str, tokens: tuple[TokenLogprob, ...]) -> Delta | None:
        if not text and not tokens:
            return None
        credits = self._last
        if text and self._held:
            credits, self._held = _mean(self._held), []
        return Delta(text, credits, tokens)


def _credits(names: Sequence[str], shares: Mapping[int, float]) -> Mapping[str, float]:
    by_name: dict[str, float] = {}
    for seat, share in shares.items():
        by_name[names[seat]] = by_name.get(names[seat], 0.0) + share
    least = _NEGLIGIBLE * sum(by_name.values())
    kept = {name: share for name, share in by_name.items() if share >= least}
    whole = sum(kept.values())
    return {name: share / whole for name, share in kept.items()}


def _mean(credits: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    if len(credits) == 1:
        return credits[0]
    names = dict.fromkeys(name for credit in credits for name in credit)
    return {name: sum(credit.get(name, 0.0) for credit in credits) / len(credits) for name in names}


async def lockstep(request: Request, members: Sequence[Member], rule: Rule) -> AsyncGenerator[Event, None]:
    """Write one answer.

    Raises:
        EnsembleError: a member failed; its siblings are cancelled and all sessions are closed.
    """
    panel = Panel(request, members)
    transcript = Transcript(request.sampling, [member.name for member in members])
    reason: FinishReason = "length"
    try:
        for position in count():
            try:
                decision = await rule.elect(panel, position)
            except NoRoom:
                break
            if not decision.text:
                reason = "stop"
                break
            if delta := transcript.write(decision):
                yield delta
            if transcript.stopped:
                reason = "stop"
                break
            if position + 1 == request.sampling.max_tokens or panel.full:
                break
            panel.commit(decision)
        if rest := transcript.flush():
            yield rest
        yield Finish(reason)
    finally:
        await shielded(asyncio.gather(panel.close(), rule.close()))
