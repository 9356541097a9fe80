"""DeePEn's search: logits of one model whose distribution, seen from shared anchors, is the one that was agreed on.

Arithmetic alone: tensors in, tensors out, for any number of places at once.
"""

from __future__ import annotations

import math

import torch

_MOMENTA = (0.9, 0.999)
_EPSILON = 1e-8
_DECAY = 0.01
_PERIOD = 10
"""Steps over which the learning rate goes down to a quarter."""
_LEAST = 1e-12
"""Smallest probability of an anchor: ratios of smaller ones overflow float32 when they are squared."""
_CLOSE = 1e-6
"""Divergence, in nats, at which a search has arrived. What is left is rounding, and the optimiser takes full steps
along any gradient, however small."""


class Search:
    """A search at n places by AdamW on x, for the least KL(r̄ ‖ softmax(x)·R). V tokens, A anchors.

    As published (``reference``) the divergence is divided by A, which for many anchors makes gradients smaller than the
    optimiser's epsilon, and logits decay by 0.01 times the learning rate at every step; otherwise neither.
    """

    def __init__(
        self,
        rows: torch.Tensor,
        logits: torch.Tensor,
        target: torch.Tensor,
        rate: torch.Tensor,
        steps: torch.Tensor,
        reference: torch.Tensor,
    ) -> None:
        """
        Args:
            rows: R, shape [V, A].
            logits: shape [n, V], where it begins.
            target: shape [n, A], log r̄.
            rate: shape [n], learning rate of the first step.
            steps: shape [n], how many each place takes.
            reference: shape [n], bool.
        """
        self.logits = logits
        """Shape [n, V], where it is."""
        self._rows = rows
        self._target = target.clamp_min(math.log(_LEAST))
        self._rate, self._steps = rate, steps
        self._scale = torch.where(reference, 1.0 / rows.shape[1], 1.0)[:, None]
        self._decay = torch.where(reference, _DECAY, 0.0)[:, None]
        self._first = torch.zeros_like(logits)
        self._second = torch.zeros_like(logits)
        self._done = 0

    def run(self) -> torch.Tensor:
        """Take all steps; returns where it ends, shape [n, V]."""
        for _ in range(int(self._steps.max())):
            self.step()
        return self.logits

    def step(self) -> torch.Tensor:
        """Take one step, at places that have steps left and have not arrived.

        Returns:
            Shape [n]: the divergences before it, in nats.
        """
        chances = self.logits.softmax(dim=-1)
        relative = (chances @ self._rows).clamp_min(_LEAST)
        wanted = self._target.exp()
        divergence = (wanted * (self._target - relative.log())).sum(-1)
        pull = (wanted / relative) @ self._rows.T
        gradient = chances * ((chances * pull).sum(-1, keepdim=True) - pull) * self._scale
        moving = (self._done < self._steps) & (divergence > _CLOSE)
        self.logits = torch.where(moving[:, None], self._moved(gradient), self.logits)
        return divergence

    def _moved(self, gradient: torch.Tensor) -> torch.Tensor:
        """One step of AdamW along a gradient, shape [n, V]."""
        rate = (self._rate * (0.25 + 0.375 * (1 + math.cos(math.pi * self._done / _PERIOD))))[:, None]
        self._done += 1
        self._first.lerp_(gradient, 1 - _MOMENTA[0])
        self._second.lerp_(gradient.square(), 1 - _MOMENTA[1])
        first = self._first / (1 - _MOMENTA[0] ** self._done)
        second = self._second / (1 - _MOMENTA[1] ** self._done)
        return self.logits * (1 - rate * self._decay) - rate * first / (second.sqrt() + _EPSILON)
