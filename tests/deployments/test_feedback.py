"""The keeper of feedback: what it completes, what it waits for, and what happens to it when its disk fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import feedback as keeper
from deployments.feedback import Writer
from deployments.given import Given, Kept, UnknownAnswer
from deployments.journal import Journal, records
from ensemble.errors import EnsembleError

ROUTE = {
    "ensemble": "r",
    "id": "x",
    "choice": 0,
    "question": "1+1=",
    "member": "a",
    "cost": 0.5,
    "input_tokens": 4,
    "output_tokens": 1,
    "latency": 0.25,
    "propensity": 0.75,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "said.jsonl"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    journal = Journal(path)
    yield Writer(journal, clock=lambda: 17.0)
    journal.close()


def said(path: Path) -> dict[str, Any]:
    """The last record."""
    return list(records(path))[-1]


async def test_an_answer_by_its_id(writer: Writer, path: Path) -> None:
    await writer.note([ROUTE])
    assert await writer.keep(Given(ensemble="r", id="x", quality=0.5)) == Kept(1)
    record = said(path)
    assert record == {**record, **ROUTE, "kind": "outcome", "quality": 0.5, "sequence": 1, "at": 17.0}


async def test_of_another_members_answer_no_cost_is_known(writer: Writer, path: Path) -> None:
    await writer.note([ROUTE])
    await writer.keep(Given(ensemble="r", id="x", member="b", quality=1.0))
    record = said(path)
    assert (record["question"], record["member"], record["cost"], record["propensity"]) == ("1+1=", "b", None, None)


async def test_a_preference(writer: Writer, path: Path) -> None:
    await writer.keep(Given(ensemble="r", question="q", winner="a", loser="b"))
    record = said(path)
    assert (record["kind"], record["question"], record["winner"], record["tie"]) == ("preference", "q", "a", False)


async def test_feedback_waits_for_its_route(writer: Writer) -> None:
    waiting = asyncio.create_task(writer.keep(Given(ensemble="r", id="x", quality=0.5)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await writer.note([ROUTE])
    assert await waiting == Kept(1)


async def test_but_not_for_ever(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_PATIENCE", 0.05)
    with pytest.raises(UnknownAnswer) as refused:
        await writer.keep(Given(ensemble="r", id="x", quality=0.5))
    assert (refused.value.status, refused.value.param) == (404, "id")


async def test_all_that_wait_are_written_together(writer: Writer, path: Path) -> None:
    given = [Given(ensemble="r", question=f"q{i}", member="a", quality=1.0) for i in range(50)]
    kept = await asyncio.gather(*(writer.keep(one) for one in given))
    assert sorted(one.sequence for one in kept) == list(range(1, 51))
    by_number = {record["sequence"]: record["question"] for record in records(path)}
    assert [by_number[one.sequence] for one in kept] == [one.question for one in given]


async def test_followers_hear_everything_in_order(writer: Writer) -> None:
    for i in range(3):
        await writer.keep(Given(ensemble="r", question=f"q{i}", member="a", quality=1.0))
    rows, through, complete = await writer.since(1, "r")
    assert ([row["question"] for row in rows], through, complete) == (["q1", "q2"], 3, True)


async def test_a_figure_that_is_no_number_is_not_known(writer: Writer, path: Path) -> None:
    await writer.note([{**ROUTE, "cost": float("nan")}])
    await writer.keep(Given(ensemble="r", id="x", quality=0.5))
    assert said(path)["cost"] is None


async def test_what_cannot_be_written_keeps_nobody_waiting(writer: Writer) -> None:
    with pytest.raises(EnsembleError, match="cannot be written"):
        await asyncio.wait_for(writer.note([{**ROUTE, "cost": object()}]), 1)
    assert writer.broken is None
    assert await asyncio.wait_for(writer.keep(Given(ensemble="r", question="q", member="a", quality=1.0)), 1) == Kept(1)


async def test_a_disk_that_fails_is_told(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(writer._journal, "append", full)
    with pytest.raises(EnsembleError, match="cannot be written"):
        await writer.keep(Given(ensemble="r", question="q", member="a", quality=1.0))
    assert writer.broken is not None
