"""Latent: factorised routers and item response theory are one form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.latent import Latent
from ensemble.before.solvers.convex import sigmoid
from ensemble.before.solvers.descent import Descent
from tests.ensemble.before.toys import table

numbers = st.floats(-3, 3)


def of(asked: list[float], vectors: list[list[float]], ease: float) -> Latent:
    """Of a query that asks these abilities whatever it is."""
    constant = np.concatenate([np.zeros((1, len(asked))), [asked]])
    size = len(asked)
    return Latent(np.array(vectors), np.zeros((len(vectors), size, size)), constant, np.array([0.0, ease]))


def positive(asked: list[float], vectors: list[list[float]], ease: float) -> Latent:
    raised = [float(np.log(np.expm1(a))) for a in asked]
    head = of(raised, vectors, ease)
    return Latent(head.vectors, head.covariances, head.abilities, head.ease, positive=True)


def test_the_worked_example_of_embedllm() -> None:
    p, t = np.array([1, 0.5]), np.array([0.4, 0.8])
    readout, c = np.array([[-0.5, -0.5], [1, 1]]), np.array([0.1, 0])
    logits = readout @ (p * t) + c
    assert logits.tolist() == pytest.approx([-0.3, 0.8])
    head = of(t.tolist(), [((readout[1] - readout[0]) * p).tolist()], float(c[1] - c[0]))
    right = head.scores(np.zeros((1, 1)))[0, 0]
    assert round(right, 6) == 0.750260
    wrong, right_by_classes = np.exp(logits) / np.exp(logits).sum()
    assert right == pytest.approx(right_by_classes) and 1 - right == pytest.approx(wrong)


def test_the_worked_example_of_item_response() -> None:
    head = positive([0.9, 0.1], [[1.2, -0.5]], -0.3)
    assert round(head.scores(np.zeros((1, 1)))[0, 0], 6) == 0.674805


@given(st.lists(st.floats(0.05, 3), min_size=3, max_size=3), st.lists(numbers, min_size=3, max_size=3), numbers)
def test_more_of_every_ability_is_never_worse(asked: list[float], vector: list[float], ease: float) -> None:
    better = [v + 0.5 for v in vector]
    scores = positive(asked, [vector, better], ease).scores(np.zeros((1, 1)))[0]
    assert scores[1] > scores[0] or scores[0] == pytest.approx(1)


def test_harder_queries_are_harder_for_all_alike() -> None:
    x, vectors = np.zeros((1, 1)), [[1.0, 0.2], [0.1, 2.0]]
    easy, hard = positive([0.9, 0.4], vectors, 0.0).logits(x), positive([0.9, 0.4], vectors, -0.7).logits(x)
    np.testing.assert_allclose(easy - hard, 0.7)


def test_one_ability_is_the_model_of_two_parameters() -> None:
    scores = positive([1.3], [[0.4], [1.9]], -0.5).scores(np.zeros((1, 1)))[0]
    np.testing.assert_allclose(scores, sigmoid(1.3 * np.array([0.4, 1.9]) - 0.5))


@pytest.mark.parametrize("is_positive", [False, True])
def test_graded_outcomes_are_learned_as_probabilities(is_positive: bool) -> None:
    training = table(graded=True)
    options = Descent(epochs=120, rate=0.03, noise=0.02)
    head = Latent.fit(training.x, training.table.quality, 4, options, positive=is_positive)
    assert np.abs(head.scores(training.x) - training.table.quality).mean() < 0.12


def test_without_noise_nothing_is_drawn_from_the_generator() -> None:
    training = table(60)
    one, two = (
        Latent.fit(training.x, training.table.quality, 3, Descent(epochs=3, noise=0, batch=100), seed=0)
        for _ in range(2)
    )
    assert np.array_equal(one.vectors, two.vectors)
