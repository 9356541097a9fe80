"""What engines have in common: sessions by name, messages that are carried out once, leases, generations by choice.

How a question is answered and how a choice is written is the engine's own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from deployments.engines.engine import Engine
from deployments.engines.settings import Limits
from ensemble.concurrency import merge
from ensemble.continuation import Continuation
from ensemble.errors import BadRequest, EnsembleError, MemberLost, Overloaded, QueueFull
from ensemble.member import Card, Edit, Exchange, Payload, Reply, Score, SyncText
from ensemble.request import Event, Request, Spent, Usage
from ensemble.vocabulary import Tokeniser

log = logging.getLogger(__name__)

_LONG = 4096
"""Characters from which text is tokenised in a thread: some milliseconds, for which all sessions would stand still."""


class Prompts(Protocol):
    """Turns a request into prompt ids: the model's chat template, or the raw prompt."""

    def __call__(self, request: Request) -> list[int]: ...


class Opened(Protocol):
    """What an engine keeps of a session, at least."""

    continuation: Continuation
    answered: tuple[int, Reply] | None
    """Last version and its reply."""
    touched: float
    """When it was last spoken to, by the monotonic clock."""
    turn: asyncio.Lock
    """Messages to one session are carried out one after another."""


S = TypeVar("S", bound=Opened)


class SessionEngine(Engine, Generic[S]):
    """Base of engines that answer sessions from their ids."""

    def __init__(self, card: Card, tokeniser: Tokeniser, prompts: Prompts, limits: Limits | None) -> None:
        """Must be made on a running event loop, which it then works on."""
        self.card = card
        self.vocabulary = tokeniser.vocabulary
        self._tokeniser, self._prompts = tokeniser, prompts
        self._limits = limits or Limits()
        self._sessions: dict[str, S] = {}
        self._requests = 0
        self._billed = Usage()
        self._reaping = asyncio.create_task(self._reap())

    @abstractmethod
    def _opened(self, key: str, continuation: Continuation) -> S:
        """What is kept of a new session."""

    @abstractmethod
    def _forked(self, parent: S, key: str) -> S:
        """What is kept of a new session that goes on from the ids of another."""

    @abstractmethod
    def _closed(self, key: str, session: S) -> None:
        """Free what a session held that nobody can ask any more."""

    @abstractmethod
    async def _answered(self, session: S, exchange: Exchange) -> Payload:
        """The answer to a question; the edit has been applied to the continuation."""

    @abstractmethod
    def _choice(
        self, request: Request, prompt: Continuation, choice: int, prefilled: asyncio.Event
    ) -> AsyncIterator[Event]:
        """Write one choice; those after the first wait until the prompt is in the cache, and share it."""

    async def open(self, session: str, request: Request) -> None:
        if session in self._sessions:
            return
        self._require_room()
        continuation = await self._begun(request)
        if session not in self._sessions:
            self._require_room()
            self._sessions[session] = self._opened(session, continuation)
            self._billed += Usage(calls=1)

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        opened = self._session(session)
        async with opened.turn:
            opened.touched = time.monotonic()
            last, reply = opened.answered or (0, None)
            if reply is not None and exchange.version == last:
                return reply
            if exchange.version < last:
                raise BadRequest(f"message {exchange.version} comes after message {last}", member=self.card.name)
            self._require_open(session, opened)
            reply = await self._carried_out(opened, exchange)
            opened.answered = (exchange.version, reply)
            opened.touched = time.monotonic()
            return reply

    async def _carried_out(self, opened: S, exchange: Exchange) -> Reply:
        began = time.perf_counter()
        before = copy(opened.continuation)
        try:
            await self._edited(opened.continuation, exchange.edit)
            payload = await self._answered(opened, await _spelt(opened.continuation, exchange))
        except BaseException as error:
            # What was not answered was not done: the same message may come again.
            opened.continuation = before
            if isinstance(error, EnsembleError) and error.member is None:
                error.member = self.card.name
            raise
        continuation = opened.continuation
        usage = self.card.price.of(continuation.usage(exchange.question, payload))
        self._billed += usage
        return Reply(payload, len(continuation.ids), usage, continuation.room, time.perf_counter() - began)

    async def fork(self, session: str, fork: str) -> None:
        parent = self._session(session)
        # What is under way may yet fail, and then was never done; a fork must not go on from it.
        async with parent.turn:
            self._require_open(session, parent)
            parent.touched = time.monotonic()
            if fork not in self._sessions:
                self._require_room()
                self._sessions[fork] = self._forked(parent, fork)

    async def close(self, session: str) -> None:
        opened = self._sessions.pop(session, None)
        if opened is not None:
            self._closed(session, opened)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        def encoded() -> list[list[int]]:
            return [self._tokeniser.encode(text) for text in texts]

        return await asyncio.to_thread(encoded) if sum(map(len, texts)) > _LONG else encoded()

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        if self._requests >= self._limits.requests:
            raise QueueFull(f"{self.card.name} has {self._requests} requests to answer already", member=self.card.name)
        self._requests += 1
        try:
            prompt = await self._begun(request)
            self._billed += Usage(calls=1)
            yield Spent(self.card.name, Usage(calls=1))
            prefilled = asyncio.Event()
            choices = [self._choice(request, prompt, choice, prefilled) for choice in range(request.n)]
            async with aclosing(merge(choices) if len(choices) > 1 else choices[0]) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Spent):
                        self._billed += event.usage
                    yield event
        finally:
            self._requests -= 1

    @property
    def billed(self) -> Mapping[str, float]:
        """The engine's own books: all usage that was told, also to requests that were gone by then."""
        return {
            "billed_calls": self._billed.calls,
            "billed_prompt_tokens": self._billed.prompt_tokens,
            "billed_completion_tokens": self._billed.completion_tokens,
            "billed_cost": float(self._billed.cost),
        }

    def _session(self, session: str) -> S:
        if session not in self._sessions:
            raise MemberLost(f"{self.card.name} has no session {session}", member=self.card.name)
        return self._sessions[session]

    def _require_open(self, session: str, opened: S) -> None:
        if self._sessions.get(session) is not opened:
            raise MemberLost("the session was closed", member=self.card.name)

    def _require_room(self) -> None:
        if len(self._sessions) >= self._limits.sessions:
            raise Overloaded(f"{self.card.name} has {len(self._sessions)} open sessions", member=self.card.name)

    async def _begun(self, request: Request) -> Continuation:
        """What a request begins with; from long texts in a thread.

        Raises:
            BadRequest: its prompt has a token that the model does not know.
            ContextTooLong: it leaves no room.
        """
        if len(request.partial) + sum(map(len, _texts(request))) <= _LONG:
            return self._continuation(request)
        return await asyncio.to_thread(self._continuation, request)

    def _continuation(self, request: Request) -> Continuation:
        prompt, size = self._prompts(request), self.vocabulary.size
        if max(prompt, default=0) >= size:
            # On a GPU a single one would end the engine.
            rule = f"the prompt has the token {max(prompt)} of the tokenizer; {self.card.name} knows {size} tokens only"
            raise BadRequest(rule, param="messages", member=self.card.name)
        continuation = Continuation(prompt, self._tokeniser, self.card.context_length)
        if request.partial:
            continuation.apply(SyncText(request.partial.encode()))
        return continuation

    async def _edited(self, continuation: Continuation, edit: Edit | None) -> None:
        if isinstance(edit, SyncText) and len(edit.text) > _LONG:
            await asyncio.to_thread(continuation.apply, edit)
        else:
            continuation.apply(edit)

    async def _reap(self) -> None:
        """Close sessions whose driver is gone."""
        while True:
            await asyncio.sleep(self._limits.idle_seconds / 4)
            now = time.monotonic()
            for key, opened in list(self._sessions.items()):
                if opened.turn.locked() or self.claimed(key):
                    opened.touched = now
                elif opened.touched < now - self._limits.idle_seconds:
                    log.warning("%s: session %s was idle too long and is closed", self.card.name, key)
                    await self.close(key)


def _texts(request: Request) -> list[str]:
    return [message.content for message in request.messages] if request.prompt is None else [request.prompt]


async def _spelt(continuation: Continuation, exchange: Exchange) -> Exchange:
    """The same message, with the ids of long texts that are to be scored in place of them."""
    question = exchange.question
    if not isinstance(question, Score) or sum(len(c) for c in question.continuations if isinstance(c, bytes)) <= _LONG:
        return exchange

    def spelt() -> tuple[tuple[int, ...], ...]:
        return tuple(map(continuation.spelt, question.continuations))

    return replace(exchange, question=replace(question, continuations=await asyncio.to_thread(spelt)))
