"""The vLLM engine: sessions as open requests, scores and generations as plain ones. What each costs: ``core.py``.

Several engines share one ``AsyncLLM`` where a model is served with adapters; each has a name and sessions of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from typing import Any

from deployments.engines.engine import Engine
from deployments.engines.settings import Limits
from deployments.engines.vllm.answers import Answers
from deployments.engines.vllm.core import Core
from deployments.engines.vllm.listings import Listing, listings
from deployments.engines.vllm.session import Held
from ensemble.concurrency import cancel, merge
from ensemble.continuation import Continuation
from ensemble.errors import EnsembleError, MemberLost, Overloaded
from ensemble.member import Card, Exchange, Payload, Question, Reply, SyncText
from ensemble.request import Event, Request, Spent, TokenLogprob, Usage
from ensemble.sampling import seeded
from ensemble.vocabulary import Tokeniser
from ensemble.writer import Writer

log = logging.getLogger(__name__)


class VllmEngine(Engine):
    """One served name of one ``AsyncLLM``."""

    def __init__(
        self,
        card: Card,
        tokeniser: Tokeniser,
        prompts: Callable[[Request], list[int]],
        core: Core,
        limits: Limits | None = None,
        adapter: Any = None,
    ) -> None:
        """Must be made on the running event loop that the ``AsyncLLM`` works on.

        Args:
            adapter: vLLM's ``LoRARequest``; ``None`` for the model itself, whose engine shuts the ``AsyncLLM``.
        """
        self.card = card
        self.vocabulary = tokeniser.vocabulary
        self._tokeniser, self._prompts, self._core = tokeniser, prompts, core
        self._limits = limits or Limits()
        self._adapter = adapter
        self._answers = Answers(core, tokeniser.vocabulary, card.context_length)
        self._sessions: dict[str, Held] = {}
        self._seconds = 0.0
        self._reaping = asyncio.create_task(self._reap())

    # sessions

    async def open(self, session: str, request: Request) -> None:
        if session in self._sessions:
            return
        if len(self._sessions) >= self._limits.sessions:
            raise Overloaded(f"{self.card.name} has {len(self._sessions)} open sessions", member=self.card.name)
        self._sessions[session] = Held(self._core, self._adapter, self._continuation(request))

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        held = self._held(session)
        async with held.turn:
            held.touched = time.monotonic()
            if held.answered is not None and held.answered[0] == exchange.version:
                return held.answered[1]
            if self._sessions.get(session) is not held:
                raise MemberLost("the session was closed", member=self.card.name)
            reply = await self._carried_out(held, exchange)
            held.answered = (exchange.version, reply)
            held.touched = time.monotonic()
            return reply

    async def _carried_out(self, held: Held, exchange: Exchange) -> Reply:
        began = time.perf_counter()
        before = copy(held.continuation)
        try:
            held.continuation.apply(exchange.edit)
            payload = await self._answered(held, exchange.question)
        except BaseException as error:
            # What was not answered was not done: the same message may come again.
            held.continuation = before
            if isinstance(error, EnsembleError) and error.member is None:
                error.member = self.card.name
            raise
        seconds = time.perf_counter() - began
        self._seconds += seconds
        continuation = held.continuation
        usage = self.card.price.of(continuation.usage(exchange.question, payload))
        return Reply(payload, len(continuation.ids), usage, continuation.room, seconds)

    async def _answered(self, held: Held, question: Question | None) -> Payload:
        return None if question is None else await self._answers.answer(held, question)

    async def fork(self, session: str, fork: str) -> None:
        parent = self._held(session)
        if fork not in self._sessions:
            self._sessions[fork] = parent.fork()

    async def close(self, session: str) -> None:
        held = self._sessions.pop(session, None)
        if held is not None:
            held.give_up()

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        return [self._tokeniser.encode(text) for text in texts]

    def _held(self, session: str) -> Held:
        if not self.alive:
            raise MemberLost(f"the engine of {self.card.name} has died", member=self.card.name)
        if session not in self._sessions:
            raise MemberLost(f"{self.card.name} has no session {session}", member=self.card.name)
        return self._sessions[session]

    def _continuation(self, request: Request) -> Continuation:
        continuation = Continuation(self._prompts(request), self._tokeniser, self.card.context_length)
        if request.partial:
            continuation.apply(SyncText(request.partial.encode()))
        return continuation

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
        writer = self._writer(request, prompt, choice)
        read = 0 if choice else len(prompt.all_ids)
        try:
            async with aclosing(self._written(request, prompt, choice)) as steps:  # type: ignore[type-var]
                async for tokens in steps:
                    prefilled.set()
                    events, written = _taken(writer, tokens, self.vocabulary.tokens)
                    yield Spent(self.card.name, self.card.price.of(Usage(0, read, written)))
                    read = 0
                    for event in events:
                        yield event
                    if writer.finished:
                        return
        except EnsembleError as error:
            error.member = error.member or self.card.name
            raise
        finally:
            prefilled.set()

    def _writer(self, request: Request, prompt: Continuation, choice: int) -> Writer:
        return Writer(
            self.card.name,
            self.vocabulary,
            request.sampling,
            position=len(prompt.ids),
            room=prompt.room,
            choice=choice,
        )

    async def _written(
        self, request: Request, prompt: Continuation, choice: int
    ) -> AsyncIterator[list[tuple[int, Listing | None]]]:
        """Tokens as they are drawn, with their distributions where log-probabilities are reported."""
        sampling = seeded(request.sampling, choice)
        limit = min(prompt.room, sampling.max_tokens or prompt.room)
        params = self._answers.writing(sampling, len(prompt.ids), limit, logprobs=sampling.logprobs)
        async with aclosing(self._core.run(prompt.all_ids, params, self._adapter)) as outputs:  # type: ignore[type-var]
            async for output in outputs:
                drawn = output.outputs[0]
                flat = drawn.logprobs
                listed = [None] * len(drawn.token_ids) if flat is None else listings(flat, self._core.size)
                if drawn.token_ids:
                    yield list(zip(drawn.token_ids, listed, strict=True))

    # the engine

    def stats(self) -> Mapping[str, float]:
        seats = self._core.seats
        return {
            "open_sessions": len(self._sessions),
            "running": self._core.running,
            "slots_held": seats.held,
            "slots_waited_for": seats.waiting,
            "slots_taken_away": seats.evicted,
            "steps": self._core.requests,
            "tokens": self._core.tokens,
            "step_seconds": self._seconds,
        }

    @property
    def alive(self) -> bool:
        """Whether vLLM still works; a replica whose engine is dead is unhealthy."""
        return self._core.alive

    async def shut(self) -> None:
        await cancel([self._reaping])
        for session in list(self._sessions):
            await self.close(session)
        await self._core.settled()
        if self._adapter is None:
            await asyncio.to_thread(self._core.llm.shutdown)

    async def _reap(self) -> None:
        """Close sessions whose driver is gone."""
        while True:
            await asyncio.sleep(self._limits.idle_seconds / 4)
            oldest = time.monotonic() - self._limits.idle_seconds
            for key, held in list(self._sessions.items()):
                if held.touched < oldest and not held.turn.locked():
                    log.warning("%s: session %s was idle too long and is closed", self.card.name, key)
                    await self.close(key)


def _taken(
    writer: Writer, tokens: Sequence[tuple[int, Listing | None]], spelling: Sequence[bytes]
) -> tuple[list[Event], int]:
    """Events of the tokens up to the end of the answer, and their number."""
    events: list[Event] = []
    for count, (token, listing) in enumerate(tokens, 1):
        events += writer.written(token, _report(listing, spelling))
        if writer.finished:
            return events, count
    return events, len(tokens)


def _report(listing: Listing | None, spelling: Sequence[bytes]) -> tuple[TokenLogprob, ...]:
    if listing is None:
        return ()
    top = zip(listing.ids.tolist(), listing.logprobs.tolist(), strict=True)
    return (TokenLogprob(spelling[listing.token], listing.logprob, tuple((spelling[i], value) for i, value in top)),)
