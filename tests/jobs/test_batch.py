"""Whole jobs against the served configuration."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from ray import serve

from cluster.config import parse
from deployments.member import RemoteMember
from ensemble.errors import ConfigurationError
from ensemble.request import Request, Sampling
from jobs.batch import run
from jobs.job import Job, Subject
from jobs.recorder import Counts

POISON: dict[int, Any] = {
    3: {"question": ""},
    11: {"question": 5},
    20: {"question": "1+1=" * 500},
    21: {"question": "\ud800"},
    33: {},
    59: {"question": None},
}


def questions(path: Path, count: int, poison: dict[int, Any] = POISON) -> Path:
    rows = [{"id": i, **poison.get(i, {"question": f"{i}+{2 * i}="})} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ramble(folder: Path, count: int, longest: int) -> Job:
    """A job of long answers to prompts of which no two begin alike, so that each is read whole."""
    path = folder / "in.jsonl"
    path.write_text(
        "".join(json.dumps({"id": i, "text in": (ascii_letters + digits)[i] * 3}) + "\n" for i in range(count))
    )
    subject = Subject("prompt", "text in")
    return Job(
        model="rambler", input=path, output=folder / "out", subject=subject, sampling=Sampling(max_tokens=longest)
    )


def asked(name: str, work: Callable[[RemoteMember], Any]) -> Any:
    """Carry work out with a member, on a loop of its own."""

    async def connected() -> Any:
        return await work(
            await RemoteMember.connect(name.partition("-")[2], serve.get_deployment_handle(name, "service"))
        )

    return asyncio.run(connected())


def table(job: Job) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(job.output).to_pylist()
    return rows


def test_rows_equal_direct_answers_and_poison_is_told(service, tmp_path):
    sampling = Sampling(max_tokens=6, temperature=0.8, seed=7)
    job = Job(model="gac", input=questions(tmp_path / "in.jsonl", 60), output=tmp_path / "out", sampling=sampling)
    told: list[Counts] = []
    summary = run(service.configuration, job, progress=told.append)
    rows = table(job)
    assert {i for i, row in enumerate(rows) if row["error"]} == set(POISON)
    assert summary.failed == {"bad_request": 5, "context_length_exceeded": 1}
    assert told[-1] == Counts(rows=60, done=60, failed=6)

    async def direct(member: RemoteMember) -> list[Any]:
        requests = [Request.of(row["question"]) for row in rows if not row["error"]]
        return [await member.answer(replace(request, sampling=sampling)) for request in requests]

    answers = asked("ensemble-gac", direct)
    for row, answer in zip((row for row in rows if not row["error"]), answers, strict=True):
        assert (row["text"], row["finish_reason"]) == (answer.text, answer.choices[0].finish_reason)
        found = {u["member"]: (u["calls"], u["prompt_tokens"], u["completion_tokens"]) for u in row["usage"]}
        assert found == {m: (u.calls, u.prompt_tokens, u.completion_tokens) for m, u in answer.usage.items()}
        assert row["totals"]["cost"] == sum(u.cost for u in answer.usage.values()) > 0
        assert row["seconds"] > 0
    assert summary.usage["adder"].cost == sum((row["totals"]["cost"] for row in rows), Decimal(0))
    assert run(service.configuration, job, address="127.0.0.1:1") == summary


def test_rows_under_way_are_bounded_and_the_bound_is_used(service, tmp_path):
    job = ramble(tmp_path, 40, 40)
    seen, before = list[float](), tokens()
    over = threading.Event()

    async def watch(member: RemoteMember) -> None:
        while not over.is_set():
            seen.append((await member.stats())["running"])
            await asyncio.sleep(0.005)

    watcher = threading.Thread(target=asked, args=("model-rambler", watch))
    watcher.start()
    try:
        run(service.configuration, job, concurrency=5)
    finally:
        over.set()
        watcher.join()
    assert max(seen) == 5
    assert len(seen) > 50
    # What the model was made to do is what the rows tell; a first token that all have may be read once.
    expected = sum(map(read, table(job)))
    assert expected - 40 <= tokens() - before <= expected


def test_what_is_served_must_be_what_the_file_says(service, tmp_path):
    rows = questions(tmp_path / "in.jsonl", 3, {})
    other = service.configuration.as_dict()
    other["ensembles"]["gac"]["options"] = {"threshold": 0.25}
    with pytest.raises(ConfigurationError, match="serves application service with another ensemble-gac than"):
        run(parse(other), Job(model="gac", input=rows, output=tmp_path / "gac"))
    # The rest of that file is what is served.
    assert run(parse(other), Job(model="adder", input=rows, output=tmp_path / "adder")).rows == 3
    with pytest.raises(ConfigurationError, match="the cluster serves service; it has no room for application other"):
        run(parse({**other, "name": "other"}), Job(model="adder", input=rows, output=tmp_path / "other"))
    assert list(serve.status().applications) == ["service"]


@contextmanager
def command(file: Path, job: Job, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``ensemble batch`` in a process of its own, on the cluster of this one."""
    line = [sys.executable, "-m", "cluster.cli", "batch", str(file), "--ensemble", job.model, "--input", str(job.input)]
    line += [
        "--output",
        str(job.output),
        "--prompt-column",
        job.subject.column,
        "--max-tokens",
        str(job.sampling.max_tokens),
    ]
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "COLUMNS": "200"}
    process = subprocess.Popen(
        [*line, "--address", address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def journalled(job: Job) -> dict[int, float]:
    """How long each finished row took, by row."""
    texts = [path.read_text() for path in sorted((job.output / "_journal").glob("*.jsonl"))]
    records = [json.loads(line) for text in texts for line in text.split("\n")[:-1]]
    return {record["row"]: record["seconds"] for record in records}


def wait_for(rows: int, job: Job, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while len(journalled(job)) < rows:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def tokens() -> float:
    async def count(member: RemoteMember) -> float:
        stats = await member.stats()
        while stats["running"]:
            await asyncio.sleep(0.1)
            stats = await member.stats()
        return stats["tokens"]

    found: float = asked("model-rambler", count)
    return found


def read(row: dict[str, Any]) -> int:
    """Tokens that the model had to read for a row: all but the last that it wrote."""
    totals = row["totals"]
    return int(totals["prompt_tokens"] + totals["completion_tokens"] - 1)


def test_killed_at_any_moment_each_row_is_there_once(service, tmp_path):
    count, longest, concurrency, moments = 60, 60, 4, (0.1, 0.5, 0.9)
    job = ramble(tmp_path, count, longest)
    before, kept = tokens(), dict[int, float]()
    for moment in moments:
        with command(service.file, job, "--concurrency", str(concurrency)) as process:
            wait_for(int(moment * count), job, process)
            process.send_signal(signal.SIGKILL)
        now = journalled(job)
        assert now.items() >= kept.items()
        assert int(moment * count) <= len(now) < count
        kept = now
    with command(service.file, job, "--concurrency", str(concurrency)) as process:
        told, wrong = process.communicate(timeout=60)
    assert (process.returncode, told.splitlines()[0]) == (0, f"{count} rows in {job.output}"), wrong
    found = table(job)
    assert [row["id"] for row in found] == list(range(count))
    assert all(row["error"] is None for row in found)
    # No two answers take equally long: these rows were not asked again.
    assert {row: found[row]["seconds"] for row in kept} == kept
    costs = sorted(map(read, found))
    assert sum(costs) > 0.5 * count * costs[-1]
    redone = tokens() - before - sum(costs)
    assert -count <= redone <= len(moments) * concurrency * costs[-1]
    assert sorted(path.name for path in job.output.iterdir()) == ["_job.json", "_manifest.json", "part-00000.parquet"]


def test_a_polite_kill_says_how_to_go_on(service, tmp_path):
    job = ramble(tmp_path, 60, 60)
    with command(service.file, job) as process:
        wait_for(5, job, process)
        process.terminate()
        told, wrong = process.communicate(timeout=20)
    assert (process.returncode, told) == (130, "")
    last = f"interrupted; finished rows are kept in {job.output}; the same command goes on from there"
    assert wrong.splitlines()[-1] == last
    kept = journalled(job)
    assert 5 <= len(kept) < 60
    assert "Traceback" not in wrong
    # The same process can go on as well as another.
    summary = run(service.configuration, job)
    assert summary.rows == 60
    assert {row: found["seconds"] for row, found in enumerate(table(job)) if row in kept} == kept
