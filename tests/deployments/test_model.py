"""A model's replica by itself, without Serve."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from deployments.model import ModelReplica


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
