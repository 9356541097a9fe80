"""More ensembles than places on two members, with plain requests in between: all come to their end."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.conftest import Json, body, wait_for

if TYPE_CHECKING:
    from tests.serving.conftest import Door

TOKENS = 24
PLACES = 5
"""Of the six that each member has, those that co-decoding may take."""

pytestmark = pytest.mark.usefixtures("free")


def asked(door: Door, model: str, number: int, **fields: Any) -> Json:
    return door.ask(model, f"go {number}", max_tokens=TOKENS, **fields)


def primary(number: int) -> str:
    """Who is opened first: each member for half of the requests, which is how locks come about."""
    return ("rambler", "frail")[number % 2]


def test_all_end(door: Door) -> None:
    with ThreadPoolExecutor(28) as pool:
        options = [{"threshold": 0.99, "primary": primary(i)} for i in range(18)]
        ensembles = [pool.submit(asked, door, "ramble", i, ensemble=o) for i, o in enumerate(options)]
        assert wait_for(lambda: door.metrics()["ensemble_waiting", "ramble"] > 0, 20)
        plain = [pool.submit(asked, door, primary(i), i) for i in range(6)]
        replies = [future.result(60) for future in (*ensembles, *plain)]
    assert all(reply["choices"][0]["finish_reason"] in ("length", "stop") for reply in replies)
    assert all(reply["usage"]["completion_tokens"] > 0 for reply in replies)


def test_never_more_are_decoded_than_there_are_places(door: Door) -> None:
    with ThreadPoolExecutor(12) as pool:
        asking = [pool.submit(asked, door, "ramble", i) for i in range(10)]
        most = 0.0
        while not all(future.done() for future in asking):
            metrics = door.metrics()
            most = max(most, *(metrics["ensemble_open_sessions", name] for name in ("rambler", "frail")))
    assert 0 < most <= PLACES


def test_choices_of_one_request_take_a_place_each(door: Door) -> None:
    reply = asked(door, "ramble", 0, n=7, temperature=1, seed=3)
    assert len(reply["choices"]) == 7


def test_waiting_counts_against_the_budget_of_time(door: Door) -> None:
    with ThreadPoolExecutor(PLACES) as pool:
        long = [pool.submit(door.ask, "ramble", f"go {i}", max_tokens=400) for i in range(PLACES)]
        assert wait_for(lambda: door.held().get(("ensemble_running", "ramble"), 0) == PLACES, 20)
        began = time.monotonic()
        request = body("ramble", "go", max_tokens=4, budget={"seconds": 0.2})
        reply = door.http.post("/v1/chat/completions", json=request)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "budget_exceeded"), reply.text
        assert time.monotonic() - began < 5
        for future in long:
            future.result(60)


def test_who_leaves_the_queue_holds_up_nobody(door: Door) -> None:
    with ThreadPoolExecutor(PLACES + 3) as pool:
        asking = [pool.submit(asked, door, "ramble", i) for i in range(PLACES + 3)]
        request = body("ramble", "go", max_tokens=1900)
        with pytest.raises(Exception, match="timed out"):
            door.http.post("/v1/chat/completions", json=request, timeout=0.3)
        for future in asking:
            assert future.result(60)["choices"]
