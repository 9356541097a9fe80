"""Both ends of the wire in one process, without Ray: what the engine side serves, and a member at the driver's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from deployments.engines.engine import Engine
from deployments.wire.line import Line
from deployments.wire.server import Address, Server
from ensemble.errors import MemberLost
from ensemble.member import Exchange, Member, Payload, Reply, Session
from ensemble.request import Event, Request, Usage
from ensemble.testing import TinyMember

SOON = 2.0
"""Seconds that "at once" may take on a busy machine; far below any time-out on the way."""


class Desk:
    """A member's sessions by key."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.sessions: dict[str, Session] = {}

    async def open(self, session: str, request: Request) -> None:
        self.sessions[session] = await self.member.start(request)

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        return await self._of(session)._send(exchange)

    async def fork(self, session: str, fork: str) -> None:
        self.sessions[fork] = await self._of(session).fork()

    async def close(self, session: str) -> None:
        if session in self.sessions:
            await self.sessions.pop(session).close()

    def _of(self, session: str) -> Session:
        if session not in self.sessions:
            raise MemberLost(f"no session {session} is here")
        return self.sessions[session]


@dataclass
class Recorder:
    """Notes what it is asked, and answers as it is told to."""

    answer: Callable[[Exchange], Any] = lambda exchange: None
    """From a message to the reply's payload."""
    hold: asyncio.Event | None = None
    """Replies wait for it."""
    heard: list[tuple[str, Any]] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    """Versions of the messages that were given up."""
    closed: list[str] = field(default_factory=list)

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        self.heard.append((session, exchange))
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled.append(exchange.version)
            raise
        payload: Payload = self.answer(exchange)
        return Reply(payload, exchange.version, Usage())

    async def fork(self, session: str, fork: str) -> None:
        self.heard.append((session, fork))

    async def close(self, session: str) -> None:
        self.heard.append((session, "close"))
        self.closed.append(session)


class CountedLine(Line):
    """A line that knows how many messages went either way."""

    def __init__(self, member: str) -> None:
        super().__init__(member)
        self.sent = self.understood = 0

    def write(self, message: bytes) -> None:
        self.sent += 1
        super().write(message)

    def understand(self, message: bytes) -> None:
        self.understood += 1
        super().understand(message)


class WiredMember(Member):
    """A member or an engine, all of whose sessions go over a line."""

    def __init__(self, inner: Member | Engine, host: Desk | Engine, line: Line) -> None:
        self.card = inner.card
        self._inner, self._host, self._line = inner, host, line
        self._keys = count()

    def generate(self, request: Request) -> AsyncIterator[Event]:
        return self._inner.generate(request)

    async def tokenise(self, texts: Any) -> list[list[int]]:
        return await self._inner.tokenise(texts)

    async def start(self, request: Request) -> Session:
        key = f"{self.name}/{next(self._keys)}"
        await self._host.open(key, request)
        vocabulary = self._inner.vocabulary if isinstance(self._inner, Engine) else _vocabulary(self._inner)
        return WiredSession(self, vocabulary, key, self._line)


def _vocabulary(member: Member) -> Any:
    assert isinstance(member, TinyMember)
    return member.tokeniser.vocabulary


class WiredSession(Session):
    def __init__(self, owner: WiredMember, vocabulary: Any, key: str, line: Line) -> None:
        self.member, self.vocabulary = owner.name, vocabulary
        self._owner, self._key, self._line = owner, key, line

    async def _send(self, exchange: Exchange) -> Reply:
        return await self._line.exchange(self._key, exchange)

    async def fork(self) -> Session:
        fork = WiredSession(self._owner, self.vocabulary, f"{self._key}+{next(self._owner._keys)}", self._line)
        await self._line.fork(self._key, fork._key)
        return fork

    async def close(self) -> None:
        self._line.close(self._key)


@asynccontextmanager
async def listening(sessions: Any) -> AsyncIterator[Server]:
    """A server on loopback."""
    server = await Server.listen("127.0.0.1", sessions)
    try:
        yield server
    finally:
        async with asyncio.timeout(SOON):
            await server.shut()


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[CountedLine]:
    """A line, hung up in the end."""
    line = await CountedLine.to("m", address)
    assert isinstance(line, CountedLine)
    try:
        yield line
    finally:
        line.hang_up()


async def comes_true(condition: Callable[[], object], within: float = SOON) -> bool:
    """Whether the condition comes true in time."""
    for _ in range(int(within / 0.005)):
        if condition():
            return True
        await asyncio.sleep(0.005)
    return bool(condition())
