"""ABE: the worked example, the search against the whole cross product, and the laws of ensembles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_words import Speller, abe
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, table, trio, vocabulary

from ensemble.distributions import likeliest, log_softmax
from ensemble.during.token.agreement.items import STOP_ID, Item, Track
from ensemble.during.token.agreement.listing import Listing, logsum, writable
from ensemble.during.token.agreement.search import search
from ensemble.during.token.bytes.lexicon import Lexicon
from ensemble.errors import BadAnswer, BadRequest, ConfigurationError, MemberLost
from ensemble.member import Append, Capability, LogprobsAt, Next
from ensemble.method import build
from ensemble.request import Request
from ensemble.testing import LocalMember, ScriptedMember, TinyMember

CATS = ((b" cat", b" dog", b" d", b""), [0.5, 0.3, 0.2, 0.0])
DOGS = ((b" dog", b" ca", b" x", b""), [0.6, 0.3, 0.1, 0.0])


def spellers(seed: int = 0, **options) -> list[Speller]:
    vocabularies = {"merged": MERGED, "single": SINGLE, "words": WORDS}
    return [
        Speller(name, tokens, seed + i, stop=-2, **options) for i, (name, tokens) in enumerate(vocabularies.items())
    ]


def listing(tokens: Sequence[bytes], row: Sequence[float], topk: int = 0) -> Listing:
    with np.errstate(divide="ignore"):
        return Listing.of(likeliest(np.log(row), topk), vocabulary(tokens))


# The worked example


def test_worked_example() -> None:
    found = search([Item((Track(), Track()))], [{0: listing(*CATS), 1: listing(*DOGS)}], [0.5, 0.5], 9, -math.inf)
    assert [(round(score, 6), [t.text for t in item.tracks]) for score, item in found.moves] == [
        (-0.857399, [b" dog", b" dog"]),
        (-0.948560, [b" cat", b" ca"]),
        (-1.060132, [b" d", b" dog"]),
    ]
    # The pair that disagrees would have scored more than all of them.
    assert round((math.log(0.5) + math.log(0.6)) / 2, 6) == -0.601986
    first = search([Item((Track(), Track()))], [{0: listing(*CATS), 1: listing(*DOGS)}], [0.5, 0.5], 1, -math.inf)
    assert first.moves == found.moves[:1] and not first.short


async def test_worked_example_as_an_answer() -> None:
    members = [table(n, tokens, [row, [0, 0, 0, 1]]) for n, (tokens, row) in (("A", CATS), ("B", DOGS))]
    answer = await abe(members, beam=1).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == (" dog", "stop")


async def test_whoever_is_behind_writes_alone() -> None:
    a = ScriptedMember("A", [b" tok", b"eniz", b"ation", b""], [b" tok", b"eniz", b"ation", b""])
    b = ScriptedMember("B", [b" tokeniz", b"ation", b""], [b" tokeniz", b"ation", b""])
    answer = await abe([a, b], beam=1).answer(Request.of("?"))
    assert answer.text == " tokenization"
    assert (a.exchanges, b.exchanges) == (4, 3)
    assert answer.choices[0].credits == ((" tokenization", {"A": 0.5, "B": 0.5}),)


# The search


def reference(items: Sequence[Item], tables: Sequence[Sequence[Sequence[tuple]]], weights: Sequence[float]) -> list:
    """The whole cross product of what members may do, as published: scores and texts of what agrees, best first."""
    found = []
    for item, table_ in zip(items, tables, strict=True):
        moving = item.moving
        for chosen in product(*(row if s in moving else [None] for s, row in enumerate(table_))):
            steps = {s: c for s, c in enumerate(chosen) if c is not None}
            moved = item.moved(steps)
            longest = max((t.text for t in moved.tracks), key=len)
            ended = [t for t in moved.tracks if t.ended]
            agree = all(longest.startswith(t.text) for t in moved.tracks)
            if ended:
                agree = len(ended) == len(moved.tracks) and len({t.text for t in moved.tracks}) == 1
            if agree:
                found.append((moved.score(weights), moved))
    return sorted(found, key=lambda move: -move[0])


@st.composite
def positions(draw: st.DrawFn) -> tuple[list[Item], list[list[list[tuple]]], list[float], int]:
    """Items of two or three members, some of them behind, and rows of what each may write next."""
    members = draw(st.integers(2, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = rng.dirichlet(np.ones(members)).tolist()
    items, tables = [], []
    for number in range(draw(st.integers(1, 2))):
        text = bytes(rng.choice([97, 98], int(rng.integers(1, 4))).tolist())
        whole = int(rng.integers(members))
        cuts = [len(text) if s == whole else int(rng.integers(len(text) + 1)) for s in range(members)]
        lengths = [int(rng.integers(1, 4)) for _ in range(members)]
        begun = [(text[:cut], n, -3 * float(rng.random())) for n, cut in zip(lengths, cuts, strict=True)]
        items.append(Item(tuple(Track((7 + number,) * n, written, total) for written, n, total in begun)))
        strings = [b"a", b"b", b"ab", b"aba", b"bb", b"ba"]
        rows = [log_softmax(rng.normal(size=len(strings) + 1) * 2) for _ in range(members)]
        moves = [list(zip(range(6), strings, row[:-1].tolist(), strict=True)) for row in rows]
        tables.append([[*move, (STOP_ID, b"", float(row[-1]))] for move, row in zip(moves, rows, strict=True)])
    return items, tables, weights, draw(st.integers(1, 6))


def listed(rows: Sequence[Sequence[tuple]], item: Item, topk: int | None) -> dict[int, Listing]:
    found = {}
    for seat in item.moving:
        ranked = sorted(rows[seat], key=lambda move: -move[2])[:topk]
        floor = -math.inf if len(ranked) == len(rows[seat]) else ranked[-1][2]
        found[seat] = Listing(*zip(*ranked, strict=True), floor)
    return found


@given(positions(), st.sampled_from([1, 3, 16]))
@settings(max_examples=150, deadline=None)
def test_the_search_finds_what_the_cross_product_holds(position: tuple, first: int) -> None:
    items, tables, weights, width = position
    listings = [listed(rows, item, None) for rows, item in zip(tables, items, strict=True)]
    with patch("ensemble.during.token.agreement.search._FIRST", first):
        found = search(items, listings, weights, width, -math.inf)
    expected = reference(items, tables, weights)[:width]
    assert [score for score, _ in found.moves] == pytest.approx([score for score, _ in expected], abs=1e-12)
    assert not found.short
    assert all(item.text.startswith(t.text) for _, item in found.moves for t in item.tracks)


@pytest.mark.parametrize("first", [1, 16])
def test_ties_with_what_is_looked_at_later_go_to_the_smaller_text(first: int) -> None:
    tied = Listing((0, 1), (b"b", b"a"), (math.log(0.4), math.log(0.4)), -math.inf)
    with patch("ensemble.during.token.agreement.search._FIRST", first):
        [(_, item)] = search([Item((Track(), Track()))], [{0: tied, 1: tied}], [0.5, 0.5], 1, -9).moves
    assert item.text == b"a"


@given(positions(), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_short_lists_either_decide_or_are_named(position: tuple, topk: int) -> None:
    items, tables, weights, width = position
    found = search(items, [listed(r, i, topk) for r, i in zip(tables, items, strict=True)], weights, width, -math.inf)
    if not found.short:
        expected = reference(items, tables, weights)[:width]
        assert [score for score, _ in found.moves] == pytest.approx([score for score, _ in expected], abs=1e-12)


def test_stop_ids_are_one_token() -> None:
    row = [0.3, 0.2, 0.25, 0.25]
    tokens = (b"x", b"y", b"", b"")
    whole = listing(tokens, row)
    assert whole.ids[0] == STOP_ID and math.exp(whole.logprobs[0]) == pytest.approx(0.5)
    part = listing(tokens, row, topk=2)
    assert part.stops == (3,) and part.floor >= math.log(0.25)
    told = Listing.of(likeliest(np.log(row), 2), vocabulary(tokens), {3: math.log(0.25)})
    assert (told.ids[0], told.stops) == (STOP_ID, ()) and math.exp(told.logprobs[0]) == pytest.approx(0.5)
    assert logsum([-1.0]) == -1.0
    # Left out one by one, they are still .5 together.
    assert listing(tokens, row, topk=1).floor >= math.log(0.5)


def test_few_tokens_that_agree_are_named() -> None:
    lexicon = Lexicon(vocabulary((b"e", b"en", b"eniz", b"enizing", b"x", b"")))
    assert writable(lexicon, b"eniz", 9) == [0, 1, 2, 3]
    assert writable(lexicon, b"e", 2) is None and writable(lexicon, b"", 9) is None


# Greedy


def summed(members: Sequence[LocalMember], steps: int) -> bytes:
    """The argmax of the summed log-probabilities, byte by byte, with one stop."""
    ids: list[int] = []
    for _ in range(steps):
        row = sum(member.model(member.prompt_ids(Request.of("hello")), ids) for member in members)
        ids.append(int(np.argmax(row)))
        if ids[-1] == 0:
            return bytes(ids[:-1])
    return bytes(ids)


@given(st.integers(0, 1000), st.integers(1, 40))
@settings(max_examples=8, deadline=None)
async def test_equal_vocabularies_give_the_argmax_of_summed_log_probabilities(seed: int, topk: int) -> None:
    members = [TinyMember(n, seed + i) for i, n in enumerate("abc")]
    answer = await abe(members, beam=1, topk=topk).answer(Request.of("hello", max_tokens=6))
    assert answer.text == summed(members, 6).decode(errors="replace")


async def test_copies_of_a_member_write_its_greedy_text() -> None:
    request = Request.of("hello", max_tokens=20)
    alone = await TinyMember("a", 5).answer(request)
    copies = [TinyMember(n, 5) for n in "abc"]
    answer = await abe(copies, beam=1, topk=4).answer(request)
    assert (answer.text, answer.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)
    assert [(m.exchanges, m.open_sessions) for m in copies] == [(20, 0)] * 3


@given(st.integers(0, 10_000), st.sampled_from([MERGED, WORDS, SINGLE]))
@settings(max_examples=8, deadline=None)
async def test_copies_agree_token_by_token(seed: int, tokens: tuple[bytes, ...]) -> None:
    request = Request.of("?", max_tokens=8)
    alone = await abe([Speller("a", tokens, seed)], beam=1).answer(request)
    copies = await abe([Speller(n, tokens, seed) for n in "ab"], beam=1).answer(request)
    assert copies.text == alone.text


@pytest.mark.parametrize("seat", [0, 1, 2])
async def test_all_weight_on_one_member_gives_its_text_and_leaves_the_others_alone(seat: int) -> None:
    members, request = [TinyMember(n, i) for i, n in enumerate("abc")], Request.of("hi", max_tokens=12)
    answer = await abe(members, weights=[float(i == seat) for i in range(3)], beam=1).answer(request)
    assert answer.text == (await TinyMember("x", seat).answer(request)).text
    assert [m.exchanges for i, m in enumerate(members) if i != seat] == [0, 0]
    assert set(answer.usage) == {members[seat].name}


@given(st.integers(0, 10_000), st.sampled_from([1, 3]))
@settings(max_examples=5, deadline=None)
async def test_order_of_members_does_not_matter(seed: int, beam: int) -> None:
    request = Request.of("?", max_tokens=8)
    texts = {(await abe(list(order), beam=beam).answer(request)).text for order in permutations(spellers(seed))}
    assert len(texts) == 1


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_lists_of_any_length_give_the_same_answer(beam: int, seed: int) -> None:
    request = Request.of("?", max_tokens=8)
    texts = {(await abe(spellers(seed), beam=beam, topk=k).answer(request)).text for k in (1, 2, 5, 64)}
    assert len(texts) == 1 and texts != {""}


# Beams


def beam_search(member: TinyMember, width: int, steps: int) -> bytes:
    """A member's own: mean log-probability, the stop counted as a token."""
    prompt = member.prompt_ids(Request.of("hello"))
    items: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    best, best_score = b"", -math.inf
    for _ in range(steps):
        grown = []
        for total, ids in items:
            row = member.model(prompt, ids)
            grown += [((total + p) / (len(ids) + 1), total + p, (*ids, i)) for i, p in enumerate(row)]
        grown = [g for g in sorted(grown, reverse=True)[:width] if g[0] > best_score]
        for score, _, ids in grown:
            if ids[-1] == 0 and score > best_score:
                best, best_score = bytes(ids[:-1]), score
        items = [(total, ids) for score, total, ids in grown if ids[-1] != 0 and score > best_score]
        if not items:
            return best
    return best if best_score > -math.inf else bytes(items[0][1])


@pytest.mark.parametrize("seed", [3, 5, 8])
async def test_copies_have_the_beams_of_the_member(seed: int) -> None:
    copies = [TinyMember(n, seed) for n in "ab"]
    answer = await abe(copies, beam=4).answer(Request.of("hello", max_tokens=10))
    assert answer.text == beam_search(copies[0], 4, 10).decode(errors="replace")
    assert [m.open_sessions for m in copies] == [0, 0]


async def test_a_beam_finds_what_greedy_misses() -> None:
    def row(text: bytes) -> dict[bytes, float]:
        after = {b"": {b"x": 0.6, b"y": 0.4}, b"x": {b"": 0.3, b"x": 0.35, b"y": 0.35}, b"y": {b"": 1.0}}
        return after.get(text, {b"": 0.2, b"x": 0.4, b"y": 0.4})

    members = [ScriptedMember(n, [b"x", b"y", b""], row) for n in "ab"]
    request = Request.of("?", max_tokens=6)
    assert (await abe(members, beam=1).answer(request)).text != "y"
    answer = await abe(members, beam=3).answer(request)
    assert (answer.text, answer.choices[0].finish_reason) == ("y", "stop")


async def test_partial_answers_below_a_finished_one_are_dropped() -> None:
    def row(text: bytes) -> dict[bytes, float]:
        return {b"x": 0.99, b"": 0.01} if text else {b"": 0.5, b"x": 0.3, b"y": 0.2}

    members = [ScriptedMember(n, [b"x", b"y", b""], row) for n in "ab"]
    answer = await abe(members, beam=3).answer(Request.of("?", max_tokens=8))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")
    assert [m.exchanges for m in members] == [1, 1]


async def test_five_partial_answers_unless_told_otherwise() -> None:
    member = Speller("m", WORDS, 1, stop=-3)
    await abe([member]).answer(Request.of("?", max_tokens=6))
    assert member.forks == 4
    assert list(build("abe", {}).calls(2)) == [5, 5] and list(build("abe", {"beam": 1}).calls(2)) == [1, 1]


async def test_text_is_told_as_soon_as_all_share_it() -> None:
    members = [ScriptedMember(n, [b"a", b"b", b""], [{b"a": 1.0}, {b"b": 1.0}, b""]) for n in "ab"]
    events = [e async for e in abe(members, beam=5).generate(Request.of("?"))]
    assert [e.text for e in events if type(e).__name__ == "Delta"] == ["a", "b"]


# Messages


async def test_one_partial_answer_needs_no_fork_and_only_appends() -> None:
    members = spellers(3)
    answer = await abe(members, beam=1).answer(Request.of("?", max_tokens=15))
    for member in members:
        assert member.forks == 0
        edits = [edit for edit, _ in member.asked if edit is not None]
        assert edits and all(isinstance(edit, Append) and len(edit.ids) == 1 for edit in edits)
    assert answer.text


async def test_who_is_stalled_is_not_asked() -> None:
    a = ScriptedMember("A", [b"x", b""], [b"x"] * 4)
    b = ScriptedMember("B", [b"xxxx", b""], [b"xxxx"])
    assert (await abe([a, b], beam=1).answer(Request.of("?"))).text == "xxxx"
    assert (a.exchanges, b.exchanges) == (5, 2)


async def test_unlikely_spellings_are_looked_up_at_once() -> None:
    tokens = [b"q", b"r", b"s", b"tok", b"en", b""]
    member = Speller("A", tokens, 1)
    rows = np.log([[1e-6, 1e-6, 1e-6, 1 - 5e-6, 1e-6, 1e-6], [0.4, 0.3, 0.2, 0.05, 0.02, 0.03]])
    member.model = lambda prompt, ids: rows[min(len(ids), 1)]  # type: ignore[method-assign]
    other = ScriptedMember("B", [b"token", b"q", b""], [{b"token": 1.0}, {b"q": 1.0}, b""])
    answer = await abe([member, other], beam=1, topk=1).answer(Request.of("?", max_tokens=3))
    assert answer.text == "tokenq"
    assert [q for _, q in member.asked if isinstance(q, LogprobsAt)] == [LogprobsAt((4,))]


# Limits


async def test_moves_are_counted() -> None:
    a = ScriptedMember("A", [b"x", b""], [b"x"] * 9)
    b = ScriptedMember("B", [b"xxx", b""], [b"xxx"] * 3)
    for limit, text in ((1, "xxx"), (3, "xxx"), (4, "xxxxxx")):
        answer = await abe([a, b], beam=1).answer(Request.of("?", max_tokens=limit))
        assert (answer.text, answer.choices[0].finish_reason) == (text, "length")


async def test_a_finished_answer_goes_before_one_that_is_cut() -> None:
    rows = {b"": {b"x": 0.5, b"": 0.4, b"y": 0.1}, b"x": {b"x": 0.9, b"": 0.1}}
    members = [ScriptedMember(n, [b"x", b"y", b""], lambda text: rows.get(text, {b"x": 0.9, b"": 0.1})) for n in "ab"]
    answer = await abe(members, beam=3).answer(Request.of("?", max_tokens=2))
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("beam", [1, 3])
async def test_a_full_context_ends_the_answer(beam: int) -> None:
    members = [TinyMember(n, 5, context_length=12) for n in "ab"]
    answer = await abe(members, beam=beam).answer(Request.of("hello"))
    assert answer.choices[0].finish_reason == "length" and answer.text
    if beam == 1:
        assert answer.text == (await TinyMember("x", 5, context_length=12).answer(Request.of("hello"))).text


async def test_stop_strings_whole_characters_and_begun_answers() -> None:
    a = ScriptedMember("a", [b"\xc3", b"\xa9", b"n", b"END", b""], [b"\xc3", b"\xa9", b"n", b"END", b"n"])
    b = ScriptedMember("b", [b"\xc3\xa9", b"n", b"E", b"ND", b""], [b"\xc3\xa9", b"n", b"E", b"ND", b"n"])
    events = [e async for e in abe([a, b], beam=1).generate(Request.of("?", stop=("END",)))]
    texts = [event.text for event in events if type(event).__name__ == "Delta"]
    assert "".join(texts) == "én" and all("\ufffd" not in text for text in texts)
    begun = [ScriptedMember(n, [b"a", b"b", b""], lambda t: {b"b" if t == b"a" else b"": 1.0}) for n in "ab"]
    assert (await abe(begun).answer(replace(Request.of("?"), partial="a"))).text == "b"


# Draws


def outcomes(members: Sequence[Speller], weights: Sequence[float], steps: int) -> dict[bytes, float]:
    """Distribution of answers, cut after so many moves, by enumeration."""
    found: dict[bytes, float] = {}

    def follow(p: float, ids: tuple, texts: tuple, order: tuple, left: int) -> None:
        longest = max(texts, key=len)
        if not order:
            rounds(p, ids, texts, left)
            return
        seat, text = order[0], texts[order[0]]
        tokens, chances = members[seat].tokeniser.vocabulary.tokens, members[seat].chances(ids[seat])
        rest = longest[len(text) :]
        agree = {i: chances[i] for i, t in enumerate(tokens) if t and (t.startswith(rest) or rest.startswith(t))}
        for i, chance in agree.items():
            after = (*texts[:seat], text + tokens[i], *texts[seat + 1 :])
            written = (*ids[:seat], (*ids[seat], i), *ids[seat + 1 :])
            follow(p * chance / sum(agree.values()), written, after, order[1:], left)

    def rounds(p: float, ids: tuple, texts: tuple, left: int) -> None:
        longest = max(texts, key=len)
        behind = tuple(s for s, t in enumerate(texts) if t != longest)
        if left == 0:
            found[longest] = found.get(longest, 0.0) + p
        elif behind:
            follow(p, ids, texts, behind, left - 1)
        else:
            for seat, weight in enumerate(weights):
                vocabulary_, chances = members[seat].tokeniser.vocabulary, members[seat].chances(ids[seat])
                others = tuple(s for s in range(len(members)) if s != seat)
                for i, chance in enumerate(chances):
                    if i in vocabulary_.stop_ids:
                        found[longest] = found.get(longest, 0.0) + p * weight * chance
                    elif chance:
                        after = (*texts[:seat], texts[seat] + vocabulary_.tokens[i], *texts[seat + 1 :])
                        written = (*ids[:seat], (*ids[seat], i), *ids[seat + 1 :])
                        follow(p * weight * chance, written, after, others, left - 1)

    rounds(1.0, ((),) * len(members), (b"",) * len(members), steps)
    return found


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.8)])
async def test_answers_are_drawn_as_enumeration_says(weights: tuple[float, float]) -> None:
    members = [Speller("a", (b"a", b"b", b"ab", CONTROL, b""), 1), Speller("b", (b"b", b"", b"a", b""), 2)]
    for member in members:
        member.sharpness = 0.7
    expected = outcomes(members, weights, 2)
    assert sum(expected.values()) == pytest.approx(1)
    counts: dict[bytes, int] = {}
    draws = 500
    for seed in range(draws):
        request = Request.of("?", max_tokens=2, temperature=1, seed=seed)
        text = (await abe(members, weights=weights).answer(request)).text.encode()
        counts[text] = counts.get(text, 0) + 1
    assert set(counts) <= set(expected)
    for text, p in expected.items():
        assert counts.get(text, 0) / draws == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / draws) + 1e-9)


async def test_draws_depend_on_the_seed_alone() -> None:
    async def text(seed: int, **options) -> str:
        request = Request.of("?", max_tokens=12, temperature=1.0, seed=seed)
        return (await abe(spellers(2), **options).answer(request)).text

    assert await text(4) == await text(4, beam=1)
    assert len({await text(seed) for seed in range(6)}) > 3


async def test_one_member_draws_as_it_would_alone() -> None:
    members = [Speller("a", (b"a", b"b", b""), 1), Speller("b", (b"a", b"b", b""), 2)]
    whole = outcomes(members, (1.0, 0.0), 2)
    alone = outcomes(members[:1], (1.0,), 2)
    assert whole == pytest.approx(alone)
    request = Request.of("?", max_tokens=6, temperature=1, seed=3)
    assert (await abe(members, weights=[1, 0]).answer(request)).text == (await abe(members[:1]).answer(request)).text
    assert members[1].exchanges == 0


# Refusals


async def test_what_does_not_fit_is_refused() -> None:
    sessions = spellers(capabilities=frozenset({Capability.GENERATE, Capability.SESSIONS}))
    with pytest.raises(BadRequest, match="full distributions"):
        await abe(sessions).answer(Request.of("?", temperature=1))
    with pytest.raises(BadRequest, match="temperature must be 0 with a beam"):
        await abe(spellers(), beam=2).answer(Request.of("?", temperature=1))
    with pytest.raises(BadRequest, match="logprobs"):
        await abe(spellers()).answer(Request.of("?", logprobs=0))
    with pytest.raises(ConfigurationError, match=r"no option 'width'.*beam"):
        abe(spellers(), width=3)
    for wrong in ({"beam": 0}, {"beam": 17}, {"topk": 0}, {"weights": [1]}):
        with pytest.raises((ConfigurationError, BadRequest)):
            abe(spellers(), **wrong)


async def test_members_that_never_agree_give_no_answer() -> None:
    members = [ScriptedMember(n, [b"x", b"y", b""], [{t: 1.0}]) for n, t in (("a", b"x"), ("b", b"y"))]
    with pytest.raises(BadAnswer, match="agree on no token"):
        await abe(members).answer(Request.of("?"))
    with pytest.raises(BadAnswer, match="no chance"):
        await abe(members).answer(Request.of("?", temperature=1, seed=1))


@pytest.mark.parametrize("beam", [1, 5])
async def test_patience_ends_the_paging(beam: int) -> None:
    rng = np.random.default_rng(0)
    tokens = [bytes([b]) for b in range(32, 127)]
    rows = [log_softmax(rng.normal(size=96) * 4) for _ in range(2)]

    async def said(patience: int) -> tuple[str, int, int]:
        members = [Speller(n, (*tokens, b""), 0) for n in "ab"]
        for member, row in zip(members, rows, strict=True):
            member.model = lambda prompt, ids, row=row: row  # type: ignore[method-assign]
        answer = await abe(members, beam=beam, topk=2, patience=patience).answer(Request.of("?", max_tokens=1))
        longest = max(q.topk for m in members for _, q in m.asked if isinstance(q, Next))
        return answer.text, sum(m.exchanges for m in members), longest

    best = tokens[int(np.argmax(rows[0][:-1] + rows[1][:-1]))].decode()
    (text, patient, longest), (hasty, few, _) = await said(1024), await said(2)
    assert text == best and hasty and few < patient
    assert longest == 32 and patient <= 6, "2, 8 and 32 tokens, at each of two"
    text, _, longest = await said(11)
    assert text and longest <= 11, "once something is found no list is longer"


async def test_toys_of_the_other_methods_agree() -> None:
    members: list[Toy] = trio()
    answer = await abe(members).answer(Request.of("ab", max_tokens=12))
    assert answer.text and [m.open_sessions for m in members] == [0, 0, 0]


@pytest.mark.parametrize("fail_at", [0, 4])
@pytest.mark.parametrize("beam", [1, 4])
async def test_a_lost_member_ends_all_sessions(fail_at: int, beam: int) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2, fail_at=fail_at)]
    with pytest.raises(MemberLost):
        await abe(members, beam=beam).answer(Request.of("hi", max_tokens=12))
    assert [m.open_sessions for m in members] == [0, 0]
