"""Structured concurrency: whoever starts a task ends it, and one failure cancels the siblings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once; results in order. The first failure cancels the others and is raised as it is.

    Unlike ``asyncio.gather``, nothing is left running when this returns or raises.
    """
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(tasks)


async def settled(futures: Sequence[asyncio.Future[T]]) -> list[T]:
    """Results of what is under way, in order. The first failure gives up the others and is raised as it is.

    For futures that are no tasks; ``together`` is for coroutines, and waits for the end of what it cancels.
    """
    try:
        return [await futures[0]] if len(futures) == 1 else await asyncio.gather(*futures)
    finally:
        for future in futures:
            future.cancel()


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; their results and errors are dropped."""
    pending = [t for t in tasks if not t.done()]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


async def merge(streams: Iterable[AsyncIterator[T]]) -> AsyncGenerator[T, None]:
    """Items of all streams as they come. A failing stream ends all of them and its error is raised.

    Closing the merged stream closes every stream.
    """
    queue: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue(maxsize=64)
    tasks = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    running = len(tasks)
    try:
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item[0]
    finally:
        await cancel(tasks)


async def batches(stream: AsyncIterator[T]) -> AsyncGenerator[list[T], None]:
    """Items of a stream in lists: each list holds what has come since the last one, and is never empty."""
    queue: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue(maxsize=64)
    task = asyncio.create_task(_pump(stream, queue))
    try:
        item = await queue.get()
        while isinstance(item, tuple):
            batch = [item[0]]
            while isinstance(item, tuple) and not queue.empty():
                item = queue.get_nowait()
                if isinstance(item, tuple):
                    batch.append(item[0])
            yield batch
            if isinstance(item, tuple):
                item = await queue.get()
        if isinstance(item, BaseException):
            raise item
    finally:
        await cancel([task])


async def _pump(stream: AsyncIterator[T], queue: asyncio.Queue[tuple[T] | BaseException | None]) -> None:
    try:
        async with aclosing(stream):  # type: ignore[type-var]
            async for item in stream:
                await queue.put((item,))
        await queue.put(None)
    except Exception as error:
        await queue.put(error)


async def shielded(work: Awaitable[T]) -> T:
    """Carry clean-up through even if the task around it is cancelled meanwhile."""
    return await asyncio.shield(work)
