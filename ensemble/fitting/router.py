"""Fitting CITER's network (arXiv 2502.01976) to labelled hidden states: arrays in, layers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ensemble.errors import ConfigurationError
from ensemble.fitting.options import require
from ensemble.member import Floats

Told = Callable[[int, int], None]
"""Told (epochs done, of how many)."""

_FEWEST = 3
"""Tokens: two for batch norm, and one that is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CiterFit:
    """How a router is fitted."""

    iterations: int = 2
    """Label iterations: after the first, open places are labelled by what the router so far comes to."""
    threshold: float = 0.95
    """Of the router in these roll-outs."""
    tokens: int = 300
    """Of one roll-out at most."""
    epochs: int = 200
    learning_rate: float = 1e-3
    """The paper has 1e-7; that is for millions of tokens."""
    batch: int = 1024
    patience: int = 10
    """Epochs without a better validation loss after which fitting ends."""
    dropout: float = 0.1
    held_out: float = 0.2
    """Part of the tokens that validation is done on."""
    concurrency: int = 32
    """Examples that are labelled at once."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "tokens", "epochs", "patience", "concurrency"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        require(self.threshold >= 0, "threshold", "must be at least 0")
        require(0 < self.learning_rate <= 1, "learning_rate", "must be above 0 and at most 1")
        require(self.batch >= 2, "batch", "must be at least 2, as batch norm compares tokens")
        require(0 <= self.dropout < 1, "dropout", "must be at least 0 and below 1")
        require(0 < self.held_out < 1, "held_out", "must be above 0 and below 1")
        require(self.seed >= 0, "seed", "must be at least 0")


class Network:
    """A router: layers as ``ensemble.heads.router`` has them."""

    def __init__(self, layers: Mapping[str, Floats]) -> None:
        self.layers = layers

    def score(self, states: Floats) -> Floats:
        """Probability that a token is good enough, shape [n].

        Args:
            states: shape [n, d].
        """
        inner = np.maximum(states @ self.layers["weight0"].T + self.layers["bias0"], 0)
        inner = inner @ self.layers["weight1"].T + self.layers["bias1"]
        outer = inner @ self.layers["weight2"].T + self.layers["bias2"]
        return np.asarray(1 / (1 + np.exp(-outer[:, 0])))


def fit(
    states: Floats, good: Floats, options: CiterFit, told: Told = lambda done, of: None
) -> tuple[Network, dict[str, float]]:
    """A router, and how well it does on tokens that it was not fitted to.

    Args:
        states: shape [n, d]; ``good``: shape [n], 1 where the small member's token is good enough, else 0.

    Raises:
        ConfigurationError: too few tokens to leave any out of a fit.
    """
    if len(good) < _FEWEST:
        raise ConfigurationError(f"a router is fitted to {_FEWEST} labelled tokens at least; there are {len(good)}")
    order = np.random.default_rng(options.seed).permutation(len(good))
    held = min(max(1, round(options.held_out * len(good))), len(good) - 2)
    validation, training = order[:held], order[held:]
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        network = _network(states.shape[1], options.dropout)
        parts = [(_tensor(states[part]), _tensor(good[part])) for part in (training, validation)]
        network.load_state_dict(_trained(network, parts[0], parts[1], options, told))
    fitted = _folded(network.eval())
    return fitted, _metrics(fitted.score(states[validation]), good[validation])


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _network(width: int, dropout: float) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(width, 2 * width),
        torch.nn.BatchNorm1d(2 * width),
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(2 * width, width),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(width, 1),
    )


def _trained(
    network: torch.nn.Sequential,
    training: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    options: CiterFit,
    told: Told,
) -> dict[str, torch.Tensor]:
    """The weights with the smallest validation loss."""
    loss = torch.nn.BCEWithLogitsLoss()
    optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*training), batch_size=options.batch, shuffle=True
    )
    best, least, since = _copied(network), float("inf"), 0
    for epoch in range(options.epochs):
        network.train()
        for states, good in batches:
            if len(good) > 1:  # batch norm has nothing to norm one by
                optimiser.zero_grad()
                loss(network(states)[:, 0], good).backward()
                optimiser.step()
        with torch.no_grad():
            now = float(loss(network.eval()(validation[0])[:, 0], validation[1]))
        told(epoch + 1, options.epochs)
        if now < least:
            best, least, since = _copied(network), now, 0
        elif (since := since + 1) >= options.patience:
            break
    return best


def _copied(network: torch.nn.Sequential) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in network.state_dict().items()}


def _folded(network: torch.nn.Sequential) -> Network:
    """The network with batch norm as a part of the layer before it."""
    first, norm, *_ = network
    assert isinstance(first, torch.nn.Linear) and isinstance(norm, torch.nn.BatchNorm1d)
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    layers = {"weight0": first.weight * scale[:, None], "bias0": (first.bias - norm.running_mean) * scale + norm.bias}
    for number, layer in enumerate((network[4], network[6]), 1):
        assert isinstance(layer, torch.nn.Linear)
        layers |= {f"weight{number}": layer.weight, f"bias{number}": layer.bias}
    return Network({name: values.detach().numpy().astype(np.float32) for name, values in layers.items()})


def _metrics(scores: Floats, good: Floats) -> dict[str, float]:
    """Area under the curve, and cross-entropy, on held-out tokens."""
    kept = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-12)
    entropy = -np.mean(good * np.log(kept) + (1 - good) * np.log(1 - kept))
    positive, negative = scores[good > 0.5], scores[good <= 0.5]
    told = {"bce": float(entropy), "good": float(good.mean()), "tokens": float(len(good))}
    if len(positive) and len(negative):
        ranks = np.searchsorted(np.sort(negative), positive, "left") + np.searchsorted(
            np.sort(negative), positive, "right"
        )
        told["auc"] = float(ranks.mean() / 2 / len(negative))
    return told
