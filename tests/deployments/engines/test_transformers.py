"""The transformers engine under the conformance suite, over several architectures with random weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import torch
import transformers
from random_models import ARCHITECTURES, COMMON, engine_of

from deployments.engines.engine import EngineMember
from deployments.engines.forward import Forward
from ensemble.concurrency import together
from ensemble.errors import ConfigurationError, MemberLost, Overloaded
from ensemble.member import Until
from ensemble.request import Request
from ensemble.testing.conformance import QUESTION, EngineConformance


class TestTransformersEngine(EngineConformance):
    """Three slots for many sessions and a prefill chunk of 8: evictions, forks and ragged passes all happen."""

    @pytest.fixture(params=sorted(ARCHITECTURES))
    async def member(self, request: pytest.FixtureRequest) -> AsyncIterator[EngineMember]:
        engine = engine_of(request.param)
        yield EngineMember(engine)
        assert engine.stats()["open_sessions"] == 0
        await engine.shut()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA card here")
class TestTransformersEngineOnGpu(EngineConformance):
    """The same on a card; its kernels differ a little between batch shapes."""

    tolerance = 1e-3

    @pytest.fixture(params=sorted(ARCHITECTURES))
    async def member(self, request: pytest.FixtureRequest) -> AsyncIterator[EngineMember]:
        engine = engine_of(request.param, device="cuda")
        yield EngineMember(engine)
        await engine.shut()


async def test_idle_sessions_beyond_the_slots_block_nothing() -> None:
    engine = engine_of("llama", slots=2)
    member = EngineMember(engine)
    sessions = [await member.start(Request.of(f"{i}: {QUESTION}")) for i in range(7)]
    first = [await session.next(3) for session in sessions]
    again = [await session.next(3) for session in reversed(sessions)][::-1]
    assert [d.ids.tolist() for d in first] == [d.ids.tolist() for d in again]
    assert (await member.answer(Request.of(QUESTION, max_tokens=3))).text is not None
    await together(session.close() for session in sessions)
    assert engine.stats()["open_sessions"] == 0
    await engine.shut()


async def test_sessions_of_one_tick_share_one_pass() -> None:
    engine = engine_of("llama", slots=8, prefill_chunk=512)
    member = EngineMember(engine)
    sessions = [await member.start(Request.of("x" * (i + 1))) for i in range(8)]
    await together(session.next(1) for session in sessions)
    before = engine.stats()["steps"]
    await together(session.next(1) for session in sessions)
    assert engine.stats()["steps"] == before, "answered from the last pass"
    await together(session.propose(Until(tokens=5)) for session in sessions)
    assert engine.stats()["steps"] - before == 4
    await engine.shut()


async def test_a_shared_prompt_is_prefilled_once() -> None:
    engine = engine_of("llama", slots=8)
    member = EngineMember(engine)
    prompt = "a long prompt that several sessions share, word for word"
    async with await member.start(Request.of(prompt)) as session:
        await session.next(1)
        computed = engine.stats()["tokens"]
        async with await member.start(Request.of(prompt)) as other:
            await other.next(1)
        assert engine.stats()["tokens"] - computed == 1
    await engine.shut()


async def test_a_tree_of_continuations_is_computed_once() -> None:
    engine = engine_of("llama", slots=2)
    async with await EngineMember(engine).start(Request.of(QUESTION)) as session:
        await session.next(1)
        computed = engine.stats()["tokens"]
        await session.score([5, 6, 7], [5, 6, 8], [5, 6])
        assert engine.stats()["tokens"] - computed == 4
    await engine.shut()


async def test_sessions_beyond_the_limit_are_refused() -> None:
    engine = engine_of("llama", sessions=1)
    member = EngineMember(engine)
    async with await member.start(Request.of(QUESTION)):
        with pytest.raises(Overloaded):
            await member.start(Request.of(QUESTION))
    await engine.shut()


async def test_an_abandoned_session_is_closed() -> None:
    engine = engine_of("llama", idle_seconds=0.1)
    session = await EngineMember(engine).start(Request.of(QUESTION))
    await session.next(1)
    for _ in range(40):
        await asyncio.sleep(0.05)
        if not engine.stats()["open_sessions"]:
            break
    assert engine.stats()["open_sessions"] == 0
    with pytest.raises(MemberLost):
        await session.next(1)
    await engine.shut()


async def test_closing_a_generation_stops_its_work() -> None:
    engine = engine_of("llama")
    events = EngineMember(engine).generate(Request.of(QUESTION, temperature=1.0, seed=1))
    await anext(events)
    await anext(events)
    await events.aclose()  # type: ignore[attr-defined]
    assert engine.stats()["running"] == 0 and engine.stats()["slots_held"] == 0
    await engine.shut()


async def test_shutting_down_fails_what_is_under_way() -> None:
    engine = engine_of("llama")
    session = await EngineMember(engine).start(Request.of(QUESTION))
    await engine.shut()
    with pytest.raises((MemberLost, TimeoutError)):
        async with asyncio.timeout(2):
            await session.next(1)


def test_models_without_a_key_value_cache_are_refused() -> None:
    config = transformers.LlamaConfig(**COMMON)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ConfigurationError, match="linear_attention"):
        Forward(model, 2)
