"""What a fault scenario is, and what is found when it is played."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tests.faults.cluster import Stage


class Found(NamedTuple):
    """What came of a scenario whose assertions all held."""

    proof: str
    """How it is known that the fault hit work in flight."""
    figure: float
    """In the scenario's unit."""


Play = Callable[[Stage], Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fault, what is promised, and the bound on its figure."""

    name: str
    claim: str
    """What holds, in words of the documentation."""
    play: Play
    """Strikes, and asserts everything but the bound."""
    bound: float
    unit: str
    """What the figure counts."""
    at_least: bool = False
    """The figure has to reach the bound; otherwise it has to stay within."""
    quick: bool = False
    """Short, and harmless to those that use the same service."""

    def holds(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    scenario: str
    claim: str
    proof: str
    figure: float | None
    unit: str
    bound: str
    outcome: str
    """``passed``, ``failed`` or ``skipped``, with the reason."""
    seconds: float


def written(rows: Iterable[Row], file: Path) -> None:
    """The report as JSON: a list of objects with the fields of ``Row``."""
    file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def lines(rows: Iterable[Row]) -> list[str]:
    """The report as a table."""
    cells = [("scenario", "proof that work in flight was hit", "figure", "bound", "outcome", "s")]
    for row in rows:
        figure = "-" if row.figure is None else f"{row.figure:.2f} {row.unit}"
        cells.append((row.scenario, row.proof, figure, row.bound, row.outcome, f"{row.seconds:.0f}"))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
