"""Marks on an answer that was not made as configured: members that were left out, a budget that ended it early.

Pure functions of incidents; knows no HTTP but the names of headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.api.shapes import Json
from ensemble.request import Incident


def incident_object(incident: Incident) -> Json:
    """One thing that went wrong on the way."""
    return {"kind": incident.kind, "member": incident.member, "reason": incident.reason, "choice": incident.choice}


@dataclass(frozen=True, slots=True)
class Marks:
    """What an answer has to say of its own making: who took no part, what went wrong, what ran out.

    >>> Marks((Incident("dropped", "member_lost", "b"), Incident("exhausted", "budget.tokens"))).headers
    {'x-ensemble-degraded': 'b', 'x-ensemble-partial': 'budget.tokens'}
    """

    incidents: Sequence[Incident]

    @property
    def degraded(self) -> list[Json]:
        """Members that did not take part, or not in everything; each with each reason once."""
        changed = [i for i in self.incidents if i.kind in ("dropped", "excluded")]
        seen = dict.fromkeys((i.member, i.reason, i.kind) for i in changed)
        return [{"member": member, "reason": reason, "kind": kind} for member, reason, kind in seen]

    @property
    def partial(self) -> Json:
        """Which part of the budget ended the answer; empty if none did."""
        ended = [i.reason for i in self.incidents if i.kind == "exhausted"]
        return {"partial": ended[0]} if ended else {}

    @property
    def whole(self) -> Json:
        """For the ``ensemble`` object; keys with nothing to say are left out."""
        degraded = {"degraded": self.degraded} if self.degraded else {}
        told = {"incidents": [incident_object(i) for i in self.incidents]} if self.incidents else {}
        return {**degraded, **told, **self.partial}

    @property
    def headers(self) -> dict[str, str]:
        names = dict.fromkeys(str(entry["member"]) for entry in self.degraded if entry["member"] is not None)
        degraded = {"x-ensemble-degraded": ",".join(names)} if names else {}
        return degraded | {f"x-ensemble-{key}": value for key, value in self.partial.items()}
