"""The rules at one place: by the lists that came with the draft where these decide, else by questions at the place."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import MERGED, WORDS, Toy, mean

from ensemble.during.span.fusion import RULES, Place
from ensemble.during.span.seats import Seat
from ensemble.during.span.verifying import Standing
from ensemble.during.token.lockstep import Decision
from ensemble.member import Distribution, Next
from ensemble.request import Request, Sampling

HALVES: Mapping[int, float] = {0: 0.5, 1: 0.5}
Q = Request.of("ab")


async def standing(number: int, member: Toy, topk: int, text: bytes = b"c") -> Standing:
    seat = Seat(number, member)
    await seat.open(Q)
    ids = member.tokeniser.encode(text)
    listed = (await seat.ask(Next(topk), ids)).payload
    assert isinstance(listed, Distribution)
    return Standing(seat, ids, listed)


async def elected(members: list[Toy], rule: str, topk: int, sharpening: str, **sampling) -> Decision:
    place = Place({n: await standing(n, member, topk) for n, member in enumerate(members)})
    for member in members:
        member.exchanges = 0
    return await RULES[rule](HALVES, topk, Sampling(**sampling), sharpening).elect(place, 0)


def pair(seed: int, sharpness: float = 1.0) -> list[Toy]:
    return [Toy("a", MERGED, seed, sharpness=sharpness), Toy("b", WORDS, seed + 1, sharpness=sharpness)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), topk=st.integers(1, 16))
async def test_the_mean_is_that_of_whole_vocabularies_however_short_the_lists(seed: int, topk: int) -> None:
    members = pair(seed)
    expected = mean(members, [0.5, 0.5], b"abc")
    decision = await elected(members, "gac", topk, "none")
    assert decision.text == max(expected, key=lambda string: expected[string])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rule=st.sampled_from(["gac", "unite"]), how=st.sampled_from(["heur", "geom"]))
async def test_lists_of_everything_cost_no_message(seed: int, rule: str, how: str) -> None:
    members = pair(seed)
    await elected(members, rule, 99, how)
    assert [member.exchanges for member in members] == [0, 0]


async def test_short_lists_are_made_up_for_by_questions() -> None:
    members = pair(3)
    await elected(members, "gac", 1, "none")
    assert all(member.exchanges for member in members)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), topk=st.integers(2, 16))
async def test_the_geometric_mean_is_exact_among_what_is_listed(seed: int, topk: int) -> None:
    members = pair(seed, sharpness=0.5)
    exact = await elected(members, "gac", 99, "geom")
    listed = await elected(members, "gac", topk, "geom")
    products = _products(members)
    assert products[exact.text] == pytest.approx(max(products.values()))
    assert 0 < products[listed.text] <= products[exact.text] + 1e-12


def _products(members: list[Toy]) -> dict[bytes, float]:
    one, other = (mean([member], [1.0], b"abc") for member in members)
    if max(mean(members, [0.5, 0.5], b"abc").values()) >= 0.5:
        return mean(members, [0.5, 0.5], b"abc")
    return {s: one.get(s, 0.0) * other.get(s, 0.0) for s in {*one, *other}}


async def test_reports_hold_exact_masses() -> None:
    members = pair(5)
    decision = await elected(members, "gac", 2, "none", logprobs=3)
    expected = mean(members, [0.5, 0.5], b"abc")
    assert len(decision.top) == 3
    for text, logprob in ((decision.text, decision.logprob), *decision.top):
        assert 2.718281828459045**logprob == pytest.approx(expected[text])
