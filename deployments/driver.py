"""One ensemble as one Serve deployment: runs its method over handles of its members."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.calls import CONCURRENT_CALLS, LOGGING, Description
from deployments.member import RemoteMember
from ensemble import judges
from ensemble.concurrency import batches, together
from ensemble.ensemble import Caps, Ensemble
from ensemble.judges.judge import Judge
from ensemble.request import Budget, Event, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """A judge; its model, if it has one, comes as a handle."""

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """Everything a driver needs to know; plain values that travel."""

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    caps: Caps = field(default_factory=Caps)
    budget: Budget = field(default_factory=Budget)
    judge: JudgeSettings | None = None


class EnsembleReplica:
    """One copy of an ensemble's driver."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: EnsembleSettings,
        members: Sequence[DeploymentHandle[Any]],
        judge_model: DeploymentHandle[Any] | None = None,
    ) -> None:
        self._ensemble = Ensemble(
            settings.name,
            settings.method,
            await together(RemoteMember.connect(handle) for handle in members),
            options=settings.options,
            judge=await _connected(settings.judge, judge_model),
            caps=settings.caps,
            budget=settings.budget,
        )
        self._running = 0

    async def describe(self) -> Description:
        return Description(self._ensemble.card, None)

    async def generate(self, request: Request) -> AsyncGenerator[list[Event], None]:
        """Events in batches: whatever is there goes out together, nothing waits."""
        self._running += 1
        try:
            async with aclosing(batches(self._ensemble.generate(request))) as ready:
                async for events in ready:
                    yield events
        finally:
            self._running -= 1

    async def stats(self) -> Mapping[str, float]:
        return {"running": self._running}


async def _connected(settings: JudgeSettings | None, model: DeploymentHandle[Any] | None) -> Judge | None:
    if settings is None:
        return None
    member = await RemoteMember.connect(model) if model is not None else None
    return judges.build(settings.kind, settings.name, settings.options, member)


def deploy(
    settings: EnsembleSettings,
    members: Sequence[serve.Application],
    judge_model: serve.Application | None = None,
    *,
    replicas: int = 1,
    actor: Mapping[str, Any] | None = None,
) -> serve.Application:
    """The deployment of an ensemble over the deployments of its members."""
    deployment = serve.deployment(
        EnsembleReplica,
        name=f"ensemble-{settings.name}",
        num_replicas=replicas,
        ray_actor_options=dict(actor or {}),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
    )
    return deployment.bind(settings, list(members), judge_model)
