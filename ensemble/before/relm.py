"""RELM: a recommender that knows how sure it is, so that evaluations are spent where they improve it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.bandits import LinearBandit
from ensemble.before.metallm import CONSTANT
from ensemble.before.recommending.evaluator import Estimate, Evaluator
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.regression import chosen
from ensemble.before.targets.rewards import Weighted
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Dense, Floats

_LEAST = 0.01
"""Standard deviation of an outcome that is assumed at least: a table that is fitted exactly is no proof."""


class RelmFit(FitOptions):
    """Options of the fit of ``relm``."""

    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of the ridge. Omitted: the best of 1 to 1000 on queries held out, each once."""
    judge_bias: float = Field(default=0.0, ge=-1, le=1)
    """By how much the table's qualities are too high on average, where a judge gave them. Omitted: 0."""
    judge_deviation: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Standard deviation of that judge's error. Above 0 its scores are drawn to what is expected of the member.
    Omitted: 0, they are trusted."""


@method(
    "relm",
    stage=Stage.BEFORE,
    paper="openreview.net/forum?id=gWi4ZcPQRl",
    needs={Capability.GENERATE},
    options=RoutingOptions,
)
class Relm(Routing):
    """Recommendation and evaluation for the sake of each other (ICLR 2025 workshop, openreview gWi4ZcPQRl; a
    reconstruction of the idea from title and venue, as the text could not be had).

    The recommender is a ridge regression of each member's quality that knows its variance; the evaluator weighs a
    judge's score and what the recommender expects by 1 ÷ variance; ``ensemble.before.recommending`` says which cells of
    the table to have answered next, where an upper bound exceeds what the best member is expected to reach by most.
    Serving, the recommender alone routes, and an outcome is one more row of its member.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code: everything here is reconstructed; no published figure was reproduced.
    """

    Fit: ClassVar[type[FitOptions]] = RelmFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, RelmFit)
        penalty = options.penalty or chosen(training.x, training.table.quality, seed=training.seed)
        evaluator = Evaluator(options.judge_bias, options.judge_deviation**2)
        head = recommender(training.x, training.table, penalty, evaluator)
        return Router(training.table.members, training.table.best, head, known(training))


def recommender(x: Floats, table: Dense, penalty: float, evaluator: Evaluator | None = None) -> LinearBandit:
    """A ridge regression that knows its spread.

    Args:
        x: [n, d].
        table: n queries.
        evaluator: of the judge that gave the qualities; omitted: they are right.
    """
    if evaluator is not None and (evaluator.bias or evaluator.variance):
        table = corrected(x, table, penalty, evaluator)
    head = _linear(x, table, penalty)
    error = np.where(table.observed, table.quality - head.scores(x), np.nan)
    noise = float(np.sqrt(np.nanmean(error**2))) if table.observed.any() else 1.0
    head.noise = max(noise, _LEAST)
    return head


def _linear(x: Floats, table: Dense, penalty: float) -> LinearBandit:
    return LinearBandit.fit(x, table, np.full(len(table.members), np.nan), Weighted(), penalty, constant=CONSTANT)


def corrected(x: Floats, table: Dense, penalty: float, evaluator: Evaluator) -> Dense:
    """The table with each judged quality weighed against what the others of that member let expect, held to [0, 1]."""
    unbiased = replace(table, quality=table.quality - evaluator.bias)
    head = _linear(x, unbiased, penalty)
    mean = head.scores(x)
    error = float(np.nanmean((unbiased.quality - mean) ** 2)) if table.observed.any() else 0.0
    # What the errors vary by beyond the judge's own is how much qualities do.
    variance = max(error - evaluator.variance, _LEAST**2) + (error * head.spread(x) ** 2)
    combined = evaluator.combined(Estimate(mean, variance), table.quality)
    return replace(table, quality=np.where(table.observed, np.clip(combined.mean, 0, 1), np.nan))
