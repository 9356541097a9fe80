"""How scenarios are played and told: a row each, a table at the end, JSON where ``FAULTS_REPORT`` names a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Stage
from tests.faults.scenarios import Row, Scenario, lines, written

ROWS = pytest.StashKey[list[Row]]()
Player = Callable[[Scenario, Stage], Row]


@pytest.fixture
def played(request: pytest.FixtureRequest) -> Iterator[Player]:
    """Plays a scenario and puts it on the report, however it ends."""
    rows = request.config.stash.setdefault(ROWS, [])

    def play(scenario: Scenario, stage: Stage) -> Row:
        begun, proof, figure, outcome = time.monotonic(), "", None, "failed"
        try:
            proof, figure = scenario.play(stage)
            outcome = "passed" if scenario.holds(figure) else "failed"
        except pytest.skip.Exception as skipped:
            outcome = f"skipped: {skipped.msg}"
            raise
        finally:
            bound = f"{'≥' if scenario.at_least else '≤'} {scenario.bound:g}"
            took = time.monotonic() - begun
            rows.append(Row(scenario.name, scenario.claim, proof, figure, scenario.unit, bound, outcome, took))
        return rows[-1]

    yield play


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("faults")
    for line in lines(rows):
        terminalreporter.write_line(line)
    if file := os.environ.get("FAULTS_REPORT"):
        written(rows, Path(file))
