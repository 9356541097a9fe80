"""Passes wait for those who were just answered, and no longer than their patience."""

from __future__ import annotations

import asyncio

from deployments.engines.gathering import Gathering


async def took(gathering: Gathering) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await gathering.complete()
    return loop.time() - began


async def test_nobody_missing_is_no_wait() -> None:
    gathering = Gathering()
    gathering.answered(["a"], 100)
    gathering.asked("a")
    assert await took(gathering) < 0.05


async def test_the_pass_waits_for_the_last_one() -> None:
    gathering = Gathering()
    gathering.answered(["a", "b"], 100)
    gathering.asked("a")
    asyncio.get_running_loop().call_later(0.05, gathering.asked, "b")
    assert 0.04 < await took(gathering) < 5


async def test_patience_ends_and_is_not_spent_twice() -> None:
    gathering = Gathering()
    gathering.answered(["gone"], 0.2)
    assert 0.04 < await took(gathering) < 2
    assert await took(gathering) < 0.04
