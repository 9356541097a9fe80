"""What all engines have in common: messages in their order, forks, limits, and text that takes long to tokenise."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from random_models import engine_of

from deployments.engines.engine import EngineMember
from deployments.engines.transformers import TransformersEngine
from ensemble.concurrency import together
from ensemble.errors import BadRequest, ContextTooLong, MemberLost, Overloaded
from ensemble.member import Append, Exchange, Next, Score, SyncText
from ensemble.request import Request


async def opened(engine: TransformersEngine, key: str = "s") -> None:
    await engine.open(key, Request.of("hello"))


async def test_a_message_that_comes_after_a_later_one_is_refused() -> None:
    engine = engine_of("llama")
    await opened(engine)
    later = await engine.exchange("s", Exchange(7, Append((80,)), Next(1)))
    with pytest.raises(BadRequest, match="message 3 comes after message 7"):
        await engine.exchange("s", Exchange(3, Append((80,)), Next(1)))
    assert await engine.exchange("s", Exchange(7, Append((80,)), Next(1))) is later
    assert (await engine.exchange("s", Exchange(8, None, Next(1)))).length == 1
    await engine.shut()


async def test_forks_count_as_sessions() -> None:
    engine = engine_of("llama", sessions=2)
    await opened(engine)
    await engine.fork("s", "first")
    await engine.fork("s", "first")
    with pytest.raises(Overloaded):
        await engine.fork("s", "second")
    assert engine.stats()["open_sessions"] == 2
    await engine.shut()


async def test_a_fork_goes_on_from_what_was_done_and_not_from_what_is_under_way() -> None:
    engine = engine_of("llama")
    await opened(engine)
    under_way = asyncio.create_task(engine.exchange("s", Exchange(1, Append((80, 81)), Next(1))))
    await asyncio.sleep(0)
    forking = asyncio.create_task(engine.fork("s", "f"))
    await asyncio.sleep(0)
    under_way.cancel()
    await asyncio.gather(under_way, forking, return_exceptions=True)
    assert (await engine.exchange("f", Exchange(1, None, Next(1)))).length == 0
    await engine.shut()


async def test_a_session_that_closes_before_it_is_forked_is_lost() -> None:
    engine = engine_of("llama")
    await opened(engine)
    under_way = asyncio.create_task(engine.exchange("s", Exchange(1, None, Next(1))))
    await asyncio.sleep(0)
    forking = asyncio.create_task(engine.fork("s", "f"))
    await asyncio.sleep(0)
    await engine.close("s")
    outcomes = await asyncio.gather(under_way, forking, return_exceptions=True)
    assert all(isinstance(outcome, MemberLost) for outcome in outcomes)
    assert engine.stats()["open_sessions"] == 0
    await engine.shut()


def threads_of(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that texts are tokenised in from now on."""
    encode, threads = engine._tokeniser.encode, []

    def noted(text: bytes) -> list[int]:
        threads.append(threading.current_thread().name)
        return encode(text)

    monkeypatch.setattr(engine._tokeniser, "encode", noted)
    return threads


async def test_long_texts_are_tokenised_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("llama")
    engine._prompts = lambda request: engine._tokeniser.encode(request.question.encode())[:5]  # type: ignore[assignment]
    here = threading.current_thread().name
    short, long = "short", "long " * 1000
    for text in (short, long):
        threads = threads_of(engine, monkeypatch)
        await engine.open(text, Request.of(text))
        await EngineMember(engine).answer(Request.of(text, max_tokens=1))
        await engine.tokenise([text.encode()])
        with pytest.raises(BadRequest):
            await engine.exchange(text, Exchange(1, SyncText((long if text == long else "x" * 200).encode())))
        assert len(threads) == 4 and all((name == here) == (text == short) for name in threads)
        monkeypatch.undo()
    await engine.shut()


@pytest.mark.parametrize("length", [8, 5000])
async def test_long_texts_that_are_scored_are_tokenised_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    engine = engine_of("llama")
    here = threading.current_thread().name
    await opened(engine)
    threads = threads_of(engine, monkeypatch)
    question = Score((b"x" * length, (80, 81), b"+"))
    outcomes: list[Any] = await asyncio.gather(
        engine.exchange("s", Exchange(1, None, question)), return_exceptions=True
    )
    assert len(threads) == 2 and all((name == here) == (length == 8) for name in threads)
    if length == 8:
        assert [len(scored.ids) for scored in outcomes[0].payload] == [8, 2, 1]
    else:
        assert isinstance(outcomes[0], ContextTooLong)
    await engine.shut()


async def test_a_name_that_is_opened_twice_at_once_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("llama", sessions=1)
    engine._prompts = lambda request: [5]  # type: ignore[assignment]
    long = Request.of("long " * 1000)
    await together(engine.open("s", long) for _ in range(3))
    assert engine.stats()["open_sessions"] == 1 and engine.stats()["billed_calls"] == 1
    outcomes: list[Any] = await asyncio.gather(engine.open("t", long), return_exceptions=True)
    assert isinstance(outcomes[0], Overloaded)
    await engine.shut()
