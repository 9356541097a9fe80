"""EVA's worked example, its invariants, and equality with the plain rule over whole vocabularies."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from head_toys import eva, matrix, projected_greedy, projecting
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, deltas, shown, table, vocabulary

from ensemble.during.token import eva as eva_module
from ensemble.during.token.pivoting.projected import agreeing, pivot_union_of
from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer, ConfigurationError, MemberLost, MissingCapability
from ensemble.failures.policy import Policy
from ensemble.member import Floats
from ensemble.request import Request
from ensemble.sampling import draw
from ensemble.testing import LocalMember, TinyMember
from ensemble.vocabulary import STOP

Q = "ab"
EXAMPLE = np.array([[0.5, 0.3, 0.1, 0.1], [0.4, 0.45, 0.1, 0.05], [0.05, 0.05, 0.1, 0.8]])
FOUR = (b"w", b"x", b"y", b"z", b"")


def example() -> list[LocalMember]:
    """Three members of one vocabulary with the example's distributions; the first is the pivot."""
    members = [table(n, FOUR, [[*row, 0]]) for n, row in zip("abc", EXAMPLE, strict=True)]
    for member in members[1:]:
        projecting(member, np.eye(5), members[0])
    return members


async def test_worked_example_of_the_filter() -> None:
    assert agreeing([[0, 1], [1, 0], [3, 2]]) == [0, 1]
    [token] = (await eva(example(), drop=2).answer(Request.of("?", max_tokens=1, logprobs=4))).choices[0].tokens
    found = {s: round(float(np.exp(p)), 6) for s, p in token.top}
    assert (token.token, found) == (b"w", {b"w": 0.45, b"x": 0.375, b"y": 0.1, b"z": 0.075})


@pytest.mark.parametrize("drop", [0, None, 4, 100])
async def test_worked_example_without_the_filter(drop: int | None) -> None:
    answer = await eva(example(), drop=drop).answer(Request.of("?", max_tokens=1, logprobs=4))
    found = {s: round(float(np.exp(p)), 4) for s, p in answer.choices[0].tokens[0].top}
    assert found == {b"w": 0.3167, b"z": 0.3167, b"x": 0.2667, b"y": 0.1}


@pytest.mark.parametrize(("fidelity", "sums"), [("fixed", 1.0), ("reference", 1.666889)])
async def test_worked_example_of_the_projection(fidelity: str, sums: float) -> None:
    raw = np.array([[0.993884, 0.762732, 0, 0, 0], [0, 0.409351, 0.993884, 0, 0], [0, 0.96, 0.606116, 0, 0]])
    pivot, helper = table("p", FOUR, [[0, 0, 0, 1, 0]]), table("h", (b"1", b"2", b"3"), [[0.7, 0.2, 0.1]])
    dense = raw if fidelity == "reference" else raw / raw.sum(axis=1, keepdims=True)
    projecting(helper, dense, pivot)
    expected = [0.695719, 0.711782, 0.259388] if fidelity == "reference" else [0.396056, 0.423586, 0.180358]
    request = Request.of("?", max_tokens=1, logprobs=5)
    answer = await eva([pivot, helper], weights=[1e-9, 1], drop=0, fidelity=fidelity).answer(request)
    top = {s: float(np.exp(p)) * sums for s, p in answer.choices[0].tokens[0].top}
    assert [top[s] for s in (b"w", b"x", b"y")] == pytest.approx(expected, abs=2e-6) and answer.text == "x"


def trio(seed: int = 0, topk: int = 320, **options: float) -> tuple[list[Toy], dict[int, Floats]]:
    """Members of three vocabularies with their projections into the first's."""
    members = [Toy(n, t, seed + i + 1, **options) for i, (n, t) in enumerate(zip("msw", TOKENS, strict=True))]
    pivot = members[0].tokeniser.vocabulary
    dense = {i: matrix(members[i].tokeniser.vocabulary, pivot, seed + i) for i in (1, 2)}
    for i, rows in dense.items():
        projecting(members[i], rows, members[0], topk=topk)
    return members, dense


TOKENS = (MERGED, SINGLE, WORDS)


@pytest.mark.parametrize("drop", [0, 1, 2, 5])
@pytest.mark.parametrize("listed", [1, 2, 5, 64])
@pytest.mark.parametrize("few", [1, 3, 32])
async def test_lists_of_any_length_give_the_plain_rule(
    few: int, listed: int, drop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eva_module, "_FEW", few)
    members, dense = trio()
    answer = await eva(members, drop=drop, listed=listed).answer(Request.of(Q, max_tokens=25))
    plain = projected_greedy(members, dense, Q.encode(), 25, drop=drop)
    assert answer.text == shown(plain) and len(answer.text) > 3


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 4), st.integers(2, 6))
@settings(max_examples=20, deadline=None)
async def test_random_members_give_the_plain_rule(seed: int, listed: int, drop: int, topk: int) -> None:
    members, dense = trio(seed, topk, stop=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eva_module, "_FEW", 1 + seed % 4)
        answer = await eva(members, listed=listed, drop=drop, topk=topk).answer(Request.of(Q, max_tokens=8))
    assert answer.text == shown(projected_greedy(members, dense, Q.encode(), 8, drop=drop, topk=topk))


async def test_few_tokens_decide_where_members_are_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eva_module, "_FEW", 2)
    monkeypatch.setattr(eva_module, "tally", None)
    answer = await eva(example()[:2], drop=2, weights=[0.7, 0.3]).answer(Request.of("?", max_tokens=1))
    ((_, credits),) = answer.choices[0].credits
    assert answer.text == "w" and credits == pytest.approx({"a": 0.35 / 0.47, "b": 0.12 / 0.47}, abs=1e-6)


def test_stop_ids_that_are_not_listed_are_the_pivots() -> None:
    pivot, helper = vocabulary((b"a", b"", b"", b"")), vocabulary((b"a", b""))
    union = pivot_union_of([pivot, helper])
    assert [union.count(member, STOP) for member in (0, 1)] == [3, 3]
    assert [union.ids(member, STOP) for member in (0, 1)] == [(1, 2, 3), (1,)]


@given(st.integers(0, 1000), st.integers(1, 320), st.sampled_from([0, 1, 5]))
@settings(max_examples=10, deadline=None)
async def test_copies_of_a_member_write_its_greedy_text(seed: int, topk: int, drop: int) -> None:
    request = Request.of("hello", max_tokens=15)
    alone = await TinyMember("a", seed).answer(request)
    copies = [TinyMember(name, seed) for name in "abc"]
    for copy in copies[1:]:
        projecting(copy, np.eye(256), copies[0], topk=topk)
    together = await eva(copies, topk=topk, drop=drop).answer(request)
    assert (together.text, together.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)


@pytest.mark.parametrize("pivot", [0, 1, 2])
async def test_all_weight_on_the_pivot_gives_its_text_and_leaves_the_others_alone(pivot: int) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2), TinyMember("c", 3)]
    request = Request.of("hi", max_tokens=15)
    weights = [float(i == pivot) for i in range(3)]
    answer = await eva(members, weights=weights, pivot="abc"[pivot]).answer(request)
    assert answer.text == (await TinyMember("x", pivot + 1).answer(request)).text
    assert [m.exchanges for i, m in enumerate(members) if i != pivot] == [0, 0]
    assert set(answer.usage) == {"abc"[pivot]}


async def test_order_of_helpers_does_not_matter_and_the_pivot_does() -> None:
    request, texts = Request.of(Q, max_tokens=20), set()
    for order in permutations(range(3)):
        members, _ = trio()
        texts.add((await eva([members[i] for i in order], pivot="m").answer(request)).text)
    assert len(texts) == 1 and texts != {""}
    members, _ = trio()
    for i in (0, 2):
        pivot = members[1].tokeniser.vocabulary
        projecting(members[i], matrix(members[i].tokeniser.vocabulary, pivot, i), members[1])
    assert (await eva(members, pivot="s").answer(request)).text not in texts


async def test_stop_ids_are_one_class() -> None:
    # x leads each stop id of the pivot, but together they and the helper's one lead x.
    pivot = table("p", (b"x", b"", b""), [[0.45, 0.30, 0.25]])
    helper = table("h", (b"", b"x"), [[0.6, 0.4]])
    projecting(helper, np.array([[0, 0.5, 0.5], [1, 0, 0]]), pivot)
    answer = await eva([pivot, helper]).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")


async def test_each_member_commits_its_own_ids() -> None:
    pivot = table("p", (b"a", b"cat", b""), [[0, 1, 0], [1, 0, 0]])
    helper = table("h", (b"cat", b"x", b""), [[0.9, 0.05, 0.05]])
    speller = table("s", (b"t", b"a", b"c", b""), [[0.25] * 4])
    projecting(helper, np.array([[0, 1, 0], [0.5, 0.5, 0], [0, 0, 1.0]]), pivot)
    projecting(speller, np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1.0]]), pivot)
    seen: dict[str, list[list[int]]] = {"p": [], "h": [], "s": []}
    for member in (pivot, helper, speller):
        _record(member, seen[member.name])
    answer = await eva([pivot, helper, speller], drop=0).answer(Request.of("?", max_tokens=2))
    assert answer.text.startswith("cat")
    assert {name: ids[-1] for name, ids in seen.items()} == {"p": [1], "h": [0], "s": [2, 1, 0]}


def _record(member: LocalMember, seen: list[list[int]]) -> None:
    model = member.model

    def recorded(prompt: list[int], ids: list[int]) -> Floats:
        seen.append(list(ids))
        return model(prompt, ids)

    member.model = recorded


async def test_a_step_is_one_exchange_and_more_only_where_lists_do_not_decide() -> None:
    members, _ = trio()
    answer = await eva(members, listed=64).answer(Request.of(Q, max_tokens=12))
    steps = answer.usage["m"].completion_tokens
    assert [m.exchanges for m in members] == [steps] * 3 and steps > 3
    members, _ = trio()
    await eva(members, listed=1, drop=0).answer(Request.of(Q, max_tokens=12))
    assert members[0].exchanges == steps < members[1].exchanges


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_draws_come_from_the_mean(seed: int) -> None:
    members, dense = trio()
    request = Request.of(Q, max_tokens=8, temperature=0.9, top_p=0.9, seed=seed)
    vocabulary, answer = members[0].tokeniser.vocabulary, b""
    for position in range(8):
        rows = [np.exp(m.after(Q.encode() + answer)) for m in members]
        mean = (rows[0] + rows[1] @ dense[1] + rows[2] @ dense[2]) / 3
        masses: dict[bytes, float] = {}
        for i in np.flatnonzero(vocabulary.writable):
            masses[vocabulary.tokens[i]] = masses.get(vocabulary.tokens[i], 0.0) + float(mean[i])
        strings = sorted(s for s in masses if masses[s] > 0)
        string = strings[draw(np.log([masses[s] for s in strings]), request.sampling, position)]
        if not string:
            break
        answer += string
    assert (await eva(members, drop=0).answer(request)).text == shown(answer)


async def test_credits_name_those_that_were_heard() -> None:
    answer = await eva(example(), drop=2).answer(Request.of("?", max_tokens=1))
    [(text, credits)] = answer.choices[0].credits
    assert text == "w" and credits == pytest.approx({"a": 5 / 9, "b": 4 / 9})


async def test_a_helper_without_a_counterpart_for_anything_is_dropped() -> None:
    pivot, helper = table("p", FOUR, [[0.1, 0.6, 0.2, 0.1, 0]]), table("h", (b"1", b"2"), [[0.7, 0.3]])
    projecting(helper, np.zeros((2, 5)), pivot)
    answer = await eva([pivot, helper]).answer(Request.of("?", max_tokens=1))
    assert answer.text == "x" and answer.choices[0].credits == (("x", {"p": 1.0}),)


async def test_the_filter_can_silence_the_one_that_is_sure() -> None:
    sure, unsure = [0.94, 0.03, 0.02, 0.01, 0], [0.01, 0.30, 0.29, 0.28, 0.12]
    for drop, text in ((0, "w"), (2, "x")):
        pivot, helper = table("p", FOUR, [sure]), table("h", FOUR, [unsure])
        projecting(helper, np.eye(5), pivot)
        assert (await eva([pivot, helper], drop=drop).answer(Request.of("?", max_tokens=1))).text == text


def tinies() -> list[TinyMember]:
    members = [TinyMember(name, seed) for seed, name in enumerate("abc")]
    for member in members[1:]:
        projecting(member, np.eye(256), members[0])
    return members


async def test_a_helper_that_is_lost_leaves_the_others_to_go_on() -> None:
    request, options = Request.of(Q, max_tokens=40), {"pivot": "a", "heads": {"c": "eva"}}
    whole, members = await eva(tinies()).answer(request), tinies()
    members[2]._fail_at = 6
    ensemble = Ensemble("e", "eva", members, options=options, policy=Policy(on_loss="degrade"))
    answer = await ensemble.answer(request)
    assert answer.text[:6] == whole.text[:6] and len(answer.text) > 6
    assert {name for _, credits in answer.choices[0].credits[-3:] for name in credits} <= {"a", "b"}


async def test_nobody_goes_on_without_the_pivot() -> None:
    members = [*trio()[0], TinyMember("t", 1)]
    projecting(members[3], np.full((256, len(MERGED)), 1 / len(MERGED)), members[0])
    members[0]._fail_at = 3
    with pytest.raises(MemberLost):
        await Ensemble("e", "eva", members, policy=Policy(on_loss="degrade")).answer(Request.of(Q, max_tokens=12))


async def test_control_ids_are_never_elected() -> None:
    tokens = (CONTROL, b"x", b"")
    pivot, helper = (table(n, tokens, [[0.9, 0.06, 0.04]]) for n in "ph")
    projecting(helper, np.eye(3), pivot)
    answer = await eva([pivot, helper]).answer(Request.of("?", max_tokens=2))
    assert answer.text == "xx"
    silent = [table(n, tokens, [[1.0, 0, 0]]) for n in "ph"]
    projecting(silent[1], np.eye(3), silent[0])
    for temperature in (0.0, 1.0):
        with pytest.raises(BadAnswer):
            await eva(silent).answer(Request.of("?", max_tokens=2, temperature=temperature))


async def test_characters_in_pieces_survive() -> None:
    e, acute = b"\xc3", b"\xa9"
    pivot = table("p", (e, acute, b"\xc3\xa9", b""), [[0.9, 0, 0, 0.1], [0, 1, 0, 0], [0, 0, 0, 1]])
    helper = table("h", (b"\xc3\xa9", e, acute, b""), [[0.2, 0.7, 0, 0.1], [0, 0, 1, 0], [0, 0, 0, 1]])
    projecting(helper, np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]), pivot)
    answer = await eva([pivot, helper]).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("é", "stop")
    streamed = [delta.text async for delta in _deltas(eva([pivot, helper]))]
    assert streamed == ["é"]


async def _deltas(ensemble):  # type: ignore[no-untyped-def]
    for delta in deltas([event async for event in ensemble.generate(Request.of("?"))]):
        yield delta


def test_helpers_need_a_projection() -> None:
    members = example()[:2]
    members[1].card = members[0].card.__class__(**{**_fields(members[1]), "heads": {}})
    with pytest.raises(MissingCapability, match="method eva needs a head 'eva' of kind projection at b; its heads: no"):
        eva(members)
    assert eva(members, weights=[1, 0]) is not None, "a member that is never called needs none"


def _fields(member: LocalMember) -> dict[str, object]:
    return {name: getattr(member.card, name) for name in type(member.card).__dataclass_fields__}


def test_heads_can_have_other_names() -> None:
    members = example()
    projecting(members[1], np.eye(5), members[0], name="into-a")
    eva(members, heads={"b": "into-a"})
    with pytest.raises(MissingCapability, match="'nope'"):
        eva(members, heads={"b": "nope"})
    with pytest.raises(MissingCapability, match="'into-a' of kind projection at c"):
        eva(members, head="into-a")
    with pytest.raises(ConfigurationError, match="heads names 'x', which is no member; members: a, b, c") as refused:
        eva(members, heads={"x": "eva"})
    assert refused.value.param == "heads"


def test_a_projection_for_another_pivot_is_refused() -> None:
    members, _ = trio()
    projecting(members[0], np.zeros((len(MERGED), len(MERGED))), members[0])
    with pytest.raises(ConfigurationError, match="head 'eva' of m projects into another vocabulary than that of s"):
        eva(members, pivot="s")


async def test_what_is_only_known_when_it_answers_is_refused_then() -> None:
    members = example()
    members[0].card = type(members[0].card)(**{**_fields(members[0]), "vocabulary": ""})
    projecting(members[1], np.eye(5, 7), members[0])
    with pytest.raises(ConfigurationError, match="7 outcomes, the pivot's vocabulary has 5 tokens"):
        await eva(members).answer(Request.of("?", max_tokens=1))
    members = example()
    projecting(members[1], 2 * np.eye(5), members[0])
    with pytest.raises(ConfigurationError, match=r"2\.000 out of a mass of 1.*fidelity: reference") as refused:
        await eva(members).answer(Request.of("?", max_tokens=1))
    assert refused.value.param == "fidelity"
    assert (await eva(members[:2], fidelity="reference").answer(Request.of("?", max_tokens=1))).text == "w"


@pytest.mark.parametrize(
    ("options", "param", "said"),
    [
        ({"pivot": "x"}, "pivot", "pivot 'x' is no member; members: a, b, c"),
        ({"weights": [0, 1, 1]}, "weights", "the pivot a writes, so its weight must be above 0"),
        ({"weights": [1, 1]}, "weights", "one number for each of the 3 members"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], param: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        eva(example(), **options)
    assert refused.value.param == param


def test_longer_lists_than_heads_project_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"topk.*less than or equal to 320"):
        eva(example(), topk=321)
