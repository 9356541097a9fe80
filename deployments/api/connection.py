"""A client's connection: its body read within limits, its stream sent, its departure noticed.

Knows HTTP (as ASGI), nothing of what is read or sent.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ensemble.concurrency import cancel
from ensemble.errors import BadRequest, BodyTooLarge

T = TypeVar("T")


class UnreadableBody(BadRequest):
    status = 415
    code = "unreadable_body"


class SlowBody(BadRequest):
    status = 408
    code = "body_timeout"


async def json_object(http: Request, limit: int, seconds: float) -> dict[str, Any]:
    """The body as a JSON object.

    Args:
        limit: bytes that the body may have; of a larger one no more than this is read.
        seconds: that it may take to come.

    Raises:
        BodyTooLarge: the body, or what its Content-Length announces, is larger.
        SlowBody: it is not all there in time.
        UnreadableBody: it is compressed.
        BadRequest: it is not UTF-8, not JSON, not an object, or says something twice.
    """
    if http.headers.get("content-encoding", "identity") != "identity":
        raise UnreadableBody("the body is compressed; send it as it is, without content-encoding")
    try:
        async with asyncio.timeout(seconds):
            text = (await _body(http, limit)).decode()
        parsed = from_json(text, allow_inf_nan=False)
        # Which of two values counts is a matter of the parser. This one does not mind depth, so it comes second.
        json.loads(text, object_pairs_hook=_told_once)
    except TimeoutError as error:
        raise SlowBody(f"the body was not all there within {seconds:g} seconds") from error
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not UTF-8") from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("the body is not a JSON object")
    return parsed


def _told_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(field for field, _ in pairs)
        twice = str(next(field for field, count in counts.items() if count > 1))[:64]
        raise BadRequest(f"{twice} is given more than once in one object", param=twice)
    return fields


async def _body(http: Request, limit: int) -> bytes:
    if int(http.headers.get("content-length", 0)) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for piece in http.stream():
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the {limit} bytes that this server reads")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Result of ``work``, which is cancelled, clean-up included, as soon as the client leaves.

    The request's body must have been read.

    Raises:
        ClientDisconnect: the client left first.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_departure(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        await cancel((working, watching))


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, one at least; their source is closed as soon as the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, items: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._items = items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await while_connected(receive, self._sent(send))

    async def _sent(self, send: Send) -> None:
        async with aclosing(self._items) as items:  # type: ignore[type-var]
            # Only what has begun closes what it reads from: a client may leave before it has taken the headers.
            first = await anext(items)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for item in items:
                await send({"type": "http.response.body", "body": item, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
