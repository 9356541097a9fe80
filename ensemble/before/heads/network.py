"""Network: one hidden layer on the query and on what the member is made of, such as a model and a strategy.

Names of members say their parts: ``"model|strategy"`` has two; a plain name is one. Parts that members share have one
vector between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np

from ensemble.before.heads.abilities import Abilities, log_odds
from ensemble.before.solvers.descent import Descent, cross_entropy, settle
from ensemble.outcomes.dense import Floats, mean_observed

if TYPE_CHECKING:
    import torch

    from ensemble.before.solvers.descent import Tensors

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
        return values(x, Layers(self.vectors, self.hidden, self.out))

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
        start = _start(x.shape[1], members, log_odds(mean_observed(quality, empty=0.5)), width, seed)
        found = _fitted(start, x, quality, members, cross_entropy, options, seed)
        size = found.vectors.shape[1]
        head = cls(found.vectors, np.zeros((len(members), size, size)), found.hidden, found.out)
        return head.settled(x, quality, variance=1.0)


class Layers(NamedTuple):
    """What is fitted."""

    vectors: Floats
    """[M, h + 1], shifts of the hidden units, and a bias."""
    hidden: Floats
    """[d, h]."""
    out: Floats
    """[h]."""


def regression(
    x: Floats, target: Floats, members: Sequence[str], width: int, options: Descent, seed: int = 0
) -> Layers:
    """The same layers by least squares over the observed cells.

    Args:
        target: [n, M], any numbers of a scale near 1, NaN where not observed.
    """
    start = _start(x.shape[1], members, mean_observed(target, empty=0.0), width, seed)
    return _fitted(start, x, target, members, squares, options, seed)


def values(x: Floats, layers: Layers) -> Floats:
    """[n, M], what the layers give."""
    seen = x @ layers.hidden
    return np.stack([np.maximum(seen + v[:-1], 0) @ layers.out + v[-1] for v in layers.vectors], axis=1)


def parts_of(members: Sequence[str]) -> tuple[Floats, list[str]]:
    """[M, P], 1 where a member has a part, and the parts; at different places of the name they are different ones."""
    made = [[f"{place}{BETWEEN}{part}" for place, part in enumerate(name.split(BETWEEN))] for name in members]
    parts = sorted({part for mine in made for part in mine})
    return np.array([[float(part in mine) for part in parts] for mine in made]), parts


def _fitted(
    start: dict[str, Floats],
    x: Floats,
    target: Floats,
    members: Sequence[str],
    error: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    options: Descent,
    seed: int,
) -> Layers:
    import torch

    parts, _ = parts_of(members)
    share = torch.tensor(parts, dtype=torch.float32)

    def loss(parameters: Tensors, rows: Tensors) -> torch.Tensor:
        shifts, bias = share @ parameters["shifts"], share @ parameters["biases"]
        units = torch.relu((rows["x"] @ parameters["hidden"])[:, None, :] + shifts + parameters["shift"])
        return error(units @ parameters["out"] + bias, rows["target"])

    found = settle(start, loss, {"x": x, "target": target}, options, seed)
    shifts, biases = parts @ found["shifts"] + found["shift"], parts @ found["biases"]
    return Layers(np.concatenate([shifts, biases[:, None]], axis=1), found["hidden"], found["out"])


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
