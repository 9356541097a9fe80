"""Calibrating PackLLM's weights (arXiv 2404.11531): how much a loss on a prompt tells, and by how much members' losses
differ for other reasons than skill.

Published weights are softmax(-loss / τ) with τ = 1. Losses of text read plainly also differ by what members were
trained on, whatever they can do; so an offset is fitted for each member, and τ for all. Knows no member: losses come as
arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ensemble.errors import ConfigurationError
from ensemble.member import Floats

_SHARPEST = 1e-3
"""Least τ, in nats: where losses tell everything there is no best one."""
_ROUNDS = 200


class Calibration(NamedTuple):
    """Weights are softmax(-(losses - offsets) / tau)."""

    tau: float
    """Nats."""
    offsets: tuple[float, ...]
    """Nats, by member; of mean 0."""


def fit(losses: Floats, labels: npt.NDArray[np.int64], *, rounds: int = _ROUNDS) -> Calibration:
    """The calibration under which whoever should answer has most weight.

    Args:
        losses: shape [n, M], of each prompt at each member.
        labels: shape [n], the member that should answer.

    Raises:
        ConfigurationError: there are no prompts.
    """
    if not len(labels):
        raise ConfigurationError("weights are calibrated on one prompt at least; there is none in the part to fit to")
    told, right = torch.tensor(losses, dtype=torch.float64), torch.tensor(labels)
    sharpness = torch.zeros((), dtype=torch.float64, requires_grad=True)
    offsets = torch.zeros(losses.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([sharpness, offsets], max_iter=rounds, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        # A little pull keeps what is decided anyway from growing without end.
        pull = 1e-4 * ((offsets**2).sum() + sharpness**2)
        found = torch.nn.functional.cross_entropy((offsets - told) * sharpness.exp(), right) + pull
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    own = offsets.detach().numpy()
    tau = max(_SHARPEST, float(torch.exp(-sharpness.detach())))
    return Calibration(tau, tuple((own - own.mean()).tolist()))


def weights(losses: Floats, calibration: Calibration) -> Floats:
    """Shape [n, M], each row summing to 1.

    >>> weights(np.array([[0.496259, 0.558370]]), Calibration(1.0, (0.0, 0.0))).round(6).tolist()
    [[0.515523, 0.484477]]
    """
    scores = -(losses - np.array(calibration.offsets)) / calibration.tau
    masses = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(masses / masses.sum(axis=1, keepdims=True))
