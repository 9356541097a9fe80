"""Network: one hidden layer on the query and on what the member is made of, such as a model and a strategy.

Names of members say their parts: ``"model|strategy"`` has two; a plain name is one. Parts that members share have one
vector between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from ensemble.before.heads.abilities import Abilities, log_odds
from ensemble.before.heads.descent import Descent, cross_entropy, settle
from ensemble.outcomes.dense import Floats, mean_observed

if TYPE_CHECKING:
    import torch

    from ensemble.before.heads.descent import Loss, Tensors

BETWEEN = "|"
"""Stands between the parts of a member's name."""
_SLIGHT = 0.3
"""Of the hidden units' first weights: units tell members apart before they tell queries apart."""


@dataclass
class Network(Abilities, kind="network"):
    """Log-odds = out · relu(x W + shift_m) + bias_m; a member's vector is its shift and its bias."""

    hidden: Floats
    """[d, h]."""
    out: Floats
    """[h]."""

    def logits(self, x: Floats) -> Floats:
        return values(x, self.hidden, self.vectors, self.out)

    def linearised(self, x: Floats, vector: Floats) -> tuple[Floats, Floats]:
        units = x @ self.hidden + vector[:-1]
        slopes = np.concatenate([(units > 0) * self.out, np.ones((len(x), 1))], axis=1)
        return np.maximum(units, 0) @ self.out + vector[-1], slopes

    @classmethod
    def fit(
        cls, x: Floats, quality: Floats, members: Sequence[str], width: int, options: Descent, seed: int = 0
    ) -> Network:
        """Cross-entropy over the observed cells.

        Args:
            x: [n, d], unit rows.
            quality: [n, M], NaN where not observed.
            members: names of the columns.
            width: h.
        """
        means = log_odds(mean_observed(quality, empty=0.5))
        vectors, hidden, out = _fitted(x, quality, members, width, means, options, seed, cross_entropy)
        size = vectors.shape[1]
        head = cls(vectors, np.zeros((len(vectors), size, size)), hidden, out)
        return head.settled(x, quality, variance=1.0)


def regression(
    x: Floats, target: Floats, members: Sequence[str], width: int, options: Descent, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """The same layers by least squares over the observed cells: vectors [M, h + 1], hidden [d, h] and out [h].

    Args:
        target: [n, M], any numbers of a scale near 1, NaN where not observed.
    """
    return _fitted(x, target, members, width, mean_observed(target, empty=0.0), options, seed, squares)


def values(x: Floats, hidden: Floats, vectors: Floats, out: Floats) -> Floats:
    """[n, M], what the layers give."""
    seen = x @ hidden
    return np.stack([np.maximum(seen + vector[:-1], 0) @ out + vector[-1] for vector in vectors], axis=1)


def parts_of(members: Sequence[str]) -> tuple[Floats, list[str]]:
    """[M, P], 1 where a member has a part, and the parts; at different places of the name they are different ones."""
    made = [[f"{place}{BETWEEN}{part}" for place, part in enumerate(name.split(BETWEEN))] for name in members]
    parts = sorted({part for mine in made for part in mine})
    return np.array([[float(part in mine) for part in parts] for mine in made]), parts


def _fitted(
    x: Floats,
    target: Floats,
    members: Sequence[str],
    width: int,
    means: Floats,
    options: Descent,
    seed: int,
    error: Loss,
) -> tuple[Floats, Floats, Floats]:
    import torch

    parts, _ = parts_of(members)
    share = torch.tensor(parts, dtype=torch.float32)

    def loss(parameters: Tensors, rows: Tensors) -> torch.Tensor:
        shifts, bias = share @ parameters["shifts"], share @ parameters["biases"]
        units = torch.relu((rows["x"] @ parameters["hidden"])[:, None, :] + shifts + parameters["shift"])
        return error(units @ parameters["out"] + bias, rows["target"])

    found = settle(_start(x.shape[1], members, means, width, seed), loss, {"x": x, "target": target}, options, seed)
    vectors = np.concatenate(
        [parts @ found["shifts"] + found["shift"], (parts @ found["biases"])[:, None]],
        axis=1,
    )
    return vectors, found["hidden"], found["out"]


def _start(d: int, members: Sequence[str], means: Floats, width: int, seed: int) -> dict[str, Floats]:
    """What a part starts from is drawn by its name, so that the members' order does not matter."""
    random = np.random.default_rng([seed, 23])
    parts, names = parts_of(members)
    drawn = [np.random.default_rng([seed, 29, crc32(name.encode())]).standard_normal(width) for name in names]
    return {
        "hidden": _SLIGHT * random.standard_normal((d, width)),
        "shift": random.standard_normal(width) / 2,
        "shifts": np.stack(drawn),
        "out": random.standard_normal(width) / np.sqrt(width),
        "biases": np.linalg.lstsq(parts, means, rcond=None)[0],
    }


def squares(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the observed cells; NaN is a hole."""
    import torch

    seen = ~torch.isnan(target)
    return ((predicted - torch.nan_to_num(target)) ** 2 * seen).sum() / seen.sum().clamp(min=1)
