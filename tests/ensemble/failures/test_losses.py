"""An ensemble that loses a member at step t: what is told, what is billed and what is left open, under each policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer, MemberLost, MemberTimeout
from ensemble.failures.policy import Policy
from ensemble.member import Exchange, Member, Reply, Session
from ensemble.request import Answer, Delta, Event, Finish, Incident, Request, Sampling, Spent, Usage, total
from ensemble.testing import ScriptedMember, TinyMember

ASKED = Request.of("what?", max_tokens=24)
RECOVER = Policy(on_loss="recover", patience=2.0)


class Replicated(TinyMember):
    """A member of several replicas: those that are lost stay so, a session lives and dies with its own."""

    def __init__(self, name: str, *, lost_at: Sequence[int] = (), slow_at: int | None = None, **kwargs: Any) -> None:
        """
        Args:
            lost_at: exchanges, counted over all sessions, at which the replica that is asked is lost.
            slow_at: exchange at which the replica that is asked begins to take for ever.
        """
        super().__init__(name, **kwargs)
        self.count = 0
        self.started = 0
        self.lost_at, self.slow_at = set(lost_at), slow_at

    async def start(self, request: Request) -> Session:
        self.started += 1
        return _OnReplica(self, await super().start(request))


class _OnReplica(Session):
    def __init__(self, member: Replicated, inner: Session) -> None:
        self.member, self.vocabulary = inner.member, inner.vocabulary
        self._of, self._inner = member, inner
        self._lost = self._slow = False

    async def _send(self, exchange: Exchange) -> Reply:
        number, self._of.count = self._of.count, self._of.count + 1
        self._lost |= number in self._of.lost_at
        self._slow |= number == self._of.slow_at
        if self._lost:
            raise MemberLost(f"a replica of {self.member} was lost", member=self.member)
        if self._slow:
            await asyncio.sleep(60)
        return await self._inner.exchange(exchange.question, edit=exchange.edit)

    async def fork(self) -> Session:
        return _OnReplica(self._of, await self._inner.fork())

    async def close(self) -> None:
        await self._inner.close()


async def events_of(ensemble: Member, request: Request = ASKED) -> list[Event]:
    return [event async for event in ensemble.generate(request)]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def incidents_of(events: Sequence[Event]) -> list[tuple[str, str, str | None]]:
    return [(e.kind, e.reason, e.member) for e in events if isinstance(e, Incident)]


def undisturbed(method: str, vocabularies: Sequence[int], **options: Any) -> Ensemble:
    return Ensemble("e", method, [TinyMember("a", seed=1), TinyMember("b", seed=vocabularies[0])], options=options)


METHODS = {
    "gac": ("gac", {}),
    "unite": ("unite", {}),
    "gac that drafts": ("gac", {"draft": {}}),
    "safe": ("safe", {}),
    "speculative": ("speculative_ensemble", {}),
}


@pytest.mark.parametrize("name", METHODS)
@given(lost_at=st.lists(st.integers(0, 30), max_size=3), sampled=st.booleans())
@settings(max_examples=12, deadline=None)
def test_recovered_answers_are_those_of_no_loss(name: str, lost_at: list[int], sampled: bool) -> None:
    method, options = METHODS[name]
    temperature = float(sampled) if method != "safe" else 0.0
    asked = Request.of("what?", max_tokens=24, temperature=temperature, seed=3)

    async def both() -> tuple[list[Event], list[Event], Replicated]:
        frail = Replicated("b", seed=2, lost_at=lost_at)
        calm = Ensemble("e", method, [TinyMember("a", seed=1), TinyMember("b", seed=2)], options=options)
        tried = Ensemble("e", method, [TinyMember("a", seed=1), frail], options=options, policy=RECOVER)
        return await events_of(calm, asked), await events_of(tried, asked), frail

    expected, got, frail = asyncio.run(both())
    assert text_of(got) == text_of(expected)
    assert frail.open_sessions == 0
    met = [at for at in lost_at if at < frail.count]
    assert bool(incidents_of(got)) == bool(met)
    assert set(incidents_of(got)) <= {("recovered", "member_lost", "b")}


async def test_a_recovered_session_is_billed_for_both_replicas() -> None:
    frail = Replicated("b", seed=2, lost_at=[10])
    events = await events_of(Ensemble("e", "gac", [TinyMember("a", seed=1), frail], policy=RECOVER))
    spent = total(e.usage for e in events if isinstance(e, Spent) and e.member == "b")
    calm = await events_of(Ensemble("e", "gac", [TinyMember("a", seed=1), TinyMember("b", seed=2)]))
    before = total(e.usage for e in calm if isinstance(e, Spent) and e.member == "b")
    assert spent.calls == before.calls + 1 == 2
    # The prompt, and what had been written by then, was read a second time.
    assert spent.prompt_tokens > before.prompt_tokens
    assert spent.completion_tokens == before.completion_tokens


async def test_without_a_policy_a_loss_is_a_typed_error_after_what_was_told() -> None:
    frail = Replicated("b", seed=2, lost_at=[10])
    ensemble = Ensemble("e", "gac", [TinyMember("a", seed=1), frail])
    events: list[Event] = []
    with pytest.raises(MemberLost) as failure:
        async for event in ensemble.generate(ASKED):
            events.append(event)
    assert failure.value.member == "b" and failure.value.through == "b"
    assert text_of(events) and not any(isinstance(e, Finish) for e in events)
    assert {e.member for e in events if isinstance(e, Spent)} == {"a", "b"}
    assert frail.open_sessions == 0


@pytest.mark.parametrize("method", ["gac", "unite", "safe"])
@given(at=st.integers(0, 20))
@settings(max_examples=10, deadline=None)
def test_degraded_answers_go_on_from_what_was_told(method: str, at: int) -> None:
    async def both() -> tuple[str, list[Event], str]:
        members = [TinyMember("a", seed=1), TinyMember("b", seed=2), Replicated("c", seed=3, lost_at=range(at, 10_000))]
        degraded = Ensemble("e", method, members, policy=Policy(on_loss="degrade"))
        events = await events_of(degraded)
        whole = Ensemble("e", method, [TinyMember(n, seed=s) for n, s in (("a", 1), ("b", 2), ("c", 3))])
        before = text_of(events[: next((i for i, e in enumerate(events) if isinstance(e, Incident)), len(events))])
        rest = Request.of("what?", max_tokens=24)
        pair = Ensemble("e", method, [TinyMember("a", seed=1), TinyMember("b", seed=2)])
        after = await pair.answer(Request(messages=rest.messages, partial=before, sampling=Sampling(max_tokens=24)))
        calm = text_of(await events_of(whole))
        assert calm.startswith(before)
        return before, events, after.text

    before, events, after = asyncio.run(both())
    told = text_of(events)
    assert sum(isinstance(e, Finish) for e in events) == 1
    if incidents_of(events):
        assert incidents_of(events) == [("dropped", "member_lost", "c")]
        assert (before + after).startswith(told)


async def test_below_the_quorum_the_request_fails() -> None:
    members = [TinyMember("a", seed=1), Replicated("b", seed=2, lost_at=range(5, 99))]
    with pytest.raises(MemberLost):
        await events_of(Ensemble("e", "gac", members, policy=Policy(on_loss="degrade", quorum=2)))
    events = await events_of(Ensemble("e", "gac", members, policy=Policy(on_loss="degrade", quorum=1)))
    assert ("dropped", "member_lost", "b") in incidents_of(events)


async def test_weights_are_those_of_who_is_left() -> None:
    lost = Replicated("b", seed=2, lost_at=range(99))
    members = [TinyMember("a", seed=1), lost, TinyMember("c", seed=3)]
    degraded = Ensemble("e", "gac", members, options={"weights": (1, 5, 3)}, policy=Policy(on_loss="degrade"))
    pair = Ensemble("e", "gac", [members[0], members[2]], options={"weights": (1, 3)})
    assert (await degraded.answer(ASKED)).text == (await pair.answer(ASKED)).text


async def test_a_member_that_is_back_takes_part_again() -> None:
    frail = Replicated("c", seed=3, lost_at=[4])
    members = [TinyMember("a", seed=1), TinyMember("b", seed=2), frail]
    policy = Policy(on_loss="degrade", breaker_seconds=1e-6)
    events = await events_of(Ensemble("e", "gac", members, policy=policy), Request.of("what?", max_tokens=200))
    assert incidents_of(events)[:2] == [("dropped", "member_lost", "c"), ("rejoined", "answers again", "c")]
    credited = [e.credits for e in events if isinstance(e, Delta)]
    assert "c" in credited[-1] or any("c" in c for c in credited[8:])
    assert frail.open_sessions == 0


async def test_votes_go_on_without_a_lost_member_and_keep_what_is_there() -> None:
    frail = TinyMember("c", seed=3, fail_at=0)
    members = [TinyMember("a", seed=1), TinyMember("b", seed=2), frail]
    forest = Ensemble("e", "agent_forest", members, options={"samples": 9}, policy=Policy(on_loss="degrade"))
    events = await events_of(forest)
    assert incidents_of(events) == [("dropped", "member_lost", "c")]
    calls = {e.member: e.usage.calls for e in events if isinstance(e, Spent) and e.usage.calls}
    # Nobody was asked twice because of the loss.
    assert calls == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(MemberLost):
        await events_of(Ensemble("e", "agent_forest", members, options={"samples": 9}))


async def test_recovered_generations_go_on_where_they_were_lost() -> None:
    asked = Request.of("what?", max_tokens=12, seed=5)
    calm = [TinyMember("a", seed=1), TinyMember("b", seed=2)]
    frail = TinyMember("b", seed=2, fail_at=9)
    members = [TinyMember("a", seed=1), _Reviving(frail)]
    options = {"samples": 6}
    expected = await Ensemble("e", "agent_forest", calm, options=options).answer(asked)
    got = await Ensemble("e", "agent_forest", members, options=options, policy=RECOVER).answer(asked)
    assert got.text == expected.text
    assert {i.kind for c in got.choices for i in c.incidents} == {"recovered"}


class _Reviving(Member):
    """Its replica is lost once; the next one is there at once."""

    def __init__(self, inner: TinyMember) -> None:
        self.card, self._inner = inner.card, inner

    async def generate(self, request: Request) -> Any:
        try:
            async for event in self._inner.generate(request):
                yield event
        except MemberLost:
            self._inner._fail_at = None
            raise

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        return await self._inner.tokenise(texts)


async def test_a_slow_step_is_asked_of_another_replica_and_the_first_reply_counts() -> None:
    slow = Replicated("b", seed=2, slow_at=7)
    policy = Policy(hedge_seconds=0.05)
    loop = asyncio.get_running_loop()
    began = loop.time()
    events = await events_of(Ensemble("e", "gac", [TinyMember("a", seed=1), slow], policy=policy))
    calm = await events_of(Ensemble("e", "gac", [TinyMember("a", seed=1), TinyMember("b", seed=2)]))
    assert text_of(events) == text_of(calm)
    assert incidents_of(events) == [("hedged", "slow", "b")]
    assert slow.open_sessions == 0 and loop.time() - began < 30


async def test_a_step_past_its_deadline_is_a_lost_member() -> None:
    members = [TinyMember("a", seed=1), Replicated("b", seed=2, slow_at=7)]
    with pytest.raises(MemberTimeout) as failure:
        await events_of(Ensemble("e", "gac", members, policy=Policy(step_seconds=0.1)))
    assert failure.value.member == "b"
    again = [TinyMember("a", seed=1), Replicated("b", seed=2, slow_at=7)]
    policy = Policy(on_loss="recover", step_seconds=0.1)
    events = await events_of(Ensemble("e", "gac", again, policy=policy))
    assert incidents_of(events) == [("recovered", "member_timeout", "b")]


class _Wrong(TinyMember):
    """Answers what cannot be, from some exchange on."""

    def __init__(self, name: str, *, nan_at: int, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        clean, self.asked = self.model, 0

        def model(prompt: Sequence[int], ids: Sequence[int]) -> Any:
            self.asked += 1
            found = clean(prompt, ids)
            return np.full_like(found, np.nan) if self.asked > nan_at else found

        self.model = model


async def test_answers_that_cannot_be_are_excluded_and_never_voted() -> None:
    members = [TinyMember("a", seed=1), TinyMember("b", seed=2), _Wrong("c", seed=3, nan_at=6)]
    with pytest.raises(BadAnswer) as failure:
        await events_of(Ensemble("e", "gac", members))
    assert (failure.value.reason, failure.value.member) == ("nan", "c")
    members[2] = _Wrong("c", seed=3, nan_at=6)
    events = await events_of(Ensemble("e", "gac", members, policy=Policy(on_loss="degrade", breaker_seconds=1e-6)))
    assert incidents_of(events) == [("excluded", "nan", "c")]
    assert sum(isinstance(e, Finish) for e in events) == 1


async def test_a_member_that_fails_again_and_again_is_left_alone_and_then_tried_by_one() -> None:
    frail = TinyMember("b", seed=2, fail_at=0)
    policy = Policy(breaker_failures=3, breaker_seconds=0.2)
    ensemble = Ensemble("e", "gac", [TinyMember("a", seed=1), frail], policy=policy)
    for _ in range(3):
        with pytest.raises(MemberLost):
            await events_of(ensemble)
    asked = frail.exchanges
    with pytest.raises(MemberLost) as failure:
        await events_of(ensemble)
    assert frail.exchanges == asked and failure.value.retry_after == 0.2
    frail._fail_at = None
    await asyncio.sleep(0.25)
    first, second = await asyncio.gather(events_of(ensemble), events_of(ensemble), return_exceptions=True)
    assert isinstance(second, MemberLost) and not isinstance(first, BaseException)
    assert await events_of(ensemble)


def test_a_clients_mistakes_do_not_open_the_breaker() -> None:
    async def run() -> Answer:
        short = TinyMember("b", seed=2, context_length=40)
        policy = Policy(breaker_failures=1, breaker_seconds=60)
        ensemble = Ensemble("e", "gac", [TinyMember("a", seed=1), short], policy=policy)
        for _ in range(3):
            with pytest.raises(Exception, match="context"):
                await ensemble.answer(Request.of("x" * 50))
        return await ensemble.answer(Request.of("x", max_tokens=4))

    assert asyncio.run(run()).usage["b"] != Usage()


async def test_text_that_a_member_cannot_write_leaves_it_in_good_health() -> None:
    narrow = ScriptedMember("narrow", [b"a", b""], [b"a"] * 30)
    policy = Policy(on_loss="degrade", quorum=1, breaker_failures=1, breaker_seconds=60)
    ensemble = Ensemble("e", "gac", [TinyMember("wide", seed=1), narrow], options={"weights": (9, 1)}, policy=policy)
    for _ in range(2):
        events = await events_of(ensemble)
        assert incidents_of(events) == [("dropped", "unspellable", "narrow")]


async def test_where_a_second_replica_fails_as_well_a_third_is_asked() -> None:
    # The first never answers; the one asked beside it, after the prompt and seven steps, is lost at once.
    frail = Replicated("b", seed=2, slow_at=7, lost_at=[8])
    policy = Policy(on_loss="recover", hedge_seconds=0.05, step_seconds=0.5)
    events = await events_of(Ensemble("e", "gac", [TinyMember("a", seed=1), frail], policy=policy))
    calm = await events_of(Ensemble("e", "gac", [TinyMember("a", seed=1), TinyMember("b", seed=2)]))
    assert text_of(events) == text_of(calm) and frail.open_sessions == 0
    assert incidents_of(events) == [("recovered", "member_timeout", "b")]
