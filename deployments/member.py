"""The client side of a deployment: a handle that is a Member.

Models and ensembles look alike from here. Every call of a session carries the session's key as Serve session id, so
that it reaches the replica that holds the session; whatever happens to a replica becomes a typed, retryable error.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.calls import Description
from ensemble.concurrency import cancel, shielded
from ensemble.errors import EnsembleError, MemberError, MemberLost, MissingCapability, Overloaded
from ensemble.member import Capability, Exchange, Member, Propose, Reply, Score, Session
from ensemble.request import Event, Request
from ensemble.vocabulary import Vocabulary

_PATIENCE = 2.0
"""Seconds until it is asked whether the replica that does not answer is still there."""


class RemoteMember(Member):
    """A deployed model or ensemble."""

    def __init__(self, handle: DeploymentHandle[Any], description: Description) -> None:
        self.card = description.card
        self._vocabulary = description.vocabulary
        self._handle = handle
        self._lines: dict[str, Line] = {}

    @classmethod
    async def connect(cls, handle: DeploymentHandle[Any]) -> RemoteMember:
        """Wait until the deployment runs, and learn what it is."""
        return cls(handle, await call(pinned(handle, new_key()).describe))

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        response = begun(pinned(self._handle, new_key(), stream=True).generate, request)
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
        key = new_key()
        replica = pinned(self._handle, key)
        try:
            with translated(self.name):
                place = await call(replica.open, key, request)
        except BaseException:
            # The replica may have opened it all the same; nobody else knows its key.
            await _RemoteSession(self, self._vocabulary, key, Line(self.name, replica)).close()
            raise
        line = self._lines.setdefault(place, Line(self.name, replica, place))
        # The newest key is the one that surely leads there: the ring may have changed since the line was made.
        line.replica = replica
        return _RemoteSession(self, self._vocabulary, key, line)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        with translated(self.name):
            ids: list[list[int]] = await call(pinned(self._handle, new_key()).tokenise, list(texts))
            return ids

    async def stats(self) -> Mapping[str, float]:
        """Sums over all replicas."""
        with translated(self.name):
            replicas = await self._handle.broadcast("stats").results_async()
        return {name: sum(replica[name] for replica in replicas) for name in replicas[0]} if replicas else {}


class _RemoteSession(Session):
    def __init__(self, member: RemoteMember, vocabulary: Vocabulary, key: str, line: Line) -> None:
        self.member, self.vocabulary = member.name, vocabulary
        self._member, self._key, self._line = member, key, line

    async def _send(self, exchange: Exchange) -> Reply:
        return await self._line.send(self._key, exchange)

    async def fork(self) -> Session:
        # A fork lives where its parent lives, so it uses the parent's line.
        fork = _RemoteSession(self._member, self.vocabulary, new_key(), self._line)
        await self._line.call("fork", self._key, fork._key)
        return fork

    async def close(self) -> None:
        with suppress(EnsembleError):
            await shielded(self._line.call("close", self._key))


class Line:
    """This process's sessions at one replica. Their short messages travel together.

    What all sessions ask within one turn of the event loop goes out as one call, so that a replica is asked once per
    step however many answers are decoded, and gets them as one batch. Messages that take many steps go alone.
    """

    def __init__(self, member: str, replica: DeploymentHandle[Any], place: str | None = None) -> None:
        """
        Args:
            replica: a handle pinned to it.
            place: name of its actor; ``None`` where no call has told it.
        """
        self.replica = replica
        self._member = member
        self._place = place
        self._lost = False
        self._waiting: list[tuple[str, Exchange, asyncio.Future[Reply]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def call(self, method: str, *arguments: Any) -> Any:
        """One call to this replica and no other.

        Serve would keep the call until the lost replica's successor runs, which knows none of the sessions.

        Raises:
            MemberLost: the replica is gone, which is noticed within seconds.
        """
        calling = asyncio.create_task(call(getattr(self.replica, method), *arguments))
        try:
            while not self._lost and not (await asyncio.wait((calling,), timeout=_PATIENCE))[0]:
                self._lost = not await self._lives()
            if self._lost:
                raise MemberLost(f"a replica of {self._member} was lost", member=self._member)
            self._lost = isinstance(calling.exception(), RayActorError)
            with translated(self._member):
                return calling.result()
        finally:
            await cancel([calling])

    async def _lives(self) -> bool:
        return self._place is not None and await asyncio.to_thread(_is_actor, self._place)

    async def send(self, key: str, exchange: Exchange) -> Reply:
        """One session's message and its reply."""
        if isinstance(exchange.question, Propose | Score):
            reply: Reply = await self.call("exchange", key, exchange)
            return reply
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        answered: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((key, exchange, answered))
        return await answered

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        task = asyncio.create_task(self._carry(batch))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _carry(self, batch: list[tuple[str, Exchange, asyncio.Future[Reply]]]) -> None:
        outcomes: Sequence[Reply | EnsembleError]
        try:
            outcomes = await self.call("exchange_all", [(key, exchange) for key, exchange, _ in batch])
        except EnsembleError as error:
            outcomes = [error] * len(batch)
        for (_, _, answered), outcome in zip(batch, outcomes, strict=True):
            if answered.done():
                continue
            if isinstance(outcome, EnsembleError):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)


def _is_actor(name: str) -> bool:
    try:
        ray.get_actor(name, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def new_key() -> str:
    """A session id. Calls without one would all go to the replica that their parent request hashes to."""
    return uuid.uuid4().hex


def pinned(handle: DeploymentHandle[Any], key: str, *, stream: bool = False) -> DeploymentHandle[Any]:
    """The handle bound to the replica of ``key``, its messages sent by value: half the latency of by reference."""
    return handle.options(session_id=key, stream=stream, _by_reference=False)


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
