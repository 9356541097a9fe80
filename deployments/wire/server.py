"""The engine's end of the wire: a socket on the node's cluster address, answering calls of many drivers.

Every call is carried out as a task of its own, begun in the order in which they came; outcomes go back as they are
ready. When a driver's connection ends, for whatever reason, its sessions are closed; so is one that no driver claims.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployments.wire.codec import Call, Cancel, Close, Fork, Hold, Malformed, Outcome, pack_outcomes, unpack_calls
from deployments.wire.connection import GONE, LARGEST, Connection
from ensemble.errors import EnsembleError, MemberError
from ensemble.member import Exchange, Reply

UNCLAIMED = 10.0
"""Seconds after which a session that was opened, and then not spoken of on any connection, is closed."""

log = logging.getLogger(__name__)


class Sessions(Protocol):
    """What is served: an engine, or several behind one door. A session that is not there raises ``MemberLost``."""

    def exchange(self, session: str, exchange: Exchange) -> Coroutine[Any, Any, Reply]: ...

    def fork(self, session: str, fork: str) -> Coroutine[Any, Any, None]: ...

    def close(self, session: str) -> Coroutine[Any, Any, None]: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens, and what opens the door. Travels over Ray only."""

    host: str
    port: int
    token: bytes = field(repr=False)


class Server:
    """Listens for drivers until it is shut."""

    def __init__(self, server: asyncio.Server, address: Address, peers: set[_Peer], sessions: Sessions) -> None:
        self._server = server
        self.address = address
        self._peers = peers
        self._sessions = sessions
        self._closing = set[asyncio.Task[None]]()

    @classmethod
    async def listen(cls, host: str, sessions: Sessions) -> Server:
        """
        Args:
            host: the one address to listen on.
        """
        token, peers = secrets.token_bytes(32), set[_Peer]()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Peer(sessions, token, peers), host, 0)
        return cls(server, Address(host, server.sockets[0].getsockname()[1], token), peers, sessions)

    def expect(self, key: str) -> None:
        """A session has been opened for a driver that may never get to know: close it if nobody claims it."""
        asyncio.get_running_loop().call_later(UNCLAIMED, self._forget, key)

    def claimed(self, key: str) -> bool:
        """Whether a driver that is connected has this session."""
        return any(peer.has(key) for peer in self._peers)

    def _forget(self, key: str) -> None:
        if not self.claimed(key):
            # Closing what was closed long ago is harmless.
            task = asyncio.get_running_loop().create_task(self._sessions.close(key))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def shut(self) -> None:
        """Close the socket, all connections, and the sessions of all drivers."""
        self._server.close()
        peers = list(self._peers)
        for peer in peers:
            peer.hang_up()
        await asyncio.gather(*(peer.gone.wait() for peer in peers))
        await self._server.wait_closed()


class _Peer(Connection[tuple[int, Outcome]]):
    """One driver's connection."""

    def __init__(self, sessions: Sessions, token: bytes, peers: set[_Peer]) -> None:
        super().__init__(longest=len(token))
        self._sessions, self._token, self._peers = sessions, token, peers
        self._welcome = False
        self._calls: dict[int, asyncio.Task[Any]] = {}
        self._keys: set[str] = set()
        self.gone = asyncio.Event()
        """The connection has ended and its sessions are closed."""

    def has(self, key: str) -> bool:
        """Whether this driver has the session."""
        return key in self._keys

    def packed(self, items: list[tuple[int, Outcome]]) -> bytes:
        return pack_outcomes(items)

    def unsayable(self, item: tuple[int, Outcome]) -> None:
        number, _ = item
        self.say((number, MemberError("the engine's reply cannot be sent")))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._peers.add(self)
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=LARGEST)
        self._loop.call_later(GONE, self._expect_welcome)

    def connection_lost(self, exc: Exception | None) -> None:
        for number in list(self._calls):
            self._give_up(number)
        self._leaving = self._loop.create_task(self._left())

    async def _left(self) -> None:
        """The driver is gone: nobody else will close its sessions."""
        closing = (self._carried_out(key, Close()) for key in list(self._keys))
        await asyncio.gather(*closing, return_exceptions=True)
        self._peers.discard(self)
        self.gone.set()

    def _expect_welcome(self) -> None:
        if not self._welcome:
            self._abort()

    # A driver that does not read is not listened to either: what waits for it is bounded by what it has asked so far.

    def pause_writing(self) -> None:
        if self._transport is not None and self.connected:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and self.connected:
            self._transport.resume_reading()

    def understand(self, message: bytes) -> None:
        if self._welcome:
            for call in unpack_calls(message):
                self._begin(call)
        elif hmac.compare_digest(message, self._token):
            self._welcome, self.longest = True, LARGEST
        else:
            raise Malformed("a stranger")

    def _begin(self, call: Call) -> None:
        operation = call.operation
        if isinstance(operation, Hold):
            self._keys.add(call.key)
        elif isinstance(operation, Cancel):
            self._give_up(call.number)
        elif call.number in self._calls:
            raise Malformed("two calls of one number")
        else:
            task = self._loop.create_task(self._answered(call.number, call.key, operation))
            self._calls[call.number] = task
            task.add_done_callback(lambda _: self._calls.pop(call.number, None))

    def _give_up(self, number: int) -> None:
        task = self._calls.pop(number, None)
        if task is not None:
            task.cancel()

    async def _answered(self, number: int, key: str, operation: Exchange | Fork | Close) -> None:
        outcome: Outcome
        try:
            outcome = await self._carried_out(key, operation)
        except EnsembleError as error:
            outcome = error
        except asyncio.CancelledError:
            if number not in self._calls:
                raise
            # The driver waits for it still.
            outcome = MemberError("the engine gave the call up")
        except Exception as error:
            log.error("a call failed", exc_info=error)
            outcome = MemberError(f"the engine failed: {type(error).__name__}")
        self.say((number, outcome))

    async def _carried_out(self, key: str, operation: Exchange | Fork | Close) -> Outcome:
        if isinstance(operation, Exchange):
            self._keys.add(key)
            return await self._sessions.exchange(key, operation)
        if isinstance(operation, Fork):
            self._keys.add(operation.key)
            await self._sessions.fork(key, operation.key)
            if operation.key not in self._keys:
                # It was closed while it waited for its parent's turn.
                await self._sessions.close(operation.key)
        else:
            self._keys.discard(key)
            await self._sessions.close(key)
        return None
