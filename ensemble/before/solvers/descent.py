"""Fitting by gradient descent: how many passes is found on held-out rows, then all rows are used.

Knows no head: it is given arrays to start from, arrays of rows, and a loss. Torch is needed to fit and never to serve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ensemble.before.fitting.training import FitOptions
from ensemble.outcomes.dense import Floats, Ints

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]
    Loss = Callable[[Tensors, Tensors], torch.Tensor]
    """Mean loss of some rows, of parameters and rows by name."""

_FEW = 20
"""Rows that are too few to hold some out."""


class Descent(FitOptions):
    """Options of every fit by gradient descent."""

    epochs: int = Field(default=60, ge=1)
    """Passes over the queries at most. Omitted: 60."""
    patience: int = Field(default=6, ge=1)
    """Passes without a lower loss on a tenth of the queries, held out, after which no more are made. Omitted: 6."""
    batch: int = Field(default=256, ge=1)
    """Queries for each step. Omitted: 256."""
    rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    """Learning rate of Adam. Omitted: 0.002."""
    decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Weight decay, apart from the gradient. Omitted: 0.1."""
    noise: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    """Standard deviation of what is added to each number of an embedding while fitting; keeps weights small.
    Omitted: 0.05."""


def settle(
    start: Mapping[str, Floats], loss: Loss, rows: Mapping[str, Floats], options: Descent, seed: int
) -> dict[str, Floats]:
    """Parameters with a low loss.

    Args:
        start: parameters by name.
        rows: arrays by name, of n rows each; ``x`` are embeddings, to which noise is added.
        seed: equal ones give equal parameters.
    """
    count = len(rows["x"])
    epochs = options.epochs
    if count >= _FEW:
        order = np.random.default_rng([seed, 11]).permutation(count)
        held = {name: array[order[: count // 10]] for name, array in rows.items()}
        epochs = _epochs(
            start, loss, {name: array[order[count // 10 :]] for name, array in rows.items()}, held, options
        )
    run = _Run(start, loss, rows, options, seed)
    for _ in range(epochs):
        run.epoch()
    return run.parameters()


def _epochs(
    start: Mapping[str, Floats], loss: Loss, rows: Mapping[str, Floats], held: Mapping[str, Floats], options: Descent
) -> int:
    """How many passes over the rows have the lowest loss on those held out."""
    run = _Run(start, loss, rows, options, seed=0)
    best, least = 1, np.inf
    for epoch in range(1, options.epochs + 1):
        run.epoch()
        reached = run.loss_on(held)
        if reached < least:
            best, least = epoch, reached
        elif epoch - best >= options.patience:
            break
    return best


class _Run:
    """One descent."""

    def __init__(
        self, start: Mapping[str, Floats], loss: Loss, rows: Mapping[str, Floats], options: Descent, seed: int
    ) -> None:
        import torch

        self._torch = torch
        self._rows, self._loss, self._options = rows, loss, options
        self._random = np.random.default_rng([seed, 13])
        self._noise = torch.Generator().manual_seed(seed)
        self._parameters = {
            name: torch.tensor(np.asarray(value), dtype=torch.float32).requires_grad_() for name, value in start.items()
        }
        self._adam = torch.optim.AdamW(self._parameters.values(), lr=options.rate, weight_decay=options.decay)

    def epoch(self) -> None:
        order = self._random.permutation(len(self._rows["x"]))
        for first in range(0, len(order), self._options.batch):
            batch = self._taken(self._rows, np.sort(order[first : first + self._options.batch]))
            if self._options.noise:
                x = batch["x"]
                batch["x"] = x + self._options.noise * self._torch.randn(x.shape, generator=self._noise)
            self._adam.zero_grad()
            self._loss(self._parameters, batch).backward()  # type: ignore[no-untyped-call]
            self._adam.step()

    def loss_on(self, rows: Mapping[str, Floats]) -> float:
        with self._torch.no_grad():
            return float(self._loss(self._parameters, self._taken(rows, np.arange(len(rows["x"])))))

    def parameters(self) -> dict[str, Floats]:
        return {name: value.detach().numpy().astype(np.float64) for name, value in self._parameters.items()}

    def _taken(self, rows: Mapping[str, Floats], places: Ints) -> dict[str, torch.Tensor]:
        return {name: self._torch.as_tensor(array[places], dtype=self._torch.float32) for name, array in rows.items()}


def cross_entropy(logits: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Mean over the observed cells; qualities in [0, 1] may be graded, NaN is a hole."""
    import torch

    seen = ~torch.isnan(quality)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.nan_to_num(quality), reduction="none")
    return (each * seen).sum() / seen.sum().clamp(min=1)
