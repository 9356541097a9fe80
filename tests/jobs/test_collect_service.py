"""Collections from a served configuration: what the table says is what members and judges say."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from collecting_doubles import written

from ensemble.outcomes.table import read
from ensemble.request import Request, Sampling
from jobs.collecting import judged
from jobs.collecting.answers import Plan
from jobs.collecting.questions import Columns
from jobs.collecting.run import Ways, collected
from jobs.job import Subject

ROWS = [{"question": f"{i}+{2 * i}=", "answer": str(3 * i)} for i in range(11, 19)]


def test_members_and_a_judge_are_asked_as_they_are_served(service, tmp_path: Path) -> None:
    sampling = Sampling(temperature=0.8, seed=3, max_tokens=6)
    plan = Plan(members=("adder", "gac"), output=tmp_path / "out", samples=2, sampling=sampling)
    found = collected(service.configuration, plan, written(tmp_path, ROWS), "judge:verifier", Ways())
    assert found.cells.num_rows == 2 * 2 * len(ROWS)
    cells = found.cells.to_pylist()
    assert {cell["error"] for cell in cells} == {None}
    assert all(cell["cost"] > 0 for cell in cells if cell["member"] == "adder")
    # gac has a member without a price.
    assert {cell["cost"] for cell in cells if cell["member"] == "gac"} == {None}
    cell = cells[3]
    text = found.column("text")[3]

    async def reward() -> float:
        judge = await judged.connected(service.configuration, "verifier")
        ((reward,),) = await judge.judge(Request.of(text), [[cell["response"]]])
        return reward

    assert cell["quality"] == pytest.approx(asyncio.run(reward()), abs=1e-6)
    greedy = Plan(members=("adder",), output=tmp_path / "greedy", columns=Columns(reference="answer"))
    right = collected(service.configuration, greedy, written(tmp_path, ROWS), "number", Ways())
    assert right.dense().means[0] > 0.7


def test_a_kill_loses_no_answer(service, tmp_path: Path) -> None:
    rows = [{"text in": letters * 3} for letters in "abcdefghijklmnopqrstuvwxyz"]
    output = tmp_path / "out"
    line = [sys.executable, "-c", "from jobs.commands.collect import collect; collect()", str(service.file)]
    line += ["--input", str(written(tmp_path, rows)), "--output", str(output), "--members", "rambler,frail"]
    line += ["--grade", "judge:sums", "--prompt-column", "text in", "--max-tokens", "40", "--concurrency", "2"]
    line += ["--address", ray.get_runtime_context().gcs_address]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})
    try:
        end = time.monotonic() + 90
        while min(len(_kept(output, member)) for member in ("rambler", "frail")) < 4:
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    before = _kept(output, "rambler")
    # Nobody waits until another has answered everything.
    assert len(before) < len(rows) > len(_kept(output, "frail"))
    told = []
    subject = Columns(Subject("prompt", "text in"))
    plan = Plan(members=("rambler", "frail"), output=output, columns=subject, sampling=Sampling(max_tokens=40))
    found = collected(service.configuration, plan, tmp_path / "questions.jsonl", "judge:sums", Ways(asking=told.append))
    assert found.cells.num_rows == 2 * len(rows) == told[-1].done
    # Rows that were finished when the process was killed were not asked again: they took as long as they had.
    latencies = found.dense(["rambler"]).latency[:, 0]
    assert {row: pytest.approx(seconds, rel=1e-5) for row, seconds in before.items()} == {
        row: latencies[row] for row in before
    }
    assert read(output).cells.equals(found.cells)


def _kept(output: Path, member: str) -> dict[int, float]:
    """How long each finished answer of a member took, by row."""
    journal = output / "_answers" / member / "0" / "_journal"
    lines = [line for path in journal.glob("0*.jsonl") for line in path.read_text().split("\n")[:-1]]
    return {record["row"]: record["seconds"] for record in map(json.loads, lines)}
