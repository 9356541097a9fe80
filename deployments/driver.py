"""One ensemble as one Serve deployment: runs its method over handles of its members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.admission import Admission
from deployments.calls import CONCURRENT_CALLS, GRACE, LOGGING, WATCHED, Description, ending
from deployments.given import Given, Kept
from deployments.member import RemoteMember
from deployments.placement import ANYWHERE, Placement
from deployments.routing import Help, Office, encoders_of
from deployments.tally import ANSWERING, Stat, Tally
from deployments.versions import require_version, version_of, versioned, versions_in
from ensemble import judges
from ensemble.concurrency import batches, together
from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import BadRequest, BudgetExceeded, EnsembleError
from ensemble.failures.policy import Policy
from ensemble.judges.judge import Judge
from ensemble.member import Capability
from ensemble.request import Budget, Event, Finish, Incident, Request, Spent, Trace


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
        self._tally = Tally()
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
            untold=self._tally.note,
        )
        self._office = await Office.opened(settings.name, self._ensemble.prepared, keeper)
        self._budget = settings.budget
        self._admission = Admission(settings.places, settings.queue) if settings.places is not None else None
        self._running = 0

    async def describe(self, name: str, version: str | None = None) -> Description:
        require_version(name, version, self._version)
        return Description(self._ensemble.card, None)

    async def generate(
        self, name: str, request: Request, version: str | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Events in batches: whatever is there goes out together, nothing waits."""
        require_version(name, version, self._version)
        self._running += 1
        try:
            async with aclosing(batches(self._answered(request))) as ready:
                async for events in ready:
                    for event in events:
                        self._tally.note(event)
                        if self._office is not None:
                            self._office.note(request, event)
                    yield events
        finally:
            self._running -= 1

    async def _answered(self, request: Request) -> AsyncGenerator[Event, None]:
        try:
            async with (
                self._admitted(request) as admitted,
                aclosing(self._ensemble.generate(admitted)) as events,
            ):
                async for event in self._introduced(events):
                    yield event
        except _Late as late:
            if request.budget.tightest(self._budget).exhausted != "partial":
                raise
            for choice in range(request.n):
                yield Incident("exhausted", str(late.param), choice=choice)
                yield Finish("length", choice)

    async def _introduced(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """The events, with who answers before the first that tells of an answer."""
        introduced = False
        async for event in events:
            if isinstance(event, Trace) and event.kind == ANSWERING:
                continue
            if not introduced and not isinstance(event, Spent):
                introduced = True
                members = [member.name for member in self._ensemble.members]
                yield Trace(ANSWERING, {"method": self._ensemble.method, "members": members})
            yield event

    @asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[Request]:
        """The request when its turn has come, and how long that took of its budget."""
        if self._admission is None:
            yield request
            return
        budget = request.budget.tightest(self._budget)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(budget.seconds):
                    await stack.enter_async_context(self._admission.held(request.n))
            except TimeoutError as error:
                rule = f"the budget of {budget.seconds} seconds was used up by waiting for other requests"
                raise _Late(rule, param="budget.seconds") from error
            if budget.seconds is not None:
                request = replace(request, budget=replace(request.budget, waited=loop.time() - began))
            yield request

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
        waiting, refused = (a.waiting, a.refused) if (a := self._admission) is not None else (0, 0)
        routed = self._office.stats() if self._office is not None else {}
        own: dict[Stat, float] = {"running": self._running, "waiting": waiting, "queue_refused": refused}
        return {**own, **self._tally.stats(), **routed}


class _Late(BudgetExceeded):
    """The turn of a request came after its time."""


async def _warmed(member: RemoteMember) -> None:
    """Open and close a session, so that the first request finds a router and a line that are connected."""
    if Capability.SESSIONS not in member.card.capabilities:
        return
    # What is wrong with a member is told to requests; a driver starts without it.
    with suppress(EnsembleError):
        async with await member.start(Request(prompt=".")) as session:
            await session.exchange()


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
