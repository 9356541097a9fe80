"""Line and Server over real sockets: messages, order, loss, cancelling, sizes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import numpy as np
import pytest

from deployments.wire import connection
from deployments.wire.codec import Call
from deployments.wire.line import Line
from deployments.wire.server import Address, Server
from ensemble.concurrency import together
from ensemble.errors import ContextTooLong, MemberError, MemberLost
from ensemble.member import Append, Distribution, Exchange, Floats, Next, Reply, SyncText
from ensemble.request import Request
from ensemble.testing import TinyMember
from tests.deployments.wire.wired import SOON, CountedLine, Desk, Recorder, comes_true, connected, listening


@pytest.fixture
async def desk() -> Desk:
    return Desk(TinyMember("tiny"))


@pytest.fixture
async def line(server: Server) -> AsyncIterator[CountedLine]:
    async with connected(server.address) as line:
        yield line


async def test_a_distribution_arrives_as_the_member_made_it(desk: Desk) -> None:
    await desk.open("m/1", Request.of("abc"))
    async with await desk.member.start(Request.of("abc")) as alone:
        expected = await alone.next(20)
    async with listening(desk) as server, connected(server.address) as line:
        payload = (await line.exchange("m/1", Exchange(1, None, Next(20)))).payload
    assert isinstance(payload, Distribution)
    assert np.array_equal(payload.ids, expected.ids)
    assert np.array_equal(payload.logprobs, expected.logprobs)


async def test_what_is_said_in_one_turn_travels_as_one_message_and_so_does_the_answer(line: CountedLine) -> None:
    before = line.sent
    for version in range(1, 6):
        replies = await asyncio.gather(*(line.exchange(f"m/{i}", Exchange(version)) for i in range(64)))
        assert [reply.length for reply in replies] == [version] * 64
    assert (line.sent - before, line.understood) == (5, 5)


async def test_order_is_kept(line: CountedLine, recorder: Recorder) -> None:
    calls = [line.exchange("m/1", Exchange(i, Append((i,)))) for i in range(1, 50)]
    forked = line.fork("m/1", "m/2")
    line.close("m/1")
    last = line.exchange("m/2", Exchange(1))
    await asyncio.gather(*calls, forked, last)
    exchanges = [("m/1", Exchange(i, Append((i,)))) for i in range(1, 50)]
    assert recorder.heard == [*exchanges, ("m/1", "m/2"), ("m/1", "close"), ("m/2", Exchange(1))]


async def test_a_slow_answer_does_not_hold_up_the_others(line: CountedLine, recorder: Recorder) -> None:
    recorder.hold = asyncio.Event()
    slow = asyncio.ensure_future(line.exchange("m/1", Exchange(1)))
    assert await comes_true(lambda: recorder.heard)
    hold, recorder.hold = recorder.hold, None
    assert (await line.exchange("m/2", Exchange(2))).length == 2
    assert not slow.done()
    hold.set()
    assert (await slow).length == 1


async def test_errors_of_the_engine_are_raised_as_they_are(desk: Desk) -> None:
    tiny = TinyMember("tiny", context_length=16)
    desk = Desk(tiny)
    await desk.open("m/1", Request.of("abc"))
    async with listening(desk) as server, connected(server.address) as line:
        with pytest.raises(ContextTooLong):
            await line.exchange("m/1", Exchange(1, SyncText(b"x" * 100)))
        assert (await line.exchange("m/1", Exchange(2, SyncText(b"xy")))).length == 2


async def test_what_else_the_engine_fails_with_is_told_without_its_words(line: CountedLine, recorder: Recorder) -> None:
    recorder.answer = lambda exchange: 1 / 0
    with pytest.raises(MemberError, match="ZeroDivisionError") as raised:
        await line.exchange("m/1", Exchange(1))
    assert type(raised.value) is MemberError
    assert "division by" not in raised.value.message
    recorder.answer = lambda exchange: None
    assert (await line.exchange("m/1", Exchange(2))).length == 2


async def test_a_session_that_nobody_opened(desk: Desk) -> None:
    await desk.open("m/1", Request.of("abc"))
    async with listening(desk) as server, connected(server.address) as line:
        for call in (line.exchange("m/2", Exchange(1)), line.fork("m/2", "m/3")):
            with pytest.raises(MemberLost):
                await call
        assert (await line.exchange("m/1", Exchange(1))).length == 0


async def test_a_refusal_before_the_first_step_harms_no_other_session(line: CountedLine, recorder: Recorder) -> None:
    def refused(session: str, exchange: Exchange) -> Reply:
        raise MemberLost(f"no session {session} is here")

    recorder.exchange = refused  # type: ignore[assignment,method-assign]  # raises when called, not when awaited
    with pytest.raises(MemberLost, match="no session"):
        await line.exchange("m/1", Exchange(1))
    await line.fork("m/1", "m/2")
    assert line.connected


async def test_only_the_one_address_is_listened_on(server: Server) -> None:
    host, port = server.address.host, server.address.port
    assert host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", port)


async def test_what_opens_the_door_is_in_no_log(server: Server) -> None:
    assert "token" not in repr(server.address) and str(server.address.port) in repr(server.address)


# Who goes away.


async def test_the_sessions_of_a_driver_that_has_gone_are_closed(server: Server, recorder: Recorder) -> None:
    async with connected(server.address) as stays, connected(server.address) as goes:
        await stays.exchange("m/0", Exchange(1))
        await asyncio.gather(*(goes.exchange(f"m/{i}", Exchange(1)) for i in (1, 2, 3)), goes.fork("m/1", "m/4"))
        goes.close("m/2")
        assert await comes_true(lambda: recorder.closed == ["m/2"])
        goes.hang_up()
        assert await comes_true(lambda: len(recorder.closed) == 4)
        assert sorted(recorder.closed) == ["m/1", "m/2", "m/3", "m/4"]
        assert (await stays.exchange("m/0", Exchange(2))).length == 2


async def test_a_driver_cut_off_in_the_middle_of_its_calls(server: Server, recorder: Recorder) -> None:
    recorder.hold = asyncio.Event()
    async with connected(server.address) as line:
        calls = [line.exchange(f"m/{i}", Exchange(i)) for i in range(1, 4)]
        assert await comes_true(lambda: len(recorder.heard) == 3)
        line._abort()
        assert await comes_true(lambda: len(recorder.closed) == 3)
        assert sorted(recorder.cancelled) == [1, 2, 3]
        assert await lost(calls) == 3


async def test_a_session_that_cannot_be_closed_does_not_keep_the_others_open(
    server: Server, recorder: Recorder
) -> None:
    closed = recorder.close

    def close(session: str) -> object:
        if session == "m/1":
            raise MemberLost("no session m/1 is here")
        return closed(session)

    recorder.close = close  # type: ignore[assignment,method-assign]
    async with connected(server.address) as line:
        await asyncio.gather(*(line.exchange(f"m/{i}", Exchange(1)) for i in range(3)))
    assert await comes_true(lambda: sorted(recorder.closed) == ["m/0", "m/2"])


async def test_a_server_that_ends_takes_every_call_with_it_at_once(recorder: Recorder) -> None:
    recorder.hold = asyncio.Event()
    async with listening(recorder) as server, connected(server.address) as line:
        calls = [line.exchange("m/1", Exchange(i)) for i in range(5)]
        assert await comes_true(lambda: len(recorder.heard) == 5)
        await server.shut()
        assert await lost(calls) == 5
        assert await lost([line.exchange("m/1", Exchange(6)), line.fork("m/1", "m/2")]) == 2
        line.close("m/1")
        with pytest.raises(MemberLost, match="m cannot be reached"):
            await Line.to("m", server.address)
    assert recorder.closed == ["m/1"]


ENGINE = """
import asyncio
from deployments.wire.server import Server

class Silent:
    async def exchange(self, session, exchange): await asyncio.sleep(3600)

async def main():
    server = await Server.listen("127.0.0.1", Silent())
    print(server.address.port, server.address.token.hex(), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_an_engine_process_that_is_killed_takes_every_call_with_it_at_once() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ENGINE, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port, token = (await process.stdout.readline()).split()
        async with connected(Address("127.0.0.1", int(port), bytes.fromhex(token.decode()))) as line:
            calls = [line.exchange("m/1", Exchange(i)) for i in range(5)]
            await asyncio.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            assert await lost(calls) == 5
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def lost(calls: list[asyncio.Future[Reply] | asyncio.Future[None]]) -> int:
    """How many of the calls end with ``MemberLost``; all of them end soon."""
    async with asyncio.timeout(SOON):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return sum(isinstance(outcome, MemberLost) for outcome in outcomes)


# What is given up.


async def test_a_fork_that_is_closed_before_it_is_begun_is_closed(line: CountedLine, recorder: Recorder) -> None:
    """Its parent may have something to do first."""
    begun, turn = list[str](), asyncio.Event()

    async def fork(session: str, fork: str) -> None:
        await turn.wait()
        begun.append(fork)

    recorder.fork = fork  # type: ignore[method-assign]
    forking = line.fork("m/1", "m/2")
    line.close("m/2")
    await line.exchange("m/1", Exchange(1))
    recorder.closed.clear()
    turn.set()
    await forking
    assert (begun, recorder.closed) == (["m/2"], ["m/2"])


async def test_cancelling_a_call_cancels_the_work(server: Server, line: CountedLine, recorder: Recorder) -> None:
    recorder.hold = asyncio.Event()
    given_up = asyncio.ensure_future(line.exchange("m/1", Exchange(1)))
    kept = asyncio.ensure_future(line.exchange("m/1", Exchange(2)))
    assert await comes_true(lambda: len(recorder.heard) == 2)
    given_up.cancel()
    assert await comes_true(lambda: recorder.cancelled == [1])
    recorder.hold.set()
    assert (await kept).length == 2
    assert line.connected


@pytest.mark.filterwarnings("error")
async def test_a_call_given_up_before_it_has_begun_leaves_nothing_behind(
    server: Server, line: CountedLine, recorder: Recorder
) -> None:
    for version in range(20):
        line.exchange("m/1", Exchange(version)).cancel()
    assert (await line.exchange("m/1", Exchange(20))).length == 20
    (peer,) = server._peers
    assert await comes_true(lambda: not peer._calls)
    assert not line._waiting


async def test_a_call_that_the_engine_gives_up_by_itself_is_answered(line: CountedLine, recorder: Recorder) -> None:
    async def given_up(session: str, exchange: Exchange) -> Reply:
        never: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(never.cancel)
        return await never

    recorder.exchange = given_up  # type: ignore[method-assign]
    async with asyncio.timeout(SOON):
        with pytest.raises(MemberError, match="gave the call up"):
            await line.exchange("m/1", Exchange(1))
    await line.fork("m/1", "m/2")


async def test_a_driver_that_gives_two_calls_one_number_is_cut_off(server: Server, recorder: Recorder) -> None:
    recorder.hold = asyncio.Event()
    async with connected(server.address) as line:
        line.say(Call(1, "m/1", Exchange(1)))
        assert await comes_true(lambda: len(recorder.heard) == 1)
        line.say(Call(1, "m/2", Exchange(2)))
        assert await comes_true(lambda: not line.connected)
    assert await comes_true(lambda: recorder.closed == ["m/1"])
    assert (recorder.cancelled, len(recorder.heard)) == ([1], 2)


async def test_an_answer_to_what_was_given_up_disturbs_nobody(line: CountedLine, recorder: Recorder) -> None:
    for version in range(50):
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await line.exchange("m/1", Exchange(version))
        assert (await line.exchange("m/1", Exchange(1000 + version))).length == 1000 + version


# Sizes.


async def test_messages_larger_than_any_buffer_pass_both_ways_while_small_ones_go_on(
    server: Server, line: CountedLine, recorder: Recorder
) -> None:
    table = np.random.default_rng(0).normal(size=(100, 60_000)).astype(np.float32)  # 24 MB
    text = bytes(range(256)) * 2**16  # 16 MB
    recorder.answer = lambda exchange: table if isinstance(exchange.edit, SyncText) else None

    async def large(version: int) -> Floats:
        payload = (await line.exchange("m/large", Exchange(version, SyncText(text)))).payload
        assert isinstance(payload, np.ndarray)
        return payload

    async def small(session: str) -> None:
        for version in range(200):
            assert (await line.exchange(session, Exchange(version))).length == version

    async with connected(server.address) as other:
        beside = asyncio.ensure_future(other.exchange("m/other", Exchange(7)))
        tables, *_ = await asyncio.gather(together(map(large, range(3))), small("m/1"), small("m/2"))
        assert (await beside).length == 7
    assert all(np.array_equal(received, table) for received in tables)
    assert all(e.edit == SyncText(text) for s, e in recorder.heard if s == "m/large")


async def test_a_reply_that_is_nothing_a_message_can_hold_fails_alone(line: CountedLine, recorder: Recorder) -> None:
    recorder.answer = lambda exchange: np.array([object()]) if exchange.version == 3 else None
    outcomes = await asyncio.gather(
        *(line.exchange("m/1", Exchange(version)) for version in range(6)), return_exceptions=True
    )
    assert isinstance(outcomes.pop(3), MemberError)
    assert [o.length for o in outcomes if isinstance(o, Reply)] == [0, 1, 2, 4, 5]


async def test_a_call_that_is_nothing_a_message_can_hold_fails_alone(line: CountedLine) -> None:
    bad = Exchange(1, Append((2**70,)))
    outcomes = await asyncio.gather(
        *(line.exchange("m/1", exchange) for exchange in (Exchange(1), bad, Exchange(2))), return_exceptions=True
    )
    assert isinstance(outcomes[1], MemberError)
    assert [o.length for o in outcomes if isinstance(o, Reply)] == [1, 2]


async def test_what_is_too_long_for_one_message_travels_as_several(
    line: CountedLine, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LARGEST", 10_000)
    line.longest = 10_000
    recorder.answer = lambda exchange: np.zeros(exchange.version)
    replies = await asyncio.gather(*(line.exchange(f"m/{i}", Exchange(1000 - i)) for i in range(20)))
    assert [reply.length for reply in replies] == [1000 - i for i in range(20)]
    assert line.understood >= 20
    with pytest.raises(MemberError, match="cannot be sent"):
        await line.exchange("m/1", Exchange(2000))
    assert (await line.exchange("m/1", Exchange(3))).length == 3
