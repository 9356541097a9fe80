"""Giving vLLM at once what sessions ask at about the same time.

Sessions in lockstep ask again one round trip after they were answered. vLLM begins a step with whatever has come by
then, which is mostly the first of them: from then on parts of the batch take turns, and every step is nearly as long
as one of all. So chunks wait a little for those that are about to come, and the engine for the last of them. Knows no
request: whoever gives something says how it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ensemble.concurrency import together

_PATIENCE = 0.6
"""Longest wait, as a part of the last step; see ``gathering.py``, where it was measured."""

Send = Callable[[], Awaitable[None]]


class Gone(Exception):
    """Who gives this is not there any more."""


class Bursts:
    """Who was answered by the last step and has not asked again, and what waits to be sent until they have."""

    def __init__(self, hold: Callable[[], None], let_go: Callable[[], None]) -> None:
        """
        Args:
            hold: keeps the engine from beginning a step; takes effect before all that is sent later.
            let_go: ends that.
        """
        self._hold, self._let_go = hold, let_go
        self._missing: set[str] = set()
        self._working: set[str] = set()
        self._brief: set[str] = set()
        self._ready: dict[str, tuple[Send, asyncio.Future[None]]] = {}
        self._step = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def answered(self, key: str, seconds: float) -> None:
        """A step of so many seconds has answered this one, which is likely to ask again."""
        self._working.discard(key)
        self._missing.add(key)
        self._step = seconds

    def gone(self, key: str) -> None:
        """This one will not ask again; what it waits to send is not sent."""
        for names in (self._working, self._missing, self._brief):
            names.discard(key)
        _, done = self._ready.pop(key, (None, None))
        if done is not None and not done.done():
            done.set_exception(Gone())
        self._settle()

    async def give(self, key: str, send: Send, *, brief: bool = True) -> None:
        """Send something, with what others send; returns when it is sent.

        Whoever gives up before that has sent nothing.

        Args:
            brief: it takes one step, so that others may wait for it to be answered.

        Raises:
            Gone: it was said to be, before anything was sent.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready[key] = (send, done)
        self._missing.discard(key)
        if brief:
            self._brief.add(key)
        self._settle()
        try:
            await done
        except asyncio.CancelledError:
            self._ready.pop(key, None)
            raise

    def _settle(self) -> None:
        if not self._ready:
            return
        if not self._missing and not self._working:
            self._release()
        elif self._timer is None:
            # Two parts of a batch that take turns become one when the first waits for the second's step to end.
            patience = (_PATIENCE + bool(self._working)) * self._step
            self._timer = asyncio.get_running_loop().call_later(patience, self._release)

    def _release(self) -> None:
        """Send all that waits; those who are late are not waited for again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._missing.clear()
        self._working |= self._brief & set(self._ready)
        self._brief.clear()
        burst, self._ready = list(self._ready.values()), {}
        if burst:
            task = asyncio.create_task(self._send(burst))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, burst: list[tuple[Send, asyncio.Future[None]]]) -> None:
        if len(burst) > 1:
            self._hold()
        try:
            await together(_sent(send, done) for send, done in burst)
        finally:
            if len(burst) > 1:
                self._let_go()


async def _sent(send: Send, done: asyncio.Future[None]) -> None:
    try:
        if not done.done():
            await send()
    except Exception as error:  # it is the giver's, and no reason to keep the others waiting
        if not done.done():
            done.set_exception(error)
    else:
        if not done.done():
            done.set_result(None)
