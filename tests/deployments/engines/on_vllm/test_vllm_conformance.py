"""The vLLM engine under the conformance suite: random weights, a vocabulary with rows that may not be written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from deployments.engines.engine import EngineMember
from deployments.engines.loading import start
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import RandomModel, RandomSource
from ensemble.testing.conformance import EngineConformance

CONTEXT = 96
COMMON = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
    "max_position_embeddings": CONTEXT,
}
SHAPES = {"llama": {**COMMON, "vocab_size": 300}, "qwen2": {**COMMON, "vocab_size": 2100}}


def settings_of(name: str, cache: Path) -> ModelSettings:
    shape = RandomModel(architecture=name, config=SHAPES[name])
    options = {"kv_cache_memory_bytes": 32 << 20, "block_size": 32}
    return ModelSettings(
        name=name, source=RandomSource(random=shape), engine="vllm", slots=4, engine_options=options, cache=cache
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted(SHAPES))
async def member(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineMember]:
    """One engine for all tests of a shape: starting one takes longer than most of them."""
    engine = (await start(settings_of(request.param, tmp_path_factory.mktemp("models"))))[request.param]
    yield EngineMember(engine)
    assert engine.stats()["open_sessions"] == 0
    await engine.shut()


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm installs it")
@pytest.mark.asyncio(loop_scope="module")
class TestVllmEngine(EngineConformance):
    """Four places for many sessions, blocks of 32 ids: evictions, reopened sessions and shared blocks all happen.

    One vocabulary is listed whole by an open request; the other is too wide for it.
    """

    tolerance = 2e-4
