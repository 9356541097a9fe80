"""The vLLM engine under the conformance suite: random weights, a vocabulary with rows that may not be written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch

from deployments.engines.engine import EngineMember
from deployments.engines.loading import load_model, start
from deployments.engines.settings import HeadSettings, ModelSettings
from deployments.engines.sources import RandomModel, RandomSource
from ensemble import artifacts
from ensemble.artifacts import Manifest
from ensemble.errors import BadRequest, MissingCapability
from ensemble.member import Gate, SyncText, Until
from ensemble.request import Request
from ensemble.testing.conformance import QUESTION, EngineConformance, by_id

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


def with_projection(settings: ModelSettings, folder: Path) -> ModelSettings:
    """The settings with a head that the engine can host: random rows into a vocabulary of fifty."""
    vocabulary = load_model(replace(settings, engine="transformers", engine_options={})).tokeniser.vocabulary
    random = np.random.default_rng(0)
    ids, weights = random.integers(0, 50, (vocabulary.size, 3)), random.uniform(size=(vocabulary.size, 3))
    tensors = {"ids": ids.astype(np.int32), "weights": (weights / weights.sum(1, keepdims=True)).astype(np.float32)}
    manifest = Manifest(
        method="eva",
        kind="projection",
        member=settings.name,
        vocabulary=vocabulary.fingerprint,
        settings={"size": 50, "topk": 40},
    )
    artifacts.save(folder / "eva", manifest, tensors)
    return replace(settings, heads={"eva": HeadSettings("projection", folder / "eva")})


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted(SHAPES))
async def member(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineMember]:
    """One engine for all tests of a shape: starting one takes longer than most of them."""
    folder = tmp_path_factory.mktemp("models")
    engine = (await start(with_projection(settings_of(request.param, folder), folder)))[request.param]
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

    async def test_a_head_that_reads_likely_tokens_is_hosted(self, member: EngineMember) -> None:
        head = member._engine._answers._heads._heads["eva"]  # type: ignore[attr-defined]
        async with await member.start(Request.of(QUESTION)) as session:
            for text in (b"a", b"ab", b"abc"):
                row = by_id(await session.next(0, edit=SyncText(text)))
                expected = head.read(torch.tensor(row)[None], None, None)[0].exp().numpy()
                read = by_id(await session.next(0, head="eva"))
                np.testing.assert_allclose(np.exp(read), expected, atol=1e-4)
            assert len((await session.next(3, head="eva")).ids) == 3

    async def test_gates_and_unknown_heads_are_refused(self, member: EngineMember) -> None:
        async with await member.start(Request.of(QUESTION)) as session:
            with pytest.raises(BadRequest, match="no head 'citer'; allowed: eva"):
                await session.next(2, head="citer")
            for gate in (Gate(entropy=1.0), Gate("eva")):
                with pytest.raises(MissingCapability, match="no gates"):
                    await session.propose(Until(2, gate=gate))
