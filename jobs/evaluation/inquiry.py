"""Asking what is not in the ledger, a bounded number of questions at a time, and telling how far that is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx

from cluster.client import CONNECT_SECONDS
from ensemble.concurrency import cancel, together
from ensemble.errors import EnsembleError
from ensemble.member import Member
from ensemble.request import Event, collect, total
from jobs.asking import tried
from jobs.evaluation.asks import Ask, Ledger, Reply
from jobs.evaluation.service import HttpMember, Known, serving
from jobs.progress import Display
from jobs.recorder import Counts

T = TypeVar("T")
Progress = Callable[[Counts], None]


class Inquiry:
    """Puts questions to members; equal ones are put once."""

    def __init__(
        self,
        members: Callable[[str], Member],
        meanings: Mapping[str, str],
        ledger: Ledger,
        *,
        concurrency: int,
        attempts: int,
        progress: Progress | None = None,
    ) -> None:
        """
        Args:
            members: by name.
            meanings: by name; see ``Listed``.
            concurrency: questions under way at a time, at most.
            attempts: times that a question is put at most, while its errors are such that a retry may help.
        """
        self._members, self._meanings, self._ledger = members, meanings, ledger
        self._places = asyncio.Semaphore(concurrency)
        self._attempts = attempts
        self._progress = progress
        self._under_way: dict[str, asyncio.Task[Reply]] = {}
        self._seen: set[str] = set()
        self._wanted = self._done = self._failed = self._resumed = 0

    async def all(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in the order of the questions."""
        return await together(self.one(ask) for ask in asks)

    async def one(self, ask: Ask) -> Reply:
        """The reply, kept or new; an error is a reply."""
        key = ask.key(self._meanings[ask.name])
        new = key not in self._seen
        self._seen.add(key)
        if (kept := self._ledger.find(key)) is not None:
            if new:
                self._resumed += 1
                self._wanted += 1
                self._told(kept)
            return kept
        if new:
            self._wanted += 1
            self._under_way[key] = asyncio.create_task(self._put(ask, key))
        return await asyncio.shield(self._under_way[key])

    async def _put(self, ask: Ask, key: str) -> Reply:
        async with self._places:
            reply, final = await answered(self._members(ask.name), ask, self._attempts)
            await asyncio.to_thread(self._ledger.add, key, reply, final=final)
        self._told(reply)
        return reply

    def _told(self, reply: Reply) -> None:
        self._done += 1
        self._failed += reply.error is not None
        if self._progress is not None:
            self._progress(Counts(self._wanted, self._done, self._failed, self._resumed))

    async def close(self) -> None:
        """End what is under way."""
        await cancel(self._under_way.values())


async def answered(member: Member, ask: Ask, attempts: int) -> tuple[Reply, bool]:
    """The reply, and whether it is final: an error that a retry may mend is not."""
    spent: list[Event] = []
    began = time.perf_counter()
    final, outcome = True, Reply()
    try:
        completion = await tried(member, ask.request, spent, attempts)
    except EnsembleError as error:
        final = not error.retryable
        outcome = Reply(error=f"{error.code}: {error.message}")
    else:
        logprob = sum(token.logprob for token in completion.tokens) if completion.tokens else None
        outcome = Reply(text=completion.text, finish=completion.finish_reason, logprob=logprob)
    return _with_amounts(outcome, spent, time.perf_counter() - began), final


def _with_amounts(reply: Reply, spent: Iterable[Event], seconds: float) -> Reply:
    usage = total(collect(spent).usage.values())
    return Reply(
        text=reply.text,
        finish=reply.finish,
        error=reply.error,
        logprob=reply.logprob,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        calls=usage.calls,
        cost=usage.cost,
        seconds=seconds,
    )


@asynccontextmanager
async def inquiry(
    url: str, known: Known, ledger: Ledger, *, concurrency: int, attempts: int, progress: Progress | None = None
) -> AsyncIterator[Inquiry]:
    """An inquiry at a service's API; what is under way at the end is given up."""
    meanings = {name: listed.meaning for name, listed in known.names.items()}
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits) as connection:
        asking = Inquiry(
            lambda name: HttpMember(name, connection),
            meanings,
            ledger,
            concurrency=concurrency,
            attempts=attempts,
            progress=progress,
        )
        try:
            yield asking
        finally:
            await asking.close()


def inquired(
    known: Known,
    names: tuple[str, ...],
    ledger: Ledger,
    work: Callable[[Inquiry], Awaitable[T]],
    *,
    concurrency: int,
    attempts: int,
    address: str | None = None,
    starting: Callable[[Mapping[str, str]], None] | None = None,
) -> T:
    """What the work returns that asks these names; the service is brought up for it where it is not there.

    Raises:
        ConfigurationError: the service could not be brought up, or another one is there.
    """

    async def asked(url: str, display: Display) -> T:
        ways = {"concurrency": concurrency, "attempts": attempts}
        async with inquiry(url, known, ledger, **ways, progress=display) as asking:
            return await work(asking)

    with serving(known, names, address, starting) as url, Display(unit="answers") as display:
        return asyncio.run(asked(url, display))
