"""Eagle: Elo ratings of the members over all battles, corrected by the battles around the query."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.searching import SearchOptions
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.elo import Elo
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.battles import battles
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method

MOST = 55
"""Battles of a query: all pairs of up to 11 members."""
_STEPS = (4.0, 8.0, 16.0, 32.0)
_HELD = 2000
"""Held-out queries at most."""


class EagleFit(SearchOptions):
    """Options of the fit of ``eagle``."""

    share: float = Field(default=0.5, ge=0, le=1)
    """Weight of the global rating beside the local one. Omitted: 0.5."""
    neighbours: int = Field(default=32, ge=0, le=1000)
    """Stored queries whose battles make the local rating. Omitted: 32."""
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Rating points that a battle moves at most. Omitted: the best of 4, 8, 16 and 32 on queries held out."""
    battles: int = Field(default=MOST, ge=1)
    """Battles of one query; of more, some are drawn. Omitted: 55."""
    fidelity: Literal["sound", "reference"] = "sound"
    """sound: the global rating is the mean over its trajectory; reference: the last one, which depends on the order.
    Omitted: sound."""


@method("eagle", stage=Stage.BEFORE, paper="2409.15518", needs={Capability.GENERATE}, options=RoutingOptions)
class Eagle(Routing):
    """share · global Elo + (1 - share) · local Elo, no training (arXiv 2409.15518).

    The global rating comes of all battles, the local one of moving it on by the battles of the nearest stored queries.
    A preference is stored and counts at once; a single outcome is a battle against the quality that was expected of the
    best of the other members.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Steps of 32 points, the usual ones, make the local rating follow chance: the step is chosen on held-out queries.
    * A table has no order of time: its queries fight in an order drawn by the seed, and the global rating is the mean
      over the trajectory, so that those at its end count no more.
    * Of more than 8,192 stored queries a query is compared with those in the nearest cells alone, unless ``search`` is
      ``exact``; nearly all neighbours are the same.
    * Scores are mean win probabilities against the other members, in the order of the ratings: a rating is no quality
      and cannot be set against a cost.
    """

    Fit: ClassVar[type[FitOptions]] = EagleFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, EagleFit)
        step = options.step or _chosen(training, options)
        return Router(training.table.members, training.table.best, _head(training, options, step), known(training))


def _head(training: Training, options: EagleFit, step: float) -> Elo:
    order = np.random.default_rng([training.seed, 13]).permutation(len(training.table))
    drawn = training.rows(order)
    found = battles(drawn.table, options.battles, seed=training.seed)
    require_battles(len(found))
    settings: dict[str, Any] = {"share": options.share, "neighbours": options.neighbours, "step": step}
    settings |= {"averaged": options.fidelity == "sound", "search": options.search, "compared": options.compared}
    return Elo.fit(drawn.x, found, np.nan_to_num(training.table.means), **settings)


def _chosen(training: Training, options: EagleFit) -> float:
    """The step whose choices have the highest quality on held-out queries, the least of equals."""
    if len(training.table) < 2:
        return max(_STEPS)
    fitted, held = training.held_out()
    held = held.rows(np.arange(min(len(held.table), _HELD)))
    quality = np.nan_to_num(held.table.quality)

    def reached(step: float) -> float:
        chosen = _head(fitted, options, step).scores(held.x).argmax(axis=1)
        return float(quality[np.arange(len(quality)), chosen].mean())

    return max(_STEPS, key=lambda step: (reached(step), -step))


def require_battles(count: int) -> None:
    """Refuse a table without battles.

    Raises:
        BadRequest: no query was answered by two members.
    """
    if not count:
        raise BadRequest("the table has no query with outcomes of two members; a ranking needs some")
