"""Batch jobs that are killed or fed with poison."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import pyarrow.parquet as pq
import ray

from tests.faults.cluster import Stage
from tests.faults.load import ask, freed, wait_for
from tests.faults.scenarios import Found, Scenario

ROWS = 60
MOMENTS = (0.1, 0.5, 0.9)
"""Shares of the rows that are finished when the job is killed."""
POISON: dict[int, Any] = {3: {"question": ""}, 11: {"question": 5}, 21: {"question": "\ud800"}, 33: {}, 39: None}


def begun(stage: Stage, folder: Path, model: str, column: str, tokens: int) -> subprocess.Popen[str]:
    """``ensemble batch`` in a process of its own, on the stage's cluster."""
    line = [sys.executable, "-m", "cluster.cli", "batch", str(stage.file), "--ensemble", model]
    line += ["--input", str(folder / "in.jsonl"), "--output", str(folder / "out"), column, "asked"]
    line += ["--max-tokens", str(tokens), "--concurrency", "4", "--address", ray.get_runtime_context().gcs_address]
    environment = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "fatal", "COLUMNS": "200"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, text=True, env=environment, **pipes)


def ended(process: subprocess.Popen[str]) -> None:
    told, wrong = process.communicate(timeout=90)
    assert process.returncode == 0, told + wrong


def journalled(folder: Path) -> int:
    """Rows that are finished."""
    files = (folder / "out" / "_journal").glob("*.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


def finished(process: subprocess.Popen[str], folder: Path, rows: int) -> None:
    """Wait until the job has finished so many rows."""
    wait_for(lambda: journalled(folder) >= rows or process.poll() is not None, 60)
    assert process.poll() is None, process.communicate()
    assert journalled(folder) >= rows


def killed(stage: Stage) -> Found:
    """SIGKILL at several moments, then the same command once more. Figure: rows that are missing or there twice."""
    with tempfile.TemporaryDirectory() as name:
        folder, at = Path(name), []
        rows = [{"id": i, "asked": (ascii_letters + digits)[i] * 3} for i in range(ROWS)]
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for moment in MOMENTS:
            process = begun(stage, folder, "rambler", "--prompt-column", 200)
            finished(process, folder, int(moment * ROWS))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            at.append(journalled(folder))
        assert all(moment * ROWS <= done < ROWS for moment, done in zip(MOMENTS, at, strict=True)), at
        ended(begun(stage, folder, "rambler", "--prompt-column", 200))
        found = pq.read_table(folder / "out").to_pylist()
    assert all(row["error"] is None and row["text"] for row in found)
    freed(stage.url, 5)
    ids = [row["id"] for row in found]
    wrong = len(set(range(ROWS)) ^ set(ids)) + len(ids) - len(set(ids))
    return Found(f"killed after {', '.join(map(str, at))} of {ROWS} rows", wrong)


def poisoned(stage: Stage) -> Found:
    """Rows that cannot be asked end as recorded errors. Figure: other rows that are wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [{"asked": f"{i}+{i}="} for i in range(10, 50)]
        for place, bad in POISON.items():
            rows[place] = {"asked": bad["question"]} if bad else {}
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        ended(begun(stage, folder, "adder", "--question-column", 6))
        found = pq.read_table(folder / "out").to_pylist()
    assert len(found) == len(rows)
    failed = {place: row["error"] for place, row in enumerate(found) if row["error"]}
    assert set(failed) == set(POISON), failed
    asked = {place: row["asked"] for place, row in enumerate(rows) if place not in POISON}
    replies = {place: ask(stage.url, "adder", question, max_tokens=6).json() for place, question in asked.items()}
    direct = {place: reply["choices"][0]["message"]["content"] for place, reply in replies.items()}
    wrong = sum(found[place]["text"] != text for place, text in direct.items())
    return Found(f"{len(failed)} rows of {len(rows)} refused", wrong)


SCENARIOS = [
    Scenario(
        name="batch job killed at 10, 50, 90 %",
        claim="a batch job that is killed and begun again holds each row exactly once",
        play=killed,
        bound=0,
        unit="rows lost or doubled",
    ),
    Scenario(
        name="poison rows",
        claim="rows that cannot be asked end as recorded errors; all others are answered",
        play=poisoned,
        bound=0,
        unit="wrong rows",
    ),
]
