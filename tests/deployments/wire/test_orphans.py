"""Sessions of drivers that are no more: closed, and nothing is left of their connections."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from deployments.wire import server as serving
from deployments.wire.codec import Hold
from deployments.wire.line import Line
from deployments.wire.server import Server
from ensemble.member import Exchange
from tests.deployments.wire.wired import CountedLine, Recorder, comes_true, connected

VANISHING = 200

CLIENT = """
import asyncio, sys
from deployments.wire.line import Line
from deployments.wire.server import Address
from ensemble.member import Exchange

async def main(port, token):
    address = Address("127.0.0.1", int(port), bytes.fromhex(token))
    lines = [await Line.to("m", address) for _ in range(COUNT)]
    for i, line in enumerate(lines):
        line.hold(f"m/{i}")
        if i % 2:
            line.exchange(f"m/{i}", Exchange(1))
    await asyncio.sleep(0.1)
    print("said", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
""".replace("COUNT", str(VANISHING))
"""Opens many connections, says something on each, and waits to be killed."""


async def test_clients_that_vanish_at_once_leave_nothing(server: Server, recorder: Recorder) -> None:
    recorder.hold = asyncio.Event()
    tasks, files = len(asyncio.all_tasks()), open_files()
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLIENT, str(server.address.port), server.address.token.hex()),
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdout is not None
    assert await client.stdout.readline() == b"said\n"
    assert await comes_true(lambda: len(recorder.heard) == VANISHING // 2)
    assert open_files() >= files + VANISHING
    client.send_signal(signal.SIGKILL)
    await client.wait()
    assert await comes_true(lambda: len(recorder.closed) == VANISHING)
    assert len(set(recorder.closed)) == VANISHING
    assert await comes_true(lambda: not server._peers)
    assert await comes_true(lambda: open_files() <= files), open_files() - files
    assert await comes_true(lambda: len(asyncio.all_tasks()) <= tasks), asyncio.all_tasks()


def open_files() -> int:
    """Handles that this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def test_a_session_that_is_held_ends_with_its_connection(server: Server, recorder: Recorder) -> None:
    async with connected(server.address) as line:
        line.hold("m/1")
        await line.exchange("m/2", Exchange(1))
        assert [heard for heard in recorder.heard if isinstance(heard[1], Hold)] == []
    assert await comes_true(lambda: sorted(recorder.closed) == ["m/1", "m/2"])


async def test_to_hold_costs_no_message_of_its_own(server: Server) -> None:
    async with connected(server.address) as line:
        before = line.sent
        line.hold("m/1")
        await line.exchange("m/1", Exchange(1))
        assert line.sent - before == 1


async def test_a_session_that_nobody_claims_is_closed(
    server: Server, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "UNCLAIMED", 0.1)
    async with connected(server.address) as line:
        for key in ("m/held", "m/spoken to", "m/forgotten"):
            server.expect(key)
        await claimed(line)
        assert await comes_true(lambda: recorder.closed == ["m/forgotten"])
        server.expect("m/also forgotten")
        assert await comes_true(lambda: recorder.closed == ["m/forgotten", "m/also forgotten"])


async def claimed(line: CountedLine | Line) -> None:
    line.hold("m/held")
    await line.exchange("m/spoken to", Exchange(1))
