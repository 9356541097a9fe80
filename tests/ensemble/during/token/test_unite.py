"""UniTE's invariants, its worked example, look-ups and first sub-tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, greedy, mean, shown, table, trio, unite

from ensemble.distributions import likeliest, log_softmax
from ensemble.during.token.election.beginnings import Beginnings
from ensemble.during.token.election.strings import certain, leader, nominated, shares_within, spelling
from ensemble.errors import BadAnswer, ConfigurationError
from ensemble.member import Distribution, Floats
from ensemble.request import Request, Sampling
from ensemble.testing import LocalMember, TinyMember
from ensemble.vocabulary import Ids, Union, Vocabulary

Q = "ab"
STRINGS = [b" London", b" Par", b" Paris"]
LOGITS_A = np.array([4.2, -1.0, 5.0])
LOGITS_B = np.array([3.6, 3.0, 3.0])
A_TOKENS = (b" Paris", b" London", b" Rome", b" the", b"P", b" ", b"a", b"r", b"")
B_TOKENS = (b" London", b" Par", b" Rome", b" the", b"is", b"")
WORKED = {
    "keep": ([0.476730, 0.261635, 0.261635], [0.393113, 0.131671, 0.475216], " Paris"),
    "reference": ([0.634463, 0.348201, 0.017336], [0.471980, 0.174954, 0.353066], " London"),
    "mask": ([0.645656, 0.354344, 0.0], [0.477576, 0.178026, 0.344398], " London"),
}


def worked_members() -> list[LocalMember]:
    a = log_softmax(np.array([5.0, 4.2, 1.0, 0.5, -1.0, -20, -20, -20, -20]))
    b = log_softmax(np.array([3.6, 3.0, 2.5, 2.0, 0.1, -20]))
    return [table("A", A_TOKENS, [np.exp(a)]), table("B", B_TOKENS, [np.exp(b)])]


@pytest.mark.parametrize("duplicates", WORKED)
def test_worked_example_from_logits(duplicates: str) -> None:
    spelt = spelling(STRINGS, [(0,), (1,), ()], {b" Paris": 1})
    assert spelt.ids == ((0,), (1,), (1,)) and spelt.duplicate.tolist() == [False, False, True]
    p_a = shares_within(LOGITS_A, np.zeros(3, bool), duplicates)  # type: ignore[arg-type]
    p_b = shares_within(LOGITS_B, spelt.duplicate, duplicates)  # type: ignore[arg-type]
    expected_b, expected_mean, winner = WORKED[duplicates]
    assert p_a.round(6).tolist() == [0.309496, 0.001707, 0.688796]
    assert p_b.round(6).tolist() == expected_b
    assert ((p_a + p_b) / 2).round(6).tolist() == pytest.approx(expected_mean, abs=1.1e-6)
    assert STRINGS[int(np.argmax(p_a + p_b))].decode() == winner


@pytest.mark.parametrize("duplicates", ["keep", "mask"])
async def test_worked_example_from_members(duplicates: str) -> None:
    ensemble = unite(worked_members(), topk=2, duplicates=duplicates, fidelity="reference")
    [token] = (await ensemble.answer(Request.of("?", max_tokens=1, logprobs=3))).choices[0].tokens
    _, expected, winner = WORKED[duplicates]
    assert token.token.decode() == winner
    found = {s: float(np.exp(p)) for s, p in token.top}
    assert [found[s] for s in STRINGS] == pytest.approx(expected, abs=2e-6)


def test_log_probabilities_serve_as_well_as_logits() -> None:
    duplicate = np.array([False, False, True])
    for how in ("keep", "mask", "reference"):
        shifted = shares_within(LOGITS_B - 7.5, duplicate, how, zero=-7.5)  # type: ignore[arg-type]
        np.testing.assert_allclose(shifted, shares_within(LOGITS_B, duplicate, how))  # type: ignore[arg-type]


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20), st.data())
def test_shares_sum_to_one(scores: list[float], data: st.DataObject) -> None:
    duplicate = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    for how in ("keep", "mask", "reference"):
        shares = shares_within(np.array(scores), duplicate, how, zero=-3.0)  # type: ignore[arg-type]
        assert shares.sum() == pytest.approx(0 if how == "mask" and duplicate.all() else 1)
        assert (shares >= 0).all()


def test_a_member_that_spells_none_of_the_strings_has_no_say() -> None:
    assert shares_within(np.full(3, -np.inf), np.zeros(3, bool), "keep").tolist() == [0, 0, 0]


def test_own_ids_take_precedence_over_first_sub_tokens() -> None:
    spelt = spelling([b"A", b"AB", b"B", b"ZZ"], [(), (), (3,), ()], {b"A": 3, b"AB": 5})
    assert spelt.ids == ((3,), (5,), (3,), ()) and spelt.duplicate.tolist() == [True, False, False, False]


@given(st.integers(0, 10_000), st.integers(1, 7))
def test_the_union_has_between_k_and_mk_strings(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vocabularies = [Toy("s", SINGLE, 0).tokeniser.vocabulary, Toy("t", (*SINGLE, b"ab", b"ca"), 0).tokeniser.vocabulary]
    listed = [likeliest(log_softmax(rng.normal(size=v.size)), k + 2) for v in vocabularies]
    classes = nominated(Union(vocabularies), listed, k)
    assert k <= len(classes) <= 2 * k and (np.diff(classes) > 0).all()


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 6), st.sampled_from([0.0, 0.01, 0.3]))
def test_a_clear_column_wins_whatever_is_missing(seed: int, members: int, strings: int, unknown: float) -> None:
    rng = np.random.default_rng(seed)
    masses = rng.dirichlet(np.full(strings, 0.4), members) * (rng.random((members, strings)) < 0.9)
    missing = unknown * rng.random((members, strings)) * (rng.random((members, strings)) < 0.5)
    weights = rng.dirichlet(np.ones(members))
    column = certain(masses, missing, weights)
    for _ in range(20 if column is not None else 0):
        real = masses + missing * rng.choice([0.0, 0.5, 1.0], missing.shape)
        assert int((weights @ (real / real.sum(axis=1, keepdims=True))).argmax()) == column


PEAKED = [[0.5, 0.3, 0.1, 0.05, 0.03, 0.02], [0.1, 0.8, 0.05, 0.03, 0.01, 0.01]]


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 4), st.floats(0.2, 4))
def test_a_leader_wins_whatever_look_ups_add(seed: int, members: int, topk: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    letters = [bytes([65 + i]) for i in range(9)]
    vocabularies = [
        Vocabulary((*rng.choice(letters, 5).tolist(), CONTROL, b""), frozenset({6})) for _ in range(members)
    ]
    union, weights = Union(vocabularies), rng.dirichlet(np.ones(members))
    listed = [likeliest(log_softmax(spread * rng.normal(size=7)), topk + 1) for _ in vocabularies]
    class_ = leader(union, listed, weights.tolist(), topk)
    classes = nominated(union, listed, topk)
    for _ in range(10 if class_ is not None else 0):
        real = np.stack([scores(union, m, told, classes, topk, rng) for m, told in enumerate(listed)])
        assert classes[(weights @ (real / real.sum(axis=1, keepdims=True))).argmax()] == class_


def scores(union: Union, member: int, told: Distribution, classes: Ids, topk: int, rng: np.random.Generator) -> Floats:
    """What a member may hold of each string: what it has listed, and anything that is left for what it has not."""
    masses = dict(zip(told.ids[:topk].tolist(), told.probabilities[:topk].tolist(), strict=True))
    least, left = min(masses.values()), max(0.0, 1 - sum(masses.values()))
    found = np.zeros(len(classes))
    for place, class_ in enumerate(classes.tolist()):
        ids = union.ids(member, class_) or (-1 - place,)
        for unknown in [i for i in ids if i not in masses]:
            masses[unknown] = min(left, least) * rng.choice([0.0, 0.5, 1.0])
            left -= masses[unknown]
        found[place] = sum(masses[i] for i in ids)
    return found


def test_members_of_different_favourites_may_have_a_leader() -> None:
    vocabularies = [Vocabulary((b"a", b"b", b"c", b"d", b"e", b"")), Vocabulary((b"a", b"b", b"x", b"y", b"z", b""))]
    union, listed = Union(vocabularies), [likeliest(np.log(row), 4) for row in PEAKED]
    assert union.bytes_of(leader(union, listed, [0.5, 0.5], 4) or 0) == b"b"
    assert leader(union, listed, [0.5, 0.5], 1) is None, "what one nominates the other may hold nearly as likely"
    assert leader(union, listed, [0.75, 0.25], 4) is None, "0.4 and 0.425 are too close for what is not listed"


async def test_a_leader_takes_no_look_ups_and_no_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    a = table("a", (b"x", b"y", b"xz", b"q", b""), [[0.5, 0.4, 0.05, 0.05, 0.0]])
    b = table("b", (b"x", b"y", b"yy", b"r", b""), [[0.1, 0.8, 0.05, 0.05, 0.0]])
    for member in (a, b):
        monkeypatch.setattr(member, "tokenise", None)
    answer = await unite([a, b], topk=3).answer(Request.of("?", max_tokens=1))
    assert answer.text == "y"
    ((_, credits),) = answer.choices[0].credits
    assert credits == pytest.approx({"a": 1 / 3, "b": 2 / 3})


@given(st.integers(0, 2**16), st.integers(1, 6), st.sampled_from(["keep", "mask"]))
async def test_lists_of_any_length_elect_what_look_ups_elect(seed: int, listed: int, duplicates: str) -> None:
    def members() -> list[Toy]:
        return [
            Toy(name, tokens, seed + i)
            for i, (name, tokens) in enumerate(zip("msw", (MERGED, SINGLE, WORDS), strict=True))
        ]

    request = Request.of(Q, max_tokens=10)
    short = await unite(members(), topk=3, listed=listed, duplicates=duplicates).answer(request)
    whole = await unite(members(), topk=3, listed=64, duplicates=duplicates).answer(request)
    looked_up = replace(request, sampling=Sampling(max_tokens=10, logprobs=0))
    reported = await unite(members(), topk=3, listed=3, duplicates=duplicates).answer(looked_up)
    assert short.text == whole.text == reported.text


@pytest.mark.parametrize(("topk", "listed"), [(1, 1), (3, 64), (10, 10)])
async def test_copies_of_a_member_write_its_greedy_text(topk: int, listed: int) -> None:
    request = Request.of("hello", max_tokens=20)
    alone = await TinyMember("a", 5).answer(request)
    answer = await unite([TinyMember(name, 5) for name in "abc"], topk=topk, listed=listed).answer(request)
    assert (answer.text, answer.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)


@pytest.mark.parametrize("seat", [0, 1])
async def test_all_weight_on_one_member_gives_its_text_and_leaves_the_other_alone(seat: int) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2)]
    request = Request.of("hi", max_tokens=15)
    answer = await unite(members, weights=[1 - seat, seat], topk=4).answer(request)
    assert answer.text == (await TinyMember("x", seat + 1).answer(request)).text
    assert members[1 - seat].exchanges == 0


async def test_whole_vocabularies_that_are_equal_give_the_plain_average() -> None:
    tokens = tuple(token for token in MERGED if token != CONTROL)
    members = [Toy(name, tokens, seed) for seed, name in enumerate("abc")]
    choice = (await unite(members, topk=len(tokens)).answer(Request.of(Q, max_tokens=20, logprobs=0))).choices[0]
    text = greedy(members, [1 / 3] * 3, Q.encode(), 20)
    assert choice.text == shown(text) and len(text) > 3
    first = mean(members, [1 / 3] * 3, Q.encode())
    assert np.exp(choice.tokens[0].logprob) == pytest.approx(max(first.values()), abs=1e-12)


@pytest.mark.parametrize("duplicates", ["keep", "mask", "reference"])
async def test_swapping_members_of_equal_weight_changes_nothing(duplicates: str) -> None:
    request = Request.of(Q, max_tokens=20)
    members = trio()[:2]
    one = (await unite(members, topk=3, duplicates=duplicates).answer(request)).text
    other = (await unite(members[::-1], topk=3, duplicates=duplicates).answer(request)).text
    assert one == other != ""


async def test_the_stop_class_is_elected_like_any_string() -> None:
    # x leads each single id, but a's two stop ids and b's one are one string: .5 · (.55 + .6) against .5 · (.45 + .4).
    a = table("a", (b"x", b"", b""), [[0.45, 0.30, 0.25]])
    b = table("b", (b"x", b""), [[0.40, 0.60]])
    answer = await unite([a, b], topk=1).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")


async def test_a_member_without_stop_ids_can_be_outvoted() -> None:
    a = table("a", (b"x",), [[1.0]])
    b = table("b", (b"x", b""), [[0.1, 0.9]])
    answer = await unite([a, b], weights=[1, 3]).answer(Request.of("?", max_tokens=4))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")


async def test_only_what_is_not_listed_is_looked_up() -> None:
    a = table("a", (b"x", b"y", b"z", b""), [[0.5, 0.3, 0.15, 0.05]])
    b = table("b", (b"x", b"y", b"z", b""), [[0.4, 0.2, 0.3, 0.1]])
    asked: list[tuple[str, object]] = []
    for member in (a, b):
        _spy(member, asked)
    texts = [
        (await unite([a, b], topk=2, listed=listed).answer(Request.of("?", max_tokens=1, logprobs=3))).choices[0]
        for listed in (2, 3)
    ]
    assert (a.exchanges, b.exchanges) == (3, 3)
    assert asked == [("a", (2,)), ("b", (1,))] and texts[0] == texts[1]


def _spy(member: LocalMember, asked: list[tuple[str, object]]) -> None:
    start = member.start

    async def spied(request: Request) -> object:
        session = await start(request)
        answered = session._answered

        def noted(question: object) -> object:
            if type(question).__name__ == "LogprobsAt":
                asked.append((member.name, question.ids))
            return answered(question)

        session._answered = noted
        return session

    member.start = spied


async def test_what_is_elected_is_committed_whole() -> None:
    request = Request.of("?", max_tokens=1)
    fixed = await unite([_speller("main", 0.1), _word()], weights=[1, 9], topk=1).answer(request)
    assert fixed.text == "cat"


async def test_reference_advances_the_main_member_by_the_sub_token() -> None:
    main, helper = _speller("main", 0.1), _word()
    seen: dict[str, list[int]] = {}
    for member in (main, helper):
        _record(member, seen)
    answer = await unite([main, helper], weights=[1, 9], topk=1, fidelity="reference").answer(
        Request.of("?", max_tokens=2)
    )
    assert answer.text.startswith("c") and answer.text != "cat"
    assert seen == {"main": [0], "helper": [1]}


def _speller(name: str, x: float) -> LocalMember:
    return table(name, (b"c", b"a", b"t", b"x", b""), [[0.5, 0.2, 0.1, x, 0.1]])


def _word() -> LocalMember:
    return table("helper", (b"cat", b"c", b"a", b"t", b""), [[0.9, 0.04, 0.02, 0.02, 0.02], [0.1, 0.1, 0.6, 0.1, 0.1]])


def _record(member: LocalMember, seen: dict[str, list[int]]) -> None:
    model = member.model

    def recorded(prompt: list[int], ids: list[int]) -> Floats:
        seen[member.name] = list(ids)
        return model(prompt, ids)

    member.model = recorded


async def test_reference_passes_over_a_lone_blank() -> None:
    main = table("main", (b" ", b"c", b"x", b""), [[0.05, 0.15, 0.7, 0.1]])
    helper = table("helper", (b" c", b"c", b" ", b""), [[0.97, 0.01, 0.01, 0.01]])
    request = Request.of("?", max_tokens=1)
    options = {"weights": [1, 9], "topk": 1}
    assert (await unite([main, helper], **options).answer(request)).text == " c"
    assert (await unite([main, helper], **options, fidelity="reference").answer(request)).text == "c"


def test_reference_needs_its_main_member() -> None:
    with pytest.raises(ConfigurationError, match="first member") as refused:
        unite(trio(), weights=[0, 1, 1], fidelity="reference")
    assert refused.value.param == "weights"


@pytest.mark.parametrize("seed", [1, 2])
async def test_draws_come_from_the_union(seed: int) -> None:
    async def text() -> str:
        request = Request.of(Q, max_tokens=12, temperature=1.2, seed=seed)
        return (await unite(trio(), topk=4).answer(request)).text

    assert await text() == await text()
    assert await text() != (await unite(trio(), topk=4).answer(Request.of(Q, max_tokens=12))).text


async def test_a_member_that_cannot_spell_a_string_gives_it_nothing() -> None:
    a = table("a", (b"x", b"y", b""), [[0.6, 0.3, 0.1]])
    b = table("b", (b"\xff", b"x", b""), [[0.7, 0.2, 0.1]])
    [token] = (await unite([a, b], topk=1).answer(Request.of("?", max_tokens=1, logprobs=2))).choices[0].tokens
    assert token.token == b"x"
    assert np.exp(token.logprob) == pytest.approx(0.5 * 1 + 0.5 * 0.2 / 0.9)


async def test_control_ids_are_no_strings() -> None:
    members = [table(n, (CONTROL, b"x", b""), [[0.9, 0.06, 0.04]]) for n in "ab"]
    assert (await unite(members, topk=1).answer(Request.of("?", max_tokens=2))).text == "xx"
    silent = [table(n, (CONTROL, b"x", b""), [[1.0, 0, 0]]) for n in "ab"]
    with pytest.raises(BadAnswer):
        await unite(silent, topk=1).answer(Request.of("?", max_tokens=2))


class Counting(Toy):
    calls = 0

    async def tokenise(self, texts):  # type: ignore[no-untyped-def]
        self.calls += 1
        return await super().tokenise(texts)


async def test_first_sub_tokens_are_remembered_and_bounded() -> None:
    member, memo = Counting("counting", SINGLE, 1), Beginnings(limit=3)
    v = member.tokeniser.vocabulary
    strings = [b"abc", b"c"]
    assert memo.unknown(member, v, strings) == strings
    await memo.learn(member, v, strings)
    assert memo.unknown(member, v, strings) == [] and memo.of(member, v, strings) == [(0, 1), (2,)]
    assert member.calls == 1
    await memo.learn(member, v, [b"ba", b"zz"])
    assert len(memo) == 3 and memo.unknown(member, v, [b"abc", b"c", b"ba", b"zz"]) == [b"abc"]
    assert memo.of(member, v, [b"ba", b"zz"]) == [(1, 0), ()]
    assert memo.unknown(Counting("other", SINGLE, 1), v, [b"ba"]) == [b"ba"]


async def test_first_sub_tokens_are_remembered_across_requests() -> None:
    members = [Counting("counting-1", SINGLE, 1), Counting("counting-2", WORDS, 2)]
    request = Request.of(Q, max_tokens=10)
    first = await unite(members, topk=4).answer(request)
    calls = [m.calls for m in members]
    assert (await unite(members, topk=4).answer(request)).text == first.text
    assert [m.calls for m in members] == calls and calls[0] > 0
