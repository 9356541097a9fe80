"""More than the places and the queue of an ensemble: the rest is refused at once and told when to come again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from tests.serving.conftest import body, wait_for

if TYPE_CHECKING:
    from tests.conftest import Service
    from tests.serving.conftest import Door

PLACES, QUEUE, REST = 5, 2, 12
"""Of ``narrow``: six sessions less the one that is left to plain requests; and what comes beyond both."""
TOKENS = 40

pytestmark = pytest.mark.usefixtures("free")


class Answered(NamedTuple):
    reply: httpx.Response
    seconds: float


def asked(door: Door, number: int, tokens: int = TOKENS) -> Answered:
    began = time.monotonic()
    request = body("narrow", f"go {number}", max_tokens=tokens)
    return Answered(door.http.post("/v1/chat/completions", json=request), time.monotonic() - began)


def test_what_is_too_much_is_refused_and_the_rest_is_answered(door: Door, service: Service) -> None:
    assert service.configuration.ensembles["narrow"].queue == QUEUE
    alone = asked(door, 0).reply.json()["choices"][0]["message"]["content"]
    before = door.metrics()["ensemble_queue_refused_total", "narrow"]
    with ThreadPoolExecutor(PLACES + QUEUE + REST) as pool:
        taken = [pool.submit(asked, door, 0, TOKENS * 9) for _ in range(PLACES)]
        assert wait_for(lambda: door.metrics()["ensemble_open_sessions", "rambler"] == PLACES, 20)
        queued = [pool.submit(asked, door, 0) for _ in range(QUEUE)]
        assert wait_for(lambda: door.metrics()["ensemble_waiting", "narrow"] == QUEUE, 20)
        refused = [future.result(20) for future in [pool.submit(asked, door, 0) for _ in range(REST)]]
        one_by_one = [asked(door, 0) for _ in range(3)]
        assert not any(future.done() for future in queued), "the refused have waited for nobody"
        answered = [future.result(60).reply for future in (*taken, *queued)]
    for reply, _ in (*refused, *one_by_one):
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "queue_full"), reply.text
        assert int(reply.headers["retry-after"]) >= 1
    # The quickest: how long the others take says how busy the machine is with what it has taken on.
    assert min(seconds for _, seconds in one_by_one) < 0.5
    assert [reply.status_code for reply in answered] == [200] * (PLACES + QUEUE)
    texts = [reply.json()["choices"][0]["message"]["content"] for reply in answered]
    assert texts[PLACES:] == [alone] * QUEUE and all(text.startswith(alone) for text in texts)
    assert door.metrics()["ensemble_queue_refused_total", "narrow"] - before == REST + len(one_by_one)
    assert door.is_free(), door.held()


def test_a_stream_is_refused_as_well(door: Door) -> None:
    with ThreadPoolExecutor(PLACES + QUEUE) as pool:
        busy = [pool.submit(asked, door, i, 120) for i in range(PLACES + QUEUE)]
        assert wait_for(lambda: door.metrics()["ensemble_waiting", "narrow"] == QUEUE, 20)
        reply = door.http.post("/v1/chat/completions", json=body("narrow", "go", stream=True))
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "queue_full")
        assert all(future.result(60).reply.status_code == 200 for future in busy)


def test_usage_is_counted_at_the_driver(door: Door) -> None:
    def counted() -> float:
        lines = door.http.get("/metrics").text.splitlines()
        name = 'ensemble_usage_completion_tokens_total{model="narrow",member="rambler"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = counted()
    usage = asked(door, 1, 20).reply.json()["usage"]["members"]["rambler"]
    assert counted() - before == usage["completion_tokens"] > 0
