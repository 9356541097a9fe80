"""One TCP connection that carries whole messages; what is said within one turn of the event loop goes out at once.

A peer that dies closes the connection at once; one whose machine is gone is noticed by the kernel within ``GONE``
seconds. Knows nothing of what messages hold.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from abc import abstractmethod
from typing import Generic, TypeVar, cast

from deployments.wire.codec import Malformed

GONE = 6.0
"""Seconds without a sign of life of the peer's machine after which the connection counts as lost."""
LARGEST = 2**28
"""Bytes of one message: a proposal of a few hundred tokens with whole tables over a vocabulary of 150,000."""

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<I")

Outgoing = TypeVar("Outgoing")


class Connection(asyncio.Protocol, Generic[Outgoing]):
    """Base of both sides: framing, and one outgoing message for each turn of the loop."""

    def __init__(self, longest: int = LARGEST) -> None:
        """
        Args:
            longest: bytes of a message that are taken in; a longer one closes the connection.
        """
        self.longest = longest
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._outbox: list[Outgoing] = []

    @abstractmethod
    def packed(self, items: list[Outgoing]) -> bytes:
        """What is to be said, as one message."""

    @abstractmethod
    def understand(self, message: bytes) -> None:
        """Take in one message.

        Raises:
            Malformed: it is none; the connection is closed.
        """

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def say(self, item: Outgoing) -> None:
        """Send with everything else that is said in this turn of the loop; in order."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(item)

    def hang_up(self) -> None:
        """Send what has been said, then close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def write(self, message: bytes) -> None:
        """Send one message now."""
        assert self._transport is not None, "nothing is sent before there is a connection"
        self._transport.writelines((_LENGTH.pack(len(message)), message))

    @abstractmethod
    def unsayable(self, item: Outgoing) -> None:
        """This cannot be sent: it is nothing that a message can hold, or too long. Nobody may wait for it for ever."""

    def _flush(self) -> None:
        items, self._outbox = self._outbox, []
        if items and self.connected:
            self._send(items)

    def _send(self, items: list[Outgoing]) -> None:
        """As one message; where that cannot be, as several."""
        message = self._packed(items)
        if message is not None:
            self.write(message)
        elif len(items) > 1:
            half = len(items) // 2
            self._send(items[:half])
            self._send(items[half:])
        else:
            self.unsayable(items[0])

    def _packed(self, items: list[Outgoing]) -> bytes | None:
        try:
            message = self.packed(items)
        except (TypeError, ValueError, OverflowError) as error:
            log.error("what was to be sent is no message: %s", error)
            return None
        return message if len(message) <= LARGEST else None

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        notice_loss(self._transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        try:
            while (end := self._end(start)) is not None:
                self.understand(bytes(received[start + _LENGTH.size : end]))
                start = end
        except Malformed as error:
            log.warning("a connection is closed: %s", error)
            self._abort()
            return
        del received[:start]

    def _end(self, start: int) -> int | None:
        """Where the message that begins here ends, if all of it is there."""
        received = self._received
        if len(received) < start + _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(received, start)
        if length > self.longest:
            raise Malformed("the message is too long")
        end: int = start + _LENGTH.size + length
        return end if len(received) >= end else None


def notice_loss(connection: socket.socket) -> None:
    """Let the kernel find out that the peer's machine is gone, whether we wait for it or it has our data to confirm."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle, every, times = "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"
    options = {idle: GONE // 2, every: 1, times: GONE // 2, "TCP_USER_TIMEOUT": 1000 * GONE}
    for option, value in options.items():
        if hasattr(socket, option):  # Linux has them all
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), int(value))
