"""Graph: queries and members are nodes, outcomes are edges; a member's state is made from its edges alone.

So every outcome changes the state of who gave it. The messages of few edges mislead more than they tell: of a member
that comes later the state is the likeliest one among states like those that there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ensemble.before.heads.abilities import log_odds
from ensemble.before.heads.head import Head, Outcome
from ensemble.before.heads.latent import Latent
from ensemble.before.solvers.convex import sigmoid
from ensemble.before.solvers.descent import Descent, cross_entropy, settle
from ensemble.before.solvers.newcomer import LEAST_LEVEL, LEAST_SLOPE
from ensemble.outcomes.dense import Floats

if TYPE_CHECKING:
    import torch

    from ensemble.before.solvers.descent import Tensors

_PRIOR = 200.0
"""Edges at which a member's own messages count as much as those of a mean member: fewer say little of what it is good
at, in hundreds of dimensions."""
_FEW = 5.0
"""Edges at which its own mean quality does."""
_MILD = 0.5
"""How far a score goes with the likeness of a query and outcomes at the start."""
_SLIGHT = 0.01
"""Of weights that are to grow from next to nothing."""


@dataclass
class Graph(Head, kind="graph"):
    """Score = sigmoid(mean over r of x0 * z + own): x0 is linear in the query, z is two layers on the member's edges,
    own the log-odds of the edges' mean quality.

    A message is the product of an edge's attribute (quality, or cost) and the query's embedding, both less their means
    over the member's edges; a member's messages are averaged.
    """

    sums: Floats
    """[M, 3, d + 1], over each member's edges, of (quality, cost, 1) times [x, 1]."""
    unit: float
    """Money that is a cost of 1."""
    usual: Floats
    """[2, d + 1], messages of a mean member of the fit, and its mean quality and cost: what members of few edges are
    drawn to. No outcome changes it."""
    align: Floats
    """[d, r], of the queries."""
    gather: Floats
    """[2, d, r], of the messages."""
    combine: Floats
    """[2 r + 1, r], after the first layer."""
    skip: Floats
    """[2 r, r], beside the second layer."""
    later: Latent | None = None
    """The members that came after the fit, last of all; their vectors are z and own."""

    learns: ClassVar[bool] = True

    def states(self) -> tuple[Floats, Floats]:
        """z [M, r] and own [M], of the members of the fit."""
        counts, messages = self.sums[:, 2, -1], _messages(self.sums)
        share = (counts / (counts + _PRIOR))[:, None, None]
        drawn = len(self.align) * (share * messages + (1 - share) * self.usual[:, :-1])
        got = (drawn.transpose(1, 0, 2) @ self.gather).transpose(1, 0, 2).reshape(len(counts), -1)
        z = np.maximum(got, 0) @ self.combine[:-1] + self.combine[-1] + got @ self.skip
        return z, log_odds((self.sums[:, 0, -1] + _FEW * self.usual[0, -1]) / (counts + _FEW))

    def scores(self, x: Floats) -> Floats:
        z, own = self.states()
        logits = matched(x @ self.align, z) + own
        return sigmoid(logits) if self.later is None else np.hstack([sigmoid(logits), self.later.scores(x)])

    def learn(self, outcome: Outcome) -> None:
        """One edge more; a cost that is not known counts as the member's mean."""
        member, row = outcome.member, np.append(outcome.x, 1.0)
        if self.later is not None and member >= len(self.sums):
            self.later.learn(replace(outcome, member=member - len(self.sums)))
            return
        mean = self.sums[member, 1, -1] / self.sums[member, 2, -1] if self.sums[member, 2, -1] else self.usual[1, -1]
        cost = mean if np.isnan(outcome.cost) else outcome.cost / self.unit
        self.sums[member] += np.outer([outcome.quality, cost, 1.0], row)

    def widen(self, x: Floats, quality: Floats) -> Graph:
        """The new state is the likeliest one given its outcomes and how the known members' states are spread."""
        vectors = np.column_stack(self.states())
        there = self.later or self._nobody()
        return replace(self, later=there.joined(x, quality, vectors.mean(axis=0), _spread(vectors)))

    def _nobody(self) -> Latent:
        """Of no member; a vector is z and own."""
        d, r = self.align.shape
        asked = np.zeros((d + 1, r + 1))
        asked[:-1, :-1], asked[-1, -1] = self.align / r, 1.0
        return Latent(np.zeros((0, r + 1)), np.zeros((0, r + 1, r + 1)), asked, np.zeros(d + 1))

    @classmethod
    def fit(
        cls, x: Floats, quality: Floats, cost: Floats, size: int, hidden: float, options: Descent, seed: int = 0
    ) -> Graph:
        """Every step hides some of the edges and foretells them from the others.

        Args:
            x: [n, d], unit rows.
            quality: [n, M], NaN where not observed.
            cost: [n, M], money; NaN counts as the member's mean, or 0.
            size: r.
            hidden: share of the edges that a step hides.
        """
        unit = float(np.nanmax(cost)) if (~np.isnan(cost)).any() and np.nanmax(cost) > 0 else 1.0
        rows = {"x": x, "quality": quality, "cost": _filled(cost) / unit}
        found = settle(_start(x.shape[1], size, seed), _Masked(hidden, seed), rows, options, seed)
        seen = ~np.isnan(quality)
        attributes = np.stack([np.nan_to_num(quality), rows["cost"], np.ones_like(quality)]) * seen
        sums = np.stack([_summed(x, attributes[:, :, m]) for m in range(quality.shape[1])])
        return cls(sums, unit, _usual(sums), later=None, **found)


def _summed(x: Floats, attributes: Floats) -> Floats:
    """[3, d + 1] of one member: attributes [3, n] of its edges times [x, 1]."""
    return np.concatenate([attributes @ x, attributes.sum(axis=1, keepdims=True)], axis=1)


def _spread(vectors: Floats) -> Floats:
    """[r + 1, r + 1], covariance of members' states [M, r + 1], own last: half as they vary together, half as if each
    number were apart; own is apart from z."""
    away = vectors - vectors.mean(axis=0)
    together, size = away.T @ away / len(vectors), len(away.T) - 1
    found = (together + np.eye(size + 1) * max(together.diagonal()[:-1].mean(), LEAST_SLOPE * size)) / 2
    found[-1, :], found[:, -1] = 0.0, 0.0
    found[-1, -1] = max(together[-1, -1], LEAST_LEVEL)
    return np.asarray(found)


def _messages(sums: Floats) -> Floats:
    """[M, 2, d], of quality and of cost."""
    means = sums / np.maximum(sums[:, 2:, -1:], 1)
    return np.asarray(means[:, :2, :-1] - means[:, :2, -1:] * means[:, 2:, :-1])


def _usual(sums: Floats) -> Floats:
    """[2, d + 1], of a mean edge."""
    weight = sums[:, 2, -1] / max(sums[:, 2, -1].sum(), 1.0)
    means = sums[:, :2, -1].sum(axis=0) / max(sums[:, 2, -1].sum(), 1.0)
    return np.concatenate([np.einsum("m,mkd->kd", weight, _messages(sums)), means[:, None]], axis=1)


def matched(queries: Floats, states: Floats) -> Floats:
    """[n, M], mean over r of queries [n, r] * states [M, r]."""
    return np.asarray(queries @ states.T / states.shape[1])


def _filled(cost: Floats) -> Floats:
    seen = ~np.isnan(cost)
    means = np.where(seen, cost, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen, cost, means)


def _start(d: int, size: int, seed: int) -> dict[str, Floats]:
    random = np.random.default_rng([seed, 31])

    def layer(*shape: int) -> Floats:
        return random.standard_normal(shape)

    # At the start a score is x · (message of quality), seen through one projection: like a query, like an outcome.
    align = layer(d, size)
    return {
        "align": align,
        "gather": np.stack([align, layer(d, size)]),
        "combine": _SLIGHT * layer(2 * size + 1, size),
        "skip": _MILD * np.concatenate([np.eye(size), np.zeros((size, size))]),
    }


class _Masked:
    """The loss: which edges are hidden is drawn anew at each call."""

    def __init__(self, hidden: float, seed: int) -> None:
        import torch

        self._hidden, self._draws = hidden, torch.Generator().manual_seed(seed)

    def __call__(self, parameters: Tensors, rows: Tensors) -> torch.Tensor:
        import torch

        quality = rows["quality"]
        gone = torch.rand(quality.shape, generator=self._draws) < self._hidden
        return cross_entropy(edges(parameters, rows, ~gone), torch.where(gone, quality, torch.nan))


def edges(parameters: Tensors, rows: Tensors, visible: torch.Tensor) -> torch.Tensor:
    """[n, M], log-odds of all edges, from those that are visible [n, M] and observed alone."""
    import torch

    quality = rows["quality"]
    seen = (visible & ~torch.isnan(quality)).float()
    x = torch.cat([rows["x"], torch.ones(len(quality), 1)], dim=1)
    attributes = torch.stack([torch.nan_to_num(quality), rows["cost"], torch.ones_like(quality)])
    sums = torch.einsum("knm,nd->mkd", attributes * seen, x)
    counts = sums[:, 2, -1]
    own = sums / counts.clamp(min=1)[:, None, None]
    messages = own[:, :2, :-1] - own[:, :2, -1:] * own[:, 2:, :-1]
    usual = torch.einsum("m,mkd->kd", counts / counts.sum().clamp(min=1), messages)
    share = (counts / (counts + _PRIOR))[:, None, None]
    drawn = messages.shape[2] * (share * messages + (1 - share) * usual)
    got = torch.einsum("mkd,kdr->mkr", drawn, parameters["gather"]).flatten(1)
    combine = parameters["combine"]
    states = torch.relu(got) @ combine[:-1] + combine[-1] + got @ parameters["skip"]
    mean = sums[:, 0, -1].sum() / counts.sum().clamp(min=1)
    level = ((sums[:, 0, -1] + _FEW * mean) / (counts + _FEW)).clamp(0.01, 0.99).logit()
    return rows["x"] @ parameters["align"] @ states.T / states.shape[1] + level
