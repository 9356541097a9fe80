"""A client's connection: its body read within limits, its stream sent, its departure noticed.

Knows HTTP (as ASGI), nothing of what is read or sent.
"""

from __future__ import annotations

import asyncio
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


async def json_object(http: Request, limit: int) -> dict[str, Any]:
    """The body as a JSON object.

    Args:
        limit: bytes that the body may have; of a larger one no more than this is read.

    Raises:
        BodyTooLarge: the body, or what its Content-Length announces, is larger.
        BadRequest: it is not UTF-8, not JSON, or not an object.
    """
    try:
        parsed = from_json((await _body(http, limit)).decode(), allow_inf_nan=False)
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not UTF-8") from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("the body is not a JSON object")
    return parsed


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
    """Server-sent events; their source is closed as soon as the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, items: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._items = items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await while_connected(receive, self._sent(send))

    async def _sent(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._items) as items:  # type: ignore[type-var]
            async for item in items:
                await send({"type": "http.response.body", "body": item, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
