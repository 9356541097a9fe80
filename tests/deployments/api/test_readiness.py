"""An ensemble is ready with a quorum of its members and a driver; the gateway, when all that it is for works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from deployments.api.readiness import readiness


class Crew(NamedTuple):
    members: tuple[str, ...] = ()
    least: int = 0
    judge: str | None = None


SERVED = {
    "a": Crew(),
    "b": Crew(),
    "c": Crew(),
    "alone": Crew(),
    "trio": Crew(("a", "b", "c"), 2),
    "twins": Crew(("a", "a"), 2),
    "judged": Crew(("a", "b"), 2, judge="c"),
    "outer": Crew(("trio", "a"), 2),
}
UP = dict.fromkeys(SERVED, "ready")


def states(*down: str) -> Mapping[str, str]:
    return UP | dict.fromkeys(down, "no replica")


def test_all_is_well() -> None:
    assert readiness(SERVED, UP) == (UP, {}, True)


def test_a_quorum_works_and_says_that_it_is_degraded() -> None:
    found = readiness(SERVED, states("b"))
    assert (found.models["trio"], found.models["outer"]) == ("degraded", "degraded")
    assert found.missing == {"trio": ["b"], "judged": ["b"]}
    assert found.models["judged"] == "too few members" and not found.ready


@pytest.mark.parametrize(
    ("down", "state"),
    [
        (("b", "c"), "too few members"),
        (("trio",), "no replica"),
        (("a",), "degraded"),
        ((), "ready"),
    ],
)
def test_an_ensembles_state(down: tuple[str, ...], state: str) -> None:
    assert readiness(SERVED, states(*down)).models["trio"] == state


def test_a_nested_ensemble_counts_by_its_own_state() -> None:
    assert readiness(SERVED, states("b", "c")).missing["outer"] == ["trio"]
    assert readiness(SERVED, states("b", "c")).models["outer"] == "too few members"


def test_a_seat_counts_each_time() -> None:
    assert readiness(SERVED, states("a")).models["twins"] == "too few members"


def test_there_is_no_verdict_without_the_judges_model() -> None:
    found = readiness(SERVED, states("c"))
    assert (found.models["judged"], found.missing["judged"]) == ("no judge", ["c"])


@pytest.mark.parametrize(("down", "ready"), [("c", True), ("alone", False), ("trio", False)])
def test_a_model_within_ensembles_may_be_missing_as_long_as_they_work(down: str, ready: bool) -> None:
    served = {name: crew for name, crew in SERVED.items() if name != "judged"}
    assert readiness(served, states(down)).ready is ready


def test_who_was_not_heard_of_is_not_ready() -> None:
    found = readiness({"a": Crew()}, {})
    assert (found.models, found.ready) == ({"a": "unknown"}, False)
