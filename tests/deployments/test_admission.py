"""Admission: never more at once than there are places, in order, and nothing is lost to those who leave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.admission import Admission
from ensemble.concurrency import cancel


async def test_in_order_of_arrival() -> None:
    admission, entered = Admission(places=2), list[int]()

    async def request(number: int, places: int) -> None:
        async with admission.held(places):
            entered.append(number)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(request(i, places)) for i, places in enumerate([1, 2, 1, 1])]
    await asyncio.gather(*tasks)
    assert entered == [0, 1, 2, 3], "a small request does not overtake a large one"
    assert (admission.free, admission.waiting) == (2, 0)


async def test_more_than_there_are_count_as_all() -> None:
    admission = Admission(places=3)
    async with admission.held(8):
        assert admission.free == 0
    assert admission.free == 3


@pytest.mark.parametrize("moment", ["waiting", "at its turn"])
async def test_who_leaves_gives_back(moment: str) -> None:
    admission = Admission(places=1)
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
        rng, held, admission = random.Random(seed), 0, Admission(places)

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
