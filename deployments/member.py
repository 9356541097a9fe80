"""The client side of a deployment: a handle that is a Member.

Models and ensembles look alike from here. Ray chooses the replica, starts generations and opens sessions; what is said
in a session goes over that replica's wire. Whatever happens to a replica becomes a typed, retryable error.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.calls import Description, new_session
from deployments.wire.connection import GONE
from deployments.wire.line import Line
from deployments.wire.server import Address
from ensemble.concurrency import shielded
from ensemble.errors import EnsembleError, MemberError, MemberLost, MissingCapability, Overloaded
from ensemble.member import Capability, Exchange, Member, Reply, Session
from ensemble.request import Event, Request
from ensemble.vocabulary import Vocabulary


class RemoteMember(Member):
    """A deployed model, adapter or ensemble."""

    def __init__(self, handle: DeploymentHandle[Any], description: Description) -> None:
        self.card = description.card
        self._vocabulary = description.vocabulary
        self._handle = handle
        self._lines: dict[Address, asyncio.Task[Line]] = {}

    @classmethod
    async def connect(cls, name: str, handle: DeploymentHandle[Any]) -> RemoteMember:
        """Wait until the deployment runs, and learn what it serves under this name."""
        return cls(handle, await call(pinned(handle).describe, name))

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        response = begun(pinned(self._handle, stream=True).generate, self.name, request)
        finished = False
        try:
            with translated(self.name):
                async for events in response:
                    for event in events:
                        yield event
            finished = True
        finally:
            if not finished:
                response.cancel()

    async def start(self, request: Request) -> Session:
        if self._vocabulary is None or Capability.SESSIONS not in self.card.capabilities:
            raise MissingCapability(f"{self.name} has no sessions", member=self.name)
        key = new_session(self.name)
        # A session begins where Ray's router sends its key; from then on its replica is spoken to directly.
        replica = pinned(self._handle, key)
        try:
            with translated(self.name):
                line = await self._line(await call(replica.open, key, request))
        except BaseException:
            # The replica may have opened it all the same; nobody else knows its key.
            with suppress(EnsembleError, TimeoutError), translated(self.name):
                # Serve would keep the call until a lost replica's successor runs.
                async with asyncio.timeout(GONE):
                    await shielded(call(replica.close, key))
            raise
        return _RemoteSession(self.name, self._vocabulary, key, line)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        with translated(self.name):
            ids: list[list[int]] = await call(pinned(self._handle).tokenise, self.name, list(texts))
            return ids

    async def stats(self) -> Mapping[str, float]:
        """Sums over all replicas."""
        with translated(self.name):
            replicas = await self._handle.broadcast("stats", self.name).results_async()
        return {name: sum(replica[name] for replica in replicas) for name in replicas[0]} if replicas else {}

    async def _line(self, address: Address) -> Line:
        """The one line to a replica, connected."""
        line = self._lines.get(address)
        if line is None or _lost(line):
            line = asyncio.create_task(Line.to(self.name, address))
            self._lines = {at: known for at, known in self._lines.items() if not _lost(known)} | {address: line}
        return await shielded(line)


def _lost(line: asyncio.Task[Line]) -> bool:
    """Whether it was never connected, or is not any more."""
    return line.done() and (line.cancelled() or line.exception() is not None or not line.result().connected)


class _RemoteSession(Session):
    def __init__(self, member: str, vocabulary: Vocabulary, key: str, line: Line) -> None:
        self.member, self.vocabulary = member, vocabulary
        self._key, self._line = key, line

    def _send(self, exchange: Exchange) -> asyncio.Future[Reply]:
        return self._line.exchange(self._key, exchange)

    async def fork(self) -> Session:
        # A fork lives where its parent lives, so it uses the parent's line.
        fork = _RemoteSession(self.member, self.vocabulary, new_session(self.member), self._line)
        await self._line.fork(self._key, fork._key)
        return fork

    async def close(self) -> None:
        self._line.close(self._key)


def pinned(handle: DeploymentHandle[Any], key: str | None = None, *, stream: bool = False) -> DeploymentHandle[Any]:
    """The handle bound to the replica of ``key``, its messages sent by value: half the latency of by reference.

    Calls without a key of their own would all go to the replica that their parent request hashes to.
    """
    return handle.options(session_id=key or uuid.uuid4().hex, stream=stream, _by_reference=False)


def begun(method: DeploymentHandle[Any], *arguments: Any) -> Any:
    """Start a call as one that has no parent.

    Serve lets nested calls inherit the id of the request they serve, and its routers know a waiting call by that id
    alone: of several concurrent calls of one request, all but one would wait for ever (Ray 2.60). An empty context
    gives each call an id of its own. Cancelling is then ours: see ``call``.
    """
    return Context().run(method.remote, *arguments)


async def call(method: DeploymentHandle[Any], *arguments: Any) -> Any:
    """One call and its reply; cancelled with the task that waits for it."""
    response = begun(method, *arguments)
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise


@contextmanager
def translated(member: str) -> Iterator[None]:
    """Turn what Ray raises into errors of the tree: the replica's own, or the loss of the replica."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, EnsembleError):
            raise error.cause from None
        raise MemberError(f"{member} failed: {type(error.cause).__name__}", member=member) from error
    except BackPressureError as error:
        raise Overloaded(f"{member} has too much to do", member=member) from error
    except RayActorError as error:
        raise MemberLost(f"a replica of {member} was lost", member=member) from error
    except (RayServeException, RayError) as error:
        raise MemberLost(f"{member} cannot be reached: {type(error).__name__}", member=member) from error
