"""The gateway as a Serve deployment: the HTTP app of ``gateway.py`` over handles of everything that is served."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.api.door import Door
from deployments.calls import CONCURRENT_CALLS, GRACE, WATCHED, ending
from deployments.gateway import Limits, Served, build_app, offered
from deployments.member import RemoteMember
from deployments.placement import ANYWHERE, Placement
from deployments.tally import COUNTERS, ROUTED, Stat
from deployments.versions import version_of, versioned, versions_in
from ensemble.concurrency import together
from ensemble.errors import EnsembleError

_ANSWER_WITHIN = 5.0
"""Seconds that a deployment has to answer a question about itself."""
_BILLED = {f"billed_{amount}" for amount in ("calls", "prompt_tokens", "completion_tokens", "cost")}
_COUNTERS = (
    COUNTERS
    | _BILLED
    | ROUTED
    | {"steps", "steps_ahead", "tokens", "step_seconds", "queue_refused", "slots_taken_away"}
)
"""Which of the numbers only grow; the others are gauges."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the configuration says of a served name."""

    method: str | None = None
    members: tuple[str, ...] = ()
    least: int = 0
    """Members without which it does not work."""
    judge: str | None = None
    """The model that its judge asks."""
    feedback: bool = False
    """Whether feedback on its answers is kept."""


@serve.ingress()
class GatewayReplica:
    """One copy of the HTTP door."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        listings: Mapping[str, Listing],
        handles: Mapping[str, DeploymentHandle[Any]],
        limits: Limits,
        versions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        connected = await together(
            RemoteMember.connect(name, handles[name], version=versions.get(name), again=True) for name in listings
        )
        self._members = dict(zip(listings, connected, strict=True))
        self._listings = listings
        self._limits = limits
        self._door = Door()

    def __serve_build_asgi_app__(self) -> FastAPI:
        models = {name: _served(member, self._listings[name]) for name, member in self._members.items()}
        # Serve's proxy has named the request before it comes here, and tells the name.
        return build_app(
            models, limits=self._limits, ready=self._ready, stats=self._stats, tell_ids=False, door=self._door
        )

    async def drain(self) -> int:
        """Take no new requests any more; returns how many are not completely answered yet."""
        self._door.open = False
        return self._door.inside

    async def _ready(self) -> Mapping[str, str]:
        states = await together(_state(member) for member in self._members.values())
        return dict(zip(self._members, states, strict=True))

    async def _stats(self) -> Mapping[str, Mapping[Stat, float]]:
        stats = await together(_numbers(member) for member in self._members.values())
        return {name: _exposed(values) for name, values in zip(self._members, stats, strict=True)}


def _exposed(stats: Mapping[Stat, float]) -> dict[Stat, float]:
    return {_metric(s) if isinstance(s, str) else (_metric(s[0]), s[1]): value for s, value in stats.items()}


def _metric(name: str) -> str:
    return f"ensemble_{name}_total" if name in _COUNTERS else f"ensemble_{name}"


def _served(member: RemoteMember, listing: Listing) -> Served:
    options = offered(listing.method) if listing.method else ()
    told = member.feedback if listing.feedback else None
    return Served(member, listing.method, listing.members, options, listing.least, listing.judge, told)


async def _numbers(member: RemoteMember) -> Mapping[Stat, float]:
    """Of a deployment that cannot be asked nothing is told; of all others everything is, then as ever."""
    with suppress(EnsembleError, TimeoutError):
        async with asyncio.timeout(_ANSWER_WITHIN):
            return await member.stats()
    return {}


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
    grace: float = GRACE,
) -> serve.Application:
    """The deployment of the gateway over the deployments it serves, by public name.

    Args:
        grace: seconds that a replica which is stopped has for what is under way.
    """
    deployment = serve.deployment(
        GatewayReplica,
        name="gateway",
        num_replicas=replicas,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
        **WATCHED,
        **ending(grace),
    )
    versions = versions_in(models)
    version = version_of(listings, versions, limits)
    return versioned(deployment, version).bind(dict(listings), dict(models), limits, versions)
