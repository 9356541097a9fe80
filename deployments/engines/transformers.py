"""The transformers engine: every decoder-only model of the library, all sessions of a replica in one pass per tick.

Sessions join and leave at any tick; one pass mixes decoding, scoring and chunks of prefill. The event loop decides
what runs, a thread of its own computes; nothing is computed on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy

from deployments.engines.answering import Answering, NextWork, work_for
from deployments.engines.batch import Row
from deployments.engines.forward import Abandoned, Broken, Forward
from deployments.engines.gathering import Gathering
from deployments.engines.guess import worthwhile
from deployments.engines.sessions import Prompts, SessionEngine
from deployments.engines.settings import Limits
from deployments.engines.slots import Slot, SlotTable
from deployments.engines.work import State, Work
from deployments.engines.writing import AheadWork, WriteWork
from ensemble.concurrency import cancel
from ensemble.continuation import Continuation
from ensemble.errors import EnsembleError, MemberError, MemberLost
from ensemble.member import Card, Distribution, Exchange, Payload
from ensemble.request import Event, Request, Spent, Usage
from ensemble.sampling import seeded
from ensemble.vocabulary import Tokeniser, common_prefix
from ensemble.writer import Writer

log = logging.getLogger(__name__)

Planned = tuple[Work, Slot, Row]
"""What a pass computes for one work."""


class TransformersEngine(SessionEngine[State]):
    """One model, its slots, and the loop that batches."""

    def __init__(
        self, card: Card, tokeniser: Tokeniser, prompts: Prompts, forward: Forward, limits: Limits | None = None
    ) -> None:
        """Must be made on a running event loop, which it then works on."""
        super().__init__(card, tokeniser, prompts, limits)
        self._forward = forward
        self._run_ahead = forward.on_gpu if self._limits.run_ahead is None else self._limits.run_ahead
        self._table = SlotTable(forward.cache)
        self._queue: list[Work] = []
        self._wake = asyncio.Event()
        self._gathering = Gathering()
        self._lately: dict[str, State] = {}
        """Answered since a pass was last put together."""
        self._ahead: list[AheadWork] = []
        self._steps_ahead = 0
        self._tick = 0
        self._steps = 0
        self._tokens = 0
        self._step_seconds = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{card.name}")
        self._loop = asyncio.get_running_loop()
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._ended)

    # sessions

    def _opened(self, key: str, continuation: Continuation) -> State:
        return State(key, continuation)

    def _forked(self, parent: State, key: str) -> State:
        state = State(key, parent.continuation.fork())
        if parent.row is not None:
            state.remember(state.continuation.ids, parent.row)
        return state

    def _closed(self, key: str, session: State) -> None:
        self._gathering.asked(key)
        for work in [work for work in self._queue if work.state is session]:
            work.fail(MemberLost("the session was closed", member=self.card.name))
            self._withdraw(work)
        self._table.release(key)

    async def _answered(self, session: State, exchange: Exchange) -> Payload:
        session.guess.judge(exchange.edit)
        if exchange.question is None:
            return None
        work = work_for(session, exchange.question, self.vocabulary, self._forward.heads)
        await self._completed(work)
        if self._run_ahead and isinstance(work.payload, Distribution) and work.read is None:
            session.guess.token = int(work.payload.ids[0])
            self._lately[session.key] = session
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

    # generations

    async def _choice(
        self, request: Request, prompt: Continuation, choice: int, prefilled: asyncio.Event
    ) -> AsyncIterator[Event]:
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
            **self.billed,
        }

    @property
    def alive(self) -> bool:
        """Whether the loop still runs; a replica whose engine is dead is unhealthy."""
        return not self._running.done()

    async def shut(self) -> None:
        await cancel([self._running, self._reaping])
        # The pass under way ends first, which may take seconds.
        await asyncio.to_thread(self._thread.shutdown)

    def _ended(self, run: asyncio.Task[None]) -> None:
        if not run.cancelled() and run.exception() is not None:
            log.error("%s: the engine's loop ended", self.card.name, exc_info=run.exception())
        for work in list(self._queue):
            work.fail(self._gone())

    def _gone(self) -> MemberLost:
        return MemberLost(f"the engine of {self.card.name} has ended", member=self.card.name)

    def _submit(self, work: Work) -> None:
        if not self.alive:
            raise self._gone()
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
            looks = [work for work in self._queue if isinstance(work, NextWork) and work.looks]
            batch = self._planned() or self._guessed()
            if batch or looks:
                await self._pass(batch, looks)
            else:
                self._wake.clear()

    async def _pass(self, batch: Sequence[Planned], looks: Sequence[NextWork]) -> None:
        """Compute a batch and hand on what it has brought.

        Args:
            looks: works that take heads alone.
        """
        self._ahead = [work for work, _, _ in batch if isinstance(work, AheadWork)]
        self._lately = {}
        self._forward.resume()
        began = time.perf_counter()
        await self._loop.run_in_executor(self._thread, self._step, batch, looks)
        seconds = time.perf_counter() - began
        works = [*(work for work, _, _ in batch), *looks]
        if self._ahead:
            self._steps_ahead += self._ahead[0].finished
            works = [*self._came_true(), *looks]
        else:
            self._steps += bool(batch)
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
        lately, self._lately = self._lately.values(), {}
        if self._queue:
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
            if isinstance(work, NextWork) and work.looks:
                continue
            stem = work.stem()
            slot = self._table.acquire(work.state.key, stem, busy, self._tick)
            row = row_for(work, stem, slot, left) if slot is not None else None
            if slot is not None and row is not None:
                # A large tree takes all that is left of the chunk, and no turn from those who only decode.
                left = max(0, left - len(row.ids) + 1)
                planned.append((work, slot, row))
        return sorted(planned, key=lambda item: item[1].index)

    def _step(self, batch: Sequence[Planned], looks: Sequence[NextWork]) -> None:
        """On the thread: heads over what is known, then one pass; a failure is the work's own."""
        if looks:
            self._look(looks)
        if batch:
            self._compute(batch)

    def _look(self, works: Sequence[NextWork]) -> None:
        """Heads over distributions that are known, all at once."""
        asked = [(w, w.read, row) for w in works if w.read is not None and (row := w.state.row) is not None]
        try:
            found = self._forward.heads.look([read for _, read, _ in asked], [row for _, _, row in asked])
            for (work, _, _), outcomes in zip(asked, found, strict=True):
                work.looked(outcomes)
        except Exception as error:
            for work in works:
                self._failed(work, error)

    def _compute(self, batch: Sequence[Planned]) -> None:
        """One pass, taken in by every work."""
        works = [work for work, _, _ in batch]
        topk, hidden, reads = max(work.topk for work in works), any(w.hidden for w in works), [w.read for w in works]
        for _, slot, row in batch:
            # Written over from here on: a pass that does not come to its end leaves neither the old nor the new.
            del slot.ids[row.start :]
        try:
            logits = self._forward([row for _, _, row in batch], topk, hidden, reads)
        except Abandoned:
            return
        except Broken:
            raise
        except Exception as error:
            for work in works:
                self._failed(work, error)
            return
        for (work, slot, row), own in zip(batch, logits, strict=True):
            computed = len(row.ids) - (len(work.tree()[0]) if row.wanted else 0)
            slot.ids += row.ids[:computed]
            self._tokens += 0 if self._ahead else len(row.ids)
            try:
                if row.wanted:
                    work.absorb(own)
            except Exception as error:
                self._failed(work, error)

    def _failed(self, work: Work, error: Exception) -> None:
        if isinstance(error, EnsembleError):
            # One error may end several works, and who hears of it notes in it the way that it came.
            failure: EnsembleError = copy(error)
            failure.member = self.card.name
        else:
            log.error("%s: a pass failed", self.card.name, exc_info=error)
            failure = MemberError(f"{self.card.name} failed: {type(error).__name__}", member=self.card.name)
        work.finished = True
        self._loop.call_soon_threadsafe(work.fail, failure)


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
