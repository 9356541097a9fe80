"""EmbedLLM: options, and what the vectors are for."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.before.embedllm import Embedllm, EmbedllmFit
from ensemble.before.heads.latent import Latent
from tests.ensemble.before.toys import table

QUICK = EmbedllmFit(size=5, epochs=20, rate=0.02, batch=64)


def test_a_member_is_a_vector_of_that_size() -> None:
    head = Embedllm.fit(table(60), QUICK).head
    assert isinstance(head, Latent) and not head.positive
    assert head.vectors.shape == (3, 5) and head.abilities.shape == (9, 5) and head.covariances.shape == (3, 5, 5)


def test_scores_are_probabilities_near_the_rates() -> None:
    training = table(480)
    scores = Embedllm.fit(training, QUICK).predict(training.x).quality
    assert (scores > 0).all() and (scores < 1).all()
    np.testing.assert_allclose(scores.mean(axis=0), training.table.means, atol=0.05)


def test_costs_are_those_of_the_table() -> None:
    training = table(120)
    cost = Embedllm.fit(training, QUICK).predict(training.x, np.full(120, 5.0)).cost
    np.testing.assert_allclose(cost.mean(axis=0), [0.001, 0.002, 0.004], rtol=0.05)


def test_seeds_are_of_the_training() -> None:
    one, other = (Embedllm.fit(table(60, seed=0), QUICK), Embedllm.fit(table(60, seed=1), QUICK))
    assert not np.array_equal(one.predict(np.eye(8)).quality, other.predict(np.eye(8)).quality)


@pytest.mark.parametrize("given", [{"size": 0}, {"noise": -1}, {"epochs": 0}, {"dim": 3}])
def test_options_that_make_no_sense_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        EmbedllmFit(**given)  # type: ignore[arg-type]
