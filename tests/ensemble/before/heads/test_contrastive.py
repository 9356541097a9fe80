"""Contrastive: what each query is drawn to and pushed away from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble.before.heads.contrastive import (
    Contrast,
    Contrastive,
    drawn_apart,
    fit,
    members_loss,
    queries_loss,
    unit,
)
from ensemble.before.solvers.descent import Descent

NAN = float("nan")
X = np.random.default_rng(0).standard_normal((6, 4))


def contrast(positives: int = 3, negatives: int = 3, ties: bool = True) -> Contrast:
    return Contrast(
        size=2, positives=positives, negatives=negatives, temperature=1, weight=0, others=3, ties=ties
    )  # fmt: skip


def loss(sims: list[list[float]], quality: list[list[float]], given: Contrast) -> float:
    return members_loss(torch.tensor(sims), torch.tensor(quality), given).item()


def test_the_worked_example() -> None:
    one = contrast(positives=1, negatives=2)
    assert round(loss([[0.8, 0.2, 0.5]], [[1, 0, 0.6]], one), 6) == 0.437488
    # Without the mask: the third one is wrong enough to be a negative too.
    assert round(loss([[0.8, 0.2, 0.5]], [[1, 0, 0.4]], one), 6) == 0.828390
    assert round(drawn_apart(torch.tensor([[0.9, 0.1, 0.3, -0.2]])).item(), 6) == 0.846302


@given(
    arrays(np.float64, (4, 5), elements=st.floats(-1, 1)),
    arrays(np.float64, (4, 5), elements=st.sampled_from([0.0, 0.3, 1.0, NAN])),
    st.booleans(),
)
def test_it_is_never_below_nothing_and_always_finite(sims: np.ndarray, quality: np.ndarray, ties: bool) -> None:
    found = loss(sims.tolist(), quality.tolist(), contrast(ties=ties))
    assert 0 <= found < np.inf


def test_a_query_that_all_get_wrong_says_nothing() -> None:
    assert loss([[0.3, -0.2, 0.9]], [[0, 0, 0]], contrast()) == 0


def test_with_no_member_wrong_there_is_nothing_to_push() -> None:
    assert loss([[0.3, -0.2, 0.9]], [[1, 0.6, 0.9]], contrast()) == 0


def test_masked_and_unasked_members_are_not_moved() -> None:
    sims = torch.tensor([[0.8, 0.2, 0.5, 0.1]], requires_grad=True)
    given = contrast(positives=1, negatives=3)
    members_loss(sims, torch.tensor([[1, 0, 0.6, NAN]]), given).backward()  # type: ignore[no-untyped-call]
    assert sims.grad is not None
    moved = sims.grad[0]
    assert moved[0] < 0 < moved[1] and moved[2] == 0 and moved[3] == 0


def test_level_members_all_count_or_the_first_do() -> None:
    sims, quality = [[0.1, 0.2, 0.3, 0.9]], [[1, 1, 1, 0]]
    both = [loss(sims, quality, contrast(positives=2, ties=ties)) for ties in (True, False)]
    each = [np.log1p(np.exp(0.9 - s)) for s in (0.1, 0.2, 0.3)]
    assert both == pytest.approx([sum(each), sum(each[:2])], abs=1e-6)


def test_queries_are_drawn_to_their_own_cluster() -> None:
    near = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    clusters, mixed = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 1])
    draws = torch.Generator().manual_seed(0)
    apart, together = (queries_loss(near, c, 2, draws).item() for c in (clusters, mixed))
    assert apart == pytest.approx(np.log1p(2 * np.exp(-2)), abs=1e-6)
    assert together > apart
    assert queries_loss(near, torch.zeros(4), 2, draws).item() == 0


def test_the_length_of_a_place_does_not_matter() -> None:
    random = np.random.default_rng(1)
    project, places = random.standard_normal((4, 2)), random.standard_normal((3, 2))
    one, other = Contrastive(project, places), Contrastive(project, places * np.array([[2.0], [0.1], [7.0]]))
    np.testing.assert_allclose(one.scores(X), other.scores(X))
    assert (np.abs(one.scores(X)) <= 1 + 1e-12).all()
    assert not one.probabilities


def test_a_new_member_stands_where_it_is_right() -> None:
    head = Contrastive(np.eye(2), np.array([[1.0, 0.0]]), link=np.array([4.0, 0.0]))
    x = np.array([[0.0, 1.0], [1.0, 0.0]])
    wide = head.widen(np.repeat(x, 40, axis=0), np.repeat([1.0, 0.0], 40))
    told = wide.scores(x)
    assert told[0, 1] > 0.9 and told[1, 1] < 0.1 and np.array_equal(told[:, 0], head.scores(x)[:, 0])
    np.testing.assert_allclose(head.widen(x[:0], np.zeros(0)).scores(x)[:, 1], head.scores(x)[:, 0])


def test_one_that_is_mostly_right_where_all_are_does_not_take_all() -> None:
    """The mean of all queries is nearer to each of them than the place of any member that is fitted."""
    random = np.random.default_rng(0)
    x = unit(random.standard_normal((600, 8)) + 1.5)
    hard = x[:, :1] - x[:, 1:2]
    quality = np.hstack([(random.random((600, 1)) < 0.9 - 0.4 * (hard * way > 0)) for way in (1, -1)]).astype(float)
    head = fit(x, quality, np.zeros(600), contrast(1, 1), Descent(epochs=5), 0)
    few = (random.random(60) < 0.6).astype(float)
    chosen = head.widen(x[:60], few).scores(x).argmax(axis=1)
    assert (chosen == 2).mean() < 0.2


def test_places_that_lie_opposite_each_other_have_room_for_a_third() -> None:
    head = Contrastive(np.eye(2), np.array([[1.0, 0.0], [-1.0, 0.0]]), link=np.array([4.0, 0.0]))
    assert np.isfinite(head.widen(np.eye(2), np.ones(2)).scores(np.eye(2))).all()
