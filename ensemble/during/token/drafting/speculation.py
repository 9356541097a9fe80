"""Any rule over one vocabulary, faster: members draft tokens, and decisions are held against them block by block.

Drafts queue up behind what is decided. Whoever lacks distributions at queued positions gets them by scoring; where the
distributions of all are there, the rule decides. A draft that is what was decided stays, and what is queued behind it;
any other drops the queue. One of those who have scored adds a token of its own, which opens the next block: it is a
proposal like any other, as the decision needs the others' distributions too. So what comes out is exactly what the rule
alone gives: the same tokens where nothing is drawn, the same distribution where they are.

Random numbers: members draw drafts with (seed, position). Accepting, drawing what is elected instead and drawing the
token added after scoring have streams of their own (``Stream``). A position may be drafted several times with one
number, but only the last draft meets a decision, so that each number has a part in one decision at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.concurrency import cancel, together
from ensemble.during.token.drafting.drafts import Draft, Drafting, Pace, Stream, acceptance, elected
from ensemble.during.token.drafting.panel import DraftPanel, check_one_vocabulary
from ensemble.during.token.drafting.pending import Pending
from ensemble.during.token.drafting.rulings import DraftRule, Ruling, own_chances, row_of
from ensemble.during.token.lockstep import Decision, NoRoom, Panel, Rule, lockstep
from ensemble.errors import BadRequest, ConfigurationError, ContextTooLong
from ensemble.member import (
    Capability,
    Card,
    Distribution,
    Floats,
    Member,
    Next,
    Proposal,
    Propose,
    Question,
    Reply,
    Score,
    Until,
)
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import pick, uniform
from ensemble.vocabulary import Vocabulary


def draft_lengths(drafting: Drafting, seats: Sequence[int], members: int) -> dict[int, int]:
    """Draft lengths by seat of those that take part, largest first.

    >>> draft_lengths(Drafting(), [1, 2], 3), draft_lengths(Drafting(lengths=(1, 1, 4)), [0], 3)
    ({1: 5, 2: 1}, {2: 4, 0: 1})
    """
    numbers = drafting.lengths or tuple(5 if seat == min(seats) else 1 for seat in range(members))
    part = {seat: n for seat, n in enumerate(numbers) if seat in seats or n > 1}
    return dict(sorted(part.items(), key=lambda item: -item[1]))


def check_drafting(drafting: Drafting, members: Sequence[Card]) -> None:
    """Refuse draft lengths that do not fit the members, and members whose cards tell that their vocabularies differ.

    Raises:
        ConfigurationError: naming what is at fault.
    """
    check_one_vocabulary(members)
    if drafting.lengths is not None and len(drafting.lengths) != len(members):
        names = ", ".join(card.name for card in members)
        rule = f"draft.lengths needs one number for each of the {len(members)} members ({names})"
        raise ConfigurationError(f"{rule}; it has {len(drafting.lengths)}", param="draft")


def admit_drafting(request: Request, drafting: Drafting, seats: Sequence[int], members: Sequence[Card]) -> None:
    """Refuse a request whose tokens are drawn where members do not give whole distributions.

    Args:
        seats: those with a part in the decisions.

    Raises:
        BadRequest: naming the member.
    """
    for seat in [] if request.sampling.greedy else draft_lengths(drafting, seats, len(members)):
        if Capability.FULL_DISTRIBUTION not in members[seat].capabilities:
            rule = "temperature must be 0: drafts of an ensemble that draws need full distributions"
            name = members[seat].name
            raise BadRequest(f"{rule}, and {name} does not give them", param="temperature", member=name)


def speculative(
    request: Request, members: Sequence[Member], rule: DraftRule, drafting: Drafting
) -> AsyncGenerator[Event, None]:
    """Write one answer: the one that ``lockstep`` writes with this rule, or, where tokens are drawn, one as likely.

    Args:
        request: its sampling has a seed.

    Raises:
        BadRequest: the members' vocabularies differ.
        EnsembleError: a member failed; its siblings are cancelled and all sessions are closed.
    """
    return lockstep(request, members, Speculation(request, members, rule, drafting))


class Speculation(Rule):
    """A rule whose decisions are prepared in blocks. It has a panel of its own; the loop's stays unused."""

    def __init__(self, request: Request, members: Sequence[Member], rule: DraftRule, drafting: Drafting) -> None:
        lengths = draft_lengths(drafting, rule.seats, len(members))
        self._bench = DraftPanel(request, members)
        self._rule = rule
        self._sampling = request.sampling
        self._seeds = {stream: stream.seed(request.sampling.seed or 0) for stream in Stream}
        self._whole = rule.listed == 0 or not request.sampling.greedy or _reports(request.sampling, rule, members)
        self._order = list(lengths)
        self._pace = Pace(drafting, lengths, timed=request.sampling.greedy)
        self._overlap = drafting.overlap
        self._position = 0
        """Decisions taken."""
        self._ready: deque[Decision] = deque()
        """Those that the loop has not been given."""
        self._pending = Pending(rule.seats)
        self._added: int | None = None
        """Who added the last draft after scoring and may go on from there."""
        self._ahead: Ahead | None = None
        self._plainly = True
        """The next position is settled by the rule itself. So is the first, which opens all sessions at once."""

    async def elect(self, panel: Panel, position: int) -> Decision:
        while not self._ready:
            if self._position and self._position >= self._limit:
                raise NoRoom
            await (self._settle_plainly() if self._plainly else self._continue())
        return self._ready.popleft()

    async def close(self) -> None:
        if self._ahead is not None:
            await self._ahead.end()
        await self._bench.close()

    # One block

    async def _continue(self) -> None:
        """One more message to whoever drafts, then one to those who verify, and what follows from it."""
        await self._draft()
        if not self._pending:
            self._plainly = True
            return
        if self._pending.behind:
            await self._score(self._pending.behind)
        self._verify()

    async def _draft(self) -> None:
        """Make the queue longer: by what was drafted meanwhile, by a new block, or by more of one just begun."""
        if self._ahead is not None:
            await self._collect()
            if self._pending:
                return
        seat = self._added if self._pending else self._order[0]
        self._added = None
        if seat is not None and not self._ended:
            length = min(self._left, self._pace.length(seat) - bool(self._pending))
            if length > 0:
                self._take(seat, await self._proposed(seat, length))

    async def _proposed(self, seat: int, tokens: int) -> Reply | None:
        """What a seat drafts behind the queue; ``None`` where a member that only drafts has no room for it."""
        question = Propose(Until(tokens), self._sampling, topk=self._listed, full=self._whole)
        try:
            return await self._bench.exchange(seat, question, self._pending.ids)
        except ContextTooLong:
            if seat in self._rule.seats:
                raise
            self._order.remove(seat)
            return None

    def _take(self, seat: int, reply: Reply | None) -> None:
        """Queue what a seat has drafted."""
        if reply is not None:
            proposal = reply.payload
            assert isinstance(proposal, Proposal)
            self._pace.drafted(seat, len(proposal.ids), reply.seconds)
            rows = _distributions(proposal.table, proposal.distributions)
            drafts = [Draft(i, seat, self._chances(row)) for i, row in zip(proposal.ids, rows, strict=True)]
            self._pending.drafted(drafts, rows)

    async def _score(self, behind: Sequence[int]) -> None:
        """Let seats catch up with the queue, and one of them add to it."""
        more = self._left > 0 and not self._ended
        if self._overlap and more and self._order[0] not in behind:
            self._ahead = self._run_ahead(self._order[0])
        ids = self._pending.ids
        asked = [
            self._bench.exchange(seat, self._verification(seat, more), ids[: self._pending.known(seat)])
            for seat in behind
        ]
        for seat, reply in zip(behind, await together(asked), strict=True):
            self._pace.verified(seat, reply.seconds)
            self._pending.said(seat, self._told(reply))
        if more and self._ahead is None:
            self._add(next(seat for seat in self._order if seat in behind))

    def _verification(self, seat: int, more: bool) -> Question:
        """What gives a seat's missing distributions: at all queued positions, and at the one after them if ``more``."""
        missing = self._pending.ids[self._pending.known(seat) :]
        rest = missing if more else missing[:-1]
        return Score((rest,), self._listed, self._whole) if rest else Next(self._listed)

    def _add(self, seat: int) -> None:
        """The seat's own next token, drawn here from what it has just said."""
        row = self._pending.after(seat)
        chances = self._chances(row)
        if chances is not None:
            token = pick(chances, uniform(self._seeds[Stream.ADD], self._position + len(self._pending)))
        elif len(likely := row.ids[self._vocabulary.writable[row.ids]]):
            token = int(likely[np.argmax(row.logprobs[self._vocabulary.writable[row.ids]])])
        else:
            return
        self._pending.add(Draft(token, seat, chances))
        self._added = seat

    # Running ahead

    def _run_ahead(self, seat: int) -> Ahead | None:
        tokens = min(self._left, self._pace.ahead(seat))
        return Ahead(seat, asyncio.create_task(self._proposed(seat, tokens))) if tokens else None

    async def _collect(self) -> None:
        """Queue what was drafted meanwhile, unless what it goes on from was dropped."""
        ahead = self._ahead
        assert ahead is not None
        # A session takes one message at a time, so that drafts no longer wanted are waited for as well.
        reply = await ahead.task
        self._ahead = None
        if not ahead.stale:
            self._take(ahead.seat, reply)

    # Decisions

    async def _settle_plainly(self) -> None:
        if self._ahead is not None:
            await self._collect()
        decision = await self._rule.elect(self._bench, self._position)
        self._plainly = False
        if self._pending:
            self._pace.judged(self._pending.first.seat, float(self._spelt_as_drafted(decision)))
        self._conclude(decision)

    def _verify(self) -> None:
        """Decide at all positions that everybody has spoken about, until a draft is rejected."""
        holds = True
        while holds and self._pending.complete:
            ruling = self._ruling()
            if ruling is None:
                self._plainly = True
                return
            holds = self._conclude(ruling.decision(self._elected(ruling), self._sampling))

    def _ruling(self) -> Ruling | None:
        vocabularies = [self._bench.vocabulary(seat) for seat in self._rule.seats]
        return self._rule.ruling(vocabularies, self._pending.told)

    def _elected(self, ruling: Ruling) -> int:
        draft = self._pending.first
        column = ruling.column(draft.id)
        if draft.chances is None:
            winner = int(np.argmax(ruling.chances))
            self._pace.judged(draft.seat, float(winner == column))
            return winner
        chances = ruling.drawn_from(draft.chances)
        self._pace.judged(draft.seat, acceptance(ruling.chances, chances))
        coin, point = (uniform(self._seeds[s], self._position) for s in (Stream.ACCEPT, Stream.CORRECT))
        return elected(ruling.chances, chances, column, coin, point)

    def _conclude(self, decision: Decision) -> bool:
        """Commit a decision; whether what is queued behind it still holds."""
        holds = bool(self._pending) and bool(decision.text) and self._spelt_as_drafted(decision)
        self._ready.append(decision)
        self._bench.commit(decision)
        self._position += 1
        if holds:
            self._pending.pop()
        else:
            self._pending.clear()
            self._added = None
            if self._ahead is not None:
                self._ahead.stale = True
        return holds

    def _spelt_as_drafted(self, decision: Decision) -> bool:
        """Every seat commits the very id that was drafted; one with another id of equal bytes would go on otherwise."""
        return all(ids == (self._pending.first.id,) for ids in decision.spelling.values())

    # What is known

    @property
    def _listed(self) -> int:
        """Tokens that members list at each position; 0 where they send whole distributions."""
        return 0 if self._whole else self._rule.listed

    @property
    def _limit(self) -> int:
        """Tokens that the answer may have."""
        rooms = [room for seat in self._rule.seats if (room := self._bench.room(seat)) is not None]
        return min([*rooms, self._sampling.max_tokens] if self._sampling.max_tokens else rooms)

    @property
    def _left(self) -> int:
        """Positions behind the queue that the answer may still have."""
        return max(0, self._limit - self._position - len(self._pending))

    @property
    def _ended(self) -> bool:
        """The last draft ends the answer."""
        return bool(self._pending) and self._pending.last.id in self._vocabulary.stop_ids

    @property
    def _vocabulary(self) -> Vocabulary:
        return self._bench.vocabulary(self._rule.seats[0])

    def _chances(self, row: Distribution) -> Floats | None:
        """What a draft is drawn from; ``None`` where it is the likeliest."""
        return None if self._sampling.greedy else own_chances(row.logprobs, self._vocabulary, self._sampling)

    def _told(self, reply: Reply) -> Sequence[Distribution]:
        payload = reply.payload
        if isinstance(payload, Distribution):
            return _distributions(row_of(payload)[None], ()) if self._whole else [payload]
        assert isinstance(payload, tuple)
        [scored] = payload
        return _distributions(scored.table, scored.distributions)


@dataclass(slots=True)
class Ahead:
    """Drafts under way that go on from the queue while others verify it."""

    seat: int
    task: asyncio.Task[Reply | None]
    stale: bool = False
    """What they go on from was dropped."""

    async def end(self) -> None:
        """Give them up; their failure is nobody's."""
        await cancel([self.task])
        if self.task.done() and not self.task.cancelled():
            self.task.exception()


def _reports(sampling: Sampling, rule: DraftRule, members: Sequence[Member]) -> bool:
    """Whether probabilities are reported and whole distributions can be had; lists seldom know all that is reported."""
    return sampling.logprobs is not None and all(
        Capability.FULL_DISTRIBUTION in members[seat].card.capabilities for seat in rule.seats
    )


def _distributions(table: Floats | None, listed: Sequence[Distribution]) -> Sequence[Distribution]:
    if table is None:
        return listed
    ids = np.arange(table.shape[1], dtype=np.int32)
    return [Distribution(ids, row, len(ids)) for row in table]
