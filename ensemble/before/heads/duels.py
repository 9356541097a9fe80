"""Duels: how likely each member's answer is the better one, learned from battles in a space of the members."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome, Preference
from ensemble.before.solvers.strengths import win_share, won
from ensemble.before.targets.battles import expected_score
from ensemble.outcomes.dense import Floats

if TYPE_CHECKING:
    import torch

_BATCH = 256


@dataclass
class Duels(Head, kind="duels"):
    """s(m, q) = w · (v_m ÷ ‖v_m‖ ∘ P x) + b_m; P(a beats b) = sigmoid(s_a - s_b) (matrix factorisation, arXiv
    2406.18665).

    Scores are mean win probabilities against the other members: for two, P and 1 - P.
    """

    vectors: Floats
    """[M, k], v."""
    projection: Floats
    """[k, d], P."""
    weights: Floats
    """[k], w."""
    biases: Floats
    """[M], b."""
    expected: Floats
    """[M], mean quality in what the head was fitted to: what outcomes of a single member are held against."""
    rate: float = 0.05
    """Of online steps."""

    learns: ClassVar[bool] = True
    prefers: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    def strengths(self, x: Floats) -> Floats:
        """[n, M], log-odds."""
        unit = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return np.asarray((x @ self.projection.T) @ (unit * self.weights).T + self.biases)

    def scores(self, x: Floats) -> Floats:
        return win_share(self.strengths(x))

    def prefer(self, preference: Preference) -> None:
        """One step of the logistic loss on the vectors of the two members; no other one's strengths change."""
        score = 0.5 if preference.tie else 1.0
        error = self._error(preference.x, preference.winner, preference.loser, score)
        first = self._slope(preference.x, preference.winner)
        second = self._slope(preference.x, preference.loser)
        self._move(preference.winner, error, first)
        self._move(preference.loser, -error, second)

    def learn(self, outcome: Outcome) -> None:
        """A battle against what is expected of the best of the others, which moves that member alone."""
        if len(self.expected) < 2:
            return
        others = np.where(np.arange(len(self.expected)) == outcome.member, -np.inf, self.expected)
        other = int(np.argmax(others))
        score = expected_score(outcome.quality, float(self.expected[other]))
        error = self._error(outcome.x, outcome.member, other, score)
        self._move(outcome.member, error, self._slope(outcome.x, outcome.member))

    def _error(self, x: Floats, first: int, second: int, score: float) -> float:
        strengths = self.strengths(x[None])[0]
        return float(score - won(strengths[first] - strengths[second]))

    def _slope(self, x: Floats, member: int) -> Floats:
        """[k], of the strength by the member's vector; along the vector itself it is 0, as only its direction
        counts."""
        length = np.linalg.norm(self.vectors[member])
        unit = self.vectors[member] / length
        slope = self.weights * (self.projection @ x) / length
        return np.asarray(slope - (slope @ unit) * unit)

    def _move(self, member: int, error: float, slope: Floats) -> None:
        self.vectors[member] += self.rate * error * slope
        self.biases[member] += self.rate * error

    def widen(self, x: Floats, quality: Floats) -> Duels:
        """Like the member whose mean quality is nearest, corrected by what is known of the new one."""
        mean = float(quality.mean()) if len(quality) else float(np.median(self.expected))
        like = int(np.abs(self.expected - mean).argmin())
        wider = replace(
            self,
            vectors=np.concatenate([self.vectors, self.vectors[like : like + 1]]),
            biases=np.append(self.biases, self.biases[like]),
            expected=np.append(self.expected, mean),
        )
        for row, reached in zip(x, quality, strict=True):
            wider.learn(Outcome(x=row, member=len(self.expected), quality=float(reached)))
        return wider


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """How ``Duels`` are fitted."""

    size: int = 64
    """k."""
    epochs: int = 50
    rate: float = 1e-3
    """Of Adam."""
    decay: float = 1e-5
    noise: float = 0.1
    """Standard deviation of what is added to each number of an embedding, anew in each pass."""
    ties: bool = True
    """Whether a tie counts, as half a win of each."""
    biases: bool = True
    seed: int = 0


def fitted(x: Floats, quality: Floats, expected: Floats, descent: Descent) -> Duels:
    """Duels fitted to all battles between members observed on one query, each query counting by their number.

    Args:
        x: [n, d].
        quality: [n, M], NaN where not observed.
        expected: [M], mean quality.
    """
    import torch

    generator = torch.Generator().manual_seed(descent.seed)
    learned = _start(quality.shape[1], x.shape[1], descent, generator)
    vectors, projection, weights, biases = learned
    changing = [array for array in learned if array.requires_grad]
    adam = torch.optim.Adam(changing, lr=descent.rate, weight_decay=descent.decay)
    rows, targets = torch.tensor(np.asarray(x, np.float32)), torch.tensor(np.asarray(quality, np.float32))
    for _ in range(descent.epochs):
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows), _BATCH):
            batch = order[start : start + _BATCH]
            noisy = rows[batch] + descent.noise * torch.randn(len(batch), x.shape[1], generator=generator)
            unit = vectors / vectors.norm(dim=1, keepdim=True)
            loss = _loss((noisy @ projection.T) @ (unit * weights).T + biases, targets[batch], descent.ties)
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
    v, p, w, b = (array.detach().numpy().astype(np.float64) for array in learned)
    return Duels(v, p, w, b, np.asarray(expected, float))


def _start(members: int, width: int, descent: Descent, generator: torch.Generator) -> list[torch.Tensor]:
    """Vectors, projection, weights and biases before the first step."""
    import torch

    def drawn(*shape: int) -> torch.Tensor:
        array: torch.Tensor = torch.randn(*shape, generator=generator) / shape[-1] ** 0.5
        return array.requires_grad_()

    biases = torch.zeros(members, requires_grad=descent.biases)
    return [drawn(members, descent.size), drawn(descent.size, width), drawn(descent.size), biases]


def _loss(strengths: torch.Tensor, quality: torch.Tensor, ties: bool) -> torch.Tensor:
    """Mean cross entropy of the battles of some queries, [n, M] each."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    gaps = strengths[:, :, None] - strengths[:, None, :]
    outcome = quality[:, :, None] - quality[:, None, :]
    counts = ~outcome.isnan() if ties else (~outcome.isnan() & (outcome != 0))
    counts = counts.triu(1)
    score = 0.5 + 0.5 * outcome.nan_to_num().sign()
    each = binary_cross_entropy_with_logits(gaps, score, reduction="none")
    total: torch.Tensor = (each * counts).sum() / counts.sum().clamp(min=1)
    return total
