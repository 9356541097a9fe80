"""An ensemble is a model: a method and its members with the same face as a single member, so that ensembles nest."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ensemble.before.encoders.served import Encoders
from ensemble.concurrency import merge, shielded
from ensemble.errors import BadRequest, ConfigurationError, OverCap
from ensemble.failures.breaker import Breaker
from ensemble.failures.crew import Crew
from ensemble.failures.guard import guarded
from ensemble.failures.policy import Policy
from ensemble.failures.segments import segments
from ensemble.judges.judge import Judge
from ensemble.member import Capability, Card, Member
from ensemble.meter import Meter
from ensemble.method import Method, build, named, refusals
from ensemble.request import Budget, Earlier, Event, Incident, Request, Spent
from ensemble.sampling import seeded

_LARGEST_SHOWN = 1e15


@dataclass(frozen=True, slots=True)
class Caps:
    """What one request may ask for at most; more is refused before any call is made."""

    n: int = 8
    """Choices."""
    max_tokens: int | None = None
    """Tokens of one choice; ``None``: the members' context."""
    fan_out: int = 512
    """Answers and sessions that one request may begin at models, over all choices and all ensembles within this one. A
    judge's questions to its model come on top, one for each text that it judges; a budget of calls counts them."""
    depth: int = 4
    """Ensembles within one another, this one counted."""
    members: int = 16
    """Members of the ensemble."""
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
        policy: Policy | None = None,
        encoders: Encoders | None = None,
        untold: Callable[[Spent | Incident], None] | None = None,
    ) -> None:
        """Check everything that can be checked.

        Args:
            encoders: those that are served, for methods that read embeddings.
            untold: called with what was spent and not told by an event, as when whoever asked has left.

        Raises:
            ConfigurationError: the method, its options, its members or its judge do not fit together.
        """
        self._members = tuple(members)
        self._judge = judge
        self._caps = caps or Caps()
        self._budget = budget or Budget()
        self._policy = policy or Policy()
        self._untold = untold
        self._breakers = _Breakers(self._policy)
        self._options = dict(options or {})
        cards = [member.card for member in self._members]
        for problem in problems(method, self._options, cards, judge=judge is not None, caps=self._caps):
            raise problem
        self._method = build(method, self._options)
        self.prepared = self._method.prepared(name, cards, encoders or Encoders())
        """What requests share; ``None`` where the method needs nothing."""
        longest = min if self._method.joint else max
        self.card = Card(
            name,
            frozenset({Capability.GENERATE}),
            context_length=longest(card.context_length for card in cards),
            fan_out=fan_out(self._method, cards),
            depth=1 + max(card.depth for card in cards),
        )

    @property
    def method(self) -> str:
        """Name of the method."""
        return self._method.name

    @property
    def members(self) -> tuple[Member, ...]:
        return self._members

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run the method once for each choice; usage and incidents are reported as they accrue, usage by leaf model."""
        method = self._admitted(request)
        budget = request.budget.tightest(self._budget.after(*request.earlier))
        request = replace(request, budget=budget, earlier=Earlier())
        run = _Run(request, self._members, self._judge, self._policy, self._breakers, joint=method.joint)
        choices = [self._choice(method, request, i, run) for i in range(request.n)]
        try:
            try:
                async with aclosing(merge(choices) if len(choices) > 1 else choices[0]) as events:
                    async for event in events:
                        for told in run.told():
                            yield told
                        yield event
            except Exception:
                # What a failed answer has cost is told before the failure is.
                for told in run.told():
                    yield told
                raise
            for told in run.told():
                yield told
        finally:
            await shielded(self._ended(run))

    async def _ended(self, run: _Run) -> None:
        """Close what is open; of what whoever asked has not been told, whoever keeps the books is."""
        await run.close()
        if self._untold is not None:
            for left in run.told():
                self._untold(left)

    async def _choice(
        self, method: Method[Any], request: Request, choice: int, run: _Run
    ) -> AsyncGenerator[Event, None]:
        single = replace(request, n=1, sampling=seeded(request.sampling, choice), options={})
        members = run.members()
        async with aclosing(segments(method, single, members, run.judge, run.crew, self.prepared)) as events:
            async for event in events:
                yield event if not choice or isinstance(event, Spent) else replace(event, choice=choice)

    def _admitted(self, request: Request) -> Method[Any]:
        _below("n", request.n, self._caps.n)
        _below("max_tokens", request.sampling.max_tokens or 0, self._caps.max_tokens)
        cards = [member.card for member in self._members]
        method = self._method
        if request.options:
            for option in sorted(request.options.keys() & set(method.fixed)):
                if option not in self._options or request.options[option] != self._options[option]:
                    raise BadRequest(f"option {option!r} is set by the configuration alone", param=option)
            method = build(method.name, {**self._options, **request.options})
            self._check_for_request(method, cards)
        for option, cap in {**method.caps, **self._caps.options}.items():
            _below(option, getattr(method.options, option), cap)
        _below("fan_out", request.n * fan_out(method, cards), self._caps.fan_out)
        method.admit(request, cards)
        return method

    @staticmethod
    def _check_for_request(method: Method[Any], cards: Sequence[Card]) -> None:
        try:
            method.check(cards)
        except ConfigurationError as error:
            raise BadRequest(error.message, param=error.param) from error


class _Run:
    """What one request has: its meter, its crew, and its members behind both."""

    def __init__(
        self,
        request: Request,
        members: Sequence[Member],
        judge: Judge | None,
        policy: Policy,
        breakers: Mapping[str, Breaker],
        *,
        joint: bool,
    ) -> None:
        self._meter = Meter(request.budget)
        self._untold: deque[Spent | Incident] = deque()
        self._members, self._policy, self._breakers = members, policy, breakers
        self.crew = Crew(self._meter.wrap(members), policy, breakers, joint=joint)
        self.judge = judge
        if judge is not None:
            self.judge = judge.over(guarded(self._meter.wrap(judge.models), policy, breakers, self.crew, spared=False))

    def members(self) -> list[Member]:
        """For one choice: each knows what it has used for that choice."""
        return guarded(self._meter.wrap(self._members), self._policy, self._breakers, self.crew)

    def told(self) -> Iterator[Spent | Incident]:
        """What was spent and what went wrong and is not told yet. Each is told once; what is left when nobody asks on
        is told the next time."""
        self._untold.extend((*self._meter.drain(), *self.crew.drain()))
        while self._untold:
            yield self._untold.popleft()

    async def close(self) -> None:
        await self.crew.close()
        await self._meter.close()


class _Breakers(dict[str, Breaker]):
    """Of one driver, by member."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = policy

    def __missing__(self, name: str) -> Breaker:
        policy = self._policy
        breaker = self[name] = Breaker(failures=policy.breaker_failures, seconds=policy.breaker_seconds)
        return breaker


def fan_out(method: Method[Any], members: Sequence[Card]) -> int:
    """Answers and sessions that one choice begins at models at most, through all ensembles within."""
    return sum(calls * card.fan_out for calls, card in zip(method.calls(len(members)), members, strict=True))


def problems(
    method: str, options: Mapping[str, Any], members: Sequence[Card], *, judge: bool, caps: Caps, whole: bool = True
) -> Iterator[ConfigurationError]:
    """Everything about an ensemble that does not fit together, as far as its members' cards tell.

    ``param`` of each names the key at fault: ``method``, ``members``, ``judge``, ``caps.options.…`` or an option.

    Args:
        whole: these are all the members, so that the method's rules on them together can be checked.
    """
    try:
        cls = named(method)
    except ConfigurationError as error:
        yield error
        return
    if whole and not members:
        yield ConfigurationError("an ensemble needs at least one member", param="members")
    for card in members:
        yield from _lacking(card, cls)
    yield from _too_large(members, caps)
    if cls.needs_judge != judge:
        rule = "needs a judge" if cls.needs_judge else "takes no judge"
        yield ConfigurationError(f"method {method} {rule}", param="judge")
    refused = refusals(method, options)
    for refusal in refused:
        yield ConfigurationError(refusal.message, param=refusal.param)
    if not refused:
        configured = build(method, options)
        if whole and members:
            yield from _unfit(configured, members)
            yield from _too_wide(configured, members, caps)
        yield from _uncapped(configured, caps)


def _lacking(card: Card, cls: type[Method[Any]]) -> Iterator[ConfigurationError]:
    try:
        card.require(cls.needs, cls.name)
    except ConfigurationError as error:
        yield error


def _too_large(members: Sequence[Card], caps: Caps) -> Iterator[ConfigurationError]:
    sizes = {
        "members": (len(members), caps.members),
        "depth": (1 + max((c.depth for c in members), default=0), caps.depth),
    }
    for name, (size, cap) in sizes.items():
        if size > cap:
            message = f"{name} is {size}, above its cap of {cap}; leave some out, or raise caps.{name}"
            yield ConfigurationError(message, param=f"caps.{name}")


def _too_wide(method: Method[Any], members: Sequence[Card], caps: Caps) -> Iterator[ConfigurationError]:
    wide = fan_out(method, members)
    if wide > caps.fan_out:
        message = f"one choice may begin {wide} answers and sessions, above the cap of {caps.fan_out}"
        yield ConfigurationError(f"{message}; raise caps.fan_out, or lower what multiplies them", param="caps.fan_out")


def _unfit(method: Method[Any], members: Sequence[Card]) -> Iterator[ConfigurationError]:
    try:
        method.check(members)
    except ConfigurationError as error:
        yield error


def _uncapped(method: Method[Any], caps: Caps) -> Iterator[ConfigurationError]:
    has = ", ".join(sorted(type(method.options).model_fields)) or "none"
    for option, cap in {**method.caps, **caps.options}.items():
        value = getattr(method.options, option, None)
        if option not in type(method.options).model_fields:
            message = f"method {method.name} has no option {option!r} to cap; it has: {has}"
            yield ConfigurationError(message, param=f"caps.options.{option}")
        elif isinstance(value, int | float) and value > cap:
            message = f"{option} is {value:g}, above its cap of {cap:g}; lower it, or raise caps.options.{option}"
            yield ConfigurationError(message, param=option)
        elif value is not None and not isinstance(value, int | float):
            message = f"option {option!r} of method {method.name} is no number and takes no cap"
            yield ConfigurationError(message, param=f"caps.options.{option}")


def _below(name: str, value: float | None, cap: float | None) -> None:
    if cap is not None and value is not None and value > cap:
        # Whole numbers may have thousands of digits.
        shown = f"{value:g}" if value < _LARGEST_SHOWN else "too large"
        raise OverCap(f"{name} is {shown}; at most {cap:g} is allowed here", param=name)
