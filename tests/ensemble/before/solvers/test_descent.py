"""Descent: held-out rows say when to stop, seeds say what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ensemble.before.solvers.descent import Descent, cross_entropy, settle

ROWS = np.random.default_rng(0).standard_normal((80, 2)).astype(np.float32)


def squared(parameters: Any, rows: Any) -> Any:
    return ((rows["x"] @ parameters["w"] - rows["y"]) ** 2).mean()


def test_it_finds_the_weights() -> None:
    rows = {"x": ROWS, "y": ROWS @ np.array([2.0, -1.0])}
    found = settle({"w": np.zeros(2)}, squared, rows, Descent(epochs=100, rate=0.03, batch=16, noise=0, decay=0), 0)
    np.testing.assert_allclose(found["w"], [2, -1], atol=5e-2)


def test_what_only_fits_the_rows_at_hand_is_left_early() -> None:
    passes: list[int] = []
    noise = np.random.default_rng(1).standard_normal(80)

    def counted(parameters: Any, rows: Any) -> Any:
        if torch.is_grad_enabled():
            passes.append(len(rows["x"]))
        return squared(parameters, rows)

    wide = np.random.default_rng(2).standard_normal((80, 60))
    given = Descent(epochs=300, rate=0.05, patience=3, batch=1000, noise=0, decay=0)
    settle({"w": np.zeros(60)}, counted, {"x": wide, "y": noise}, given, seed=0)
    assert passes.count(72) < 300 and passes.count(80) <= passes.count(72) - 3


def test_few_rows_are_all_used() -> None:
    seen: set[int] = set()

    def noted(parameters: Any, rows: Any) -> Any:
        seen.add(len(rows["x"]))
        return squared(parameters, rows)

    settle({"w": np.zeros(2)}, noted, {"x": ROWS[:9], "y": np.ones(9)}, Descent(epochs=2, batch=4), seed=0)
    assert seen == {4, 1}


@pytest.mark.parametrize(("other", "same"), [(0, True), (1, False)])
def test_seeds_say_what_is_drawn(other: int, same: bool) -> None:
    rows = {"x": ROWS, "y": np.ones(80)}
    one, two = (settle({"w": np.zeros(2)}, squared, rows, Descent(epochs=3), seed)["w"] for seed in (0, other))
    assert np.array_equal(one, two) == same


def test_holes_do_not_count() -> None:
    logits = torch.tensor([[1.0, 5.0], [0.0, -2.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[1.0, torch.nan], [torch.nan, 0.25]]))
    expected = np.mean([np.log1p(np.exp(-1)), 0.25 * np.log1p(np.exp(2)) + 0.75 * np.log1p(np.exp(-2))])
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad[0, 1] == 0 and logits.grad[1, 0] == 0 != logits.grad[0, 0]
