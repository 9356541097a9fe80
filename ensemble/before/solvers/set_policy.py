"""The fit of set policies: vectors by variational inference; then the policy, warmed up by ranking pairs, by the
gradient of the expected reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble.before.heads.latent import Latent, logits, rows_of, start
from ensemble.before.heads.set_policy import SetPolicy
from ensemble.before.solvers.descent import Descent, cross_entropy, settle
from ensemble.outcomes.dense import Floats, mean_observed

if TYPE_CHECKING:
    import torch

    from ensemble.before.solvers.descent import Tensors

_CERTAIN = -6.0
"""Logarithm of the variance that vectors start from, and that weight decay draws to."""
_SHARP = 3.0
"""Logarithm of the sharpness that the policy starts from: 0.05 of reward make a member e times as likely."""
_ROUND = 8
"""Steps that are taken on draws of one policy, before draws of the next one."""


def variational(x: Floats, quality: Floats, size: int, options: Descent, seed: int) -> Latent:
    """Vectors as Gaussians around which outcomes are likely, drawn to N(0, 1) (the evidence bound).

    Args:
        x: [n, d], unit rows.
        quality: [n, M], NaN where not observed.
        size: numbers in a vector.
    """
    import torch

    draws, observed = torch.Generator().manual_seed(seed), max(int((~np.isnan(quality)).sum()), 1)

    def loss(parameters: Tensors, rows: Tensors) -> torch.Tensor:
        mean, log = parameters["vectors"], _CERTAIN + parameters["variances"]
        drawn = mean
        if torch.is_grad_enabled():
            drawn = mean + (log / 2).exp() * torch.randn(mean.shape, generator=draws)
        right = cross_entropy(logits({**parameters, "vectors": drawn}, rows["x"], False), rows["quality"])
        return right + divergence(mean, log) / observed

    first = start(x, quality, size, seed, positive=False)
    first["variances"] = np.zeros(first["vectors"].shape)
    found = settle(first, loss, rows_of(x, quality), options, seed)
    spread = np.stack([np.diag(row) for row in np.exp(_CERTAIN + found["variances"])])
    return Latent(found["vectors"], spread, found["abilities"], found["ease"])


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL of N(mean, variance) from N(0, 1), summed over all numbers; 0 where they are the same."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a policy is fitted for."""

    width: int
    """Hidden units."""
    entropy: float
    """Reward that a nat of the policy's entropy is worth."""
    exact: bool
    """Whether the expectation is taken over all observed members; else over drawn ones."""
    preference: float
    """w, where nothing else is asked for."""


def trained(
    abilities: Latent, x: Floats, quality: Floats, cost: Floats, aim: Aim, options: Descent, seed: int
) -> SetPolicy:
    """A policy that expects most reward (1 - w) quality - w cost, for w drawn evenly from [0, 1].

    Args:
        x: [n, d], unit rows.
        quality: [n, M], NaN where not observed: that member is not available then.
        cost: [n, M], money; NaN counts as the member's mean, or 0. The dearest member's mean is a cost of 1.
    """
    means = mean_observed(cost, empty=0.0)
    unit = float(means.max()) or 1.0
    means, cost = means / unit, np.where(np.isnan(cost), means, cost) / unit
    rows = {"x": x, "quality": quality, "cost": cost, "score": abilities.scores(x)}
    game = _Game(abilities.vectors, means, aim.entropy, seed)
    found = settle(_first(abilities, x.shape[1], aim.width, seed), game.ranked, rows, options, seed)
    found = settle(found, game.expected if aim.exact else game.clipped, rows, options, seed)
    parameters = {name: value for name, value in found.items() if name != "value"}
    return SetPolicy(abilities, means, aim.preference, **parameters)


def _first(abilities: Latent, d: int, width: int, seed: int) -> dict[str, Floats]:
    """The network says nothing at first: the policy is greedy."""
    random, size = np.random.default_rng([seed, 41]), abilities.vectors.shape[1]
    return {
        "sharpness": np.array([_SHARP]),
        "tokens": random.standard_normal((size + 4, width)) / np.sqrt(size + 4),
        "query": np.zeros((d, width)),
        "own": random.standard_normal((width, width)) / np.sqrt(width),
        "others": random.standard_normal((width, width)) / np.sqrt(width),
        "out": np.zeros(width),
        "value": np.zeros(4),
    }


class _Game:
    """One-step episodes: a query and a preference come, a member is drawn, and its reward is known."""

    def __init__(self, vectors: Floats, costs: Floats, entropy: float, seed: int) -> None:
        import torch

        self._vectors = torch.tensor(vectors, dtype=torch.float32)
        self._costs = torch.tensor(costs, dtype=torch.float32)
        self._entropy, self._draws = entropy, torch.Generator().manual_seed(seed)
        self._old: dict[str, torch.Tensor] = {}
        self._steps = 0

    def _logits(self, parameters: Tensors, rows: Tensors, w: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        import torch

        score, shape = rows["score"], (*rows["score"].shape, 1)
        told = [
            self._vectors.expand(*score.shape, -1),
            score[:, :, None],
            self._costs[:, None].expand(shape),
            w[:, :, None].expand(shape),
        ]
        units = torch.relu(torch.cat(told, dim=2) @ parameters["tokens"][:-1] + parameters["tokens"][-1])
        among = (units * seen[:, :, None]).sum(dim=1) / seen.sum(dim=1, keepdim=True).clamp(min=1)
        context = among @ parameters["others"] + rows["x"] @ parameters["query"]
        corrected = torch.relu(units @ parameters["own"] + context[:, None, :]) @ parameters["out"]
        logits = parameters["sharpness"].exp() * ((1 - w) * score - w * self._costs) + corrected
        return torch.where(seen, logits, -1e4)

    def _dealt(self, rows: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Preferences [n, 1], rewards [n, M], and who is available [n, M]."""
        import torch

        seen = ~torch.isnan(rows["quality"])
        w = torch.rand((len(seen), 1), generator=self._draws)
        if not torch.is_grad_enabled():
            w = torch.linspace(0, 1, len(seen))[:, None]
        return w, (1 - w) * torch.nan_to_num(rows["quality"]) - w * rows["cost"], seen

    def ranked(self, parameters: Tensors, rows: Tensors) -> torch.Tensor:
        """Of two members the one with more reward is to be more likely (the warm start)."""
        import torch

        w, reward, seen = self._dealt(rows)
        chances = self._logits(parameters, rows, w, seen)
        apart = reward[:, :, None] - reward[:, None, :]
        pairs = (apart > 0) & seen[:, :, None] & seen[:, None, :]
        each = torch.nn.functional.softplus(chances[:, None, :] - chances[:, :, None]) * apart
        return (each * pairs).sum() / pairs.sum().clamp(min=1)

    def expected(self, parameters: Tensors, rows: Tensors) -> torch.Tensor:
        """Less the expected reward: no draw is needed where all rewards are known."""
        w, reward, seen = self._dealt(rows)
        logs = self._logits(parameters, rows, w, seen).log_softmax(dim=1)
        chances = logs.exp()
        return -((chances * reward).sum(dim=1) - self._entropy * (chances * logs).sum(dim=1)).mean()

    def clipped(self, parameters: Tensors, rows: Tensors) -> torch.Tensor:
        """Proximal policy optimisation: one draw for each query, against a baseline of what it is worth."""
        import torch

        if not torch.is_grad_enabled():
            return self.expected(parameters, rows)
        if self._steps % _ROUND == 0:
            self._old = {name: value.detach().clone() for name, value in parameters.items()}
        self._steps += 1
        w, reward, seen = self._dealt(rows)
        with torch.no_grad():
            old = self._logits(self._old, rows, w, seen).log_softmax(dim=1)
            drawn = old.exp().multinomial(1, generator=self._draws)
        logs = self._logits(parameters, rows, w, seen).log_softmax(dim=1)
        top = torch.where(seen, rows["score"], 0.0).max(dim=1, keepdim=True).values
        value = torch.cat([torch.ones_like(w), w, top, w * top], dim=1) @ parameters["value"]
        got = reward.gather(1, drawn)[:, 0]
        gain = surrogate(logs.gather(1, drawn)[:, 0], old.gather(1, drawn)[:, 0], (got - value).detach())
        entropy = -(logs.exp() * logs).sum(dim=1)
        return -gain.mean() + ((got - value) ** 2).mean() / 2 - self._entropy * entropy.mean()


def surrogate(log: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, clip: float = 0.2) -> torch.Tensor:
    """[n], what is gained; the ratio of new to old probability counts within 1 ± clip only."""
    import torch

    ratio = (log - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
