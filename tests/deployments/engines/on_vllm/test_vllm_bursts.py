"""What sessions ask at about the same time is given to the engine at once, and nobody is waited for too long."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from deployments.engines.vllm.bursts import Bursts, Gone
from ensemble.concurrency import together

STEP = 0.05


class Engine:
    """Notes what it is given, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bursts = Bursts(lambda: self.seen.append("hold"), lambda: self.seen.append("go"))

    async def give(self, key: str, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        await self.bursts.give(key, partial(self._take, key))

    async def _take(self, key: str) -> None:
        await asyncio.sleep(0)
        self.seen.append(key)

    def answer(self, *keys: str) -> None:
        for key in keys:
            self.bursts.answered(key, STEP)


async def test_one_alone_is_sent_at_once() -> None:
    engine = Engine()
    engine.answer("a")
    async with asyncio.timeout(STEP / 3):
        await engine.give("a")
    assert engine.seen == ["a"]


async def test_those_who_were_answered_together_are_sent_together() -> None:
    engine = Engine()
    engine.answer("a", "b", "c")
    await together([engine.give("a"), engine.give("b", STEP / 20), engine.give("c", STEP / 10)])
    assert engine.seen == ["hold", "a", "b", "c", "go"]


async def test_who_is_late_is_waited_for_only_a_part_of_a_step() -> None:
    engine = Engine()
    engine.answer("a", "b", "late")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await together([engine.give("a"), engine.give("b")])
    assert STEP / 2 < loop.time() - began < 4 * STEP
    await engine.give("late")
    assert engine.seen == ["hold", "a", "b", "go", "late"]


async def test_two_parts_that_take_turns_become_one() -> None:
    engine = Engine()
    engine.answer("a", "b")
    await engine.give("b")
    early = asyncio.create_task(engine.give("a"))
    await asyncio.sleep(STEP / 4)
    assert engine.seen == ["b"], "one waits while the engine works for the other"
    engine.answer("b")
    await together([engine.give("b", STEP / 10), _awaited(early)])
    assert engine.seen == ["b", "hold", "a", "b", "go"]


async def test_what_takes_many_steps_is_not_waited_for() -> None:
    engine = Engine()
    await engine.bursts.give("long", partial(engine._take, "long"), brief=False)
    async with asyncio.timeout(STEP / 3):
        await engine.give("a")
    assert engine.seen == ["long", "a"]


async def _awaited(task: asyncio.Task[None]) -> None:
    await task


async def test_who_is_gone_is_not_waited_for() -> None:
    engine = Engine()
    engine.answer("a", "gone")
    giving = asyncio.create_task(engine.give("a"))
    await asyncio.sleep(0)
    engine.bursts.gone("gone")
    async with asyncio.timeout(STEP / 3):
        await giving
    assert engine.seen == ["a"]


@pytest.mark.parametrize("brief", [True, False])
async def test_who_goes_while_it_waits_has_sent_nothing_and_holds_nobody_up(brief: bool) -> None:
    engine = Engine()
    engine.answer("a", "b", "late")
    waiting = asyncio.create_task(engine.bursts.give("a", partial(engine._take, "a"), brief=brief))
    await asyncio.sleep(0)
    engine.bursts.gone("a")
    with pytest.raises(Gone):
        await waiting
    engine.bursts.gone("late")
    async with asyncio.timeout(STEP / 3):
        await engine.give("b")
    engine.answer("b")
    async with asyncio.timeout(STEP / 3):
        await engine.give("b")
    assert engine.seen == ["b", "b"]


async def test_who_gives_up_has_sent_nothing_and_holds_nobody_up() -> None:
    engine = Engine()
    engine.answer("a", "b", "late")
    quitter = asyncio.create_task(engine.give("a"))
    await asyncio.sleep(0.001)
    quitter.cancel()
    await engine.give("b")
    await asyncio.gather(quitter, return_exceptions=True)
    assert engine.seen == ["b"]


async def test_who_fails_to_send_holds_up_neither_the_others_nor_the_engine() -> None:
    engine = Engine()
    engine.answer("a", "b")

    async def fails() -> None:
        raise RuntimeError("no line")

    beside = asyncio.create_task(engine.give("a"))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="no line"):
        await engine.bursts.give("b", fails)
    await beside
    await asyncio.sleep(0.001)
    assert engine.seen == ["hold", "a", "go"]
