"""What a driver tells besides events: who it is, and what it has counted over all its requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ensemble.request import Event, Incident, Spent, Usage

Stat = str | tuple[str, tuple[tuple[str, str], ...]]
"""Name of a number that a replica tells of itself; with labels and their values, where several have the name."""

ANSWERING = "ensemble"
"""Kind of the trace by which a driver says, before all else that it tells, by what method and of which members an
answer is. While a configuration is rolled out, it may be another than whoever asks knows of."""

COUNTERS = frozenset({"incidents", "usage_calls", "usage_prompt_tokens", "usage_completion_tokens", "usage_cost"})
"""Names of what is counted here."""


class Tally:
    """
    >>> tally = Tally()
    >>> tally.note(Incident("dropped", "member_lost", "frail"))
    >>> tally.stats()
    {('incidents', (('member', 'frail'), ('kind', 'dropped'), ('reason', 'member_lost'))): 1}
    """

    def __init__(self) -> None:
        # Incidents are counted with integers, usage as it comes: money stays exact.
        self._counts: Counter[Stat] = Counter()

    def note(self, event: Event) -> None:
        """Count what an event tells."""
        if isinstance(event, Spent):
            self._spent(event.member, event.usage)
        elif isinstance(event, Incident):
            labels = (("member", event.member or ""), ("kind", event.kind), ("reason", event.reason))
            self._counts["incidents", labels] += 1

    def _spent(self, member: str, usage: Usage) -> None:
        amounts: dict[str, Any] = {
            "usage_calls": usage.calls,
            "usage_prompt_tokens": usage.prompt_tokens,
            "usage_completion_tokens": usage.completion_tokens,
            "usage_cost": usage.cost,
        }
        for name, amount in amounts.items():
            self._counts[name, (("member", member),)] += amount

    def stats(self) -> Mapping[Stat, float]:
        """Value by name and labels."""
        return {stat: float(value) if "cost" in stat[0] else value for stat, value in self._counts.items()}
