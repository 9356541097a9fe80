"""Kind ``projection``: a member's next-token distribution in the vocabulary of another member, the pivot."""

from __future__ import annotations

from typing import Self

import torch

from ensemble.artifacts import Artifact
from ensemble.errors import ConfigurationError
from ensemble.heads.head import Head, tensor

LISTED = 320
"""Likeliest tokens that are projected at most."""
NOTHING = 1e-30
"""Mass of every outcome where none of the likeliest tokens has a row."""


class Projection(Head):
    """EVA's sparse matrix S (arXiv 2404.09492): q = softmax(the likeliest logits) · S. V ids here, P at the pivot.

    Outcomes: the pivot's ids, with log q. Where rows of S sum to 1, q sums to the mass of the tokens that have a row;
    a token without one stands for nothing that the pivot can say. Rows that are not normalised give q of any sum; where
    there is nothing at all, every outcome has as good as no mass.
    """

    kind = "projection"
    listed = LISTED

    def __init__(self, ids: torch.Tensor, weights: torch.Tensor, size: int, topk: int, space: str) -> None:
        """
        Args:
            ids: shape [V, w], int64: which of the pivot's ids each token stands for.
            weights: shape [V, w]: how much of each; 0 where a row has fewer.
            size: P.
            topk: tokens that are projected, the likeliest.
            space: fingerprint of the pivot's vocabulary.
        """
        super().__init__(space)
        self._ids, self._weights, self._size, self._topk = ids, weights, size, topk

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        settings = artifact.manifest.settings
        size, topk = settings.get("size"), settings.get("topk")
        ids, weights = tensor(artifact, "ids").long(), tensor(artifact, "weights")
        if not isinstance(size, int) or not isinstance(topk, int) or not 1 <= topk <= LISTED:
            rule = f"needs settings.size, and settings.topk between 1 and {LISTED}"
            raise ConfigurationError(f"a head of kind projection {rule}")
        if ids.ndim != 2 or ids.shape != weights.shape or int(ids.min()) < 0 or int(ids.max()) >= size:
            rule = "needs ids and weights of one shape [V, w], and ids below settings.size"
            raise ConfigurationError(f"a head of kind projection {rule}")
        return cls(ids, weights, size, topk, artifact.manifest.space)

    def to(self, device: torch.device) -> Self:
        return type(self)(self._ids.to(device), self._weights.to(device), self._size, self._topk, self.card.space)

    @property
    def device(self) -> torch.device:
        return self._ids.device

    def read(self, logits: torch.Tensor, states: torch.Tensor | None, given: torch.Tensor | None) -> torch.Tensor:
        best, tokens = logits.topk(min(self._topk, logits.shape[-1]), dim=-1)
        shares = best.softmax(dim=-1)[..., None] * self._weights[tokens]
        projected = shares.new_zeros(len(logits), self._size)
        projected.scatter_add_(1, self._ids[tokens].flatten(1), shares.flatten(1))
        silent = ~projected.any(dim=-1, keepdim=True)
        return projected.masked_fill(silent, NOTHING).log()
