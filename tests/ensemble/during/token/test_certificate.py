"""What the certificate says of top-k lists is what the whole vocabularies say."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import CONTROL, MERGED, SINGLE, WORDS, vocabulary

from ensemble.distributions import likeliest, log_softmax
from ensemble.during.token.election.certificate import (
    Certain,
    Evidence,
    LookUp,
    Tally,
    Widen,
    clear_winner,
    tally,
    unknown_ids,
    verdict,
    whole,
)
from ensemble.member import Floats
from ensemble.vocabulary import STOP, Union, Vocabulary

STRINGS = (b"", CONTROL, b"a", b"b", b"ab", b"abc", b"c", b" ")


def elected(union: Union, rows: Sequence[Floats], weights: Sequence[float], k: int) -> tuple[int, list[str]]:
    """The class elected from lists of ``k``, asking on as the verdicts say; and those verdicts."""
    evidence = [Evidence.of(likeliest(row, k)) for row in rows]
    path: list[str] = []
    while True:
        seen = tally(union, evidence, weights)
        said = verdict(seen)
        path.append(type(said).__name__)
        if isinstance(said, Certain):
            return int(seen.classes[said.column]), path
        if isinstance(said, Widen):
            k *= 2
            evidence = [Evidence.of(likeliest(row, k)) for row in rows]
        else:
            for member, ids in unknown_ids(union, evidence, seen, said.columns).items():
                evidence[member] = evidence[member].joined(ids, rows[member][list(ids)])


def complete(union: Union, rows: Sequence[Floats], weights: Sequence[float]) -> Tally:
    return whole(union, [Evidence.of(likeliest(row, 0)) for row in rows], weights)


vocabularies = st.lists(st.sampled_from(STRINGS), min_size=2, max_size=14).map(vocabulary)


@given(
    st.lists(vocabularies, min_size=1, max_size=3),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 1.0, 4.0]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_lists_of_any_length_elect_what_whole_vocabularies_elect(
    members: list[Vocabulary], seed: int, sharpness: float, single: bool
) -> None:
    rng = np.random.default_rng(seed)
    union = Union(members)
    rows = [log_softmax(rng.normal(size=v.size) * sharpness) for v in members]
    rows = [row.astype(np.float32) if single else row for row in rows]
    weights = rng.dirichlet(np.ones(len(members)))
    known = complete(union, rows, weights).known
    for k in range(1, max(v.size for v in members) + 1):
        class_, path = elected(union, rows, weights, k)
        assert known[class_] >= known.max() - 1e-12, (k, path)
        if np.count_nonzero(known >= known.max() - 1e-12) == 1:
            assert class_ == int(np.argmax(known))


@given(
    st.lists(vocabularies, min_size=1, max_size=3),
    st.integers(0, 2**32),
    st.sampled_from([0.1, 1.0, 4.0, 9.0]),
    st.integers(1, 14),
)
def test_a_clear_winner_is_the_winner_of_the_whole_vocabularies(
    members: list[Vocabulary], seed: int, spread: float, k: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = [log_softmax(spread * rng.standard_normal(v.size)) for v in members]
    weights = rng.dirichlet(np.ones(len(members))).tolist()
    union = Union(members)
    found = clear_winner(union, [Evidence.of(likeliest(row, k)) for row in rows], weights)
    if found is not None:
        seen = complete(union, rows, weights)
        winner, masses = found
        assert winner == int(seen.known.argmax())
        assert all(told <= whole + 1e-9 for told, whole in zip(masses, seen.masses[:, winner], strict=True))


def test_peaked_lists_have_a_clear_winner_and_flat_ones_do_not() -> None:
    union, (first, second) = pair({b"a": 0.9, b"b": 0.06, b"c": 0.04}, {b"a": 0.8, b"b": 0.15, b"c": 0.05})
    peaked = [Evidence.of(likeliest(row, 2)) for row in (first, second)]
    assert clear_winner(union, peaked, [0.5, 0.5]) is not None
    union, rows = pair({b"a": 0.4, b"b": 0.35, b"c": 0.25}, {b"a": 0.34, b"b": 0.36, b"c": 0.3})
    assert clear_winner(union, [Evidence.of(likeliest(row, 1)) for row in rows], [0.5, 0.5]) is None


@given(st.integers(0, 2**32), st.integers(1, 13))
@settings(max_examples=60, deadline=None)
def test_members_of_different_tokenisation_with_duplicates_stops_and_controls(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    members = [vocabulary(tokens) for tokens in (MERGED, SINGLE, WORDS)]
    union = Union(members)
    rows = [log_softmax(rng.normal(size=v.size) * 2) for v in members]
    assert elected(union, rows, [0.5, 0.3, 0.2], k)[0] == int(np.argmax(complete(union, rows, [0.5, 0.3, 0.2]).known))


def pair(first: dict[bytes, float], second: dict[bytes, float]) -> tuple[Union, list[Floats]]:
    tokens = (*sorted(set(first) | set(second)), b"unused", b"")
    union = Union([vocabulary(tokens)] * 2)
    with np.errstate(divide="ignore"):
        return union, [np.log([row.get(token, 0.0) for token in tokens]) for row in (first, second)]


def test_a_clear_case_is_certain_at_once() -> None:
    union, rows = pair({b"x": 0.6, b"y": 0.2, b"z": 0.2}, {b"x": 0.4, b"z": 0.3, b"y": 0.3})
    class_, path = elected(union, rows, [0.5, 0.5], k=2)
    assert (union.bytes_of(class_), path) == (b"x", ["Certain"])


def test_what_no_list_decides_is_looked_up() -> None:
    union, rows = pair({b"x": 0.4, b"y": 0.35, b"z": 0.25}, {b"z": 0.45, b"y": 0.3, b"x": 0.25})
    seen = tally(union, [Evidence.of(likeliest(row, 2)) for row in rows], [0.5, 0.5])
    by_bytes = {union.bytes_of(int(c)): i for i, c in enumerate(seen.classes)}
    assert seen.known[by_bytes[b"y"]] == pytest.approx(0.325)
    upper = seen.known + seen.missing
    assert upper[by_bytes[b"x"]] == pytest.approx(0.325, abs=1e-4)
    assert upper[by_bytes[b"z"]] == pytest.approx(0.35, abs=1e-4)
    assert isinstance(verdict(seen), LookUp)
    class_, path = elected(union, rows, [0.5, 0.5], k=2)
    assert (union.bytes_of(class_), path) == (b"z", ["LookUp", "Certain"])


def test_a_class_that_nobody_listed_may_win() -> None:
    union, rows = pair({b"x": 0.4, b"u": 0.35, b"y": 0.25}, {b"z": 0.4, b"u": 0.35, b"w": 0.25})
    class_, path = elected(union, rows, [0.5, 0.5], k=1)
    assert (union.bytes_of(class_), path[0]) == (b"u", "Widen")


def test_only_members_with_unknown_ids_are_asked_for_them() -> None:
    union, rows = pair({b"x": 0.4, b"y": 0.35, b"z": 0.25}, {b"x": 0.5, b"z": 0.3, b"y": 0.2})
    evidence = [Evidence.of(likeliest(rows[0], 2)), Evidence.of(likeliest(rows[1], 3))]
    seen = tally(union, evidence, [0.5, 0.5])
    wanted = unknown_ids(union, evidence, seen, range(1, len(seen.classes)))
    assert {m: [union.bytes_of(int(union.classes[m][i])) for i in ids] for m, ids in wanted.items()} == {0: [b"z"]}


def test_control_ids_are_never_elected() -> None:
    members = [vocabulary((CONTROL, b"a", b""))] * 2
    union = Union(members)
    rows = [np.log([0.98, 0.015, 0.005])] * 2
    for k in (1, 2, 3):
        assert union.bytes_of(elected(union, rows, [0.5, 0.5], k)[0]) == b"a"


def test_stop_ids_are_one_class_even_where_none_is_listed() -> None:
    members = [vocabulary((b"a", b"", b"", b""))]
    rows = [np.log([0.31, 0.23, 0.23, 0.23])]
    class_, path = elected(Union(members), rows, [1.0], k=1)
    assert class_ == STOP and path[0] != "Certain"


def test_ties_go_to_the_stop_class_then_to_the_smaller_bytes() -> None:
    union = Union([vocabulary((b"b", b"a", b""))])
    assert elected(union, [np.log([0.25, 0.25, 0.5])], [1.0], 3)[0] == STOP
    quarter = np.log([0.375, 0.375, 0.25])
    for k in (1, 2, 3):
        assert union.bytes_of(elected(union, [quarter], [1.0], k)[0]) == b"a"


def test_a_lead_within_rounding_is_not_trusted() -> None:
    union, rows = pair({b"x": 0.5 + 1e-7, b"y": 0.5 - 1e-7}, {b"x": 0.5, b"y": 0.5})
    evidence = [Evidence.of(likeliest(rows[0], 1)), Evidence.of(likeliest(rows[1], 2))]
    assert isinstance(verdict(tally(union, evidence, [0.5, 0.5])), LookUp)
    assert union.bytes_of(elected(union, rows, [0.5, 0.5], 1)[0]) == b"x"


def test_look_ups_make_a_complete_distribution_exact() -> None:
    row = log_softmax(np.array([3.0, 2.0, 1.0, 0.0]))
    told = Evidence.of(likeliest(row, 2))
    assert told.tail >= np.exp(row[2:]).sum() and told.floor >= np.exp(row[2])
    partly = told.joined([3], row[[3]])
    assert np.exp(row[2]) <= partly.tail < told.tail
    assert partly.joined([2], row[[2]]).tail == 0 == partly.joined([2], row[[2]]).floor


def test_a_whole_tally_sums_to_the_mass_that_may_be_written() -> None:
    members = [vocabulary(MERGED), vocabulary(WORDS)]
    rng = np.random.default_rng(0)
    rows = [log_softmax(rng.normal(size=v.size)) for v in members]
    seen = complete(Union(members), rows, [0.5, 0.5])
    writable = [np.exp(row)[v.writable].sum() for row, v in zip(rows, members, strict=True)]
    assert seen.known.sum() == pytest.approx(np.mean(writable), abs=1e-12)
    assert seen.ceiling == seen.known.max()


@pytest.mark.slow
def test_two_members_of_fifty_thousand_tokens_take_less_than_a_third_of_a_millisecond() -> None:
    rng = np.random.default_rng(0)
    members = [Vocabulary((b"", *(b"%d" % i for i in rng.permutation(60_000)[:50_000])), frozenset({0})) for _ in "ab"]
    union = Union(members)
    lists = [likeliest(log_softmax(rng.normal(size=50_001).astype(np.float32) * 4), 20) for _ in members]
    times = []
    for _ in range(500):
        begin = time.perf_counter()
        verdict(tally(union, [Evidence.of(listed) for listed in lists], [0.5, 0.5]))
        times.append(time.perf_counter() - begin)
    assert np.median(times) < 3e-4
