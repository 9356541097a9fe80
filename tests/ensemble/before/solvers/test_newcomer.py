"""Weights of a member that comes later: like the others at first, and like its outcomes in the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ensemble.before.solvers import newcomer
from ensemble.before.solvers.convex import sigmoid
from ensemble.before.solvers.newcomer import beside, by_odds, by_squares
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


def test_odds_are_those_of_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slope of the posterior is nothing there: outcomes less scores are what the weights were moved by."""
    monkeypatch.setattr(newcomer, "_SCALES", (1.0,))
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


@pytest.mark.parametrize(("found", "link"), [(by_squares, plain), (by_odds, sigmoid)])
def test_one_that_is_unlike_all_others_is_seen_to_be(found: Found, link: Callable[[Floats], Floats]) -> None:
    """The others hardly tell queries apart; this one is right on half of them, by a single direction."""
    random = np.random.default_rng(4)
    weights = np.vstack([0.01 * random.standard_normal((D, 5)), np.full(5, 0.5)])
    x, fresh = asked(100), asked(500, 2)
    told = [link(scores(found(weights, x, (x[:, 0] > 0) * turned), fresh)) for turned in (1.0, 0.0)]
    own = fresh[:, 0] > 0
    assert told[0][own].mean() > told[0][~own].mean() + 0.25
    assert np.ptp(told[1]) < 0.2


def test_one_that_is_like_the_others_is_left_so_by_chance() -> None:
    """Answers that are right at random: hardly ever are weights found that foretell them."""
    drawn = np.random.default_rng(5).random((12, 60)) < 0.5
    moved = [
        beside(np.ones((60, 1)), np.eye(1), asked(60, seed), right.astype(float), np.zeros(60))[1].any()
        for seed, right in enumerate(drawn)
    ]
    assert sum(moved) <= 4


def test_what_is_left_out_is_what_a_fit_without_it_loses() -> None:
    rows, quality = np.pad(asked(12), ((0, 0), (0, 1)), constant_values=1.0), np.arange(12) % 2.0
    spread = np.eye(D + 1) / 4
    for link, close in ((newcomer._LINE, 1e-9), (newcomer._ODDS, 0.02)):
        told = newcomer._mode(spread, rows, quality, np.zeros(12), link).lost
        for out in (0, 5):
            kept = np.arange(12) != out
            away = newcomer._mode(spread, rows[kept], quality[kept], np.zeros(11), link).away
            alone = link.lost(rows[[out]] @ away, quality[[out]])
            assert told[out] == pytest.approx(alone[0], abs=close)
