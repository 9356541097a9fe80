"""CoRE: its worked example, its invariants, the guard of the main member, on every alignment."""

from __future__ import annotations

from itertools import permutations
from typing import Any, get_args

import numpy as np
import pytest
from head_toys import projecting
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, shown, table, trio

from ensemble.during.token.core import RULES, Aligned
from ensemble.during.token.election.consistency import Similarity, consistent, similarity
from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer, ConfigurationError, MissingCapability
from ensemble.member import Floats, Member
from ensemble.request import Request
from ensemble.testing import LocalMember, ScriptedMember, TinyMember
from ensemble.vocabulary import Vocabulary

ROWS = np.array([[0.6, 0.3, 0.1, 0.0], [0.2, 0.7, 0.1, 0.0], [0.1, 0.1, 0.1, 0.7]])
TOKENS = (b"u", b"v", b"x", b"y", b"")
EACH = get_args(Aligned)


def core(members: list[Any], **options: Any) -> Ensemble:
    if options.get("aligned") == "eva":
        main = next((m for m in members if m.name == options.get("main")), members[0])
        for helper in members:
            if helper is not main:
                projecting(helper, twins(helper.tokeniser.vocabulary, main.tokeniser.vocabulary), main)
    return Ensemble("e", "core", members, options=options)


def twins(helper: Vocabulary, main: Vocabulary) -> Floats:
    """A projection of each token onto the main member's for the same bytes, or nothing; stops onto stops."""
    rows = [[float(bool(token) and token == other) for other in main.tokens] for token in helper.tokens]
    dense = np.array(rows)
    for stop in helper.stop_ids:
        dense[stop, sorted(main.stop_ids)] = 1
    sums = dense.sum(axis=1, keepdims=True)
    return np.asarray(dense / np.where(sums > 0, sums, 1))


def example(**options: Any) -> list[LocalMember]:
    return [table(n, TOKENS, [[*row, 0.0]], **options) for n, row in zip(("main", "h1", "h2"), ROWS, strict=True)]


def test_worked_example() -> None:
    found = consistent(ROWS, 0, "rbf", 2.0, "generative")
    assert found.weights.tolist() == pytest.approx([0.5, 0.258602, 0.241398], abs=1e-6)
    assert found.scores[1].tolist() == pytest.approx([1.0644, 0.588869, 1.34673, 0], abs=1e-5)
    assert found.scores[2].tolist() == pytest.approx([1.014735, 0.856026, 1.640056, 0.489183], abs=1e-6)
    assert found.mean.tolist() == pytest.approx([0.379547, 0.277262, 0.124417, 0.082662], abs=1e-6)
    assert int(found.mean.argmax()) == 0 and int(ROWS.mean(axis=0).argmax()) == 1


def test_worked_example_of_token_scores() -> None:
    raw = similarity(np.abs(ROWS - ROWS.mean(axis=0)), "rbf", 2.0)
    assert raw[0, :3].tolist() == pytest.approx([0.478193, 0.855636, 1], abs=1e-6)
    assert raw[1, :3].tolist() == pytest.approx([0.790359, 0.437258, 1], abs=1e-6)
    assert raw[2].tolist() == pytest.approx([0.618719, 0.521949, 1, 0.298272], abs=1e-6)


@pytest.mark.parametrize("aligned", EACH)
async def test_worked_example_from_members(aligned: str) -> None:
    request = Request.of("?", max_tokens=1, logprobs=4)
    [token] = (await core(example(), aligned=aligned).answer(request)).choices[0].tokens
    mean = np.array([0.379547, 0.277262, 0.124417, 0.082662])
    found = {s: float(np.exp(p)) for s, p in token.top}
    assert token.token == b"u"
    assert [found[s] for s in TOKENS[:4]] == pytest.approx((mean / mean.sum()).tolist(), abs=2e-6)


def test_similarities_fall_from_one() -> None:
    grid = np.linspace(0, 1, 11)[None]
    for kind, sharpness in (("rbf", 2.0), ("linear", 1.0), ("power", 5.0), ("reciprocal", 1.0)):
        values = similarity(grid, kind, sharpness)[0]  # type: ignore[arg-type]
        assert values[0] == 1 and values[-1] == pytest.approx(0) and (np.diff(values) < 0).all()
    assert similarity(grid, "power", 5.0)[0, 2] == pytest.approx(0.8**5)
    assert similarity(grid, "reciprocal", 1.0)[0, 5] == pytest.approx((1 / 1.5 - 0.5) / 0.5)


@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from(get_args(Similarity)))
def test_identical_members_are_left_as_they_are(seed: int, members: int, kind: Similarity) -> None:
    row = np.random.default_rng(seed).dirichlet(np.ones(6))
    for task in ("generative", "choice"):
        found = consistent(np.stack([row] * members), 0, kind, 2.0, task)
        assert found.mean.tolist() == pytest.approx(row.tolist())
        assert found.scores.min() == pytest.approx(1)


@given(st.integers(0, 2**32), st.integers(2, 5), st.sampled_from(get_args(Similarity)))
def test_the_main_member_has_half_and_helpers_are_interchangeable(seed: int, members: int, kind: Similarity) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(6, 0.5), members) * 1.0
    found = consistent(rows, 0, kind, 2.0, "generative")
    assert found.weights[0] >= 0.5 - 1e-12 and found.weights.sum() == pytest.approx(1)
    order = [0, *(1 + rng.permutation(members - 1))]
    again = consistent(rows[order], 0, kind, 2.0, "generative")
    assert again.mean.tolist() == pytest.approx(found.mean.tolist())
    counted = [row[row > 0].mean() for row in found.scores if row.any()]
    assert counted == pytest.approx([1.0] * len(counted))


def test_a_helper_of_noise_counts_little() -> None:
    sure = np.array([0.97, 0.01, 0.01, 0.01])
    found = consistent(np.stack([sure, sure, np.full(4, 0.25)]), 0, "rbf", 2.0, "generative")
    assert found.weights[2] < 0.2 * found.weights[1]


def test_a_helper_with_nothing_to_say_has_no_weight() -> None:
    for task in ("generative", "choice"):
        found = consistent(np.array([[0.6, 0.4], [0.0, 0.0]]), 0, "rbf", 2.0, task)
        assert (found.weights.tolist(), found.mean.tolist()) == ([1, 0], pytest.approx([0.6, 0.4]))


@pytest.mark.parametrize("aligned", ["gac", "unite"])
async def test_the_main_member_decides_where_all_deviate_by_the_most_there_is(aligned: str) -> None:
    # Of two members' favourites each deviates as the other does, and with ``reciprocal`` the largest deviation is 0.
    found = consistent(np.array([[1.0, 0.0], [0.0, 1.0]]), 1, "reciprocal", 1.0, "generative")
    assert found.weights.tolist() == [0, 1] and found.mean.tolist() == [0, 1]
    pair = [ScriptedMember("a", TOKENS, [b"x"]), ScriptedMember("b", TOKENS, [b"y"])]
    ensemble = core(pair, aligned=aligned, similarity="reciprocal", topk=1, main="b")
    assert (await ensemble.answer(Request.of("?"))).text == "y"


def test_choices_are_weighed_by_certainty_alone() -> None:
    found = consistent(ROWS, 0, "rbf", 2.0, "choice")
    trust = 1 / np.array([0.897946, 0.801819, 0.940448])
    trust[0] = trust[1:].sum()
    assert found.weights.tolist() == pytest.approx((trust / trust.sum()).tolist(), abs=1e-6)
    assert found.mean.tolist() == pytest.approx((trust / trust.sum() @ ROWS).tolist(), abs=1e-6)


@pytest.mark.parametrize("aligned", EACH)
@pytest.mark.parametrize("topk", [1, 4, 10])
async def test_copies_of_a_member_write_its_greedy_text(aligned: str, topk: int) -> None:
    request = Request.of("hello", max_tokens=20)
    alone = await TinyMember("a", 5).answer(request)
    answer = await core([TinyMember(name, 5) for name in "abc"], aligned=aligned, topk=topk).answer(request)
    assert (answer.text, answer.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)
    alone_in_it = await core([TinyMember("a", 5)], aligned=aligned, topk=topk).answer(request)
    assert alone_in_it.text == alone.text


@pytest.mark.parametrize("aligned", EACH)
async def test_helpers_can_change_places_and_the_main_member_cannot(aligned: str) -> None:
    request = Request.of("ab", max_tokens=20)
    texts = {
        main: {
            (await core(list(order), aligned=aligned, main=main).answer(request)).text for order in permutations(trio())
        }
        for main in ("merged", "single", "words")
    }
    assert all(len(found) == 1 for found in texts.values())
    assert len(set.union(*texts.values())) > 1 and "" not in set.union(*texts.values())
    assert texts["merged"] == {(await core(trio(), aligned=aligned).answer(request)).text}


@given(st.integers(0, 2**16), st.sampled_from(EACH), st.sampled_from(get_args(Similarity)))
@settings(max_examples=15, deadline=None)
async def test_any_members_write_on_and_leave_nothing_open(seed: int, aligned: str, kind: str) -> None:
    members = [Toy("m", MERGED, seed), Toy("s", SINGLE, seed + 1), Toy("w", WORDS, seed + 2)]
    choice = (await core(members, aligned=aligned, similarity=kind).answer(Request.of("ab", max_tokens=8))).choices[0]
    assert choice.finish_reason == "stop" or choice.text
    assert [member.open_sessions for member in members] == [0, 0, 0]
    assert [member.exchanges for member in members if aligned == "gac"] in ([], [members[0].exchanges] * 3)


def duel(main: list[float], helper: list[float], tokens: tuple[bytes, ...]) -> list[Member]:
    # The helpers are sure and agree, so that they have half of the weight and less to lose by their scores.
    return [table("main", tokens, [main]), *(table(n, tokens, [helper]) for n in "hij")]


@pytest.mark.parametrize("aligned", EACH)
async def test_a_spelling_of_the_main_member_is_kept(aligned: str) -> None:
    request, main, helper = Request.of("?", max_tokens=1), [0.36, 0.34, 0.30, 0], [0.0, 0.98, 0.02, 0]
    beyond = duel(main, helper, (b"ca", b"cat", b"x", b""))
    assert (await core(beyond, aligned=aligned).answer(request)).text == "ca"
    other = duel(main, helper, (b"ca", b"dog", b"x", b""))
    assert (await core(other, aligned=aligned).answer(request)).text == "dog"
    assert (await core(beyond, aligned=aligned, task="choice").answer(request)).text == "cat"


@pytest.mark.parametrize("aligned", EACH)
async def test_the_main_member_stops_alone(aligned: str) -> None:
    members = duel([0.3, 0.3, 0.4], [0.0, 0.99, 0.01], (b"u", b"v", b""))
    answer = await core(members, aligned=aligned).answer(Request.of("?", max_tokens=3))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")
    # Its two stop ids are one class, which is its likeliest.
    split = duel([0.4, 0.0, 0.3, 0.3], [0.0, 1.0, 0.0, 0.0], (b"u", b"v", b"", b""))
    assert (await core(split, aligned=aligned).answer(Request.of("?", max_tokens=3))).text == ""
    writes_on = duel([0.5, 0.1, 0.4], [0.0, 0.99, 0.01], (b"u", b"v", b""))
    answer = await core(writes_on, aligned=aligned).answer(Request.of("?", max_tokens=3))
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("aligned", EACH)
async def test_a_decision_of_the_main_member_is_credited_to_it(aligned: str) -> None:
    members = [table("main", (b"x", b"y", b""), [[0.5, 0.5, 0], [0, 0, 1]]), table("h", (b"x", b"y", b""), [[1, 0, 0]])]
    choice = (await core(members, aligned=aligned).answer(Request.of("?", max_tokens=2))).choices[0]
    [(text, credits)] = choice.credits
    assert (text, set(credits), choice.finish_reason) == ("x", {"main", "h"}, "stop")
    assert sum(credits.values()) == pytest.approx(1)


async def test_gac_asks_once_for_each_token() -> None:
    members = trio()
    answer = await core(members, aligned="gac").answer(Request.of("ab", max_tokens=12))
    assert [member.exchanges for member in members] == [answer.usage["merged"].completion_tokens] * 3 == [12] * 3


@pytest.mark.parametrize("aligned", EACH)
async def test_seeds_reproduce_and_differ(aligned: str) -> None:
    async def text(seed: int) -> str:
        request = Request.of("ab", max_tokens=12, temperature=1.5, seed=seed)
        return (await core(trio(), aligned=aligned).answer(request)).text

    assert await text(7) == await text(7)
    assert len({await text(seed) for seed in range(6)}) > 1


@pytest.mark.parametrize("aligned", EACH)
async def test_one_token_is_drawn_as_often_as_the_mean_says(aligned: str) -> None:
    mean = np.array([0.379547, 0.277262, 0.124417, 0.082662])
    mean = mean / mean.sum()
    ensemble, draws = core(example(), aligned=aligned), 1000
    requests = [Request.of("?", max_tokens=1, temperature=1, seed=seed) for seed in range(draws)]
    texts = [(await ensemble.answer(request)).text for request in requests]
    counts = np.array([texts.count(token.decode()) for token in TOKENS[:4]])
    assert float(((counts - draws * mean) ** 2 / (draws * mean)).sum()) < 16.27  # chi-square, 3 degrees, 0.1 %


@pytest.mark.parametrize("aligned", EACH)
async def test_characters_of_several_bytes_survive(aligned: str) -> None:
    def single(text: bytes) -> dict[bytes, float]:
        return {b"\xa9" if text.endswith(b"\xc3") else b"\xc3": 0.9, b"a": 0.1}

    main = ScriptedMember("main", WORDS, lambda text: {b"\xc3\xa9": 0.8, b"a": 0.2})
    helpers = [ScriptedMember(name, SINGLE, single) for name in "hi"]
    answer = await core([main, *helpers], aligned=aligned, main="main").answer(Request.of("?", max_tokens=3))
    assert answer.text == "ééé"
    swapped = await core([*helpers, main], aligned=aligned).answer(Request.of("?", max_tokens=6))
    assert swapped.text == "ééé"


@pytest.mark.parametrize("aligned", EACH)
async def test_control_ids_are_no_tokens(aligned: str) -> None:
    members = [table(n, (CONTROL, b"x", b""), [[0.9, 0.06, 0.04]]) for n in "ab"]
    assert (await core(members, aligned=aligned, topk=1).answer(Request.of("?", max_tokens=2))).text == "xx"
    silent = [table(n, (CONTROL, b"x", b""), [[1.0, 0, 0]]) for n in "ab"]
    with pytest.raises(BadAnswer):
        await core(silent, aligned=aligned, topk=1).answer(Request.of("?", max_tokens=2))


def test_every_alignment_has_a_rule() -> None:
    assert set(RULES) == set(EACH)


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"main": "nobody"}, "main", "merged, single, words"),
        ({"aligned": "mined"}, "aligned", "'gac'"),
        ({"similarity": "cosine"}, "similarity", "'rbf'"),
        ({"similarity": "linear", "sharpness": 2}, "sharpness", "rbf, power, reciprocal"),
        ({"sharpness": 0}, "sharpness", "greater than 0"),
        ({"task": "chat"}, "task", "'generative'"),
        ({"topk": 0}, "topk", "greater than or equal to 1"),
        ({"topk": 500}, "topk", "128"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        core(trio(), **options)
    assert refused.value.param == param


def test_members_without_sessions_are_refused() -> None:
    with pytest.raises(MissingCapability, match="sessions"):
        core([TinyMember("a"), ScriptedMember.answering("b", ["x"])])


async def test_text_is_shown_as_written() -> None:
    answer = await core(trio()).answer(Request.of("ab", max_tokens=12))
    assert answer.text == "".join(text for text, _ in answer.choices[0].credits) == shown(answer.text.encode())
