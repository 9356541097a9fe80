"""Quality against cost: points, what can be reached between them, and the figures that sum a curve up.

Functions over points; knows nothing of routers, nor of how a point was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np


class Point(NamedTuple):
    """What one way of answering costs and reaches: means over the same queries."""

    cost: float
    """Money, or another price."""
    quality: float


def hull(points: Sequence[Point]) -> list[Point]:
    """The upper hull, from the cheapest point to the best: what drawing between two of them at random can reach.

    Of equally cheap points only the best counts; what costs more than the best and is no better is not on it.

    >>> [tuple(point) for point in hull([Point(1, 50), Point(2, 52), Point(3, 90), Point(4, 80)])]
    [(1, 50), (3, 90)]
    """
    best = max(point.quality for point in points)
    last = min(point.cost for point in points if point.quality == best)
    above: list[Point] = []
    for point in sorted((p for p in points if p.cost <= last), key=lambda p: (p.cost, -p.quality)):
        if above and point.cost == above[-1].cost:
            continue
        while len(above) > 1 and not _turns_right(above[-2], above[-1], point):
            above.pop()
        if not above or point.quality > above[-1].quality:
            above.append(point)
    return above


def _turns_right(first: Point, second: Point, third: Point) -> bool:
    """Whether the second lies above the line from the first to the third."""
    rise = (second.quality - first.quality) * (third.cost - first.cost)
    return rise > (third.quality - first.quality) * (second.cost - first.cost)


def area(points: Sequence[Point], low: float, high: float) -> float:
    """Area under the hull between two costs, quality × money: nothing left of the cheapest point, as nothing is reached
    there, and right of the best its quality.

    Raises:
        ValueError: the costs are not in order.
    """
    if not low <= high:
        raise ValueError(f"an area needs costs in order; got {low} and {high}")
    corners = hull(points)
    costs, quality = (np.array(values, float) for values in zip(*corners, strict=True))
    begin = max(low, costs[0])
    if begin >= high:
        return 0.0
    at = np.unique(np.concatenate([[begin, high], costs[(costs > begin) & (costs < high)]]))
    return float(np.trapezoid(np.interp(at, costs, quality), at))


Normalisation = Literal["range", "largest"]


def aiq(points: Sequence[Point], by: Normalisation, low: float | None = None, high: float | None = None) -> float:
    """Average improvement in quality (arXiv 2403.12031): area under the hull over a length of costs, quality units.

    >>> corners = [Point(1, 0.5), Point(2, 0.7), Point(4, 0.8)]
    >>> round(aiq(corners, "range"), 6), round(aiq(corners, "largest"), 6)
    (0.7, 0.525)

    Args:
        by: ``range``: the paper's, from the least to the largest cost; ``largest``: its code's, from 0. Figures of the
            one and of the other cannot be compared.
        low, high: the least and the largest cost, common to all that is compared. Omitted: those of the points.

    Returns:
        NaN where the length is 0.
    """
    high = max(point.cost for point in points) if high is None else high
    low = min(point.cost for point in points) if low is None else low
    begin = low if by == "range" else 0.0
    return area(points, begin, high) / (high - begin) if high > begin else float("nan")


def gain(points: Sequence[Point], single: Point) -> float:
    """PerfGain: the best quality reached, relative to a single member's, less 1; NaN where that is 0."""
    best = max(point.quality for point in points)
    return best / single.quality - 1 if single.quality > 0 else float("nan")


def saving(points: Sequence[Point], single: Point) -> float:
    """CostSave: how much less than a single member the cheapest point costs that is no worse, as a share of its cost.

    Returns:
        Below 0 where all that are no worse cost more; NaN where none is, or the member costs nothing.
    """
    enough = [point.cost for point in points if point.quality >= single.quality]
    return 1 - min(enough) / single.cost if enough and single.cost > 0 else float("nan")


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that none other equals or surpasses in both cost and quality, by cost; of equal ones one."""
    front: list[Point] = []
    for point in sorted(set(points), key=lambda p: (p.cost, -p.quality)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return front


def pareto_distance(points: Sequence[Point], everybody: Sequence[Point]) -> float:
    """ParetoDist: mean distance of points to the Pareto front of all points that are compared; 0 on the front.

    Cost and quality are first divided by what all points span of each, so that the distance has no unit.

    Args:
        everybody: points of all that are compared, these included.
    """
    front = np.array(pareto(everybody))
    span = np.ptp(np.array(everybody), axis=0)
    scale = np.where(span > 0, span, 1)
    apart = (np.array(points)[:, None] - front[None]) / scale
    return float(np.sqrt((apart**2).sum(axis=2)).min(axis=1).mean())


def arena(quality: float, cost: float, *, beta: float = 0.1, least: float = 0.0044, most: float = 200.0) -> float:
    """RouterArena's score (arXiv 2510.00202): (1 + β)·A·C / (β·A + C), C = the place of the cost on a log scale.

    >>> round(arena(0.70, 1.0), 6), round(arena(0.75, 10.0), 6)
    (0.674439, 0.650378)

    Args:
        quality: A, 0 to 1.
        cost: dollars per 1000 queries; outside ``least`` to ``most`` it counts as the nearer of them.
    """
    places = np.log2([min(max(cost, least), most), least, most])
    cheapness = float((places[2] - places[0]) / (places[2] - places[1]))
    total = beta * quality + cheapness
    return (1 + beta) * quality * cheapness / total if total > 0 else 0.0
