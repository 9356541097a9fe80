"""Latent: a query says how much each of r abilities counts and how hard it is; a member has so much of each.

Factorised routers (EmbedLLM, arXiv 2410.02223) and item response theory (arXiv 2506.01048) are of this form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble.before.heads.abilities import Abilities, log_odds
from ensemble.before.solvers.descent import Descent, cross_entropy, settle
from ensemble.outcomes.dense import Floats, mean_observed

if TYPE_CHECKING:
    import torch

    from ensemble.before.solvers.descent import Loss, Tensors


@dataclass
class Latent(Abilities, kind="latent"):
    """P(right) = sigmoid(a(x) · vector + b(x)), where a and b are linear in the embedding, or a is its softplus."""

    abilities: Floats
    """[d + 1, r], what the query asks for; the last row is the constant."""
    ease: Floats
    """[d + 1], how easy the query is for all members; the last one is the constant."""
    positive: bool = False
    """Whether a is made positive by softplus, so that more of an ability never hurts."""

    def asked(self, x: Floats) -> Floats:
        """[n, r], a(x)."""
        asked = x @ self.abilities[:-1] + self.abilities[-1]
        return np.logaddexp(0, asked) if self.positive else np.asarray(asked)

    def logits(self, x: Floats) -> Floats:
        return np.asarray(self.asked(x) @ self.vectors.T + (x @ self.ease[:-1] + self.ease[-1])[:, None])

    def linearised(self, x: Floats, vector: Floats) -> tuple[Floats, Floats]:
        asked = self.asked(x)
        return asked @ vector + x @ self.ease[:-1] + self.ease[-1], asked

    @classmethod
    def fit(
        cls, x: Floats, quality: Floats, size: int, options: Descent, seed: int = 0, positive: bool = False
    ) -> Latent:
        """Cross-entropy over the observed cells; graded qualities count as so much of a right answer.

        Args:
            x: [n, d], unit rows.
            quality: [n, M], NaN where not observed.
            size: r.
        """
        found = settle(start(x, quality, size, seed, positive), _loss(positive), rows_of(x, quality), options, seed)
        return assembled(found, positive).settled(x, quality, variance=1.0)


def assembled(found: dict[str, Floats], positive: bool) -> Latent:
    """The head of fitted parameters; its covariances are not known yet."""
    members, size = found["vectors"].shape
    return Latent(found["vectors"], np.zeros((members, size, size)), found["abilities"], found["ease"], positive)


def rows_of(x: Floats, quality: Floats) -> dict[str, Floats]:
    """What a descent is given."""
    return {"x": x, "quality": quality}


def start(x: Floats, quality: Floats, size: int, seed: int, positive: bool) -> dict[str, Floats]:
    """All members start alike but for their means, so that their order does not matter."""
    random = np.random.default_rng([seed, 3])
    members = quality.shape[1]
    abilities = np.concatenate([random.standard_normal((x.shape[1], size)), np.zeros((1, size))])
    vectors, means = np.zeros((members, size)), log_odds(mean_observed(quality, empty=0.5))
    if positive:
        # Softplus of 0 is ln 2: equal shares of each ability make up the mean.
        vectors += means[:, None] / (np.log(2) * size)
    else:
        abilities[:, 0] = np.append(np.zeros(x.shape[1]), 1)
        vectors[:, 0] = means
    return {"abilities": abilities, "ease": np.zeros(x.shape[1] + 1), "vectors": vectors}


def _loss(positive: bool) -> Loss:
    def loss(parameters: Tensors, rows: Tensors) -> torch.Tensor:
        return cross_entropy(logits(parameters, rows["x"], positive), rows["quality"])

    return loss


def logits(parameters: Tensors, x: torch.Tensor, positive: bool) -> torch.Tensor:
    """[n, M], the head's log-odds while it is fitted."""
    import torch

    asked = x @ parameters["abilities"][:-1] + parameters["abilities"][-1]
    if positive:
        asked = torch.nn.functional.softplus(asked)
    ease = x @ parameters["ease"][:-1] + parameters["ease"][-1]
    return asked @ parameters["vectors"].T + ease[:, None]
