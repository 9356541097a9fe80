"""Rows to answers: the worker that Ray Data keeps, and what it writes down of one row.

A row's place among those under way is given up only when its record is on disk, so after a crash no more rows are
asked again than may be under way.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

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
"""Seconds before the second attempt at a row; doubled for each further one."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows are asked."""

    application: str
    deployment: str
    name: str
    """What is asked there."""


class Journal(Protocol):
    """What a worker needs of the recorder."""

    async def missing(self, rows: list[int]) -> list[int]: ...

    async def append(self, record: Record) -> None: ...


class Worker:
    """Asks the rows of one batch after another, never more than ``concurrency`` at a time over all batches."""

    def __init__(self, recorder: Any, target: Target, job: Job, concurrency: int, attempts: int) -> None:
        """
        Args:
            recorder: handle of the recorder's actor.
        """
        self._journal: Journal = _Remote(recorder)
        self._target = target
        self._job = job
        self._attempts = attempts
        self._places = asyncio.Semaphore(concurrency)
        self._connecting = asyncio.Lock()
        self._member: Member | None = None
        self._lost: Exception | None = None

    async def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[int]]:
        """One batch; its rows are in the journal when this returns.

        Args:
            batch: ``row``, ``value`` and ``problem``, one of each for every row.
        """
        member = await self._connected()
        rows = [int(row) for row in batch["row"]]
        cells = dict(zip(rows, map(Cell, batch["value"].tolist(), batch["problem"].tolist()), strict=True))
        missing = await self._journal.missing(rows)
        await together(self._row(member, row, cells[row]) for row in missing)
        return {"rows": [len(missing)]}

    async def _connected(self) -> Member:
        from ray import serve

        async with self._connecting:
            if self._member is None:
                handle = serve.get_deployment_handle(self._target.deployment, self._target.application)
                self._member = await RemoteMember.connect(self._target.name, handle)
            return self._member

    async def _row(self, member: Member, row: int, cell: Cell) -> None:
        async with self._places:
            if self._lost is not None:
                raise self._lost
            record = await answered(member, self._job, cell, attempts=self._attempts)
            try:
                await self._journal.append({"row": row, **record})
            except Exception as error:
                # Nothing more is asked: it could not be kept either.
                self._lost = error
                raise


class _Remote:
    """The recorder's actor as a journal."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder

    async def missing(self, rows: list[int]) -> list[int]:
        missing: list[int] = await self._recorder.missing.remote(rows)
        return missing

    async def append(self, record: Record) -> None:
        await self._recorder.append.remote(record)


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
    for attempt in range(attempts):
        if attempt:
            await asyncio.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
        written: list[Event] = []
        try:
            # Its own id: members may not take a second attempt for the first come twice.
            async with aclosing(member.generate(replace(asked, id=uuid.uuid4().hex))) as stream:  # type: ignore[type-var]
                async for event in stream:
                    (events if isinstance(event, Spent) else written).append(event)
            return collect(written).choices[0]
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
