"""DeePEn's worked example, its invariants, and equality with the plain rule over whole vocabularies."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from head_toys import deepen, relatives, representing, searched_greedy
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, shown, table

from ensemble.distributions import log_softmax
from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer, BadRequest, ConfigurationError, MissingCapability
from ensemble.failures.policy import Policy
from ensemble.fitting.deepen import DeepenFit, relative
from ensemble.member import Capability, Floats
from ensemble.method import build
from ensemble.request import Request
from ensemble.testing import LocalMember, TinyMember

Q = "ab"
TEN = DeepenFit(temperature=10)
TOKENS = (MERGED, SINGLE, WORDS)


def example() -> list[LocalMember]:
    main = table("main", (b"p", b"q", b"r"), [np.exp(log_softmax(np.array([1.0, 1.2, 0.9])))])
    helper = table("helper", (b"p", b"r", b"s", b"t"), [np.exp(log_softmax(np.array([0.2, 2.0, 0.5, -1.0])))])
    representing(main, relative(np.array([[1, 0], [0.8, 0.6], [0, 1]]), np.array([0, 2], np.int32), TEN))
    vectors = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.8], [-1, 0.2]])
    representing(helper, relative(vectors, np.array([0, 1], np.int32), TEN))
    return [main, helper]


@pytest.mark.parametrize("topk", [1, 2, 20])
async def test_worked_example(topk: int) -> None:
    request = Request.of("?", max_tokens=1, logprobs=3)
    [token] = (await deepen(example(), fidelity="reference", topk=topk).answer(request)).choices[0].tokens
    found = dict(token.top)
    expected = log_softmax(np.array([0.370663, 0.560620, 1.520659]))
    assert token.token == b"r"
    assert [found[text] for text in (b"p", b"q", b"r")] == pytest.approx(expected.tolist(), abs=2e-6)
    assert (await deepen(example(), topk=topk).answer(Request.of("?", max_tokens=1))).text == "r"
    assert (await deepen(example(), fidelity="reference", steps=1).answer(Request.of("?", max_tokens=1))).text == "r"


async def test_worked_example_of_too_large_a_step() -> None:
    for fidelity in ("fixed", "reference"):
        ensemble = deepen(example(), step=0.3, fidelity=fidelity)
        assert (await ensemble.answer(Request.of("?", max_tokens=1))).text == "r"


def trio(seed: int = 0, **options: float) -> tuple[list[Toy], list[Floats]]:
    members = [Toy(n, t, seed + i + 1, **options) for i, (n, t) in enumerate(zip("msw", TOKENS, strict=True))]
    rows = relatives(members, seed)
    for member, matrix in zip(members, rows, strict=True):
        representing(member, matrix)
    return members, rows


@pytest.mark.parametrize("main", [0, 1, 2])
@pytest.mark.parametrize(("topk", "weights"), [(1, (1, 1, 1)), (3, (0.5, 0.2, 0.3)), (20, (1, 2, 4))])
async def test_lists_of_any_length_give_the_plain_rule(main: int, topk: int, weights: tuple[float, ...]) -> None:
    members, rows = trio(sharpness=1.0)
    shares = [w / sum(weights) for w in weights]
    ensemble = deepen(members, main="msw"[main], topk=topk, weights=weights, step=0.5)
    plain = searched_greedy(members, rows, shares, Q.encode(), 20, main=main, rate=0.5)
    answer = await ensemble.answer(Request.of(Q, max_tokens=20))
    assert answer.text == shown(plain) and len(answer.text) > 3
    alone = searched_greedy(members, rows, np.eye(3)[main], Q.encode(), 20, main=main)
    assert plain != alone, "the others were heard"


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.01, 1.0), st.integers(1, 8))
@settings(max_examples=15, deadline=None)
async def test_random_members_give_the_plain_rule(seed: int, topk: int, rate: float, turns: int) -> None:
    members, rows = trio(seed, sharpness=1.0, stop=0)
    answer = await deepen(members, topk=topk, step=rate, steps=turns).answer(Request.of(Q, max_tokens=6))
    assert answer.text == shown(searched_greedy(members, rows, [1 / 3] * 3, Q.encode(), 6, rate=rate, turns=turns))


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
@given(seed=st.integers(0, 1000), rate=st.floats(0.01, 1.0), topk=st.integers(1, 300))
@settings(max_examples=8, deadline=None)
async def test_copies_of_a_member_write_its_greedy_text(fidelity: str, seed: int, rate: float, topk: int) -> None:
    request = Request.of("hello", max_tokens=15)
    alone = await TinyMember("a", seed).answer(request)
    copies = [TinyMember(name, seed) for name in "abc"]
    [rows] = relatives(copies[:1], seed)
    for copy in copies:
        representing(copy, rows)
    together = await deepen(copies, fidelity=fidelity, step=rate, topk=topk).answer(request)
    assert (together.text, together.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)


@pytest.mark.parametrize("main", [0, 1, 2])
@pytest.mark.parametrize("options", [{"step": 0}, {"weights": True}])
async def test_the_main_member_alone(main: int, options: dict[str, object]) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2), TinyMember("c", 3)]
    for member, rows in zip(members, relatives(members), strict=True):
        representing(member, rows)
    if "weights" in options:
        options = {"weights": [float(i == main) for i in range(3)]}
    request = Request.of("hi", max_tokens=15)
    answer = await deepen(members, main="abc"[main], **options).answer(request)
    assert answer.text == (await TinyMember("x", main + 1).answer(request)).text
    assert [m.exchanges for i, m in enumerate(members) if i != main] == [0, 0]
    assert set(answer.usage) == {"abc"[main]}


async def test_order_of_helpers_does_not_matter_and_the_main_member_does() -> None:
    request, texts = Request.of(Q, max_tokens=20), set()
    for order in permutations(range(3)):
        members, _ = trio(sharpness=1.0)
        weights = [(3, 1, 2)[i] for i in order]
        texts.add((await deepen([members[i] for i in order], main="m", weights=weights).answer(request)).text)
    assert len(texts) == 1 and texts != {""}
    members, _ = trio(sharpness=1.0)
    assert (await deepen(members, main="s", weights=[3, 1, 2]).answer(request)).text not in texts


async def test_order_of_anchors_does_not_matter() -> None:
    request, texts = Request.of(Q, max_tokens=15), set()
    for seed in range(3):
        members, rows = trio(sharpness=1.0)
        order = np.random.default_rng(seed).permutation(rows[0].shape[1])
        for member, matrix in zip(members, rows, strict=True):
            representing(member, matrix[:, order])
        texts.add((await deepen(members).answer(request)).text)
    assert len(texts) == 1 and texts != {""}


async def test_the_answer_ends_where_the_main_member_would_end_it() -> None:
    tokens = (b"x", b"y", b"")
    main, helper = table("m", tokens, [[0.3, 0.3, 0.4]]), table("h", tokens, [[0.9, 0.1, 0.0]])
    rows = relatives([main, helper])
    for member, matrix in zip((main, helper), rows, strict=True):
        representing(member, matrix)
    answer = await deepen([main, helper], step=5.0).answer(Request.of("?", max_tokens=4))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")
    assert (await deepen([main, helper], step=5.0, main="h").answer(Request.of("?", max_tokens=1))).text == "x"


async def test_a_step_is_two_exchanges_with_the_main_member_and_one_with_others() -> None:
    members, _ = trio()
    answer = await deepen(members).answer(Request.of(Q, max_tokens=10))
    steps = answer.usage["s"].completion_tokens
    assert [m.exchanges for m in members] == [2 * steps, steps, steps] and steps > 3


async def test_each_member_commits_its_own_ids() -> None:
    main = table("main", (b"a", b"cat", b""), [[0.05, 0.9, 0.05], [0.9, 0.05, 0.05]])
    helper = table("helper", (b"cat", b"a", b""), [[0.9, 0.05, 0.05]])
    speller = table("speller", (b"t", b"a", b"c", b""), [[0.25] * 4])
    members, seen = [main, helper, speller], {}
    for member, rows in zip(members, relatives(members), strict=True):
        representing(member, rows)
        _record(member, seen)
    answer = await deepen(members, weights=[8, 1, 1]).answer(Request.of("?", max_tokens=2))
    assert answer.text == "cata"
    assert seen == {"main": [1], "helper": [0], "speller": [2, 1, 0]}


def _record(member: LocalMember, seen: dict[str, list[int]]) -> None:
    model = member.model

    def recorded(prompt: list[int], ids: list[int]) -> Floats:
        seen[member.name] = list(ids)
        return model(prompt, ids)

    member.model = recorded


NUMBERS = (b"1", b"2", b"x", b"")


def voters(*rows: list[float], tokens: tuple[bytes, ...] = NUMBERS) -> list[LocalMember]:
    members = [table(f"m{i}", tokens, [row]) for i, row in enumerate(rows)]
    for member, matrix in zip(members, relatives(members), strict=True):
        representing(member, matrix)
    return members


ONE, TWO, LETTER = [0.9, 0.05, 0.03, 0.02], [0.05, 0.9, 0.03, 0.02], [0.2, 0.1, 0.68, 0.02]


@pytest.mark.parametrize(
    ("rows", "text", "credits"),
    [
        ((ONE, TWO, TWO), "2", {"m1": 0.5, "m2": 0.5}),
        ((ONE, TWO), "1", {"m0": 1.0}),
        ((ONE, TWO, LETTER), "1", {"m0": 1.0}),
        ((TWO, ONE, ONE, TWO, TWO), "2", {"m0": 1 / 3, "m3": 1 / 3, "m4": 1 / 3}),
    ],
)
async def test_digits_are_voted_on(rows: tuple[list[float], ...], text: str, credits: dict[str, float]) -> None:
    members = voters(*rows)
    answer = await deepen(members, digits=True).answer(Request.of("?", max_tokens=1))
    assert answer.text == text and answer.choices[0].credits == ((text, pytest.approx(credits)),)
    assert [m.exchanges for m in members] == [1] * len(rows), "a vote needs nothing more"


@pytest.mark.parametrize("rows", [(LETTER, ONE, ONE), (ONE, LETTER, LETTER)])
async def test_only_digits_are_voted_on(rows: tuple[list[float], ...]) -> None:
    request = Request.of("?", max_tokens=1, logprobs=4)
    voted, plain = [await deepen(voters(*rows), digits=digits).answer(request) for digits in (True, False)]
    assert voted.choices[0].tokens == plain.choices[0].tokens


async def test_a_vote_knows_texts_not_ids() -> None:
    a, b, c = (table(n, t, [p]) for n, t, p in (("a", NUMBERS, ONE), ("b", NUMBERS[::-1], ONE[::-1]), *_third()))
    members, seen = [a, b, c], {}
    for member, matrix in zip(members, relatives(members), strict=True):
        representing(member, matrix)
        _record(member, seen)
    answer = await deepen(members, digits=True).answer(Request.of("?", max_tokens=2))
    assert answer.text == "11" and seen == {"a": [0], "b": [3], "c": [1]}


def _third() -> list[tuple[str, tuple[bytes, ...], list[float]]]:
    return [("c", (b"2", b"1", b"1", b"x", b""), [0.8, 0.05, 0.1, 0.03, 0.02])]


@pytest.mark.parametrize("seed", [1, 2])
async def test_draws_are_reproducible_and_of_what_was_found(seed: int) -> None:
    request = Request.of(Q, max_tokens=12, temperature=1.5, seed=seed)
    texts = [(await deepen(trio()[0]).answer(request)).text for _ in range(2)]
    assert texts[0] == texts[1] != (await deepen(trio()[0]).answer(Request.of(Q, max_tokens=12))).text
    counts = dict.fromkeys("pqr", 0)
    for draw in range(300):
        told = Request.of("?", max_tokens=1, temperature=1.0, seed=draw)
        counts[(await deepen(example(), fidelity="reference").answer(told)).text] += 1
    chances = np.exp(log_softmax(np.array([0.370663, 0.560620, 1.520659])))
    assert [counts[c] / 300 for c in "pqr"] == pytest.approx(chances.tolist(), abs=0.1)


def tinies() -> list[TinyMember]:
    members = [TinyMember(name, seed) for seed, name in enumerate("abc")]
    for member, rows in zip(members, relatives(members), strict=True):
        representing(member, rows)
    return members


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize("at", [6, 7])
async def test_a_member_that_is_lost_leaves_the_others_to_go_on(lost: int, at: int) -> None:
    request, options = Request.of(Q, max_tokens=40), {"main": "a", "heads": {"a": "deepen", "c": "deepen"}}
    whole, members = await deepen(tinies(), weights=[1, 2, 3]).answer(request), tinies()
    members[lost]._fail_at = at
    options = {**options, "weights": [1, 2, 3]}
    answer = await Ensemble("e", "deepen", members, options=options, policy=Policy(on_loss="degrade")).answer(request)
    kept = at // 2 if lost == 0 else at
    assert answer.text[:kept] == whole.text[:kept] and len(answer.text) > kept


async def test_control_ids_are_never_elected() -> None:
    tokens = (CONTROL, b"x", b"y", b"")
    for topk in (1, 20):
        members = voters([0.9, 0.06, 0.02, 0.02], [0.9, 0.06, 0.02, 0.02], tokens=tokens)
        assert (await deepen(members, topk=topk).answer(Request.of("?", max_tokens=2))).text == "xx"
    silent = voters([1.0, 0, 0, 0], [1.0, 0, 0, 0], tokens=tokens)
    for temperature in (0.0, 1.0):
        with pytest.raises(BadAnswer):
            await deepen(silent, topk=1).answer(Request.of("?", max_tokens=2, temperature=temperature))


def test_every_member_needs_its_head_and_all_of_one_fit() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2)]
    with pytest.raises(MissingCapability, match="method deepen needs a head 'deepen' of kind relative at a"):
        deepen(members)
    for member, matrix in zip(members, relatives(members), strict=True):
        representing(member, matrix, space=member.name)
    with pytest.raises(ConfigurationError, match="the heads of a and b have different anchors"):
        deepen(members)
    representing(members[1], np.ones((256, 3)), space="a", name="other")
    deepen(members, heads={"b": "other"})


async def test_heads_of_other_sizes_are_refused_when_they_answer() -> None:
    members = voters(ONE, TWO)
    representing(members[1], np.full((4, 5), 0.2))
    with pytest.raises(ConfigurationError, match="the heads of m0 and m1 differ in anchors"):
        await deepen(members).answer(Request.of("?", max_tokens=1))


def test_draws_need_full_distributions_of_the_main_member() -> None:
    some = frozenset({Capability.GENERATE, Capability.SESSIONS})
    members = [table("a", NUMBERS, [ONE], capabilities=some), table("b", NUMBERS, [TWO])]
    for member, matrix in zip(members, relatives(members), strict=True):
        representing(member, matrix)
    request = Request.of("?", temperature=1.0)
    cards = [member.card for member in members]
    build("deepen", {"main": "b"}).admit(request, cards)
    with pytest.raises(BadRequest, match=r"temperature must be 0.*a does not give them"):
        build("deepen", {}).admit(request, cards)


@pytest.mark.parametrize(
    ("options", "param", "said"),
    [
        ({"main": "x"}, "main", "main 'x' is no member; members: m0, m1"),
        ({"weights": [0, 1]}, "weights", "the main m0 writes, so its weight must be above 0"),
        ({"weights": [1]}, "weights", "one number for each of the 2 members"),
        ({"heads": {"x": "y"}}, "heads", "heads names 'x', which is no member; members: m0, m1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], param: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        deepen(voters(ONE, TWO), **options)
    assert refused.value.param == param
