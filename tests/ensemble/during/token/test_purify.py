"""CP-Δ: its worked example, its bounds, its extremes, and equality with the mixture written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_speculative_exact import courses, plain
from test_speculative_exact import member as three_tokens
from token_toys import LETTERS, MERGED, SINGLE, Toy, masses, shown, table, vocabulary

from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, ConfigurationError, MissingCapability
from ensemble.member import Capability, Floats
from ensemble.request import Answer, Request
from ensemble.testing import LocalMember, ScriptedMember, TinyMember

SESSIONS_ONLY = frozenset({Capability.GENERATE, Capability.SESSIONS})
TOKENS = (b"memorised", b"x", b"y")
LARGE, BENIGN = [0.90, 0.05, 0.05], [0.10, 0.60, 0.30]


def purify(members: Sequence[LocalMember], **options: Any) -> Ensemble:
    return Ensemble("e", "purify", members, options=options)


def pair(large: Sequence[float] = LARGE, benign: Sequence[float] = BENIGN) -> list[LocalMember]:
    return [table("large", TOKENS, [large]), table("benign", TOKENS, [benign])]


def told(answer: Answer) -> Mapping[str, Any]:
    [trace] = answer.choices[0].traces
    assert trace.kind == "purity"
    return trace.data


def reported(answer: Answer) -> list[float]:
    found = {s: float(np.exp(p)) for s, p in answer.choices[0].tokens[0].top}
    return [found[s] for s in TOKENS]


@pytest.mark.parametrize(
    ("options", "expected", "bound", "drawn"),
    [
        ({}, [0.503626, 0.290769, 0.205605], 1.036105, 0.525879),
        ({"alpha": 0.7}, [0.709130, 0.160502, 0.130368], None, 1.068799),
        ({"divergence": "max"}, [0.5, 0.25, 0.25], 1.609438, 1.609438),
    ],
)
async def test_worked_example(
    options: dict[str, object], expected: list[float], bound: float | None, drawn: float
) -> None:
    request = Request.of("?", max_tokens=1, temperature=1, seed=1, logprobs=3)
    answer = await purify(pair(), **options).answer(request)
    assert reported(answer) == pytest.approx(expected, abs=1e-6)
    found = told(answer)
    assert (found["steps"], found["exact"]) == (1, True)
    assert found["drawn"] == pytest.approx(drawn, abs=1e-6)
    if bound is not None:
        assert found["bound"] == found["largest"] == pytest.approx(bound, abs=1e-6)


async def test_worked_example_of_both_divergences() -> None:
    # KL to the large member is what the bound leaves: 1.036105 - 0.525879, where members change places.
    request = Request.of("?", max_tokens=1, temperature=1, seed=1)
    found = told(await purify(pair(), benign="large").answer(request))
    assert found["drawn"] == pytest.approx(0.510226, abs=1e-6)
    assert found["bound"] == pytest.approx(1.036105, abs=1e-6)


async def test_an_average_would_keep_what_was_memorised() -> None:
    members, request = pair([0.99, 0.005, 0.005]), Request.of("?", max_tokens=1, logprobs=3)
    average = (await Ensemble("e", "gac", members).answer(request)).choices[0].tokens[0]
    assert (average.token, round(float(np.exp(average.logprob)), 6)) == (b"memorised", 0.545)
    mixed = (await purify(pair([0.99, 0.005, 0.005], [0.0, 0.6, 0.4])).answer(request)).choices[0].tokens[0]
    assert (mixed.token, dict(mixed.top).get(b"memorised")) == (b"x", None)


@given(st.integers(0, 2**32), st.floats(0.2, 4))
@settings(max_examples=25, deadline=None)
async def test_the_bound_is_what_it_is_said_to_be(seed: int, sharpness: float) -> None:
    rng = np.random.default_rng(seed)
    p_l, p_s = (row / row.sum() for row in np.exp(rng.normal(size=(2, 3)) * sharpness))
    request = Request.of("?", max_tokens=1, temperature=1, seed=1, logprobs=3)
    answer = await purify(pair(p_l, p_s)).answer(request)
    p = np.array(reported(answer))
    kl_l, kl_s = float(p @ np.log(p / p_l)), float(p @ np.log(p / p_s))
    assert told(answer)["bound"] == pytest.approx(kl_l + kl_s, abs=1e-9)
    assert told(answer)["drawn"] == pytest.approx(kl_s, abs=1e-9)
    smaller = await purify(pair(p_l, p_s), divergence="max").answer(request)
    p = np.array(reported(smaller))
    assert told(smaller)["bound"] >= max(np.log(p / p_l).max(), np.log(p / p_s).max()) - 1e-9


@given(st.integers(0, 2**32), st.floats(0.05, 1.5), st.floats(0.05, 1.5), st.sampled_from([0.0, 1e-3]))
@settings(max_examples=25, deadline=None)
async def test_the_bound_holds_for_any_exponents(seed: int, alpha: float, beta: float, floor: float) -> None:
    rng = np.random.default_rng(seed)
    p_l, p_s = (row / row.sum() for row in np.exp(rng.normal(size=(2, 3)) * 2))
    request = Request.of("?", max_tokens=1, temperature=1, seed=1)
    found = told(await purify(pair(p_l, p_s), alpha=alpha, beta=beta, floor=floor).answer(request))
    assert found["drawn"] <= found["bound"] + 1e-9


async def test_bounds_from_lists_are_too_large_if_anything() -> None:
    request = Request.of("ab", max_tokens=12)
    members = [Toy("large", MERGED, 21), Toy("benign", MERGED, 22)]
    whole = told(await purify(members, topk=len(MERGED)).answer(request))
    short = told(await purify(members, topk=2).answer(request))
    assert whole["exact"] and not short["exact"] and whole["drawn"] is None
    assert short["steps"] == whole["steps"] == 12
    assert whole["bound"] < short["bound"] < 3 * whole["bound"]


@pytest.mark.parametrize("options", [{}, {"alpha": 0.8}, {"divergence": "max"}, {"alpha": 0.7, "beta": 0.7}])
@pytest.mark.parametrize("topk", [1, 3, 64])
async def test_lists_of_any_length_give_the_plain_rule(options: dict[str, Any], topk: int) -> None:
    members = [Toy("large", MERGED, 21), Toy("benign", MERGED, 22)]
    alpha = options.get("alpha", 0.5)
    exponents = (alpha, options.get("beta", 1 - alpha))
    text = b""
    for _ in range(20):
        rows = [masses(member, b"ab" + text) for member in members]
        if "divergence" in options:
            values = {s: min(row[s] for row in rows) for s in sorted(rows[0])}
        else:
            values = {
                s: np.prod([row[s] ** e for row, e in zip(rows, exponents, strict=True)]) for s in sorted(rows[0])
            }
        best = max(values, key=lambda s: values[s])
        if not best:
            break
        text += best
    answer = await purify(members, topk=topk, **options).answer(Request.of("ab", max_tokens=20))
    assert answer.text == shown(text) and len(text) > 5


@pytest.mark.parametrize(("exponents", "alone"), [((1, 0), 0), ((0, 1), 1)])
@pytest.mark.parametrize("temperature", [0, 0.8])
async def test_all_weight_on_one_member_gives_its_text_and_leaves_the_other_alone(
    exponents: tuple[float, float], alone: int, temperature: float
) -> None:
    members = [TinyMember("large", 1), TinyMember("benign", 2)]
    request = Request.of("hi", max_tokens=12, temperature=temperature, seed=3)
    answer = await purify(members, alpha=exponents[0], beta=exponents[1], topk=256).answer(request)
    assert answer.text == (await TinyMember("x", alone + 1).answer(request)).text
    assert members[1 - alone].exchanges == 0 and set(answer.usage) == {members[alone].name}
    assert told(answer)["bound"] == (None if alone == 0 else pytest.approx(0, abs=1e-9))


@pytest.mark.parametrize("options", [{}, {"divergence": "max"}, {"alpha": 0.2}])
async def test_copies_of_a_member_write_its_greedy_text(options: dict[str, Any]) -> None:
    request = Request.of("hello", max_tokens=20)
    alone = await TinyMember("a", 5).answer(request)
    answer = await purify([TinyMember("a", 5), TinyMember("b", 5)], topk=3, **options).answer(request)
    assert (answer.text, answer.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)


async def test_equal_members_are_left_as_they_are() -> None:
    request = Request.of("?", max_tokens=1, temperature=1, seed=1, logprobs=3)
    answer = await purify(pair(LARGE, LARGE)).answer(request)
    assert reported(answer) == pytest.approx(LARGE, abs=1e-12)
    assert told(answer)["bound"] == pytest.approx(0, abs=1e-12)


async def test_equal_exponents_are_symmetric() -> None:
    request = Request.of("ab", max_tokens=20)
    members = [Toy("one", MERGED, 21), Toy("other", MERGED, 22)]
    texts = [(await purify(list(order), topk=3).answer(request)).text for order in (members, members[::-1])]
    assert texts[0] == texts[1] != ""
    lopsided = [(await purify(members, alpha=0.9, benign=name).answer(request)).text for name in ("one", "other")]
    assert lopsided[0] != lopsided[1]


async def test_nothing_is_written_that_one_member_holds_impossible() -> None:
    members = pair([0.7, 0.0, 0.3], [0.0, 0.6, 0.4])
    for seed in range(20):
        request = Request.of("?", max_tokens=3, temperature=1.5, seed=seed)
        assert (await purify(members).answer(request)).text == "yyy"


async def test_a_floor_lets_through_what_the_benign_member_does_not_know() -> None:
    members = pair([0.98, 0.01, 0.01], [0.0, 0.5, 0.5])
    request = Request.of("?", max_tokens=1, temperature=1, seed=0, logprobs=3)
    low = await purify(members, floor=0.01).answer(request)
    raised = np.array([0.01, 0.5, 0.5])
    expected = np.sqrt(np.array([0.98, 0.01, 0.01]) * raised)
    assert reported(low) == pytest.approx(expected / expected.sum(), abs=1e-9)
    # Four classes: the stop class, which nobody has an id for, is raised as well.
    found, q = told(low), raised / 1.02
    p = expected / expected.sum()
    assert found["drawn"] == pytest.approx(float(p @ np.log(p / q)), abs=1e-9)
    assert found["bound"] == pytest.approx(-2 * np.log(expected.sum()) + np.log1p(0.04), abs=1e-9)
    greedy = Request.of("?", max_tokens=1)
    assert (await purify(members, floor=0.3, topk=1).answer(greedy)).text == "memorised"
    assert (await purify(members, topk=1).answer(greedy)).text == "x"


@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.8}, {"divergence": "max"}])
async def test_answers_are_drawn_from_the_mixture(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], drafted: bool
) -> None:
    members = [three_tokens("large", 1), three_tokens("benign", 2)]
    alpha = options.get("alpha", 0.5)

    def target(rows: Sequence[Floats]) -> Floats:
        p_l, p_s = (np.exp(row) for row in rows)
        mixed = np.minimum(p_l, p_s) if "divergence" in options else p_l**alpha * p_s ** (1 - alpha)
        tempered = mixed ** (1 / 0.7)
        return np.asarray(tempered / tempered.sum())

    if drafted:
        options = {**options, "draft": {"lengths": [2, 1], "adaptive": False}}
    found, _ = await courses(monkeypatch, members, options, "purify", temperature=0.7)
    expected = plain(members, target)
    assert found.keys() == expected.keys()
    assert max(abs(found[answer] - expected[answer]) for answer in expected) < 1e-12


@pytest.mark.parametrize("options", [{}, {"divergence": "max"}, {"floor": 1e-4}])
@pytest.mark.parametrize("lengths", [[5, 1], [1, 4]])
async def test_drafts_change_nothing(options: dict[str, Any], lengths: list[int]) -> None:
    members = [Toy("large", MERGED, 21, stop=-9), Toy("benign", MERGED, 22, stop=-9)]
    request = Request.of("ab", max_tokens=20)
    slow = await purify(members, topk=5, **options).answer(request)
    fast = await purify(members, topk=5, draft={"lengths": lengths}, **options).answer(request)
    assert fast.text == slow.text and len(slow.text) > 5
    assert told(fast)["bound"] == pytest.approx(told(slow)["bound"], rel=0.5)
    assert told(fast)["steps"] >= told(slow)["steps"] == 20


async def test_characters_of_several_bytes_survive() -> None:
    def script(text: bytes) -> dict[bytes, float]:
        return {b"\xa9" if text.endswith(b"\xc3") else b"\xc3": 0.9, b"a": 0.1}

    members = [ScriptedMember(name, SINGLE, script) for name in ("large", "benign")]
    answer = await purify(members, topk=1).answer(Request.of("?", max_tokens=4))
    assert answer.text == "éé"


async def test_all_stop_ids_are_one_class() -> None:
    tokens = (b"x", b"y", b"", b"")
    a = table("a", tokens, [[0.4, 0.0, 0.3, 0.3]])
    b = table("b", tokens, [[0.4, 0.0, 0.3, 0.3]])
    answer = await purify([a, b], topk=1).answer(Request.of("?", max_tokens=3))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")


async def test_whole_distributions_are_needed_where_tokens_are_drawn_or_reported() -> None:
    members = [TinyMember("large"), TinyMember("benign", capabilities=SESSIONS_ONLY)]
    for field, value in (("temperature", 1), ("logprobs", 0)):
        with pytest.raises(BadRequest, match="benign does not") as refused:
            await purify(members).answer(Request.of("?", max_tokens=2, **{field: value}))
        assert (refused.value.param, refused.value.member) == (field, "benign")
    assert members[0].exchanges == 0
    answer = await purify(members).answer(Request.of("?", max_tokens=2))
    assert answer.usage["benign"].completion_tokens == 2


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"benign": "nobody"}, "benign", "large, benign"),
        ({"alpha": 1.5}, "alpha", "at most 1"),
        ({"alpha": -0.1}, "alpha", "greater than or equal to 0"),
        ({"alpha": 0, "beta": 0}, "alpha", "above 0"),
        ({"alpha": 0.5, "divergence": "max"}, "alpha", "divergence: kl"),
        ({"beta": 0.5, "divergence": "max"}, "beta", "divergence: kl"),
        ({"divergence": "tv"}, "divergence", "'kl' or 'max'"),
        ({"floor": 1}, "floor", "less than 1"),
        ({"topk": 0}, "topk", "greater than or equal to 1"),
        ({"draft": {"lengths": [1]}}, "draft", "2 members"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        purify(pair(), **options)
    assert refused.value.param == param


def test_members_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two members"):
        purify([*pair(), table("third", TOKENS, [LARGE])])
    with pytest.raises(ConfigurationError, match="one vocabulary; those of a and b differ"):
        purify([Toy("a", MERGED, 1), Toy("b", SINGLE, 2)])
    with pytest.raises(MissingCapability, match="sessions"):
        purify([TinyMember("a"), ScriptedMember.answering("b", ["x"])])  # type: ignore[list-item]


async def test_more_exponent_for_the_large_member_completes_more_canaries() -> None:
    # The large member has memorised a text byte by byte; the benign one, of the same vocabulary, has not.
    canary, tokens = b"a cab", (*LETTERS, b"")
    clean = Toy("benign", tokens, 7, sharpness=1.0, stop=-4.0)

    class Memorising(Toy):
        def after(self, text: bytes) -> Floats:
            row = 0.05 * np.exp(clean.after(text))
            begun = next(n for n in range(min(len(canary) - 1, len(text)), -1, -1) if text.endswith(canary[:n]))
            row[tokens.index(canary[begun : begun + 1])] += 0.95
            return np.asarray(np.log(row / row.sum()))

    members = [Memorising("large", tokens, 7), clean]
    rates = []
    for alpha in (0.0, 0.5, 1.0):
        requests = [Request.of("b", max_tokens=5, temperature=1, seed=seed) for seed in range(60)]
        texts = [(await purify(members, alpha=alpha).answer(request)).text for request in requests]
        rates.append(sum("a cab" in text for text in texts) / 60)
    assert rates[0] < rates[1] < rates[2] and rates[2] > 0.5
    assert vocabulary(tokens).fingerprint == clean.card.vocabulary
