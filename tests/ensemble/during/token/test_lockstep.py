"""The loop: text, limits, credits, commits, failure, cancellation, and independence of neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from token_toys import MERGED, SINGLE, WORDS, Toy, deltas, gac, table, trio, unite

from ensemble.concurrency import together
from ensemble.during.token.lockstep import Decision, Panel, Rule, lockstep
from ensemble.errors import BudgetExceeded, ContextTooLong, MemberLost
from ensemble.member import Propose, Session, Until
from ensemble.request import Budget, Event, Finish, Request, Usage
from ensemble.testing import ScriptedMember, TinyMember

Q = "ab"
ENSEMBLES = [gac, unite]
SHORT = {gac: {"topk": 256}, unite: {"topk": 3, "listed": 3}}
"""Options with which a token takes one exchange, or two."""
both = pytest.mark.parametrize("ensemble", ENSEMBLES)


def scripted(name: str, tokens: list[bytes], text: bytes, **options: object) -> ScriptedMember:
    """Writes ``text`` in its own longest tokens, then stops."""
    words = sorted((t for t in tokens if t), key=len, reverse=True)

    def step(done: bytes) -> dict[bytes, float]:
        rest = text[len(done) :] if text.startswith(done) else b""
        return {next((w for w in words if rest.startswith(w)), b""): 1.0}

    return ScriptedMember(name, tokens, step, **options)


def bytewise(name: str, text: bytes, **options: object) -> ScriptedMember:
    return scripted(name, [bytes([b]) for b in sorted(set(text))] + [b""], text, **options)


async def events_of(stream: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in stream]


@both
async def test_characters_come_out_whole(ensemble) -> None:
    text = "é漢🙂"
    members = [bytewise("a", text.encode()), bytewise("b", text.encode())]
    events = await events_of(ensemble(members).generate(Request.of("?")))
    assert [d.text for d in deltas(events)] == ["é", "漢", "🙂"]


@both
async def test_members_of_different_tokenisation_agree_on_bytes(ensemble) -> None:
    text = "né né".encode()
    coarse = scripted("coarse", [b"n", b"\xc3\xa9", b" ", b"\xc3", b"\xa9", b""], text)
    answer = await ensemble([coarse, bytewise("fine", text)]).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("né né", "stop")


async def test_a_broken_character_at_the_end_is_shown_as_such() -> None:
    answer = await gac([bytewise("a", "aé".encode())]).answer(Request.of("?", max_tokens=2))
    assert (answer.text, answer.choices[0].finish_reason) == ("a�", "length")


@both
@pytest.mark.parametrize(("stop", "text"), [(("lo w",), "hel"), (("xx", "o"), "hell"), (("worlds",), "hello world")])
async def test_text_ends_before_a_stop_string(ensemble, stop: tuple[str, ...], text: str) -> None:
    coarse = [b"hell", *(bytes([b]) for b in sorted(set(b"hello world"))), b""]
    members = [bytewise("a", b"hello world"), scripted("b", coarse, b"hello world")]
    answer = await ensemble(members).answer(Request.of("?", stop=stop))
    assert (answer.text, answer.choices[0].finish_reason) == (text, "stop")
    assert [m.open_sessions for m in members] == [0, 0]


@both
async def test_max_tokens_counts_what_was_elected(ensemble) -> None:
    members = [bytewise("a", b"abc"), bytewise("b", b"abc")]
    for limit, expected in (
        (1, ("a", "length")),
        (3, ("abc", "length")),
        (4, ("abc", "stop")),
        (None, ("abc", "stop")),
    ):
        answer = await ensemble(members).answer(Request.of("?", max_tokens=limit))
        assert (answer.text, answer.choices[0].finish_reason) == expected


def ascii_pair() -> list[Toy]:
    return [
        Toy("one", (b"a", b"b", b"c", b" ", b"ab", b""), 1),
        Toy("two", (b"a", b"b", b"c", b"", b" ", b"ca", b"bc", b""), 2),
    ]


@both
async def test_a_partial_answer_is_gone_on_with(ensemble) -> None:
    whole = (await ensemble(ascii_pair()).answer(Request.of(Q, max_tokens=12))).text
    for cut in (1, 3, 6):
        request = replace(Request.of(Q, max_tokens=12), partial=whole[:cut])
        rest = (await ensemble(ascii_pair()).answer(request)).text
        assert rest.startswith(whole[cut:]) and len(whole) > cut


async def test_members_consulted_late_know_the_partial_answer() -> None:
    request = replace(Request.of("?", max_tokens=2), partial="ab")
    tokens = [b"a", b"b", b"c", b""]
    sure = ScriptedMember("p", tokens, lambda text: {b"c": 1.0} if text == b"ab" else {b"b": 0.5, b"a": 0.5})
    other = ScriptedMember("o", tokens, lambda text: {b"b" if text == b"abc" else b"": 1.0})
    assert (await gac([sure, other], threshold=0.9).answer(request)).text == "cb"
    assert other.open_sessions == 0


@both
async def test_the_answer_ends_where_a_member_has_no_room(ensemble) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2, context_length=8)]
    whole = {gac: {"topk": 256}, unite: {"listed": 256}}[ensemble]
    answer = await ensemble(members, **whole).answer(Request.of("hi", logprobs=0))
    assert (answer.choices[0].finish_reason, members[0].exchanges) == ("length", 6)
    assert len(answer.choices[0].tokens) == 6 and [m.open_sessions for m in members] == [0, 0]


async def test_text_that_does_not_fit_a_member_ends_the_answer() -> None:
    # b spells each elected token with three ids of its own.
    a = scripted("a", [b"abc", b"a", b"b", b"c", b""], b"abc" * 9)
    b = bytewise("b", b"abc" * 9, context_length=8)
    answer = await gac([a, b], weights=[9, 1]).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("abcabcabc", "length")
    assert (a.open_sessions, b.open_sessions) == (0, 0)


@both
async def test_a_prompt_that_does_not_fit_is_an_error(ensemble) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2, context_length=4)]
    with pytest.raises(ContextTooLong):
        await ensemble(members).answer(Request.of("long prompt"))
    assert [m.open_sessions for m in members] == [0, 0]


@both
async def test_credits_sum_to_one_and_texts_join(ensemble) -> None:
    request = Request.of(Q, max_tokens=15)
    events = deltas(await events_of(ensemble(trio()).generate(request)))
    assert all(sum(d.credits.values()) == pytest.approx(1) and min(d.credits.values()) >= 1e-3 for d in events)
    assert "".join(d.text for d in events) == (await ensemble(trio()).answer(request)).text
    assert len({name for d in events for name in d.credits}) == 3


async def test_credits_of_held_bytes_are_averaged() -> None:
    tokens = (b"\xc3", b"\xa9", b"x", b"")
    a = table("a", tokens, [[0.8, 0.1, 0.1, 0], [0.1, 0.6, 0.3, 0], [0, 0, 0, 1]])
    b = table("b", tokens, [[0.2, 0.1, 0.7, 0], [0.1, 0.6, 0.3, 0], [0, 0, 0, 1]])
    [delta] = deltas(await events_of(gac([a, b]).generate(Request.of("?"))))
    assert delta.text == "é" and delta.credits == pytest.approx({"a": 0.65, "b": 0.35})


@both
async def test_each_token_is_reported_once(ensemble) -> None:
    text = "aé"
    events = await events_of(ensemble([bytewise("a", text.encode())]).generate(Request.of("?", logprobs=1)))
    reported = [t for d in deltas(events) for t in d.tokens]
    assert [(t.token, t.logprob, t.top) for t in reported] == [
        (bytes([b]), 0, ((bytes([b]), 0),)) for b in text.encode()
    ]
    assert "".join(d.text for d in deltas(events)) == text
    silent = deltas(await events_of(ensemble([bytewise("a", b"ab")]).generate(Request.of("?"))))
    assert [d.tokens for d in silent] == [(), ()]


@both
async def test_one_finish_at_the_end_of_each_choice(ensemble) -> None:
    request = replace(Request.of(Q, max_tokens=6, temperature=1, seed=3), n=3)
    members = trio()
    events = await events_of(ensemble(members).generate(request))
    assert sorted(e.choice for e in events if isinstance(e, Finish)) == [0, 1, 2]
    texts = ["".join(d.text for d in deltas(events) if d.choice == choice) for choice in range(3)]
    alone = [
        (await ensemble(trio()).answer(Request.of(Q, max_tokens=6, temperature=1, seed=3 + c))).text for c in range(3)
    ]
    assert texts == alone and len(set(texts)) > 1


@both
async def test_usage_is_counted_for_each_member(ensemble) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 1), TinyMember("c", 1)]
    answer = await ensemble(members, weights=[1, 1, 0], topk=100).answer(Request.of("hi", max_tokens=7))
    assert answer.usage == {name: Usage(calls=1, prompt_tokens=2, completion_tokens=7) for name in "ab"}


@both
async def test_neighbours_and_slowness_do_not_matter(ensemble) -> None:
    requests = [Request.of("abc"[: i % 3 + 1], max_tokens=12, temperature=(i % 2) * 1.2, seed=i) for i in range(8)]
    alone = [(await ensemble(trio()).answer(request)).text for request in requests]
    shared = [
        Toy("merged", MERGED, 1, delay=0.0),
        Toy("single", SINGLE, 2, delay=0.003),
        Toy("words", WORDS, 3, delay=0.001),
    ]
    crowd = ensemble(shared)
    answers = await together(crowd.answer(request) for request in requests)
    assert [a.text for a in answers] == alone and len(set(alone)) > 3
    assert [m.open_sessions for m in shared] == [0, 0, 0]


@both
@pytest.mark.parametrize("step", [0, 1, 5])
async def test_a_member_that_fails_fails_the_run(ensemble, step: int) -> None:
    slow = TinyMember("slow", 2, delay=0.001)
    members = [TinyMember("a", 1), TinyMember("lost", 1, fail_at=step), slow]
    text = ""
    with pytest.raises(MemberLost) as failed:
        async with asyncio.timeout(5):
            async for event in ensemble(members, **SHORT[ensemble]).generate(Request.of("hi", max_tokens=40)):
                text += getattr(event, "text", "")
    assert failed.value.member == "lost" and bool(text) == (step > 0)
    assert [m.open_sessions for m in members] == [0, 0, 0]


class Hanging(TinyMember):
    """Answers its first exchanges, then hangs."""

    def __init__(self, name: str, after: int) -> None:
        super().__init__(name, 1)
        self.after, self.cancelled, self.hung = after, 0, asyncio.Event()

    async def work(self) -> None:
        await super().work()
        if self.exchanges > self.after:
            self.hung.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise


async def test_a_failure_cancels_what_the_others_do() -> None:
    hanging = Hanging("hanging", after=3)
    with pytest.raises(MemberLost):
        async with asyncio.timeout(5):
            await gac([hanging, TinyMember("lost", 1, fail_at=3)], topk=256).answer(Request.of("hi"))
    assert (hanging.cancelled, hanging.open_sessions) == (1, 0)


class Unopened(TinyMember):
    async def start(self, request: Request) -> Session:
        await asyncio.sleep(0.01)
        raise MemberLost("no replica", member=self.name)


@both
async def test_a_member_that_cannot_be_opened_closes_the_others(ensemble) -> None:
    members = [TinyMember("a", 1), Unopened("gone"), TinyMember("b", 1, delay=0.05)]
    with pytest.raises(MemberLost, match="no replica"):
        await ensemble(members).answer(Request.of("hi"))
    assert [m.open_sessions for m in members] == [0, 0, 0]


@both
async def test_a_consumer_that_leaves_closes_all_sessions(ensemble) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2)]
    async with aclosing(ensemble(members).generate(Request.of("hi"))) as events:  # type: ignore[type-var]
        async for event in events:
            if deltas([event]):
                break
        assert [m.open_sessions for m in members] == [1, 1]
    assert [m.open_sessions for m in members] == [0, 0]


async def test_a_cancelled_consumer_closes_all_sessions() -> None:
    hanging, other = Hanging("hanging", after=4), TinyMember("b", 2)
    task = asyncio.create_task(gac([hanging, other], topk=256).answer(Request.of("hi")))
    await hanging.hung.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (hanging.cancelled, hanging.open_sessions, other.open_sessions) == (1, 0, 0)


async def test_the_loop_closes_its_sessions_itself() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2, fail_at=2)]
    with pytest.raises(MemberLost):
        await events_of(lockstep(Request.of("hi"), members, First()))
    assert [m.open_sessions for m in members] == [0, 0]


async def test_a_budget_ends_the_run() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2)]
    with pytest.raises(BudgetExceeded):
        await gac(members).answer(replace(Request.of("hi"), budget=Budget(tokens=20)))
    assert [m.open_sessions for m in members] == [0, 0]
    assert sum(m.exchanges for m in members) <= 22


class First(Rule):
    """All are asked; the first member's likeliest id is taken."""

    async def elect(self, panel: Panel, position: int) -> Decision:
        listed = await panel.next({0: 1, 1: 1})
        token = int(listed[0].ids[0])
        text = panel.vocabulary(0).tokens[token]
        return Decision(text=text, spelling={0: (token,)}, shares={0: 1.0}, logprob=float(listed[0].logprobs[0]))


async def test_a_member_without_the_token_adopts_the_text() -> None:
    a = scripted("a", [b"ab", b"cd", b""], b"abcdab")
    b = bytewise("b", b"abcdab")
    lengths: list[tuple[int, ...]] = []
    model = b.model
    b.model = lambda prompt, ids: lengths.append(tuple(ids)) or model(prompt, ids)
    events = await events_of(lockstep(Request.of("?"), [a, b], First()))
    assert "".join(d.text for d in deltas(events)) == "abcdab"
    assert lengths == [(), (0, 1), (0, 1, 2, 3), (0, 1, 2, 3, 0, 1)]
    assert a.exchanges == b.exchanges == 4


class Turns(Rule):
    """Members take turns writing a few tokens alone: decisions of several ids, and seats that are left out."""

    def __init__(self, seats: int) -> None:
        self.seats = seats

    async def elect(self, panel: Panel, position: int) -> Decision:
        seat = position % self.seats
        proposal = (await panel.ask({seat: Propose(Until(tokens=3))}))[seat]
        return Decision(
            text=proposal.text,
            spelling={seat: proposal.ids},
            shares={seat: 1.0},
            logprob=float(proposal.logprobs.sum()),
        )


async def test_a_rule_may_commit_several_ids_and_leave_members_out() -> None:
    members, text = ascii_pair(), ""
    for position in range(5):
        async with await members[position % 2].start(Request(prompt=Q + text)) as session:
            text += (await session.propose(Until(tokens=3))).text.decode()
    events = deltas(await events_of(lockstep(Request.of(Q, max_tokens=5), members, Turns(2))))
    assert "".join(d.text for d in events) == text and len(text) >= 12
    assert [d.credits for d in events] == [{"one": 1}, {"two": 1}] * 2 + [{"one": 1}]
    assert [m.open_sessions for m in members] == [0, 0]


async def test_members_not_asked_are_not_opened() -> None:
    members = ascii_pair()
    events = await events_of(lockstep(Request.of(Q, max_tokens=4), members, Turns(1)))
    assert events[-1] == Finish("length") and (members[0].exchanges, members[1].exchanges) == (4, 0)
    assert [m.open_sessions for m in members] == [0, 0]


class Late(Rule):
    """The first member writes; the second, whose ids are known to the rule, is asked in two steps only."""

    async def elect(self, panel: Panel, position: int) -> Decision:
        listed = await panel.next({0: 1, 1: 1} if position in (0, 3) else {0: 1})
        token = int(listed[0].ids[0])
        text = panel.vocabulary(0).tokens[token]
        return Decision(text=text, spelling={0: (token,), 1: (token,)}, shares={0: 1.0}, logprob=0.0)


async def test_a_member_left_out_for_some_steps_misses_nothing() -> None:
    members = [bytewise("a", b"abcabc"), bytewise("b", b"abcabc")]
    seen: list[tuple[int, ...]] = []
    model = members[1].model
    members[1].model = lambda prompt, ids: seen.append(tuple(ids)) or model(prompt, ids)
    await events_of(lockstep(Request.of("?"), members, Late()))
    assert seen == [(), (0, 1, 2)]
