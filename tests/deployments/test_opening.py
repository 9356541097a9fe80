"""Opening sessions: again, elsewhere, in good time, and nothing left open that nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments import opening
from deployments.opening import KEYS, VERSIONS, Opener
from deployments.wire.line import Line
from deployments.wire.server import Address
from ensemble.errors import ContextTooLong, MemberLost, OtherVersion
from ensemble.request import Request
from tests.deployments.wire.wired import comes_true

HERE, THERE = (Address("127.0.0.1", port, b"") for port in (1, 2))
LOST = MemberLost("a replica of m was lost", member="m")
OTHER = OtherVersion("a replica of m runs another configuration", member="m")
ASK = Request.of("abc")


@dataclass
class Replicas:
    """What opening a session comes to, one after the other; the last of it for ever."""

    outcomes: list[Any]
    keys: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    async def open(self, key: str, request: Request) -> Line:
        self.keys.append(key)
        outcome = self.outcomes[min(len(self.keys), len(self.outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
            outcome = HERE
        line = Line("m")
        line.address = outcome
        return line

    async def close(self, key: str) -> None:
        self.closed.append(key)

    @property
    def opener(self) -> Opener:
        return Opener("m", self.open, self.close)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "HEDGE", 0.05)
    monkeypatch.setattr(opening, "ELSEWHERE", 0.02)
    monkeypatch.setattr(opening, "GONE", 1.0)


async def test_what_opens_at_once_is_opened_once() -> None:
    replicas = Replicas([HERE])
    opened = await replicas.opener.opened(ASK)
    assert (opened.line.address, [opened.key], replicas.closed) == (HERE, replicas.keys, [])


async def test_a_lost_replica_is_left_for_another() -> None:
    replicas = Replicas([LOST, LOST, THERE])
    opened = await replicas.opener.opened(ASK)
    assert opened.line.address == THERE
    assert len(set(replicas.keys)) == 3
    # A replica that seems lost may have opened it all the same.
    assert await comes_true(lambda: sorted(replicas.closed) == sorted(replicas.keys[:2]))


async def test_one_that_does_not_answer_is_not_waited_for() -> None:
    replicas = Replicas([asyncio.Event(), THERE])
    opened = await replicas.opener.opened(ASK)
    assert (opened.line.address, opened.key) == (THERE, replicas.keys[1])
    assert await comes_true(lambda: replicas.closed == replicas.keys[:1])


async def test_the_slow_one_counts_if_it_is_first() -> None:
    slow = asyncio.Event()
    replicas = Replicas([slow, asyncio.Event()])
    opening_one = asyncio.create_task(replicas.opener.opened(ASK))
    assert await comes_true(lambda: len(replicas.keys) == 2)
    slow.set()
    assert (await opening_one).key == replicas.keys[0]
    assert await comes_true(lambda: set(replicas.closed) == set(replicas.keys[1:]))


async def test_when_nobody_answers_it_ends_in_time_and_leaves_nothing() -> None:
    replicas = Replicas([asyncio.Event()])
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(MemberLost, match="no replica of m has answered"):
        await replicas.opener.opened(ASK)
    assert loop.time() - began < 2 * opening.GONE
    assert await comes_true(lambda: sorted(replicas.closed) == sorted(replicas.keys))


async def test_when_all_are_lost_the_loss_is_told() -> None:
    with pytest.raises(MemberLost) as raised:
        await Replicas([LOST]).opener.opened(ASK)
    assert raised.value is LOST


async def test_a_refusal_is_final() -> None:
    replicas = Replicas([ContextTooLong("too long"), HERE])
    with pytest.raises(ContextTooLong):
        await replicas.opener.opened(ASK)
    assert len(replicas.keys) == 1
    assert not await comes_true(lambda: replicas.closed, within=0.05)


async def test_another_version_is_left_for_the_right_one_or_told() -> None:
    assert (await Replicas([OTHER] * (VERSIONS - 1) + [THERE]).opener.opened(ASK)).line.address == THERE
    replicas = Replicas([OTHER])
    with pytest.raises(OtherVersion):
        await replicas.opener.opened(ASK)
    assert len(replicas.keys) == VERSIONS


async def test_elsewhere_is_another_replica_where_there_is_one() -> None:
    replicas = Replicas([HERE, HERE, HERE, THERE])
    opened = await replicas.opener.opened(ASK, elsewhere=HERE)
    assert opened.line.address == THERE
    assert await comes_true(lambda: sorted(replicas.closed) == sorted(replicas.keys[:3]))


async def test_elsewhere_is_the_same_replica_where_there_is_no_other() -> None:
    replicas = Replicas([HERE])
    opened = await replicas.opener.opened(ASK, elsewhere=HERE)
    assert (opened.line.address, len(replicas.keys)) == (HERE, KEYS)
    assert await comes_true(lambda: sorted([*replicas.closed, opened.key]) == sorted(replicas.keys))


@pytest.mark.parametrize("elsewhere", [None, HERE])
async def test_whoever_gives_up_leaves_nothing_open(elsewhere: Address | None) -> None:
    replicas = Replicas([asyncio.Event()])
    opening_one = asyncio.create_task(replicas.opener.opened(ASK, elsewhere))
    assert await comes_true(lambda: len(replicas.keys) == 2)
    opening_one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening_one
    assert await comes_true(lambda: sorted(replicas.closed) == sorted(replicas.keys))


async def test_a_close_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = Replicas([LOST, HERE])
    hanging = asyncio.Event()
    close: Callable[[str], Any] = lambda key: hanging.wait()  # noqa: E731
    opener = Opener("m", replicas.open, close)
    await opener.opened(ASK)
    assert opener._closing
    assert await comes_true(lambda: not opener._closing)


async def test_once_a_replica_was_lost_others_are_soon_asked_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "HEDGE", 10.0)
    never = asyncio.Event()
    replicas = Replicas([LOST, HERE, never, never, never, THERE])
    opener = replicas.opener
    await opener.opened(ASK)
    async with asyncio.timeout(0.5):
        opened = await opener.opened(ASK)
    assert opened.line.address == THERE
    assert len(replicas.keys) == 6
