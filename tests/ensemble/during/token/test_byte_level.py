"""Byte level: exactness by enumeration, the worked example, and the laws of ensembles."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_words import Speller, byte_level, next_byte, said
from token_toys import CONTROL, MERGED, SINGLE, WORDS, table, vocabulary

from ensemble.during.token.byte_level import combine
from ensemble.during.token.bytes.lexicon import Lexicon
from ensemble.during.token.bytes.tree import STOP, CoveringTree, kept
from ensemble.errors import BadAnswer, ConfigurationError, MemberLost, MissingCapability
from ensemble.member import Append, Capability, Next, Score, SyncText
from ensemble.request import Request
from ensemble.sampling import draw
from ensemble.testing import ScriptedMember, TinyMember

A, B = ord("a"), ord("b")
TOKENS = (b"a", b"b", b"ab", b"")
ROOT, AFTER = [0.3, 0.2, 0.4, 0.1], [0.5, 0.2, 0.2, 0.1]
EXACT = {"keep": 0.0, "paths": 256, "window": 64}


def spellers(seed: int = 0, **options) -> list[Speller]:
    vocabularies = {"merged": MERGED, "single": SINGLE, "words": WORDS}
    return [Speller(name, tokens, seed + i, **options) for i, (name, tokens) in enumerate(vocabularies.items())]


def tree_of(member: Speller, **options) -> CoveringTree:
    return CoveringTree(Lexicon(member.tokeniser.vocabulary), **options)


def filled(tree: CoveringTree, member: Speller, trunk: list[int]) -> CoveringTree:
    for path in tree.unread:
        tree.read(path, member.model([], [*trunk, *path.ids]))
    return tree


# The worked example


def test_worked_example_of_masses() -> None:
    tree = CoveringTree(Lexicon(vocabulary(TOKENS)))
    tree.read(tree.unread[0], np.log(ROOT))
    assert tree.distribution()[[A, B, STOP]] == pytest.approx([0.7, 0.2, 0.1], abs=1e-12)
    tree.advance(A)
    [path] = tree.unread
    tree.read(path, np.log(AFTER))
    # b: .4 in one token and .3 · .2 in two; a: .3 · (.5 + .2); the stop: .3 · .1.
    assert 0.7 * tree.distribution()[[B, A, STOP]] == pytest.approx([0.46, 0.21, 0.03], abs=1e-12)


async def test_worked_example_of_all_segmentations() -> None:
    [choice] = (
        await byte_level([table("m", TOKENS, [ROOT, AFTER])], **EXACT).answer(Request.of("?", max_tokens=1, logprobs=3))
    ).choices
    assert choice.tokens[0].token == b"a"
    found = {s: round(float(np.exp(p)), 6) for s, p in choice.tokens[1].top}
    assert found == {b"b": 0.657143, b"a": 0.3, b"": 0.042857}


@pytest.mark.parametrize(
    ("how", "expected"), [("mix", [0.385714, 0.537500, 0.076786]), ("product", [0.366025, 0.554728, 0.079247])]
)
def test_worked_example_of_combining(how: str, expected: list[float]) -> None:
    rows = [np.array([0.4 / 0.7, 0.2625 / 0.7, 0.0375 / 0.7]), np.array([0.2, 0.7, 0.1])]
    assert combine(how, [0.5, 0.5], rows) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("how", "best"), [("mix", b"a"), ("product", b"a")])
async def test_worked_example_with_a_second_member(how: str, best: bytes) -> None:
    other = table("o", (b"a", b"b", b""), [[1, 0, 0], [0.7, 0.2, 0.1]])
    request = Request.of("?", max_tokens=2, logprobs=3)
    answer = await byte_level([table("m", TOKENS, [ROOT, AFTER]), other], combine=how, **EXACT).answer(request)
    expected = combine(how, [0.5, 0.5], [np.array([0.46, 0.21, 0.03]) / 0.7, np.array([0.2, 0.7, 0.1])])
    token = answer.choices[0].tokens[1]
    found = dict(token.top)
    assert token.token == best
    assert np.exp([found[b"b"], found[b"a"], found[b""]]) == pytest.approx(expected, abs=1e-12)


# Exactness


@given(st.integers(0, 10_000), st.sampled_from([MERGED, SINGLE, WORDS]), st.lists(st.integers(0, 5), max_size=5))
@settings(max_examples=25, deadline=None)
def test_the_tree_gives_what_enumeration_gives(seed: int, tokens: tuple[bytes, ...], letters: list[int]) -> None:
    member = Speller("m", tokens, seed)
    tree, trunk, text = tree_of(member, limit=10_000), [], b""
    for letter in letters:
        filled(tree, member, trunk)
        byte = b"abc \xc3\xa9"[letter]
        tree.advance(byte)
        trunk += tree.settle()
        text += bytes([byte])
    row = filled(tree, member, trunk).distribution()
    assert row == pytest.approx(next_byte(member, text), abs=1e-12)
    assert row.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("text", [b"", b"a", b"abca", "caébc".encode(), b"ab ab"])
async def test_probabilities_of_bytes_chain_to_that_of_the_text(text: bytes) -> None:
    for member in spellers(7):
        tree, trunk, product = tree_of(member, limit=10_000), [], 1.0
        for byte in text:
            product *= filled(tree, member, trunk).distribution()[byte]
            tree.advance(byte)
            trunk += tree.settle()
        product *= filled(tree, member, trunk).distribution()[STOP]
        assert product == pytest.approx(said(member, text), rel=1e-10)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("how", ["mix", "product"])
async def test_draws_come_from_the_combined_distribution(seed: int, how: str) -> None:
    members = [Speller("merged", MERGED, 1, stop=-4), Speller("words", WORDS, 2, stop=-4)]
    request = Request.of("?", max_tokens=4, temperature=0.8, top_p=0.9, seed=seed, logprobs=0)
    expected, logprobs = b"", []
    for position in range(20):
        row = combine(how, [0.5, 0.5], [next_byte(member, expected) for member in members])
        with np.errstate(divide="ignore"):
            outcome = draw(np.log(row), request.sampling, position)
        if outcome == STOP:
            break
        logprobs.append(np.log(row[outcome]))
        expected += bytes([outcome])
        if len(expected) == 6:
            break
    [choice] = (await byte_level(members, combine=how, **EXACT).answer(request)).choices
    got = b"".join(token.token for token in choice.tokens)
    shared = min(len(got), len(expected))
    assert got[:shared] == expected[:shared] and shared > 2
    assert [t.logprob for t in choice.tokens][:shared] == pytest.approx(logprobs[:shared], abs=1e-10)


async def test_short_outputs_are_as_likely_as_enumeration_says() -> None:
    # One member: the text of bytes drawn one by one is as likely as its token sequences together.
    member = Speller("m", (b"a", b"b", b"ab", b""), 5, sharpness=1.0)
    texts = [b"", b"a", b"b", b"ab", b"ba", b"aa"]
    counts = dict.fromkeys(texts, 0)
    for seed in range(250):
        request = Request.of("?", max_tokens=4, temperature=1, seed=seed)
        text = (await byte_level([member], **EXACT).answer(request)).text.encode()
        counts[text] = counts.get(text, 0) + 1
    for text in texts:
        p = said(member, text)
        assert counts[text] / 250 == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 250) + 1e-9)
    assert sum(counts[t] for t in texts) > 50


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.05, 1e-3]))
@settings(max_examples=15, deadline=None)
def test_what_is_dropped_is_bounded(seed: int, keep: float) -> None:
    member, length = Speller("m", (b"a", b"b", b"ab", b"ba", b"aba", b""), seed, sharpness=3.0), 4
    gap = 0.0
    for text in map(bytes, product(b"ab", repeat=length)):
        exact, found = tree_of(member, limit=10_000), tree_of(member, keep=keep)
        chances = [1.0, 1.0]
        for byte in text:
            for at, tree in enumerate((exact, found)):
                if not tree.lost:
                    chances[at] *= filled(tree, member, []).distribution()[byte]
                    tree.advance(byte)
                else:
                    chances[at] = 0.0
            assert len(found.paths) <= len(exact.paths)
        gap += max(0.0, chances[0] - chances[1])
    assert gap <= length * keep + 1e-12


def test_what_is_dropped_is_told() -> None:
    tree = CoveringTree(Lexicon(vocabulary(TOKENS)), keep=0.5)
    tree.read(tree.unread[0], np.log(ROOT))
    tree.advance(A)
    # Of a's .7 there are .3 in one token a and .4 in ab.
    assert tree.dropped == pytest.approx(0.3 / 0.7) and [p.ids for p in tree.paths] == [()]


@pytest.mark.parametrize("window", [1, 2, 3])
def test_segmentations_differ_within_the_window_only(window: int) -> None:
    member = Speller("m", (b"a", b"b", b"ab", b"ba", b"aba", b""), 1, sharpness=0.5)
    tree, trunk, lengths = tree_of(member, window=window), [], set()
    for byte in b"abababbaab":
        filled(tree, member, trunk)
        tree.advance(byte)
        trunk += tree.settle()
        lengths.add(tree.longest)
    assert max(lengths) == window and b"abababbaab".startswith(member.tokeniser.vocabulary.text(trunk)) and trunk


def test_no_more_paths_than_allowed() -> None:
    masses = np.array([0.1, 0.4, 0.3, 0.2])
    assert kept(masses, 0.0, 2).tolist() == [1, 2]
    assert kept(masses, 0.35, 9).tolist() == [1, 2] and kept(masses, 0.29, 9).tolist() == [1, 2, 3]
    assert kept(np.zeros(2), 0.1, 9).tolist() == []


# The vocabulary in order


@given(st.lists(st.binary(max_size=3), max_size=30), st.binary(max_size=4))
def test_ranges_are_the_tokens_with_a_beginning(tokens: list[bytes], prefix: bytes) -> None:
    lexicon = Lexicon(vocabulary([CONTROL, *tokens]))
    named = [CONTROL, *tokens]
    expected = {i for i, t in enumerate(named) if t and t != CONTROL and t.startswith(prefix)}
    assert set(lexicon.beginning(prefix).ids.tolist()) == expected
    agree = {i for i, t in enumerate(named) if t and t != CONTROL and (t.startswith(prefix) or prefix.startswith(t))}
    assert set(lexicon.along(prefix)) == agree
    row = np.random.default_rng(0).random(len(lexicon.order))
    branch = lexicon.beginning(prefix)
    masses = dict(zip(branch.bytes.tolist(), branch.masses(row).tolist(), strict=True))
    for byte in range(256):
        inside = [row[at] for at, i in enumerate(lexicon.order) if named[i].startswith(prefix + bytes([byte]))]
        assert masses.get(byte, 0.0) == pytest.approx(sum(inside))


# Laws


async def test_copies_of_a_member_write_what_it_writes() -> None:
    request = Request.of("hello", max_tokens=20)
    alone = await TinyMember("a", 5).answer(request)
    for how in ("mix", "product"):
        answer = await byte_level([TinyMember(n, 5) for n in "abc"], combine=how).answer(request)
        assert (answer.text, answer.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)


@pytest.mark.parametrize("how", ["mix", "product"])
@pytest.mark.parametrize("tokens", [MERGED, WORDS])
async def test_copies_are_the_member_itself(how: str, tokens: tuple[bytes, ...]) -> None:
    request = Request.of("?", max_tokens=12, logprobs=5)
    [alone] = (await byte_level([Speller("a", tokens, 3, stop=-4)]).answer(request)).choices
    [copies] = (await byte_level([Speller(n, tokens, 3, stop=-4) for n in "abc"], combine=how).answer(request)).choices
    assert copies.text == alone.text and len(alone.tokens) > 8
    assert [t.logprob for t in copies.tokens] == pytest.approx([t.logprob for t in alone.tokens], abs=1e-12)


@pytest.mark.parametrize("seat", [0, 1, 2])
async def test_all_weight_on_one_member_gives_its_text_and_leaves_the_others_alone(seat: int) -> None:
    members, request = spellers(), Request.of("?", max_tokens=15)
    answer = await byte_level(members, weights=[float(i == seat) for i in range(3)]).answer(request)
    assert answer.text == (await byte_level([spellers()[seat]]).answer(request)).text
    assert [m.exchanges for i, m in enumerate(members) if i != seat] == [0, 0]
    assert set(answer.usage) == {members[seat].name}


@given(st.integers(0, 10_000), st.sampled_from(["mix", "product"]))
@settings(max_examples=3, deadline=None)
async def test_order_of_members_does_not_matter(seed: int, how: str) -> None:
    # max_tokens counts the first member's tokens, so that texts of other orders may be cut elsewhere.
    request = Request.of("?", max_tokens=10)
    texts = [(await byte_level(list(o), combine=how).answer(request)).text for o in permutations(spellers(seed))]
    shortest = min(map(len, texts)) - 1
    assert len({text[:shortest] for text in texts}) == 1


@pytest.mark.parametrize("how", ["mix", "product"])
async def test_reported_probabilities_sum_to_one(how: str) -> None:
    answer = await byte_level(spellers(), combine=how).answer(Request.of("?", max_tokens=6, logprobs=20))
    for token in answer.choices[0].tokens:
        assert sum(np.exp(p) for _, p in token.top) == pytest.approx(1, abs=1e-9)


# Messages


async def test_no_prefix_is_encoded_twice() -> None:
    members = [Speller("merged", MERGED, 1, stop=-4), Speller("words", WORDS, 2, stop=-4)]
    answer = await byte_level(members, keep=0.0, window=3).answer(Request.of("?", max_tokens=20, logprobs=0))
    text = b"".join(token.token for token in answer.choices[0].tokens)
    for member in members:
        appended = [i for edit, _ in member.asked if edit is not None for i in edit.ids]
        assert all(edit is None or isinstance(edit, Append) for edit, _ in member.asked)
        assert text.startswith(member.tokeniser.vocabulary.text(appended)) and len(appended) > 8
        assert len(member.asked) <= len(text) + 1 and isinstance(member.asked[0][1], Next)
        scored = [q for _, q in member.asked if isinstance(q, Score)]
        assert scored and all(q.full and max(map(len, q.continuations)) <= 3 for q in scored)
    assert [m.open_sessions for m in members] == [0, 0]


async def test_a_sure_member_is_asked_once_for_each_token() -> None:
    words = [b"the ", b"cat ", b"sat ", b""]
    members = [ScriptedMember(n, [*words, b"t", b"h", b"c"], [{w: 1.0} for w in words]) for n in "ab"]
    answer = await byte_level(members).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("the cat sat ", "stop")
    assert [m.exchanges for m in members] == [4, 4]


async def test_a_member_that_excluded_a_byte_spells_the_text_anew() -> None:
    a = ScriptedMember("a", [b"x", b"y", b""], lambda text: {b"x": 1.0} if len(text) < 2 else {b"": 1.0})
    b = Speller("b", (b"y", b"x", b""), 1)
    b.model = lambda prompt, ids: np.log([1 - 2e-12, 1e-12, 1e-12] if not ids else [0.2, 0.2, 0.6])  # type: ignore[method-assign]
    answer = await byte_level([a, b], weights=[0.9, 0.1], keep=1e-6).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("xx", "stop")
    c = ScriptedMember("c", [b"y", b"x", b""], lambda text: {b"y": 1.0} if not text else {b"": 1.0})
    noted = await byte_level([a, c], weights=[0.9, 0.1]).answer(Request.of("?"))
    assert noted.text == "xx" and c.exchanges == 3


async def test_a_respelling_is_the_only_sync() -> None:
    a = ScriptedMember("a", [b"x", b"y", b""], [b"x", b"x", b""])
    b = Speller("b", (b"y", b"x", b""), 1)
    with np.errstate(divide="ignore"):
        rows = np.log([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3]])
    b.model = lambda prompt, ids: rows[int(bool(ids))]  # type: ignore[method-assign]
    assert (await byte_level([a, b], weights=[0.9, 0.1]).answer(Request.of("?"))).text == "xx"
    assert [edit for edit, _ in b.asked] == [None, SyncText(b"x"), Append((1,))]


# Limits


async def test_tokens_are_counted_by_the_first_member() -> None:
    for limit in (1, 2, 3):
        words = [b"the ", b"cat ", b"sat ", b""]
        member = ScriptedMember("a", words, [{w: 1.0} for w in words])
        letters = ScriptedMember("b", [b"t", b"h", b"e", b" ", b"c", b"a", b"s", b""], lambda text: {b"t": 1.0})
        answer = await byte_level([member, letters], weights=[9, 1]).answer(Request.of("?", max_tokens=limit))
        assert answer.text == "".join(w.decode() for w in words[:limit])
        assert answer.choices[0].finish_reason == "length"


async def test_stop_strings_and_whole_characters() -> None:
    member = ScriptedMember("a", [b"\xc3", b"\xa9", b"n", b"END", b""], [b"\xc3", b"\xa9", b"n", b"END", b"n"])
    events = [e async for e in byte_level([member]).generate(Request.of("?", stop=("END",)))]
    texts = [event.text for event in events if type(event).__name__ == "Delta"]
    assert "".join(texts) == "én" and all("\ufffd" not in text for text in texts)


async def test_an_answer_begun_by_the_request() -> None:
    member = ScriptedMember("a", [b"a", b"b", b"ab", b""], lambda text: {b"b" if text == b"a" else b"": 1.0})
    answer = await byte_level([member]).answer(replace(Request.of("?"), partial="a"))
    assert answer.text == "b"


async def test_a_full_context_ends_the_answer() -> None:
    members = spellers(4, context_length=8)
    answer = await byte_level(members).answer(Request.of("?"))
    assert answer.choices[0].finish_reason in ("length", "stop")
    endless = [TinyMember(n, 5, context_length=12) for n in "ab"]
    alone = await TinyMember("x", 5, context_length=12).answer(Request.of("hello"))
    answer = await byte_level(endless).answer(Request.of("hello"))
    assert (answer.text, answer.choices[0].finish_reason) == (alone.text, "length")


# Refusals


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(MissingCapability, match="full_distribution"):
        byte_level(spellers(capabilities=frozenset({Capability.GENERATE, Capability.SESSIONS})))
    with pytest.raises(ConfigurationError, match=r"no option 'canonical'.*combine"):
        byte_level(spellers(), canonical=True)
    with pytest.raises(ConfigurationError, match="one number for each"):
        byte_level(spellers(), weights=[1, 2])
    for wrong in ({"keep": 0.5}, {"combine": "sum"}, {"paths": 0}):
        with pytest.raises(ConfigurationError):
            byte_level(spellers(), **wrong)


async def test_a_product_of_what_excludes_each_other_is_no_answer() -> None:
    members = [ScriptedMember(n, [b"x", b"y", b""], [{t: 1.0}]) for n, t in (("a", b"x"), ("b", b"y"))]
    with pytest.raises(BadAnswer, match="all members allow"):
        await byte_level(members, combine="product").answer(Request.of("?"))
    silent = [table("s", (CONTROL, b"x", b""), [[1.0, 0, 0]])]
    with pytest.raises(BadAnswer, match="no mass"):
        await byte_level(silent).answer(Request.of("?"))


@pytest.mark.parametrize("fail_at", [0, 4])
async def test_a_lost_member_ends_all_sessions(fail_at: int) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2, fail_at=fail_at)]
    with pytest.raises(MemberLost):
        await byte_level(members).answer(Request.of("hi", max_tokens=12))
    assert [m.open_sessions for m in members] == [0, 0]
