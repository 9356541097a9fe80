"""The loop: messages and usage, text, limits, overlap, failure and cancellation."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from span_toys import disputes, safe
from token_toys import MERGED, SINGLE, WORDS, Toy, deltas, table

from ensemble.errors import BudgetExceeded, ContextTooLong, MemberLost
from ensemble.member import Floats, Session
from ensemble.request import Budget, Delta, Finish, Request, Usage, total
from ensemble.testing import ScriptedMember, TinyMember
from ensemble.vocabulary import Unspellable

Q = Request.of("ab", max_tokens=12)
overlapping = pytest.mark.parametrize("overlap", [True, False])


def writing(name: str, tokens: Sequence[bytes], text: bytes, **options) -> ScriptedMember:
    """Writes ``text`` in its own longest tokens, then stops."""
    words = sorted(filter(None, tokens), key=len, reverse=True)

    def step(done: bytes) -> dict[bytes, float]:
        rest = text[len(done) :] if text.startswith(done) else b""
        return {next((word for word in words if rest.startswith(word)), b""): 1.0}

    return ScriptedMember(name, tokens, step, **options)


def letters(text: bytes) -> list[bytes]:
    return [bytes([b]) for b in sorted(set(text))] + [b""]


@overlapping
@pytest.mark.parametrize("draft_tokens", [1, 3, 5, 20])
async def test_a_draft_takes_one_message_to_each(draft_tokens: int, overlap: bool) -> None:
    text = b"to be or not to be"
    drafter = writing("d", letters(text), text)
    verifier = writing("v", [*letters(text), b"to", b" be", b"or "], text)
    answer = await safe([drafter, verifier], draft_tokens=draft_tokens, overlap=overlap).answer(Request.of("?"))
    drafts = -(-(len(text) + 1) // draft_tokens)
    assert answer.text == text.decode()
    assert (drafter.exchanges, verifier.exchanges) == (1 + drafts, 1 + drafts)


async def test_usage_is_what_members_wrote_and_read() -> None:
    text = b"to be or not"
    twins = [writing(name, letters(text), text) for name in "dv"]
    answer = await safe(twins).answer(Request.of("?"))
    assert answer.usage["d"] == Usage(calls=1, completion_tokens=len(text) + 1)
    assert answer.usage["v"].calls == 1 and answer.usage["v"].completion_tokens == 0
    assert answer.usage["v"].prompt_tokens >= len(text)


async def test_a_long_answer_is_not_read_again_and_again() -> None:
    text = b"one two three " * 40
    drafter = writing("d", letters(text), text)
    verifier = writing("v", [*letters(text), b" two", b"three"], text)
    answer = await safe([drafter, verifier]).answer(Request.of("?", max_tokens=1000))
    assert answer.text == text.decode()
    per_draft = answer.usage["v"].prompt_tokens / (verifier.exchanges - 1)
    assert per_draft < 40


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), draft_tokens=st.integers(1, 7), members=st.integers(2, 3))
async def test_drafting_ahead_changes_nothing_but_time(seed: int, draft_tokens: int, members: int) -> None:
    groups = [[Toy(f"m{n}", t, seed + n) for n, t in enumerate((MERGED, WORDS, SINGLE)[:members])] for _ in range(2)]
    answers = [
        await safe(group, draft_tokens=draft_tokens, overlap=overlap).answer(Q)
        for group, overlap in zip(groups, (True, False), strict=True)
    ]
    assert answers[0].choices == answers[1].choices
    assert all(member.open_sessions == 0 for group in groups for member in group)


@overlapping
async def test_the_drafter_goes_on_while_others_read(overlap: bool) -> None:
    text = b"abcde" * 5
    members = [writing("d", letters(text), text), writing("v", [*letters(text), b"ab"], text)]
    begun: list[str] = []
    beside = []

    async def work(member: ScriptedMember) -> None:
        begun.append(member.name)
        await asyncio.sleep(0.002)
        beside.append(len(set(begun)) > 1)
        begun.remove(member.name)

    for member in members:
        member.work = partial(work, member)  # type: ignore[method-assign]
    answer = await safe(members, overlap=overlap).answer(Request.of("?", max_tokens=25))
    assert answer.text == text.decode()
    opening, drafts = 2, 5
    assert len(beside) == opening + 2 * drafts
    # The first draft has nothing to be beside, and the last reading has nothing drafted beside it.
    assert sum(beside[opening:]) >= drafts - 1 if overlap else not any(beside[opening:])


async def test_characters_split_over_tokens_come_out_whole() -> None:
    """The verifier has no single bytes, so it can read whole characters only."""
    text = "né 漢🙂é"
    drafter = writing("d", letters(text.encode()), text.encode())
    verifier = writing("v", [*(c.encode() for c in sorted(set(text))), b""], text.encode())
    for draft_tokens in (1, 2, 3, 5):
        events = [e async for e in safe([drafter, verifier], draft_tokens=draft_tokens).generate(Request.of("?"))]
        assert "".join(d.text for d in deltas(events)) == text
        assert all("�" not in d.text for d in deltas(events))
        assert Finish("stop") in events


async def test_a_broken_character_at_the_end_is_shown_as_such() -> None:
    text = "aé".encode()
    members = [writing("d", letters(text), text), writing("v", [b"a", "é".encode(), b""], text)]
    answer = await safe(members).answer(Request.of("?", max_tokens=2))
    assert (answer.text, answer.choices[0].finish_reason) == ("a�", "length")


@overlapping
async def test_a_member_that_cannot_spell_the_draft_fails_by_name(overlap: bool) -> None:
    members = [writing("d", letters(b"abz"), b"abz" * 9), writing("v", letters(b"ab"), b"ab")]
    with pytest.raises(Unspellable, match="'z"):
        await safe(members, overlap=overlap).answer(Request.of("?"))
    assert [member.open_sessions for member in members] == [0, 0]


@pytest.mark.parametrize(("stop", "text"), [(("lo w",), "hel"), (("xx", "o"), "hell"), (("worlds",), "hello world")])
async def test_text_ends_before_a_stop_string(stop: tuple[str, ...], text: str) -> None:
    whole = b"hello world"
    members = [writing("d", letters(whole), whole), writing("v", [*letters(whole), b"hell"], whole)]
    answer = await safe(members).answer(Request.of("?", stop=stop))
    assert (answer.text, answer.choices[0].finish_reason) == (text, "stop")
    assert [member.open_sessions for member in members] == [0, 0]


@overlapping
@pytest.mark.parametrize("draft_tokens", [1, 4, 5])
async def test_max_tokens_counts_what_was_written(draft_tokens: int, overlap: bool) -> None:
    for limit, reason in ((1, "length"), (4, "length"), (9, "length"), (10, "length"), (11, "stop")):
        members = [writing(name, letters(b"abcde"), b"abcde" * 2) for name in "dv"]
        ensemble = safe(members, draft_tokens=draft_tokens, overlap=overlap)
        answer = await ensemble.answer(Request.of("?", max_tokens=limit))
        assert (answer.text, answer.choices[0].finish_reason) == ("abcdeabcde"[:limit], reason)
        assert answer.usage["d"].completion_tokens == limit


async def test_an_answer_goes_on_after_a_partial_one() -> None:
    """The verifier reads the end of the partial answer and the draft as one token."""
    tokens = [*letters(b"abc"), b"bc"]
    members = [writing("d", letters(b"abc"), b"abcabc"), writing("v", tokens, b"abcabc")]
    answer = await safe(members).answer(Request(messages=Q.messages, partial="ab"))
    assert (answer.text, answer.choices[0].finish_reason) == ("cabc", "stop")
    assert not disputes(answer)


async def test_each_token_is_reported_and_credited() -> None:
    tokens = [b"x", b"y", b"z", b""]
    drafter = table("d", tokens, [[0.6, 0.3, 0.1, 0], [0.4, 0.35, 0.25, 0], [0, 0, 0, 1]])
    verifier = table("v", [*tokens, b"q"], [[0.6, 0.3, 0.1, 0, 0], [0, 0.8, 0.2, 0, 0], [0, 0, 0, 1, 0]])
    answer = await safe([drafter, verifier]).answer(Request.of("?", logprobs=2))
    alone, fused = answer.choices[0].tokens
    assert (alone.token, fused.token) == (b"x", b"y")
    assert (round(2.718281828**alone.logprob, 6), round(2.718281828**fused.logprob, 6)) == (0.6, 0.575)
    assert [token for token, _ in alone.top] == [b"x", b"y"] and [token for token, _ in fused.top] == [b"y", b"z"]
    assert answer.choices[0].credits == (
        ("x", {"d": 1.0}),
        ("y", {"d": pytest.approx(0.35 / 1.15), "v": pytest.approx(0.8 / 1.15)}),
    )


class Bounded(Toy):
    """Fails if it is ever asked about more than its context holds."""

    def _row(self, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        assert len(prompt) + len(ids) <= self.card.context_length
        return super()._row(prompt, ids)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    drafter=st.integers(4, 30),
    verifier=st.integers(4, 30),
    overlap=st.booleans(),
    sharpness=st.sampled_from([1.0, 4.0]),
)
async def test_an_answer_ends_where_a_context_is_full(
    seed: int, drafter: int, verifier: int, overlap: bool, sharpness: float
) -> None:
    members = [
        Bounded("d", MERGED, seed, context_length=drafter, sharpness=sharpness, stop=-99),
        Bounded("v", WORDS, seed + 1, context_length=verifier, sharpness=sharpness, stop=-99),
    ]
    answer = await safe(members, overlap=overlap).answer(Request.of("ab"))
    assert answer.choices[0].finish_reason == "length"
    written = answer.text.replace("�", "?")
    assert len(written) <= 4 * min(drafter, verifier)
    assert [member.open_sessions for member in members] == [0, 0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), context=st.integers(4, 30), topk=st.integers(1, 7), bounded=st.integers(0, 1))
async def test_a_full_context_loses_nothing_that_was_written(seed: int, context: int, topk: int, bounded: int) -> None:
    """With one vocabulary the length of drafts does not matter, nor then where the context cuts one off."""

    async def written(length: int) -> list[bytes]:
        lengths = [100, 100]
        lengths[bounded] = length
        members = [Bounded(f"m{n}", SINGLE, seed + n, context_length=c, stop=-99) for n, c in enumerate(lengths)]
        answer = await safe(members, topk=topk).answer(Request.of("ab", max_tokens=40, logprobs=0))
        return [token.token for token in answer.choices[0].tokens]

    short, long = await written(context), await written(100)
    assert long[: len(short)] == short
    room, draft, character = context - 2, 5, 4
    assert len(short) == room if bounded == 0 else room - draft - character < len(short) <= room


async def test_a_prompt_without_room_is_refused() -> None:
    members = [TinyMember("d"), Toy("v", WORDS, 1, context_length=2)]
    with pytest.raises(ContextTooLong):
        await safe(members).answer(Request.of("abcab"))
    assert [member.open_sessions for member in members] == [0, 0]


@overlapping
@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("fail_at", [0, 1, 2, 4])
async def test_a_lost_member_ends_the_answer_by_name(lost: int, fail_at: int, overlap: bool) -> None:
    vocabularies = (SINGLE, WORDS, SINGLE)
    members = [
        Toy(f"m{n}", tokens, n, stop=-99, delay=0.001, fail_at=fail_at if n == lost else None)
        for n, tokens in enumerate(vocabularies)
    ]
    with pytest.raises(MemberLost) as loss:
        await safe(members, overlap=overlap).answer(Request.of("ab", max_tokens=60))
    assert loss.value.member == f"m{lost}"
    assert [member.open_sessions for member in members] == [0, 0, 0]


@overlapping
async def test_closing_the_stream_frees_every_member(overlap: bool) -> None:
    members = [Toy("d", SINGLE, 1, stop=-99, delay=0.001), Toy("v", WORDS, 2, stop=-99, delay=0.001)]
    async with aclosing(safe(members, overlap=overlap).generate(Request.of("ab"))) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert [member.open_sessions for member in members] == [0, 0]
    quiet = [member.exchanges for member in members]
    await asyncio.sleep(0.01)
    assert [member.exchanges for member in members] == quiet


async def test_a_budget_ends_the_answer() -> None:
    members = [Toy("d", SINGLE, 1, stop=-99), Toy("v", WORDS, 2, stop=-99)]
    events = []
    with pytest.raises(BudgetExceeded, match="100 tokens"):
        async for event in safe(members).generate(Request(messages=Q.messages, budget=Budget(tokens=100))):
            events.append(event)
    spent = total(event.usage for event in events if hasattr(event, "usage"))
    assert 100 <= spent.total_tokens < 200
    assert [member.open_sessions for member in members] == [0, 0]


async def test_a_draft_that_fails_beside_a_reading_fails_once() -> None:
    """The budget ends both; the error of the one that is not awaited is not reported as forgotten."""
    forgotten: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: forgotten.append(context))
    for tokens in range(20, 120, 7):
        members = [Toy("d", SINGLE, 1, stop=-99), Toy("v", WORDS, 2, stop=-99)]
        with pytest.raises(BudgetExceeded):
            await safe(members).answer(Request(messages=Q.messages, budget=Budget(tokens=tokens)))
    gc.collect()
    assert not forgotten


async def test_neighbours_do_not_change_an_answer() -> None:
    members = [Toy("d", MERGED, 1, delay=0.0005), Toy("v", WORDS, 2, delay=0.0005)]
    ensemble = safe(members)
    requests = [Request.of(text, max_tokens=10) for text in ("a", "ab", "abc", "b", "ca", "c a")]
    alone = [(await ensemble.answer(request)).choices for request in requests]
    beside = await asyncio.gather(*(ensemble.answer(request) for request in requests))
    assert [answer.choices for answer in beside] == alone


class Slow(Toy):
    """Opens sessions that close slowly, and tells when it has closed them."""

    closed = 0

    async def start(self, request: Request) -> Session:
        session = await super().start(request)
        inner = session.close

        async def close() -> None:
            await asyncio.sleep(0.01)
            await inner()
            self.closed += 1

        session.close = close  # type: ignore[method-assign]
        return session


async def test_a_cancelled_answer_closes_its_sessions_all_the_same() -> None:
    members = [Slow("d", SINGLE, 1, stop=-99, delay=0.001), Slow("v", WORDS, 2, stop=-99, delay=0.001)]
    task = asyncio.create_task(safe(members).answer(Request.of("ab")))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    assert [member.closed for member in members] == [1, 1]
