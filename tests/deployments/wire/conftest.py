"""What the tests of the wire share: a server, and both event loops: replicas run on uvloop, notebooks on asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from deployments.wire.server import Server
from tests.deployments.wire.wired import Recorder, listening


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def server(recorder: Recorder) -> AsyncIterator[Server]:
    async with listening(recorder) as server:
        yield server
