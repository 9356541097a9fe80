"""Hybrid LLM: labels of three types, and a threshold between two members."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.before.fitting.training import Training
from ensemble.before.hybrid_llm import HybridFit, HybridLlm
from ensemble.before.knobs import for_drop, for_share
from ensemble.before.policies import Prediction, Threshold
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import table

PAIR = table(240, members=2, tasks=2)


def sampled(quality: np.ndarray, samples: np.ndarray | None) -> Training:
    """The first dimension says which row of a pattern a query is of."""
    rows = len(quality)
    found = replace(PAIR.rows(np.arange(rows)).table, quality=quality, samples=samples)
    x = np.zeros((rows, 8), np.float32)
    x[np.arange(rows), np.arange(rows) % 2] = 1
    return Training(table=found, x=x)


def choose(policy: Threshold, prediction: Prediction) -> np.ndarray:
    return policy.choose(prediction, np.ones(prediction.quality.shape, bool), np.random.default_rng(0)).chosen


def test_scores_are_a_probability_and_the_rest() -> None:
    router = HybridLlm.fit(PAIR, HybridFit(large="m1"))
    scores = router.predict(PAIR.x).quality
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert router.best == 1
    easy = PAIR.x[:, 0] > 0.5
    assert scores[easy, 0].mean() > 0.8 > 0.5 > scores[~easy, 0].mean()


def test_the_share_of_small_answers_falls_with_the_threshold() -> None:
    prediction = HybridLlm.fit(PAIR, HybridFit(large="m1")).predict(PAIR.x)
    p = prediction.quality[:, 0]
    small = []
    for threshold in np.linspace(0.01, 0.99, 25):
        chosen = choose(Threshold(margin=1 - 2 * threshold), prediction)
        assert np.array_equal(chosen == 0, p > threshold)
        small.append((chosen == 0).mean())
    assert small == sorted(small, reverse=True) and small[0] > small[-1]


def test_share_and_drop_can_be_asked_for() -> None:
    router = HybridLlm.fit(PAIR, HybridFit(large="m1"))
    prediction = router.predict(PAIR.x, np.full(240, 5.0))
    half = for_share(Threshold(), prediction, 0.5)
    assert (choose(half, prediction) == 1).mean() == pytest.approx(0.5, abs=0.02)
    kept = choose(for_drop(Threshold(), prediction, PAIR.table, 0.01), prediction)
    quality = PAIR.table.quality[np.arange(240), kept].mean()
    assert quality >= 0.99 * PAIR.table.means[1]


def test_the_large_member_is_the_better_one_unless_it_is_named() -> None:
    training = sampled(np.tile([[1.0, 0.0], [1.0, 1.0]], (20, 1)), None)
    assert HybridLlm.fit(training, HybridFit()).best == 0
    assert HybridLlm.fit(training, HybridFit(large="m1")).best == 1


def labels_learned(options: HybridFit) -> np.ndarray:
    """Small against large, on queries of two kinds: mean scores of the small one."""
    samples = np.tile([[[0.0, 1.0], [0.5, 1.0]], [[0.4, 0.4], [0.5, 0.5]]], (40, 1, 1))
    training = sampled(samples.mean(axis=2), samples)
    scores = HybridLlm.fit(training, options).predict(training.x).quality[:, 0]
    return np.array([scores[::2].mean(), scores[1::2].mean()])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # First samples: 0 against 0.5, 0.4 against 0.5. Pairs: 1 beats both, 0 none. Within 0.1: 0.4 is enough.
        ("deterministic", [0.0, 0.0]),
        ("probabilistic", [0.5, 0.0]),
        ("transformed", [0.5, 1.0]),
    ],
)
def test_labels(labels: str, expected: list[float]) -> None:
    tolerance = 0.1 if labels == "transformed" else None
    options = HybridFit.model_validate(
        {"large": "m1", "labels": labels, "tolerance": tolerance, "penalty": 0.01}
    )  # fmt: skip
    np.testing.assert_allclose(labels_learned(options), expected, atol=0.03)


def test_the_tolerance_is_looked_for() -> None:
    # The first kind matches from 1 on, the second from 0.1 on: in between the labels are most unlike.
    training = sampled(np.tile([[0.0, 1.0], [0.4, 0.5]], (40, 1)), None)
    options = HybridFit(large="m1", labels="transformed", penalty=0.01)
    scores = HybridLlm.fit(training, options).predict(training.x).quality[:, 0]
    np.testing.assert_allclose([scores[::2].mean(), scores[1::2].mean()], [0, 1], atol=0.03)


@pytest.mark.parametrize(
    ("training", "options", "why"),
    [
        (table(30), HybridFit(), "between two members; the table has 3: m0, m1, m2"),
        (PAIR, HybridFit(large="gpt"), "allowed: m0, m1"),
        (PAIR, HybridFit(tolerance=0.1), "transformed labels alone"),
        (sampled(np.tile([[1.0, np.nan], [np.nan, 1.0]], (5, 1)), None), HybridFit(), "both members answered"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(training: Training, options: HybridFit, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        HybridLlm.fit(training, options)
