"""Elo: global and local ratings, and what feedback does to them."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads import elo
from ensemble.before.heads.elo import Elo
from ensemble.before.heads.head import Outcome, Preference
from ensemble.before.targets.battles import Battles, battles
from tests.ensemble.before.toys import table

X = np.eye(3, dtype=np.float32)


def head(*fought: tuple[int, int, int, float], members: int = 2, **options: float) -> Elo:
    """After battles (query, first, second, score) in this order."""
    rows, first, second, score = (np.array(column) for column in zip(*fought, strict=True))
    return Elo.fit(X, Battles(rows, first, second, score.astype(float)), np.full(members, 0.5), **options)


def fitted(**options: float) -> Elo:
    training = table(n=90, members=4)
    return Elo.fit(training.x, battles(training.table), training.table.means, **options)


def test_local_ratings_move_on_from_the_global_ones() -> None:
    # Two wins overall; of them the query's neighbourhood replays a loss alone.
    given = head((0, 0, 1, 1.0), (0, 0, 1, 1.0), neighbours=1, averaged=False)
    assert given.ratings == pytest.approx([1030.5305, 969.4695], abs=5e-5)
    given.x[0], given.first[:], given.score[:] = X[0], 0, 0.0
    given.first, given.second, given.score = given.first[:1], given.second[:1], given.score[:1]
    given.fought = 1
    assert given.rated(X[:1])[0] == pytest.approx([1021.1388, 978.8612], abs=5e-5)


def test_a_win_against_an_equal_moves_half_a_step() -> None:
    assert head((0, 0, 1, 1.0), step=20.0).ratings.tolist() == [1010.0, 990.0]


def test_the_average_is_of_the_ratings_after_each_battle() -> None:
    found = head((0, 0, 1, 1.0), (1, 1, 0, 1.0), (2, 0, 1, 0.5))
    ratings = [1000.0, 1000.0]
    after = []
    for first, second, score in ((0, 1, 1.0), (1, 0, 1.0), (0, 1, 0.5)):
        elo.elo_step(ratings, first, second, score, 32)
        after.append(list(ratings))
    assert found.averages == pytest.approx(np.mean(after, axis=0)) and found.ratings == pytest.approx(after[-1])


def test_a_share_of_one_ignores_the_query() -> None:
    assert np.ptp(fitted(share=1.0).scores(table(n=30, members=4).x), axis=0).max() == 0


def test_without_neighbours_the_local_rating_is_the_global_one() -> None:
    found = fitted(neighbours=0, share=0.0)
    assert np.allclose(found.rated(table(n=5, members=4).x), found.overall)


def test_the_sum_of_ratings_is_conserved() -> None:
    found = fitted(share=0.2)
    assert np.allclose(found.rated(table(n=40, members=4).x).sum(axis=1), 4000)
    assert found.overall.sum() == pytest.approx(4000)


def test_a_few_queries_and_many_are_replayed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found, x = fitted(), table(n=40, members=4, seed=3).x
    monkeypatch.setattr(elo, "_BLOCK", 25)
    assert np.allclose(found.rated(x), np.concatenate([found.rated(row[None]) for row in x]))


def test_a_preference_counts_at_once_and_most_where_it_was_told() -> None:
    found = head((0, 0, 1, 1.0), (1, 0, 1, 1.0), (2, 0, 1, 1.0), members=3, neighbours=1)
    x = (X[:1] + X[1:2]) / np.sqrt(2, dtype=np.float32)
    found.prefer(Preference(x=x[0], winner=1, loser=0))
    overall = found.overall.tolist()
    near, far = list(overall), list(overall)
    elo.elo_step(near, 1, 0, 1.0, 32)
    elo.elo_step(far, 0, 1, 1.0, 32)
    assert found.rated(x)[0] == pytest.approx((np.array(overall) + near) / 2)
    assert found.rated(X[2:])[0] == pytest.approx((np.array(overall) + far) / 2)
    assert overall[2] == 1000 and (found.count, found.fought) == (4, 4)


def test_a_tie_draws_ratings_together() -> None:
    found = head((0, 0, 1, 1.0))
    found.prefer(Preference(x=X[0], winner=0, loser=1, tie=True))
    assert 1000 < found.ratings[0] < 1016


def test_one_outcome_is_a_battle_against_what_is_expected_of_the_best_of_the_others() -> None:
    found = head((0, 0, 1, 0.5), (0, 1, 2, 0.5), members=3)
    found.expected = np.array([0.2, 0.9, 0.6])
    found.learn(Outcome(x=X[1], member=0, quality=1.0))
    # 1 against 0.9 expected: a score of 0.55 against member 1; from equal ratings 0.05 of a step.
    assert found.ratings == pytest.approx([1001.6, 998.4, 1000.0])
    found.learn(Outcome(x=X[1], member=1, quality=0.6))
    assert found.ratings[1] < 1000 and found.ratings[0] == pytest.approx(1001.6)
    assert found.ratings[2] == pytest.approx(1000 + (998.4 - found.ratings[1]), abs=1e-9)


def test_appends_leave_what_was_stored() -> None:
    found = fitted()
    before = (found.x.copy(), found.first.copy(), found.begins.copy())
    for place in range(70):
        found.prefer(Preference(x=before[0][place], winner=place % 4, loser=(place + 1) % 4))
    now = (found.x, found.first, found.begins)
    assert all(np.array_equal(new[: len(old)], old) for new, old in zip(now, before, strict=True))
    assert found.begins[found.count - 1] == found.fought - 1


@pytest.mark.parametrize("search", ["exact", "cells"])
def test_a_newcomer_is_rated_by_its_outcomes_and_moves_no_global_rating(search: str) -> None:
    training, given = table(n=40, seed=5), fitted(search=search)
    good, poor, nobody = (given.widen(training.x[:n], np.full(n, q)) for n, q in ((40, 1.0), (40, 0.0), (0, 0.0)))
    for wider in (good, poor, nobody):
        assert np.array_equal(wider.overall[:4], given.overall) and len(wider.scores(training.x)[0]) == 5
    assert good.overall[4] > given.overall.max() and poor.overall[4] < given.overall.min()
    assert given.overall.min() < nobody.overall[4] < given.overall.max()
    assert nobody.scores(training.x)[:, :4].argmax(axis=1).tolist() == given.scores(training.x).argmax(axis=1).tolist()
    assert (good.count, good.fought) == (given.count + 40, given.fought + 160)
    good.prefer(Preference(x=training.x[0], winner=4, loser=0))
    assert good.overall[4] > good.overall[0]


def test_a_newcomers_battles_move_its_rating_where_they_were_fought() -> None:
    training, given = table(n=60, seed=5), fitted(neighbours=20, share=0.0)
    own = np.arange(60) % 3 == 0
    rated = given.widen(training.x, own.astype(float)).rated(training.x)[:, 4]
    assert rated[own].mean() > rated[~own].mean() + 30
