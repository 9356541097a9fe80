"""Running ahead changes when things are computed, never what is answered, and never holds up what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from random_models import engine_of

from deployments.engines.engine import EngineMember
from deployments.engines.guess import Guess, worthwhile
from deployments.engines.transformers import TransformersEngine
from ensemble.concurrency import together
from ensemble.member import Append, Distribution, Next, Reply, Rewind, Session
from ensemble.request import Request
from ensemble.testing.conformance import QUESTION

PAUSE = 0.05
"""Seconds in which a driver decides here: long enough for a pass of these models."""


async def driven(engine: TransformersEngine, choices: Sequence[int], pause: float = PAUSE) -> list[Reply]:
    """One session to which the token of this rank is appended at each step, after a while."""
    async with await EngineMember(engine).start(Request.of(QUESTION)) as session:
        replies = [await session.exchange(Next(8))]
        for rank in choices:
            await asyncio.sleep(pause)
            replies.append(await session.exchange(Next(8), edit=Append((int(listed(replies[-1]).ids[rank]),))))
    return replies


def listed(reply: Reply) -> Distribution:
    assert isinstance(reply.payload, Distribution)
    return reply.payload


@pytest.mark.parametrize("choices", [(0,) * 12, (0, 1, 0, 0, 2, 0, 1, 1, 0, 0, 0, 0), (3,) * 12])
async def test_answers_and_costs_are_the_same(choices: tuple[int, ...]) -> None:
    replies = {}
    for ahead in (True, False):
        engine = engine_of("llama", run_ahead=ahead)
        replies[ahead] = await driven(engine, choices)
        await engine.shut()
    for one, other in zip(replies[True], replies[False], strict=True):
        assert np.array_equal(listed(one).ids, listed(other).ids)
        np.testing.assert_allclose(listed(one).logprobs, listed(other).logprobs, atol=1e-5)
        assert (one.usage, one.length, one.room) == (other.usage, other.length, other.room)


async def test_guesses_that_come_true_need_no_pass_of_their_own() -> None:
    engine = engine_of("llama", run_ahead=True)
    await driven(engine, (0,) * 12)
    assert engine.stats()["steps"] == 1 + 1, "the prompt in two chunks, and nothing else"
    await engine.shut()


async def test_an_engine_whose_guesses_fail_stops_guessing() -> None:
    engine = engine_of("llama", run_ahead=True)
    await driven(engine, (1,) * 20)
    assert engine.stats()["steps"] >= 20
    async with await EngineMember(engine).start(Request.of(QUESTION)) as session:
        await session.next(1)
        state = next(iter(engine._sessions.values()))
        assert state.guess.trust > 0.5, "what one session taught does not concern another"
    await engine.shut()


async def test_a_guess_under_way_is_waited_for_and_another_decision_ends_it() -> None:
    """No pause: the commitment comes while the pass on the guess is being computed."""
    engine = engine_of("llama", run_ahead=True)
    kept, missed = await driven(engine, (0,) * 8, pause=0), await driven(engine, (1,) * 8, pause=0)
    assert [r.length for r in kept] == [r.length for r in missed] == list(range(9))
    await engine.shut()


async def test_sessions_side_by_side_edits_and_newcomers() -> None:
    engine = engine_of("llama", slots=2, run_ahead=True)
    member = EngineMember(engine)

    async def walk(number: int) -> list[list[int]]:
        async with await member.start(Request.of(f"{number} {QUESTION}")) as session:
            return [await moved(session, step) for step in range(8)]

    async def moved(session: Session, step: int) -> list[int]:
        likeliest = int((await session.next(4)).ids[0])
        await asyncio.sleep(0.01 * (step % 3))
        ids = (await session.next(4, edit=Append((likeliest,)))).ids.tolist()
        if step % 4 == 3:
            await session.exchange(edit=Rewind(1))
        return list(map(int, ids))

    assert await together(walk(i) for i in range(5)) == [await walk(i) for i in range(5)]
    await engine.shut()


async def test_nothing_is_kept_of_sessions_that_are_gone() -> None:
    engine = engine_of("llama", run_ahead=True)
    await together(driven(engine, (0, 1) * 4, pause=0.002) for _ in range(6))
    await asyncio.sleep(PAUSE)
    assert not engine._lately and engine.stats()["open_sessions"] == 0
    await engine.shut()


async def test_a_cpu_is_left_to_others_unless_it_is_told_otherwise() -> None:
    engine = engine_of("llama")
    await driven(engine, (0,) * 4)
    assert engine.stats()["steps_ahead"] == 0 and engine.stats()["steps"] >= 5
    await engine.shut()


def test_only_likely_passes_are_worthwhile() -> None:
    sure, new = Guess(), Guess()
    for _ in range(40):
        sure.token = 1
        sure.judge(Append((1,)))
    assert worthwhile([sure] * 8) and worthwhile([new]) and not worthwhile([new] * 3) and not worthwhile([])
    sure.token = 1
    sure.judge(Append((1, 2)))
    assert worthwhile([sure] * 8), "several tokens at once say nothing about a guess"
