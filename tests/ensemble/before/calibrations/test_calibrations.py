"""Calibrations: scores become expected quality, in their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.calibrations.calibration import Calibration
from ensemble.before.calibrations.held import calibrated
from ensemble.before.calibrations.isotonic import Isotonic
from ensemble.before.calibrations.platt import Platt
from ensemble.before.fitting.training import Training
from ensemble.before.heads.head import Head
from ensemble.before.heads.linear import Logistic, Ridge
from ensemble.before.heads.neighbours import Neighbours
from ensemble.outcomes.dense import Floats
from tests.ensemble.before.toys import table

KINDS = [lambda s, q: Platt.fit(s, q), lambda s, q: Platt.fit(s, q, logit=False), Isotonic.fit]


def overconfident(n: int = 4000, seed: int = 0) -> tuple[Floats, Floats]:
    """Scores that lie further from ½ than they should, and outcomes; the second member is observed rarely."""
    random = np.random.default_rng(seed)
    logit = random.standard_normal((n, 2))
    quality = (random.random((n, 2)) < 1 / (1 + np.exp(-(0.5 * logit + 0.3)))).astype(float)
    quality[random.random(n) < 0.5, 1] = np.nan
    return 1 / (1 + np.exp(-logit)), quality


def test_the_curve_is_found() -> None:
    platt = Platt.fit(*overconfident(20000))
    assert platt.slope == pytest.approx([0.5, 0.5], abs=0.05)
    assert platt.shift == pytest.approx([0.3, 0.3], abs=0.05)


@pytest.mark.parametrize("fit", KINDS)
def test_errors_become_less(fit: type[Platt]) -> None:
    scores, quality = overconfident()
    fresh, truth = overconfident(seed=1)
    told = fit(scores, quality).applied(fresh)  # type: ignore[call-arg]
    assert np.nanmean((told - truth) ** 2) < np.nanmean((fresh - truth) ** 2) - 0.005
    assert np.nanmean(told, axis=0) == pytest.approx(np.nanmean(truth, axis=0), abs=0.03)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from(KINDS))
def test_order_is_kept_and_bounds_are(seed: int, fit: type[Platt]) -> None:
    random = np.random.default_rng(seed)
    scores = random.random((30, 2))
    quality = random.integers(0, 2, (30, 2)).astype(float)
    fresh = np.sort(random.uniform(-0.5, 1.5, (50, 2)), axis=0)
    told = fit(scores, quality).applied(fresh)  # type: ignore[call-arg]
    assert (np.diff(told, axis=0) >= -1e-12).all()
    assert (told >= 0).all()
    assert (told <= 1).all()


def test_scores_that_say_the_opposite_become_the_mean() -> None:
    scores, quality = overconfident()
    told = Platt.fit(1 - scores, quality).applied(scores)
    assert np.ptp(told, axis=0).max() == 0
    assert told[0] == pytest.approx(np.nanmean(quality, axis=0), abs=1e-9)


@pytest.mark.parametrize("fit", KINDS)
def test_a_member_without_outcomes_is_taken_as_it_is(fit: type[Platt]) -> None:
    scores, quality = overconfident(200)
    quality[:, 1] = np.nan
    told = fit(scores, quality).applied(scores)  # type: ignore[call-arg]
    assert np.array_equal(np.argsort(told[:, 1], kind="stable"), np.argsort(scores[:, 1], kind="stable"))


@pytest.mark.parametrize("fit", KINDS)
def test_one_more_member_and_back_from_disk(fit: type[Platt]) -> None:
    scores, quality = overconfident(300)
    calibration = fit(scores, quality)  # type: ignore[call-arg]
    wider = calibration.widen().applied(np.column_stack([scores, scores[:, 0]]))
    assert np.array_equal(wider[:, :2], calibration.applied(scores))
    assert ((wider[:, 2] >= 0) & (wider[:, 2] <= 1)).all()
    values, tensors = calibration.packed()
    assert np.array_equal(Calibration.unpacked(values, tensors).applied(scores), calibration.applied(scores))


def test_probabilities_of_a_newcomer_are_taken_as_they_are() -> None:
    """Others are put right by how good each of them is; of many poor ones the mean would put a good one down."""
    poor = Platt(np.full(3, 1.0), np.full(3, -3.0))
    told = poor.widen().applied(np.full((1, 4), 0.6))[0]
    assert told[3] == pytest.approx(0.6) and (told[:3] < 0.1).all()


def test_a_head_is_calibrated_on_queries_that_it_has_not_seen() -> None:
    """One neighbour is never wrong on its own queries: only on others does its curve become flat."""
    training = table(400)

    def build(part: Training) -> Head:
        return Neighbours.fit(part.x, part.table.quality, 1)

    head, calibration = calibrated("platt", build, training)
    assert calibration is not None
    told = calibration.applied(head.scores(training.x))
    assert told.min() > 0.05
    assert told.max() < 0.95


def test_the_head_is_fitted_to_all_queries_and_the_kind_is_as_asked() -> None:
    training = table()

    def build(part: Training) -> Head:
        return Logistic.fit(part.x, part.table.quality, 1.0)

    alone = build(training).scores(training.x)
    for kind, expected in (("none", type(None)), ("platt", Platt), ("isotonic", Isotonic)):
        head, calibration = calibrated(kind, build, training)  # type: ignore[arg-type]
        assert np.array_equal(head.scores(training.x), alone)
        assert type(calibration) is expected


def test_too_few_queries_are_not_calibrated() -> None:
    def build(part: Training) -> Head:
        return Ridge.fit(part.x, part.table.quality, 1.0)

    assert calibrated("platt", build, table(4))[1] is None
