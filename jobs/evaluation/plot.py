"""Quality against price as a picture, and the hull of what a mixture of systems can reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jobs.evaluation.systems import Kind, System

_MARKS: dict[Kind, tuple[str, str]] = {
    "member": ("o", "tab:blue"),
    "vote": ("s", "tab:gray"),
    "rerank": ("^", "tab:gray"),
    "ensemble": ("D", "tab:red"),
}


class Point(NamedTuple):
    """One system."""

    price: float
    quality: float


def hull(points: Sequence[Point]) -> list[Point]:
    """The upper hull, from the cheapest system to the best: what drawing between two systems at random can reach.

    Of equally cheap systems only the best counts; what costs more than the best and is no better is not on it.

    >>> [tuple(point) for point in hull([Point(1, 50), Point(2, 52), Point(3, 90), Point(4, 80)])]
    [(1, 50), (3, 90)]
    """
    best = max(point.quality for point in points)
    last = min(point.price for point in points if point.quality == best)
    above: list[Point] = []
    for point in sorted((p for p in points if p.price <= last), key=lambda p: (p.price, -p.quality)):
        if above and point.price == above[-1].price:
            continue
        while len(above) > 1 and not _turns_right(above[-2], above[-1], point):
            above.pop()
        if not above or point.quality > above[-1].quality:
            above.append(point)
    return above


def _turns_right(first: Point, second: Point, third: Point) -> bool:
    """Whether the second lies above the line from the first to the third."""
    rise = (second.quality - first.quality) * (third.price - first.price)
    return rise > (third.quality - first.quality) * (second.price - first.price)


def draw(systems: Sequence[System], path: Path) -> None:
    """A PNG: accuracy in per cent over money for each answer, or over tokens where nothing has a price.

    The oracle is a line, as it is a bound and no system.
    """
    # Takes a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    priced = any(system.mean("cost") for system in systems)
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places: dict[Point, list[str]] = {}
    for system in systems:
        quality = 100 * system.accuracy
        if system.kind == "oracle":
            axes.axhline(quality, linestyle=":", color="tab:green", label="oracle: any member right")
            continue
        point = Point(system.mean("cost" if priced else "tokens"), quality)
        places.setdefault(point, []).append(system.name)
        mark, colour = _MARKS[system.kind]
        axes.plot(*point, mark, color=colour)
    for point, names in places.items():
        axes.annotate("\n".join(names), point, xytext=(6, 0), textcoords="offset points", fontsize=8, va="center")
    corners = hull(list(places))
    axes.plot([p.price for p in corners], [p.quality for p in corners], color="black", linewidth=0.8, label="hull")
    axes.set_xlabel("money for each answer" if priced else "tokens for each answer, of all models")
    axes.set_ylabel("right answers, %")
    # Room for names at the right end.
    axes.margins(0.15, 0.08)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=150, format="png")
