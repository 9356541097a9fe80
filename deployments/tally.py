"""What a driver tells besides events: who it is, and what it has counted over all its requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from ensemble.request import Event, Incident, Spent, Usage

Stat = str | tuple[str, tuple[tuple[str, str], ...]]
"""Name of a number that a replica tells of itself; with labels and their values, where several have the name."""

ANSWERING = "ensemble"
"""Kind of the trace by which a driver says, before all else that it tells, by what method and of which members an
answer is. While a configuration is rolled out, it may be another than whoever asks knows of."""

COUNTERS = frozenset({"incidents", "usage_calls", "usage_prompt_tokens", "usage_completion_tokens", "usage_cost"})
"""Names of what is counted here."""


ROUTED = frozenset(
    {
        "routed",
        "route_shadow",
        "route_passed_over",
        "route_unread",
        "route_artifacts",
        "route_follow_failures",
        "routes_given_up",
        "feedback_learned",
        "feedback_passed_over",
    }
)
"""Names of what a driver counts whose ensemble routes."""


class Tally:
    """
    >>> tally = Tally()
    >>> tally.note(Incident("dropped", "member_lost", "frail"))
    >>> tally.stats()
    {('incidents', (('member', 'frail'), ('kind', 'dropped'), ('reason', 'member_lost'))): 1}
    """

    def __init__(self) -> None:
        self._incidents: Counter[Stat] = Counter()
        self._usage: dict[str, _Spending] = {}

    def note(self, event: Event) -> None:
        """Count what an event tells; called for every token, so it does no more than it must."""
        if isinstance(event, Spent):
            spending = self._usage.get(event.member)
            if spending is None:
                spending = self._usage[event.member] = _Spending()
            spending.add(event.usage)
        elif isinstance(event, Incident):
            labels = (("member", event.member or ""), ("kind", event.kind), ("reason", event.reason))
            self._incidents["incidents", labels] += 1

    def stats(self) -> Mapping[Stat, float]:
        """Value by name and labels."""
        told: dict[Stat, float] = dict(self._incidents)
        for member, spending in self._usage.items():
            labels = (("member", member),)
            told["usage_calls", labels] = spending.calls
            told["usage_prompt_tokens", labels] = spending.prompt_tokens
            told["usage_completion_tokens", labels] = spending.completion_tokens
            told["usage_cost", labels] = float(spending.cost)
        return told


class _Spending:
    """Usage that grows in place."""

    def __init__(self) -> None:
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.cost = Decimal(0)

    def add(self, usage: Usage) -> None:
        self.calls += usage.calls
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        if usage.cost:
            self.cost += usage.cost
