"""What a driver does for its router beside answering: encoders are connected, artifacts and feedback followed, routes
told to who keeps feedback.

Knows nothing of how a router decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.embedder import RemoteEncoder
from deployments.given import Given, Kept, told_as
from deployments.member import call, pinned, translated
from deployments.retrial import Retrial
from deployments.segments import Record
from deployments.tally import Stat
from deployments.versions import versions_in
from ensemble.before.encoders.served import Encoders
from ensemble.before.routing import feedback
from ensemble.before.routing.desk import Desk
from ensemble.before.routing.following import Follower
from ensemble.before.routing.method import ANSWERED
from ensemble.concurrency import together
from ensemble.errors import BadRequest, EnsembleError, MemberLost
from ensemble.request import Event, Request, Trace

log = logging.getLogger(__name__)

_UNWRITTEN = 10_000
"""Routes that wait to be written at most; beyond, the oldest are given up and counted."""
_AGAIN = 1.0
"""Seconds after which the keeper is told again what it could not be told."""
_KEEPER = "the keeper of feedback"


@dataclass(frozen=True, slots=True)
class Help:
    """The deployments that a router may ask."""

    encoders: Mapping[str, serve.Application] = field(default_factory=dict)
    """By name."""
    keeper: serve.Application | None = None
    """Of feedback; ``None``: none is kept."""

    @property
    def versions(self) -> dict[str, str]:
        """Of the deployments, by name."""
        kept: dict[str, serve.Application] = {} if self.keeper is None else {_KEEPER: self.keeper}
        return versions_in({**self.encoders, **kept})


async def encoders_of(handles: Mapping[str, DeploymentHandle[Any]], chosen: str | None) -> Encoders:
    """The encoders, connected.

    Args:
        chosen: by the configuration.
    """
    connected = await together(RemoteEncoder.connect(name, handle) for name, handle in handles.items())
    return Encoders(dict(zip(handles, connected, strict=True)), chosen)


class Office:
    """Of one driver whose ensemble routes."""

    def __init__(self, name: str, desk: Desk, keeper: DeploymentHandle[Any] | None) -> None:
        self._name, self._desk, self._keeper = name, desk, keeper
        self._unwritten: list[Record] = []
        self._told = asyncio.Event()
        self._given_up = Counter[Stat]()
        self.follower = Follower(desk, None if keeper is None else self._since)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def opened(cls, name: str, prepared: Any, keeper: DeploymentHandle[Any] | None) -> Self | None:
        """The office, with a router that has learned all feedback there is; ``None`` for ensembles that do not route.

        Args:
            prepared: what the ensemble shares between requests.
            keeper: of feedback; ``None``: none is kept.
        """
        if not isinstance(prepared, Desk):
            return None
        office = cls(name, prepared, keeper)
        await office.follower.follow()
        office._tasks = [asyncio.create_task(office.follower.run()), asyncio.create_task(office._write())]
        return office

    def note(self, request: Request, event: Event) -> None:
        """Have who answered written down, so that feedback can name the answer."""
        if self._keeper is None or not isinstance(event, Trace) or event.kind != ANSWERED:
            return
        if event.data["ensemble"] != self._name:
            return
        if len(self._unwritten) >= _UNWRITTEN:
            del self._unwritten[0]
            self._given_up["routes_given_up"] += 1
        id, choice = told_as(request.id, event.choice)
        self._unwritten.append({"id": id, "choice": choice, "question": request.question, **event.data})
        self._told.set()

    async def keep(self, given: Given) -> Kept:
        """
        Raises:
            BadRequest: no feedback is kept, or it names a member that the router does not know.
        """
        if self._keeper is None:
            raise BadRequest("this service keeps no feedback; its configuration has no feedback: {path: FILE}")
        for param, name in given.members.items():
            if name not in (known := self._desk.loaded.router.members):
                raise BadRequest(f"the router of {self._name} knows: {', '.join(known)}", param=param)
        retrial = Retrial(_KEEPER, again=given.id is not None or given.key is not None)
        while True:
            try:
                with translated(_KEEPER):
                    kept: Kept = await call(pinned(self._keeper).keep, given)
                    return kept
            except MemberLost as error:
                # What is sent twice under one key counts once; of anything else nobody knows whether it was written.
                await retrial.after(error)

    def stats(self) -> Mapping[Stat, float]:
        """Value by name and labels."""
        told: dict[Stat, float] = dict(self._given_up)
        told.update(self._desk.stats())
        return told

    async def _since(self, after: int) -> feedback.Page:
        assert self._keeper is not None
        with translated(_KEEPER):
            records, through, complete = await call(pinned(self._keeper).since, after, self._name)
        rows = [row for record in records if (row := feedback.read(record)) is not None]
        return feedback.Page(rows, through, complete)

    async def _write(self) -> None:
        """Tell who has answered, for ever; what cannot be told now is told later."""
        while True:
            await self._told.wait()
            self._told.clear()
            routes, self._unwritten = self._unwritten, []
            try:
                with translated(_KEEPER):
                    assert self._keeper is not None
                    await call(pinned(self._keeper).note, routes)
            except EnsembleError as error:
                log.warning("routes of %s are not written yet: %s", self._name, error.message)
                self._unwritten = [*routes, *self._unwritten][-_UNWRITTEN:]
                await asyncio.sleep(_AGAIN)
                self._told.set()
