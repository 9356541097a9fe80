"""Weights of a member that comes later: like the others at first, and like its outcomes in the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ensemble.before.solvers.convex import sigmoid
from ensemble.before.solvers.newcomer import by_odds, by_squares
from ensemble.outcomes.dense import Floats

D = 40
Found = Callable[[Floats, Floats, Floats], Floats]


def plain(logits: Floats) -> Floats:
    return logits


def known(members: int = 6, seed: int = 0) -> Floats:
    """Weights of members that are alike in what they find hard."""
    random = np.random.default_rng(seed)
    weights = random.standard_normal((D, 1)) + random.standard_normal((D, members))
    return np.vstack([weights, np.full(members, 0.5)])


def asked(count: int, seed: int = 1) -> Floats:
    x = np.random.default_rng(seed).standard_normal((count, D))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scores(weights: Floats, x: Floats) -> Floats:
    return x @ weights[:-1] + weights[-1]


@pytest.mark.parametrize("found", [by_squares, by_odds])
def test_of_whom_nothing_is_known_the_mean_stands(found: Found) -> None:
    weights = known()
    np.testing.assert_allclose(found(weights, asked(0), np.zeros(0)), weights.mean(axis=1))


@pytest.mark.parametrize(("found", "link"), [(by_squares, plain), (by_odds, sigmoid)])
def test_few_outcomes_do_not_lead_away_and_many_lead_near(found: Found, link: Callable[[Floats], Floats]) -> None:
    weights, x, fresh = known(), asked(800), asked(500, 2)
    own = known(7)[:, -1]
    truth = np.clip(link(scores(own, x)), 0, 1)
    drawn = (np.random.default_rng(3).random(800) < truth).astype(float)
    away = [
        float(np.abs(link(scores(found(weights, x[:k], drawn[:k]), fresh)) - link(scores(own, fresh))).mean())
        for k in (0, 30, 800)
    ]
    assert away[1] < 1.05 * away[0] and away[2] < 0.9 * away[0]


@pytest.mark.parametrize("found", [by_squares, by_odds])
def test_the_order_of_members_and_outcomes_does_not_matter(found: Found) -> None:
    weights, x, quality = known(), asked(20), np.arange(20) % 2.0
    one = found(weights, x, quality)
    np.testing.assert_allclose(found(weights[:, ::-1], x[::-1], quality[::-1]), one, atol=1e-9)


def test_odds_are_those_of_the_mode() -> None:
    """The slope of the posterior is nothing there: outcomes less scores are what the weights were moved by."""
    weights, x, quality = known(), asked(15), np.arange(15) % 2.0
    found = by_odds(weights, x, quality)
    away = weights - weights.mean(axis=1, keepdims=True)
    apart = np.append(np.full(D, max((away[:-1] ** 2).mean(), 0.016)), 0.32)
    covariance = (away @ away.T / 6 + np.diag(apart)) / 2
    rows = np.column_stack([x, np.ones(15)])
    slope = rows.T @ (quality - sigmoid(rows @ found)) - np.linalg.solve(covariance, found - weights.mean(axis=1))
    np.testing.assert_allclose(slope, 0, atol=1e-6)


@pytest.mark.parametrize("found", [by_squares, by_odds])
def test_one_known_member_that_is_always_right(found: Found) -> None:
    weights = np.append(np.zeros(D), 30.0)[:, None]
    assert np.isfinite(found(weights, asked(5), np.zeros(5))).all()
