"""Collects what was measured of methods into docs/methods/measured.json, for their pages.

    python examples/token_level.py --questions 100 --samples 3
    ensemble evaluate examples/demo.yaml out/token_level/test.jsonl …
    python benchmarks/efficiency.py --methods gac unite … > even.log
    python scripts/measured.py --token-level out/token_level/report --demo out/demo/report --efficiency even.log
    make methods

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
MEASURED = ROOT / "docs" / "methods" / "measured.json"
WHY = {
    "r2r": "the small member is sure of some of the carries that it forgets, so that its entropy stays below the limit",
}
"""Why a method loses, where it does."""
MODELS = {"even": "two random-weight models of one size", "draft": "a small and a larger model"}
"""What efficiency was measured on, by the benchmark's name for the pair."""
COMMANDS = {
    "token_level": "python examples/token_level.py --questions 100 --samples 3",
    "demo": "ensemble evaluate examples/demo.yaml out/token_level/test.jsonl --output out/demo/report "
    "--members adder,words,pairs,mixed --ensembles zoo-forest,zoo-best,zoo-search "
    "--grade last-line --task task --samples 1 --max-tokens 64",
}
"""What makes a report, by the name of the configuration in ``examples/``; the first makes the questions of both."""

Right = Mapping[tuple[str, str], npt.NDArray[np.bool_]]
"""By part of the questions and system, in the order of the questions."""


def quality(report: Path, configuration: str) -> dict[str, dict[str, Any]]:
    """Figures by method."""
    found: dict[str, dict[str, Any]] = {}
    right = answers(report)
    for name, ensemble in ensembles(configuration).items():
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
            "command": COMMANDS[configuration],
        }
        found[method] = figures | ({"why": WHY[method]} if against.high < 0 else {})
    return found


def ensembles(configuration: str) -> Mapping[str, Any]:
    written = (ROOT / "examples" / f"{configuration}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(written)["ensembles"])


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
                command = f"python benchmarks/efficiency.py --pair {told['pair']} --methods {method} --concurrency 1 8"
                on = f"{MODELS[told['pair']]}, {told['cpus']} cores"
                found[method] = {"on": on, "ratio": ratio, "command": command}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--token-level", type=Path, help="folder of a report on examples/token_level.yaml")
    parser.add_argument("--demo", type=Path, help="folder of a report on examples/demo.yaml")
    parser.add_argument("--efficiency", type=Path, nargs="*", default=[], help="outputs of benchmarks/efficiency.py")
    given = parser.parse_args()
    measured: dict[str, dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8"))
    for configuration in COMMANDS:
        if (report := getattr(given, configuration)) is not None:
            for method, figures in quality(report, configuration).items():
                measured.setdefault(method, {})["quality"] = figures
    for method, figures in efficiency(given.efficiency).items():
        measured.setdefault(method, {})["efficiency"] = figures
    MEASURED.write_text(json.dumps(dict(sorted(measured.items())), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
