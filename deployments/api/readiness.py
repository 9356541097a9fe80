"""Who is ready: a model whose replicas run; an ensemble with a driver and enough members.

Pure functions of states; asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from deployments.api.shapes import Json

READY, DEGRADED = "ready", "degraded"
WORKING = frozenset({READY, DEGRADED})


class Crewed(Protocol):
    """What has to be known of whatever is served."""

    @property
    def members(self) -> tuple[str, ...]:
        """Of an ensemble, one name for each seat; of a model none."""

    @property
    def least(self) -> int:
        """Members that are enough."""

    @property
    def judge(self) -> str | None:
        """The model without which there is no verdict."""


class Readiness(NamedTuple):
    """What can be asked for at the moment."""

    models: Mapping[str, str]
    """``ready``; ``degraded``, an ensemble that works without some of its members; or what is missing."""
    missing: Mapping[str, list[str]]
    """By ensemble, those of its members and its judge's model that do not answer."""
    ready: bool
    """Whether every ensemble works, and every model that is in none."""

    def body(self) -> Json:
        told: Json = {"ready": self.ready, "models": self.models}
        return told | ({"missing": self.missing} if self.missing else {})


def readiness(served: Mapping[str, Crewed], own: Mapping[str, str]) -> Readiness:
    """
    Args:
        own: by name, the state of each one's own deployment; of an ensemble that of its driver.
    """
    missing = {name: _missing(name, served, own) for name in served}
    states = {name: _state(name, served, own) for name in served}
    within = {member for crew in served.values() for member in (*crew.members, crew.judge)}
    needed = [name for name, crew in served.items() if crew.members or name not in within]
    ready = all(states[name] in WORKING for name in needed)
    return Readiness(states, {name: gone for name, gone in missing.items() if gone}, ready)


def _state(name: str, served: Mapping[str, Crewed], own: Mapping[str, str]) -> str:
    crew, mine = served[name], own.get(name, "unknown")
    if mine != READY or not crew.members:
        return mine
    # Who is not served under a name of its own cannot be asked here.
    states = [_state(member, served, own) if member in served else READY for member in crew.members]
    if crew.judge is not None and crew.judge in served and _state(crew.judge, served, own) not in WORKING:
        return "no judge"
    if sum(state in WORKING for state in states) < crew.least:
        return "too few members"
    return READY if all(state == READY for state in states) else DEGRADED


def _missing(name: str, served: Mapping[str, Crewed], own: Mapping[str, str]) -> list[str]:
    asked = dict.fromkeys((*served[name].members, served[name].judge))
    known = [each for each in asked if each is not None and each in served]
    return [each for each in known if _state(each, served, own) not in WORKING]
