"""The client side of a deployment: a handle that is a Member.

Models and ensembles look alike from here. Ray chooses the replica, starts generations and opens sessions; what is said
in a session goes over that replica's wire. Whatever happens to a replica becomes a typed, retryable error, unless
another replica can do the same before anybody has noticed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import Context
from typing import Any, Self

from grpc import RpcError  # type: ignore[import-untyped]
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.calls import Description, new_session
from deployments.given import Given, Kept
from deployments.opening import LONGEST_PAUSE, Opener
from deployments.retrial import Retrial
from deployments.tally import Stat
from deployments.wire.line import Line
from deployments.wire.server import Address
from ensemble.concurrency import shielded
from ensemble.errors import EnsembleError, MemberError, MemberLost, MissingCapability, OtherVersion, Overloaded
from ensemble.member import Capability, Exchange, Member, Reply, Session
from ensemble.request import Event, Request, Spent, Usage
from ensemble.vocabulary import Vocabulary


class RemoteMember(Member):
    """A deployed model, adapter or ensemble."""

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        description: Description,
        *,
        version: str | None = None,
        again: bool = False,
    ) -> None:
        self.card = description.card
        self._vocabulary = description.vocabulary
        self._handle = handle
        self._version = None if again else version
        self._again = again
        self._lines: dict[Address, asyncio.Task[Line]] = {}
        self._opener = Opener(self.name, self._open, self._close)

    @classmethod
    async def connect(
        cls, name: str, handle: DeploymentHandle[Any], *, version: str | None = None, again: bool = False
    ) -> Self:
        """Wait until the deployment runs, and learn what it serves under this name.

        Args:
            version: of the replicas to wait for, to learn from, and to ask; ``None``: any.
            again: ask replicas of whatever version, and begin an answer again of which nothing had been told when its
                replica was lost, or found itself among members of another version.
        """
        return cls(handle, await _described(name, handle, version), version=version, again=again)

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        retrial, told = Retrial(self.name, self._again, request.budget.seconds), False
        time = asyncio.get_running_loop().time
        began, spent, left = time(), Usage(), request
        while True:
            try:
                async with aclosing(self._stream(left)) as events:
                    async for event in events:
                        # What an attempt has cost is to be paid in any case.
                        if isinstance(event, Spent):
                            spent += event.usage
                        else:
                            told = True
                        yield event
                return
            except (MemberLost, OtherVersion) as error:
                if told:
                    raise
                await retrial.after(error)
                left = request.again(spent, time() - began)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        response = begun(pinned(self._handle, stream=True).generate, self.name, request, self._version)
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
        """Open a session where Ray's router sends its key; from then on its replica is spoken to directly.

        A replica that fails or does not answer is not waited for while there is another one.

        Raises:
            MemberLost: no replica has answered within seconds.
        """
        return await self._session(request)

    async def restart(self, request: Request, lost: Session) -> Session:
        return await self._session(request, lost.address if isinstance(lost, _RemoteSession) else None)

    async def _session(self, request: Request, elsewhere: Address | None = None) -> Session:
        if self._vocabulary is None or Capability.SESSIONS not in self.card.capabilities:
            raise MissingCapability(f"{self.name} has no sessions", member=self.name)
        key, line = await self._opener.opened(request, elsewhere)
        line.hold(key)
        return _RemoteSession(self.name, self._vocabulary, key, line)

    async def _open(self, key: str, request: Request) -> Line:
        with translated(self.name):
            return await self._line(await call(pinned(self._handle, key).open, key, request, self._version))

    async def _close(self, key: str) -> None:
        with translated(self.name):
            await call(pinned(self._handle, key).close, key)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        retrial = Retrial(self.name, self._again)
        while True:
            try:
                with translated(self.name):
                    ids: list[list[int]] = await call(
                        pinned(self._handle).tokenise, self.name, list(texts), self._version
                    )
                    return ids
            except (MemberLost, OtherVersion) as error:
                await retrial.after(error)

    async def feedback(self, given: Given) -> Kept:
        """Keep what is said of an answer of this ensemble.

        Raises:
            BadRequest: it learns from no feedback, or what is said does not fit it.
        """
        # What is sent twice under one key counts once; of anything else nobody knows whether it was written.
        retrial = Retrial(self.name, again=given.id is not None or given.key is not None)
        while True:
            try:
                with translated(self.name):
                    kept: Kept = await call(pinned(self._handle).feedback, self.name, given, self._version)
                    return kept
            except (MemberLost, OtherVersion) as error:
                await retrial.after(error)

    async def stats(self) -> Mapping[Stat, float]:
        """Sums over all replicas."""
        with translated(self.name):
            replicas = await self._handle.broadcast("stats", self.name).results_async()
        # What a replica has not had to count yet is none.
        names = dict.fromkeys(name for replica in replicas for name in replica)
        return {name: sum(replica.get(name, 0) for replica in replicas) for name in names}

    async def _line(self, address: Address) -> Line:
        """The one line to a replica, connected."""
        line = self._lines.get(address)
        if line is None or _lost(line):
            line = asyncio.create_task(Line.to(self.name, address))
            self._lines = {at: known for at, known in self._lines.items() if not _lost(known)} | {address: line}
        return await shielded(line)


async def _described(name: str, handle: DeploymentHandle[Any], version: str | None) -> Description:
    """By a replica of this version, as soon as there is one."""
    while True:
        try:
            with translated(name):
                description: Description = await call(pinned(handle).describe, name, version)
                return description
        except OtherVersion:
            await asyncio.sleep(LONGEST_PAUSE)


def _lost(line: asyncio.Task[Line]) -> bool:
    """Whether it was never connected, or is not any more."""
    return line.done() and (line.cancelled() or line.exception() is not None or not line.result().connected)


class _RemoteSession(Session):
    def __init__(self, member: str, vocabulary: Vocabulary, key: str, line: Line) -> None:
        self.member, self.vocabulary = member, vocabulary
        self._key, self._line = key, line
        self._closed = False

    @property
    def address(self) -> Address | None:
        """Of the replica that has it."""
        return self._line.address

    def _send(self, exchange: Exchange) -> asyncio.Future[Reply]:
        return self._line.exchange(self._key, exchange)

    async def fork(self) -> Session:
        # A fork lives where its parent lives, so it uses the parent's line.
        fork = _RemoteSession(self.member, self.vocabulary, new_session(self.member), self._line)
        try:
            await self._line.fork(self._key, fork._key)
        except BaseException:
            # It may have been begun all the same; nobody else knows its key.
            await fork.close()
            raise
        return fork

    async def close(self) -> None:
        self._closed = True
        self._line.close(self._key)

    def __del__(self) -> None:
        # Its engine keeps it as long as the line lives, so that whoever is cancelled between opening it and closing it
        # must not leave it behind.
        if not self._closed:
            self._line.forget(self._key)


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
    except (RayServeException, RayError, RpcError) as error:
        raise MemberLost(f"{member} cannot be reached: {type(error).__name__}", member=member) from error
