"""An ensemble is a model: a method and its members with the same face as a single member, so that ensembles nest."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ensemble.concurrency import merge, shielded
from ensemble.errors import BadRequest, ConfigurationError, OverCap
from ensemble.judges.judge import Judge
from ensemble.member import Capability, Card, Member
from ensemble.meter import Meter
from ensemble.method import Members, Method, build
from ensemble.request import Budget, Event, Request, Spent
from ensemble.sampling import seeded


@dataclass(frozen=True, slots=True)
class Caps:
    """What one request may ask for at most; more is refused before any call is made."""

    n: int = 8
    """Choices."""
    max_tokens: int | None = None
    """Tokens of one choice; ``None``: the members' context."""
    options: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Largest value by option name; overrides the method's own caps."""


class Ensemble(Member):
    """A method over members, as a member.

    >>> from ensemble.testing import TinyMember
    >>> pair = Ensemble("pair", "gac", [TinyMember("a"), TinyMember("b")])
    >>> sorted(pair.card.capabilities)
    [<Capability.GENERATE: 'generate'>]
    """

    def __init__(
        self,
        name: str,
        method: str,
        members: Sequence[Member],
        *,
        options: Mapping[str, Any] | None = None,
        judge: Judge | None = None,
        caps: Caps | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Check everything that can be checked.

        Raises:
            ConfigurationError: the method, its options, its members or its judge do not fit together.
        """
        self._members = tuple(members)
        self._judge = judge
        self._caps = caps or Caps()
        self._budget = budget or Budget()
        self._options = dict(options or {})
        self._method = self._configured(method)
        self.card = Card(
            name,
            frozenset({Capability.GENERATE}),
            context_length=min(member.card.context_length for member in self._members),
        )

    @property
    def method(self) -> str:
        """Name of the method."""
        return self._method.name

    @property
    def members(self) -> tuple[Member, ...]:
        return self._members

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run the method once for each choice; usage is reported as it accrues, by leaf model."""
        method = self._admitted(request)
        meter = Meter(request.budget.tightest(self._budget))
        members, judge = meter.wrap(self._members), self._judge
        if judge is not None:
            judge = judge.over(meter.wrap(judge.models))
        runs = [self._choice(method, request, i, Members(members, judge)) for i in range(request.n)]
        try:
            async with aclosing(merge(runs) if len(runs) > 1 else runs[0]) as events:  # type: ignore[type-var]
                async for event in events:
                    for spent in meter.drain():
                        yield spent
                    yield event
            for spent in meter.drain():
                yield spent
        finally:
            await shielded(meter.close())

    async def _choice(
        self, method: Method[Any], request: Request, choice: int, members: Members
    ) -> AsyncIterator[Event]:
        single = replace(request, n=1, sampling=seeded(request.sampling, choice), options={})
        async with aclosing(method.run(single, members)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event if isinstance(event, Spent) else replace(event, choice=choice)

    def _configured(self, name: str) -> Method[Any]:
        if not self._members:
            raise ConfigurationError("an ensemble needs at least one member", param="members")
        try:
            method = build(name, self._options)
        except BadRequest as error:
            raise ConfigurationError(error.message, param=error.param) from error
        cards = [member.card for member in self._members]
        for card in cards:
            card.require(method.needs, name)
        if method.needs_judge and self._judge is None:
            raise ConfigurationError(f"method {name} needs a judge", param="judge")
        if not method.needs_judge and self._judge is not None:
            raise ConfigurationError(f"method {name} takes no judge", param="judge")
        method.check(cards)
        return method

    def _admitted(self, request: Request) -> Method[Any]:
        _below("n", request.n, self._caps.n)
        _below("max_tokens", request.sampling.max_tokens or 0, self._caps.max_tokens)
        cards = [member.card for member in self._members]
        method = self._method
        if request.options:
            method = build(method.name, {**self._options, **request.options})
            self._check_for_request(method, cards)
        for option, cap in {**method.caps, **self._caps.options}.items():
            _below(option, getattr(method.options, option), cap)
        method.admit(request, cards)
        return method

    @staticmethod
    def _check_for_request(method: Method[Any], cards: Sequence[Card]) -> None:
        try:
            method.check(cards)
        except ConfigurationError as error:
            raise BadRequest(error.message, param=error.param) from error


def _below(name: str, value: float, cap: float | None) -> None:
    if cap is not None and value > cap:
        raise OverCap(f"{name} is {value:g}; at most {cap:g} is allowed here", param=name)
