from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, EnsembleError, MemberLost, Overloaded
from ensemble.member import Capability, Card, Member, Price
from ensemble.request import Delta, Event, Finish, Message, Request, Sampling, Spent, Usage
from ensemble.testing import ScriptedMember
from jobs import asking
from jobs.asking import Asked, Target, Worker, answered, request
from jobs.inputs import Cell
from jobs.job import Job, Kind, Subject
from jobs.journal import Record


def job(kind: Kind = "question", **given: Any) -> Job:
    return Job(model="m", input=Path("i"), output=Path("o"), subject=Subject(kind, kind), **given)


def cell(value: Any) -> Cell:
    return Cell(json.dumps(value))


class Flaky(Member):
    """Fails as told, one error for each attempt, then answers; each attempt costs one call."""

    def __init__(self, *errors: EnsembleError, delay: float = 0.0) -> None:
        self.card = Card("flaky", frozenset({Capability.GENERATE}), 100)
        self.asked: list[Request] = []
        self.running = self.peak = 0
        self._errors = list(errors)
        self._delay = delay

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.asked.append(request)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            yield Spent("flaky", Usage(1, 2, 3, Decimal("0.5")))
            await asyncio.sleep(self._delay)
            yield Delta(request.question.upper(), {"flaky": 1.0})
            if self._errors:
                raise self._errors.pop(0)
            yield Finish("stop")
        finally:
            self.running -= 1


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(asking, "_FIRST_WAIT", 0.001)


async def test_an_answer_with_usage_and_time():
    member = ScriptedMember.answering("m", ["forty two"], price=Price(Decimal(1), Decimal(2)), delay=0.02)
    record = await answered(member, job(), cell("six times seven"), attempts=1)
    assert record["seconds"] >= 0.02
    assert {**record, "seconds": 0} == {
        "text": "forty two",
        "finish_reason": "stop",
        "usage": {"m": [1, 3, 2, "0.000007"]},
        "seconds": 0,
    }


async def test_credits_where_they_are_wanted():
    first = ScriptedMember("first", [b"4", b"2", b""], [b"4", b"2"])
    pair = Ensemble("pair", "gac", [first, ScriptedMember("second", [b"4", b"2", b""], [b"4", b"2"])])
    record = await answered(pair, job(credits=True), cell("?"), attempts=1)
    assert "".join(text for text, _ in record["credits"]) == record["text"] == "42"
    assert set(record["credits"][0][1]) == {"first", "second"}


async def test_retryable_errors_are_tried_again_and_all_attempts_cost(hasty):
    member = Flaky(MemberLost("gone"), Overloaded("busy"))
    record = await answered(member, job(), cell("hi"), attempts=3)
    assert (record["text"], record["usage"]) == ("HI", {"flaky": [3, 6, 9, "1.5"]})
    assert len({asked.id for asked in member.asked}) == 3


async def test_attempts_end(hasty):
    member = Flaky(*(MemberLost(f"gone {i}") for i in range(9)))
    record = await answered(member, job(), cell("hi"), attempts=3)
    assert record["error"] == {"code": "member_lost", "message": "gone 2"}
    assert record["usage"]["flaky"][0] == len(member.asked) == 3
    assert "text" not in record


async def test_other_errors_are_final(hasty):
    member = Flaky(BadRequest("no"))
    record = await answered(member, job(), cell("hi"), attempts=3)
    assert (record["error"]["code"], len(member.asked)) == ("bad_request", 1)


def test_requests_carry_the_job():
    asked = request(job(sampling=Sampling(seed=3), options={"samples": 2}), cell("1+1="))
    assert (asked.messages, asked.sampling.seed, asked.options) == ((Message("user", "1+1="),), 3, {"samples": 2})
    assert request(job("prompt"), cell("1+1=")).prompt == "1+1="


@pytest.mark.parametrize("as_text", [False, True])
def test_conversations(as_text):
    turns = [
        {"role": "developer", "content": "be brief", "name": None},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "so"},
    ]
    asked = request(job("messages"), cell(json.dumps(turns) if as_text else turns))
    assert asked.messages == (Message("system", "be brief"), Message("user", "ab"))
    assert asked.partial == "so"


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        ("question", cell(""), "question is empty"),
        ("question", cell(5), "question must be text, got int"),
        ("question", cell(None), "question must be text, got nothing"),
        ("question", Cell(problem="broken line"), "broken line"),
        ("question", Cell(), "question is missing"),
        ("prompt", cell(["a"]), "prompt must be text, got list"),
        ("messages", cell("hello"), "messages is text, but no JSON"),
        ("messages", cell([]), "messages must be a list with at least one message"),
        ("messages", cell({"role": "user"}), "messages must be a list"),
        ("messages", cell(["hi"]), r"messages\.0"),
        ("messages", cell([{"role": "user"}]), r"messages\.0\.content is required"),
        ("messages", cell([{"role": "system", "content": "x"}]), "at least one user message"),
    ],
)
async def test_rows_that_cannot_be_asked(kind, given, told):
    with pytest.raises(BadRequest, match=told):
        request(job(kind), given)
    member = Flaky()
    record = await answered(member, job(kind), given, attempts=3)
    assert (record["error"]["code"], record["usage"], member.asked) == ("bad_request", {}, [])


class Kept:
    """Journals in memory; slow, so that rows wait for them."""

    def __init__(self, done: set[tuple[int, int]]) -> None:
        self.done = done
        self.records: list[tuple[int, int]] = []
        self.waiting = self.peak = 0

    async def missing(self, job: int, rows: list[int]) -> list[int]:
        return [row for row in rows if (job, row) not in self.done]

    async def append(self, job: int, record: Record) -> None:
        self.waiting += 1
        self.peak = max(self.peak, self.waiting)
        await asyncio.sleep(0.003)
        self.waiting -= 1
        self.records.append((job, record["row"]))


def worker(journal: Kept, members: dict[str, Member], models: list[str]) -> Worker:
    """Of a job for each of the models; three rows under way at each."""
    made = Worker(None, [Asked(job(), Target("a", "d", model)) for model in models], 3, 1)
    made._journal, made._members = journal, members
    return made


def rows_of(job: int, rows: range) -> dict[str, np.ndarray[Any, Any]]:
    """A batch."""
    shared = {"job": np.full(len(rows), job), "value": np.array(['"x"'] * len(rows), object)}
    return {"row": np.array(rows), "problem": np.array([None] * len(rows), object), **shared}


async def test_a_worker_keeps_so_many_rows_under_way_and_no_more():
    journal, member = Kept({(0, 1), (0, 15)}), Flaky(delay=0.004)
    asks = worker(journal, {"member": member}, ["member"])
    replies = await asyncio.gather(asks(rows_of(0, range(10))), asks(rows_of(0, range(10, 20))))
    assert [reply["rows"] for reply in replies] == [[9], [9]]
    assert sorted(row for _, row in journal.records) == sorted(set(range(20)) - {1, 15})
    assert member.peak == 3
    # A row that waits for its record still holds its place.
    assert journal.peak <= 3


async def test_models_are_asked_at_once_and_each_is_bounded_over_all_its_jobs():
    journal, one, other = Kept({(1, 4)}), Flaky(delay=0.004), Flaky(delay=0.004)
    asks = worker(journal, {"one": one, "other": other}, ["one", "other", "one"])
    batch = {
        name: np.concatenate([rows_of(job, range(9))[name] for job in range(3)])
        for name in ("job", "row", "value", "problem")
    }
    await asks(batch)
    assert sorted(journal.records) == [(job, row) for job in range(3) for row in range(9) if (job, row) != (1, 4)]
    assert (len(one.asked), len(other.asked)) == (18, 8)
    assert (one.peak, other.peak) == (3, 3)
    # Rows go in the order of the batch's turns, so nobody waits for another's last row.
    assert {job for job, _ in journal.records[:6]} == {0, 1, 2}


async def test_a_worker_whose_journal_is_lost_asks_nothing_more():
    class Lost(Kept):
        async def append(self, job: int, record: Record) -> None:
            raise ConnectionError("gone")

    member = Flaky(delay=0.004)
    asks = worker(Lost(set()), {"member": member}, ["member"])
    batches = (rows_of(0, range(10)), rows_of(0, range(10, 20)))
    outcomes = await asyncio.gather(*map(asks, batches), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionError] * 2
    assert len(member.asked) == 3
