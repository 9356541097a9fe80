"""Collects what was measured of methods into docs/methods/measured.json, for their pages.

    python examples/token_level.py --questions 100 --samples 3
    python benchmarks/efficiency.py --methods gac unite … > even.log
    python scripts/measured.py out/token_level/report --efficiency even.log draft.log && make methods

Each ensemble is compared with the best of its own members, chosen on the development part; of several ensembles of one
method the first in the configuration counts. Methods of which nothing is given keep their figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import yaml

from jobs.evaluation.statistics import compared

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "examples" / "token_level.yaml"
MEASURED = ROOT / "docs" / "methods" / "measured.json"
WHY = {
    "r2r": "the small member is sure of some of the carries that it forgets, so that its entropy stays below the limit",
}
"""Why a method loses, where it does."""
PAIRS = {"even": "two random-weight models of one size", "draft": "a small and a larger random-weight model that agree"}
COMMAND = "python examples/token_level.py; benchmarks/efficiency.py"

Right = Mapping[tuple[str, str], npt.NDArray[np.bool_]]
"""By part of the questions and system, in the order of the questions."""


def quality(right: Right, ensembles: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures by method."""
    found: dict[str, dict[str, Any]] = {}
    for name, ensemble in ensembles.items():
        method, members = ensemble["method"], ensemble["members"]
        if method in found or ("test", name) not in right:
            continue
        best = max(members, key=lambda member: right["development", member].mean())
        own, other = right["test", name], right["test", best]
        against = compared(own, other)
        figures = {
            "on": f"{len(own)} questions to the miniature models, of four kinds",
            "members": ", ".join(members),
            "accuracy": round(float(own.mean()), 3),
            "best": best,
            "best_accuracy": round(float(other.mean()), 3),
            "interval": [round(100 * against.low, 1), round(100 * against.high, 1)],
        }
        found[method] = figures | ({"why": WHY[method]} if against.high < 0 else {})
    return found


def answers(report: Path) -> Right:
    table = pq.read_table(report / "answers.parquet", columns=["row", "split", "system", "right"]).to_pylist()
    table.sort(key=lambda row: row["row"])
    systems: dict[tuple[str, str], list[bool]] = {}
    for row in table:
        systems.setdefault((row["split"], row["system"]), []).append(row["right"])
    return {key: np.array(flags) for key, flags in systems.items()}


def efficiency(logs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """By method, from the last lines of the benchmark's output; the first log that has a method counts."""
    found: dict[str, dict[str, Any]] = {}
    for log in logs:
        told = json.loads(log.read_text().strip().splitlines()[-1])
        counts = [key for key in told if key.isdigit()]
        for method in told[counts[0]]:
            if method not in ("alone", "beside") and method not in found:
                ratio = {count: told[count][method]["of_beside"] for count in counts}
                models = (
                    "two random-weight models of one size" if told["pair"] == "even" else "a small and a larger model"
                )
                found[method] = {"on": f"{models}, {told['cpus']} cores", "ratio": ratio}
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("report", type=Path)
    arguments.add_argument("--efficiency", type=Path, nargs="*", default=[])
    given = arguments.parse_args()
    measured: dict[str, dict[str, Any]] = json.loads(MEASURED.read_text())
    ensembles = yaml.safe_load(CONFIGURATION.read_text())["ensembles"]
    for part, figures in (
        ("quality", quality(answers(given.report), ensembles)),
        ("efficiency", efficiency(given.efficiency)),
    ):
        for method, own in figures.items():
            measured.setdefault(method, {"command": "python examples/token_level.py; benchmarks/efficiency.py"})[
                part
            ] = own
    MEASURED.write_text(json.dumps(dict(sorted(measured.items())), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
