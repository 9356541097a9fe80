"""Routing as a method: a fitted router reads the question, a policy decides, and who is chosen answers.

What a router learns is the business of its ``fit``; each file of ``ensemble.before`` composes one of heads, costs and a
policy, and is served by what stands here.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.after.answers import AnswerPattern
from ensemble.before.encoders.served import Encoders
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.policies import AnyPolicy, Policy, Prediction, Subset, Utility
from ensemble.before.routing.answering import PASSED_OVER, Answered, Voting, answered
from ensemble.before.routing.arms import Arm, arms, require_arms
from ensemble.before.routing.decision import Reading, Route, roomy, route, tokens
from ensemble.before.routing.desk import Desk, Loaded
from ensemble.before.routing.loading import Source, fitted_to
from ensemble.before.routing.router import Router
from ensemble.errors import BadAnswer, BadRequest, ConfigurationError
from ensemble.member import Card
from ensemble.method import Members, Method, Options
from ensemble.request import Event, Request, Trace


class RoutingOptions(Options):
    """Options of every router."""

    path: Path | None = None
    """Folder of the artifact that ``ensemble fit`` has made for this method; a relative one is taken from the
    configuration file's folder. Only the configuration sets it. Omitted: none, for methods that need no fit."""
    policy: AnyPolicy | None = Field(default=None)
    """How predictions become a choice. Omitted: the method's own policy."""
    fallback: str | None = None
    """Name of the member that answers in doubt, where nobody may be chosen, and where those that were chosen fail
    before they have written anything. Omitted: the best one in what the router was fitted to."""
    shadow: bool = False
    """The fallback always answers; what the router would have chosen is only told. Only the configuration sets it.
    Omitted: no."""
    strategies: dict[str, str] = Field(default_factory=dict)
    """Text that is put before the question, by strategy: ``member|strategy`` is a choice of its own for routers that
    were fitted to such names. Only the configuration sets it. Omitted: none."""
    arms: dict[str, str] = Field(default_factory=dict)
    """Names of members by the name that the router knows them under, such as ``{adder@4: adder-best}`` where an
    ensemble gives the best of four answers. Only the configuration sets it. Omitted: the same names; ``member@n``
    without an entry here is n answers of that member, of which the commonest counts."""
    vote: Literal["exact", "numeric"] = "exact"
    """Which answers agree where several vote: equal texts, or equal numbers. Omitted: ``exact``."""
    answer: AnswerPattern = None
    """Where several vote: regular expression whose one group is the answer, in its last match. Only the configuration
    sets it. Omitted: the text."""


class Routing(Method[RoutingOptions]):
    """Base of the methods that let one member answer, or a few, chosen from the question alone."""

    options: RoutingOptions
    naming: ClassVar[tuple[str, ...]] = ("fallback",)
    fixed = ("path", "strategies", "arms", "shadow", "answer")
    joint = False
    takes_encoder: ClassVar[bool] = True
    """False for routers that do not look at the question."""
    fitted: ClassVar[bool] = True
    """Whether it needs an artifact; else ``cold`` makes its router where there is none."""
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

    def cold(self, members: Sequence[str]) -> Router:
        """The router of a method that needs no artifact."""
        raise NotImplementedError(f"{self.name} needs an artifact")

    async def read(self, request: Request, members: Members, desk: Desk, loaded: Loaded) -> Reading:
        """What the router makes of a question; methods that ask a member for it override this.

        Args:
            loaded: the router in service when the request came.
        """
        return await desk.read(loaded, request.question, tokens(request))

    def random(self, request: Request) -> np.random.Generator:
        """Of policies that draw: equal requests with equal seeds have equal draws, whatever runs beside them."""
        return np.random.default_rng([request.sampling.seed or 0, zlib.crc32(request.question.encode())])

    def check(self, members: Sequence[Card]) -> None:
        names = [card.name for card in members]
        fallback = self.options.fallback
        if fallback is not None and fallback not in names:
            raise ConfigurationError(
                f"fallback {fallback!r} is no member; allowed: {', '.join(names)}", param="fallback"
            )
        if self.options.path is None:
            if self.fitted:
                rule = f"method {self.name} needs path, the folder of an artifact that `ensemble fit {self.name}` makes"
                raise ConfigurationError(rule, param="path")
        elif (columns := fitted_to(self.options.path, self.name)) is not None:
            self._require(columns, names)

    def prepared(self, name: str, members: Sequence[Card], encoders: Encoders) -> Desk:
        names = [card.name for card in members]
        if self.options.path is None:
            encoder = encoders.served[encoders.chosen] if encoders.chosen is not None else None
            return Desk(name, Loaded(self.cold(names), "", encoder))
        source = Source(self.options.path, self.name, encoders, self.takes_encoder, partial(self._fits, members))
        return Desk(name, source.load(), source)

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        desk = members.prepared or self.prepared("", [member.card for member in members], Encoders())
        loaded = desk.loaded
        reading = await self._read(request, members, desk, loaded)
        decided = self._routed(request, [member.card for member in members], loaded, reading)
        desk.note(decided)
        yield Trace("route", {"ensemble": desk.name, "artifact": loaded.digest, **decided.told()})
        voting = Voting(notion=self.options.vote, pattern=self.options.answer)
        told, failed = _Told(desk.name), _failed(desk)
        async with aclosing(answered(request, members, decided, voting, told, failed)) as events:
            async for event in events:
                yield event

    async def _read(self, request: Request, members: Members, desk: Desk, loaded: Loaded) -> Reading:
        """The reading; none where an encoder, the router, or a member that is asked for it, fails."""
        try:
            reading = await self.read(request, members, desk, loaded)
            if reading.prediction.unusable:
                raise BadAnswer(f"the router of {desk.name} predicts {reading.prediction.unusable}", reason="nan")
            return reading
        except PASSED_OVER as error:
            members.passed_over(error, error.through or error.member or self.name)
            desk.count("route_unread", 1, reason=error.code)
            return Reading.none(loaded.router.members, loaded.router.best)

    def _routed(self, request: Request, cards: Sequence[Card], loaded: Loaded, reading: Reading) -> Route:
        names = [card.name for card in cards]
        found = self._arms(loaded.router.members, names)
        fallback = self._fallback(found, names, loaded.router)
        if fallback is None:
            fallback = int(reading.prediction.quality[0, [arm.column for arm in found]].argmax())
        policy = self.options.policy or self.policy
        allowed = roomy(found, cards, request)
        try:
            return route(reading, found, allowed, policy, self.random(request), fallback, shadow=self.options.shadow)
        except ConfigurationError as error:
            raise BadRequest(error.message, param=error.param or "policy") from error

    def _arms(self, columns: Sequence[str], names: Sequence[str]) -> tuple[Arm, ...]:
        return arms(columns, names, self.options.strategies, self.options.arms)

    def _require(self, columns: Sequence[str], names: Sequence[str]) -> tuple[Arm, ...]:
        found = self._arms(columns, names)
        require_arms(found, names, columns)
        policy = self.options.policy
        if policy is not None:
            policy.check([arm.name for arm in found])
        return found

    def _fallback(self, found: Sequence[Arm], names: Sequence[str], router: Router) -> int | None:
        """Position of the arm that answers in doubt; ``None``: who should is not there."""
        wanted, best = self.options.fallback, router.members[router.best]
        for place, arm in enumerate(found):
            if names[arm.seat] == wanted if wanted is not None else arm.name == best:
                return place
        return None

    def _fits(self, members: Sequence[Card], router: Router, prediction: Prediction) -> None:
        """Refuse a router that cannot be served with these members and options."""
        names = [card.name for card in members]
        found = self._require(router.members, names)
        fallback = self._fallback(found, names, router)
        if fallback is None:
            best = router.members[router.best]
            rule = f"{best}, the best one in what the router was fitted to, is no member"
            raise ConfigurationError(f"{rule}; name a fallback: {', '.join(names)}", param="fallback")
        policy = self.options.policy or self.policy
        route(Reading(prediction), found, np.ones(len(found), bool), policy, np.random.default_rng(0), fallback)
        several = any(arm.samples > 1 for arm in found)
        voted = {"vote", "answer"} & self.options.model_fields_set
        if voted and not several and not isinstance(policy, Subset):
            rule = f"{' and '.join(sorted(voted))} apply where several answer, with a policy subset or members like a@4"
            raise ConfigurationError(rule, param=min(voted))


class _Told:
    """Makes a trace of what an answer has cost."""

    def __init__(self, ensemble: str) -> None:
        self._ensemble = ensemble

    def __call__(self, answer: Answered) -> Iterator[Event]:
        usage = answer.usage
        data: dict[str, Any] = {
            "ensemble": self._ensemble,
            "member": answer.arm.name,
            "cost": float(usage.cost),
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "latency": answer.seconds,
            "propensity": None if np.isnan(answer.propensity) else answer.propensity,
        }
        yield Trace(ANSWERED, data)


ANSWERED = "answered"
"""Kind of the trace that says who has answered and what that has cost, before the answer's end."""


def _failed(desk: Desk) -> Any:
    def failed(arm: Arm, reason: str) -> None:
        desk.count("route_passed_over", 1, member=arm.name, reason=reason)

    return failed
