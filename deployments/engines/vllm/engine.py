"""The vLLM engine: sessions as open requests, scores and generations as plain ones. What each costs: ``core.py``.

Several engines share one ``AsyncLLM`` where a model is served with adapters; each has a name and sessions of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from deployments.engines.heads import Heads
from deployments.engines.sessions import Prompts, SessionEngine
from deployments.engines.settings import Limits
from deployments.engines.vllm.answers import Answers
from deployments.engines.vllm.core import Core
from deployments.engines.vllm.listings import Listing, listings
from deployments.engines.vllm.session import Held
from ensemble.concurrency import cancel
from ensemble.continuation import Continuation
from ensemble.errors import EnsembleError, MemberLost
from ensemble.member import Card, Exchange, Payload
from ensemble.request import Event, Request, Spent, TokenLogprob, Usage
from ensemble.sampling import seeded
from ensemble.vocabulary import Tokeniser
from ensemble.writer import Writer


class VllmEngine(SessionEngine[Held]):
    """One served name of one ``AsyncLLM``."""

    def __init__(
        self,
        card: Card,
        tokeniser: Tokeniser,
        prompts: Prompts,
        core: Core,
        limits: Limits | None = None,
        adapter: Any = None,
        heads: Heads | None = None,
    ) -> None:
        """Must be made on the running event loop that the ``AsyncLLM`` works on.

        Args:
            adapter: vLLM's ``LoRARequest``; ``None`` for the model itself, whose engine shuts the ``AsyncLLM``.
            heads: that read likely tokens alone; they run beside vLLM.
        """
        super().__init__(card, tokeniser, prompts, limits)
        self._core = core
        self._adapter = adapter
        self._answers = Answers(core, tokeniser.vocabulary, card.context_length, heads or Heads())
        self._seconds = 0.0

    # sessions

    def _opened(self, key: str, continuation: Continuation) -> Held:
        return Held(self._core, self._adapter, continuation)

    def _forked(self, parent: Held, key: str) -> Held:
        return parent.fork()

    def _closed(self, key: str, session: Held) -> None:
        session.end()

    def _session(self, session: str) -> Held:
        if not self.alive:
            raise MemberLost(f"the engine of {self.card.name} has died", member=self.card.name)
        return super()._session(session)

    async def _answered(self, session: Held, exchange: Exchange) -> Payload:
        if exchange.question is None:
            return None
        began = time.perf_counter()
        payload = await self._answers.answer(session, exchange.question)
        self._seconds += time.perf_counter() - began
        return payload

    # generations

    async def _choice(
        self, request: Request, prompt: Continuation, choice: int, prefilled: asyncio.Event
    ) -> AsyncIterator[Event]:
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
            **self.billed,
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
