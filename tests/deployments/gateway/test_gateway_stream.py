"""Streams tell the same as whole replies, each piece as soon as it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

USER = [{"role": "user", "content": "?"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def sent(gateway: Any, path: str = CHAT, **fields: Any) -> list[Any]:
    """Every ``data:`` of a stream, decoded; fields fill a small request."""
    subject = {"messages": USER} if path == CHAT else {"prompt": "?"}
    reply = gateway.post({"model": "scripted", "stream": True, **subject, **fields}, path)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
    lines = reply.text.split("\n\n")
    assert lines.pop() == "" and all(line.startswith("data: ") for line in lines)
    data = [line.removeprefix("data: ") for line in lines]
    return [json.loads(text) if text != "[DONE]" else text for text in data]


def text_of(chunks: list[Any], choice: int = 0) -> str:
    choices = [c for chunk in chunks if chunk != "[DONE]" for c in chunk["choices"] if c["index"] == choice]
    return "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)


def test_a_chat_stream_chunk_by_chunk(gateway: Any) -> None:
    *chunks, done = sent(gateway)
    assert done == "[DONE]"
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    assert [c.choices[0].delta.model_dump(exclude_none=True) for c in parsed] == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"content": "é"},
        {},
    ]
    assert [c.choices[0].finish_reason for c in parsed] == [None, None, None, "stop"]
    assert len({(c.id, c.created, c.model, c.object) for c in parsed}) == 1
    assert "ensemble" not in chunks[-1] and "usage" not in chunks[0]


def test_a_text_stream_chunk_by_chunk(gateway: Any) -> None:
    *chunks, done = sent(gateway, TEXT)
    assert done == "[DONE]"
    parsed = list(gateway.client().completions.create(model="scripted", prompt="?", stream=True))
    assert [c.choices[0].text for c in parsed] == ["a", "é", ""]
    assert [c.choices[0].finish_reason for c in parsed] == [None, None, "stop"]
    assert Completion.model_validate(chunks[-1], strict=True).choices == [parsed[-1].choices[0]]


def test_usage_comes_last_when_asked_for(gateway: Any) -> None:
    *chunks, last, done = sent(gateway, stream_options={"include_usage": True})
    assert done == "[DONE]" and last["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks)
    whole = gateway.post({"model": "scripted", "messages": USER}).json()
    assert last["usage"] == whole["usage"]


@pytest.mark.parametrize("model", ["pair", "scripted", "tiny"])
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_stream_tells_the_same_as_a_whole_reply(gateway: Any, model: str, path: str) -> None:
    fields = {"n": 3, "model": model, "max_tokens": 6, "seed": 1, "temperature": 1}
    subject = {"messages": USER} if path == CHAT else {"prompt": "?"}
    *chunks, usage, _ = sent(gateway, path, **fields, stream_options={"include_usage": True})
    whole = gateway.post({**subject, **fields}, path).json()
    texts = [c["text"] if path == TEXT else c["message"]["content"] for c in whole["choices"]]
    assert [text_of(chunks, choice) for choice in range(3)] == texts
    assert usage["usage"] == whole["usage"]
    assert chunks[-1].get("ensemble") == whole.get("ensemble")


def test_every_piece_of_an_ensemble_names_its_writers(gateway: Any) -> None:
    *chunks, _ = sent(gateway, model="pair")
    pieces = [(c["choices"][0]["delta"].get("content"), c.get("ensemble")) for c in chunks]
    assert pieces[:4] == [
        ("", None),
        ("a", {"credits": {"scripted": 1.0}}),
        ("é", {"credits": {"scripted": 1.0}}),
        ("2 €😀", {"credits": {"two": 1.0}}),
    ]
    assert pieces[4][1]["credits"][0][1] == {"start": 2, "end": 6, "members": {"two": 1.0}}


def test_traces_come_before_the_text_they_explain(gateway: Any) -> None:
    *chunks, _ = sent(gateway, model="pair", trace=True)
    assert chunks[1]["ensemble"] == {"trace": {"kind": "order", "data": {"members": ["scripted", "two"]}}}
    assert chunks[1]["choices"][0]["delta"] == {} and text_of(chunks) == "aé2 €😀"
    assert all("trace" not in chunk.get("ensemble", {}) for chunk in sent(gateway, model="pair")[:-1])


@pytest.mark.parametrize(("path", "asked"), [(CHAT, {"logprobs": True, "top_logprobs": 2}), (TEXT, {"logprobs": 2})])
def test_log_probabilities_are_those_of_the_whole_reply(gateway: Any, path: str, asked: dict[str, Any]) -> None:
    subject = {"messages": USER} if path == CHAT else {"prompt": "?"}
    whole = gateway.post({"model": "scripted", **subject, **asked}, path).json()["choices"][0]["logprobs"]
    pieces = [c["choices"][0]["logprobs"] for c in sent(gateway, path, **asked)[:-1]]
    for field, values in whole.items():
        assert [value for piece in pieces if piece for value in piece[field]] == values
        assert len(values) == 3


def test_several_prompts_stream_side_by_side(gateway: Any) -> None:
    fields = {"model": "slow", "prompt": ["x", "y"], "max_tokens": 4, "n": 1}
    *chunks, _ = sent(gateway, TEXT, **fields)
    order = [chunk["choices"][0]["index"] for chunk in chunks if chunk["choices"][0]["text"]]
    assert order != sorted(order), "the second prompt must not wait for the first"
    whole = gateway.post(fields, TEXT).json()["choices"]
    assert [text_of(chunks, 0), text_of(chunks, 1)] == [choice["text"] for choice in whole]


def arrivals(gateway: Any, **fields: Any) -> Iterator[float]:
    body = {"model": "slow", "messages": USER, "stream": True, **fields}
    with httpx.stream("POST", gateway.url + CHAT, json=body, timeout=20) as reply:
        for line in reply.iter_lines():
            if '"content":"' in line:
                yield time.monotonic()


def test_pieces_arrive_as_they_are_written(gateway: Any) -> None:
    begin = time.monotonic()
    times = [at - begin for at in arrivals(gateway, max_tokens=25)]
    assert times[-1] - times[0] > 0.02 * 20, "text was held back until the end"
    assert times[0] < times[-1] / 3


def test_the_clients_own_stream_helper(gateway: Any) -> None:
    with gateway.client().chat.completions.stream(model="pair", messages=USER) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "aé2 €😀" and final.choices[0].finish_reason == "stop"


def test_an_error_before_any_text_has_its_status(gateway: Any) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        gateway.client().chat.completions.create(model="lost", messages=USER, stream=True)
    assert caught.value.status_code == 503 and caught.value.code == "member_lost"


def test_an_error_in_mid_stream_ends_it(gateway: Any) -> None:
    gateway.members["breaking"].exchanges = 0
    *chunks, last = sent(gateway, model="breaking")
    assert text_of(chunks) == "aa"
    assert last["error"]["code"] == "member_lost" and last["error"]["member"] == "breaking"


def test_the_client_raises_an_error_in_mid_stream(gateway: Any) -> None:
    gateway.members["breaking"].exchanges = 0
    text = ""
    with pytest.raises(openai.APIError, match="breaking was lost"):
        for chunk in gateway.client().chat.completions.create(model="breaking", messages=USER, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text == "aa"


def test_a_crash_in_mid_stream_tells_nothing_of_itself(gateway: Any) -> None:
    *chunks, last = sent(gateway, model="crashing late")
    assert text_of(chunks) == "so far"
    assert last["error"]["code"] == "internal_error" and "secret" not in last["error"]["message"]


def test_a_model_that_never_finishes_is_an_error(gateway: Any) -> None:
    assert sent(gateway, model="endless")[-1]["error"]["code"] == "member_bad_answer"
    assert gateway.post({"model": "endless", "messages": USER}).status_code == 502
