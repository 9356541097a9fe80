"""An answer that was not made as configured says so: in its body, its headers, its stream, and so do errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from deployments.api.marks import Marks
from deployments.gateway import Served
from deployments.tally import ANSWERING
from ensemble.errors import MemberLost, Overloaded
from ensemble.member import Capability, Card, Member
from ensemble.request import Delta, Event, Finish, Incident, Request, Spent, Trace, Usage
from ensemble.testing import ScriptedMember, TinyMember

USER = [{"role": "user", "content": "?"}]
DROPPED = Incident("dropped", "member_lost", "frail")
HEDGED = Incident("hedged", "slow", "words")
SPENT = Spent("adder", Usage(1, 3, 2, Decimal("0.5")))


class Telling(Member):
    """An ensemble as the gateway sees one: its events are dictated."""

    def __init__(self, events: Sequence[Event], error: Exception | None = None) -> None:
        self.card = Card("telling", frozenset({Capability.GENERATE}), 4096)
        self._events, self._error = events, error

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        for event in self._events:
            yield event
        if self._error is not None:
            raise self._error


def asked(serve: Any, events: Sequence[Event], error: Exception | None = None, **fields: Any) -> Any:
    member = Served(Telling(events, error), "relay", ("adder", "frail", "words"))
    with serve({"e": member}) as gateway:
        return gateway.post({"model": "e", "messages": USER, **fields})


def chunks(reply: Any) -> list[Any]:
    pieces = [piece.removeprefix("data: ") for piece in reply.text.split("\n\n")]
    return [json.loads(piece) for piece in pieces if piece not in ("", "[DONE]")]


@pytest.fixture
def serve() -> Any:
    from deployments.gateway import build_app
    from tests.deployments.gateway.conftest import running

    return lambda served: running(build_app(served), {})


def test_a_whole_answer_names_who_was_left_out_and_all_that_happened(serve: Any) -> None:
    reply = asked(serve, [HEDGED, Delta("a"), DROPPED, Finish("stop"), SPENT])
    ensemble = reply.json()["ensemble"]
    assert reply.headers["x-ensemble-degraded"] == "frail" and "x-ensemble-partial" not in reply.headers
    assert ensemble["degraded"] == [{"member": "frail", "reason": "member_lost", "kind": "dropped"}]
    assert [(i["kind"], i["member"], i["reason"], i["choice"]) for i in ensemble["incidents"]] == [
        ("hedged", "words", "slow", 0),
        ("dropped", "frail", "member_lost", 0),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_of_those_who_gave_it(serve: Any, stream: bool) -> None:
    """While a configuration is rolled out, the driver may be newer than the gateway's listing."""
    who = Trace(ANSWERING, {"method": "gac", "members": ["adder", "newer"]})
    reply = asked(serve, [who, Delta("a"), Finish("stop")], stream=stream, trace=True)
    told = chunks(reply)[-1] if stream else reply.json()
    assert (told["ensemble"]["method"], told["ensemble"]["members"]) == ("gac", ["adder", "newer"])
    assert "newer" not in json.dumps(chunks(reply)[:-1] if stream else told["ensemble"]["traces"])


def test_an_answer_as_configured_has_no_marks(serve: Any) -> None:
    reply = asked(serve, [Delta("a"), Finish("stop")])
    assert set(reply.json()["ensemble"]) == {"method", "members", "credits"}
    assert not [name for name in reply.headers if name.startswith("x-ensemble")]


def test_a_streams_headers_tell_what_was_before_and_its_chunks_all(serve: Any) -> None:
    late = Incident("excluded", "nan", "words")
    reply = asked(serve, [DROPPED, Delta("a"), late, Delta("b"), Finish("stop")], stream=True)
    assert reply.headers["x-ensemble-degraded"] == "frail"
    told = [chunk.get("ensemble", {}) for chunk in chunks(reply)]
    kinds = [next(iter(ensemble), None) for ensemble in told]
    assert kinds == [None, "incident", "credits", "incident", "credits", "method"]
    assert told[1]["incident"] == {"kind": "dropped", "member": "frail", "reason": "member_lost", "choice": 0}
    assert [entry["member"] for entry in told[-1]["degraded"]] == ["frail", "words"]


def test_a_member_is_named_once_however_many_choices_it_missed() -> None:
    marks = Marks([DROPPED, Incident("dropped", "member_lost", "frail", choice=1), Incident("excluded", "nan", "b")])
    assert marks.headers == {"x-ensemble-degraded": "frail,b"}
    assert len(marks.degraded) == 2 and len(marks.whole["incidents"]) == 3


def test_an_exhausted_budget_marks_the_answer(serve: Any) -> None:
    events = [Delta("a"), Incident("exhausted", "budget.tokens"), Finish("length")]
    reply = asked(serve, events)
    assert reply.headers["x-ensemble-partial"] == reply.json()["ensemble"]["partial"] == "budget.tokens"
    assert "degraded" not in reply.json()["ensemble"]
    assert chunks(asked(serve, events, stream=True))[-1]["ensemble"]["partial"] == "budget.tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_tells_what_was_spent_before(serve: Any, stream: bool) -> None:
    told = [Delta("a"), SPENT] if stream else [SPENT]
    reply = asked(serve, told, MemberLost("gone", member="frail"), stream=stream)
    error = chunks(reply)[-1] if stream else reply.json()
    assert error["error"]["code"] == "member_lost"
    assert error["usage"]["members"] == {
        "adder": {"calls": 1, "prompt_tokens": 3, "completion_tokens": 2, "cost": "0.5"}
    }
    assert error["usage"]["total_tokens"] == 5


@pytest.mark.parametrize("error", [MemberLost("gone"), RuntimeError("secret")])
def test_a_stream_that_fails_before_its_first_text_tells_its_usage_with_the_status(
    serve: Any, error: Exception
) -> None:
    reply = asked(serve, [SPENT], error, stream=True)
    assert reply.status_code >= 500 and reply.json()["usage"]["total_tokens"] == 5


def test_an_error_that_cost_nothing_has_no_usage(serve: Any) -> None:
    assert "usage" not in asked(serve, [], MemberLost("gone")).json()


@pytest.mark.parametrize(("after", "told"), [(None, "1"), (7, "7"), (2.1, "3")])
def test_a_retry_is_asked_for_when_it_may_help(serve: Any, after: float | None, told: str) -> None:
    error = Overloaded("busy")
    error.retry_after = after
    assert asked(serve, [], error).headers["retry-after"] == told


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_is_kept_to_its_budget_and_its_answer_marked(serve: Any, stream: bool) -> None:
    budget = {"tokens": 6, "exhausted": "partial"}
    with serve({"tiny": Served(TinyMember("tiny", seed=1, context_length=512))}) as gateway:
        body = {"model": "tiny", "messages": USER, "max_tokens": 60, "n": 2, "stream": stream, "budget": budget}
        reply = gateway.post(body)
    assert reply.status_code == 200, reply.text
    last = chunks(reply)[-1] if stream else reply.json()
    assert last["ensemble"] == {"partial": "budget.tokens"}
    told = [c for chunk in (chunks(reply) if stream else [last]) for c in chunk["choices"] if c["finish_reason"]]
    assert [choice["finish_reason"] for choice in told] == ["length"] * 2


@pytest.mark.parametrize("word", [{}, {"exhausted": "error"}])
def test_without_the_word_an_exhausted_budget_is_an_error_that_tells_what_was_spent(serve: Any, word: Any) -> None:
    with serve({"tiny": Served(TinyMember("tiny", seed=1, context_length=512))}) as gateway:
        budget = {"tokens": 6, **word}
        reply = gateway.post({"model": "tiny", "messages": USER, "max_tokens": 60, "budget": budget})
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "budget_exceeded")
    assert reply.json()["usage"]["total_tokens"] >= 6 and "retry-after" not in reply.headers


def test_what_becomes_of_an_exhausted_request_is_one_of_two_words(serve: Any) -> None:
    with serve({"a": Served(ScriptedMember.answering("a", ["x"]))}) as gateway:
        reply = gateway.post({"model": "a", "messages": USER, "budget": {"tokens": 1, "exhausted": "maybe"}})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "budget.exhausted")
