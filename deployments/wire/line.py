"""The driver's end of the wire: one connection to one engine, for all the sessions that this process has there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import Any

from deployments.wire.codec import Call, Cancel, Close, Fork, Hold, Operation, pack_calls, unpack_outcomes
from deployments.wire.connection import GONE, Connection
from deployments.wire.server import Address
from ensemble.errors import EnsembleError, MemberError, MemberLost
from ensemble.member import Exchange, Reply


class Line(Connection[Call]):
    """Calls to one engine. When it is lost, so is the engine: every call that waits, and every later one, says so."""

    def __init__(self, member: str) -> None:
        super().__init__()
        self.address: Address | None = None
        """Of the engine, when there is a connection."""
        self._member = member
        self._numbers = count(1)
        self._waiting: dict[int, _Answer] = {}

    @classmethod
    async def to(cls, member: str, address: Address) -> Line:
        """Connect.

        Raises:
            MemberLost: nobody listens there.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(GONE):
                _, line = await loop.create_connection(lambda: cls(member), address.host, address.port)
        except (OSError, TimeoutError) as error:
            raise MemberLost(f"{member} cannot be reached", member=member) from error
        line.write(address.token)
        line.address = address
        return line

    def hold(self, key: str) -> None:
        """Take over a session that was opened for this process. Travels with whatever is said first."""
        if self.connected:
            self.say(Call(next(self._numbers), key, Hold()))

    def exchange(self, key: str, exchange: Exchange) -> asyncio.Future[Reply]:
        """One message to a session, and its reply. Cancelling it gives the message up."""
        return self._call(key, exchange)

    def fork(self, key: str, fork: str) -> asyncio.Future[None]:
        """Begin another session that goes on from the same ids."""
        return self._call(key, Fork(fork))

    def close(self, key: str) -> None:
        """End a session. Nobody has to wait: the engine carries out what it is told in order, and where the line is
        lost it has ended all sessions already."""
        if self.connected:
            self.say(Call(next(self._numbers), key, Close()))

    def forget(self, key: str) -> None:
        """``close`` from whichever thread the collector of garbage happens to run in, or from none that is left."""
        with suppress(RuntimeError):  # the loop is closed, and with it the line
            self._loop.call_soon_threadsafe(self.close, key)

    def _call(self, key: str, operation: Operation) -> asyncio.Future[Any]:
        answer = _Answer(self, next(self._numbers), key)
        if self.connected:
            self._waiting[answer.number] = answer
            self.say(Call(answer.number, key, operation))
        else:
            answer.set_exception(self._lost())
        return answer

    def give_up(self, answer: _Answer) -> None:
        """Nobody waits for this answer any more."""
        if self._waiting.pop(answer.number, None) is not None and self.connected:
            self.say(Call(answer.number, answer.key, Cancel()))

    def packed(self, items: list[Call]) -> bytes:
        return pack_calls(items)

    def unsayable(self, item: Call) -> None:
        answered = self._waiting.pop(item.number, None)
        if answered is not None and not answered.done():
            error = MemberError(f"this cannot be sent to {self._member}", member=self._member)
            answered.set_exception(error)

    def understand(self, message: bytes) -> None:
        for number, outcome in unpack_outcomes(message):
            answer = self._waiting.pop(number, None)
            if answer is None:
                continue
            if isinstance(outcome, EnsembleError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_exception(self._lost())

    def _lost(self) -> MemberLost:
        return MemberLost(f"a replica of {self._member} was lost", member=self._member)


class _Answer(asyncio.Future[Any]):
    """What a call will come to. A future of its own kind, as a task for each call would cost more than the call."""

    def __init__(self, line: Line, number: int, key: str) -> None:
        super().__init__()
        self.number, self.key = number, key
        self._line = line

    def cancel(self, msg: Any = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._line.give_up(self)
        return cancelled
