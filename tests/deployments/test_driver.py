"""A driver's replica by itself, without Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from deployments import driver
from deployments.driver import EnsembleReplica, EnsembleSettings
from deployments.member import RemoteMember
from ensemble import vocabulary
from ensemble.errors import MemberLost
from ensemble.member import Member
from ensemble.request import Request
from ensemble.testing import TinyMember

Started = Callable[..., Any]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Starts a driver over members of this process."""
    unions: dict[Any, Any] = {}
    monkeypatch.setattr(vocabulary, "_unions", unions)

    async def start(method: str, *members: Member) -> EnsembleReplica:
        by_name = {member.name: member for member in members}

        async def connect(name: str, handle: Any, **_: Any) -> Member:
            return by_name[name]

        monkeypatch.setattr(RemoteMember, "connect", connect)
        replica: Any = EnsembleReplica.__new__(EnsembleReplica)
        settings = EnsembleSettings(name="e", method=method, members=tuple(by_name))
        await replica.__init__(settings, dict.fromkeys(by_name))
        return replica

    return start


def pair(**options: Any) -> list[TinyMember]:
    return [TinyMember(name, seed=seed, **options) for seed, name in enumerate("ab")]


@pytest.mark.parametrize("method", ["gac", "unite", "safe"])
async def test_tables_over_vocabularies_are_there_before_the_first_request(method: str, started: Started) -> None:
    members = pair()
    replica = await started(method, *members)
    before = dict(vocabulary._unions)
    assert len(before) == 1
    assert [event async for batch in replica.generate("e", Request.of("hello", max_tokens=3)) for event in batch]
    assert vocabulary._unions.keys() == before.keys()
    assert not any(member.open_sessions for member in members)


async def test_what_is_rehearsed_is_in_nobodys_books(started: Started) -> None:
    replica = await started("gac", *pair())
    assert not any(replica._reception.stats().values())


async def test_a_driver_starts_without_members_that_fail(started: Started) -> None:
    replica = await started("gac", *pair(fail_at=0))
    with pytest.raises(MemberLost):
        async for _ in replica.generate("e", Request.of("hello")):
            pass


async def test_a_driver_starts_without_members_that_hang(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_PATIENCE", 0.1)
    members = pair()
    members[1]._delay = 3600.0
    async with asyncio.timeout(5):
        await started("gac", *members)
    assert not any(member.open_sessions for member in members)
