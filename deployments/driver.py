"""One ensemble as one Serve deployment: runs its method over handles of its members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.admission import Admission
from deployments.calls import CONCURRENT_CALLS, GRACE, LOGGING, WATCHED, Description, ending
from deployments.given import Given, Kept
from deployments.member import RemoteMember
from deployments.placement import ANYWHERE, Placement
from deployments.reception import Reception
from deployments.routing import Help, Office, encoders_of
from deployments.tally import Stat, Tally
from deployments.versions import require_version, version_of, versioned, versions_in
from ensemble import judges
from ensemble.concurrency import batches, together
from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import BadRequest, EnsembleError
from ensemble.failures.policy import Policy
from ensemble.judges.judge import Judge
from ensemble.member import Capability
from ensemble.method import Stage, named
from ensemble.request import Budget, Event, Request, Sampling

_PATIENCE = 20.0
"""Seconds that a driver which starts waits for members to answer; it starts without them all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """A judge."""

    name: str
    kind: str
    model: str | None = None
    """Name of the model it asks, if it asks one."""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """Everything a driver needs to know; plain values that travel."""

    name: str
    method: str
    members: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    caps: Caps = field(default_factory=Caps)
    budget: Budget = field(default_factory=Budget)
    judge: JudgeSettings | None = None
    places: int | None = None
    """Choices that this driver works on at once; further ones wait. ``None``: all; its members admit for themselves."""
    encoder: str | None = None
    """Name of the encoder that its router reads; ``None``: the router says which, or has its own."""
    queue: int = 64
    """Requests that wait for places; further ones are refused."""
    policy: Policy = field(default_factory=Policy)


class EnsembleReplica:
    """One copy of an ensemble's driver. It serves one name; what can be asked of it is what can be asked of a model."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: EnsembleSettings,
        handles: Mapping[str, DeploymentHandle[Any]],
        version: str | None = None,
        versions: Mapping[str, str] = MappingProxyType({}),
        encoders: Mapping[str, DeploymentHandle[Any]] = MappingProxyType({}),
        keeper: DeploymentHandle[Any] | None = None,
    ) -> None:
        """
        Args:
            handles: of members and of the judge's model, by name.
            encoders: that its router may read, by name.
            keeper: of feedback; ``None``: none is kept.
            version: who asks for another one is refused.
            versions: of members and of the judge's model, by name; no others are asked.
        """
        self._version = version
        members = await together(
            RemoteMember.connect(name, handles[name], version=versions.get(name)) for name in settings.members
        )
        await together(_warmed(member) for member in members)
        tally = Tally()
        self._ensemble = Ensemble(
            settings.name,
            settings.method,
            members,
            options=settings.options,
            judge=await _connected(settings.judge, handles, versions),
            caps=settings.caps,
            budget=settings.budget,
            policy=settings.policy,
            encoders=await encoders_of(encoders, settings.encoder),
            untold=tally.note,
        )
        await _rehearsed(self._ensemble)
        self._office = await Office.opened(settings.name, self._ensemble.prepared, keeper)
        self._reception = Reception(
            self._ensemble,
            tally,
            admission=Admission(settings.places, settings.queue) if settings.places is not None else None,
            budget=settings.budget,
            note=self._office.note if self._office is not None else None,
        )

    async def describe(self, name: str, version: str | None = None) -> Description:
        require_version(name, version, self._version)
        return Description(self._ensemble.card, None)

    async def generate(
        self, name: str, request: Request, version: str | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Events in batches: whatever is there goes out together, nothing waits."""
        require_version(name, version, self._version)
        async with aclosing(batches(self._reception.answered(request))) as ready:
            async for events in ready:
                yield events

    async def feedback(self, name: str, given: Given, version: str | None = None) -> Kept:
        """Keep what is said of an answer; it is on the disk when this returns.

        Raises:
            BadRequest: this ensemble learns from no feedback, or what is said does not fit it.
        """
        require_version(name, version, self._version)
        if self._office is None:
            raise BadRequest(f"{name} is no router; feedback is for ensembles that route", param="model")
        return await self._office.keep(given)

    async def stats(self, name: str) -> Mapping[Stat, float]:
        return {**self._reception.stats(), **(self._office.stats() if self._office is not None else {})}


async def _warmed(member: RemoteMember) -> None:
    """Open and close a session, so that the first request finds a router and a line that are connected."""
    if Capability.SESSIONS not in member.card.capabilities:
        return
    # What is wrong with a member is told to requests; a driver starts without it.
    with suppress(EnsembleError, TimeoutError):
        async with asyncio.timeout(_PATIENCE), await member.start(Request(prompt=".")) as session:
            await session.exchange()


async def _rehearsed(ensemble: Ensemble) -> None:
    """Write one token where members co-decode, so that tables over their vocabularies are there when requests come.

    They take up to a second to make, for which all other answers of this driver would stand still.
    """
    if named(ensemble.method).stage not in (Stage.TOKEN, Stage.SPAN):
        return
    with suppress(EnsembleError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await ensemble.answer(Request(prompt=".", sampling=Sampling(max_tokens=1)))


async def _connected(
    settings: JudgeSettings | None, handles: Mapping[str, DeploymentHandle[Any]], versions: Mapping[str, str]
) -> Judge | None:
    if settings is None:
        return None
    member = None
    if (model := settings.model) is not None:
        member = await RemoteMember.connect(model, handles[model], version=versions.get(model))
    return judges.build(settings.kind, settings.name, settings.options, member)


def deploy(
    settings: EnsembleSettings,
    served: Mapping[str, serve.Application],
    *,
    replicas: int = 1,
    placement: Placement = ANYWHERE,
    grace: float = GRACE,
    help: Help | None = None,
) -> serve.Application:
    """The deployment of an ensemble.

    Args:
        help: the deployments that its router may ask; ``None``: it has no router.
        grace: seconds that a replica which is stopped has for what is under way.
        served: the deployments of its members and of its judge's model, by name.
    """
    deployment = serve.deployment(
        EnsembleReplica,
        name=f"ensemble-{settings.name}",
        num_replicas=replicas,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
        **WATCHED,
        **ending(grace),
    )
    versions = versions_in(served)
    arguments: list[Any] = [settings, dict(served)]
    if help is None:
        version = version_of(settings, versions)
        return versioned(deployment, version).bind(*arguments, version, versions)
    version = version_of(settings, versions, help.versions)
    return versioned(deployment, version).bind(*arguments, version, versions, dict(help.encoders), help.keeper)
