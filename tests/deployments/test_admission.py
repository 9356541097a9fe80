"""Admission: never more at once than there are places, in order, and nothing is lost to those who leave."""

from __future__ import annotations

import asyncio
import pickle
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.admission import Admission
from ensemble.concurrency import cancel
from ensemble.errors import QueueFull


async def test_in_order_of_arrival() -> None:
    admission, entered = Admission(places=2, queue=64), list[int]()

    async def request(number: int, places: int) -> None:
        async with admission.held(places):
            entered.append(number)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(request(i, places)) for i, places in enumerate([1, 2, 1, 1])]
    await asyncio.gather(*tasks)
    assert entered == [0, 1, 2, 3], "a small request does not overtake a large one"
    assert (admission.free, admission.waiting) == (2, 0)


async def test_more_than_there_are_count_as_all() -> None:
    admission = Admission(places=3, queue=64)
    async with admission.held(8):
        assert admission.free == 0
    assert admission.free == 3


@pytest.mark.parametrize("moment", ["waiting", "at its turn"])
async def test_who_leaves_gives_back(moment: str) -> None:
    admission = Admission(places=1, queue=64)
    first, second = admission.held(1), admission.held(1)
    await first.__aenter__()
    leaving = asyncio.create_task(second.__aenter__())
    behind = asyncio.create_task(admission.held(1).__aenter__())
    await asyncio.sleep(0)
    if moment == "at its turn":
        await first.__aexit__(None, None, None)
    leaving.cancel()
    if moment == "waiting":
        await first.__aexit__(None, None, None)
    async with asyncio.timeout(1):
        await behind
    assert admission.waiting == 0 and leaving.cancelled()


@given(st.integers(1, 4), st.lists(st.integers(1, 6), min_size=1, max_size=20), st.integers(0, 2**16))
def test_never_more_than_there_are_and_all_come_to_an_end(places: int, wanted: Sequence[int], seed: int) -> None:
    async def main() -> None:
        rng, held, admission = random.Random(seed), 0, Admission(places, queue=64)

        async def request(count: int) -> None:
            nonlocal held
            async with admission.held(count):
                held += min(count, places)
                try:
                    assert held <= places
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    held -= min(count, places)

        tasks = [asyncio.create_task(request(count)) for count in wanted]
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        await cancel(rng.sample(tasks, rng.randrange(len(tasks))))
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        assert (admission.free, admission.waiting, held) == (places, 0, 0)

    asyncio.run(main())


@pytest.mark.parametrize("queue", [0, 2])
async def test_one_more_than_may_wait_is_refused_at_once(queue: int) -> None:
    admission = Admission(places=1, queue=queue)
    async with admission.held(1):
        waiting = [asyncio.create_task(admission.held(1).__aenter__()) for _ in range(queue)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            async with admission.held(1):
                pytest.fail("there is no place")
        assert (admission.waiting, admission.refused) == (queue, 1)
        await cancel(waiting)
    assert (admission.free, admission.waiting) == (1, 0)


async def test_refusals_say_when_to_come_again() -> None:
    now = 0.0
    admission = Admission(places=2, queue=3, clock=lambda: now)
    async with admission.held(2):
        now += 10
    async with admission.held(2):
        waiting = [asyncio.create_task(admission.held(1).__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await admission.held(1).__aenter__()
        await cancel(waiting)
    assert refused.value.retry_after == 15, "three places, each held for ten seconds, two at a time"


async def test_those_that_are_refused_are_told_to_come_one_after_the_other() -> None:
    now = 0.0
    admission = Admission(places=1, queue=0, clock=lambda: now)
    async with admission.held(1):
        now += 10
    told = []
    async with admission.held(1):
        for _ in range(8):
            with pytest.raises(QueueFull) as refused:
                await admission.held(1).__aenter__()
            told.append(refused.value.retry_after)
        assert told == [1, 10, 20, 30, 40, 50, 60, 60], "never later than in a minute"
        now += 100
        with pytest.raises(QueueFull) as refused:
            await admission.held(1).__aenter__()
    assert refused.value.retry_after == 1, "who has not come again by now will not"


async def test_before_anything_is_known_a_second_is_asked_for() -> None:
    admission = Admission(places=1, queue=0)
    async with admission.held(1):
        with pytest.raises(QueueFull) as refused:
            await admission.held(1).__aenter__()
    assert pickle.loads(pickle.dumps(refused.value)).retry_after == 1
