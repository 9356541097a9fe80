"""Neighbours: what is said of a query, what is forgotten, what a new outcome changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.heads.head import Outcome
from ensemble.before.heads.neighbours import Neighbours
from tests.ensemble.before.toys import table

X = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
QUALITY = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
QUERY = np.array([[0.96, 0.28]])


@pytest.mark.parametrize(("k", "expected"), [(1, (1, 0)), (2, (1, 0.5)), (3, (0.666667, 0.666667)), (4, (0.5, 0.75))])
def test_means_of_the_nearest(k: int, expected: tuple[float, float]) -> None:
    assert Neighbours.fit(X, QUALITY, k).scores(QUERY)[0] == pytest.approx(expected, abs=5e-7)


def test_weights_by_similarity() -> None:
    head = replace(Neighbours.fit(X, QUALITY, 3), similar=True)
    assert head.scores(QUERY)[0] == pytest.approx((0.871324, 0.558824), abs=1e-6)


def test_softmax_weights() -> None:
    head = Neighbours.fit(X, QUALITY, 3, temperature=0.1)
    assert head.scores(QUERY)[0] == pytest.approx((0.999377, 0.440635), abs=1e-6)


def test_opposite_queries_have_no_weight() -> None:
    head = replace(Neighbours.fit(X, QUALITY, 4), similar=True)
    three = replace(head, k=3)
    assert np.allclose(head.scores(QUERY), three.scores(QUERY))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 40))
def test_laws(seed: int, k: int) -> None:
    training = table(40, seed=seed, holes=0.2)
    quality = training.table.quality
    head = Neighbours.fit(training.x, quality, k)
    scores = head.scores(training.x)
    assert (scores >= np.nanmin(quality)).all()
    assert (scores <= np.nanmax(quality)).all()
    order = np.random.default_rng(seed).permutation(40)
    assert np.allclose(Neighbours.fit(training.x[order], quality[order], k).scores(training.x), scores, atol=1e-6)
    twice = Neighbours.fit(np.tile(training.x, (2, 1)), np.tile(quality, (2, 1)), 2 * k)
    assert np.allclose(twice.scores(training.x), scores, atol=1e-6)


def test_all_neighbours_give_the_means_and_the_nearest_its_own_row() -> None:
    training = table(50, holes=0.3)
    quality = training.table.quality
    everyone = Neighbours.fit(training.x, quality, 50)
    assert np.allclose(everyone.scores(training.x), training.table.means, atol=1e-6)
    nearest = Neighbours.fit(training.x, quality, 1).scores(training.x)
    seen = training.table.observed
    assert np.allclose(nearest[seen], quality[seen])


def test_many_numbers_of_neighbours_for_one_comparison() -> None:
    training = table(60, holes=0.2)
    head = Neighbours.fit(training.x, training.table.quality, 5)
    several = head.scores_at(training.x, (1, 5, 20))
    for place, k in enumerate((1, 5, 20)):
        assert np.array_equal(several[place], replace(head, k=k).scores(training.x))


def test_an_outcome_is_a_neighbour_of_its_member_alone() -> None:
    head = Neighbours.fit(X, QUALITY, 1)
    head.learn(Outcome(x=QUERY[0], member=1, quality=0.25))
    assert head.scores(QUERY)[0].tolist() == [1.0, 0.25]
    assert head.scores(X)[2:].tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_a_thousand_outcomes_are_all_kept_in_order() -> None:
    head = Neighbours.fit(X, QUALITY, 1)
    rows = np.random.default_rng(0).standard_normal((1000, 2))
    for place, row in enumerate(rows):
        head.learn(Outcome(x=row, member=0, quality=place / 1000))
    assert np.allclose(head.x[4:], rows.astype(np.float32))
    assert np.allclose(head.quality[4:, 0], np.arange(1000) / 1000)
    assert np.isnan(head.quality[4:, 1]).all()


def test_room_is_made_seldom() -> None:
    head = Neighbours.fit(X, QUALITY, 1)
    rooms = set()
    for _ in range(1000):
        head.learn(Outcome(x=X[0], member=0, quality=1.0))
        rooms.add(id(head.x.base if head.x.base is not None else head.x))
    assert len(rooms) < 15


def test_the_oldest_is_dropped_beyond_the_cap() -> None:
    head = replace(Neighbours.fit(X, QUALITY, 1), cap=4)
    for place in range(500):
        head.learn(Outcome(x=X[place % 4], member=0, quality=place / 500))
    assert len(head.x) == 4
    assert head.quality[:, 0].tolist() == pytest.approx([496 / 500, 497 / 500, 498 / 500, 499 / 500])


def test_old_outcomes_fade() -> None:
    head = replace(Neighbours.fit(X[:1], np.array([[0.0]]), 8), half_life=2.0)
    head.learn(Outcome(x=X[0], member=0, quality=0.0))
    head.learn(Outcome(x=X[0], member=0, quality=0.0))
    head.learn(Outcome(x=X[0], member=0, quality=1.0))
    # Ages 3 (the fit), 2, 1, 0.
    weights = 2.0 ** (-np.array([3, 2, 1, 0]) / 2)
    assert head.scores(X[:1])[0, 0] == pytest.approx(weights[-1] / weights.sum(), abs=1e-6)


def test_rows_of_the_fit_are_of_one_age() -> None:
    head = replace(Neighbours.fit(X, QUALITY, 4), half_life=1.0)
    assert np.allclose(head.scores(QUERY), replace(head, half_life=0.0).scores(QUERY))


def test_a_member_that_comes_later_changes_nobody() -> None:
    training = table(60)
    head = replace(Neighbours.fit(training.x, training.table.quality, 7, pseudo=1.0), half_life=9.0)
    head.learn(Outcome(x=training.x[0], member=0, quality=1.0))
    wider = head.widen(training.x[:9], np.ones(9))
    assert np.allclose(wider.scores(training.x)[:, :3], head.scores(training.x), atol=1e-6)
    assert np.allclose(wider.scores(training.x)[:, 3], 1.0)
    unknown = head.widen(training.x[:0], np.zeros(0)).scores(training.x)[:, 3]
    assert np.allclose(unknown, head.prior.mean())


def test_what_was_learned_is_kept() -> None:
    head = Neighbours.fit(X, QUALITY, 2)
    head.learn(Outcome(x=QUERY[0], member=0, quality=0.5))
    values, tensors = head.packed()
    read = Neighbours.unpacked(values, tensors)
    assert len(tensors["x"]) == 5
    assert np.array_equal(read.scores(QUERY), head.scores(QUERY))
    assert read.learned == 1
