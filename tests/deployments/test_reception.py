"""A driver's reception: turns, budgets that run while a request waits, and books that miss nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from deployments.admission import Admission
from deployments.reception import Reception
from deployments.tally import ANSWERING, Tally
from ensemble.concurrency import batches
from ensemble.ensemble import Ensemble
from ensemble.errors import BudgetExceeded, MemberLost, QueueFull
from ensemble.failures.policy import Policy
from ensemble.request import Budget, Event, Exhausted, Finish, Incident, Message, Request, Sampling, Spent, Trace
from ensemble.testing import TinyMember


class Driver:
    """A reception and the members behind it."""

    def __init__(self, *, delay: float = 0.0, lost: bool = False, **settings: Any) -> None:
        self.members = [TinyMember(name, seed=seed, delay=delay) for seed, name in enumerate("ab")]
        if lost:
            self.members.append(TinyMember("c", seed=3, fail_at=0))
        tally = Tally()
        policy = Policy(on_loss="degrade" if lost else "fail")
        ensemble = Ensemble("e", "gac", self.members, policy=policy, untold=tally.note)
        self.reception = Reception(ensemble, tally, **settings)

    def answered(self, **budget: Any) -> Any:
        asked = Request(messages=(Message("user", "what?"),), sampling=Sampling(max_tokens=12), budget=Budget(**budget))
        return self.reception.answered(asked)

    async def events(self, **budget: Any) -> list[Event]:
        return [event async for event in self.answered(**budget)]

    def counted(self, name: str) -> dict[str, float]:
        """By member."""
        stats = self.reception.stats()
        return {dict(stat[1])["member"]: n for stat, n in stats.items() if isinstance(stat, tuple) and stat[0] == name}


def spent(events: Sequence[Event]) -> dict[str, float]:
    return {
        member: sum(e.usage.completion_tokens for e in events if isinstance(e, Spent) and e.member == member)
        for member in sorted({e.member for e in events if isinstance(e, Spent)})
    }


async def test_the_books_hold_what_was_told_and_who_answers_is_told_first() -> None:
    driver = Driver()
    events = await driver.events()
    assert driver.counted("usage_completion_tokens") == spent(events) == {"a": 12, "b": 12}
    told = [event for event in events if not isinstance(event, Spent)]
    assert told[0] == Trace(ANSWERING, {"method": "gac", "members": ["a", "b"]})
    assert driver.reception.stats()["running"] == 0


@pytest.mark.parametrize("taken", [1, 2, 3, 5, 9])
async def test_the_books_hold_what_nobody_came_to_hear(taken: int) -> None:
    driver = Driver(lost=True)
    # As Serve takes them: what is in a batch, and in the queue behind it, has left the ensemble already.
    async with aclosing(batches(driver.answered())) as stream:
        async for _ in stream:
            taken -= 1
            if not taken:
                break
    made = {member.name: float(member.exchanges) for member in driver.members[:2]}
    # A session's first message only reads the prompt; what was asked in the last moment may be without a reply.
    counted = driver.counted("usage_completion_tokens")
    assert counted.keys() >= made.keys() and driver.counted("incidents") == {"c": 1}
    assert all(made[name] - counted[name] <= 2 for name in made)
    assert driver.reception.stats()["running"] == 0 and not any(m.open_sessions for m in driver.members)


async def test_a_full_queue_refuses_and_counts() -> None:
    driver = Driver(admission=Admission(1, 0), delay=0.01)
    first = asyncio.create_task(driver.events())
    await asyncio.sleep(0.01)
    with pytest.raises(QueueFull):
        await driver.events()
    assert await first and driver.reception.stats()["queue_refused"] == 1


@pytest.mark.parametrize("exhausted", ["error", "partial", None])
@pytest.mark.parametrize("whose", ["the request's", "the ensemble's"])
async def test_a_budget_of_time_runs_while_a_request_waits(whose: str, exhausted: Exhausted | None) -> None:
    budget: dict[str, Any] = {"seconds": 0.05, "exhausted": exhausted}
    own = Budget(**budget) if whose == "the ensemble's" else None
    admission = Admission(1, 9)
    driver = Driver(admission=admission, budget=own)
    async with admission.held(1):
        if exhausted == "partial":
            events = await driver.events(**({} if own else budget))
            assert events[1:] == [Incident("exhausted", "budget.seconds"), Finish("length")]
            assert isinstance(events[0], Trace) and events[0].kind == ANSWERING
        else:
            with pytest.raises(BudgetExceeded, match=r"0\.05 seconds was used up by waiting"):
                await driver.events(**({} if own else budget))
    assert not driver.counted("usage_calls") and admission.free == 1


async def test_time_that_was_waited_is_not_there_for_the_work() -> None:
    admission = Admission(1, 9)
    driver = Driver(admission=admission, delay=0.03)
    async with admission.held(1):
        working = asyncio.create_task(driver.events(seconds=0.3))
        await asyncio.sleep(0.2)
    with pytest.raises(BudgetExceeded):
        await working


async def test_whoever_leaves_gives_the_place_back() -> None:
    admission = Admission(1, 9)
    driver = Driver(admission=admission, delay=0.01)
    async with aclosing(driver.answered()) as stream:
        await anext(stream)
        assert admission.free == 0
    assert admission.free == 1 and not any(member.open_sessions for member in driver.members)
    waiting = asyncio.create_task(driver.events())
    async with admission.held(1):
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert admission.waiting == 0
    assert admission.free == 1


async def test_a_loss_is_counted_where_the_policy_makes_it_an_error() -> None:
    driver = Driver()
    driver.members[1]._fail_at = 5
    with pytest.raises(MemberLost):
        await driver.events()
    assert driver.counted("usage_calls") == {"a": 1, "b": 1}
