"""Eagle: Elo over a table."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.eagle import Eagle, EagleFit
from ensemble.before.heads.elo import Elo
from ensemble.before.policies import Prediction, Utility
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import table

TRAINING = table(n=120, members=4)


def head(**options: object) -> Elo:
    found = Eagle.fit(TRAINING, EagleFit.model_validate(options)).head
    assert isinstance(found, Elo)
    return found


def test_options_reach_the_head() -> None:
    found = head(share=0.25, neighbours=7, step=16.0)
    assert (found.share, found.neighbours, found.step, found.averaged) == (0.25, 7, 16.0, True)
    assert not head(step=16.0, fidelity="reference").averaged
    assert head(step=16.0, battles=2).fought == 240 and head(step=16.0).fought == 720


def test_the_step_is_chosen_where_none_is_given() -> None:
    assert head().step in (4, 8, 16, 32)


def test_a_table_has_no_order_of_time() -> None:
    straight, turned = head(step=8.0), Eagle.fit(TRAINING.rows(np.arange(119, -1, -1)), EagleFit(step=8.0)).head
    assert isinstance(turned, Elo)
    assert (np.argsort(straight.overall) == np.argsort(turned.overall)).all()
    assert not np.array_equal(straight.ratings, turned.ratings)


def test_one_who_wins_all_is_first_everywhere() -> None:
    quality = np.tile([0.0, 1.0, 0.5], (60, 1))
    training = table(n=60)
    training.table.quality[:] = quality
    scores = Eagle.fit(training, EagleFit()).predict(training.x).quality
    assert (np.argsort(scores, axis=1) == [0, 2, 1]).all() and ((scores > 0) & (scores < 1)).all()


def test_who_can_pay_more_gets_no_worse() -> None:
    """A lower price of money never lowers the score of who is chosen."""
    prediction = Eagle.fit(TRAINING, EagleFit()).predict(TRAINING.x)
    random, allowed = np.random.default_rng(0), np.ones((120, 4), bool)
    rows = np.arange(120)

    def score(price: float, given: Prediction) -> np.ndarray:
        return given.quality[rows, Utility(price=price).choose(given, allowed, random).chosen]

    before = np.zeros(120)
    for price in (1000.0, 100.0, 10.0, 0.0):
        now = score(price, prediction)
        assert (now >= before).all()
        before = now


def test_without_battles_there_is_no_ranking() -> None:
    alone = table(n=10, members=2)
    alone.table.quality[np.arange(10), np.arange(10) % 2] = np.nan
    with pytest.raises(BadRequest, match="no query with outcomes of two members"):
        Eagle.fit(alone, EagleFit(step=8.0))
