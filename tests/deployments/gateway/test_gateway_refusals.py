"""Whatever cannot be honoured is refused: right status, right code, a message that says what is allowed."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from deployments.api.requests import CompletionBody
from deployments.gateway import Limits
from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import BudgetExceeded, MemberError, MemberLost
from ensemble.member import Capability, Card, Member
from ensemble.request import Event, Request
from ensemble.testing import ScriptedMember

USER = [{"role": "user", "content": "?"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MARK = "do-not-repeat-me"
"""Stands in rejected values; no message may hold it."""

REFUSED_CHATS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # what is wrong: fields, param, code, part of the message
    "no messages": ({"messages": None}, "messages", "bad_request", "must be a valid list"),
    "empty messages": ({"messages": []}, "messages", "bad_request", "at least one user message"),
    "endless messages": (
        {"messages": USER * 4097},
        "messages",
        "bad_request",
        "must have at most 4096 items, not 4097",
    ),
    "endless parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": MARK}] * 4097}]},
        "messages.0.content",
        "bad_request",
        "at most 4096 items",
    ),
    "only system": ({"messages": [{"role": "system", "content": MARK}]}, "messages", "bad_request", "user message"),
    "only assistant": ({"messages": [{"role": "assistant", "content": MARK}]}, "messages", "bad_request", "user"),
    "role": ({"messages": [*USER, {"role": MARK, "content": "x"}]}, "messages.1.role", "bad_request", "'developer'"),
    "tool role": ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "bad_request", "'user'"),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0.content", "bad_request", "is required"),
    "null content": ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "bad_request", "string"),
    "content type": ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content", "bad_request", "text parts"),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": MARK}}]}]},
        "messages.0.content.0.image_url",
        "unknown_option",
        "known here: text, type",
    ),
    "part type": (
        {"messages": [{"role": "user", "content": [{"type": MARK, "text": "x"}]}]},
        "messages.0.content.0.type",
        "bad_request",
        "must be 'text'",
    ),
    "name": ({"messages": [{**USER[0], "name": MARK}]}, "messages.0.name", "bad_request", "not offered"),
    "tool calls": (
        {"messages": [{**USER[0], "tool_calls": [MARK]}]},
        "messages.0.tool_calls",
        "bad_request",
        "not off",
    ),
    "unknown in message": ({"messages": [{**USER[0], "nmae": MARK}]}, "messages.0.nmae", "unknown_option", "role"),
    "unknown field": ({"temprature": MARK}, "temprature", "unknown_option", "temperature"),
    "model type": ({"model": 7}, "model", "bad_request", "must be a valid string"),
    "max_tokens 0": ({"max_tokens": 0}, "max_tokens", "bad_request", "greater than or equal to 1"),
    "max_tokens -1": ({"max_tokens": -1}, "max_tokens", "bad_request", "greater than or equal to 1"),
    "max_tokens huge": ({"max_tokens": 10**40}, "max_tokens", "bad_request", "less than or equal to"),
    "max_tokens string": ({"max_tokens": "5"}, "max_tokens", "bad_request", "valid integer"),
    "max_tokens true": ({"max_tokens": True}, "max_tokens", "bad_request", "valid integer"),
    "two limits": ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", "bad_request", "one limit"),
    "temperature": ({"temperature": 2.5}, "temperature", "bad_request", "between 0 and 2"),
    "temperature string": ({"temperature": MARK}, "temperature", "bad_request", "valid number"),
    "top_p": ({"top_p": 0}, "top_p", "bad_request", "above 0 and at most 1"),
    "top_k": ({"top_k": -1}, "top_k", "bad_request", "0 (off) or more"),
    "n": ({"n": 0}, "n", "bad_request", "greater than or equal to 1"),
    "seed": ({"seed": 2**63}, "seed", "bad_request", "between 0 and 2^63 - 1"),
    "five stops": ({"stop": ["1", "2", "3", "4", MARK]}, "stop", "bad_request", "at most 4"),
    "empty stop": ({"stop": ""}, "stop", "bad_request", "none of them empty"),
    "stop type": ({"stop": ["a", 1]}, "stop.1", "bad_request", "valid string"),
    "stream type": ({"stream": "yes"}, "stream", "bad_request", "valid boolean"),
    "stream options alone": (
        {"stream": False, "stream_options": {"include_usage": True}},
        "stream_options",
        "bad_request",
        "needs stream",
    ),
    "unknown stream option": (
        {"stream": True, "stream_options": {"usage": True}},
        "stream_options.usage",
        "unknown_option",
        "known here: include_usage",
    ),
    "logprobs number": ({"logprobs": 3}, "logprobs", "bad_request", "valid boolean"),
    "top_logprobs alone": ({"top_logprobs": 3}, "top_logprobs", "bad_request", "needs logprobs"),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "bad_request", "equal to 20"),
    "tools": ({"tools": [{"type": "function", "function": {"name": MARK}}]}, "tools", "bad_request", "not offered"),
    "tool_choice": ({"tool_choice": "required"}, "tool_choice", "bad_request", "not offered"),
    "functions": ({"functions": [{"name": MARK}]}, "functions", "bad_request", "not offered"),
    "response_format": ({"response_format": {"type": "json_object"}}, "response_format", "bad_request", "not offered"),
    "logit_bias": ({"logit_bias": {"50256": -100}}, "logit_bias", "bad_request", "not offered"),
    "presence": ({"presence_penalty": 0.1}, "presence_penalty", "bad_request", "not offered"),
    "frequency": ({"frequency_penalty": -1}, "frequency_penalty", "bad_request", "not offered"),
    "audio": ({"audio": {"voice": MARK}}, "audio", "bad_request", "not offered"),
    "store": ({"store": True}, "store", "bad_request", "not offered"),
    "prompt in a chat": ({"prompt": MARK}, "prompt", "unknown_option", "messages"),
    "ensemble on a model": ({"ensemble": {"times": 1}}, "ensemble", "bad_request", "single model"),
    "trace on a model": ({"trace": True}, "trace", "bad_request", "single model"),
    "ensemble type": ({"model": "pair", "ensemble": [MARK]}, "ensemble", "bad_request", "valid dictionary"),
    "unknown method option": ({"model": "pair", "ensemble": {"tims": MARK}}, "tims", "unknown_option", "has: times"),
    "method option type": ({"model": "pair", "ensemble": {"times": MARK}}, "times", "bad_request", "valid integer"),
    "method option cap": ({"model": "pair", "ensemble": {"times": 4}}, "times", "over_cap", "at most 3"),
    "method option beyond all": ({"model": "pair", "ensemble": {"times": 10**400}}, "times", "over_cap", "at most 3"),
    "ensemble's n": ({"model": "pair", "n": 5}, "n", "over_cap", "at most 4"),
    "choices": ({"n": 65}, "n", "over_cap", "at most 64"),
    "budget type": ({"budget": 3}, "budget", "bad_request", "valid"),
    "budget field": (
        {"budget": {"dollars": MARK}},
        "budget.dollars",
        "unknown_option",
        "calls, cost, exhausted, seconds, tokens",
    ),
    "budget calls": ({"budget": {"calls": 0}}, "budget.calls", "bad_request", "equal to 1"),
    "budget cost": ({"budget": {"cost": -1}}, "budget.cost", "bad_request", "above 0"),
    "budget cost text": ({"budget": {"cost": MARK}}, "budget.cost", "bad_request", "valid decimal"),
    "budget cost that cannot be counted": (
        {"model": "pair", "budget": {"cost": "1e9999999"}},
        "budget.cost",
        "bad_request",
        "at most",
    ),
    "budget seconds": ({"budget": {"seconds": 0}}, "budget.seconds", "bad_request", "above 0"),
    "context": ({"model": "narrow"}, "messages", "context_length_exceeded", "no room"),
}

REFUSED_TEXTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no prompt": ({"prompt": None}, "prompt", "bad_request", "string or a list of strings"),
    "no prompts": ({"prompt": []}, "prompt", "bad_request", "string or a list of strings"),
    "token ids": ({"prompt": [1, 2]}, "prompt", "bad_request", "no token ids"),
    "lists of token ids": ({"prompt": [[1, 2]]}, "prompt", "bad_request", "no token ids"),
    "prompt type": ({"prompt": {"text": MARK}}, "prompt", "bad_request", "string or a list of strings"),
    "prompt part": ({"prompt": ["a", None]}, "prompt.1", "bad_request", "valid string"),
    "messages": ({"messages": USER}, "messages", "unknown_option", "prompt"),
    "logprobs": ({"logprobs": 21}, "logprobs", "bad_request", "equal to 20"),
    "logprobs true": ({"logprobs": True}, "logprobs", "bad_request", "valid integer"),
    "echo": ({"echo": True}, "echo", "bad_request", "not offered"),
    "suffix": ({"suffix": MARK}, "suffix", "bad_request", "not offered"),
    "best_of": ({"best_of": 2}, "best_of", "bad_request", "not offered"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens", "bad_request", "equal to 1"),
    "choices": ({"prompt": ["a"] * 9, "n": 8}, "n", "over_cap", "at most 64"),
    "budget": ({"prompt": ["a", "b"], "budget": {"calls": 1}}, "budget", "bad_request", "one prompt"),
}


def refused(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error object of a refusal, checked for what all of them share."""
    assert reply.status_code == status, reply.text
    assert reply.headers["x-request-id"]
    body = reply.json()
    error = body.pop("error")
    assert set(body) <= {"usage"}
    assert error["code"] == code
    assert {"message", "type", "param"} <= error.keys()
    return error


@pytest.mark.parametrize("stream", [None, True])
@pytest.mark.parametrize("case", REFUSED_CHATS)
def test_a_chat_is_refused(gateway: Any, case: str, stream: bool) -> None:
    fields, param, code, message = REFUSED_CHATS[case]
    reply = gateway.post({"model": "scripted", "messages": USER, "stream": stream, **fields})
    error = refused(reply, 400, code)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"] and MARK not in reply.text


@pytest.mark.parametrize("case", REFUSED_TEXTS)
def test_a_text_completion_is_refused(gateway: Any, case: str) -> None:
    fields, param, code, message = REFUSED_TEXTS[case]
    error = refused(gateway.post({"model": "scripted", "prompt": "?", **fields}, TEXT), 400, code)
    assert error["param"] == param
    assert message in error["message"] and MARK not in error["message"]


def test_choices_are_counted_before_anything_is_made_for_each(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompletionBody, "requests", lambda _: pytest.fail("a request for each of a million prompts"))
    error = refused(gateway.post({"model": "scripted", "prompt": ["a"] * 65}, TEXT), 400, "over_cap")
    assert error["message"] == "65 choices are asked for; at most 64 are allowed"


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(gateway: Any, field: str) -> None:
    body = {"model": "scripted", "messages": USER}
    del body[field]
    assert refused(gateway.post(body), 400, "bad_request")["message"] == f"{field} is required"


def test_an_endless_field_name_is_cut(gateway: Any) -> None:
    error = refused(gateway.post({"model": "scripted", "messages": USER, "x" * 10**5: 1}), 400, "unknown_option")
    assert error["param"] == "x" * 64 and len(error["message"]) < 1000


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_an_unknown_model_lists_those_there_are(gateway: Any, path: str) -> None:
    subject = {"messages": USER} if path == CHAT else {"prompt": "?"}
    error = refused(gateway.post({"model": MARK, **subject}, path), 404, "model_not_found")
    assert error["param"] == "model" and "scripted, tiny, org/two, pair" in error["message"]
    assert MARK not in error["message"]


def test_the_client_raises_its_own_errors(gateway: Any) -> None:
    client = gateway.client()
    with pytest.raises(openai.NotFoundError, match="there are: scripted"):
        client.models.retrieve("nothing")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="scripted", messages=USER, extra_body={"min_p": 0.1})
    assert (caught.value.code, caught.value.param) == ("unknown_option", "min_p")
    with pytest.raises(openai.InternalServerError) as lost:
        client.chat.completions.create(model="lost", messages=USER)
    assert lost.value.code == "member_lost"


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "not UTF-8": (b'{"model": "\xff\xfe"}', "not UTF-8"),
    "truncated": (b'{"model": "scripted", "messages": [{"role"', "not JSON: EOF"),
    "not JSON": (b"model=scripted", "not JSON"),
    "deep nesting": (b"[" * 200_000, "not JSON: recursion limit"),
    "deep nesting inside": (b'{"model":' * 50_000 + b"1" + b"}" * 50_000, "not JSON: recursion limit"),
    "NaN": (b'{"model": "scripted", "temperature": NaN}', "not JSON"),
    "half a surrogate pair": (b'{"model": "\\ud800"}', "not JSON"),
    "two values": (b"{} {}", "not JSON"),
    "a field twice": (b'{"model": "tiny", "model": "scripted"}', "model is given more than once"),
    "a field twice, further in": (b'{"budget": {"calls": 1, "calls": 9}}', "calls is given more than once"),
    "a number of 5,000 digits": (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON: number out of range"),
    "a list": (b"[]", "not a JSON object"),
    "a string": (b'"hello"', "not a JSON object"),
    "null": (b"null", "not a JSON object"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_bad_body_is_refused(gateway: Any, path: str, case: str) -> None:
    body, message = BAD_BODIES[case]
    reply = httpx.post(gateway.url + path, content=body, headers={"content-type": "application/json"})
    assert message in refused(reply, 400, "bad_request")["message"]


def test_an_infinite_number_is_refused(gateway: Any) -> None:
    body = b'{"model": "scripted", "messages": [{"role": "user", "content": "?"}], "budget": {"seconds": 1e999}}'
    reply = httpx.post(gateway.url + CHAT, content=body)
    assert refused(reply, 400, "bad_request")["param"] == "budget.seconds"


def test_the_content_type_does_not_matter(gateway: Any) -> None:
    body = json.dumps({"model": "scripted", "messages": USER})
    reply = httpx.post(gateway.url + CHAT, content=body, headers={"content-type": "text/plain"})
    assert reply.json()["choices"][0]["message"]["content"] == "aé"


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_a_compressed_body_is_refused_in_words(gateway: Any, coding: str) -> None:
    body = json.dumps({"model": "scripted", "messages": USER}).encode()
    reply = httpx.post(gateway.url + CHAT, content=body, headers={"content-encoding": coding})
    assert "without content-encoding" in refused(reply, 415, "unreadable_body")["message"]
    assert httpx.post(gateway.url + CHAT, content=body, headers={"content-encoding": "identity"}).is_success


def test_ten_megabytes_are_refused(gateway: Any) -> None:
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "x" * 10_000_000}]})
    error = refused(httpx.post(gateway.url + CHAT, content=body), 413, "body_too_large")
    assert "4194304 bytes" in error["message"]


def test_a_large_body_is_refused_by_its_announced_length(gateway: Any) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n"
    assert b"413" in _raw(gateway, head)


def test_a_body_of_unannounced_length_is_not_read_to_its_end(gateway: Any) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    reply = _raw(gateway, head + piece * 65)
    assert b"413" in reply and b"body_too_large" in reply, "the body's last piece was never sent"


def test_a_body_that_never_comes_is_not_waited_for(serve: Any) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n"
    with serve({"a": ScriptedMember.answering("a", ["x"])}, limits=Limits(body_seconds=0.1)) as gateway:
        reply = _raw(gateway, head + b'{"model":')
    assert b"408" in reply and b"body_timeout" in reply and b"within 0.1 seconds" in reply


def _raw(gateway: Any, request: bytes) -> bytes:
    """What comes back for the beginning of a request; its end is never sent."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        reply = connection.recv(65536)
        while b"\r\n\r\n" not in reply or not reply.endswith(b"}"):
            reply += connection.recv(65536)
    return reply


def test_the_body_limit_is_configurable(serve: Any) -> None:
    member = ScriptedMember.answering("a", ["x"])
    with serve({"a": member}, limits=Limits(body_bytes=100)) as gateway:
        fits = {"model": "a", "messages": [{"role": "user", "content": "y" * 40}]}
        assert gateway.post(fits).status_code == 200
        fits["messages"] = [{"role": "user", "content": "y" * 60}]
        refused(gateway.post(fits), 413, "body_too_large")
    assert member.calls == 1


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models", "/v1/chat/completions/", "/docs", "/openapi.json"])
def test_an_unknown_route_is_told_in_the_same_shape(gateway: Any, path: str) -> None:
    error = refused(httpx.get(gateway.url + path), 404, "unknown_route")
    assert "/v1/chat/completions" in error["message"]


@pytest.mark.parametrize(
    ("verb", "path", "allowed"), [("GET", CHAT, "POST"), ("DELETE", TEXT, "POST"), ("POST", "/v1/models", "GET")]
)
def test_a_wrong_verb_is_told_in_the_same_shape(gateway: Any, verb: str, path: str, allowed: str) -> None:
    reply = httpx.request(verb, gateway.url + path)
    assert allowed in refused(reply, 405, "method_not_allowed")["message"]
    assert allowed in reply.headers["allow"]


@pytest.mark.parametrize(("model", "code"), [("lost", "member_lost"), ("gone", "member_lost")])
def test_a_lost_member_may_be_tried_again(gateway: Any, model: str, code: str) -> None:
    reply = gateway.post({"model": model, "messages": USER})
    error = refused(reply, 503, code)
    assert reply.headers["retry-after"] == "1" and error["member"] == model


def test_other_refusals_are_not_to_be_tried_again(gateway: Any) -> None:
    assert "retry-after" not in gateway.post({"model": "scripted"}).headers


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (BudgetExceeded("used up", param="budget.tokens"), 1),
        (MemberError("it failed"), 1),
        (RuntimeError("a bug"), 1),
        (MemberLost("gone"), 3),
    ],
    ids=lambda case: type(case).__name__,
)
def test_the_official_client_asks_again_only_where_that_may_help(
    serve: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int
) -> None:
    member = Counted(error)
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0.0)
    with serve({"counted": member}) as gateway, pytest.raises(openai.APIStatusError):
        gateway.client().with_options(max_retries=2).chat.completions.create(model="counted", messages=USER)
    assert member.asked == times


class Counted(Member):
    """Fails, and counts how often."""

    def __init__(self, error: Exception) -> None:
        self.card = Card("counted", frozenset({Capability.GENERATE}), 100)
        self._error = error
        self.asked = 0

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.asked += 1
        raise self._error
        yield


def test_a_crash_is_logged_and_never_shown(gateway: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "deployments.api.errors"):
        reply = gateway.post({"model": "crashing", "messages": USER}, headers={"x-request-id": "my-7"})
    error = refused(reply, 500, "internal_error")
    assert error["message"] == "an internal error occurred; the log has more under request id my-7"
    assert "secret of the house" not in reply.text and "Traceback" not in reply.text
    (record,) = caplog.records
    assert record.getMessage() == "request my-7 failed" and "secret of the house" in str(record.exc_info)


@pytest.mark.parametrize("sane", ["abc", "A-1_b.c:d", "x" * 128])
def test_a_sane_request_id_comes_back(gateway: Any, sane: str) -> None:
    assert httpx.get(gateway.url + "/health", headers={"x-request-id": sane}).headers["x-request-id"] == sane


@pytest.mark.parametrize("odd", ["", "a b", "x" * 129, "<script>", "é".encode()])
def test_an_odd_request_id_is_replaced(gateway: Any, odd: str) -> None:
    given = httpx.get(gateway.url + "/health", headers={"x-request-id": odd}).headers.get_list("x-request-id")
    again = httpx.get(gateway.url + "/health", headers={"x-request-id": odd}).headers.get_list("x-request-id")
    assert len(given) == 1 and len(given[0]) == 32 and given != again


@pytest.mark.parametrize(
    ("budget", "param"),
    [({"tokens": 5}, "budget.tokens"), ({"cost": "0.004"}, "budget.cost"), ({"seconds": 0.1}, "budget.seconds")],
)
@pytest.mark.parametrize("model", ["slow", "slow pair"])
def test_a_budget_stops_models_and_ensembles(
    relay: str, serve: Any, model: str, budget: dict[str, Any], param: str, gateway: Any
) -> None:
    slow = gateway.members["slow"]
    priced = ScriptedMember(
        "priced", [b"a", b""], [b"a"] * 100, delay=0.02, price=gateway.members["scripted"].card.price
    )
    members = {"slow": priced, "slow pair": Ensemble("slow pair", relay, [priced, slow], caps=Caps(n=1))}
    with serve(members) as other:
        reply = other.post({"model": model, "messages": USER, "max_tokens": 60, "budget": budget})
    assert refused(reply, 429, "budget_exceeded")["param"] == param
    assert priced.open_sessions == 0 and priced.exchanges <= 8
