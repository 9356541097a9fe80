"""RouterDC: what it is fitted to, with and without costs."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.routerdc import RouterDc, RouterdcFit
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import table

QUICK = {"size": 8, "epochs": 20, "rate": 0.02, "batch": 64, "noise": 0.02}


def share(cost_rate: float) -> np.ndarray:
    training = table(240)
    found = RouterDc.fit(training, RouterdcFit(cost_rate=cost_rate, **QUICK)).predict(training.x)
    return np.bincount(found.quality.argmax(axis=1), minlength=3) / 240


def test_nobody_is_drawn_to_who_costs_more_than_a_right_answer_is_worth() -> None:
    # An answer of m2 costs 0.004.
    assert share(0).min() > 0.2
    assert share(300)[2] < 0.05


def test_costs_that_are_not_known_are_refused() -> None:
    with pytest.raises(BadRequest, match="cost_rate needs the cost"):
        RouterDc.fit(table(60, costs=False), RouterdcFit(cost_rate=1.0, **QUICK))


def test_cosines_are_no_probabilities() -> None:
    training = table(60)
    router = RouterDc.fit(training, RouterdcFit(**QUICK))
    scores = router.predict(training.x).quality
    assert not router.head.probabilities and scores.min() < 0 and (np.abs(scores) <= 1 + 1e-9).all()


def test_the_reference_counts_the_first_of_level_members() -> None:
    training = table(120)
    sound, reference = (
        RouterDc.fit(training, RouterdcFit(fidelity=fidelity, positives=1, negatives=1, **QUICK))
        for fidelity in ("sound", "reference")
    )
    assert not np.allclose(sound.predict(training.x).quality, reference.predict(training.x).quality, atol=1e-3)


def test_the_loss_between_queries_can_be_left_out() -> None:
    training = table(120)
    one, other = (RouterDc.fit(training, RouterdcFit(weight=weight, **QUICK)) for weight in (0.0, 1.0))
    assert not np.allclose(one.predict(training.x).quality, other.predict(training.x).quality, atol=1e-4)
