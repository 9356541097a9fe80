"""Hybrid LLM: is the small member's answer likely to be as good as the large one's?"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.match import Match
from ensemble.before.policies import Policy, Threshold
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.matching import matches, samples_of, tolerance_of
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Dense, Floats


class HybridFit(FitOptions):
    """Options of the fit of ``hybrid_llm``."""

    large: str | None = None
    """Name of the large member. Omitted: the one with the higher mean quality."""
    labels: Literal["deterministic", "probabilistic", "transformed"] = "probabilistic"
    """``deterministic``: whether the first samples match; ``probabilistic``: how many pairs of samples do;
    ``transformed``: how many do within a tolerance. Omitted: probabilistic."""
    tolerance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of transformed labels, in units of quality. Omitted: the one that makes labels most unlike each other."""
    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of the logistic regression. Omitted: the best of 0.3, 1, 3, … 100 on a fifth of the queries, held out."""


@method("hybrid_llm", stage=Stage.BEFORE, paper="2404.14618", needs={Capability.GENERATE}, options=RoutingOptions)
class HybridLlm(Routing):
    """Hybrid LLM (arXiv 2404.14618): of two members, the small one answers where p(x) = P(q_small ≥ q_large - t) is
    high. Scores are p for the small and 1 - p for the large one, between which a threshold decides.

    A threshold of T on p is the policy ``threshold`` with margin 1 - 2 T. The share of large answers, or the loss of
    quality that is borne, is set by calibrating it.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Logistic regression with soft labels on a frozen sentence encoder stands for a fine-tuned encoder.
    * Where the table has one outcome for each cell, labels of pairs are 0 or 1, whatever kind is asked for.
    * Single outcomes change nothing in service: a label needs an answer of both.
    """

    Fit: ClassVar[type[FitOptions]] = HybridFit
    policy: ClassVar[Policy] = Threshold()

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, HybridFit)
        table = training.table
        large = _large(table, options)
        labels = np.full(table.quality.shape, np.nan)
        labels[:, 1 - large] = _labels(table, 1 - large, large, options)
        if not (~np.isnan(labels)).any():
            raise BadRequest("hybrid_llm learns from queries that both members answered; the table has none")
        head = Match.fit(training.x, labels, large, penalty=options.penalty, sure=False, seed=training.seed)
        return Router(table.members, large, head, known(training))


def _large(table: Dense, options: HybridFit) -> int:
    names = ", ".join(table.members)
    if len(table.members) != 2:
        raise BadRequest(f"hybrid_llm routes between two members; the table has {len(table.members)}: {names}")
    if options.large is None:
        return table.best
    if options.large not in table.members:
        raise BadRequest(f"large is no member of the table; allowed: {names}", param="large")
    return table.members.index(options.large)


def _labels(table: Dense, small: int, large: int, options: HybridFit) -> Floats:
    """[n], P(match); NaN where one of the two was not observed."""
    if options.labels != "transformed" and options.tolerance is not None:
        raise BadRequest("a tolerance is for transformed labels alone", param="tolerance")
    own, reference = samples_of(table, small), samples_of(table, large)
    if options.labels == "deterministic":
        return matches(own[:, :1], reference[:, :1])
    if options.labels == "probabilistic":
        return matches(own, reference)
    tolerance = tolerance_of(own, reference) if options.tolerance is None else options.tolerance
    return matches(own, reference, tolerance)
