"""What a comparison of routers leaves: report.md, routers.parquet, curves.parquet and a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ensemble.outcomes.curves import hull
from jobs.evaluation.report import listed, section
from jobs.evaluation.routers import words
from jobs.evaluation.routers.comparison import Comparison
from jobs.evaluation.routers.figures import Row
from jobs.evaluation.tables import Words

REPORT, ROUTERS, CURVES, PLOT = "report.md", "routers.parquet", "curves.parquet", "quality_cost.png"
_NOTES = (
    "Quality is the mean over queries of what the answering member reached; `against the best single`: paired "
    "difference in points with the 95 % interval of a bootstrap over queries (2,000 resamples). The best single "
    "member, the cheapest and the best of a task were picked on what was fitted to. Curves: the member with the "
    "highest predicted quality − price × predicted cost, over prices; area: under the hull, from the cheapest to the "
    "dearest single member's cost, over that range. Max, PerfGain and CostSave read the price off the tested queries, "
    "as published, so they flatter."
)


def tables(found: Comparison, rows: Sequence[Row]) -> list[Words]:
    """All tables, in the report's order."""
    return [
        words.quality(rows),
        words.curves(found, rows),
        words.pairs(rows),
        words.service(rows),
        words.traffic(found, rows),
        words.by_task(found, rows),
    ]


def write(found: Sequence[tuple[Comparison, Sequence[Row]]], folder: Path, facts: Mapping[str, object]) -> None:
    """Write all files; those of a run before are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Routers compared", listed([f"{name}: {value}" for name, value in facts.items()])]
    for comparison, rows in found:
        parts += [f"# {comparison.title}", listed(list(words.findings(comparison, rows)))]
        parts += [line for table in tables(comparison, rows) for line in section(table)]
    parts += [f"![Quality against cost]({PLOT})"] if any(comparison.zero for comparison, _ in found) else []
    (folder / REPORT).write_text("\n\n".join([*parts, _NOTES]) + "\n", encoding="utf-8")
    _written([record(c, row) for c, rows in found for row in rows], folder / ROUTERS)
    if points := [point for comparison, _ in found for point in _points(comparison)]:
        _written(points, folder / CURVES)
    if priced := [comparison for comparison, _ in found if comparison.zero]:
        draw(priced[0], folder / PLOT)


def record(found: Comparison, row: Row) -> dict[str, Any]:
    """One row of ``routers.parquet``: figures, shares and tasks as lists of pairs."""
    values = {key: value for key, value in asdict(row).items() if key not in ("curve", "pair", "shares", "tasks")}
    values["against"] = {**values["against"], "verdict": row.against.verdict}
    mappings = {"shares": list(row.shares.items()), "tasks": list(row.tasks.items())}
    return {"part": found.title, **values, **asdict(row.curve), **asdict(row.pair), **mappings}


def _points(found: Comparison) -> list[dict[str, Any]]:
    lines = {entrant.name: entrant.curve for entrant in found.entrants} | {"single members": found.zero}
    return [
        {"part": found.title, "name": name, "cost": point.cost, "quality": point.quality}
        for name, curve in lines.items()
        for point in curve
    ]


def _written(records: list[dict[str, Any]], path: Path) -> None:
    temporary = path.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(_arrow(records)), temporary)
    os.replace(temporary, path)


def _arrow(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs as what Arrow keeps with names."""
    for one in records:
        for key in ("shares", "tasks"):
            if key in one:
                one[key] = [{"name": name, "value": value} for name, value in one[key]]
    return records


def draw(found: Comparison, path: Path) -> None:
    """Hulls of all routers, single members as points, the oracle's hull as a dotted line."""
    # Takes a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    styles = ("-", "--", "-.")
    for place, entrant in enumerate(found.entrants):
        corners = hull(entrant.curve)
        line = styles[place // 10 % len(styles)]
        axes.plot(*zip(*corners, strict=True), line, linewidth=1, marker=".", markersize=3, label=entrant.name)
    axes.plot(*zip(*hull(found.zero), strict=True), color="black", linewidth=1, label="single members")
    axes.plot(*zip(*found.zero, strict=True), "o", color="black", markersize=3)
    axes.plot(*zip(*hull(found.oracle), strict=True), ":", color="tab:green", label="query oracle")
    axes.set_xscale("log")
    axes.set_xlabel("money for each query")
    axes.set_ylabel("quality")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=120, format="png")
