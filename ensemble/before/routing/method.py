"""Routing as a method: a fitted router reads the query, a policy decides, and who is chosen answers.

What a router learns is the business of its ``fit``; each file of ``ensemble.before`` composes one of heads, costs and a
policy, and is served by what stands here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.policies import AnyPolicy, Choice, Policy, Utility
from ensemble.before.routing.router import Router, kept, require_members
from ensemble.before.training import FitOptions, Training
from ensemble.errors import ConfigurationError
from ensemble.member import Card
from ensemble.method import Members, Method, Options
from ensemble.request import Event, Request, Trace


class RoutingOptions(Options):
    """Options of every router."""

    path: Path
    """Folder of the artifact that ``ensemble fit`` has made for this method; a relative one is taken from the
    configuration file's folder."""
    policy: AnyPolicy | None = Field(None)
    """How predictions become a choice. Omitted: the method's own policy."""
    fallback: str | None = None
    """Name of the member that answers in doubt, and where the chosen one fails before it has written anything. Omitted:
    the member with the highest mean quality in what the router was fitted to."""
    shadow: bool = False
    """The fallback always answers; what the router would have chosen is only told. Omitted: no."""


class Routing(Method[RoutingOptions]):
    """Base of the methods that let one member answer, or a few, chosen from the query alone."""

    options: RoutingOptions
    naming = ("fallback",)
    Fit: ClassVar[type[FitOptions]] = FitOptions
    """Options of the fit."""
    policy: ClassVar[Policy] = Utility()
    """Where the configuration names none."""

    @classmethod
    @abstractmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        """Learn from outcomes; only from observed cells.

        Raises:
            BadRequest: the table lacks what this router learns from.
        """

    def check(self, members: Sequence[Card]) -> None:
        require_members(self._router(), [card.name for card in members])
        fallback = self.options.fallback
        if fallback is not None and fallback not in (names := [card.name for card in members]):
            raise ConfigurationError(
                f"fallback {fallback!r} is no member; allowed: {', '.join(names)}", param="fallback"
            )

    def _router(self) -> Router:
        return kept(self.options.path, self.name)

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        router = self._router()
        assert router.encoder is not None
        x = router.encoder.embed([request.question])
        choice = self._decided(router, x, [router.place(name) for name in members.names])
        seat = int(choice.chosen[0])
        yield Trace("route", {"chosen": members.names[seat], "scores": choice.scores[0].tolist()})
        async with aclosing(_answer(request, members, seat)) as events:
            async for event in events:
                yield event

    def _decided(self, router: Router, x: np.ndarray, places: Sequence[int]) -> Choice:
        among = router.predict(x).among(places, places.index(router.best) if router.best in places else 0)
        allowed = np.ones(among.quality.shape, bool)
        return (self.options.policy or self.policy).choose(among, allowed, np.random.default_rng(0))


async def _answer(request: Request, members: Members, seat: int) -> AsyncGenerator[Event, None]:
    async with aclosing(members[seat].generate(request)) as events:
        async for event in events:
            yield event
