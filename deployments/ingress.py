"""The gateway as a Serve deployment: the HTTP app of ``gateway.py`` over handles of everything that is served."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.calls import CONCURRENT_CALLS
from deployments.gateway import Limits, Served, build_app
from deployments.member import RemoteMember
from deployments.placement import ANYWHERE, Placement
from ensemble.concurrency import together
from ensemble.errors import EnsembleError
from ensemble.method import named

_ANSWER_WITHIN = 5.0
"""Seconds that a deployment has to answer a question about itself."""
_COUNTERS = frozenset({"steps", "steps_ahead", "tokens", "step_seconds"})
"""Which of an engine's numbers only grow; the others are gauges."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the configuration says of a served name."""

    method: str | None = None
    members: tuple[str, ...] = ()


@serve.ingress()
class GatewayReplica:
    """One copy of the HTTP door."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, listings: Mapping[str, Listing], handles: Mapping[str, DeploymentHandle[Any]], limits: Limits
    ) -> None:
        connected = await together(RemoteMember.connect(name, handles[name]) for name in listings)
        self._members = dict(zip(listings, connected, strict=True))
        self._listings = listings
        self._limits = limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        models = {name: _served(member, self._listings[name]) for name, member in self._members.items()}
        # Serve's proxy has named the request before it comes here, and tells the name.
        return build_app(models, limits=self._limits, ready=self._ready, stats=self._stats, tell_ids=False)

    async def _ready(self) -> Mapping[str, str]:
        states = await together(_state(member) for member in self._members.values())
        return dict(zip(self._members, states, strict=True))

    async def _stats(self) -> Mapping[str, Mapping[str, float]]:
        stats = await together(member.stats() for member in self._members.values())
        return {name: _exposed(values) for name, values in zip(self._members, stats, strict=True)}


def _exposed(stats: Mapping[str, float]) -> dict[str, float]:
    return {f"ensemble_{name}_total" if name in _COUNTERS else f"ensemble_{name}": v for name, v in stats.items()}


def _served(member: RemoteMember, listing: Listing) -> Served:
    options = tuple(named(listing.method).Options.model_fields) if listing.method else ()
    return Served(member, listing.method, listing.members, options)


async def _state(member: RemoteMember) -> str:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            return "ready" if await member.stats() else "no replica"
    except EnsembleError as error:
        return error.code
    except TimeoutError:
        return "no answer"


def deploy(
    listings: Mapping[str, Listing],
    models: Mapping[str, serve.Application],
    limits: Limits,
    *,
    replicas: int = 1,
    placement: Placement = ANYWHERE,
) -> serve.Application:
    """The deployment of the gateway over the deployments it serves, by public name."""
    deployment = serve.deployment(
        GatewayReplica,
        name="gateway",
        num_replicas=replicas,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
    )
    return deployment.bind(dict(listings), dict(models), limits)
