"""A session behind the wire is a session: the suite of every engine, with a socket between member and test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ensemble.heads import build
from ensemble.testing import TinyMember
from ensemble.testing.conformance import EngineConformance
from ensemble.testing.heads import HeadConformance
from tests.deployments.engines.random_models import engine_of, router
from tests.deployments.wire.wired import Desk, WiredMember, comes_true, connected, listening


class TestTinyMemberBehindTheWire(EngineConformance):
    @pytest.fixture
    async def member(self) -> AsyncIterator[WiredMember]:
        tiny = TinyMember("tiny", seed=3, context_length=128)
        desk = Desk(tiny)
        async with listening(desk) as server, connected(server.address) as line:
            yield WiredMember(tiny, desk, line)
            assert await comes_true(lambda: not desk.sessions), desk.sessions
            assert tiny.open_sessions == 0


class TestTransformersEngineBehindTheWire(EngineConformance):
    @pytest.fixture
    async def member(self) -> AsyncIterator[WiredMember]:
        engine = engine_of("llama")
        async with listening(engine) as server, connected(server.address) as line:
            yield WiredMember(engine, engine, line)
            assert await comes_true(lambda: engine.stats()["open_sessions"] == 0)
        await engine.shut()


class TestHeadsBehindTheWire(HeadConformance):
    @pytest.fixture
    async def member(self) -> AsyncIterator[WiredMember]:
        engine = engine_of("llama", heads={"router": build(router())})
        async with listening(engine) as server, connected(server.address) as line:
            yield WiredMember(engine, engine, line)
            assert await comes_true(lambda: engine.stats()["open_sessions"] == 0)
        await engine.shut()
