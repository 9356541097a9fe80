"""Quality against price as a picture, with the hull of what a mixture of systems can reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble.outcomes.curves import Point, hull
from jobs.evaluation.systems import Kind, System

_MARKS: dict[Kind, tuple[str, str]] = {
    "member": ("o", "tab:blue"),
    "vote": ("s", "tab:gray"),
    "rerank": ("^", "tab:gray"),
    "ensemble": ("D", "tab:red"),
}


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
    axes.plot([p.cost for p in corners], [p.quality for p in corners], color="black", linewidth=0.8, label="hull")
    axes.set_xlabel("money for each answer" if priced else "tokens for each answer, of all models")
    axes.set_ylabel("right answers, %")
    # Room for names at the right end.
    axes.margins(0.15, 0.08)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=150, format="png")
