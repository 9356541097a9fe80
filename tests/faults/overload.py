"""Ten times as many clients as there is room for."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

from tests.faults.cluster import Stage
from tests.faults.load import freed
from tests.faults.scenarios import Found, Scenario

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "overload.py"
PLACES = 5
"""Of ``narrow``: six sessions less the one that is left to plain requests."""
REFUSED_WITHIN = 500.0
"""Milliseconds."""


def overloaded(stage: Stage) -> Found:
    """Clients ask again at once, or when they are told to. Figure: what is answered, as a share of the peak."""
    stage.answering("narrow")
    measure = runpy.run_path(str(BENCHMARK))["measure"]
    figures: dict[str, Any] = asyncio.run(measure(stage.url, model="narrow", places=PLACES, seconds=5, rounds=3))
    highest = figures["loads"]["10"]
    assert highest["refused_per_s"] > 0, "there was room for all"
    assert highest["refusal_ms"] < REFUSED_WITHIN, figures
    assert not any(row["failed"] for row in figures["loads"].values()), figures
    freed(stage.url, 5)
    told = {load: (row["tokens_per_s"], row["refused_per_s"]) for load, row in figures["loads"].items()}
    proof = ", ".join(f"{load}×: {written} tokens and {no} refusals / s" for load, (written, no) in told.items())
    return Found(f"{proof}; slowest refusal {highest['refusal_ms']:.0f} ms", figures["goodput"])


SCENARIOS = [
    Scenario(
        name="overload",
        claim="with ten times the load it has room for a driver answers as much as at its peak, and refuses at once",
        play=overloaded,
        bound=0.9,
        unit="of peak",
        at_least=True,
    ),
]
