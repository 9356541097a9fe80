"""Similarity-weighted ranking: near battles count more, and battles of equal weight are the global ranking."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.head import Outcome, Preference
from ensemble.before.heads.similarity import SimilarityRanking, weights
from ensemble.before.solvers.strengths import bradley_terry, rated
from ensemble.before.targets.battles import Battles, battles, wins
from tests.ensemble.before.toys import table

ANGLES = (0.9, 0.5, 0.1)
X = np.array([[a, np.sqrt(1 - a * a)] for a in ANGLES], np.float32)
QUERY = np.array([[1.0, 0.0]], np.float32)


def test_weights_as_published() -> None:
    assert weights(np.array([ANGLES]))[0] == pytest.approx([100, 35.938137, 12.915497], abs=5e-7)
    assert weights(np.array([[-0.5, -0.1]])).tolist() == [[10, 10]]


def test_strong_wins_the_near_one_and_loses_the_far_one() -> None:
    found = Battles(np.array([0, 2]), np.array([0, 0]), np.array([1, 1]), np.array([1.0, 0.0]))
    head = SimilarityRanking.fit(X, found, np.array([0.6, 0.4]))
    head.pseudo = 0.0
    ratings = head.rated(QUERY)[0]
    assert ratings[0] - ratings[1] == pytest.approx(355.5555, abs=5e-4)
    assert head.scores(QUERY)[0] == pytest.approx([0.885618, 1 - 0.885618], abs=5e-7)


def test_equal_similarities_give_the_global_rating() -> None:
    training = table(n=60, members=3)
    found = battles(training.table)
    head = SimilarityRanking.fit(np.tile(QUERY, (60, 1)), found, training.table.means)
    # All weigh 100: so do the ties that keep strengths finite here.
    head.pseudo = 100.0
    overall = bradley_terry(wins(found, 60, np.arange(3)).sum(axis=0), pseudo=1.0)
    assert np.allclose(head.rated(QUERY)[0], rated(overall), atol=1e-3)


def test_swapping_the_members_gives_the_rest() -> None:
    training = table(n=60, members=2)
    head = SimilarityRanking.fit(training.x, battles(training.table), training.table.means)
    scores = head.scores(training.x)
    assert np.allclose(scores.sum(axis=1), 1) and ((scores > 0) & (scores < 1)).all()


def test_members_of_one_tier_share_a_rating_and_the_better_one_is_first() -> None:
    training = table(n=120, members=6, tasks=3)
    head = SimilarityRanking.fit(training.x, battles(training.table), training.table.means, groups=2)
    assert sorted(set(head.tier)) == [0, 1] and head.wins.shape[1] == 4
    ratings, top = head.rated(training.x[:5]), head.tier == 1
    assert all(len(set(row)) == 2 for row in ratings.round(6).tolist())
    assert head.scores(training.x[:1])[0, top].argmax() == head.expected[top].argmax()


def test_a_preference_is_effective_at_once_and_locally() -> None:
    training = table(n=60, members=3)
    head = SimilarityRanking.fit(training.x, battles(training.table), training.table.means, sharpness=8.0)
    x = training.x[0]
    before = head.scores(np.stack([x, training.x[1]]))
    for _ in range(70):
        head.prefer(Preference(x=x, winner=2, loser=0))
    after = head.scores(np.stack([x, training.x[1]]))
    assert after[0, 2] > before[0, 2] + 0.1 and after[0, 0] < before[0, 0]
    assert abs(after[1, 2] - before[1, 2]) < (after[0, 2] - before[0, 2]) / 2
    assert head.count == 130


def test_one_outcome_is_a_battle_against_what_is_expected() -> None:
    head = SimilarityRanking.fit(
        X, Battles(np.array([0]), np.array([0]), np.array([1]), np.array([0.5])), np.array([0.4, 0.8])
    )
    head.learn(Outcome(x=X[1], member=0, quality=1.0))
    points = head.wins[1].reshape(2, 2)
    a, b = head.tier
    assert (points[a, b], points[b, a]) == pytest.approx((0.6, 0.4))


def test_members_of_one_tier_have_nobody_to_fight() -> None:
    head = SimilarityRanking.fit(
        X, Battles(np.array([0]), np.array([0]), np.array([1]), np.array([0.5])), np.array([0.4, 0.8])
    )
    head.tier = np.zeros(2, int)
    head.wins = np.zeros((3, 1), np.float32)
    head.learn(Outcome(x=X[1], member=0, quality=1.0))
    head.prefer(Preference(x=X[1], winner=0, loser=1))
    assert head.count == 1


@pytest.mark.parametrize("search", ["exact", "cells"])
def test_a_newcomer_is_a_tier_of_its_own_whose_battles_count_where_they_were_fought(search: str) -> None:
    training, few = table(n=120, members=3), table(n=60, seed=5)
    head = SimilarityRanking.fit(
        training.x, battles(training.table), training.table.means, groups=2, sharpness=4.0, search=search
    )
    own = np.arange(60) % 3 == 0
    wider = head.widen(few.x, own.astype(float))
    assert wider.tier.tolist() == [*head.tier.tolist(), 2] and wider.count == head.count + 60
    before, after = head.scores(few.x), wider.scores(few.x)
    assert after[own, 3].mean() > after[~own, 3].mean() + 0.2
    assert (after[:, :3].argmax(axis=1) == before.argmax(axis=1)).all()
    nobody = head.widen(few.x[:0], np.zeros(0)).scores(few.x)
    assert np.abs(nobody[:, 3] - 0.5).max() < 0.1
    wider.prefer(Preference(x=few.x[0], winner=3, loser=0))
    assert wider.count == head.count + 61
