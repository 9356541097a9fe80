"""One language model as one Serve deployment: an engine behind replica methods.

Sessions live in one replica; the router keeps every call of a session there. What the client side does with these
methods is ``deployments/member.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ray import serve

from deployments.calls import CONCURRENT_CALLS, LOGGING, PINNED, Description
from deployments.engines.engine import Engine
from deployments.engines.settings import ModelSettings
from ensemble.concurrency import batches
from ensemble.errors import EnsembleError, MemberLost
from ensemble.member import Exchange, Reply
from ensemble.request import Event, Request


class ModelReplica:
    """One copy of a model."""

    async def __init__(self, settings: ModelSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        # Only a replica imports torch: whoever deploys it starts in a quarter of the time without.
        from deployments.engines.loading import start

        self._engine: Engine = await start(settings)

    async def describe(self) -> Description:
        return Description(self._engine.card, self._engine.vocabulary)

    async def generate(self, request: Request) -> AsyncGenerator[list[Event], None]:
        """Events in batches: whatever is there goes out together, nothing waits."""
        async with aclosing(batches(self._engine.generate(request))) as ready:
            async for events in ready:
                yield events

    async def open(self, session: str, request: Request) -> str:
        """Begin a session; returns the name of this replica's actor, where the session lives."""
        await self._engine.open(session, request)
        return str(serve.get_replica_context().replica_id.to_full_id_str())

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        return await self._engine.exchange(session, exchange)

    async def exchange_all(self, messages: Sequence[tuple[str, Exchange]]) -> list[Reply | EnsembleError]:
        """Messages of many sessions at once, each with its own reply or error."""
        return await asyncio.gather(*(self._outcome(session, exchange) for session, exchange in messages))

    async def _outcome(self, session: str, exchange: Exchange) -> Reply | EnsembleError:
        try:
            return await self._engine.exchange(session, exchange)
        except EnsembleError as error:
            return error

    async def fork(self, session: str, fork: str) -> None:
        await self._engine.fork(session, fork)

    async def close(self, session: str) -> None:
        await self._engine.close(session)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        return await self._engine.tokenise(texts)

    async def stats(self) -> Mapping[str, float]:
        return self._engine.stats()

    async def check_health(self) -> None:
        """Called by Serve; a replica whose engine has died is replaced."""
        if not self._engine.alive:
            raise MemberLost(f"the engine of {self._engine.card.name} has died", member=self._engine.card.name)


def deploy(settings: ModelSettings, *, replicas: int = 1, actor: Mapping[str, Any] | None = None) -> serve.Application:
    """The deployment of a model.

    Args:
        actor: Ray actor options of one replica: CPUs, GPUs, accelerator type, memory, further resources.
    """
    deployment = serve.deployment(
        ModelReplica,
        name=f"model-{settings.name}",
        num_replicas=replicas,
        ray_actor_options=dict(actor or {}),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
        request_router_config=PINNED,
    )
    return deployment.bind(settings)
