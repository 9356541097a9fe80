"""How far a predictor is to be trusted, and the guard made of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.fitting.training import Training
from ensemble.before.guards.guard import Guard
from ensemble.before.guards.rightness import Rightness, Trust
from ensemble.before.heads.head import Head
from ensemble.before.heads.neighbours import Neighbours
from tests.ensemble.before.toys import plain, table


def build(part: Training) -> Head:
    return Neighbours.fit(part.x, part.table.quality, 9)


def test_kernel_estimate() -> None:
    """Shnitzer: u (0.2, 0.4, 0.7), p (0.85, 0.75, 0.6), at 0.3, width 0.1."""
    trust = Trust(np.array([0.2, 0.4, 0.7]), np.array([[0.85], [0.75], [0.6]]), 0.1)
    assert trust.at(np.array([0.3]))[0, 0] == pytest.approx(0.799945, abs=5e-7)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 1)), min_size=1, max_size=6),
    st.floats(0, 2),
    st.floats(0.01, 1),
)
def test_the_estimate_lies_between_the_tasks(tasks: list[tuple[float, float]], at: float, width: float) -> None:
    away, right = np.array(tasks).T
    told = Trust(away, right[:, None], width).at(np.array([at]))[0, 0]
    assert right.min() - 1e-9 <= told <= right.max() + 1e-9
    assert Trust(away[:1], right[:1, None], width).at(np.array([at]))[0, 0] == pytest.approx(right[0])


def test_a_task_that_is_left_out_is_foretold_worse_than_one_that_is_known() -> None:
    trust = Trust.fit(table(300), build, nearest=5)
    far_off, near = trust.right[:3], trust.right[3:]
    assert near.mean() > far_off.mean() + 0.1
    assert trust.away[3:].max() < trust.away[:3].min()
    assert len(Trust.fit(table(300), build, nearest=5, near=False).away) == 3


def test_a_predictor_that_is_wrong_more_often_than_not_is_not_turned_around() -> None:
    trust = Trust.fit(table(300), build, nearest=5)
    assert (trust.right >= 0.5).all()


def test_one_task_has_one_trust() -> None:
    training = table(200, tasks=1)
    trust = Trust.fit(training, build)
    assert trust.right.shape == (1, 3)
    assert np.allclose(trust.at(np.array([0.0, 5.0])), trust.right)


def test_a_member_that_comes_later_is_trusted_as_the_others() -> None:
    trust = Trust(np.array([0.1]), np.array([[0.6, 0.8]]), 0.1).widen()
    assert trust.right[0].tolist() == pytest.approx([0.6, 0.8, 0.7])


def test_doubt_far_from_all_tasks() -> None:
    guard = Rightness.fit(table(300), build, limit=0.65)
    assert guard.doubtful(np.eye(8)[[5, 6]]).all()
    assert guard.doubtful(table(300, seed=1).x).mean() < 0.1
    values, tensors = guard.packed()
    assert np.array_equal(Guard.unpacked(values, tensors).doubtful(np.eye(8)), guard.doubtful(np.eye(8)))


def test_members_seen_in_other_tasks_alone() -> None:
    """Who was never observed in a task has even odds there, and no task is lost for it."""
    quality = np.array([[1.0, np.nan]] * 6 + [[0.0, 1.0]] * 6)
    training = plain(np.repeat(np.eye(2), 6, axis=0), quality, tasks=["a"] * 6 + ["b"] * 6)
    trust = Trust.fit(training, build, near=False)
    assert trust.right[0, 1] == 0.5
