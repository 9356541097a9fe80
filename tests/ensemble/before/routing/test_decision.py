"""Who is asked, and in which order: laws of routes and of arms."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.policies import Prediction, Utility
from ensemble.before.routing.arms import Arm, arms
from ensemble.before.routing.decision import Reading, Route, roomy, route, tokens
from ensemble.member import Card
from ensemble.request import Message, Request

COUNTS = st.integers(1, 6)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    count = draw(COUNTS)
    quality = np.array([draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))])
    allowed = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    found = [Arm(f"m{i}", i, i) for i in range(count)]
    reading = Reading(Prediction(quality, np.zeros_like(quality)), draw(st.booleans()))
    fallback = draw(st.integers(0, count - 1))
    shadow = draw(st.booleans())
    return route(reading, found, allowed, Utility(), np.random.default_rng(0), fallback, shadow=shadow)


@given(routes())
def test_everyone_who_may_answer_is_asked_once_the_first_first(made: Route) -> None:
    order = made.order
    assert order[0] == made.first and len(set(order)) == len(order)
    may = {place for place, score in enumerate(made.scores) if np.isfinite(score)}
    assert set(order) == may | {made.first, made.fallback}


@given(routes())
def test_only_who_is_allowed_is_chosen_by_the_policy(made: Route) -> None:
    if made.why == "policy":
        assert np.isfinite(made.scores[made.first]) and made.propensity_of(made.first) == made.propensity
    else:
        assert made.first == made.fallback and made.propensity_of(made.first) == 1.0
    assert all(np.isnan(made.propensity_of(place)) for place in made.order[1:])


@given(routes())
def test_a_route_can_be_told(made: Route) -> None:
    told = made.told()
    assert told["answers"] == [f"m{made.first}"] and set(told["scores"]) == {arm.name for arm in made.arms}
    assert all(score is None or np.isfinite(score) for score in told["scores"].values())


def test_the_order_of_the_worked_case() -> None:
    quality = np.array([[0.1, 0.9, 0.5, 0.7]])
    found = [Arm(name, i, i) for i, name in enumerate("abcd")]
    reading = Reading(Prediction(quality, np.zeros_like(quality)))
    made = route(reading, found, np.ones(4, bool), Utility(), np.random.default_rng(0), fallback=0)
    assert made.order == [1, 3, 0, 2]


def test_columns_of_members_that_are_not_there_are_left_out() -> None:
    found = arms(["a", "x", "b|short", "b@3", "c|short@2"], ["b", "a", "c|short@2"], {"short": "S "}, {})
    assert [(arm.name, arm.column, arm.seat, arm.before, arm.samples) for arm in found] == [
        ("a", 0, 1, "", 1),
        ("b|short", 2, 0, "S ", 1),
        ("b@3", 3, 0, "", 3),
        ("c|short@2", 4, 2, "", 1),
    ]


def test_a_strategy_goes_before_the_last_question() -> None:
    arm = Arm("a|s", 0, 0, "Think. ")
    talk = (Message("system", "x"), Message("user", "one"), Message("assistant", "1"), Message("user", "two"))
    asked = arm.asked(Request(messages=talk))
    assert [message.content for message in asked.messages] == ["x", "one", "1", "Think. two"]


def test_the_whole_conversation_has_to_fit() -> None:
    request = Request(messages=(Message("system", "x" * 500), Message("user", "y" * 100)))
    cards = [Card(name, frozenset(), length) for name, length in (("a", 100), ("b", 101))]
    found = [Arm("a", 0, 0), Arm("b", 1, 1)]
    assert roomy(found, cards, request).tolist() == [False, True] and tokens(request) == 150
