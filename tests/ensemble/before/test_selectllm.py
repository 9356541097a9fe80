"""SelectLLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.head import Outcome
from ensemble.before.policies import Prediction, Subset
from ensemble.before.selectllm import SelectFit, SelectLlm
from ensemble.outcomes.dense import Floats
from tests.ensemble.before.toys import lawful, table


def asked(confidences: list[float], **options: object) -> Floats:
    told = Prediction(np.array([confidences]), np.zeros((1, len(confidences))))
    choice = Subset(**options).choose(told, np.ones(told.quality.shape, bool), np.random.default_rng(0))
    assert choice.weights is not None
    return choice.weights[0]


@pytest.mark.parametrize("calibration", ["none", "platt", "isotonic"])
def test_laws_of_all_routers(tmp_path: Path, calibration: str) -> None:
    lawful(tmp_path, SelectLlm, SelectFit(calibration=calibration, penalty=1.0), tolerance=2e-2)


def test_votes() -> None:
    """Confidences 0.9, 0.6, 0.5, of which two are asked; A says "7" six times and "8" four times, B "8" ten times."""
    weights = asked([0.9, 0.6, 0.5], size=2)
    counts = np.array([[6, 4], [0, 10], [10, 0]])
    votes = weights @ counts
    assert votes == pytest.approx((5.4, 9.6))


def test_one_is_the_plain_choice_and_all_alike_the_whole_ensemble() -> None:
    assert (asked([0.2, 0.7, 0.5], size=1) > 0).tolist() == [False, True, False]
    assert np.ptp(asked([0.4, 0.4, 0.4], size=3)) == 0


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.floats(0.1, 10))
def test_the_scale_of_confidences_does_not_matter(confidences: list[float], factor: float) -> None:
    scaled = asked([factor * c for c in confidences])
    assert scaled / scaled.sum() == pytest.approx(asked(confidences) / sum(confidences))


def test_who_has_no_confidence_is_not_asked() -> None:
    assert asked([0.9, 0.0, 0.5]).tolist() == [0.9, 0.0, 0.5]


def test_most_samples_right_is_right() -> None:
    """A member that is right more often than not in every sample is as good as one that always is."""
    training = table()
    quality = np.where(training.table.quality == 1, 0.6, 0.4)
    object.__setattr__(training.table, "quality", quality)
    told = SelectLlm.fit(training, SelectFit(penalty=1.0, threshold=0.5)).predict(training.x)
    assert told.quality.max() > 0.8
    graded = SelectLlm.fit(training, SelectFit(penalty=1.0)).predict(training.x)
    assert graded.quality.max() < 0.65


def test_every_member_that_answered_learns() -> None:
    training = table()
    router = SelectLlm.fit(training, SelectFit())
    before = router.predict(training.x[:1]).quality[0]
    router.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    router.learn(Outcome(x=training.x[0], member=2, quality=1.0))
    after = router.predict(training.x[:1]).quality[0]
    assert (after[1:] > before[1:]).all()
    assert after[0] == before[0]
