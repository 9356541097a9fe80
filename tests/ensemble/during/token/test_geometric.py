"""Mixtures that every member can veto: lists decide what whole vocabularies decide, in one of them and in several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, masses, shown, table, trio, vocabulary

from ensemble.distributions import likeliest, log_softmax
from ensemble.during.token.election.certificate import Certain, Evidence, LookUp, tally, unknown_ids, verdict, whole
from ensemble.during.token.election.geometric import GeometricUnion, Pool, Pooling, geometric, least, pooled
from ensemble.during.token.lockstep import lockstep
from ensemble.during.token.unite import UniteOptions
from ensemble.errors import BadAnswer, BadRequest
from ensemble.member import Floats, Member
from ensemble.request import Answer, Request, Sampling, collect
from ensemble.testing import TinyMember
from ensemble.vocabulary import Union

STRINGS = (b"", CONTROL, b"a", b"b", b"ab", b"abc", b"c", b" ")


async def pool(members: Sequence[Member], weights: Sequence[float], request: Request, topk: int = 3) -> Answer:
    rule = Pool(dict(enumerate(weights)), geometric(weights), request.sampling, topk)
    return collect([event async for event in lockstep(request, members, rule)])


async def union(members: Sequence[Member], weights: Sequence[float], request: Request, listed: int = 64) -> Answer:
    options = UniteOptions(topk=3, listed=listed, duplicates="keep")
    rule = GeometricUnion(options, dict(enumerate(weights)), request.sampling)
    return collect([event async for event in lockstep(request, members, rule)])


def product(members: Sequence[Toy], weights: Sequence[float], text: bytes) -> dict[bytes, float]:
    """The mixture by bytes, in order, normalised."""
    rows = [masses(member, text) for member in members]
    strings = sorted(set().union(*rows))
    values = {s: float(np.prod([r.get(s, 0.0) ** w for w, r in zip(weights, rows, strict=True)])) for s in strings}
    return {s: value / sum(values.values()) for s, value in values.items()}


def plain(members: Sequence[Toy], weights: Sequence[float], prompt: bytes, steps: int) -> bytes:
    answer = b""
    for _ in range(steps):
        row = product(members, weights, prompt + answer)
        best = max(row, key=lambda s: row[s])
        if not best:
            break
        answer += best
    return answer


def elected(union: Union, rows: Sequence[Floats], pooling: Pooling, k: int) -> tuple[int, float]:
    """The class elected from lists of ``k``, asking on as the verdicts say, and its value."""
    evidence = [Evidence.of(likeliest(row, k)) for row in rows]
    weights = [1 / len(rows)] * len(rows)
    while True:
        seen = pooled(union, tally(union, evidence, weights), evidence, pooling)
        said = verdict(seen)
        if isinstance(said, Certain):
            return int(seen.classes[said.column]), float(seen.known[said.column])
        if isinstance(said, LookUp):
            for member, ids in unknown_ids(union, evidence, seen, said.columns).items():
                evidence[member] = evidence[member].joined(ids, rows[member][list(ids)])
        else:
            k *= 2
            evidence = [Evidence.of(likeliest(row, k)) for row in rows]


@given(
    st.lists(st.sampled_from(STRINGS), min_size=3, max_size=14),
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.5, 2.0, 6.0]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_lists_of_any_length_elect_what_whole_vocabularies_elect(
    tokens: list[bytes], members: int, seed: int, sharpness: float, smallest: bool
) -> None:
    rng = np.random.default_rng(seed)
    own = vocabulary([*tokens, b"x"])
    union = Union([own] * members)
    rows = [log_softmax(rng.normal(size=own.size) * sharpness) for _ in range(members)]
    pooling = least if smallest else geometric((rng.dirichlet(np.ones(members)) + 0.01).tolist())
    values = pooling(whole(union, [Evidence.of(likeliest(row, 0)) for row in rows], [1.0] * members).masses)
    for k in (1, 2, 4, own.size):
        class_, value = elected(union, rows, pooling, k)
        assert value <= values[class_] + 1e-12
        assert values[class_] == pytest.approx(values.max(), rel=1e-9)


def test_bounds_hold_whatever_is_not_told() -> None:
    rng = np.random.default_rng(0)
    own = vocabulary(MERGED)
    union = Union([own, own])
    for _ in range(100):
        rows = [log_softmax(rng.normal(size=own.size) * 2) for _ in range(2)]
        complete = whole(union, [Evidence.of(likeliest(row, 0)) for row in rows], [0.5, 0.5])
        for pooling in (geometric([0.5, 0.5]), geometric([1.2, 0.3]), least):
            values = pooling(complete.masses)
            evidence = [Evidence.of(likeliest(row, 4)) for row in rows]
            seen = pooled(union, tally(union, evidence, [0.5, 0.5]), evidence, pooling)
            true = values[seen.classes]
            assert (seen.known <= true + 1e-12).all() and (true <= seen.known + seen.missing + 1e-12).all()
            others = np.delete(values, seen.classes)
            assert not len(others) or others.max() <= seen.rest + 1e-12
            assert seen.known.sum() <= values.sum() + 1e-12


@pytest.mark.parametrize("topk", [1, 2, 5, 20])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (0.7, 0.7)])
async def test_lists_give_the_plain_rule(topk: int, weights: tuple[float, float]) -> None:
    members = [Toy("a", MERGED, 11), Toy("b", MERGED, 12)]
    answer = await pool(members, weights, Request.of("ab", max_tokens=25), topk)
    assert answer.text == shown(plain(members, weights, b"ab", 25)) and len(answer.text) > 5
    assert [member.open_sessions for member in members] == [0, 0]


async def test_a_clear_step_is_one_exchange_with_each_member() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 1)]
    await pool(members, [0.5, 0.5], Request.of("hi", max_tokens=12), 32)
    assert [member.exchanges for member in members] == [12, 12]


async def test_a_product_is_vetoed_where_a_mean_is_not() -> None:
    a = table("a", (b"x", b"y", b"z", b""), [[0.9, 0.1, 0.0, 0.0]])
    b = table("b", (b"x", b"y", b"z", b""), [[0.0, 0.2, 0.8, 0.0]])
    assert (await pool([a, b], [0.5, 0.5], Request.of("?", max_tokens=1), 1)).text == "y"


@pytest.mark.parametrize("temperature", [0, 1])
async def test_where_nothing_is_possible_for_all_there_is_no_answer(temperature: float) -> None:
    a, b = table("a", (b"x", b"y", b""), [[1, 0, 0]]), table("b", (b"x", b"y", b""), [[0, 1, 0]])
    with pytest.raises(BadAnswer, match="all members"):
        await pool([a, b], [0.5, 0.5], Request.of("?", max_tokens=1, temperature=temperature, seed=1))
    assert (a.open_sessions, b.open_sessions) == (0, 0)


async def test_control_ids_are_never_written() -> None:
    members = [table(n, (CONTROL, b"x", b""), [[0.9, 0.06, 0.04]]) for n in "ab"]
    for temperature in (0, 1):
        request = Request.of("?", max_tokens=3, temperature=temperature, top_k=1, seed=1)
        assert (await pool(members, [0.5, 0.5], request, 1)).text == "xxx"


async def test_members_of_different_vocabularies_are_refused() -> None:
    with pytest.raises(BadRequest, match="one vocabulary"):
        await pool(trio()[:2], [0.5, 0.5], Request.of("ab", max_tokens=3))


async def test_reports_are_normalised_over_the_whole_vocabulary() -> None:
    members = [Toy("a", MERGED, 11), Toy("b", MERGED, 12)]
    answer = await pool(members, [0.5, 0.5], Request.of("ab", max_tokens=5, logprobs=3), 1)
    text = b"ab"
    for token in answer.choices[0].tokens:
        row = product(members, [0.5, 0.5], text)
        assert np.exp(token.logprob) == pytest.approx(row[token.token], abs=1e-12)
        assert [np.exp(p) for _, p in token.top] == pytest.approx(sorted(row.values(), reverse=True)[:3], abs=1e-12)
        text += token.token


# Several vocabularies


@given(st.integers(0, 2**16), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
async def test_across_vocabularies_lists_elect_what_look_ups_elect(seed: int, listed: int) -> None:
    def members() -> list[Toy]:
        return [Toy("m", MERGED, seed), Toy("s", SINGLE, seed + 1), Toy("w", WORDS, seed + 2)]

    weights, request = [0.5, 0.2, 0.3], Request.of("ab", max_tokens=10)
    short = await union(members(), weights, request, listed)
    reported = await union(members(), weights, Request.of("ab", max_tokens=10, logprobs=0), 3)
    assert short.text == reported.text == (await union(members(), weights, request)).text


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 6), st.sampled_from([0.0, 0.01, 0.3]))
def test_a_clear_column_wins_whatever_is_missing(seed: int, members: int, strings: int, unknown: float) -> None:
    rng = np.random.default_rng(seed)
    known = rng.dirichlet(np.full(strings, 0.4), members) * (rng.random((members, strings)) < 0.9)
    missing = unknown * rng.random((members, strings)) * (rng.random((members, strings)) < 0.5)
    weights = rng.dirichlet(np.ones(members))
    rule = GeometricUnion(UniteOptions(topk=1, listed=1), dict(enumerate(weights)), Sampling())
    column = rule.certain(known, missing)
    for _ in range(20 if column is not None else 0):
        real = known + missing * rng.choice([0.0, 0.5, 1.0], missing.shape)
        shares = real / real.sum(axis=1, keepdims=True)
        assert int((weights @ np.log(np.maximum(shares, 1e-38))).argmax()) == column


async def test_across_vocabularies_copies_write_the_members_text() -> None:
    request = Request.of("hello", max_tokens=15)
    alone = await TinyMember("a", 5).answer(request)
    assert (await union([TinyMember(name, 5) for name in "abc"], [0.2, 0.3, 0.5], request)).text == alone.text


async def test_in_one_vocabulary_both_rules_agree_on_whole_lists() -> None:
    tokens = tuple(token for token in MERGED if token != CONTROL)
    members = [Toy("a", tokens, 4), Toy("b", tokens, 5)]
    request = Request.of("ab", max_tokens=15)
    options = UniteOptions(topk=len(tokens), listed=len(tokens), duplicates="keep")
    rule = GeometricUnion(options, {0: 0.6, 1: 0.4}, request.sampling)
    across = collect([event async for event in lockstep(request, members, rule)])
    assert across.text == (await pool(members, [0.6, 0.4], request)).text != ""
