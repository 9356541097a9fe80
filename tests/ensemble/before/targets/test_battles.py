"""Battles of a table: every observed pair, ties and holes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.targets.battles import Battles, battles, expected_score, wins
from ensemble.outcomes.dense import Dense

NAN = np.nan


def dense(quality: list[list[float]]) -> Dense:
    names = tuple(str(i) for i in range(len(quality)))
    members = tuple("abcdef"[: len(quality[0])])
    return Dense(queries=names, texts=names, members=members, quality=np.array(quality))


def listed(found: Battles) -> list[tuple[int, int, int, float]]:
    columns = (found.rows, found.first, found.second, found.score)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_all_pairs_fight_and_equals_tie() -> None:
    found = battles(dense([[1.0, 0.0, 1.0]]))
    assert listed(found) == [(0, 0, 1, 1.0), (0, 0, 2, 0.5), (0, 1, 2, 0.0)]


def test_holes_do_not_fight() -> None:
    found = battles(dense([[NAN, 0.0, 1.0], [NAN, NAN, 1.0], [1.0, 0.5, NAN]]))
    assert listed(found) == [(0, 1, 2, 0.0), (2, 0, 1, 1.0)]
    assert len(battles(dense([[1.0, NAN]]))) == 0


def test_small_differences_tie_within_the_margin() -> None:
    assert battles(dense([[0.6, 0.5]]), margin=0.1001).score.tolist() == [0.5]
    assert battles(dense([[0.6, 0.5]]), margin=0.05).score.tolist() == [1.0]


def test_of_many_pairs_some_are_drawn_from_the_observed_ones() -> None:
    table = dense([[1.0, NAN, 0.0, NAN, 0.5, NAN]] * 50)
    found = battles(table, most=2)
    assert np.bincount(found.rows).tolist() == [2] * 50
    assert not np.isin(np.concatenate([found.first, found.second]), [1, 3, 5]).any()
    assert len({(a, b) for _, a, b, _ in listed(found)}) == 3
    assert listed(battles(table, most=2)) == listed(found) != listed(battles(table, most=2, seed=1))


def test_points_are_counted_by_group() -> None:
    table = dense([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    points = wins(battles(table), 2, np.array([0, 0, 1]))
    assert points.tolist() == [[[0, 0.5], [1.5, 0]], [[0, 0], [2, 0]]]


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, NAN])] * 3), min_size=1, max_size=8))
def test_each_battle_gives_one_point(rows: list[tuple[float, float, float]]) -> None:
    table = dense([list(row) for row in rows])
    found = battles(table)
    points = wins(found, len(table), np.arange(3))
    assert points.sum() == len(found)
    assert np.allclose(points.sum(axis=(1, 2)), np.bincount(found.rows, minlength=len(table)))


def test_an_outcome_is_worth_what_it_may_expect_against_a_member_of_that_quality() -> None:
    # A right answer ties with a right one and beats a wrong one.
    assert expected_score(1.0, 0.6) == pytest.approx(0.6 * 0.5 + 0.4)
    assert expected_score(0.0, 0.6) == pytest.approx(0.4 * 0.5)
    assert expected_score(0.6, 0.6) == 0.5
