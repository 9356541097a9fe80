"""What cannot be served is refused in OpenAI's shape, costs the members nothing, and hurts no one after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Door

GOOD: dict[str, Any] = {"model": "gac", "messages": [{"role": "user", "content": "47+38="}]}

REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    # what is wrong: fields, status, code, part of the message
    "unknown model": ({"model": "gax"}, 404, "model_not_found", "gac-twins"),
    "unknown option": ({"ensemble": {"wieghts": [1, 1]}}, 400, "unknown_option", "weights"),
    "wrong option": ({"ensemble": {"weights": "all"}}, 400, "bad_request", "weights"),
    "options do not fit": ({"ensemble": {"weights": [1, 1, 1]}}, 400, "bad_request", "weights"),
    "option of a model": ({"model": "adder", "ensemble": {"weights": [1]}}, 400, "bad_request", "single model"),
    "unknown field": ({"temprature": 1}, 400, "unknown_option", "temperature"),
    "no messages": ({"messages": []}, 400, "bad_request", "at least one user message"),
    "long prompt": ({"messages": [{"role": "user", "content": "12+" * 9000}]}, 400, "context_length_exceeded", ""),
    "long prompt, sampled": (
        {"model": "nested", "messages": [{"role": "user", "content": "12+" * 9000}]},
        400,
        "context_length_exceeded",
        "",
    ),
    "negative max_tokens": ({"max_tokens": -1}, 400, "bad_request", "greater than or equal to 1"),
    "n above the cap": ({"model": "nested", "n": 3}, 400, "over_cap", "at most 2"),
    "n above the gateway's": ({"model": "adder", "n": 65}, 400, "over_cap", "at most 64"),
    "option above its cap": ({"model": "search", "ensemble": {"iterations": 10**6}}, 400, "over_cap", "at most 200"),
    "budget of calls": ({"budget": {"calls": 1}}, 429, "budget_exceeded", "1 calls"),
    "budget of tokens": ({"model": "ramble", "budget": {"tokens": 50}}, 429, "budget_exceeded", "50 tokens"),
    "budget of money": ({"model": "adder", "budget": {"cost": "0.000001"}}, 429, "budget_exceeded", "cost"),
    "budget of time": ({"model": "ramble", "budget": {"seconds": 0.3}}, 429, "budget_exceeded", "0.3 seconds"),
}

BODIES: dict[str, tuple[bytes, int, str]] = {
    "no UTF-8": (b'{"model": "gac\xff"}', 400, "bad_request"),
    "truncated JSON": (b'{"model": "gac", "messages": [{"role":', 400, "bad_request"),
    "no JSON": (b"model=gac", 400, "bad_request"),
    "a list": (b"[]", 400, "bad_request"),
    "nothing": (b"", 400, "bad_request"),
    "10 MB": (b'{"model": "' + b"x" * 10_000_000 + b'"}', 413, "body_too_large"),
}

pytestmark = pytest.mark.usefixtures("free")


@pytest.fixture(autouse=True)
def goes_on(door: Door) -> Any:
    """A good request works right after the bad one."""
    yield
    reply = door.http.post("/v1/chat/completions", json=GOOD)
    assert reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_requests(door: Door, name: str, stream: bool) -> None:
    fields, status, code, part = REFUSED[name]
    reply = door.http.post("/v1/chat/completions", json={**GOOD, **fields, "stream": stream})
    if reply.status_code == 200 and stream and status == 429:
        # The answer had begun when the budget ran out.
        last = reply.text.strip().rsplit("data: ", 1)[-1]
        assert f'"code":"{code}"' in last and part in last
        return
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), reply.text
    assert part in error["message"]
    assert {"message", "type", "param"} <= error.keys()


@pytest.mark.parametrize("name", BODIES)
def test_bodies(door: Door, name: str) -> None:
    content, status, code = BODIES[name]
    reply = door.http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_the_openai_client_raises_its_own_errors(door: Door) -> None:
    messages: Any = GOOD["messages"]
    with pytest.raises(openai.NotFoundError) as unknown:
        door.openai.chat.completions.create(model="gax", messages=messages)
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        door.openai.chat.completions.create(model="gac", messages=[])
    with pytest.raises(openai.RateLimitError):
        door.openai.chat.completions.create(model="gac", messages=messages, extra_body={"budget": {"calls": 1}})


def test_an_unknown_route_names_those_there_are(door: Door) -> None:
    reply = door.http.get("/v1/embeddings")
    assert reply.status_code == 404 and "/v1/chat/completions" in reply.json()["error"]["message"]
