"""RELM: a recommender that knows how sure it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ensemble.before.heads.bandits import LinearBandit
from ensemble.before.relm import Relm, RelmFit
from tests.ensemble.before.toys import table


def head(training: object, **options: float) -> LinearBandit:
    found = Relm.fit(training, RelmFit.model_validate(options)).head  # type: ignore[arg-type]
    assert isinstance(found, LinearBandit)
    return found


def test_the_spread_is_of_the_expected_quality() -> None:
    """About two thirds of held-out means lie within one standard deviation of what was expected."""
    within = []
    for seed in range(8):
        training = table(n=60, seed=seed, size=4)
        found = head(training, penalty=0.5)
        truth = head(table(n=4000, seed=50, size=4), penalty=0.5).scores(training.x)
        within.append(np.abs(found.scores(training.x) - truth) < found.spread(training.x))
    assert 0.5 < np.mean(within) < 0.85


def test_a_bias_of_the_judge_is_taken_off() -> None:
    training = table(n=90, graded=True)
    inflated = replace(training, table=replace(training.table, quality=np.clip(training.table.quality + 0.05, 0, 1)))
    plain, mended = head(training, penalty=2.0), head(inflated, penalty=2.0, judge_bias=0.05)
    assert np.abs(plain.scores(training.x) - mended.scores(training.x)).mean() < 0.01


def test_a_noisy_judge_is_believed_less() -> None:
    training = table(n=90)
    believed, doubted = head(training, penalty=2.0), head(training, penalty=2.0, judge_deviation=0.5)
    assert not np.allclose(believed.scores(training.x), doubted.scores(training.x))
    assert doubted.noise < believed.noise


def test_more_outcomes_make_it_surer() -> None:
    few, many = head(table(n=40), penalty=2.0), head(table(n=400), penalty=2.0)
    x = table(n=20, seed=9).x
    assert (many.spread(x) < few.spread(x)).all()
