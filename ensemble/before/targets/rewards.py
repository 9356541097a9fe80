"""Rewards: one number for an answer's quality, what it cost and how long it took; what bandits learn from.

Knows nothing of who learns.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.fitting.training import FitOptions
from ensemble.before.routing.parts import Part
from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Dense, mean_observed


class Reward(Part):
    """Of one answer. What is not known of it (NaN) counts nothing."""

    @abstractmethod
    def of(self, quality: float, cost: float = math.nan, latency: float = math.nan) -> float:
        """
        Args:
            quality: 0 to 1.
            cost: money.
            latency: seconds.
        """


@dataclass
class Weighted(Reward, kind="weighted-reward"):
    """w_a · quality - w_c · cost ÷ scale - w_l · latency ÷ scale, the parts at most 1."""

    accuracy: float = 1.0
    cost: float = 0.0
    latency: float = 0.0
    cost_scale: float = 1.0
    """Money that counts as 1."""
    latency_scale: float = 1.0
    """Seconds that count as 1."""

    def of(self, quality: float, cost: float = math.nan, latency: float = math.nan) -> float:
        spent = self.cost * min(1.0, _known(cost) / self.cost_scale)
        return self.accuracy * quality - spent - self.latency * min(1.0, _known(latency) / self.latency_scale)


@dataclass
class Printed(Reward, kind="printed-reward"):
    """w_a · quality - w_c · cost ÷ scale · w_l · log10(milliseconds) · t, as printed for PickLLM (arXiv 2412.12170).

    The parts multiply: where cost is nothing a long wait costs nothing, and below a millisecond the sign turns.
    """

    accuracy: float = 1.0
    cost: float = 0.0
    latency: float = 0.0
    cost_scale: float = 1.0
    latency_scale: float = 1.0
    """t."""

    def of(self, quality: float, cost: float = math.nan, latency: float = math.nan) -> float:
        waited = math.log10(1000 * latency) if latency > 0 else 0.0
        spent = self.cost * _known(cost) / self.cost_scale
        return self.accuracy * quality - spent * self.latency * waited * self.latency_scale


@dataclass
class CostWhenRight(Reward, kind="xrouter-reward"):
    """quality · (K - min(lambda · cost, most)): cost counts only where the answer is right (xRouter, arXiv
    2510.08439)."""

    whole: float = 1.0
    """K."""
    weight: float = 3.0
    """lambda, for a unit of ``cost_scale``."""
    most: float = 0.8
    """Never below 0 if this is at most K."""
    cost_scale: float = 1.0
    """Money that counts as 1."""

    def of(self, quality: float, cost: float = math.nan, latency: float = math.nan) -> float:
        return quality * (self.whole - min(self.weight * _known(cost) / self.cost_scale, self.most))


@dataclass
class CheapnessShare(Reward, kind="router-r1-reward"):
    """quality · (1 - w) + cheapness · w, nothing for a wrong answer (Router-R1, arXiv 2506.09033).

    Cheapness is 1 at the lowest cost that was seen and 0 at the highest; the paper takes both of a batch.
    """

    weight: float = 0.0
    """w."""
    lowest: float = 0.0
    highest: float = 1.0

    def of(self, quality: float, cost: float = math.nan, latency: float = math.nan) -> float:
        if quality <= 0:
            return 0.0
        range_ = max(self.highest - self.lowest, 1e-300)
        cheap = min(1.0, max(0.0, (self.highest - cost) / range_)) if not math.isnan(cost) else 0.0
        return quality * (1 - self.weight) + cheap * self.weight


class RewardOptions(FitOptions):
    """Options of fits whose router learns from a reward."""

    reward: Literal["sum", "printed", "xrouter", "router_r1"] = "sum"
    """sum: quality less weighted cost and latency; printed: their product, as printed for PickLLM; xrouter: cost counts
    only where the answer is right; router_r1: a share of the reward is for cheapness, none for a wrong answer.
    Omitted: sum."""
    cost_weight: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What cost counts beside a quality of 1; the dearest member's mean cost counts as 1. Omitted: 0, and 3 for
    xrouter."""
    latency_weight: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What latency counts beside a quality of 1, for sum and printed; the slowest member's mean counts as 1 (in a
    product it is the logarithm of milliseconds). Omitted: 0, and 1 for printed."""

    def made(self, table: Dense) -> Reward:
        """The reward, with the scales of a table.

        Raises:
            BadRequest: a weight that does not apply, or what it weighs is not in the table.
        """
        return made(self.reward, self.cost_weight, self.latency_weight, table)


def made(kind: str, cost_weight: float | None, latency_weight: float | None, table: Dense) -> Reward:
    """See ``RewardOptions``."""
    if latency_weight is not None and kind not in ("sum", "printed"):
        raise BadRequest(f"latency_weight does not apply to the reward {kind}; it does to: sum, printed")
    weight = {"xrouter": 3.0}.get(kind, 0.0) if cost_weight is None else cost_weight
    cost, latency = mean_observed(table.cost), mean_observed(table.latency)
    _require(cost_weight, cost, "cost")
    _require(latency_weight, latency, "latency")
    scale = _scale(cost)
    if kind == "xrouter":
        return CostWhenRight(weight=weight, cost_scale=scale)
    if kind == "router_r1":
        if weight > 1:
            raise BadRequest(f"cost_weight of the reward router_r1 is {weight:g}; allowed: 0 to 1")
        return CheapnessShare(weight, float(np.nanmin(np.append(cost, scale))), scale)
    if kind == "printed":
        return Printed(1.0, weight, 1.0 if latency_weight is None else latency_weight, scale)
    return Weighted(1.0, weight, latency_weight or 0.0, scale, _scale(latency))


def _require(weight: float | None, means: np.ndarray, name: str) -> None:
    if weight and np.isnan(means).all() and means.size:
        raise BadRequest(f"{name}_weight is {weight:g}, but the table has no {name}; leave it out, or fill the column")


def _scale(means: np.ndarray) -> float:
    """The largest mean; 1 where nothing is known."""
    largest = float(np.nanmax(np.append(means, 0)))
    return largest if largest > 0 else 1.0


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value
