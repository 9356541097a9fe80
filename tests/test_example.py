"""The example that fits, serves and compares every token-level method, from nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_token_level_method_is_fitted_served_and_compared(tmp_path: Path) -> None:
    command = [sys.executable, "examples/token_level.py", "--questions", "6", "--samples", "1"]
    done = subprocess.run([*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = pq.read_table(tmp_path / "report" / "answers.parquet").to_pylist()
    ensembles = yaml.safe_load((ROOT / "examples" / "token_level.yaml").read_text())["ensembles"]
    written = {row["system"] for row in answers if row["kind"] == "ensemble"}
    assert written == set(ensembles)
    assert [row for row in answers if row["error"]] == []
    right = {name: [row["right"] for row in answers if row["system"] == name] for name in written}
    # Half of the questions are of one member's kind and half of the other's: neither could be right on more.
    for name in ("gac", "unite", "eva", "deepen", "abe", "byte-level", "etr"):
        assert sum(right[name]) > 0.7 * len(right[name]), name
    assert (tmp_path / "report" / "quality_cost.png").stat().st_size > 10_000
