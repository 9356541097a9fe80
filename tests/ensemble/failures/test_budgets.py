"""Budgets that run out in mid-work: an error or a partial answer that says so; caps that refuse before any work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import BudgetExceeded, ConfigurationError, OverCap
from ensemble.judges.judge import Judge, Solution
from ensemble.member import Price
from ensemble.request import Budget, Delta, Event, Finish, Incident, Message, Request, Sampling, Spent, Usage, total
from ensemble.testing import ScriptedMember, TinyMember

PRICE = Price(Decimal(10), Decimal(20))
METHODS: dict[str, dict[str, Any]] = {
    "gac": {},
    "unite": {},
    "safe": {},
    "speculative_ensemble": {},
    "agent_forest": {"samples": 8},
    "best_of_n": {"samples": 8},
    "le_mcts": {"iterations": 12, "step_tokens": 4},
}


class Longest(Judge):
    """Likes long solutions."""

    name = "longest"

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        return [[min(len(step), 99) / 100 for step in solution] for solution in solutions]


def ensemble_of(method: str, delay: float = 0.0, **settings: Any) -> Ensemble:
    members = [TinyMember(name, seed=seed, price=PRICE, delay=delay) for name, seed in (("a", 1), ("b", 2))]
    judge = Longest() if method in ("best_of_n", "le_mcts") else None
    return Ensemble("e", method, members, options=METHODS[method], judge=judge, **settings)


def asked(**budget: Any) -> Request:
    return Request(
        messages=(Message("user", "what?"),), sampling=Sampling(max_tokens=40, seed=4), budget=Budget(**budget)
    )


async def told(ensemble: Ensemble, request: Request) -> tuple[list[Event], BudgetExceeded | None]:
    events: list[Event] = []
    try:
        async for event in ensemble.generate(request):
            events.append(event)
    except BudgetExceeded as error:
        return events, error
    return events, None


def spent(events: Sequence[Event]) -> Any:
    return total(event.usage for event in events if isinstance(event, Spent))


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


LIMITS = {"tokens": 30, "cost": Decimal("0.0004"), "calls": 1, "seconds": 0.15}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("method", METHODS)
async def test_a_budget_ends_the_work_by_its_word(method: str, limit: str) -> None:
    delay = 0.02 if limit == "seconds" else 0.0
    if limit == "calls" and method in ("agent_forest", "best_of_n"):
        pytest.skip("their calls begin together, and one is within the budget")
    _, error = await told(ensemble_of(method, delay), asked(**{limit: LIMITS[limit]}))
    assert error is not None and error.param == f"budget.{limit}"
    events, error = await told(ensemble_of(method, delay), asked(**{limit: LIMITS[limit]}, exhausted="partial"))
    assert error is None
    marks = [event for event in events if isinstance(event, Incident)]
    assert marks == [Incident("exhausted", f"budget.{limit}")]
    assert [event.reason for event in events if isinstance(event, Finish)] == ["length"]


@pytest.mark.parametrize("limit", ["tokens", "cost", "calls"])
async def test_what_an_earlier_attempt_took_counts_against_the_configuration(limit: str) -> None:
    spending = Usage(calls=3, prompt_tokens=20, completion_tokens=9, cost=Decimal("0.0004"))
    whole = spent((await told(ensemble_of("gac"), asked()))[0])
    both = {"tokens": whole.total_tokens + 29, "cost": whole.cost + spending.cost, "calls": whole.calls + 3}
    _, error = await told(ensemble_of("gac", budget=Budget(**{limit: both[limit]})), asked().again(spending, 0.0))
    assert error is None
    # A step that has begun within the budget is gone through with.
    short = Budget(**{limit: both[limit] - {"tokens": 9, "cost": Decimal("0.0003"), "calls": 1}[limit]})
    assert (await told(ensemble_of("gac", budget=short), asked()))[1] is None
    _, error = await told(ensemble_of("gac", budget=short), asked().again(spending, 0.0))
    assert error is not None and error.param == f"budget.{limit}"


async def test_time_of_an_earlier_attempt_counts_against_the_configuration() -> None:
    ensemble = ensemble_of("gac", 0.005, budget=Budget(seconds=60))
    assert (await told(ensemble, asked().again(Usage(), 59)))[1] is None
    _, error = await told(ensemble, asked().again(Usage(), 59.95))
    assert error is not None and error.param == "budget.seconds"


@given(method=st.sampled_from(["gac", "unite", "agent_forest", "le_mcts"]), tokens=st.integers(12, 120))
@settings(max_examples=25, deadline=None)
def test_work_stops_within_a_step_of_the_limit_and_what_was_burnt_is_told(method: str, tokens: int) -> None:
    ensemble = ensemble_of(method)
    events, error = asyncio.run(told(ensemble, asked(tokens=tokens)))
    used = spent(events).total_tokens
    # A step of a search is four tokens and the reading of the text before it; all others write one token a member.
    step = {"le_mcts": 60, "agent_forest": 24}.get(method, 24)
    assert used < tokens + step
    assert (error is None) == (used < tokens) or used >= tokens


@pytest.mark.parametrize("method", ["gac", "unite", "safe"])
async def test_a_partial_answer_is_the_beginning_of_the_whole_one(method: str) -> None:
    whole, _ = await told(ensemble_of(method), asked())
    events, _ = await told(ensemble_of(method), asked(tokens=60, exhausted="partial"))
    assert text(events) and text(whole).startswith(text(events)) and len(text(events)) < len(text(whole))


async def test_time_that_was_waited_is_gone_and_the_budget_told_is_the_one_asked_for() -> None:
    _, error = await told(ensemble_of("gac", 0.05), asked(seconds=5, waited=4.9))
    assert error is not None and "5 seconds" in error.message


async def test_a_wait_of_the_request_counts_against_the_ensembles_budget() -> None:
    _, error = await told(ensemble_of("gac", 0.05, budget=Budget(seconds=5)), asked(waited=4.9))
    assert error is not None and error.param == "budget.seconds"


async def test_a_partial_vote_is_over_the_candidates_that_are_there() -> None:
    members = [ScriptedMember.answering("a", ["7"]), ScriptedMember.answering("b", ["8", "8", "8"], delay=5)]
    ensemble = Ensemble("e", "agent_forest", members, options={"samples": 6})
    events, error = await told(ensemble, asked(seconds=0.3, exhausted="partial"))
    assert error is None and text(events) == "7"
    assert Incident("exhausted", "budget.seconds") in events


async def test_the_ensembles_word_holds_unless_the_request_has_one() -> None:
    partial = ensemble_of("gac", budget=Budget(tokens=30, exhausted="partial"))
    events, error = await told(partial, asked())
    assert error is None and Incident("exhausted", "budget.tokens") in events
    _, error = await told(partial, asked(exhausted="error"))
    assert error is not None


async def test_a_nested_ensemble_gets_what_is_left() -> None:
    inner = ensemble_of("gac")
    outer = Ensemble("o", "agent_forest", [inner, TinyMember("c", seed=3)], options={"samples": 4})
    events, error = await told(outer, asked(tokens=80))
    assert error is not None and spent(events).total_tokens < 80 + 4 * 24


def test_amplification_is_refused_before_any_call() -> None:
    leaves = [TinyMember("a", seed=1), TinyMember("b", seed=2)]
    inner = Ensemble("i", "agent_forest", leaves, options={"samples": 16})
    outer = Ensemble("o", "agent_forest", [inner, inner], options={"samples": 8}, caps=Caps(n=8, fan_out=200))
    assert (inner.card.fan_out, inner.card.depth) == (16, 1)
    assert (outer.card.fan_out, outer.card.depth) == (128, 2)
    with pytest.raises(OverCap) as refused:
        asyncio.run(told(outer, Request(messages=(Message("user", "?"),), n=2)))
    assert refused.value.param == "fan_out"
    with pytest.raises(OverCap):
        asyncio.run(told(outer, Request(messages=(Message("user", "?"),), options={"samples": 14})))
    assert leaves[0].exchanges == leaves[1].exchanges == 0


@pytest.mark.parametrize(
    ("caps", "samples", "members", "key"),
    [
        (Caps(members=2), 3, 3, "caps.members"),
        (Caps(fan_out=5), 6, 2, "caps.fan_out"),
        (Caps(depth=1), 2, 0, "caps.depth"),
    ],
)
def test_what_no_request_could_ask_for_is_refused_when_it_is_loaded(
    caps: Caps, samples: int, members: int, key: str
) -> None:
    nested = Ensemble("n", "agent_forest", [TinyMember("x")], options={"samples": 1})
    over = [TinyMember(f"m{i}", seed=i) for i in range(members)] or [nested, TinyMember("a")]
    with pytest.raises(ConfigurationError) as refused:
        Ensemble("e", "agent_forest", over, options={"samples": samples}, caps=caps)
    assert refused.value.param == key
