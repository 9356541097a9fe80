"""Kind ``relative``: a member's next-token distribution as one over tokens that all members share, and the way back."""

from __future__ import annotations

from typing import Self

import torch

from ensemble.artifacts import Artifact
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.heads.head import Head, tensor
from ensemble.heads.search import Search

_LEAST = 1e-30
"""Smallest probability of an anchor that has a logarithm here."""
_TOLD = 3
"""Numbers before the distribution that a search is told: learning rate, steps, 1 as published or 0."""


class Relative(Head):
    """DeePEn's relative representations R (arXiv 2404.12715). V tokens, A anchors.

    Told nothing, outcomes are the anchors, in the order of their bytes, with log(p·R). Told [learning rate, steps,
    reference, log r̄ …], outcomes are the member's own tokens: log softmax of where the search from the place's logits
    ends (``ensemble.heads.search``). A place whose likeliest token is a stop id is not searched: the member ends its
    answer alone.
    """

    kind = "relative"
    told = None

    def __init__(self, rows: torch.Tensor, stops: torch.Tensor, space: str) -> None:
        """
        Args:
            rows: R, shape [V, A]; each sums to 1.
            stops: shape [s], int64, the member's stop ids.
            space: fingerprint of the anchors.
        """
        super().__init__(space)
        self._rows, self._stops = rows, stops

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        rows, stops = tensor(artifact, "rows"), tensor(artifact, "stops").long()
        if rows.ndim != 2 or not bool((rows.sum(dim=1) > 0).all()):
            raise ConfigurationError("a head of kind relative needs rows of shape [V, A], each with mass")
        # Rows that were stored in half precision sum to 1 only roughly.
        return cls(rows / rows.sum(dim=1, keepdim=True), stops, artifact.manifest.space)

    def to(self, device: torch.device) -> Self:
        return type(self)(self._rows.to(device), self._stops.to(device), self.card.space)

    @property
    def device(self) -> torch.device:
        return self._rows.device

    def check(self, given: int) -> None:
        wanted = _TOLD + self._rows.shape[1]
        if given not in (0, wanted):
            raise BadRequest(f"a head of kind relative is told nothing or {wanted} numbers, not {given}", param="given")

    def read(self, logits: torch.Tensor, states: torch.Tensor | None, given: torch.Tensor | None) -> torch.Tensor:
        if given is None:
            return (logits.softmax(dim=-1) @ self._rows).clamp_min(_LEAST).log()
        ends = torch.isin(logits.argmax(dim=-1), self._stops)
        steps = torch.where(ends, 0.0, given[:, 1])
        search = Search(self._rows, logits, given[:, _TOLD:], given[:, 0], steps, given[:, 2] > 0)
        return search.run().log_softmax(dim=-1)
