"""Neighbours of a stored query without that query itself, which is what k is chosen by."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.fitting.training import Training
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.knn_router import KnnFit, KnnRouter
from ensemble.outcomes.dense import Dense


def store(n: int = 40, holes: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, 6)).astype(np.float32)
    quality = random.random((n, 3))
    quality[random.random((n, 3)) < holes] = np.nan
    return x / np.linalg.norm(x, axis=1, keepdims=True), quality


@pytest.mark.parametrize("holes", [0.0, 0.4])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.1}, {"similar": True}])
def test_it_is_as_if_the_row_were_not_stored(holes: float, options: dict[str, float]) -> None:
    x, quality = store(holes=holes)
    head = Neighbours.fit(x, quality, 5, pseudo=1.0)
    for name, value in options.items():
        setattr(head, name, value)
    rows = np.array([0, 7, 39])
    found = head.scores_at(x[rows], (1, 5, 20), own=rows)
    for place, row in enumerate(rows):
        others = Neighbours.fit(np.delete(x, row, 0), np.delete(quality, row, 0), 5, pseudo=1.0)
        others.prior = head.prior
        for name, value in options.items():
            setattr(others, name, value)
        assert found[:, place] == pytest.approx(others.scores_at(x[[row]], (1, 5, 20))[:, 0], abs=1e-6)


def test_a_row_that_is_all_there_is_leaves_the_prior() -> None:
    head = Neighbours.fit(np.eye(2, dtype=np.float32)[:1], np.array([[0.3, 0.8]]), 1)
    assert head.scores_at(head.x, (1,), own=np.array([0]))[0, 0] == pytest.approx([0.3, 0.8])


def test_the_chosen_k_is_no_smaller_than_the_noise_allows() -> None:
    # Where queries tell nothing, the largest number of neighbours, nearly the mean, is best.
    x, _ = store(400)
    random = np.random.default_rng(1)
    quality = (random.random((400, 2)) < [0.75, 0.6]).astype(float)
    names = tuple(str(row) for row in range(400))
    table = Dense(queries=names, texts=names, members=("a", "b"), quality=quality)
    router = KnnRouter.fit(Training(table=table, x=x), KnnFit())
    assert isinstance(router.head, Neighbours) and router.head.k >= 64
