"""Duels: the factorised score, its fit and its steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.duels import Descent, Duels, fitted
from ensemble.before.heads.head import Outcome, Preference
from tests.ensemble.before.toys import permuted, table

TWO = st.tuples(st.floats(-2, 2), st.floats(-2, 2))


def duels(*vectors: tuple[float, float], biases: tuple[float, ...] = (0, 0)) -> Duels:
    """The query is its own projection."""
    return Duels(np.array(vectors), np.eye(2), np.ones(2), np.array(biases, float), np.array([0.8, 0.6]))


def drawn(members: int = 4) -> Duels:
    random = np.random.default_rng(0)
    vectors, projection = random.standard_normal((members, 5)), random.standard_normal((5, 8))
    return Duels(vectors, projection, np.ones(5), np.zeros(members), np.linspace(0.2, 0.8, members))


def test_the_score_as_worked_out() -> None:
    head = duels((0.6, 0.8), (1.0, 0.0))
    x = np.array([[0.5, 2.0]])
    assert head.strengths(x)[0] == pytest.approx([1.9, 0.5], abs=5e-7)
    assert head.scores(x)[0] == pytest.approx([0.802184, 1 - 0.802184], abs=5e-7)


@given(TWO, TWO, TWO)
def test_equal_members_win_half_and_swapping_gives_the_rest(
    v: tuple[float, float], w: tuple[float, float], x: tuple[float, float]
) -> None:
    v, w = (v[0] + 3, v[1]), (w[0] + 3, w[1])
    row = np.array([x])
    assert duels(v, v).scores(row)[0] == pytest.approx([0.5, 0.5])
    assert duels(v, w).scores(row)[0] == pytest.approx(duels(w, v).scores(row)[0, ::-1])
    assert duels(v, w).scores(row).sum() == pytest.approx(1)


def test_only_the_direction_of_a_vector_counts() -> None:
    assert np.allclose(duels((6.0, 8.0), (0.5, 0.0)).strengths(np.ones((1, 2))), [1.4, 1.0])


def test_a_preference_moves_the_two_members_only() -> None:
    head, x = drawn(), table(n=20, members=4).x
    before = head.strengths(x)
    head.prefer(Preference(x=x[0], winner=1, loser=3))
    moved = head.strengths(x) - before
    assert np.abs(moved[:, [0, 2]]).max() == 0
    assert moved[0, 1] > 0 > moved[0, 3]


def test_a_step_goes_down_the_slope_of_the_loss() -> None:
    head, x = drawn(), table(n=1, members=4).x[0]
    head.rate = 1e-6

    def loss() -> float:
        strengths = head.strengths(x[None])[0]
        return float(np.log1p(np.exp(strengths[3] - strengths[1])))

    before, vectors, biases = loss(), head.vectors.copy(), head.biases.copy()
    head.prefer(Preference(x=x, winner=1, loser=3))
    step = np.concatenate([(head.vectors - vectors).ravel(), head.biases - biases]) / head.rate
    # Down the slope by a rate, a loss falls by that rate times the slope's square.
    assert before - loss() == pytest.approx(head.rate * (step**2).sum(), rel=1e-3)


def test_one_outcome_moves_its_member_alone() -> None:
    head, x = drawn(), table(n=20, members=4).x
    before = head.strengths(x)
    head.learn(Outcome(x=x[0], member=0, quality=1.0))
    moved = head.strengths(x) - before
    assert np.abs(moved[:, 1:]).max() == 0 and moved[0, 0] > 0
    head.learn(Outcome(x=x[0], member=0, quality=0.0))
    assert head.strengths(x)[0, 0] < before[0, 0] + moved[0, 0]


def fit(members: int = 3, **options: object) -> tuple[Duels, np.ndarray, np.ndarray]:
    training = table(n=200, members=members)
    descent = Descent(size=8, epochs=12, rate=0.02, noise=0.02, **options)  # type: ignore[arg-type]
    head = fitted(training.x, training.table.quality, training.table.means, descent)
    return head, training.x, training.table.quality


def test_the_fit_finds_whose_queries_these_are() -> None:
    head, x, quality = fit()
    assert quality[np.arange(200), head.scores(x).argmax(axis=1)].mean() > quality.mean(axis=0).max() + 0.15


def test_equal_seeds_give_equal_fits() -> None:
    assert np.array_equal(fit()[0].vectors, fit()[0].vectors)
    assert not np.array_equal(fit()[0].vectors, fit(seed=1)[0].vectors)


def test_the_reference_form_has_no_bias() -> None:
    assert not fit(ties=False, biases=False)[0].biases.any()
    assert fit()[0].biases.any()


def test_ties_hold_members_together() -> None:
    x = np.tile(np.eye(2), (50, 1))
    quality = np.ones((100, 2))
    quality[:10, 1] = 0
    descent = Descent(size=4, epochs=20, rate=0.02, noise=0.0)
    kept = fitted(x, quality, np.array([1.0, 0.9]), descent).scores(x)[:, 0].mean()
    dropped = fitted(x, quality, np.array([1.0, 0.9]), Descent(size=4, epochs=20, rate=0.02, noise=0.0, ties=False))
    assert kept == pytest.approx(0.55, abs=0.03) and dropped.scores(x)[:, 0].mean() > 0.8


def test_holes_are_no_battles() -> None:
    training = table(n=100, members=3, holes=0.5)
    descent = Descent(size=4, epochs=2)
    quality = training.table.quality.copy()
    alone = np.isnan(quality).sum(axis=1) == 2
    assert alone.any()
    quality[alone] = 1 - quality[alone]
    first = fitted(training.x, training.table.quality, np.ones(3), descent)
    assert np.array_equal(first.vectors, fitted(training.x, quality, np.ones(3), descent).vectors)
    assert np.isfinite(first.scores(training.x)).all()


def test_a_new_member_begins_like_one_of_its_kind() -> None:
    head, x = drawn(), table(n=20, members=4).x
    wide = head.widen(x[:3], np.array([1.0, 0.6, 0.8]))
    assert np.array_equal(wide.strengths(x)[:, :4], head.strengths(x))
    assert wide.expected[-1] == pytest.approx(0.8)
    assert np.allclose(head.widen(x[:0], np.zeros(0)).strengths(x)[:, 4], head.strengths(x)[:, 1])


def test_the_order_of_members_does_not_matter_to_battles() -> None:
    training = table(n=60, members=3)
    head = drawn(3)
    other = Duels(head.vectors[[2, 0, 1]], head.projection, head.weights, head.biases, head.expected[[2, 0, 1]])
    assert np.allclose(other.scores(permuted(training, [2, 0, 1]).x), head.scores(training.x)[:, [2, 0, 1]])
