"""Abilities: every outcome tells a little more of one member's vector, in all families of models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.heads.abilities import Abilities, log_odds, variances
from ensemble.before.heads.head import Outcome
from ensemble.before.heads.latent import Latent
from ensemble.before.heads.network import Network
from ensemble.before.heads.response import Response
from ensemble.before.solvers.convex import sigmoid

D, R, M, H = 4, 3, 3, 5


def latent(positive: bool = False, seed: int = 0) -> Latent:
    random = np.random.default_rng(seed)
    return Latent(
        random.standard_normal((M, R)), np.tile(0.3 * np.eye(R), (M, 1, 1)),
        random.standard_normal((D + 1, R)), random.standard_normal(D + 1), positive,
    )  # fmt: skip


def response(seed: int = 0) -> Response:
    random = np.random.default_rng(seed)
    return Response(
        random.standard_normal((M, R)), np.tile(0.3 * np.eye(R), (M, 1, 1)),
        random.standard_normal((D + 1, R)), random.standard_normal((D + 1, R)),
        random.random((R, H)), random.standard_normal(H), random.random(H), np.array([0.2]),
    )  # fmt: skip


def network(seed: int = 0) -> Network:
    random = np.random.default_rng(seed)
    size = H + 1
    return Network(
        random.standard_normal((M, size)), np.tile(0.3 * np.eye(size), (M, 1, 1)),
        random.standard_normal((D, H)), random.standard_normal(H),
    )  # fmt: skip


KINDS = {"latent": latent, "positive": lambda seed=0: latent(True, seed), "response": response, "network": network}
every = pytest.mark.parametrize("kind", KINDS)
X = np.random.default_rng(7).standard_normal((20, D))


@every
def test_one_member_is_what_all_are(kind: str) -> None:
    head: Abilities = KINDS[kind]()
    columns = [head.linearised(X, vector)[0] for vector in head.vectors]
    np.testing.assert_allclose(head.logits(X), np.stack(columns, axis=1), atol=1e-12)
    np.testing.assert_allclose(head.scores(X), sigmoid(head.logits(X)))


@every
def test_slopes_are_those_of_the_log_odds(kind: str) -> None:
    head: Abilities = KINDS[kind]()
    vector, tiny = head.vectors[0], 1e-6
    _, slopes = head.linearised(X, vector)
    for place in range(len(vector)):
        moved = np.zeros(len(vector))
        moved[place] = tiny
        up, down = head.linearised(X, vector + moved)[0], head.linearised(X, vector - moved)[0]
        np.testing.assert_allclose(slopes[:, place], (up - down) / (2 * tiny), atol=1e-5)


@every
def test_an_outcome_makes_its_member_surer_and_no_other(kind: str) -> None:
    head: Abilities = KINDS[kind]()
    before, spread = head.scores(X), head.spread(X)
    head.learn(Outcome(x=X[0], member=1, quality=1.0))
    after = head.scores(X)
    assert after[0, 1] > before[0, 1]
    assert np.array_equal(after[:, [0, 2]], before[:, [0, 2]])
    trace = np.trace(head.covariances[1])
    assert trace < np.trace(KINDS[kind]().covariances[1])
    assert np.array_equal(head.spread(X)[:, [0, 2]], spread[:, [0, 2]])
    assert np.linalg.eigvalsh(head.covariances[1]).min() > 0


def test_a_step_of_the_filter_is_the_precision_rule() -> None:
    head = latent()
    asked, vector = head.asked(X[:1])[0], head.vectors[2].copy()
    p = head.scores(X[:1])[0, 2]
    precision = np.linalg.inv(head.covariances[2]) + p * (1 - p) * np.outer(asked, asked)
    head.learn(Outcome(x=X[0], member=2, quality=0.0))
    np.testing.assert_allclose(np.linalg.inv(head.covariances[2]), precision, atol=1e-9)
    np.testing.assert_allclose(head.vectors[2], vector + np.linalg.solve(precision, asked) * (0 - p), atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(KINDS)))
def test_the_likeliest_vector_is_a_level_place(seed: int, kind: str) -> None:
    head: Abilities = KINDS[kind](seed)
    random = np.random.default_rng(seed)
    quality, size = random.random(len(X)), head.vectors.shape[1]
    mean, precision = head.vectors.mean(axis=0), 2.0 * np.eye(size)
    found, covariance = head.likeliest(X, quality, mean, precision)
    reached = head._evidence(X, quality, found, mean, precision)
    assert reached >= head._evidence(X, quality, mean, mean, precision)
    if kind in ("latent", "positive"):
        logits, slopes = head.linearised(X, found)
        slope = slopes.T @ (quality - sigmoid(logits)) - precision @ (found - mean)
        np.testing.assert_allclose(slope, 0, atol=1e-3)
        expected = np.linalg.inv(precision + (slopes.T * variances(logits)) @ slopes)
        np.testing.assert_allclose(covariance, expected, atol=1e-9)


@every
def test_a_new_member_leaves_the_others_be(kind: str) -> None:
    head: Abilities = KINDS[kind]()
    like = head.scores(X)[:, 0]
    wide = head.widen(X, like)
    np.testing.assert_allclose(wide.scores(X)[:, :M], head.scores(X), rtol=1e-9)
    mean = head.widen(X[:0], like[:0])
    far, near = (np.abs(one.scores(X)[:, M] - like).mean() for one in (mean, wide))
    assert near < 0.9 * far
    assert wide.spread(X).shape == (20, M + 1)


@every
def test_a_member_without_outcomes_is_a_mean_one(kind: str) -> None:
    head: Abilities = KINDS[kind]()
    wide = head.widen(np.zeros((0, D)), np.zeros(0))
    np.testing.assert_allclose(wide.vectors[M], head.vectors.mean(axis=0))


@every
def test_all_outcomes_together_say_how_sure_it_is(kind: str) -> None:
    head: Abilities = KINDS[kind]()
    quality = np.full((len(X), M), 0.5)
    quality[:, 0] = np.nan
    sure = head.settled(X, quality, variance=4.0)
    np.testing.assert_allclose(sure.covariances[0], 4 * np.eye(head.vectors.shape[1]), atol=1e-9)
    _, slopes = head.linearised(X, head.vectors[1])
    weight = variances(head.logits(X)[:, 1])
    expected = np.linalg.inv(np.eye(len(slopes.T)) / 4 + (slopes.T * weight) @ slopes)
    np.testing.assert_allclose(sure.covariances[1], expected, atol=1e-9)
    assert np.array_equal(sure.vectors, head.vectors)


def test_spread_is_the_delta_method() -> None:
    head = latent()
    asked = head.asked(X)
    std = np.sqrt(np.einsum("nr,rs,ns->n", asked, head.covariances[1], asked))
    np.testing.assert_allclose(head.spread(X)[:, 1], variances(head.logits(X)[:, 1]) * std)
    certain = replace(head, covariances=np.zeros_like(head.covariances))
    assert not certain.spread(X).any()


def test_log_odds_are_kept_finite() -> None:
    assert log_odds(np.array([0.5]))[0] == 0
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
