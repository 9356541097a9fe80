"""Kind ``router``: a small network over the hidden state that tells whether the member's next token is good enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch.nn import functional

from ensemble.artifacts import Artifact
from ensemble.heads.head import Head, tensor

_LAYERS = 3


class Router(Head):
    """CITER's router (arXiv 2502.01976): Linear(d→2d), batch norm, ReLU, Linear(2d→d), Linear(d→1), sigmoid.

    Outcomes: ``stay``, whose probability is the network's output, and ``leave``. Batch norm in evaluation mode is a
    linear map, which fitting has folded into the first layer. The published network has no non-linearity between its
    last two layers; neither has this.
    """

    kind = "router"
    reads_states = True

    def __init__(self, layers: Mapping[str, torch.Tensor]) -> None:
        """
        Args:
            layers: ``weight0`` [2d, d], ``bias0`` [2d], ``weight1`` [d, 2d], ``bias1`` [d], ``weight2`` [1, d],
                ``bias2`` [1].
        """
        super().__init__("stay or leave", ("stay", "leave"))
        self._layers = layers
        self.width = layers["weight0"].shape[1]

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        names = (f"{part}{layer}" for layer in range(_LAYERS) for part in ("weight", "bias"))
        return cls({name: tensor(artifact, name) for name in names})

    def to(self, device: torch.device) -> Self:
        return type(self)({name: values.to(device) for name, values in self._layers.items()})

    @property
    def device(self) -> torch.device:
        return self._layers["weight0"].device

    def read(self, logits: torch.Tensor, states: torch.Tensor | None, given: torch.Tensor | None) -> torch.Tensor:
        assert states is not None, "a head that reads states is given them"
        layers = self._layers
        inner = functional.linear(states, layers["weight0"], layers["bias0"]).relu()
        inner = functional.linear(inner, layers["weight1"], layers["bias1"])
        score = functional.linear(inner, layers["weight2"], layers["bias2"])
        return functional.logsigmoid(torch.cat([score, -score], dim=-1))
