"""The transformers engine: every decoder-only model of the library, all sessions of a replica in one pass per tick.

Sessions join and leave at any tick; one pass mixes decoding, scoring and chunks of prefill. The event loop decides
what runs, a thread of its own computes; nothing is computed on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from copy import copy
from typing import Protocol

from deployments.engines.batch import Row
from deployments.engines.engine import Engine
from deployments.engines.forward import Abandoned, Forward
from deployments.engines.gathering import Gathering
from deployments.engines.guess import worthwhile
from deployments.engines.settings import Limits
from deployments.engines.slots import Slot, SlotTable
from deployments.engines.work import AheadWork, Answering, State, Work, WriteWork, work_for
from ensemble.concurrency import cancel, merge
from ensemble.continuation import Continuation
from ensemble.errors import EnsembleError, MemberError, MemberLost, Overloaded
from ensemble.member import Card, Distribution, Exchange, Payload, Question, Reply, SyncText
from ensemble.request import Event, Request, Spent, Usage
from ensemble.sampling import seeded
from ensemble.vocabulary import Tokeniser, common_prefix
from ensemble.writer import Writer

log = logging.getLogger(__name__)

Planned = tuple[Work, Slot, Row]
"""What a pass computes for one work."""


class Prompts(Protocol):
    """Turns a request into prompt ids: the model's chat template, or the raw prompt."""

    def __call__(self, request: Request) -> list[int]: ...


class TransformersEngine(Engine):
    """One model, its slots, and the loop that batches."""

    def __init__(
        self, card: Card, tokeniser: Tokeniser, prompts: Prompts, forward: Forward, limits: Limits | None = None
    ) -> None:
        """Must be made on a running event loop, which it then works on."""
        self.card = card
        self.vocabulary = tokeniser.vocabulary
        self._tokeniser, self._prompts, self._forward = tokeniser, prompts, forward
        self._limits = limits or Limits()
        self._run_ahead = forward.on_gpu if self._limits.run_ahead is None else self._limits.run_ahead
        self._table = SlotTable(forward.cache)
        self._sessions: dict[str, State] = {}
        self._queue: list[Work] = []
        self._wake = asyncio.Event()
        self._gathering = Gathering()
        self._lately: list[State] = []
        """Answered since a pass was last put together."""
        self._ahead: list[AheadWork] = []
        self._steps_ahead = 0
        self._tick = 0
        self._steps = 0
        self._tokens = 0
        self._step_seconds = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{card.name}")
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._reap())]
        self._tasks[0].add_done_callback(self._ended)

    # sessions

    async def open(self, session: str, request: Request) -> None:
        if session in self._sessions:
            return
        if len(self._sessions) >= self._limits.sessions:
            raise Overloaded(f"{self.card.name} has {len(self._sessions)} open sessions", member=self.card.name)
        state = State(session, self._continuation(request))
        self._sessions[session] = state

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        state = self._state(session)
        async with state.turn:
            state.touched = time.monotonic()
            if state.answered is not None and state.answered[0] == exchange.version:
                return state.answered[1]
            if self._sessions.get(session) is not state:
                raise MemberLost("the session was closed", member=self.card.name)
            reply = await self._carried_out(state, exchange)
            state.answered = (exchange.version, reply)
            state.touched = time.monotonic()
            return reply

    async def _carried_out(self, state: State, exchange: Exchange) -> Reply:
        began = time.perf_counter()
        before = copy(state.continuation)
        state.guess.judge(exchange.edit)
        try:
            state.continuation.apply(exchange.edit)
            payload = await self._answered(state, exchange.question)
        except BaseException:
            # What was not answered was not done: the same message may come again.
            state.continuation = before
            raise
        continuation = state.continuation
        usage = self.card.price.of(continuation.usage(exchange.question, payload))
        return Reply(payload, len(continuation.ids), usage, continuation.room, time.perf_counter() - began)

    async def _answered(self, state: State, question: Question | None) -> Payload:
        if question is None:
            return None
        work = work_for(state, question, self.vocabulary)
        await self._completed(work)
        if isinstance(work.payload, Distribution):
            state.guess.token = int(work.payload.ids[0])
            self._lately.append(state)
            self._wake.set()
        return work.payload

    async def _completed(self, work: Answering) -> None:
        work.prepare()
        if not work.finished:
            self._submit(work)
            try:
                await work.done
            finally:
                self._withdraw(work)

    async def fork(self, session: str, fork: str) -> None:
        parent = self._state(session)
        if fork not in self._sessions:
            state = self._sessions[fork] = State(fork, parent.continuation.fork())
            if parent.row is not None:
                state.remember(state.continuation.ids, parent.row)

    async def close(self, session: str) -> None:
        state = self._sessions.pop(session, None)
        if state is not None:
            self._gathering.asked(session)
            self._abandon(state, MemberLost("the session was closed", member=self.card.name))

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        return [self._tokeniser.encode(text) for text in texts]

    def _state(self, session: str) -> State:
        if session not in self._sessions:
            raise MemberLost(f"{self.card.name} has no session {session}", member=self.card.name)
        return self._sessions[session]

    def _continuation(self, request: Request) -> Continuation:
        continuation = Continuation(self._prompts(request), self._tokeniser, self.card.context_length)
        if request.partial:
            continuation.apply(SyncText(request.partial.encode()))
        return continuation

    def _abandon(self, state: State, error: EnsembleError) -> None:
        for work in [work for work in self._queue if work.state is state]:
            work.fail(error)
            self._withdraw(work)
        self._table.release(state.key)

    # generations

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        prompt = self._continuation(request)
        yield Spent(self.card.name, Usage(calls=1))
        prefilled = asyncio.Event()
        choices = [self._choice(request, prompt, choice, prefilled) for choice in range(request.n)]
        async with aclosing(merge(choices) if len(choices) > 1 else choices[0]) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    async def _choice(
        self, request: Request, prompt: Continuation, choice: int, prefilled: asyncio.Event
    ) -> AsyncIterator[Event]:
        """One choice; those after the first wait until the prompt is in the cache, and share it."""
        if choice:
            await prefilled.wait()
        state = State(uuid.uuid4().hex, prompt.fork())
        position = len(prompt.ids)
        writer = Writer(
            self.card.name,
            self.vocabulary,
            seeded(request.sampling, choice),
            position=position,
            room=prompt.room,
            choice=choice,
        )
        work = WriteWork(state, writer)
        read = 0 if choice else len(prompt.prompt) + position
        self._submit(work)
        try:
            while (item := await work.events.get()) is not None:
                prefilled.set()
                events, written = item
                usage = Usage(prompt_tokens=read, completion_tokens=written)
                yield Spent(self.card.name, self.card.price.of(usage))
                read = 0
                for event in events:
                    yield event
            work.done.result()
        finally:
            prefilled.set()
            self._withdraw(work)
            self._table.release(state.key)

    # the loop

    def stats(self) -> Mapping[str, float]:
        return {
            "open_sessions": len(self._sessions),
            "running": len(self._queue),
            "slots_held": self._table.held,
            "steps": self._steps,
            "tokens": self._tokens,
            "steps_ahead": self._steps_ahead,
            "step_seconds": self._step_seconds,
            "cache_bytes": self._forward.cache.bytes,
        }

    @property
    def alive(self) -> bool:
        """Whether the loop still runs; a replica whose engine is dead is unhealthy."""
        return not self._tasks[0].done()

    async def shut(self) -> None:
        await cancel(self._tasks)
        self._thread.shutdown(wait=True)

    def _ended(self, run: asyncio.Task[None]) -> None:
        if not run.cancelled() and run.exception() is not None:
            log.error("%s: the engine's loop ended", self.card.name, exc_info=run.exception())
        for work in list(self._queue):
            work.fail(MemberLost(f"{self.card.name} is shut down", member=self.card.name))

    def _submit(self, work: Work) -> None:
        if not self.alive:
            raise MemberLost(f"{self.card.name} is shut down", member=self.card.name)
        self._queue.append(work)
        self._gathering.asked(work.state.key)
        self._wake.set()
        if self._ahead and not any(ahead.answers(work) for ahead in self._ahead):
            self._forward.abandon()

    def _withdraw(self, work: Work) -> None:
        if work in self._queue:
            self._queue.remove(work)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self._queue:
                await self._gathering.complete()
            batch = self._planned() or self._guessed()
            if batch:
                await self._pass(batch)
            else:
                self._wake.clear()

    async def _pass(self, batch: Sequence[Planned]) -> None:
        """Compute a batch and hand on what it has brought."""
        self._ahead = [work for work, _, _ in batch if isinstance(work, AheadWork)]
        self._forward.resume()
        began = time.perf_counter()
        await self._loop.run_in_executor(self._thread, self._step, batch)
        seconds = time.perf_counter() - began
        works = [work for work, _, _ in batch]
        if self._ahead:
            self._steps_ahead += self._ahead[0].finished
            works = self._came_true()
        else:
            self._steps += 1
            self._step_seconds += seconds
        for work in works:
            if work.finished:
                self._withdraw(work)
            work.deliver()
        answered = [work.state.key for work in works if work.finished and work.state.key in self._sessions]
        self._gathering.answered(answered, seconds)
        # Whoever was just answered may ask again before the next pass is put together.
        await asyncio.sleep(0)

    def _guessed(self) -> list[Planned]:
        """A pass on what drivers will decide; none where somebody waits, or where it would too likely be in vain."""
        lately, self._lately = self._lately, []
        if self._queue or not self._run_ahead:
            return []
        states = [state for state in lately if self._sessions.get(state.key) is state and self._goes_on(state)]
        if not worthwhile([state.guess for state in states]):
            return []
        planned = []
        for state in states:
            slot = self._table.of(state.key)
            if slot is not None and state.guess.token is not None:
                work = AheadWork(state, state.guess.token)
                row = row_for(work, work.stem(), slot, 0)
                planned += [(work, slot, row)] if row is not None else []
        return sorted(planned, key=lambda item: item[1].index)

    def _goes_on(self, state: State) -> bool:
        """Whether there is something to compute after the session's guess."""
        return state.continuation.room > 1 and state.guess.token not in self.vocabulary.stop_ids

    def _came_true(self) -> list[Work]:
        """Works that a pass on guesses has made needless."""
        self._ahead = []
        for work in self._queue:
            work.prepare()
        return [work for work in self._queue if work.finished]

    def _planned(self) -> list[Planned]:
        """What the next pass computes: every work that has a slot, prefill within its chunk; in order of slot."""
        self._tick += 1
        busy = {work.state.key for work in self._queue}
        left = self._limits.prefill_chunk
        planned: list[Planned] = []
        for work in self._queue:
            stem = work.stem()
            slot = self._table.acquire(work.state.key, stem, busy, self._tick)
            row = row_for(work, stem, slot, left) if slot is not None else None
            if slot is not None and row is not None:
                left -= len(row.ids) - 1
                planned.append((work, slot, row))
        return sorted(planned, key=lambda item: item[1].index)

    def _step(self, batch: Sequence[Planned]) -> None:
        """On the thread: one pass, taken in by every work; a failure is the work's own."""
        works = [work for work, _, _ in batch]
        topk = max(work.topk for work in works)
        try:
            logits = self._forward([row for _, _, row in batch], topk, any(work.hidden for work in works))
        except Abandoned:
            return
        except Exception as error:
            for work in works:
                self._failed(work, error)
            return
        for (work, slot, row), own in zip(batch, logits, strict=True):
            computed = len(row.ids) - (len(work.tree()[0]) if row.wanted else 0)
            slot.ids = [*slot.ids[: row.start], *row.ids[:computed]]
            self._tokens += 0 if self._ahead else len(row.ids)
            try:
                if row.wanted:
                    work.absorb(own)
            except Exception as error:
                self._failed(work, error)

    def _failed(self, work: Work, error: Exception) -> None:
        if isinstance(error, EnsembleError):
            failure: EnsembleError = type(error)(error.message, member=self.card.name)
        else:
            log.error("%s: a pass failed", self.card.name, exc_info=error)
            failure = MemberError(f"{self.card.name} failed: {type(error).__name__}", member=self.card.name)
        work.finished = True
        self._loop.call_soon_threadsafe(work.fail, failure)

    async def _reap(self) -> None:
        """Close sessions whose driver is gone."""
        while True:
            await asyncio.sleep(self._limits.idle_seconds / 4)
            oldest = time.monotonic() - self._limits.idle_seconds
            working = {id(work.state) for work in self._queue}
            for state in list(self._sessions.values()):
                if state.touched < oldest and id(state) not in working:
                    log.warning("%s: session %s was idle too long and is closed", self.card.name, state.key)
                    await self.close(state.key)


def row_for(work: Work, stem: list[int], slot: Slot, left: int) -> Row | None:
    """The part of a work that the next pass computes, at most ``left`` tokens of prefill more than one.

    The tree comes with the end of the stem; ``None`` when a prefill has to wait for the next tick.
    """
    known = len(slot.ids) if stem[: len(slot.ids)] == slot.ids else common_prefix(slot.ids, stem)
    start = min(known, len(stem) - 1) if work.needs_stem else min(known, len(stem))
    tree, parents = work.tree()
    rest = stem[start:]
    if len(rest) - 1 > left:
        return Row(slot.index, start, rest[:left]) if left > 0 else None
    chain = list(range(-1, len(rest) - 1))
    wanted = list(range(len(rest) - int(work.needs_stem), len(rest) + len(tree)))
    if not tree:
        return Row(slot.index, start, rest, None, wanted)
    grown = [parent + len(rest) for parent in parents]  # -1, the stem, becomes its last token here, or stays
    return Row(slot.index, start, [*rest, *tree], [*chain, *grown], wanted)
