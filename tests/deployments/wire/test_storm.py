"""Many drivers that do whatever drivers do, in any order, and leave at any moment: all ends, and nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from deployments.wire import server as serving
from deployments.wire.server import Server
from ensemble.concurrency import together
from ensemble.errors import EnsembleError
from ensemble.member import Append, Exchange, Next, Propose, Rewind, Score, Until
from ensemble.request import Request, Sampling
from tests.deployments.engines.random_models import engine_of
from tests.deployments.wire.wired import CountedLine, comes_true, connected, listening

DRIVERS, ACTS = 6, 40
QUESTIONS = (None, Next(3), Propose(Until(4)), Propose(Until(6), Sampling(temperature=1.0, seed=1)), Score((b"abc",)))
EDITS = (None, Append((80,)), Append((81, 82)), Rewind(1))


class Restless:
    """A driver that does the next thing without waiting for the last."""

    def __init__(self, engine: Any, server: Server, line: CountedLine, rng: random.Random, keys: count[int]) -> None:
        self.engine, self.server, self.line, self.rng, self.keys = engine, server, line, rng, keys
        self.sessions: dict[str, count[int]] = {}
        self.calls: list[asyncio.Future[Any]] = []
        self.replies = 0

    async def act(self) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [self.open, self.say, self.say, self.fork, self.close, self.quit]
        await self.rng.choice(acts if self.sessions else [self.open])()
        await asyncio.sleep(self.rng.choice([0, 0, 0.002]))

    async def open(self) -> None:
        key = self._key()
        await self.engine.open(key, Request.of("hello"))
        self.server.expect(key)
        self.line.hold(key)

    async def say(self) -> None:
        key = self._any()
        exchange = Exchange(next(self.sessions[key]), self.rng.choice(EDITS), self.rng.choice(QUESTIONS))
        self.calls.append(self.line.exchange(key, exchange))

    async def fork(self) -> None:
        parent = self._any()
        self.calls.append(self.line.fork(parent, self._key()))

    async def close(self) -> None:
        key = self._any()
        self.line.close(key)
        del self.sessions[key]

    async def quit(self) -> None:
        """Give a call up, whatever has become of it."""
        if self.calls:
            self.rng.choice(self.calls[-5:]).cancel()

    async def end(self) -> None:
        for call in self.calls:
            with suppress(EnsembleError, asyncio.CancelledError):
                await call
                self.replies += 1

    def _key(self) -> str:
        key = f"m/{next(self.keys)}"
        self.sessions[key] = count(1)
        return key

    def _any(self) -> str:
        return self.rng.choice(list(self.sessions))


async def storm(engine: Any, seed: int) -> list[int]:
    """Let drivers come and go; how many replies each has had."""
    keys, rng = count(), random.Random(seed)

    async def drive(server: Server) -> int:
        async with connected(server.address) as line:
            driver = Restless(engine, server, line, random.Random(rng.random()), keys)
            for _ in range(driver.rng.randrange(ACTS)):
                await driver.act()
            if driver.rng.random() < 0.5:
                line._abort()
            await driver.end()
            return driver.replies

    async with listening(engine) as server:
        async with asyncio.timeout(30):
            replies = await together(drive(server) for _ in range(DRIVERS))
        assert await comes_true(lambda: not server._peers)
        assert await comes_true(lambda: engine.stats()["open_sessions"] == engine.stats()["slots_held"] == 0)
        assert await comes_true(lambda: engine.stats()["running"] == 0)
    assert engine.alive
    return replies


@pytest.mark.parametrize("seed", range(10))
async def test_all_calls_end_and_no_session_is_left(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "UNCLAIMED", 0.5)
    engine = engine_of("llama")
    assert sum(await storm(engine, seed)) > 0
    await engine.shut()
