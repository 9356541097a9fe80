"""A comparison of routers as figures: one record for each way of choosing, of JSON values, NaN where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ensemble.outcomes import bootstrap, pairs
from ensemble.outcomes.curves import Point, aiq, arena, gain, pareto_distance, saving
from ensemble.outcomes.measures import entropy, shares
from ensemble.outcomes.references import Taken
from jobs.evaluation.routers.comparison import Comparison, Entrant
from jobs.evaluation.statistics import Comparison as Difference

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a router can reach over all prices of money."""

    area: float = NAN
    """Under the hull, over the range from the cheapest to the dearest single member: AIQ as the paper defines it."""
    aiq_largest: float = NAN
    """The same over the largest cost, from 0: AIQ as the paper's code computes it."""
    best: float = NAN
    """Highest quality of a point."""
    gain: float = NAN
    """PerfGain; the point is chosen on the tested queries, so it flatters."""
    saving: float = NAN
    """CostSave; likewise."""
    pareto_distance: float = NAN
    """To the Pareto front of all routers and single members."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A choice between two members."""

    apgr: float = NAN
    cpt50: float = NAN
    cpt80: float = NAN


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of choosing."""

    name: str
    router: bool
    """Else a reference."""
    quality: float
    against: Difference
    """The best single member's."""
    cost: float
    """Mean for each query."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of the traffic, by member; empty for a mean over members."""
    entropy: float = NAN
    """Of those shares, bits."""
    arena: float = NAN
    served_quality: float = NAN
    served_cost: float = NAN
    brier: float = NAN
    calibration_error: float = NAN
    fit_seconds: float = NAN
    decision_ms: float = NAN
    curve: Curve = Curve()
    pair: Pair = Pair()
    tasks: Mapping[str, float] = field(default_factory=dict)
    """Quality by task."""

    @cached_property
    def top(self) -> tuple[str, float]:
        """Who gets most of the traffic, and how much."""
        return max(self.shares.items(), key=lambda pair: pair[1]) if self.shares else ("", NAN)


def rows(found: Comparison, seed: int) -> list[Row]:
    """References, then routers in the order of their names."""
    every = [*found.zero, *(point for entrant in found.entrants for point in entrant.curve)]
    told = [_row(found, reference, seed, router=False) for reference in found.references]
    return [*told, *(_entered(found, entrant, seed, every) for entrant in found.entrants)]


def _entered(found: Comparison, entrant: Entrant, seed: int, every: list[Point]) -> Row:
    served = entrant.served.point
    return _row(
        found,
        entrant.best,
        seed,
        router=True,
        served_quality=served.quality,
        served_cost=served.cost,
        brier=entrant.brier,
        calibration_error=entrant.calibration_error,
        fit_seconds=entrant.fit_seconds,
        decision_ms=entrant.decision_ms,
        curve=curve(found, entrant.curve, every),
        pair=pair(found, entrant),
    )


def _row(found: Comparison, own: Taken, seed: int, *, router: bool, **more: object) -> Row:
    members, cost = found.tested.members, own.point.cost
    parts = np.zeros(0) if own.chosen is None else shares(own.chosen, len(members))
    return Row(
        name=own.name,
        router=router,
        quality=own.point.quality,
        against=against(own, found.single, seed),
        cost=cost,
        shares={name: float(part) for name, part in zip(members, parts, strict=False)},
        entropy=entropy(parts[None]) if len(parts) else NAN,
        arena=arena(own.point.quality, 1000 * cost) if found.zero else NAN,
        tasks=_by_task(own, found.tested.tasks),
        **more,  # type: ignore[arg-type]
    )


def against(own: Taken, other: Taken, seed: int) -> Difference:
    """Quality against another way of choosing, on the same queries."""
    apart = own.quality.astype(np.float64) - other.quality.astype(np.float64)
    low, high = bootstrap.apart(apart, seed=seed)
    return Difference(float(apart.mean()), low, high, int((apart > 0).sum()), int((apart < 0).sum()))


def curve(found: Comparison, points: tuple[Point, ...], every: list[Point]) -> Curve:
    """
    Args:
        points: of one router; empty where there are no costs.
        every: all points that its distance is measured against.
    """
    if not points:
        return Curve()
    costs = [single.cost for single in found.zero]
    low, high = min(costs), max(costs)
    single = found.single.point
    return Curve(
        area=aiq(points, "range", low, high),
        aiq_largest=aiq(points, "largest", low, high),
        best=max(point.quality for point in points),
        gain=gain(points, single),
        saving=saving(points, single),
        pareto_distance=pareto_distance(points, every),
    )


def pair(found: Comparison, entrant: Entrant) -> Pair:
    """The strong one of two members is the best single member; nothing where there are more than two."""
    if len(found.tested.members) != 2 or found.single.chosen is None:
        return Pair()
    strong = int(found.single.chosen[0])
    quality, predicted = found.tested.quality, entrant.predicted
    reached = pairs.quality_by_share(
        quality[:, strong], quality[:, 1 - strong], predicted[:, strong] - predicted[:, 1 - strong]
    )
    needed = [pairs.share_needed(reached, part) for part in (0.5, 0.8)]
    return Pair(apgr=pairs.mean_recovered(reached), cpt50=needed[0], cpt80=needed[1])


def _by_task(own: Taken, tasks: tuple[str, ...]) -> dict[str, float]:
    of = np.array(tasks)
    named = sorted(set(tasks) - {""})
    return {task: float(own.quality[of == task].mean()) for task in named}
