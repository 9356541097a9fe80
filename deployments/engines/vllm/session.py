"""One session at the engine: its ids, its open request if it has one, and the last distribution if it still holds.

Opens, continues and gives up the open request; knows nothing of questions and answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from vllm import SamplingParams

from deployments.engines.vllm.core import WIDTH, Core, Stream, chunk
from deployments.engines.vllm.listings import Listing
from deployments.engines.vllm.seats import Seat
from ensemble.continuation import Continuation
from ensemble.errors import MemberLost
from ensemble.member import Reply


class Held:
    """A session."""

    def __init__(self, core: Core, adapter: Any, continuation: Continuation) -> None:
        self.continuation = continuation
        self.answered: tuple[int, Reply] | None = None
        """Last version and its reply."""
        self.touched = time.monotonic()
        self.turn = asyncio.Lock()
        """Messages to one session are carried out one after another."""
        self.adapter = adapter
        self._core = core
        self._open: tuple[Stream, Seat] | None = None
        self._last: tuple[list[int], Listing] | None = None
        self._ended = False

    @property
    def listing(self) -> Listing | None:
        """The distribution after the last id; ``None`` if an edit has made it stale."""
        # Every edit makes a new list, so a distribution belongs to the list object that it was computed for.
        return self._last[1] if self._last is not None and self._last[0] is self.continuation.ids else None

    def remember(self, ids: list[int], listing: Listing) -> None:
        """Keep the distribution after these ids of the continuation."""
        self._last = (ids, listing)

    def fork(self) -> Held:
        """A session that goes on from the same ids, with an open request of its own when it needs one."""
        other = Held(self._core, self.adapter, self.continuation.fork())
        if (listing := self.listing) is not None:
            other.remember(other.continuation.ids, listing)
        return other

    async def advance(self, topk: int) -> Listing:
        """The distribution after the continuation, from the open request."""
        ids = self.continuation.ids
        async with aclosing(self.write(self.continuation.all_ids, chunk(logprobs=topk))) as steps:
            async for (listing,) in steps:
                self.remember(ids, listing)
        assert self.listing is not None or self.continuation.ids is not ids
        return listing

    async def write(
        self, ids: Sequence[int], params: SamplingParams, *, anew: bool = False
    ) -> AsyncGenerator[list[Listing], None]:
        """What the open request draws after these ids; it is opened first if it does not lead there.

        Args:
            anew: open it in any case, as one whose seed is that of ``params``.
        """
        stream, seat = await self._stream(ids, params, anew)
        try:
            async with aclosing(stream.steps(ids, params)) as steps:
                async for listed in steps:
                    if listed:
                        yield listed
        except BaseException:
            # Broken off in the middle, by whomever: vLLM would draw on.
            self.give_up()
            raise
        self._core.seats.rest(seat)

    async def _stream(self, ids: Sequence[int], params: SamplingParams, anew: bool) -> tuple[Stream, Seat]:
        if self._open is not None:
            stream, seat = self._open
            if not anew and stream.leads_to(ids) and stream.width >= (params.logprobs or 0):
                seat.work()
                return stream, seat
            self.give_up()
        seat = await self._core.seats.hold(self.give_up)
        if self._ended:
            self._core.seats.free(seat)
            raise MemberLost("the session was closed")
        width = min(max(WIDTH, params.logprobs or 0), self._core.size)
        opening = params.clone()
        opening.logprobs = width
        stream = Stream(self._core, self.adapter, opening)
        self._open = (stream, seat)
        return stream, seat

    def end(self) -> None:
        """End the session, whatever it is doing or waiting for."""
        self._ended = True
        self.give_up()

    def give_up(self) -> None:
        """End the open request; the next question opens another over the prefix cache."""
        if self._open is not None:
            (stream, seat), self._open = self._open, None
            self._core.close_soon(stream)
            self._core.seats.free(seat)
