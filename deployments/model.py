"""One language model as one Serve deployment: an engine behind replica methods.

Sessions are opened through Ray and live in one replica; all else about them is said on that replica's wire
(``deployments/wire``). What the client side does with both is ``deployments/member.py``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import ray
from ray import serve

from deployments.calls import CONCURRENT_CALLS, LOGGING, PINNED, Description, served_name
from deployments.engines.engine import Engine
from deployments.engines.settings import ModelSettings
from deployments.placement import ANYWHERE, Placement, require_whole_groups
from deployments.wire.server import Address, Server
from ensemble.concurrency import batches
from ensemble.errors import MemberLost
from ensemble.member import Exchange, Reply
from ensemble.request import Event, Request


class ModelReplica:
    """One copy of a model, with all that is served from it: itself, and its adapters under names of their own."""

    async def __init__(self, settings: ModelSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        # Only a replica imports torch: whoever deploys it starts in a quarter of the time without.
        from deployments.engines.loading import start

        if settings.pipeline_parallel > 1:
            require_whole_groups(settings.tensor_parallel)
        self._engines: Mapping[str, Engine] = await start(settings)
        self._sessions = _Sessions(self._engines)
        # Only the node's address in the cluster is listened on, not those that the outside may reach.
        self._server = await Server.listen(ray.util.get_node_ip_address(), self._sessions)

    async def describe(self, name: str) -> Description:
        engine = self._engines[name]
        return Description(engine.card, engine.vocabulary)

    async def generate(self, name: str, request: Request) -> AsyncGenerator[list[Event], None]:
        """Events in batches: whatever is there goes out together, nothing waits."""
        async with aclosing(batches(self._engines[name].generate(request))) as ready:
            async for events in ready:
                yield events

    async def open(self, session: str, request: Request) -> Address:
        """Begin a session; returns where everything else about it is said."""
        await self._sessions.engine(session).open(session, request)
        return self._server.address

    async def close(self, session: str) -> None:
        """End a session of which the driver does not know whether it was opened."""
        await self._sessions.close(session)

    async def tokenise(self, name: str, texts: Sequence[bytes]) -> list[list[int]]:
        return await self._engines[name].tokenise(texts)

    async def stats(self, name: str) -> Mapping[str, float]:
        return self._engines[name].stats()

    async def check_health(self) -> None:
        """Called by Serve; a replica whose engine has died is replaced."""
        for name, engine in self._engines.items():
            if not engine.alive:
                raise MemberLost(f"the engine of {name} has died", member=name)


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


def deploy(settings: ModelSettings, *, replicas: int = 1, placement: Placement = ANYWHERE) -> serve.Application:
    """The deployment of a model.

    Args:
        placement: what one replica reserves, and on which nodes.
    """
    deployment = serve.deployment(
        ModelReplica,
        name=f"model-{settings.name}",
        num_replicas=replicas,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
        request_router_config=PINNED,
    )
    return deployment.bind(settings)
