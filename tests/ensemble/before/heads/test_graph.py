"""Graph: a member's state is made of its edges, and of no edge that is to be foretold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensemble.before.heads.graph import Graph, _usual, edges, matched
from ensemble.before.heads.head import Outcome
from ensemble.before.routing.parts import Part
from ensemble.before.solvers.convex import sigmoid
from ensemble.before.solvers.descent import Descent
from tests.ensemble.before.toys import table

D, R, M, N = 4, 3, 3, 30


def parameters(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"align": (D, R), "gather": (2, D, R), "combine": (2 * R + 1, R), "skip": (2 * R, R)}
    return {name: random.standard_normal(shape) for name, shape in shapes.items()}


def rows(seed: int = 0) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    quality = random.random((N, M))
    quality[::4, 1] = np.nan
    return {
        "x": torch.tensor(random.standard_normal((N, D)), dtype=torch.float32),
        "quality": torch.tensor(quality, dtype=torch.float32),
        "cost": torch.tensor(random.random((N, M)), dtype=torch.float32),
    }


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in parameters().items()}


def head() -> Graph:
    found = rows()
    x, quality = found["x"].numpy().astype(float), found["quality"].numpy()
    seen = ~np.isnan(quality)
    attributes = np.stack([np.nan_to_num(quality), found["cost"].numpy(), np.ones((N, M))]) * seen
    sums = np.einsum("knm,nd->mkd", attributes, np.concatenate([x, np.ones((N, 1))], axis=1))
    return Graph(sums, 1.0, _usual(sums), **parameters())


def test_the_worked_example() -> None:
    found = matched(np.array([[1, 0.5, 0.2]]), np.array([[0.6, -0.2, 1.0]]))[0, 0]
    assert round(found, 6) == 0.233333 and round(float(sigmoid(found)), 6) == 0.558070


def test_what_is_served_is_what_was_fitted() -> None:
    found = rows()
    logits = edges(tensors(), found, torch.ones((N, M), dtype=torch.bool)).numpy()
    np.testing.assert_allclose(head().scores(found["x"].numpy()), sigmoid(logits), atol=1e-4)


def test_hidden_edges_do_not_foretell_themselves() -> None:
    found, visible = rows(), torch.rand((N, M), generator=torch.Generator().manual_seed(1)) > 0.3
    before = edges(tensors(), found, visible)
    changed = {**found, "quality": torch.where(visible, found["quality"], 1 - found["quality"])}
    assert torch.equal(edges(tensors(), changed, visible), before)
    seen = {**found, "quality": torch.where(visible, 1 - found["quality"], found["quality"])}
    assert not torch.allclose(edges(tensors(), seen, visible), before)


def test_the_order_of_nodes_does_not_matter() -> None:
    one = head()
    order = [2, 0, 1]
    other = Graph(one.sums[order], one.unit, one.usual, one.align, one.gather, one.combine, one.skip)
    x = rows()["x"].numpy()
    np.testing.assert_allclose(other.scores(x), one.scores(x)[:, order])


def test_a_member_without_edges_has_a_score() -> None:
    one, x = head(), rows()["x"].numpy()
    wide = one.widen(np.zeros((0, D)), np.zeros(0))
    assert np.isfinite(wide.scores(x)).all() and wide.scores(x).shape == (N, M + 1)
    np.testing.assert_allclose(wide.scores(x)[:, :M], one.scores(x), rtol=1e-9)


def test_a_member_that_comes_later_is_told_by_its_outcomes() -> None:
    one, x = head(), rows()["x"].numpy().astype(float)
    good = (x[:, 0] > 0).astype(float)
    many = (np.tile(x, (40, 1)), np.tile(good, 40))
    wide = one.widen(*many)
    told = wide.scores(x)[:, M]
    assert told[good == 1].mean() > told[good == 0].mean() + 0.1
    twice = wide.widen(many[0], 1 - many[1])
    np.testing.assert_allclose(twice.scores(x)[:, : M + 1], wide.scores(x))
    assert twice.scores(x)[good == 0, M + 1].mean() > twice.scores(x)[good == 1, M + 1].mean()


def test_a_member_that_comes_later_goes_on_learning() -> None:
    wide, x = head().widen(np.zeros((0, D)), np.zeros(0)), rows()["x"].numpy().astype(float)
    before = wide.scores(x)
    for row in x[:10]:
        wide.learn(Outcome(x=row, member=M, quality=0.0))
    after = wide.scores(x)
    assert after[:, M].mean() < before[:, M].mean() - 0.1 and np.array_equal(after[:, :M], before[:, :M])


def test_it_is_kept_and_read_again() -> None:
    wide, x = head().widen(rows()["x"].numpy().astype(float), np.ones(N)), rows()["x"].numpy()
    again = Part.unpacked(*wide.packed())
    assert isinstance(again, Graph) and np.array_equal(again.scores(x), wide.scores(x))


def test_an_outcome_is_an_edge_more() -> None:
    one, two = head(), head()
    x = np.array([0.5, -0.5, 0.5, 0.5])
    one.learn(Outcome(x=x, member=2, quality=0.75, cost=0.5))
    np.testing.assert_allclose(one.sums[2] - two.sums[2], np.outer([0.75, 0.5, 1.0], [*x, 1.0]), atol=1e-9)
    assert np.array_equal(one.sums[:2], two.sums[:2])
    mean = one.sums[2, 1, -1] / one.sums[2, 2, -1]
    before = one.sums[2, 1, -1]
    one.learn(Outcome(x=x, member=2, quality=0.75))
    assert one.sums[2, 1, -1] - before == pytest.approx(mean)


def test_costs_are_edges_too() -> None:
    training = table(120)
    one = Graph.fit(training.x, training.table.quality, training.table.cost, 4, 0.3, Descent(epochs=2))
    assert one.unit == pytest.approx(0.004)
    np.testing.assert_allclose(one.sums[:, 1, -1] / one.sums[:, 2, -1], [0.25, 0.5, 1.0])
    none = Graph.fit(training.x, training.table.quality, np.full((120, 3), np.nan), 4, 0.3, Descent(epochs=2))
    assert none.unit == 1.0 and np.isfinite(none.scores(training.x)).all()
