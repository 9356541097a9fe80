"""Verdicts: three labels of a pair, and scores of many."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.verdicts import Verdicts
from tests.ensemble.before.toys import table

X = np.tile(np.eye(2), (40, 1))


def pair(*gaps: float, tie: float = 0.5) -> Verdicts:
    """A weak member that is 0.5 everywhere; on alternate queries the strong one differs by these gaps."""
    strong = 0.5 + np.tile(gaps, 40)
    return Verdicts.fit(X, np.stack([strong, np.full(80, 0.5)], axis=1), 0, 1.0, tie=tie)


def test_labels_follow_the_query() -> None:
    labels = pair(0.5, 0.0).labels(np.eye(2))[:, 1]
    assert labels[0].argmax() == 2 and labels[1].argmax() == 1
    assert labels.sum(axis=1) == pytest.approx([1, 1])
    # Nobody has ever seen the strong member lose.
    assert labels[:, 0].max() < 0.02


def test_a_tie_counts_half_or_for_the_weak_one() -> None:
    half, none = pair(0.5, 0.0), pair(0.5, 0.0, tie=0.0)
    labels = half.labels(np.eye(2))[:, 1]
    assert half.scores(np.eye(2))[:, 0] == pytest.approx(labels[:, 2] + 0.5 * labels[:, 1])
    assert none.scores(np.eye(2))[:, 0] == pytest.approx(labels[:, 2])
    assert half.scores(np.eye(2)).sum(axis=1) == pytest.approx([1, 1])


def test_one_label_alone_is_believed() -> None:
    scores = pair(0.5, 0.5).scores(np.eye(2))
    assert (scores[:, 0] > 0.95).all()


def test_all_three_labels() -> None:
    strong = 0.5 + np.tile([0.5, 0.0, -0.5], 40)
    head = Verdicts.fit(np.tile(np.eye(3), (40, 1)), np.stack([strong, np.full(120, 0.5)], axis=1), 0, 0.1)
    assert head.labels(np.eye(3))[:, 1].argmax(axis=1).tolist() == [2, 1, 0]


def test_of_many_the_strong_one_stands_for_its_hardest_battle() -> None:
    training = table(n=200, members=3)
    head = Verdicts.fit(training.x, training.table.quality, 1, 1.0)
    scores = head.scores(training.x)
    assert scores[:, 1] == pytest.approx(1 - scores[:, [0, 2]].max(axis=1))
    picked = training.table.quality[np.arange(200), scores.argmax(axis=1)].mean()
    assert picked > training.table.means.max() + 0.2


def test_rows_with_a_hole_do_not_count() -> None:
    quality = np.stack([0.5 + np.tile([0.5, 0.0], 40), np.full(80, 0.5)], axis=1)
    quality[10:20, 1] = np.nan
    kept = np.r_[0:10, 20:80]
    whole, part = Verdicts.fit(X, quality, 0, 1.0), Verdicts.fit(X[kept], quality[kept], 0, 1.0)
    assert np.allclose(whole.scores(X), part.scores(X))
    never = Verdicts.fit(X, np.stack([quality[:, 0], np.full(80, np.nan)], axis=1), 0, 1.0)
    assert np.isfinite(never.scores(X)).all()
