"""A job that has to bring its model up itself, on a cluster of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

CONFIGURATION = """
name: alone
models:
  adder: {source: {zoo: adder}, resources: {cpus: 0.1}}
gateway: {resources: {cpus: 0.1}}
"""


@pytest.mark.slow
def test_a_job_brings_up_what_it_needs_and_takes_it_down(tmp_path):
    (tmp_path / "alone.yaml").write_text(CONFIGURATION)
    rows = [{"question": f"{i}+{i}="} for i in range(10, 30)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = [sys.executable, "-m", "cluster.cli", "batch", str(tmp_path / "alone.yaml"), "--ensemble", "adder"]
    line += ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out"), "--max-tokens", "6"]
    # A cluster of its own, whatever this process is connected to.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    first = subprocess.run(line, capture_output=True, text=True, timeout=180, env=environment)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[0] == f"20 rows in {tmp_path / 'out'}"
    assert "model-adder healthy" in first.stderr
    assert "20 of 20 rows, 0 failed" in first.stderr
    assert pq.read_table(tmp_path / "out").column("text").to_pylist() == [str(2 * i) for i in range(10, 30)]
    # What is complete is told again from its manifest, without a cluster.
    again = subprocess.run([*line, "--address", "127.0.0.1:1"], capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stdout) == (0, first.stdout)
