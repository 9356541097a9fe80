"""What is bounded: budgets, fan-out, clients that leave, more load than there is room for; and ids that are equal."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import psutil

from ensemble.failures.policy import Policy
from tests.faults.cluster import Stage
from tests.faults.load import Heard, Stream, ask, body, freed, held, metrics, wait_for
from tests.faults.losses import TOKENS, undisturbed
from tests.faults.scenarios import Found, Play, Scenario

CLIENTS = 200
"""That leave at once."""
WORK = ("ensemble_steps_total", "ensemble_tokens_total")
OVERSHOOT = 2.0
"""Sessions of the lockstep that is asked: what one step may cost."""


def spent(heard: Heard, part: str) -> float:
    """Of a part of the budget, from the usage that the stream ended with."""
    members = heard.usage["members"].values()
    if part == "calls":
        return float(sum(member["calls"] for member in members))
    return float(heard.usage["total_tokens" if part == "tokens" else "cost"])


def exhausted(model: str, part: str, limit: Decimal | int, step: float) -> Play:
    """The budget ends a stream in the middle: by a typed error, or by a partial answer that says so.

    Args:
        step: what one step costs at most, in the unit of this part of the budget.
    """

    def play(stage: Stage) -> Found:
        budget = {part: str(limit) if part == "cost" else limit}
        stage.settled(model)
        plain = undisturbed(stage.url, model)
        by_error = Stream(stage.url, model, max_tokens=TOKENS, budget=budget).result()
        partial = Stream(stage.url, model, max_tokens=TOKENS, budget={**budget, "exhausted": "partial"}).result()
        assert by_error.code == "budget_exceeded", by_error
        assert partial.answered and partial.finish == "length", partial.error
        assert partial.ensemble["partial"] == f"budget.{part}", partial.ensemble
        for heard in (by_error, partial):
            assert heard.text and heard.text != plain and plain.startswith(heard.text)
        freed(stage.url, 2)
        over = max(spent(heard, part) for heard in (by_error, partial)) - float(limit)
        return Found(f"{len(by_error.pieces)} and {len(partial.pieces)} pieces of {len(plain)} written", over / step)

    return play


def out_of_time(stage: Stage) -> Found:
    """The time of a request runs out. Figure: seconds beyond it."""
    stage.settled("ramble")
    limit, begun = 0.8, time.monotonic()
    streams = [
        Stream(stage.url, "ramble", max_tokens=TOKENS, budget={"seconds": limit, "exhausted": how})
        for how in ("error", "partial")
    ]
    by_error, partial = (stream.result() for stream in streams)
    assert by_error.code == "budget_exceeded" and by_error.pieces, by_error.error
    assert partial.answered and partial.ensemble["partial"] == "budget.seconds", partial.error
    freed(stage.url, 2)
    took = max(by_error.ended, partial.ended) - begun
    return Found(f"{len(by_error.pieces)} and {len(partial.pieces)} pieces written", took - limit)


def out_of_calls(stage: Stage) -> Found:
    """The second member is needed once the first has said how unsure it is. Figure: calls made beyond the budget."""
    stage.settled("ramble")
    before = work_done(stage.url)
    unsure = {"threshold": 0.99}
    reply = ask(stage.url, "ramble", max_tokens=4, ensemble=unsure, budget={"calls": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "budget_exceeded"), reply.text
    freed(stage.url, 2)
    calls = sum(member["calls"] for member in reply.json()["usage"]["members"].values())
    assert work_done(stage.url) != before
    assert ask(stage.url, "ramble", max_tokens=4, ensemble=unsure, budget={"calls": 2}).status_code == 200
    return Found(f"{calls} of the 2 calls that it takes had been made", calls - 1)


def work_done(url: str) -> dict[tuple[str, ...], float]:
    """What the engines have computed so far."""
    return {key: value for key, value in metrics(url).items() if key[0] in WORK}


def amplified(stage: Stage) -> Found:
    """Choices × samples × nested members above the cap are refused before any call. Figure: steps of any engine."""
    stage.settled("nested")
    freed(stage.url, 2)
    before = work_done(stage.url)
    reply = ask(stage.url, "nested", "1+1=", n=8)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "over_cap"), reply.text
    after = work_done(stage.url)
    assert before and ask(stage.url, "nested", "1+1=", max_tokens=4).status_code == 200
    assert work_done(stage.url) != after
    steps = sum(after.values()) - sum(before.values())
    return Found("the same request with one choice is answered and does make steps", steps)


def sent(url: str, model: str, **fields: Any) -> socket.socket:
    """A connection on which a request for a long answer has been sent."""
    content = json.dumps(body(model, max_tokens=TOKENS, **fields)).encode()
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def open_files(pids: Sequence[int]) -> int:
    return sum(psutil.Process(pid).num_fds() for pid in pids)


def stormed(stage: Stage) -> Found:
    """Two hundred clients leave at once, streaming, waiting and queued. Figure: seconds until nothing is held."""
    models = ("rambler", "frail", "ramble")
    stage.settled(*models)
    involved = [*(f"model-{m}" for m in models[:2]), "ensemble-ramble", "gateway"]
    pids = [replica.pid for name in involved for replica in stage.replicas(name)] + stage.processes("SERVE_PROXY")
    # The first storm warms connections between processes up; only the second may leave nothing behind.
    for _ in range(2):
        freed(stage.url, 10)
        files, tasks = open_files(pids), sum(stage.tasks(name) for name in involved)
        connections = [sent(stage.url, models[i % 3], stream=i % 2 == 0) for i in range(CLIENTS)]
        assert wait_for(lambda: held(stage.url).get(("ensemble_running", "ramble"), 0) >= 20, 20) is not None
        at_work = held(stage.url)
        left = time.monotonic()
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(socket.socket.close, connections))
        freed(stage.url, 10)
        took = time.monotonic() - left
    # Serve keeps some handles for a moment after the last request.
    assert wait_for(lambda: open_files(pids) <= files + 8, 10) is not None, (files, open_files(pids))
    now = sum(stage.tasks(name) for name in involved)
    assert wait_for(lambda: sum(stage.tasks(n) for n in involved) <= tasks + 8, 10) is not None, (tasks, now)
    running = sum(value for key, value in at_work.items() if key[0] == "ensemble_running")
    return Found(f"{running:.0f} requests and {at_work.get(('ensemble_waiting', 'ramble'), 0):.0f} waiting", took)


def namesakes(stage: Stage) -> Found:
    """Requests of one id at the same time are strangers to each other. Figure: answers that are not their own."""
    stage.settled("ramble")
    questions = ["go", "go on", "stop", "go"]
    alone = [ask(stage.url, "ramble", question, max_tokens=200).json() for question in questions]

    def asked(question: str) -> httpx.Response:
        fields = body("ramble", question, max_tokens=200)
        headers = {"x-request-id": "the-same"}
        return httpx.post(f"{stage.url}/v1/chat/completions", json=fields, headers=headers, timeout=60)

    with ThreadPoolExecutor(len(questions)) as pool:
        asking = [pool.submit(asked, question) for question in questions]
        together = wait_for(lambda: held(stage.url).get(("ensemble_running", "ramble"), 0) >= 2, 10)
        replies = [each.result().json() for each in asking]
    assert together is not None, "they were not under way at the same time"
    wrong = sum(a["choices"] != b["choices"] or a["usage"] != b["usage"] for a, b in zip(alone, replies, strict=True))
    freed(stage.url, 2)
    return Found("at least 2 of one id were under way at once", wrong)


def never_voted(stage: Stage) -> Found:
    """A member whose weights hold NaN is excluded and counted. Figure: answers in which it has a part."""
    before = excluded(stage.url)
    replies = [ask(stage.url, "voters", f"{i}+{i}=", max_tokens=6) for i in range(10, 20)]
    assert [reply.status_code for reply in replies] == [200] * len(replies), replies[0].text
    told = [reply.json() for reply in replies]
    assert all("sick" in str(one["ensemble"]["degraded"]) for one in told), told[0]["ensemble"]
    assert [one["choices"][0]["message"]["content"] for one in told] == [str(2 * i) for i in range(10, 20)]
    counted = excluded(stage.url) - before
    # From the fifth on it is left alone for a while.
    assert counted >= Policy().breaker_failures, metrics(stage.url)
    credited = sum("sick" in str(one["ensemble"]["credits"]) for one in told)
    return Found(f"{counted:.0f} answers of the member were counted as excluded", credited)


def excluded(url: str) -> float:
    labels = {"ensemble_incidents_total", "sick", "excluded", "nan"}
    return sum(value for key, value in metrics(url).items() if labels <= set(key))


SCENARIOS = [
    Scenario(
        name="budget: tokens",
        claim="a budget of tokens ends an answer within one step, by an error or by a partial answer, as asked",
        play=exhausted("ramble", "tokens", 300, OVERSHOOT),
        bound=1,
        unit="steps beyond",
        quick=True,
    ),
    Scenario(
        name="budget: cost",
        claim="a budget of money ends an answer within one step",
        play=exhausted("ramble", "cost", Decimal("0.5"), 0.002 + 0.001),
        bound=1,
        unit="steps beyond",
    ),
    Scenario(
        name="budget: seconds",
        claim="a budget of time ends an answer within one step",
        play=out_of_time,
        bound=1.5,
        unit="s beyond",
        quick=True,
    ),
    Scenario(
        name="budget: calls",
        claim="a budget of calls ends a request before the call that would exceed it",
        play=out_of_calls,
        bound=0,
        unit="calls beyond",
        quick=True,
    ),
    Scenario(
        name="amplification",
        claim="a request whose choices, samples and nested members exceed the cap is refused before any call",
        play=amplified,
        bound=0,
        unit="steps and tokens of engines",
        quick=True,
    ),
    Scenario(
        name="disconnect storm",
        claim="200 clients that leave at once leave no session, task or file handle behind",
        play=stormed,
        bound=2,
        unit="s until free",
        quick=True,
    ),
    Scenario(
        name="equal request ids",
        claim="requests that carry the same id get each their own answer and usage",
        play=namesakes,
        bound=0,
        unit="wrong answers",
        quick=True,
    ),
    Scenario(
        name="NaN member",
        claim="a member that computes NaN is excluded and counted, and has no vote",
        play=never_voted,
        bound=0,
        unit="answers with its part",
    ),
]
