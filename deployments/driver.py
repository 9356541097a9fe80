"""One ensemble as one Serve deployment: runs its method over handles of its members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.admission import Admission
from deployments.calls import CONCURRENT_CALLS, LOGGING, Description
from deployments.member import RemoteMember
from deployments.placement import ANYWHERE, Placement
from ensemble import judges
from ensemble.concurrency import batches, together
from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import BudgetExceeded
from ensemble.judges.judge import Judge
from ensemble.request import Budget, Event, Request


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
    """Choices that this driver co-decodes at once; further ones wait. ``None``: the method opens no sessions."""


class EnsembleReplica:
    """One copy of an ensemble's driver. It serves one name; what can be asked of it is what can be asked of a model."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: EnsembleSettings, handles: Mapping[str, DeploymentHandle[Any]]
    ) -> None:
        """
        Args:
            handles: of members and of the judge's model, by name.
        """
        self._ensemble = Ensemble(
            settings.name,
            settings.method,
            await together(RemoteMember.connect(name, handles[name]) for name in settings.members),
            options=settings.options,
            judge=await _connected(settings.judge, handles),
            caps=settings.caps,
            budget=settings.budget,
        )
        self._budget = settings.budget
        self._admission = Admission(settings.places) if settings.places is not None else None
        self._running = 0

    async def describe(self, name: str) -> Description:
        return Description(self._ensemble.card, None)

    async def generate(self, name: str, request: Request) -> AsyncGenerator[list[Event], None]:
        """Events in batches: whatever is there goes out together, nothing waits."""
        self._running += 1
        try:
            async with (
                self._admitted(request) as admitted,
                aclosing(batches(self._ensemble.generate(admitted))) as ready,
            ):
                async for events in ready:
                    yield events
        finally:
            self._running -= 1

    @asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[Request]:
        """The request when its turn has come, with the time that is left of its budget."""
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
                raise BudgetExceeded(rule, param="budget.seconds") from error
            if budget.seconds is not None:
                left = max(budget.seconds - (loop.time() - began), 1e-3)
                request = replace(request, budget=replace(request.budget, seconds=left))
            yield request

    async def stats(self, name: str) -> Mapping[str, float]:
        waiting = self._admission.waiting if self._admission is not None else 0
        return {"running": self._running, "waiting": waiting}


async def _connected(settings: JudgeSettings | None, handles: Mapping[str, DeploymentHandle[Any]]) -> Judge | None:
    if settings is None:
        return None
    model = settings.model
    member = await RemoteMember.connect(model, handles[model]) if model is not None else None
    return judges.build(settings.kind, settings.name, settings.options, member)


def deploy(
    settings: EnsembleSettings,
    served: Mapping[str, serve.Application],
    *,
    replicas: int = 1,
    placement: Placement = ANYWHERE,
) -> serve.Application:
    """The deployment of an ensemble.

    Args:
        served: the deployments of its members and of its judge's model, by name.
    """
    deployment = serve.deployment(
        EnsembleReplica,
        name=f"ensemble-{settings.name}",
        num_replicas=replicas,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
    )
    return deployment.bind(settings, dict(served))
