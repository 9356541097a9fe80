"""Response: a small monotone network on how far a member's abilities exceed what the query asks (NIRT, arXiv
2506.01048)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble.before.heads.abilities import Abilities, log_odds
from ensemble.before.solvers.descent import Descent, cross_entropy, settle
from ensemble.outcomes.dense import Floats, mean_observed

if TYPE_CHECKING:
    import torch

    from ensemble.before.solvers.descent import Tensors


@dataclass
class Response(Abilities, kind="response"):
    """Log-odds = out · tanh(hidden (relevance(x) * (vector - difficulty(x))) + shift) + base.

    No weight of the network is negative and relevance is positive, so that more of an ability never hurts.
    """

    relevance: Floats
    """[d + 1, r], whose softplus says how much each ability counts for a query; the last row is the constant."""
    difficulty: Floats
    """[d + 1, r], how much of each the query asks; the last row is the constant."""
    hidden: Floats
    """[r, h], not negative."""
    shift: Floats
    """[h]."""
    out: Floats
    """[h], not negative."""
    base: Floats
    """[1]."""

    def linearised(self, x: Floats, vector: Floats) -> tuple[Floats, Floats]:
        relevance = np.logaddexp(0, x @ self.relevance[:-1] + self.relevance[-1])
        excess = vector - (x @ self.difficulty[:-1] + self.difficulty[-1])
        units = np.tanh((relevance * excess) @ self.hidden + self.shift)
        slopes = ((1 - units**2) * self.out) @ self.hidden.T * relevance
        return units @ self.out + self.base[0], slopes

    def logits(self, x: Floats) -> Floats:
        relevance = np.logaddexp(0, x @ self.relevance[:-1] + self.relevance[-1])
        asked = (relevance * (x @ self.difficulty[:-1] + self.difficulty[-1])) @ self.hidden - self.shift
        had = np.stack([(relevance * vector) @ self.hidden for vector in self.vectors], axis=1)
        return np.asarray(np.tanh(had - asked[:, None, :]) @ self.out + self.base[0])

    @classmethod
    def fit(cls, x: Floats, quality: Floats, size: int, width: int, options: Descent, seed: int = 0) -> Response:
        """Cross-entropy over the observed cells.

        Args:
            x: [n, d], unit rows.
            quality: [n, M], NaN where not observed.
            size: r, abilities.
            width: h, hidden units.
        """
        found = settle(_start(x, quality, size, width, seed), _loss, {"x": x, "quality": quality}, options, seed)
        members = quality.shape[1]
        head = cls(
            found["vectors"],
            np.zeros((members, size, size)),
            found["relevance"],
            found["difficulty"],
            np.logaddexp(0, found["hidden"]),
            found["shift"],
            np.logaddexp(0, found["out"]),
            found["base"],
        )
        return head.settled(x, quality, variance=1.0)


def _start(x: Floats, quality: Floats, size: int, width: int, seed: int) -> dict[str, Floats]:
    """All members start alike but for their means, so that their order does not matter."""
    random = np.random.default_rng([seed, 5])
    d = x.shape[1]
    means = log_odds(mean_observed(quality, empty=0.5))
    return {
        "vectors": np.repeat((means - means.mean())[:, None] / 2, size, axis=1),
        "relevance": np.concatenate([random.standard_normal((d, size)), np.zeros((1, size))]),
        "difficulty": np.zeros((d + 1, size)),
        "hidden": random.standard_normal((size, width)) - 2.0,
        "shift": random.standard_normal(width) / 2,
        "out": np.full(width, -1.0),
        "base": np.array([means.mean()]),
    }


def _loss(parameters: Tensors, rows: Tensors) -> torch.Tensor:
    import torch

    x, softplus = rows["x"], torch.nn.functional.softplus
    relevance = softplus(x @ parameters["relevance"][:-1] + parameters["relevance"][-1])
    difficulty = x @ parameters["difficulty"][:-1] + parameters["difficulty"][-1]
    excess = relevance[:, None, :] * (parameters["vectors"] - difficulty[:, None, :])
    units = torch.tanh(excess @ softplus(parameters["hidden"]) + parameters["shift"])
    return cross_entropy(units @ softplus(parameters["out"]) + parameters["base"], rows["quality"])
