"""One language model as one Serve deployment: an engine behind replica methods.

Sessions are opened through Ray and live in one replica; all else about them is said on that replica's wire
(``deployments/wire``). What the client side does with both is ``deployments/member.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import ray
from ray import serve

from deployments.calls import CONCURRENT_CALLS, GRACE, LOGGING, PINNED, WATCHED, Description, ending, served_name
from deployments.engines.engine import Engine
from deployments.engines.settings import ModelSettings
from deployments.placement import ANYWHERE, Placement, require_whole_groups
from deployments.versions import require_version, version_of, versioned
from deployments.wire.server import Address, Server
from ensemble.concurrency import batches
from ensemble.errors import MemberLost
from ensemble.member import Exchange, Reply
from ensemble.request import Event, Request

_LOOK_AGAIN = 0.05
"""Seconds between two looks at whether sessions have ended."""


class ModelReplica:
    """One copy of a model, with all that is served from it: itself, and its adapters under names of their own."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ModelSettings, version: str | None = None, grace: float = GRACE
    ) -> None:
        """
        Args:
            version: who asks for another one is refused.
            grace: seconds that open sessions are given to end when Serve stops this replica.
        """
        self._version, self._grace = version, grace
        # Only a replica imports torch: whoever deploys it starts in a quarter of the time without.
        from deployments.engines.loading import start

        if settings.pipeline_parallel > 1:
            require_whole_groups(settings.tensor_parallel)
        self._engines: dict[str, Engine] = await start(settings)
        self._sessions = _Sessions(self._engines)
        # Only the node's address in the cluster is listened on, not those that the outside may reach.
        self._server = await Server.listen(ray.util.get_node_ip_address(), self._sessions)
        for engine in self._engines.values():
            engine.claimed = self._server.claimed

    async def describe(self, name: str, version: str | None = None) -> Description:
        require_version(name, version, self._version)
        engine = self._engines[name]
        return Description(engine.card, engine.vocabulary)

    async def generate(
        self, name: str, request: Request, version: str | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Events in batches: whatever is there goes out together, nothing waits."""
        require_version(name, version, self._version)
        async with aclosing(batches(self._engines[name].generate(request))) as ready:
            async for events in ready:
                yield events

    async def open(self, session: str, request: Request, version: str | None = None) -> Address:
        """Begin a session; returns where everything else about it is said, and has to be said soon."""
        require_version(served_name(session), version, self._version)
        await self._sessions.engine(session).open(session, request)
        self._server.expect(session)
        return self._server.address

    async def close(self, session: str) -> None:
        """End a session of which the driver does not know whether it was opened."""
        await self._sessions.close(session)

    async def tokenise(self, name: str, texts: Sequence[bytes], version: str | None = None) -> list[list[int]]:
        require_version(name, version, self._version)
        return await self._engines[name].tokenise(texts)

    async def stats(self, name: str) -> Mapping[str, float]:
        return self._engines[name].stats()

    async def check_health(self) -> None:
        """Called by Serve; a replica whose engine has died is replaced."""
        for name, engine in self._engines.items():
            if not engine.alive:
                raise MemberLost(f"the engine of {name} has died", member=name)

    async def __del__(self) -> None:
        """Let the sessions end that are open, then hang up.

        Serve awaits it when it stops a replica, after the calls under way. Drivers speak to their sessions without
        Serve, which knows nothing of them.
        """
        for _ in range(int(self._grace / _LOOK_AGAIN)):
            if not any(engine.stats()["open_sessions"] for engine in self._engines.values()):
                break
            await asyncio.sleep(_LOOK_AGAIN)
        await self._server.shut()
        # Processes of an engine would keep their GPU from the replica that comes next. The model's own engine is first
        # and ends what its adapters share with it.
        for engine in reversed(self._engines.values()):
            await engine.shut()


class _Sessions:
    """The sessions of all engines of a replica, as its server asks for them.

    The coroutines are the engines' own: a message in a step has no time for detours.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def exchange(self, session: str, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        return self.engine(session).exchange(session, exchange)

    def fork(self, session: str, fork: str) -> Coroutine[Any, Any, None]:
        return self.engine(session).fork(session, fork)

    def close(self, session: str) -> Coroutine[Any, Any, None]:
        return self.engine(session).close(session)

    def engine(self, session: str) -> Engine:
        """The engine that has or will have this session."""
        name = served_name(session)
        if name not in self._engines:
            raise MemberLost(f"no session {session} is here", member=name)
        return self._engines[name]


def deploy(
    settings: ModelSettings, *, replicas: int = 1, placement: Placement = ANYWHERE, grace: float = GRACE
) -> serve.Application:
    """The deployment of a model.

    Args:
        placement: what one replica reserves, and on which nodes.
        grace: seconds that a replica has to end what it does when it is stopped.
    """
    deployment = serve.deployment(
        ModelReplica,
        name=f"model-{settings.name}",
        num_replicas=replicas,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
        request_router_config=PINNED,
        # The sessions have ended by then, or never will; a second is left to hang up.
        **WATCHED,
        **ending(grace + 1),
    )
    version = version_of(settings)
    return versioned(deployment, version).bind(settings, version, grace)
