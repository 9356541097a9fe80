"""Whoever comes to the engine's door without the token, or says what is no message, is cut off and harms nobody."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import numpy as np
import pytest

from deployments.wire import connection
from deployments.wire import server as server_module
from deployments.wire.codec import Call, pack_calls, unpack_outcomes
from deployments.wire.server import Server
from ensemble.member import Exchange
from tests.deployments.wire.wired import SOON, CountedLine, Recorder, comes_true, connected, listening

CALL = pack_calls([Call(1, "m/1", Exchange(1))])


def framed(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


@pytest.fixture
async def line(server: Server) -> AsyncIterator[CountedLine]:
    """A driver that is at work, before and after."""
    async with connected(server.address) as line:
        await line.exchange("m/0", Exchange(1))
        yield line
        assert (await line.exchange("m/0", Exchange(2))).length == 2


STRANGERS = {
    "a call and no token": framed(CALL),
    "a wrong token": framed(bytes(32)) + framed(CALL),
    "a short token": framed(bytes(31)),
    "an empty message": framed(b"") + framed(CALL),
    "a long message": framed(bytes(33)),
    "a huge message": b"\xff\xff\xff\xff" + bytes(1000),
    "a web browser": b"GET / HTTP/1.1\r\nHost: engine\r\n\r\n",
    "a handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
}


@pytest.mark.parametrize("said", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_is_cut_off(said: bytes, server: Server, line: CountedLine, recorder: Recorder) -> None:
    assert await answer(server, said) == b""
    assert [session for session, _ in recorder.heard] == ["m/0"]


@pytest.mark.parametrize("said", [b"", b"\x20\x00", framed(bytes(32))[:20]], ids=["nothing", "a part", "half a token"])
async def test_nobody_keeps_the_door_open(said: bytes, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "GONE", 0.1)
    async with listening(recorder) as server, connected(server.address) as line:
        await line.exchange("m/0", Exchange(1))
        assert await answer(server, said) == b""
        assert (await line.exchange("m/0", Exchange(2))).length == 2
        assert len(server._peers) == 1


@pytest.mark.parametrize(
    "said",
    [framed(b"no message"), framed(b""), framed(CALL[:-1]), framed(CALL + b"\x00"), b"\xff\xff\xff\xff"],
    ids=["text", "empty", "cut short", "too much", "huge"],
)
async def test_a_driver_that_says_what_is_no_message_loses_its_own_sessions_only(
    said: bytes, server: Server, line: CountedLine, recorder: Recorder
) -> None:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(framed(server.address.token) + framed(CALL))
    assert await reader.read(4)
    writer.write(said)
    assert await comes_true(lambda: recorder.closed == ["m/1"])
    writer.close()


async def test_a_driver_that_is_answered_with_what_is_no_message_hangs_up(server: Server, line: CountedLine) -> None:
    async def garbled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(36)
        writer.write(framed(b"no message"))

    other = await asyncio.start_server(garbled, "127.0.0.1", 0)
    host, port = other.sockets[0].getsockname()
    address = type(server.address)(host, port, bytes(32))
    async with other, connected(address) as misled:
        assert await comes_true(lambda: not misled.connected)


async def test_calls_that_arrive_in_small_pieces_are_understood(server: Server, recorder: Recorder) -> None:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    for byte in framed(server.address.token) + framed(CALL) + framed(CALL):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await comes_true(lambda: len(recorder.heard) == 2)
    assert recorder.heard == [("m/1", Exchange(1))] * 2
    assert await reader.read(4)
    writer.close()


async def test_who_does_not_read_is_not_listened_to(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LARGEST", 2**20)
    recorder.answer = lambda exchange: np.zeros(2**18, np.float32)  # 1 MB
    async with listening(recorder) as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port, limit=2**16)
        writer.write(framed(server.address.token))
        for version in range(1, 101):
            writer.write(framed(pack_calls([Call(version, "m/1", Exchange(version))])))
            await asyncio.sleep(0.002)
        assert len(recorder.heard) < 60
        async with connected(server.address) as line:
            assert (await line.exchange("m/2", Exchange(1))).length == 1
        answered: list[int] = []
        async with asyncio.timeout(10):
            while len(answered) < 100:
                message = await reader.readexactly(*struct.unpack("<I", await reader.readexactly(4)))
                answered += (number for number, _ in unpack_outcomes(message))
        assert answered == list(range(1, 101))
        writer.close()


async def test_who_does_not_read_holds_up_no_shutdown(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that has stopped is told what is left to tell as long as a lost machine would be waited for."""
    monkeypatch.setattr(connection, "GONE", 2.0)
    recorder.answer = lambda exchange: np.zeros(2**22, np.float32)  # 16 MB, more than the kernel keeps
    server = await Server.listen("127.0.0.1", recorder)
    _, writer = await asyncio.open_connection(server.address.host, server.address.port, limit=2**10)
    writer.write(framed(server.address.token) + framed(pack_calls([Call(1, "m/1", Exchange(1))])))
    assert await comes_true(lambda: recorder.heard)
    async with asyncio.timeout(8):
        await server.shut()
    assert recorder.closed == ["m/1"]
    writer.close()


async def answer(server: Server, said: bytes) -> bytes:
    """All that is heard until the other side hangs up, soon."""
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(said)
    try:
        async with asyncio.timeout(SOON):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
