"""Set policies: probabilities over whoever is there, for any preference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.latent import Latent
from ensemble.before.heads.set_policy import SetPolicy, telling
from ensemble.before.solvers.convex import shared, sigmoid
from ensemble.before.solvers.descent import Descent
from ensemble.before.solvers.set_policy import _Game, divergence, surrogate, variational
from tests.ensemble.before.heads.test_abilities import latent
from tests.ensemble.before.toys import table

D, R, M, H = 4, 3, 3, 5
X = np.random.default_rng(7).standard_normal((9, D))


def policy(seed: int = 0, greedy: bool = False) -> SetPolicy:
    random = np.random.default_rng(seed)
    return SetPolicy(
        latent(seed=seed), np.array([0.2, 1.0, 0.5]), 0.4, np.array([1.0]),
        random.standard_normal((R + 4, H)), random.standard_normal((D, H)), random.standard_normal((H, H)),
        random.standard_normal((H, H)), np.zeros(H) if greedy else random.standard_normal(H),
    )  # fmt: skip


def test_the_worked_example() -> None:
    ability = Latent(
        np.array([[1, 0.5]]), np.zeros((1, 2, 2)), np.array([[0, 0], [0.8, 1.2]]), np.array([0, -0.4])
    )  # fmt: skip
    p = ability.scores(np.zeros((1, 1)))[0, 0]
    assert round(p, 6) == 0.731059
    greedy = replace(policy(greedy=True), costs=np.array([0.3])).greedy(np.array([[0.73]]), np.array([[0.2]]))
    assert round(float(greedy[0, 0]), 6) == 0.524
    assert shared(np.array([[1.2, 0.4, -0.3]])).round(6).tolist() == [[0.597922, 0.268664, 0.133414]]


@given(st.integers(0, 200), st.lists(st.booleans(), min_size=M, max_size=M).filter(any), st.floats(0, 1))
def test_it_is_a_distribution_over_whoever_is_there(seed: int, there: list[bool], w: float) -> None:
    found = policy(seed).chances(X, w, np.array(there))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert not found[:, ~np.array(there)].any() and (found >= 0).all()


@given(st.integers(0, 200), st.permutations(range(M)))
def test_the_order_of_members_does_not_matter(seed: int, order: list[int]) -> None:
    one = policy(seed)
    ability = replace(
        one.abilities, vectors=one.abilities.vectors[order], covariances=one.abilities.covariances[order]
    )  # fmt: skip
    other = replace(one, abilities=ability, costs=one.costs[order])
    np.testing.assert_allclose(other.scores(X), one.scores(X)[:, order], atol=1e-12)


def test_who_is_not_there_changes_what_is_said_of_the_set() -> None:
    one = policy()
    there = np.array([True, False, True])
    apart = one.chances(X, 0.4, there)[:, [0, 2]]
    alone = replace(
        one, costs=one.costs[[0, 2]],
        abilities=replace(
            one.abilities, vectors=one.abilities.vectors[[0, 2]], covariances=one.abilities.covariances[[0, 2]]
        ),
    ).scores(X)  # fmt: skip
    np.testing.assert_allclose(apart, alone, atol=1e-12)
    whole = one.scores(X)[:, [0, 2]]
    assert not np.allclose(whole / whole.sum(axis=1, keepdims=True), alone, atol=1e-3)


def test_for_quality_alone_the_greedy_one_orders_by_score() -> None:
    one = policy(greedy=True)
    order = np.argsort(one.chances(X, 0.0), axis=1)
    assert np.array_equal(order, np.argsort(one.abilities.scores(X), axis=1))


@given(st.floats(0.01, 1), st.floats(0.01, 2))
def test_who_is_dearer_is_never_likelier(w: float, more: float) -> None:
    one = policy(greedy=True)
    dearer = replace(one, costs=one.costs + np.array([0, more, 0]))
    assert (dearer.chances(X, w)[:, 1] <= one.chances(X, w)[:, 1]).all()


def test_each_query_may_have_a_preference_of_its_own() -> None:
    one, w = policy(), np.linspace(0, 1, len(X))
    np.testing.assert_allclose(one.chances(X, w)[4], one.chances(X[4:5], float(w[4]))[0])


def test_what_is_fitted_is_what_is_served() -> None:
    one = policy()
    names = ("sharpness", "tokens", "query", "own", "others", "out")
    parameters = {name: torch.tensor(getattr(one, name), dtype=torch.float32) for name in names}
    rows = {
        "x": torch.tensor(X, dtype=torch.float32),
        "score": torch.tensor(one.abilities.scores(X), dtype=torch.float32),
    }
    seen = torch.tensor([[True, True, False]]).expand(len(X), M)
    game = _Game(one.abilities.vectors, one.costs, 0.0, 0)
    logits = game._logits(parameters, rows, torch.full((len(X), 1), 0.3), seen)
    expected = one.chances(X, 0.3, np.array([True, True, False]))
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), expected, atol=1e-5)


def test_divergence_is_none_from_itself() -> None:
    zeros = torch.zeros(2, 3)
    assert divergence(zeros, zeros).item() == 0
    assert divergence(torch.tensor([1.0]), torch.tensor([0.0])).item() == 0.5
    assert divergence(torch.tensor([0.0]), torch.log(torch.tensor([4.0]))).item() == pytest.approx(1.5 - np.log(2))


def test_a_ratio_counts_within_its_bounds_only() -> None:
    old = torch.log(torch.tensor([0.5, 0.5, 0.5, 0.5]))
    new = torch.log(torch.tensor([0.9, 0.9, 0.1, 0.55]))
    found = surrogate(new, old, torch.tensor([1.0, -1.0, -1.0, 2.0]))
    assert found.tolist() == pytest.approx([1.2, -1.8, -0.8, 2.2])


def test_vectors_of_few_outcomes_are_less_sure() -> None:
    training = table(240)
    quality = training.table.quality.copy()
    quality[20:, 0] = np.nan
    options = Descent(epochs=60, rate=0.05, noise=0, decay=0, patience=60, batch=128)
    found = variational(training.x, quality, 3, options, seed=0)
    variance = np.diagonal(found.covariances, axis1=1, axis2=2)
    assert variance[0].mean() > variance[1:].mean()
    assert sigmoid(found.logits(training.x)).shape == (240, 3)


def test_a_quiz_asks_what_members_differ_on_and_no_two_alike() -> None:
    head = latent()
    x = np.concatenate([X, X])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    chosen = telling(head, x, 6)
    assert chosen[0] == int(head.scores(x).var(axis=1).argmax())
    assert len({i % len(X) for i in chosen}) == len(chosen) == 6
    assert sorted(telling(head, x[:3], 9)) == [0, 1, 2]
