"""GaC's invariants, its worked example, and equality with the plain rule over whole vocabularies."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, deltas, gac, greedy, mean, shown, table, trio

from ensemble.errors import BadRequest, ConfigurationError, MissingCapability, UnknownOption
from ensemble.member import Capability, Floats
from ensemble.request import Request
from ensemble.sampling import draw
from ensemble.testing import LocalMember, ScriptedMember, TinyMember

Q = "ab"
SESSIONS_ONLY = frozenset({Capability.GENERATE, Capability.SESSIONS})
A_TOKENS = (b" the", b" cat", b"cat", b"s", b"")
B_TOKENS = (b" the", b" ca", b"ts", b"t", b"")


def example(a: list[float], b: list[float]) -> list[LocalMember]:
    return [table("A", A_TOKENS, [a, [0, 0, 0, 0, 1]]), table("B", B_TOKENS, [b, [0, 0, 0, 0, 1]])]


WORKED = ([0.10, 0.55, 0.05, 0.20, 0.10], [0.25, 0.45, 0.05, 0.05, 0.20])
SPLIT = ([0.05, 0.30, 0.05, 0.25, 0.35], [0.05, 0.40, 0.05, 0.15, 0.35])


@pytest.mark.parametrize("topk", [1, 2, 3, 20])
async def test_worked_example(topk: int) -> None:
    expected = {b" cat": 0.275, b" ca": 0.225, b" the": 0.175, b"": 0.15, b"s": 0.10, b"cat": 0.025, b"t": 0.025}
    answer = await gac(example(*WORKED), topk=topk).answer(Request.of("?", max_tokens=1, logprobs=9))
    [token] = answer.choices[0].tokens
    assert (token.token, np.exp(token.logprob)) == (b" cat", pytest.approx(0.275, abs=1e-6))
    assert {s: round(float(np.exp(p)), 6) for s, p in token.top} == {**expected, b"ts": 0.025}
    assert [s for s, _ in token.top][:4] == [b" cat", b" ca", b" the", b""]


async def test_worked_example_weighted() -> None:
    answer = await gac(example(*WORKED), weights=[1, 4]).answer(Request.of("?", max_tokens=1, logprobs=4))
    [token] = answer.choices[0].tokens
    assert answer.text == " ca"
    found = [(s, round(float(np.exp(p)), 6)) for s, p in token.top]
    assert found == [(b" ca", 0.36), (b" the", 0.22), (b"", 0.18), (b" cat", 0.11)]


async def test_worked_example_commits_in_each_members_own_ids() -> None:
    members = example(*WORKED)
    seen: dict[str, list[int]] = {}
    for member in members:
        _record(member, seen)
    assert (await gac(members).answer(Request.of("?", max_tokens=2))).text == " cat"
    assert seen == {"A": [1], "B": [1, 3]}


def _record(member: LocalMember, seen: dict[str, list[int]]) -> None:
    model = member.model

    def recorded(prompt: list[int], ids: list[int]) -> Floats:
        seen[member.name] = list(ids)
        return model(prompt, ids)

    member.model = recorded


async def test_worked_example_of_stop_mass() -> None:
    request = Request.of("?", max_tokens=1, logprobs=1)
    merged = await gac(example(*SPLIT)).answer(request)
    assert (merged.text, merged.choices[0].finish_reason) == ("", "stop")
    # Both vocabularies have stop id 4 but differ, so that the published rule keeps two slots of .175.
    split = await gac(example(*SPLIT), fidelity="reference").answer(request)
    assert split.text == " ca"
    assert np.exp(split.choices[0].tokens[0].logprob) == pytest.approx(0.20, abs=1e-6)


async def test_worked_example_of_the_threshold() -> None:
    members = example(*WORKED)
    answer = await gac(members, threshold=0.5).answer(Request.of("?", max_tokens=1))
    assert (answer.text, members[1].exchanges) == (" cat", 0)
    assert answer.choices[0].credits == ((" cat", {"A": 1.0}),)
    members = example(*WORKED)
    await gac(members, threshold=0.56).answer(Request.of("?", max_tokens=1))
    assert members[1].exchanges == 1


@pytest.mark.parametrize("topk", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("weights", [(1, 1, 1), (0.5, 0.2, 0.3), (0, 1, 2)])
async def test_lists_of_any_length_give_the_plain_rule(topk: int, weights: tuple[float, ...]) -> None:
    members = trio()
    shares = [w / sum(weights) for w in weights]
    answer = await gac(members, topk=topk, weights=weights).answer(Request.of(Q, max_tokens=25))
    assert answer.text == shown(greedy(members, shares, Q.encode(), 25)) and len(answer.text) > 5


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.3, 4))
@settings(max_examples=15, deadline=None)
async def test_random_members_give_the_plain_rule(seed: int, topk: int, sharpness: float) -> None:
    tokens = (MERGED, SINGLE, WORDS)
    members = [Toy(f"m{i}", t, seed + i, sharpness=sharpness, stop=0) for i, t in enumerate(tokens)]
    answer = await gac(members, topk=topk).answer(Request.of(Q, max_tokens=8))
    assert answer.text == shown(greedy(members, [1 / 3] * 3, Q.encode(), 8))


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
async def test_copies_of_a_member_write_its_greedy_text(fidelity: str) -> None:
    request = Request.of("hello", max_tokens=20)
    alone = await TinyMember("a", 5).answer(request)
    copies = [TinyMember(name, 5) for name in "abc"]
    together = await gac(copies, fidelity=fidelity, topk=3).answer(request)
    assert (together.text, together.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)


@pytest.mark.parametrize("seat", [0, 1, 2])
async def test_all_weight_on_one_member_gives_its_text_and_leaves_the_others_alone(seat: int) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2), TinyMember("c", 3)]
    request = Request.of("hi", max_tokens=15)
    weights = [float(i == seat) for i in range(3)]
    answer = await gac(members, weights=weights).answer(request)
    assert answer.text == (await TinyMember("x", seat + 1).answer(request)).text
    assert [m.exchanges for i, m in enumerate(members) if i != seat] == [0, 0]
    assert set(answer.usage) == {members[seat].name}


async def test_order_of_members_does_not_matter() -> None:
    request = Request.of(Q, max_tokens=20)
    texts = {(await gac(list(order), topk=4).answer(request)).text for order in permutations(trio())}
    assert len(texts) == 1 and texts != {""}


async def test_masses_sum_to_one_where_every_id_has_a_class() -> None:
    answer = await gac(example(*WORKED)).answer(Request.of("?", max_tokens=1, logprobs=20))
    assert sum(np.exp(p) for _, p in answer.choices[0].tokens[0].top) == pytest.approx(1, abs=1e-9)


async def test_threshold_at_its_ends() -> None:
    request = Request.of(Q, max_tokens=20)
    every = (await gac(trio()).answer(request)).text
    assert (await gac(trio(), threshold=1).answer(request)).text == every
    members = trio()
    alone = await gac(members, threshold=0, primary="words").answer(request)
    assert alone.text == shown(greedy([members[2]], [1], Q.encode(), 20)) != every
    assert [m.exchanges for m in members[:2]] == [0, 0] and set(alone.usage) == {"words"}


@pytest.mark.parametrize("threshold", [0.3, 0.4, 0.5])
@pytest.mark.parametrize("topk", [1, 4, 20])
async def test_thresholded_steps_follow_the_plain_rule(threshold: float, topk: int) -> None:
    members, answer, consulted = trio(), b"", 0
    for _ in range(20):
        alone = mean(members[:1], [1], Q.encode() + answer)
        sure = max(alone.values()) > threshold
        consulted += not sure
        row = alone if sure else mean(members, [1 / 3] * 3, Q.encode() + answer)
        best = max(row, key=lambda s: row[s])
        if not best:
            break
        answer += best
    got = await gac(members, threshold=threshold, topk=topk).answer(Request.of(Q, max_tokens=20))
    assert got.text == shown(answer) and 0 < consulted < 20
    if topk == 20:
        assert [m.exchanges for m in members[1:]] == [consulted, consulted]


async def test_the_threshold_is_compared_with_the_class_not_the_id() -> None:
    tokens = (b"x", b"x", b"y", b"")
    for topk in (1, 4):
        members = [table("p", tokens, [[0.35, 0.35, 0.2, 0.1]]), table("o", tokens, [[0, 0, 1, 0]])]
        assert (await gac(members, threshold=0.6, topk=topk).answer(Request.of("?", max_tokens=1))).text == "x"
        assert members[1].exchanges == 0


async def test_members_consulted_late_know_the_text_so_far() -> None:
    sure = ScriptedMember("p", [b"a", b"b", b"c", b""], [b"a", b"b", {b"c": 0.5, b"a": 0.5}, b""])
    other = ScriptedMember("o", [b"a", b"b", b"c", b"ab", b""], lambda text: {b"c" if text == b"ab" else b"": 1.0})
    assert (await gac([sure, other], threshold=0.5).answer(Request.of("?"))).text == "abc"
    assert (other.exchanges, other.open_sessions) == (1, 0)


async def test_a_step_is_one_exchange_with_each_member() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 1)]
    answer = await gac(members, topk=256).answer(Request.of("hi", max_tokens=12))
    steps = answer.usage["a"].completion_tokens
    assert [m.exchanges for m in members] == [steps, steps]


async def test_a_look_up_is_asked_of_the_members_concerned_only() -> None:
    # With two listed, a has not told of y, which b prefers and which might draw level with x.
    a = table("a", (b"x", b"y", b"z", b"u", b""), [[0.40, 0.18, 0.20, 0.17, 0.05]])
    b = table("b", (b"y", b"x", b""), [[0.5, 0.3, 0.2]])
    assert (await gac([a, b], topk=3).answer(Request.of("?", max_tokens=1))).text == "x"
    once = (a.exchanges, b.exchanges)
    a.exchanges = b.exchanges = 0
    assert (await gac([a, b], topk=2).answer(Request.of("?", max_tokens=1))).text == "x"
    assert once == (1, 1) and (a.exchanges, b.exchanges) == (2, 1)
    a.exchanges = b.exchanges = 0
    assert (await gac([a, b], topk=3).answer(Request.of("?", max_tokens=1, logprobs=3))).text == "x"
    assert (a.exchanges, b.exchanges) == (2, 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_draws_come_from_the_mean(seed: int) -> None:
    members, answer = trio(), b""
    request = Request.of(Q, max_tokens=10, temperature=0.8, top_p=0.9, seed=seed, logprobs=0)
    logprobs = []
    for position in range(10):
        row = mean(members, [1 / 3] * 3, Q.encode() + answer)
        string = list(row)[draw(np.log(list(row.values())), request.sampling, position)]
        if not string:
            break
        answer += string
        logprobs.append(np.log(row[string]))
    got = (await gac(members).answer(request)).choices[0]
    assert got.text == shown(answer)
    assert [t.logprob for t in got.tokens] == pytest.approx(logprobs, abs=1e-9)


async def test_seeds_reproduce_and_differ() -> None:
    async def text(seed: int | None) -> str:
        return (await gac(trio()).answer(Request.of(Q, max_tokens=12, temperature=1.5, seed=seed))).text

    assert await text(7) == await text(7)
    assert len({await text(seed) for seed in range(6)}) > 1
    assert len({await text(None) for _ in range(6)}) > 1


async def test_thresholded_draws_at_the_ends() -> None:
    request = Request.of(Q, max_tokens=10, temperature=1, seed=3)
    assert (await gac(trio(), threshold=1).answer(request)).text == (await gac(trio()).answer(request)).text
    members = trio()
    alone = await gac(members, threshold=0).answer(request)
    assert alone.text == (await gac(trio(), weights=[1, 0, 0]).answer(request)).text
    assert [m.exchanges for m in members[1:]] == [0, 0]


async def test_drawing_needs_full_distributions() -> None:
    members = [TinyMember("a"), TinyMember("b", capabilities=SESSIONS_ONLY)]
    with pytest.raises(BadRequest, match="b does not") as refused:
        await gac(members).answer(Request.of("?", temperature=1))
    assert (refused.value.param, refused.value.member) == ("temperature", "b")
    assert members[0].exchanges == 0
    answer = await gac(members, weights=[1, 0]).answer(Request.of("?", temperature=1, seed=1, max_tokens=3))
    assert answer.usage["a"].completion_tokens == 3


async def test_alternatives_are_exact_where_lists_are_short() -> None:
    members = trio()
    answer = (await gac(members, topk=2).answer(Request.of(Q, max_tokens=6, logprobs=3))).choices[0]
    text = Q.encode()
    for token in answer.tokens:
        row = mean(members, [1 / 3] * 3, text)
        assert np.exp(token.logprob) == pytest.approx(row[token.token], abs=1e-12)
        assert len(token.top) == 3 and token.top[0] == (token.token, token.logprob)
        assert all(np.exp(p) == pytest.approx(row[s], abs=1e-12) for s, p in token.top)
        text += token.token


async def test_credits_are_parts_of_the_winners_mass() -> None:
    [delta] = deltas([e async for e in gac(example(*WORKED), weights=[1, 4]).generate(Request.of("?", max_tokens=1))])
    assert delta.credits == {"B": 1.0}
    both = [table(n, (b"x", b"y", b""), [row]) for n, row in (("a", [0.6, 0.3, 0.1]), ("b", [0.2, 0.1, 0.7]))]
    [delta] = deltas([e async for e in gac(both, weights=[3, 1]).generate(Request.of("?", max_tokens=1))])
    assert delta.credits == pytest.approx({"a": 0.9, "b": 0.1})


async def test_of_several_ids_the_likeliest_is_appended() -> None:
    seen: dict[str, list[int]] = {}
    member = table("a", (b"y", b"x", b"x", b""), [[0.1, 0.2, 0.6, 0.1]])
    _record(member, seen)
    await gac([member]).answer(Request.of("?", max_tokens=2))
    assert seen["a"] == [2]


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"weights": [1, 1]}, "weights", "3 members"),
        ({"weights": [0, 0, 0]}, "weights", "above 0"),
        ({"primary": "words"}, "primary", "threshold"),
        ({"primary": "nobody", "threshold": 0.5}, "primary", "merged, single, words"),
        ({"threshold": 0.5, "weights": [0, 1, 1]}, "weights", "above 0"),
        ({"threshold": 1.5}, "threshold", "less than or equal to 1"),
        ({"topk": 0}, "topk", "greater than or equal to 1"),
        ({"topk": 5000}, "topk", "1024"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], param: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        gac(trio(), **options)
    assert refused.value.param == param


@pytest.mark.parametrize("weights", [[-1, 1, 1], [float("inf"), 1, 1], "score"])
def test_weights_that_are_none_are_refused(weights: object) -> None:
    with pytest.raises(ConfigurationError, match="weights"):
        gac(trio(), weights=weights)


async def test_options_of_a_request_are_checked_too() -> None:
    request = Request(prompt=Q, options={"weights": [1, 2]})
    with pytest.raises(BadRequest, match="3 members"):
        await gac(trio()).answer(request)
    with pytest.raises(UnknownOption, match="threshold"):
        await gac(trio()).answer(Request(prompt=Q, options={"treshold": 0.5}))


def test_members_without_sessions_are_refused() -> None:
    with pytest.raises(MissingCapability, match="sessions"):
        gac([TinyMember("a"), ScriptedMember.answering("b", ["x"])])  # type: ignore[list-item]


async def test_control_ids_are_never_written() -> None:
    members = [table(n, (CONTROL, b"x", b""), [[0.9, 0.06, 0.04]]) for n in "ab"]
    for temperature in (0, 1):
        request = Request.of("?", max_tokens=3, temperature=temperature, top_k=1, seed=1)
        assert (await gac(members, topk=1).answer(request)).text == "xxx"
