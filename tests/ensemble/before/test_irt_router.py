"""IRT-Router: its two forms, the warm-up, and the paper's score as a policy."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.latent import Latent
from ensemble.before.heads.response import Response
from ensemble.before.heads.warm import Warm
from ensemble.before.irt_router import IrtFit, IrtRouter
from ensemble.before.policies import Mix, Prediction, Sample
from tests.ensemble.before.toys import table

QUICK = {"epochs": 10, "rate": 0.02, "size": 4}


def test_the_worked_example_of_the_score() -> None:
    prediction = Prediction(np.array([[0.674805]]), np.array([[0.4]]))
    scores = Mix(mu=1 - 0.8).choose(prediction, np.ones((1, 1), bool), np.random.default_rng(0)).scores
    assert round(float(scores[0, 0]), 6) == 0.459844


def test_with_quality_alone_costs_do_not_count() -> None:
    training = table(60)
    prediction = IrtRouter.fit(training, IrtFit(**QUICK)).predict(training.x)
    found = Mix(mu=0).choose(prediction, np.ones(prediction.quality.shape, bool), np.random.default_rng(0))
    assert np.array_equal(found.scores, prediction.quality)


@pytest.mark.parametrize(
    ("given", "kind"),
    [({}, Latent), ({"form": "nirt"}, Response), ({"warm": 0.7}, Warm), ({"form": "nirt", "warm": 0.0}, Warm)],
)
def test_options_say_the_head(given: dict[str, object], kind: type) -> None:
    head = IrtRouter.fit(table(60), IrtFit.model_validate({**QUICK, **given})).head
    assert type(head) is kind
    if isinstance(head, Latent):
        assert head.positive
    if isinstance(head, Warm):
        assert head.store.shape == (60, 8) and head.share == given["warm"] and head.k == 5


def test_what_is_uncertain_is_told_to_policies_that_draw() -> None:
    training = table(60)
    prediction = IrtRouter.fit(training, IrtFit(**QUICK)).predict(training.x)
    assert prediction.std is not None and (prediction.std > 0).all()
    choice = Sample(by="thompson").choose(prediction, np.ones((60, 3), bool), np.random.default_rng(0))
    assert ((choice.propensity > 0) & (choice.propensity <= 1)).all()


def test_who_was_asked_less_is_less_known() -> None:
    training = table(240)
    training.table.quality[24:, 2] = np.nan
    prediction = IrtRouter.fit(training, IrtFit(**QUICK)).predict(training.x)
    assert prediction.std is not None
    assert prediction.std[:, 2].mean() > 1.3 * prediction.std[:, :2].mean()
