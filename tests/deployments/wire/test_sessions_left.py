"""Sessions of a served member, at the driver's end of the wire: none is left open, whoever forgets it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator

import pytest

from deployments.member import _RemoteSession
from deployments.wire.server import Server
from ensemble.member import Exchange
from ensemble.vocabulary import Vocabulary
from tests.deployments.wire.wired import CountedLine, Recorder, comes_true, connected

VOCABULARY = Vocabulary((b"a",))


@pytest.fixture
async def line(server: Server) -> AsyncIterator[CountedLine]:
    async with connected(server.address) as line:
        yield line


def session(line: CountedLine, key: str = "m/1") -> _RemoteSession:
    line.hold(key)
    return _RemoteSession("m", VOCABULARY, key, line)


async def test_a_fork_that_nobody_waits_for_any_more_is_closed(line: CountedLine, recorder: Recorder) -> None:
    forks: list[str] = []

    async def fork(session: str, fork: str) -> None:
        forks.append(fork)
        await asyncio.sleep(3600)  # its answer is on a long way

    recorder.fork = fork  # type: ignore[method-assign]
    async with session(line) as parent:
        forking = asyncio.create_task(parent.fork())
        assert await comes_true(lambda: forks)
        forking.cancel()
        assert await comes_true(lambda: recorder.closed == forks)


async def test_a_session_that_is_forgotten_is_closed(line: CountedLine, recorder: Recorder) -> None:
    await session(line).exchange()
    gc.collect()
    assert await comes_true(lambda: recorder.closed == ["m/1"])


async def test_a_session_that_is_forgotten_elsewhere_is_closed_here(line: CountedLine, recorder: Recorder) -> None:
    forgotten = [session(line)]
    thread = threading.Thread(target=forgotten.clear)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await comes_true(lambda: recorder.closed == ["m/1"])


async def test_what_was_closed_is_not_closed_again(line: CountedLine, recorder: Recorder) -> None:
    async with session(line) as closed:
        await closed.exchange()
    del closed
    gc.collect()
    await line.exchange("m/0", Exchange(1))
    assert recorder.closed == ["m/1"]
