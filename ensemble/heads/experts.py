"""Kind ``experts``: output rows beside a model's own, one for each expert that may take over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from ensemble.artifacts import Artifact
from ensemble.errors import ConfigurationError
from ensemble.heads.head import Head, tensor


class Experts(Head):
    """Expert tokens (ETR, arXiv 2403.16854): logits W_e·h of experts beside the model's own W·h.

    Outcomes: ``stay``, with the logit of the model's likeliest token, and each expert with its own; so that an expert
    is the likeliest outcome just where the combined vector has its argmax at it. Models that scale or cap their logits
    after the head have rows that are compared with the scaled ones.
    """

    kind = "experts"
    reads_states = True

    def __init__(self, rows: torch.Tensor, bias: torch.Tensor, names: Sequence[str]) -> None:
        """
        Args:
            rows: shape [E, width]; ``bias``: shape [E].
            names: of the experts.
        """
        super().__init__(" ".join(names), ("stay", *names))
        self._rows, self._bias, self._names = rows, bias, tuple(names)
        self.width = rows.shape[1]

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        names = artifact.manifest.settings.get("experts")
        rows = tensor(artifact, "rows")
        if not isinstance(names, list) or len(names) != len(rows):
            raise ConfigurationError("a head of kind experts needs settings.experts, a name for each of its rows")
        return cls(rows, tensor(artifact, "bias"), names)

    def to(self, device: torch.device) -> Self:
        return type(self)(self._rows.to(device), self._bias.to(device), self._names)

    @property
    def device(self) -> torch.device:
        return self._rows.device

    def read(self, logits: torch.Tensor, states: torch.Tensor | None, given: torch.Tensor | None) -> torch.Tensor:
        assert states is not None, "a head that reads states is given them"
        own = logits.max(dim=-1, keepdim=True).values
        return torch.log_softmax(torch.cat([own, states @ self._rows.T + self._bias], dim=-1), dim=-1)
