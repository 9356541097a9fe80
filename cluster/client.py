"""A small client of the gateway: plain HTTP and server-sent events, nothing buffered.

Knows the wire format and nothing of the terminal. Every failure is an ``Unanswered`` that says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

Json = dict[str, Any]

CONNECT_SECONDS = 10.0
"""Patience for a connection; answers themselves may take any time."""


class Unanswered(Exception):
    """There is no (whole) answer; the message says why."""


def models(url: str) -> list[Json]:
    """What the gateway lists.

    Raises:
        Unanswered: the gateway cannot be reached or refuses.
    """
    with _connection(url) as client:
        return list(_whole(client.get("/v1/models"))["data"])


def answer(url: str, body: Mapping[str, Any]) -> Json:
    """The whole reply to a chat request.

    Raises:
        Unanswered: the gateway cannot be reached, refuses or fails.
    """
    with _connection(url) as client:
        return _whole(client.post("/v1/chat/completions", json=dict(body)))


def stream(url: str, body: Mapping[str, Any]) -> Generator[Json, None, None]:
    """Chunks of the reply to a chat request as they arrive; closing the iterator closes the connection.

    Raises:
        Unanswered: the gateway cannot be reached, refuses, fails, or goes away before the answer is whole.
    """
    wanted = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with _connection(url) as client, client.stream("POST", "/v1/chat/completions", json=wanted) as reply:
        if reply.is_error:
            reply.read()
            raise _refused(reply)
        for line in reply.iter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            yield _chunk(data)
    raise Unanswered("the connection ended before the answer did")


@contextmanager
def _connection(url: str) -> Iterator[httpx.Client]:
    _require_address(url)
    try:
        with httpx.Client(base_url=url, timeout=httpx.Timeout(None, connect=CONNECT_SECONDS)) as client:
            yield client
    except httpx.ConnectError as error:
        raise Unanswered(f"nothing answers at {url}; start it with `ensemble serve`, or give --url") from error
    except httpx.HTTPError as error:
        raise Unanswered(f"the connection to {url} failed: {error or type(error).__name__}") from error


def _require_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Unanswered(f"{url!r} is no address; allowed: http://HOST:PORT")


def _whole(reply: httpx.Response) -> Json:
    if reply.is_error:
        raise _refused(reply)
    return _object(reply.text)


def _refused(reply: httpx.Response) -> Unanswered:
    try:
        return Unanswered(_message(_object(reply.text)["error"]))
    except (Unanswered, KeyError):
        return Unanswered(
            f"the server answered with status {reply.status_code}, and not as an OpenAI-compatible one does"
        )


def _chunk(data: str) -> Json:
    chunk = _object(data)
    if "error" in chunk:
        raise Unanswered(_message(chunk["error"]))
    return chunk


def _message(error: Any) -> str:
    return str(error.get("message")) if isinstance(error, dict) else str(error)


def _object(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Unanswered("the server sent something that is not JSON") from error
    if not isinstance(value, dict):
        raise Unanswered("the server sent JSON of another kind than expected")
    return value
