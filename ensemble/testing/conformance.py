"""The suite that every engine must pass: whatever is done to a session, it answers like a fresh prefill of its ids.

Subclass it in a test module and give it a member (pytest-asyncio in auto mode)::

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        async def member(self):
            ...
            yield member
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from ensemble.concurrency import together
from ensemble.errors import BadRequest, ContextTooLong, MemberLost
from ensemble.member import (
    Append,
    Capability,
    Distribution,
    Exchange,
    Floats,
    Member,
    Next,
    Replace,
    Rewind,
    Session,
    SyncText,
    Until,
)
from ensemble.request import Request, Sampling
from ensemble.sampling import draw
from ensemble.vocabulary import common_prefix

QUESTION = "What is 2+3?"
TEXTS = ("The answer is 5.", "naïve café", "漢字かな", "🙂👩‍👩‍👧", "a\n\tb  c", "def f(x):\n    return x")


class EngineConformance:
    """Cache equivalence, batch independence, idempotence, bytes, stop class, sampling, refusals, release."""

    tolerance = 1e-4
    """Largest difference of a log-probability above -12 that counts as equal."""
    text_limit = 12
    """Characters of the test texts that fit the member's context comfortably."""

    async def test_any_interleaving_equals_a_fresh_prefill(self, member: Member) -> None:
        for seed in range(6):
            rng = random.Random(seed)
            async with await member.start(Request.of(QUESTION)) as session:
                ids: list[int] = []
                for _ in range(8):
                    ids = await self._random_move(rng, session, ids)
                await self._same(await session.next(0), await self._fresh(member, ids))

    async def _random_move(self, rng: random.Random, session: Session, ids: list[int]) -> list[int]:
        writable = np.flatnonzero(session.vocabulary.writable)
        move = rng.choice(["append", "rewind", "sync", "score", "propose", "next"])
        if move == "append":
            new = [int(writable[rng.randrange(len(writable))]) for _ in range(rng.randint(1, 4))]
            await session.append(new)
            return [*ids, *new]
        if move == "rewind":
            count = rng.randint(0, len(ids))
            await session.rewind(count)
            return ids[: len(ids) - count]
        if move == "sync":
            text = rng.choice(TEXTS)[: self.text_limit].encode()
            await session.sync_text(text)
            return await self._spelt(session, ids, text)
        if move == "score":
            await session.score([int(writable[3])], [int(writable[3]), int(writable[5])], b"so")
        elif move == "propose":
            proposal = await session.propose(
                Until(tokens=rng.randint(1, 4)), Sampling(temperature=1, seed=rng.getrandbits(30))
            )
            if rng.random() < 0.5:
                await session.append(proposal.ids)
                return [*ids, *proposal.ids]
        else:
            await session.next(5)
        return ids

    async def _spelt(self, session: Session, ids: list[int], text: bytes) -> list[int]:
        if session.vocabulary.text(ids) == text:
            return ids
        spelt = (await self._member_of(session).tokenise([text]))[0]
        kept = common_prefix(ids, spelt)
        return [*ids[:kept], *spelt[kept:]]

    @pytest.fixture(autouse=True)
    def _remember(self, member: Member) -> None:
        self._member = member

    def _member_of(self, session: Session) -> Member:
        return self._member

    async def _fresh(self, member: Member, ids: Sequence[int]) -> Distribution:
        async with await member.start(Request.of(QUESTION)) as session:
            return await session.next(0, edit=Append(tuple(ids)))

    async def _same(self, got: Distribution, expected: Distribution) -> None:
        left, right = by_id(got), by_id(expected)
        likely = (left > -12) | (right > -12)
        assert np.abs(left - right)[likely].max() < self.tolerance

    async def test_neighbours_do_not_matter(self, member: Member) -> None:
        async def distribution(text: str) -> Distribution:
            async with await member.start(Request.of(QUESTION)) as session:
                await session.sync_text(text[: self.text_limit].encode())
                await session.propose(Until(tokens=3))
                return await session.next(0)

        alone = [await distribution(text) for text in TEXTS]
        beside = await together(distribution(text) for text in TEXTS)
        for one, other in zip(alone, beside, strict=True):
            await self._same(one, other)

    async def test_a_repeated_message_is_carried_out_once(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            await session.sync_text(b"ab")
            again = Exchange(version=session._version + 1, edit=Rewind(1), question=Next(3))
            first, second = await session._send(again), await session._send(again)
            assert first.length == second.length
            assert np.array_equal(_distribution(first.payload).ids, _distribution(second.payload).ids)

    async def test_a_message_given_up_and_sent_again_is_carried_out_once(self, member: Member) -> None:
        letters = (await member.tokenise([b"ab"]))[0]
        async with await member.start(Request.of(QUESTION)) as session:
            message = Exchange(version=1, edit=Append(tuple(letters)), question=Next(0))
            for patience in (0.0, 0.001, 0.005):
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await session._send(message)
            reply = await session._send(message)
            assert reply.length == len(letters)
            await self._same(_distribution(reply.payload), await self._fresh(member, letters))

    async def test_characters_may_be_split_over_messages(self, member: Member) -> None:
        text = "é漢🙂"[: self.text_limit].encode()
        async with await member.start(Request.of(QUESTION)) as session:
            for end in range(1, len(text) + 1):
                await session.next(1, edit=SyncText(text[:end]))
            spelt = (await member.tokenise([text]))[0]
            assert session.vocabulary.text(spelt) == text
            await self._same(await session.next(0), await self._fresh(member, spelt))

    async def test_tokens_spell_their_text(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            for text in TEXTS:
                ids = (await member.tokenise([text.encode()]))[0]
                assert session.vocabulary.text(ids) == text.encode()

    async def test_stop_ids_are_one_class_without_text(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            vocabulary = session.vocabulary
            assert vocabulary.stop_ids
            assert all(vocabulary.tokens[i] == b"" and vocabulary.writable[i] for i in vocabulary.stop_ids)
            await session.append([min(vocabulary.stop_ids)])
            assert np.isfinite(by_id(await session.next(0))[vocabulary.writable]).any()

    async def test_distributions_are_true_and_sorted(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            full, some = await session.next(0), await session.next(7)
            assert np.exp(full.logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)
            assert np.array_equal(full.ids[:7], some.ids) and not some.complete
            assert (np.diff(some.logprobs) <= 0).all()
            ids = [int(i) for i in full.ids[[0, 3, 5]]]
            np.testing.assert_allclose(await session.logprobs_at(ids), full.logprobs[[0, 3, 5]], atol=self.tolerance)

    async def test_scores_are_chains_of_next(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            ids = (await member.tokenise([b"ok so"]))[0]
            scored, prefix = await session.score(ids, ids[:1], topk=3)
            for position, token in enumerate(ids):
                row = by_id(await session.next(0))
                assert row[token] == pytest.approx(scored.logprobs[position], abs=self.tolerance)
                assert row[scored.greedy[position]] == pytest.approx(row.max(), abs=self.tolerance)
                await session.append([token])
            await self._same_top(await session.next(3), scored.distributions[-1])
            assert prefix.total == pytest.approx(float(scored.logprobs[0]), abs=self.tolerance)

    async def _same_top(self, got: Distribution, expected: Distribution) -> None:
        np.testing.assert_allclose(got.logprobs, expected.logprobs, atol=self.tolerance)

    async def test_a_proposal_is_uncommitted_until_accepted(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            before = await session.next(0)
            proposal = await session.propose(Until(tokens=4))
            await self._same(await session.next(0), before)
            assert proposal.ids[0] == int(np.argmax(np.where(session.vocabulary.writable, by_id(before), -np.inf)))
            assert proposal.text == session.vocabulary.text(proposal.ids)
            await self._same(await session.next(0, edit=Append(proposal.ids)), await self._fresh(member, proposal.ids))

    async def test_sampling_depends_on_the_seed_alone(self, member: Member) -> None:
        async def drawn(seed: int) -> tuple[int, ...]:
            async with await member.start(Request.of(QUESTION)) as session:
                return (await session.propose(Until(tokens=6), Sampling(temperature=2, seed=seed))).ids

        alone = [await drawn(seed) for seed in range(5)]
        assert await together(drawn(seed) for seed in range(5)) == alone
        assert len(set(alone)) > 1

    async def test_a_proposal_ends_at_its_boundary(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            free = await session.propose(Until(tokens=6), Sampling(temperature=1, seed=3))
            boundary = next((session.vocabulary.tokens[i] for i in free.ids if session.vocabulary.tokens[i]), b"\0")
            cut = await session.propose(Until(6, (boundary,)), Sampling(temperature=1, seed=3))
            assert cut.text == free.text[: free.text.index(boundary) + len(boundary)] or cut.finish == "stop"

    async def test_a_fork_goes_its_own_way(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            await session.sync_text(b"ab")
            before = await session.next(0)
            async with await session.fork() as fork:
                await self._same(await fork.next(0), before)
                await fork.sync_text(b"abc")
                await self._same(await session.next(0), before)

    async def test_what_does_not_fit_is_refused_and_changes_nothing(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            before = await session.next(0)
            letter = (await member.tokenise([b"a"]))[0][0]
            with pytest.raises(ContextTooLong):
                await session.append([letter] * member.card.context_length)
            with pytest.raises(BadRequest):
                await session.append([session.vocabulary.size])
            with pytest.raises(BadRequest):
                await session.rewind(1)
            await self._same(await session.next(0), before)
        with pytest.raises(ContextTooLong):
            await (await member.start(Request.of("a b " * member.card.context_length))).next(1)

    async def test_a_closed_session_is_lost(self, member: Member) -> None:
        session = await member.start(Request.of(QUESTION))
        await session.close()
        await session.close()
        with pytest.raises(MemberLost):
            await session.next(1)

    async def test_generate_writes_the_greedy_text(self, member: Member) -> None:
        answer = await member.answer(Request.of(QUESTION, max_tokens=5))
        async with await member.start(Request.of(QUESTION)) as session:
            proposal = await session.propose(Until(tokens=5))
        assert answer.text == proposal.text.decode(errors="replace")
        usage = answer.usage[member.name]
        assert usage.calls == 1 and usage.completion_tokens == len(proposal.ids) and usage.prompt_tokens > 0
        assert answer.choices[0].finish_reason == ("stop" if proposal.finish == "stop" else "length")

    async def test_choices_are_the_answers_of_consecutive_seeds(self, member: Member) -> None:
        request = Request.of(QUESTION, max_tokens=6, temperature=1.5, seed=5)
        choices_at_once = await member.answer(replace(request, n=3))
        for offset, choice in enumerate(choices_at_once.choices):
            alone = await member.answer(Request.of(QUESTION, max_tokens=6, temperature=1.5, seed=5 + offset))
            assert choice.text == alone.text

    async def test_generate_stops_before_a_stop_string(self, member: Member) -> None:
        whole = (await member.answer(Request.of(QUESTION, max_tokens=6))).text
        stop = whole[2:4] or whole[:1]
        if stop:
            answer = await member.answer(Request.of(QUESTION, max_tokens=6, stop=(stop,)))
            assert answer.text == whole[: whole.index(stop)]
            assert answer.choices[0].finish_reason == "stop"

    async def test_logprobs_are_reported(self, member: Member) -> None:
        answer = await member.answer(Request.of(QUESTION, max_tokens=3, logprobs=2))
        for token in answer.choices[0].tokens:
            assert len(token.top) == 2 and token.top[0][1] >= token.logprob - 1e-6

    async def test_hidden_states_on_request(self, member: Member) -> None:
        if Capability.HIDDEN_STATES not in member.card.capabilities:
            pytest.skip(f"{member.name} does not declare hidden states")
        async with await member.start(Request.of(QUESTION)) as session:
            asked = _distribution((await session.exchange(Next(1, hidden=True))).payload)
            assert asked.hidden is not None and asked.hidden.ndim == 1 and np.isfinite(asked.hidden).all()
            assert (await session.next(1)).hidden is None

    async def test_a_replacement_is_a_rewind_and_an_append(self, member: Member) -> None:
        ids = (await member.tokenise([b"ok so"]))[0]
        async with await member.start(Request.of(QUESTION)) as session:
            await session.next(1, edit=Append(tuple(ids)))
            kept, new = ids[:-1], (ids[0], ids[0])
            await self._same(await session.next(0, edit=Replace(1, new)), await self._fresh(member, [*kept, *new]))
            with pytest.raises(BadRequest):
                await session.exchange(edit=Replace(len(kept) + 3, new))

    async def test_lists_of_a_proposal_are_what_its_tokens_were_drawn_from(self, member: Member) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            proposal = await session.propose(Until(tokens=3), topk=4)
            (scored,) = await session.score(proposal.ids, topk=4)
        assert len(proposal.distributions) == len(proposal.ids)
        for drafted, checked in zip(proposal.distributions, scored.distributions, strict=False):
            await self._same_top(drafted, checked)

    async def test_whole_tables_of_proposals_and_scores(self, member: Member) -> None:
        if Capability.FULL_DISTRIBUTION not in member.card.capabilities:
            pytest.skip(f"{member.name} does not declare full distributions")
        async with await member.start(Request.of(QUESTION)) as session:
            sampling = Sampling(temperature=0.7, top_k=5, seed=1)
            proposal = await session.propose(Until(tokens=3), sampling, full=True)
            (scored,) = await session.score(proposal.ids, full=True)
        assert proposal.table is not None and proposal.table.shape == (len(proposal.ids), session.vocabulary.size)
        assert scored.table is not None and len(scored.table) == len(proposal.ids) + 1
        for position, (drafted, checked) in enumerate(zip(proposal.table, scored.table, strict=False)):
            likely = drafted > -12
            assert np.abs(drafted - checked)[likely].max() < self.tolerance
            allowed = np.where(session.vocabulary.writable, drafted, -np.inf)
            assert draw(allowed, sampling, position) == proposal.ids[position]


def by_id(distribution: Distribution) -> Floats:
    """Log-probabilities of a complete distribution in order of id, shape [V]."""
    assert distribution.complete
    row = np.empty(distribution.size)
    row[distribution.ids] = distribution.logprobs
    return row


def _distribution(payload: object) -> Distribution:
    assert isinstance(payload, Distribution)
    return payload
