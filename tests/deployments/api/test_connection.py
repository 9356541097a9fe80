"""A client's connection: whatever is sent to it has an end as soon as the client has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from deployments.api.connection import EventStream, while_connected


class Source:
    """What a stream reads from; knows whether it was closed."""

    closed = False

    async def events(self) -> AsyncIterator[bytes]:
        try:
            for number in range(1000):
                yield b"%d" % number
                await asyncio.sleep(0)
        finally:
            self.closed = True

    async def items(self) -> AsyncIterator[bytes]:
        async with aclosing(self.events()) as events:  # type: ignore[type-var]
            async for event in events:
                yield event


@pytest.mark.parametrize("taken", [0, 1, 2, 5])
async def test_a_source_is_closed_wherever_the_client_stops_to_read(taken: int) -> None:
    source, sent, full = Source(), list[Any](), asyncio.Event()

    async def send(message: Any) -> None:
        if len(sent) == taken:
            full.set()
            await asyncio.sleep(60)
        sent.append(message)

    async def receive() -> Any:
        await full.wait()
        return {"type": "http.disconnect"}

    await asyncio.wait_for(EventStream(source.items(), {})({"type": "http"}, receive, send), 5)
    assert source.closed and len(sent) == taken


async def test_the_events_come_in_order_between_head_and_end() -> None:
    sent: list[Any] = []

    async def items() -> AsyncIterator[bytes]:
        for text in (b"a", b"b"):
            yield text

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(60)

    await EventStream(items(), {"x-mark": "m"})({"type": "http"}, receive, send)
    head, *bodies = sent
    assert (b"x-mark", b"m") in head["headers"] and not any(name == b"content-length" for name, _ in head["headers"])
    assert [(m["body"], m.get("more_body", False)) for m in bodies] == [(b"a", True), (b"b", True), (b"", False)]


async def test_work_is_cancelled_with_its_clean_up_when_the_client_leaves() -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("up")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await while_connected(receive, work())
    assert cleaned == ["up"]
