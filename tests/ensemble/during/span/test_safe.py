"""Drafts, disputes and fusion: against the published algorithm done the slow way, and at its limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from span_toys import Plain, disputes, safe
from token_toys import CONTROL, MERGED, SINGLE, WORDS, Toy, greedy, shown, table

from ensemble.errors import BadRequest, ConfigurationError, UnknownOption
from ensemble.request import Request, Trace
from ensemble.testing import ScriptedMember, TinyMember

VOCABULARIES = (MERGED, SINGLE, WORDS)
WHOLE = tuple(tuple(t.replace(b"\xc3", b"x").replace(b"\xa9", b"y") for t in tokens) for tokens in VOCABULARIES)
"""The same without broken characters."""
Q = Request.of("ab", max_tokens=12)
seeds = st.integers(0, 10_000)
lengths = st.integers(1, 9)


def toys(*seeds_and_tokens, sharpness: float = 1.0) -> list[Toy]:
    return [Toy(f"m{n}", tokens, seed, sharpness=sharpness) for n, (seed, tokens) in enumerate(seeds_and_tokens)]


@settings(max_examples=40, deadline=None)
@given(seed=seeds, draft_tokens=lengths, overlap=st.booleans(), fidelity=st.sampled_from(["fixed", "reference"]))
async def test_the_same_model_twice_is_never_disputed(seed: int, draft_tokens: int, overlap: bool, fidelity) -> None:
    twins = [TinyMember("a", seed), TinyMember("b", seed)]
    answer = await safe(twins, draft_tokens=draft_tokens, overlap=overlap, fidelity=fidelity).answer(Q)
    assert not disputes(answer)
    assert answer.text == (await TinyMember("c", seed).answer(Q)).text


@settings(max_examples=20, deadline=None)
@given(seed=seeds, draft_tokens=lengths)
async def test_without_threshold_the_drafter_writes_alone(seed: int, draft_tokens: int) -> None:
    members = toys((seed, MERGED), (seed + 1, WORDS))
    answer = await safe(members, draft_tokens=draft_tokens, threshold=0).answer(Q)
    assert answer.text == (await toys((seed, MERGED))[0].answer(Q)).text
    assert set(answer.usage) == {"m0"} and members[1].exchanges == 0


@settings(max_examples=60, deadline=None)
@given(seed=seeds, draft_tokens=lengths, tokens=st.sampled_from(VOCABULARIES), members=st.integers(2, 3))
async def test_with_equal_vocabularies_the_length_of_drafts_does_not_matter(
    seed: int, draft_tokens: int, tokens, members: int
) -> None:
    group = [(seed + n, tokens) for n in range(members)]
    one = await safe(toys(*group), draft_tokens=1, overlap=False).answer(Q)
    other = await safe(toys(*group), draft_tokens=draft_tokens).answer(Q)
    assert (one.text, disputes(one)) == (other.text, disputes(other))
    assert one.choices[0].finish_reason == other.choices[0].finish_reason


@settings(max_examples=150, deadline=None)
@given(
    seed=seeds,
    draft_tokens=lengths,
    vocabularies=st.lists(st.sampled_from(WHOLE), min_size=2, max_size=3),
    overlap=st.booleans(),
    sharpness=st.sampled_from([0.5, 1.0, 2.0]),
)
async def test_it_writes_what_the_published_algorithm_writes(
    seed: int, draft_tokens: int, vocabularies, overlap: bool, sharpness: float
) -> None:
    """A control id more in its vocabulary makes a verifier tokenise text that it could else read as ids; where tokens
    are single bytes that is the same."""
    group = [(seed + n, tokens) for n, tokens in enumerate(vocabularies)]
    for number, (_, tokens) in enumerate(group):
        if number and tokens == vocabularies[0] != WHOLE[1]:
            group[number] = (seed + number, (*tokens, CONTROL))
    members = toys(*group, sharpness=sharpness)
    expected = Plain(members, draft_tokens).answer(b"ab", 12)
    options = {"draft_tokens": draft_tokens, "overlap": overlap, "sharpening": "none"}
    assert (await safe(members, **options).answer(Q)).text == shown(expected)


def two(drafted: dict[bytes, float], verified: dict[bytes, float], **options):
    """An ensemble that has one token to agree on, ``x`` by the drafter; then both stop."""
    tokens = [b"x", b"y", b"z", b""]
    others = [*tokens, b"xyz"]
    return safe([ScriptedMember("d", tokens, [drafted]), ScriptedMember("v", others, [verified])], **options)


@pytest.mark.parametrize(
    ("drafted", "verified", "fused"),
    [
        ({b"x": 0.45, b"y": 0.3, b"z": 0.25}, {b"x": 0.40, b"y": 0.6}, True),
        ({b"x": 0.41, b"y": 0.39, b"z": 0.2}, {b"x": 0.60, b"y": 0.4}, False),
        ({b"x": 0.70, b"y": 0.2, b"z": 0.1}, {b"x": 0.10, b"y": 0.9}, False),
        ({b"x": 0.36, b"y": 0.34, b"z": 0.3}, {b"x": 0.36, b"y": 0.34, b"z": 0.3}, False),
    ],
)
async def test_what_is_disputed(drafted, verified, fused: bool) -> None:
    answer = await two(drafted, verified).answer(Request.of("?"))
    assert disputes(answer) == ([("x", "y")] if fused else [])
    assert answer.text == ("y" if fused else "x")


@pytest.mark.parametrize(("option", "value"), [("threshold", 0.45), ("agreement", 0.85)])
async def test_thresholds_bound_what_is_disputed(option: str, value: float) -> None:
    rows = {b"x": 0.45, b"y": 0.3, b"z": 0.25}, {b"x": 0.40, b"y": 0.6}
    for bound, fused in ((value - 0.01, False), (value + 0.01, True)):
        assert bool(disputes(await two(*rows, **{option: bound}).answer(Request.of("?")))) is fused


@pytest.mark.parametrize(("sharpening", "written"), [("none", "the"), ("geom", "the"), ("heur", "Par")])
@pytest.mark.parametrize("fuse", ["gac", "unite"])
async def test_sharpening_gathers_the_pieces_of_a_word(sharpening: str, written: str, fuse: str) -> None:
    tokens = [b"Par", b"Paris", b"the", b"x", b""]
    drafter = ScriptedMember("d", tokens, [{b"Par": 0.10, b"Paris": 0.28, b"the": 0.35, b"x": 0.27}])
    others = {b"Par": 0.30, b"Paris": 0.05, b"the": 0.25, b"Pari": 0.05, b"y": 0.35}
    verifier = ScriptedMember("v", [*tokens, b"Pari", b"y"], [others])
    options = {"fuse": fuse, "sharpening": sharpening}
    answer = await safe([drafter, verifier], **options).answer(Request.of("?", max_tokens=1))
    assert (answer.text, disputes(answer)) == (written, [("the", written)])


async def test_a_place_inside_a_verifiers_token_is_left_to_the_drafter() -> None:
    """``b`` is in doubt, but the verifier reads ``ab`` as one token and has no say between its letters."""
    rows = [{b"a": 0.9, b"c": 0.1}, {b"b": 0.4, b"c": 0.3, b"a": 0.3}]
    drafter = ScriptedMember("d", [b"a", b"b", b"c", b""], rows)
    verifier = ScriptedMember("v", [b"ab", b"a", b"b", b"c", b""], [{b"ab": 0.2, b"c": 0.8}, b""])
    answer = await safe([drafter, verifier]).answer(Request.of("?", max_tokens=2))
    assert (answer.text, disputes(answer)) == ("ab", [])
    alike = ScriptedMember("v", [b"a", b"b", b"c", b""], [b"a", {b"c": 1.0}])
    assert disputes(await safe([drafter, alike]).answer(Request.of("?", max_tokens=2))) == [("b", "c")]


async def test_only_verifiers_for_whom_the_place_is_safe_are_fused() -> None:
    """The third would turn the vote, but reads ``ax`` as one token."""
    start = {b"a": 0.9, b"x": 0.1}
    tokens = [b"a", b"x", b"y", b"z", b""]
    drafter = ScriptedMember("d", tokens, [start, {b"x": 0.4, b"y": 0.35, b"z": 0.25}])
    second = ScriptedMember("v", [*tokens, b"q"], [start, {b"y": 0.6, b"z": 0.4}])
    third = ScriptedMember("w", [*tokens, b"ax"], [{b"ax": 1.0}, {b"z": 1.0}])
    answer = await safe([drafter, second, third]).answer(Request.of("?", max_tokens=2))
    assert (answer.text, disputes(answer)) == ("ay", [("x", "y")])
    assert answer.choices[0].credits[-1] == ("y", {"d": pytest.approx(0.35 / 0.95), "v": pytest.approx(0.6 / 0.95)})


async def test_weights_count_in_what_is_fused() -> None:
    rows = {b"x": 0.45, b"y": 0.15, b"z": 0.4}, {b"x": 0.40, b"y": 0.6}
    for weights, written in (((1, 1), "x"), ((1, 3), "y"), ((1, 0), "x")):
        answer = await two(*rows, weights=weights).answer(Request.of("?"))
        assert answer.text == written
        assert len(answer.usage) == (1 if 0 in weights else 2)


async def test_a_drafted_token_that_wins_keeps_its_draft() -> None:
    rows = {b"x": 0.45, b"y": 0.15, b"z": 0.4}, {b"x": 0.40, b"y": 0.6}
    ensemble = two(*rows)
    answer = await ensemble.answer(Request.of("?"))
    assert (answer.text, disputes(answer)) == ("x", [("x", "x")])
    drafter, _ = ensemble.members
    assert drafter.exchanges == 2  # type: ignore[attr-defined]
    assert answer.choices[0].credits == (("x", {"d": pytest.approx(0.45 / 0.85), "v": pytest.approx(0.4 / 0.85)}),)


async def test_a_winner_that_the_drafter_has_no_id_for_is_spelt_by_it() -> None:
    drafter = ScriptedMember(
        "d", [b"a", b"b", b"c", b""], lambda done: {b"": 1.0} if done == b"abc" else {b"c": 0.4, b"a": 0.3, b"b": 0.3}
    )
    verifier = ScriptedMember("v", [b"abc", b"a", b"b", b"c", b""], [b"abc", b""])
    answer = await safe([drafter, verifier]).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == ("abc", "stop")
    assert disputes(answer) == [("c", "abc")]


@pytest.mark.parametrize(("fidelity", "text"), [("fixed", "xy"), ("reference", "x")])
async def test_a_drafted_stop_is_verified(fidelity: str, text: str) -> None:
    tokens = [b"x", b"y", b""]
    drafter = table("d", tokens, [[0.9, 0.1, 0], [0.3, 0.3, 0.4], [0, 0, 1]])
    verifier = table("v", [*tokens, b"q"], [[0.9, 0.1, 0, 0], [0, 0.9, 0.1, 0], [0, 0, 1, 0]])
    answer = await safe([drafter, verifier], fidelity=fidelity).answer(Request.of("?"))
    assert (answer.text, answer.choices[0].finish_reason) == (text, "stop")


async def test_the_fused_may_stop_where_the_drafter_would_go_on() -> None:
    tokens = [b"x", b"y", b""]
    drafter = table("d", tokens, [[0.4, 0.3, 0.3]])
    verifier = table("v", [*tokens, b"q"], [[0.1, 0.0, 0.9, 0]])
    answer = await safe([drafter, verifier]).answer(Request.of("?", max_tokens=5))
    assert (answer.text, answer.choices[0].finish_reason) == ("", "stop")


async def test_the_drafter_may_be_any_member() -> None:
    members = toys((1, MERGED), (2, WORDS), sharpness=2.0)
    named = await safe(members, drafter="m1").answer(Q)
    assert named.text == (await safe(members[::-1]).answer(Q)).text
    assert named.text != (await safe(members).answer(Q)).text


@settings(max_examples=25, deadline=None)
@given(seed=seeds, draft_tokens=lengths)
async def test_where_all_is_disputed_bytes_are_fused_as_by_gac(seed: int, draft_tokens: int) -> None:
    """With flat distributions over bytes every token is in doubt, unless the verifier likes it best, too."""
    members = toys((seed, SINGLE), (seed + 1, SINGLE), sharpness=0.3)
    answer = await safe(members, draft_tokens=draft_tokens, sharpening="none").answer(Q)
    assert answer.text == shown(greedy(members, [0.5, 0.5], b"ab", 12))


async def test_disputes_are_told() -> None:
    answer = await two({b"x": 0.45, b"y": 0.3, b"z": 0.25}, {b"x": 0.40, b"y": 0.6}).answer(Request.of("?"))
    assert answer.choices[0].traces == (Trace("dispute", {"drafted": "x", "elected": "y"}),)


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [
        ({"drafter": "nobody"}, ConfigurationError, "members: a, b"),
        ({"weights": (0, 1)}, ConfigurationError, "weight must be above 0"),
        ({"weights": (1, 2, 3)}, ConfigurationError, "2 members"),
        ({"fuse": "deepen"}, ConfigurationError, "'gac' or 'unite'"),
        ({"sharpening": "max"}, ConfigurationError, "'heur', 'geom' or 'none'"),
        ({"draft_tokens": 0}, ConfigurationError, "greater than or equal to 1"),
        ({"draft_tokens": 65}, ConfigurationError, "cap of 64"),
        ({"gamma": 5}, ConfigurationError, "draft_tokens"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, error, rule: str) -> None:
    with pytest.raises(error, match=rule):
        safe([TinyMember("a"), TinyMember("b")], **options)


async def test_temperature_is_refused_before_any_call() -> None:
    members = [TinyMember("a"), TinyMember("b")]
    with pytest.raises(BadRequest, match="gac and unite") as refusal:
        await safe(members).answer(Request.of("?", temperature=0.7))
    assert refusal.value.param == "temperature"
    assert [member.exchanges for member in members] == [0, 0]


async def test_options_of_a_request_are_checked_like_configured_ones() -> None:
    ensemble = safe([TinyMember("a"), TinyMember("b")])
    with pytest.raises(BadRequest, match="members: a, b"):
        await ensemble.answer(Request(messages=Q.messages, options={"drafter": "c"}))
    with pytest.raises(UnknownOption):
        await ensemble.answer(Request(messages=Q.messages, options={"span": 3}))
