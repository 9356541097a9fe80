"""The places of an engine: nobody idle blocks anybody, whoever waits is served in order, and plain requests get on."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.vllm.seats import Seat, Seats
from ensemble.concurrency import together


class Driver:
    """Holds a place while it thinks, and takes another when its own was taken away."""

    def __init__(self, seats: Seats) -> None:
        self.seats = seats
        self.seat: Seat | None = None
        self.opened = 0

    async def ask(self, seconds: float = 0.0) -> None:
        if self.seat is None:
            self.seat = await self.seats.hold(self._leave)
            self.opened += 1
        self.seat.work()
        await asyncio.sleep(seconds)
        self.seats.rest(self.seat)

    def close(self) -> None:
        if self.seat is not None:
            self.seats.free(self.seat)
            self.seat = None

    def _leave(self) -> None:
        self.seat = None


async def plain(seats: Seats, seconds: float = 0.0) -> None:
    async with seats.plain():
        await asyncio.sleep(seconds)


async def test_more_sessions_than_places_all_get_on() -> None:
    seats = Seats(3, grace=0.001)
    drivers = [Driver(seats) for _ in range(10)]

    async def decode(driver: Driver) -> None:
        for _ in range(5):
            await driver.ask(0.001)
            await asyncio.sleep(0.004)
        driver.close()

    async with asyncio.timeout(5):
        await together([*(decode(d) for d in drivers), *(plain(seats) for _ in range(10))])
    assert seats.held == seats.plain_held == seats.waiting == 0
    assert 10 < sum(d.opened for d in drivers) <= 10 + seats.evicted


async def test_drivers_that_open_one_engine_and_then_the_other_do_not_wait_for_each_other_for_ever() -> None:
    engines = [Seats(2, grace=0.001), Seats(2, grace=0.001)]

    async def lockstep(first: int) -> None:
        mine = [Driver(engines[first]), Driver(engines[1 - first])]
        for _ in range(4):
            for driver in mine:
                await driver.ask(0.001)
        for driver in mine:
            driver.close()

    async with asyncio.timeout(5):
        await together([lockstep(i % 2) for i in range(6)] + [plain(seats, 0.001) for seats in engines * 5])
    assert all(seats.held == seats.plain_held == 0 for seats in engines)


async def test_who_has_been_idle_longest_goes_and_not_before_its_grace() -> None:
    seats = Seats(3, reserve=0, grace=0.05)
    drivers = [Driver(seats) for _ in range(3)]
    for driver in drivers:
        await driver.ask()
    loop = asyncio.get_running_loop()
    began = loop.time()
    newcomer = Driver(seats)
    await newcomer.ask()
    assert loop.time() - began >= 0.045
    assert [driver.seat is None for driver in drivers] == [True, False, False]


async def test_who_works_keeps_its_place() -> None:
    seats = Seats(2, reserve=0, grace=0.0)
    busy, idle, newcomer = Driver(seats), Driver(seats), Driver(seats)
    await idle.ask()
    working = asyncio.create_task(busy.ask(0.05))
    await asyncio.sleep(0)
    await newcomer.ask()
    assert idle.seat is None and busy.seat is not None
    await working


async def test_the_reserve_is_for_plain_requests() -> None:
    seats = Seats(4, reserve=2, grace=10.0)
    first, second, third = (Driver(seats) for _ in range(3))
    await together([first.ask(), second.ask()])
    waiting = asyncio.create_task(third.ask())
    async with asyncio.timeout(1):
        await together([plain(seats), plain(seats)])
    assert not waiting.done() and seats.held == 2 and seats.waiting == 1
    first.close()
    async with asyncio.timeout(1):
        await waiting
    assert third.seat is not None


async def test_those_who_wait_are_served_in_order() -> None:
    seats = Seats(1, grace=10.0)
    served: list[int] = []

    async def numbered(number: int) -> None:
        async with seats.plain():
            served.append(number)

    async with seats.plain():
        tasks = [asyncio.create_task(numbered(i)) for i in range(5)]
        await asyncio.sleep(0)
        assert served == [] and seats.waiting == 5
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("patience", [0, 1, 2])
async def test_who_gives_up_waiting_takes_nothing_with_it(patience: int) -> None:
    seats = Seats(1, grace=10.0)
    async with seats.plain():
        waiting = asyncio.create_task(plain(seats))
        await asyncio.sleep(0)
    # The place was granted in this very turn of the loop; whoever waited may be gone before it takes it.
    for _ in range(patience):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert seats.plain_held == 0 and seats.waiting == 0


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=25),
)
def test_places_are_never_given_twice(capacity: int, arrivals: list[tuple[bool, int]]) -> None:
    most = {"all": 0, "held": 0}

    async def one(seats: Seats, holds: bool, turns: int) -> None:
        driver = Driver(seats)
        for _ in range(turns):
            if holds:
                await driver.ask()
                most["all"] = max(most["all"], seats.held + seats.plain_held)
                most["held"] = max(most["held"], seats.held)
            else:
                async with seats.plain():
                    most["all"] = max(most["all"], seats.held + seats.plain_held)
                    await asyncio.sleep(0)
        driver.close()

    async def all_of_them() -> Seats:
        seats = Seats(capacity, grace=0.0)
        async with asyncio.timeout(10):
            await together(one(seats, holds, turns) for holds, turns in arrivals)
        return seats

    seats = asyncio.run(all_of_them())
    assert most["all"] <= capacity and most["held"] <= capacity - seats.reserve
    assert seats.held == seats.plain_held == seats.waiting == 0
