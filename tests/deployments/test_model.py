"""A model's replica by itself, without Serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from deployments.engines import loading
from deployments.engines.engine import Engine
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import ZooSource
from deployments.model import ModelReplica
from ensemble.member import Append, Exchange, Next
from ensemble.request import Request
from tests.deployments.engines.random_models import engine_of
from tests.deployments.wire.wired import comes_true, connected

ASK = Request.of("hello")


class Ending:
    """Something that notes when it ends."""

    def __init__(self, name: str, ended: list[str], open_sessions: list[int]) -> None:
        self._name, self._ended, self._open = name, ended, open_sessions

    def stats(self) -> dict[str, float]:
        return {"open_sessions": self._open.pop() if self._open else 0}

    async def shut(self) -> None:
        self._ended.append(self._name)


async def test_a_replica_that_is_stopped_ends_its_sessions_its_door_and_then_its_engines() -> None:
    ended: list[str] = []
    sessions = [0, 0, 1, 1]
    parts: dict[str, Any] = {name: Ending(name, ended, sessions) for name in ("model", "adapter")}
    replica: Any = SimpleNamespace(_engines=parts, _server=Ending("door", ended, []), _grace=10.0)
    await ModelReplica.__del__(replica)
    assert not sessions and ended == ["door", "adapter", "model"]


class Replica(ModelReplica):
    """One that is ended here, as the collector of garbage does not await what Serve does."""

    def __del__(self) -> None: ...  # type: ignore[override]


@pytest.fixture
async def replica(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModelReplica]:
    """Of a model called m."""
    engine = engine_of("llama", idle_seconds=0.1)

    async def started(settings: ModelSettings) -> dict[str, Engine]:
        return {settings.name: engine}

    monkeypatch.setattr(loading, "start", started)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.3")
    replica: Any = Replica.__new__(Replica)
    await replica.__init__(ModelSettings(name="m", source=ZooSource(zoo="adder")), grace=0)
    yield replica
    await ModelReplica.__del__(replica)


async def test_a_session_is_kept_as_long_as_its_driver_lives_and_no_longer(replica: ModelReplica) -> None:
    """A member that a method asks once in a long answer still knows where it was."""
    await replica.open("m/nobody's", ASK)
    async with connected(await replica.open("m/held", ASK)) as line:
        line.hold("m/held")
        assert await comes_true(lambda: open_sessions(replica) == 1)
        await asyncio.sleep(0.5)
        assert (await line.exchange("m/held", Exchange(1, None, Next(1)))).length == 0
        await asyncio.sleep(0.5)
        assert (await line.exchange("m/held", Exchange(2, Append((80,)), Next(1)))).length == 1
    assert await comes_true(lambda: open_sessions(replica) == 0)


async def test_a_replica_listens_on_the_address_of_its_node_in_the_cluster(replica: ModelReplica) -> None:
    assert (await replica.open("m/1", ASK)).host == "127.0.0.3"


def open_sessions(replica: ModelReplica) -> float:
    return replica._engines["m"].stats()["open_sessions"]
