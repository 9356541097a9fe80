"""The suite for engines that host heads: what a head reads and where a gate ends depend on the text alone.

Subclass it like ``EngineConformance``, with a member that has at least one head which is told nothing and reads every
position (``Card.heads``), and whole distributions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ensemble.concurrency import together
from ensemble.distributions import entropy
from ensemble.errors import BadRequest
from ensemble.member import (
    Append,
    Distribution,
    Exchange,
    Floats,
    Gate,
    Member,
    Next,
    Propose,
    Rewind,
    Session,
    SyncText,
    Until,
)
from ensemble.request import Request
from ensemble.testing.conformance import QUESTION, TEXTS, by_id

STEPS = 6
"""Tokens that gates are tried on."""


class HeadConformance:
    """Cache equivalence, batch independence, gates, refusals."""

    tolerance = 1e-4
    text_limit = 12

    @pytest.fixture
    def head(self, member: Member) -> str:
        """Name of the head that is tried."""
        return min(member.card.heads)

    async def test_outcomes_are_a_distribution_and_depend_on_the_text_alone(self, member: Member, head: str) -> None:
        fresh = [await self._read(member, head, text) for text in TEXTS]
        for outcomes in fresh:
            assert np.exp(outcomes, dtype=np.float64).sum() == pytest.approx(1, abs=1e-4)
        assert any(np.abs(fresh[0] - other).max() > self.tolerance for other in fresh[1:])
        async with await member.start(Request.of(QUESTION)) as session:
            for text, expected in zip(TEXTS, fresh, strict=True):
                await session.propose(Until(tokens=2))
                await session.next(3)
                self._same(by_id(await session.next(0, edit=self._sync(text), head=head)), expected)
                self._same(by_id(await session.next(0, head=head)), expected)

    async def test_neighbours_do_not_matter_to_a_head(self, member: Member, head: str) -> None:
        alone = [await self._read(member, head, text) for text in TEXTS]
        beside = await together(self._read(member, head, text) for text in TEXTS)
        for one, other in zip(alone, beside, strict=True):
            self._same(one, other)

    async def test_the_next_token_is_told_after_a_head_has_read(self, member: Member, head: str) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            before = by_id(await session.next(0))
            await session.next(2, head=head)
            self._same(by_id(await session.next(0)), before)

    async def test_a_message_to_a_head_is_carried_out_once(self, member: Member, head: str) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            await session.sync_text(b"ab")
            again = Exchange(session._version + 1, Rewind(1), Next(2, head=head))
            first, second = await session._send(again), await session._send(again)
            assert first.length == second.length
            assert isinstance(first.payload, Distribution) and isinstance(second.payload, Distribution)
            assert np.array_equal(first.payload.logprobs, second.payload.logprobs)

    async def test_a_gate_by_a_head_ends_a_proposal_where_the_head_says_so(self, member: Member, head: str) -> None:
        stays = await self._along(member, head)
        for stay in (0.0, float(np.exp(np.median([outcomes[0] for outcomes in stays]))), 1.1):
            await self._ends(member, Gate(head, stay=stay), stays)
        await self._ends(member, Gate(head), stays)

    async def test_a_gate_by_entropy_ends_a_proposal_where_it_is_exceeded(self, member: Member) -> None:
        rows = [np.array([entropy(row)]) for row in await self._along(member, "")]
        for limit in (0.0, float(np.median(rows)), 100.0):
            await self._ends(member, Gate(entropy=limit), rows)

    async def test_what_no_head_answers_is_refused_and_changes_nothing(self, member: Member, head: str) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            before = by_id(await session.next(0))
            refused = (
                Next(2, head="no such head"),
                Next(2, given=np.zeros(2, np.float32)),
                Propose(Until(2, gate=Gate("no such head"))),
                Propose(Until(2, gate=Gate())),
                Propose(Until(2, gate=Gate(head, entropy=1.0))),
            )
            for question in refused:
                with pytest.raises(BadRequest):
                    await session.exchange(question)
            self._same(by_id(await session.next(0)), before)

    def _sync(self, text: str) -> SyncText:
        return SyncText(text[: self.text_limit].encode())

    async def _read(self, member: Member, head: str, text: str) -> Floats:
        async with await member.start(Request.of(QUESTION)) as session:
            return by_id(await session.next(0, edit=self._sync(text), head=head))

    async def _along(self, member: Member, head: str) -> list[Floats]:
        """What a head reads, or the next-token distributions, before each token of the greedy answer."""
        async with await member.start(Request.of(QUESTION)) as session:
            ids = (await session.propose(Until(STEPS))).ids
            found = [by_id(await session.next(0, head=head))]
            for token in ids[:-1]:
                found.append(by_id(await session.next(0, edit=Append((token,)), head=head)))
        return found

    async def _ends(self, member: Member, gate: Gate, read: Sequence[Floats]) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            whole = await session.propose(Until(STEPS))
            proposal = await session.propose(Until(STEPS, gate=gate))
            await self._checked(session, proposal.finish == "gate", proposal.ids)
        # A value at the limit may fall to either side of it.
        near = [gate.ends(values + self.tolerance) != gate.ends(values - self.tolerance) for values in read]
        left = [gate.ends(values) for values in read]
        first = next((place for place, ended in enumerate(left) if ended), len(whole.ids))
        if not any(near[: first + 1]):
            assert proposal.ids == whole.ids[:first]
            assert (proposal.finish == "gate") == (first < len(whole.ids))
            assert (proposal.outcomes is not None) == (proposal.finish == "gate" and bool(gate.head))

    async def _checked(self, session: Session, gated: bool, ids: tuple[int, ...]) -> None:
        """A proposal that a gate has ended is as uncommitted as any, and can be accepted."""
        accepted = await session.exchange(edit=Append(ids))
        assert accepted.length == len(ids)
        assert gated or ids

    def _same(self, got: Floats, expected: Floats) -> None:
        likely = (got > -12) | (expected > -12)
        assert np.abs(got - expected)[likely].max() < self.tolerance
