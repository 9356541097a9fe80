"""Means under tags: running sums, forms, members that come later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.costs.by_tags import TagCosts, tagged_or_known
from ensemble.before.heads.clusters import Blend, TagMeans, TagRanks, TagTop, TagWinners, balanced
from ensemble.before.heads.head import Outcome
from ensemble.before.targets.tags import NearestTags, RankedTags, Tagger, clustered
from ensemble.outcomes.dense import Floats
from tests.ensemble.before.toys import plain, table


@dataclass
class Given(Tagger, kind="given-tags"):
    """The embedding is the weights."""

    count: int

    @property
    def size(self) -> int:
        return self.count

    def weights(self, x: Floats) -> Floats:
        return x


def means(values: list[list[float]]) -> TagMeans:
    return TagMeans(Given(len(values)), np.array(values), np.ones((len(values), len(values[0]))))


def test_weighted_means() -> None:
    """Bench-CoE: subjects with means (0.7, 0.5) and (0.4, 0.6), a query that is 0.7 / 0.3 of them."""
    query = np.array([[0.7, 0.3]])
    head = means([[0.7, 0.5], [0.4, 0.6]])
    assert head.scores(query)[0] == pytest.approx((0.61, 0.53))
    winners = TagWinners(head.tagger, head.sums, head.counts)
    assert winners.scores(query)[0] == pytest.approx((0.7, 0.3))


def test_balance_of_quality_and_cheapness() -> None:
    """Avengers-Pro: a (0.9, 0.6, 0.5), c (0.05, 0.01, 0.002)."""
    quality, cost = np.array([[0.9, 0.6, 0.5]]), np.array([[0.05, 0.01, 0.002]])
    assert balanced(quality, cost, 0.25)[0] == pytest.approx((0.25, 0.6625, 0.72))
    assert balanced(quality, cost, 0.5)[0] == pytest.approx((0.5, 0.525, 0.48))
    assert balanced(quality, cost, 0.8)[0] == pytest.approx((0.8, 0.36, 0.192))


def test_ranks_under_weights() -> None:
    """Avengers-Pro: ranks (0, 1, 2), (1, 0, 2), (2, 0, 1) under weights 0.838488, 0.138601, 0.022911."""
    quality = np.array([[0.9, 0.5, 0.1], [0.5, 0.9, 0.1], [0.1, 0.9, 0.5]])
    head = TagRanks(Given(3), quality, np.ones((3, 3)), balance=1.0)
    scores = head.scores(np.array([[0.838488, 0.138601, 0.022911]]))[0]
    assert scores == pytest.approx((0.915426, 0.580756, 0.337152), abs=2e-6)


def test_without_balance_the_cheapest_ranks_first() -> None:
    money = np.array([[3.0, 1.0, 2.0]])
    head = TagRanks(Given(1), np.array([[1.0, 0.0, 0.5]]), np.ones((1, 3)), balance=0.0, money=money, paid=money**0)
    assert head.values()[0].tolist() == [pytest.approx(1 / 3), 1.0, 0.5]


def test_ranks_learn_costs() -> None:
    head = TagRanks(
        Given(1), np.array([[1.0, 1.0]]), np.ones((1, 2)), balance=0.5, money=np.ones((1, 2)), paid=np.ones((1, 2))
    )
    assert head.values()[0].tolist() == [1.0, 0.5]
    head.learn(Outcome(x=np.ones(1), member=0, quality=1.0, cost=9.0))
    assert head.values()[0].tolist() == [0.5, 1.0]


def test_members_of_some_success_vote() -> None:
    """Lessons learned: success A (0.90, 0.99), B (0.40, 0.60)."""
    success = np.array([[0.90, 0.99], [0.40, 0.60]])

    def values(least: float) -> list[list[float]]:
        return TagTop(Given(2), success, np.ones((2, 2)), least=least).values().tolist()

    assert values(0.95) == [[0.0, 0.99], [0.0, 0.60]]
    assert values(0.0) == success.tolist()
    assert values(1.1) == [[0.0, 0.99], [0.0, 0.60]]


def test_one_cluster_is_the_best_single_member() -> None:
    training = table(60, holes=0.3)
    head = TagMeans.of(NearestTags(np.eye(8)[:1], 1, 1.0), training.x, training.table.quality)
    assert np.allclose(head.scores(training.x), training.table.means)


def test_a_cluster_for_each_query_is_the_nearest_neighbour() -> None:
    training = table(20)
    head = TagMeans.of(NearestTags(training.x.astype(float), 1, 1.0), training.x, training.table.quality)
    assert np.array_equal(head.scores(training.x), training.table.quality)


def test_the_order_of_clusters_does_not_matter() -> None:
    training = table(60)
    centres = clustered(training.x, 6)

    def scores(order: np.ndarray) -> np.ndarray:
        tagger = NearestTags(centres[order], 3, 9.0)
        return TagMeans.of(tagger, training.x, training.table.quality, 5.0).scores(training.x)

    assert np.allclose(scores(np.arange(6)), scores(np.array([3, 1, 5, 0, 2, 4])))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.booleans())
def test_what_is_learned_is_as_if_it_had_been_there(seed: int, ranked: bool) -> None:
    training = table(30, seed=seed, holes=0.4)
    tagger = RankedTags(np.eye(8)[:3], 2, 0.5) if ranked else NearestTags(np.eye(8)[:3], 2, 4.0)
    whole = TagMeans.of(tagger, training.x, training.table.quality, 2.0)
    head = TagMeans.of(tagger, training.x[:10], training.table.quality[:10], 2.0)
    for row in range(10, 30):
        for member in np.flatnonzero(training.table.observed[row]):
            quality = float(training.table.quality[row, member])
            head.learn(Outcome(x=training.x[row], member=int(member), quality=quality))
    assert np.allclose(head.sums, whole.sums)
    assert np.allclose(head.scores(training.x), whole.scores(training.x))


def test_means_of_few_are_drawn_to_the_members_own() -> None:
    head = TagMeans(Given(2), np.array([[8.0], [1.0]]), np.array([[16.0], [1.0]]), 5.0)
    overall = 9 / 17
    assert head.means[:, 0] == pytest.approx([(8 + 5 * overall) / 21, (1 + 5 * overall) / 6])


def test_a_member_that_comes_later_changes_nobody() -> None:
    training = table(60)
    head = TagMeans.of(NearestTags(np.eye(8)[:3], 2, 4.0), training.x, training.table.quality, 5.0)
    wider = head.widen(training.x[:30], training.table.quality[:30, 1])
    assert np.array_equal(wider.scores(training.x)[:, :3], head.scores(training.x))
    assert (wider.scores(training.x)[1::3, 3] > wider.scores(training.x)[::3, 3].mean()).all()
    unknown = head.widen(training.x[:0], np.zeros(0)).scores(training.x)[:, 3]
    assert np.allclose(unknown, head.means.mean(), atol=0.1)


@pytest.mark.parametrize("kind", [TagWinners, TagTop, TagRanks])
def test_forms_that_compare_members_keep_what_they_know_of_the_others(kind: type[TagMeans]) -> None:
    head = kind(Given(1), np.array([[8.0, 5.0]]), np.full((1, 2), 10.0))
    good, poor = (head.widen(np.ones((20, 1)), np.full(20, q)) for q in (1.0, 0.0))
    assert np.array_equal(good.means[:, :2], head.means)
    assert good.scores(np.ones((1, 1)))[0].argmax() == 2 and poor.scores(np.ones((1, 1)))[0].argmax() == 0


def test_ranks_hold_a_newcomers_cost_against_the_others() -> None:
    half = np.full((1, 2), 5.0)
    head = TagRanks(Given(1), half, 2 * half, money=np.array([[10.0, 30.0]]), paid=2 * half)
    wider = head.widen(np.ones((10, 1)), np.full(10, 0.5))
    assert wider.values()[0].argmax() == 0
    assert wider.priced(0.1).values()[0].argmax() == 2 and wider.priced(9.0).values()[0].argmin() == 2


def test_a_blend_learns_in_both() -> None:
    head = Blend(means([[0.2, 0.4]]), means([[0.4, 0.8]]))
    one = np.ones((1, 1))
    assert head.scores(one)[0] == pytest.approx((0.3, 0.6))
    head.learn(Outcome(x=one[0], member=0, quality=1.0))
    assert head.scores(one)[0] == pytest.approx(((0.6 + 0.7) / 2, 0.6))
    assert head.widen(one[:0], np.zeros(0)).scores(one).shape == (1, 3)


def test_costs_under_tags() -> None:
    training = plain(np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones((2, 2)), cost=np.array([[1.0, np.nan], [3.0, 4.0]]))
    costs = TagCosts.of_tags(Given(2), training)
    assert costs.of(np.array([[0.5, 0.5]]), np.zeros(1))[0] == pytest.approx((2.0, 4.0))
    assert costs.widen(7.0).of(np.array([[0.5, 0.5]]), np.zeros(1))[0].tolist() == [2.0, 4.0, 7.0]


def test_costs_of_whom_nothing_is_recorded_are_what_else_is_known() -> None:
    training = plain(np.eye(2), np.ones((2, 2)), cost=np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert tagged_or_known(Given(2), training, 0.0).kind == "mean-costs"
    assert tagged_or_known(Given(8), table(9), 0.0).kind == "tag-costs"
