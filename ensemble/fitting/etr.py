"""Fitting ETR's expert rows (arXiv 2403.16854): a logistic regression over frozen hidden states.

Everything but the new rows is frozen, so that all a query contributes is its hidden state at the answer's first place
and the log-sum-exp of the model's own logits there. Knows no engine: both come as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt
import torch

from ensemble.errors import ConfigurationError
from ensemble.fitting.options import require
from ensemble.member import Floats

STAY = 0
"""Label of queries that the generalist answers itself; experts are labelled from 1 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtrFit:
    """How rows are fitted."""

    epochs: int = 200
    learning_rate: float = 5e-2
    weight_decay: float = 1e-4
    """The paper has 1.0 with 5 epochs at 5e-4; over frozen states more steps cost next to nothing."""
    batch: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", "must be at least 1")
        require(0 < self.learning_rate <= 1, "learning_rate", "must be above 0 and at most 1")
        require(0 <= self.weight_decay < inf, "weight_decay", "must be at least 0")
        require(self.batch >= 1, "batch", "must be at least 1")


@dataclass(frozen=True, slots=True)
class Rows:
    """What was fitted: rows, shape [E, d], and their biases, shape [E]."""

    rows: Floats
    bias: Floats


def loss_of(
    rows: torch.Tensor, bias: torch.Tensor, states: torch.Tensor, mass: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Mean of -log p(label), shape []; the model's own tokens together are label 0.

    Args:
        rows: shape [E, d]; ``bias``: shape [E].
        states: shape [n, d]; ``mass``: shape [n], log-sum-exp of the model's own logits; ``labels``: shape [n].
    """
    logits = torch.cat([mass[:, None], states @ rows.T + bias], dim=1)
    return torch.nn.functional.cross_entropy(logits, labels)


def fit(
    states: Floats,
    mass: Floats,
    labels: npt.NDArray[np.int64],
    start: Floats,
    experts: int,
    options: EtrFit | None = None,
    progress: Callable[[int, int, float], None] = lambda done, of, loss: None,
) -> Rows:
    """Rows for so many experts.

    Args:
        states: shape [n, d], the last hidden state at the place before the answer.
        mass: shape [n], log-sum-exp of the model's own logits there.
        labels: shape [n], 0 for queries that the model answers itself, e for those of expert e.
        start: shape [d], the mean of the model's output rows, with which every row begins.
        progress: told (epochs done, of how many, loss).

    Raises:
        ConfigurationError: there are no queries.
    """
    if not len(labels):
        raise ConfigurationError("expert rows are fitted to one query at least; there is none in the part to fit to")
    options = options or EtrFit()
    generator = torch.Generator().manual_seed(options.seed)
    rows = torch.tensor(np.tile(start, (experts, 1)), dtype=torch.float32, requires_grad=True)
    bias = torch.zeros(experts, requires_grad=True)
    optimiser = torch.optim.AdamW([rows, bias], lr=options.learning_rate, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.epochs)
    data = [torch.tensor(values) for values in (states.astype(np.float32), mass.astype(np.float32), labels)]
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data), batch_size=options.batch, shuffle=True, generator=generator
    )
    for epoch in range(options.epochs):
        for batch in batches:
            loss = loss_of(rows, bias, *batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()
        progress(epoch + 1, options.epochs, float(loss.detach()))
    return Rows(rows.detach().numpy(), bias.detach().numpy())


def routed(rows: Rows, states: Floats, best: Floats) -> npt.NDArray[np.int64]:
    """Where queries go, shape [n]: to the likeliest outcome.

    Args:
        best: shape [n], the model's own largest logit.
    """
    logits = np.concatenate([best[:, None], states @ rows.rows.T + rows.bias], axis=1)
    return np.asarray(logits.argmax(axis=1))


def accuracies(found: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Part of queries that went where they belong: of all, of those to stay, and of each expert's; of none nothing."""
    right = found == labels
    parts = {"stay": labels == STAY} | {name: labels == e for e, name in enumerate(names, 1)}
    told = {"accuracy": np.ones(len(labels), bool), **{f"accuracy.{name}": part for name, part in parts.items()}}
    return {name: float(right[part].mean()) for name, part in told.items() if part.any()}
