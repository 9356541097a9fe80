"""Candidates come as they are finished, are reproducible whatever the order, and nothing goes on behind the back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.after.fan_out import Candidate, drawn, fan_out, require_one_each, shares
from ensemble.errors import BadAnswer, ConfigurationError, MemberLost
from ensemble.member import Member
from ensemble.method import Members
from ensemble.request import Delta, Event, Finish, Request, Sampling, TokenLogprob, Trace
from ensemble.testing import ScriptedMember, TinyMember

HOT = Sampling(temperature=1.0, seed=5, max_tokens=6)


async def gathered(members: list[Member], counts: list[int], sampling: Sampling = HOT) -> list[Candidate]:
    request = Request.of("?", max_tokens=6)
    async with aclosing(fan_out(request, Members(members), counts, sampling)) as candidates:
        return [candidate async for candidate in candidates]


@given(st.integers(1, 64), st.integers(1, 9))
def test_shares_are_even_and_complete(total: int, members: int) -> None:
    split = shares(total, members)
    assert sum(split) == total and max(split) - min(split) <= 1 and split == sorted(split, reverse=True)


async def test_each_member_is_called_once_for_all_its_samples() -> None:
    first, second = ScriptedMember.answering("a", ["1", "2"]), ScriptedMember.answering("b", ["3"])
    candidates = await gathered([first, second], [2, 1])
    assert {c.place: (c.writer, c.text) for c in candidates} == {
        (0, 0): ("a", "1"),
        (0, 1): ("a", "2"),
        (1, 0): ("b", "3"),
    }
    assert first.calls == second.calls == 1


async def test_a_member_without_samples_is_not_called() -> None:
    first, second = ScriptedMember.answering("a", ["1"]), ScriptedMember.answering("b", ["3"])
    assert len(await gathered([first, second], [1, 0])) == 1 and second.calls == 0


async def test_the_seed_alone_says_what_is_drawn() -> None:
    quick = await gathered([TinyMember("a"), TinyMember("b", 1, delay=0.002)], [3, 2])
    slow = await gathered([TinyMember("a", delay=0.002), TinyMember("b", 1)], [3, 2])
    assert {c.place: c.text for c in quick} == {c.place: c.text for c in slow}
    assert [c.place for c in quick] != [c.place for c in slow]


async def test_equal_members_draw_different_samples() -> None:
    candidates = await gathered([TinyMember("a"), TinyMember("b")], [3, 3])
    assert len({candidate.text for candidate in candidates}) == 6


async def test_closing_early_cancels_what_is_outstanding() -> None:
    quick, slow = ScriptedMember.answering("a", ["1"]), ScriptedMember.answering("b", ["2"], delay=60)
    async with aclosing(fan_out(Request.of("?"), Members([quick, slow]), [1, 1], HOT)) as candidates:
        assert (await anext(candidates)).text == "1"
    assert (quick.cancelled, slow.cancelled) == (0, 1)


async def test_one_failure_ends_all() -> None:
    slow, broken = ScriptedMember.answering("a", ["1"], delay=60), ScriptedMember.answering("b", ["2"], fail=True)
    with pytest.raises(MemberLost):
        await asyncio.wait_for(gathered([slow, broken], [1, 1]), 5)
    assert slow.cancelled == 1


class Mute(TinyMember):
    async def generate(self, request: Request) -> AsyncIterator[Event]:
        yield Finish("stop")


async def test_an_answer_that_never_comes_is_an_error() -> None:
    with pytest.raises(BadAnswer, match="mute left 2 of 3 answers unfinished"):
        await gathered([Mute("mute")], [3])


def test_spans_join_deltas_of_equal_credit() -> None:
    token = TokenLogprob(b"b", -1.0)
    deltas = (Delta("a", {"x": 1.0}), Delta("b", {"x": 1.0}, (token,), 3), Delta("c", {"y": 1.0}))
    candidate = Candidate((0, 0), "x", deltas, "stop", (Trace("vote", {}),))
    assert list(candidate.spans()) == [Delta("ab", {"x": 1.0}, (token,)), Delta("c", {"y": 1.0})]
    assert list(Candidate((0, 0), "x", (), "stop").spans()) == []


def test_the_requests_own_sampling_goes_first() -> None:
    assert drawn(Sampling(), 0.8, 0.9) == Sampling(temperature=0.8, top_p=0.9)
    assert drawn(Sampling(temperature=0.3, top_p=0.5), 0.8, 0.9) == Sampling(temperature=0.3, top_p=0.5)


def test_every_member_is_to_be_asked() -> None:
    require_one_each(3, 3)
    with pytest.raises(ConfigurationError, match="at least 3, one for each member"):
        require_one_each(2, 3)
