"""Answers that are kept, and members behind HTTP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from evaluation_doubles import Dictated, asking, inquiry_of, reply

from ensemble.errors import BadRequest, BudgetExceeded, ContextTooLong, MemberError, MemberLost, Overloaded, QueueFull
from ensemble.request import Delta, Finish, Spent
from jobs.evaluation.asks import JOURNAL, Ask, Ledger, Reply, kept_in
from jobs.evaluation.inquiry import answered
from jobs.evaluation.service import HttpMember, refusal

ASK = Ask(name="a", question="q", seed=1, max_tokens=8)


def test_every_part_of_an_ask_is_part_of_its_key() -> None:
    changes: dict[str, Any] = {
        "name": "b",
        "question": "r",
        "seed": 2,
        "max_tokens": 9,
        "temperature": 0.5,
        "options": '{"topk": 5}',
        "tokens": 100,
        "logprobs": True,
    }
    others = [replace(ASK, **{name: value}) for name, value in changes.items()]
    keys = {ask.key("m") for ask in [ASK, *others]} | {ASK.key("another")}
    assert len(keys) == len(others) + 2
    assert ASK.key("m") == replace(ASK).key("m")


def test_what_is_sent() -> None:
    sent = replace(ASK, tokens=50, options='{"topk": 5}', logprobs=True).request
    assert (sent.question, sent.sampling.max_tokens, sent.sampling.seed, sent.sampling.logprobs) == ("q", 8, 1, 0)
    assert (sent.budget.tokens, sent.budget.exhausted, sent.options) == (50, "partial", {"topk": 5})
    assert ASK.request.sampling.greedy and ASK.request.budget.tokens is None


def test_replies_survive_a_torn_line(tmp_path: Path) -> None:
    kept = reply("é\n", logprob=-0.25)
    with kept_in(tmp_path) as ledger:
        ledger.add("one", kept)
        ledger.add("two", reply("", error="overloaded: later"), final=False)
        assert ledger.find("two") is not None
    file = next((tmp_path / JOURNAL).glob("*.jsonl"))
    file.write_bytes(file.read_bytes() + b'{"row": 0, "key": "three", "rep')
    with kept_in(tmp_path) as ledger:
        assert ledger.find("one") == kept
        assert ledger.find("two") is None, "a retry may help"
        assert ledger.find("three") is None


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BadRequest, match="holds files that are no evaluation's"), kept_in(tmp_path):
        pass
    with pytest.raises(BadRequest, match="is no folder"), kept_in(tmp_path / "thesis.tex"):
        pass
    with kept_in(tmp_path / "new"), pytest.raises(BadRequest, match="at work here"), kept_in(tmp_path / "new"):
        pass


async def test_equal_questions_are_put_once_and_kept_ones_not_at_all(tmp_path: Path) -> None:
    told: list[Any] = []
    member = Dictated("a", lambda question, _: question.upper())
    with asking(tmp_path, {"a": member}, told=told) as inquiry:
        replies = await inquiry.all([ASK, ASK, replace(ASK, seed=2)])
        assert (await inquiry.one(ASK)).text == "Q"
    assert [r.text for r in replies] == ["Q"] * 3
    assert len(member.asked) == 2
    assert (told[-1].rows, told[-1].done, told[-1].resumed) == (2, 2, 0)
    again: list[Any] = []
    with asking(tmp_path, {"a": member}, told=again) as inquiry:
        assert (await inquiry.all([ASK, ASK, replace(ASK, seed=3)]))[:2] == [replies[0], replies[0]]
        assert await inquiry.one(ASK) == replies[0]
    assert len(member.asked) == 3
    assert (again[-1].rows, again[-1].done, again[-1].resumed) == (2, 2, 1)


async def test_no_more_are_under_way_than_allowed(tmp_path: Path) -> None:
    running = peak = 0

    class Slow(Dictated):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.005)
            running -= 1
            async for event in super().generate(request):
                yield event

    with kept_in(tmp_path) as ledger:
        inquiry = inquiry_of(ledger, {"a": Slow("a", lambda *_: "x")}, concurrency=3)
        await inquiry.all([replace(ASK, seed=seed) for seed in range(20)])
    assert peak == 3


async def test_errors_are_replies_with_their_cost() -> None:
    found, final = await answered(Dictated("a", lambda *_: ContextTooLong("too long")), ASK, attempts=3)
    assert (found.error, found.tokens, found.cost, final) == (
        "context_length_exceeded: too long",
        10,
        Decimal("0.01"),
        True,
    )
    found, final = await answered(Dictated("a", lambda *_: Overloaded("later")), ASK, attempts=1)
    assert (found.error, final) == ("overloaded: later", False)


async def test_a_cancelled_inquiry_keeps_what_is_done(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    class Stuck(Dictated):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            if request.sampling.seed == 2:
                stuck.set()
                await asyncio.sleep(3600)
            async for event in super().generate(request):
                yield event

    with asking(tmp_path, {"a": Stuck("a", lambda *_: "x")}, concurrency=1) as inquiry:
        work = asyncio.create_task(inquiry.all([ASK, replace(ASK, seed=2), replace(ASK, seed=3)]))
        await stuck.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await inquiry.close()
    folder = tmp_path / JOURNAL
    ledger = Ledger(folder)
    assert ledger.find(ASK.key("as dictated")) is not None
    assert ledger.find(replace(ASK, seed=3).key("as dictated")) is None
    ledger.close()


def served(status: int, body: Any) -> tuple[HttpMember, list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body))

    connection = httpx.AsyncClient(base_url="http://x", transport=httpx.MockTransport(answer))
    return HttpMember("pair", connection), sent


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "members": {
        "a": {"calls": 1, "prompt_tokens": 4, "completion_tokens": 2, "cost": "0.5"},
        "b": {"calls": 2, "prompt_tokens": 5, "completion_tokens": 2, "cost": "0.25"},
    },
}


async def test_an_answer_over_http() -> None:
    tokens = {
        "content": [{"token": "h", "bytes": [104], "logprob": -0.5}, {"token": "i", "bytes": None, "logprob": -1.0}]
    }
    choice = {"message": {"content": "hi"}, "finish_reason": "length", "logprobs": tokens}
    member, sent = served(200, {"choices": [choice], "usage": USAGE})
    ask = replace(ASK, tokens=50, options='{"topk": 5}', logprobs=True)
    found, _ = await answered(member, ask, attempts=1)
    assert (found.text, found.finish, found.logprob, found.calls, found.tokens, found.cost) == (
        "hi",
        "length",
        -1.5,
        3,
        13,
        Decimal("0.75"),
    )
    assert sent == [
        {
            "model": "pair",
            "messages": [{"role": "user", "content": "q"}],
            "max_tokens": 8,
            "temperature": 0.0,
            "seed": 1,
            "logprobs": True,
            "top_logprobs": 0,
            "budget": {"tokens": 50, "exhausted": "partial"},
            "ensemble": {"topk": 5},
        }
    ]


async def test_usage_of_services_that_do_not_tell_members() -> None:
    member, _ = served(
        200, {"choices": [{"message": {"content": None}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    )
    events = [event async for event in member.generate(ASK.request)]
    assert [type(event) for event in events] == [Spent, Delta, Finish]
    found, _ = await answered(member, ASK, attempts=1)
    assert (found.text, found.calls, found.tokens, found.logprob) == ("", 1, 3, None)


async def test_a_refusal_costs_what_was_spent() -> None:
    error = {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded", "param": None}
    member, sent = served(400, {"error": error, "usage": USAGE})
    found, final = await answered(member, ASK, attempts=4)
    assert (found.error, found.tokens, final, len(sent)) == ("context_length_exceeded: too long", 13, True, 1)


async def test_what_is_no_answer() -> None:
    member, _ = served(502, b"<html>")
    with pytest.raises(MemberError, match="status 502, and no JSON"):
        [event async for event in member.generate(ASK.request)]


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("queue_full", 429, QueueFull),
        ("budget_exceeded", 429, BudgetExceeded),
        ("member_lost", 503, MemberLost),
        ("whatever", 503, MemberLost),
        ("whatever", 500, MemberError),
        ("whatever", 422, BadRequest),
    ],
)
def test_errors_are_what_they_were(code: Any, status: Any, kind: Any) -> None:
    assert type(refusal({"code": code, "message": "m"}, status)) is kind


def test_a_reply_is_the_same_after_writing() -> None:
    kept = Reply(text="x", finish="stop", cost=Decimal("1E-18"), logprob=None, calls=2)
    assert Reply.of(json.loads(json.dumps(kept.as_record()))) == kept
