"""Rows to answers: the worker that Ray Data keeps, and what it writes down of one row.

A row's place among those under way at its model is given up only when its record is on disk, so after a crash no more
rows are asked again than may be under way.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from deployments.api.requests import ChatBody
from deployments.api.wire import parse
from deployments.member import RemoteMember
from ensemble.concurrency import together
from ensemble.errors import BadRequest, EnsembleError
from ensemble.member import Member
from ensemble.request import Completion, Event, Message, Request, Spent, collect
from jobs.inputs import Cell
from jobs.job import Job, Kind
from jobs.journal import Record

_FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled for each further one."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows are asked."""

    application: str
    deployment: str
    name: str
    """What is asked there."""


class Asked(NamedTuple):
    """A job, and where its rows are asked."""

    job: Job
    target: Target


class Journal(Protocol):
    """What a worker needs of the recorders; a job is known by its position."""

    async def missing(self, job: int, rows: list[int]) -> list[int]: ...

    async def append(self, job: int, record: Record) -> None: ...


class Worker:
    """Asks the rows of one batch after another, never more than ``concurrency`` at a time of one model, over all
    batches."""

    def __init__(self, recorders: Any, asked: Sequence[Asked], concurrency: int, attempts: int) -> None:
        """
        Args:
            recorders: handle of the recorders' actor.
        """
        self._journal: Journal = _Remote(recorders)
        self._asked = asked
        self._attempts = attempts
        self._places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(concurrency))
        self._connecting = asyncio.Lock()
        self._members: dict[str, Member] = {}
        self._lost: Exception | None = None

    async def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[int]]:
        """One batch; its rows are in the journals when this returns.

        Args:
            batch: ``job``, ``row``, ``value`` and ``problem``, one of each for every row.
        """
        cells = defaultdict[int, dict[int, Cell]](dict)
        columns = (batch[name].tolist() for name in ("job", "row", "value", "problem"))
        for job, row, value, problem in zip(*columns, strict=True):
            cells[job][row] = Cell(value, problem)
        missing = [(job, row) for job, rows in cells.items() for row in await self._journal.missing(job, list(rows))]
        for job in {job for job, _ in missing}:
            await self._connect(self._asked[job].target)
        # In the order of the batch, as that is what goes round the models.
        missing.sort(key=lambda place: place[1])
        await together(self._row(job, row, cells[job][row]) for job, row in missing)
        return {"rows": [len(missing)]}

    async def _connect(self, target: Target) -> None:
        from ray import serve

        async with self._connecting:
            if target.name not in self._members:
                handle = serve.get_deployment_handle(target.deployment, target.application)
                self._members[target.name] = await RemoteMember.connect(target.name, handle)

    async def _row(self, job: int, row: int, cell: Cell) -> None:
        asked = self._asked[job]
        async with self._places[asked.target.name]:
            if self._lost is not None:
                raise self._lost
            member = self._members[asked.target.name]
            record = await answered(member, asked.job, cell, attempts=self._attempts)
            try:
                await self._journal.append(job, {"row": row, **record})
            except Exception as error:
                # Nothing more is asked: it could not be kept either.
                self._lost = error
                raise


class _Remote:
    """The recorders' actor as a journal."""

    def __init__(self, recorders: Any) -> None:
        self._recorders = recorders

    async def missing(self, job: int, rows: list[int]) -> list[int]:
        missing: list[int] = await self._recorders.missing.remote(job, rows)
        return missing

    async def append(self, job: int, record: Record) -> None:
        await self._recorders.append.remote(job, record)


async def answered(member: Member, job: Job, cell: Cell, *, attempts: int) -> Record:
    """The record of one row, without its position; an error is part of the record.

    Args:
        attempts: times that a row is asked at most; only errors that a retry may help lead to another.
    """
    events: list[Event] = []
    began = time.perf_counter()
    try:
        completion = await tried(member, request(job, cell), events, attempts)
    except EnsembleError as error:
        outcome: Record = {"error": {"code": error.code, "message": error.message}}
    else:
        outcome = _written(completion, job)
    return {**outcome, "usage": _usage(events), "seconds": time.perf_counter() - began}


async def tried(member: Member, asked: Request, events: list[Event], attempts: int) -> Completion:
    """The answer, tried again after errors that a retry may help.

    Args:
        events: what was spent is added to them, by failed attempts as well.
    """

    async def once() -> Completion:
        written: list[Event] = []
        # Its own id: members may not take a second attempt for the first come twice.
        async with aclosing(member.generate(replace(asked, id=uuid.uuid4().hex))) as stream:  # type: ignore[type-var]
            async for event in stream:
                (events if isinstance(event, Spent) else written).append(event)
        return collect(written).choices[0]

    return await again(once, attempts)


async def again(once: Callable[[], Awaitable[T]], attempts: int) -> T:
    """What the work gives, done again after errors that a retry may help, with longer and longer waits between.

    Raises:
        EnsembleError: of the last attempt.
    """
    for attempt in range(attempts):
        if attempt:
            await asyncio.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
        try:
            return await once()
        except EnsembleError as error:
            if not error.retryable or attempt == attempts - 1:
                raise
    raise ValueError("attempts must be at least 1")


def request(job: Job, cell: Cell) -> Request:
    """What a row asks.

    Raises:
        BadRequest: the row's value is nothing that can be asked.
    """
    if cell.problem is not None or cell.value is None:
        raise BadRequest(cell.problem or f"{job.subject.column} is missing", param=job.subject.column)
    value = json.loads(cell.value)
    asked = _conversation(value) if job.subject.kind == "messages" else _text(value, job.subject.kind)
    return replace(asked, sampling=job.sampling, options=job.options)


def _text(value: Any, kind: Kind) -> Request:
    if not isinstance(value, str):
        got = "nothing" if value is None else type(value).__name__
        raise BadRequest(f"{kind} must be text, got {got}", param=kind)
    if not value:
        raise BadRequest(f"{kind} is empty", param=kind)
    return Request(prompt=value) if kind == "prompt" else Request(messages=(Message("user", value),))


def _conversation(value: Any) -> Request:
    try:
        turns = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise BadRequest("messages is text, but no JSON", param="messages") from error
    if not isinstance(turns, list) or not turns:
        raise BadRequest("messages must be a list with at least one message", param="messages")
    known = [{k: v for k, v in t.items() if v is not None} if isinstance(t, dict) else t for t in turns]
    return parse(ChatBody, {"model": "", "messages": known}).requests()[0]


def _written(completion: Completion, job: Job) -> Record:
    record: Record = {"text": completion.text, "finish_reason": completion.finish_reason}
    if job.credits:
        record["credits"] = [[text, dict(members)] for text, members in completion.credits]
    return record


def _usage(events: Iterable[Event]) -> dict[str, list[Any]]:
    usage = collect(events).usage
    return {m: [u.calls, u.prompt_tokens, u.completion_tokens, str(u.cost)] for m, u in sorted(usage.items())}
