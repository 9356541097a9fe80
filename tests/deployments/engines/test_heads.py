"""Heads at the transformers engine, under the conformance suite, and what is refused when they are loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import WIDTH, engine_of, experts, router

from deployments.engines.engine import EngineMember
from deployments.engines.heads import load_heads
from deployments.engines.settings import HeadSettings
from ensemble import artifacts
from ensemble.concurrency import together
from ensemble.errors import ConfigurationError
from ensemble.heads import build
from ensemble.member import Next
from ensemble.request import Request
from ensemble.testing.conformance import QUESTION, by_id
from ensemble.testing.heads import HeadConformance

HEADS: Mapping[str, artifacts.Artifact] = {"router": router(), "experts": experts()}


class TestHeads(HeadConformance):
    """Three slots for many sessions and a prefill chunk of 8."""

    @pytest.fixture(params=["gpt2", "llama"])
    async def member(self, request: pytest.FixtureRequest) -> AsyncIterator[EngineMember]:
        engine = engine_of(request.param, heads={name: build(artifact) for name, artifact in HEADS.items()})
        yield EngineMember(engine)
        assert engine.stats()["open_sessions"] == 0
        await engine.shut()

    @pytest.fixture(params=sorted(HEADS))
    def head(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


async def test_a_head_reads_the_hidden_state_that_is_told() -> None:
    head = build(HEADS["router"])
    engine = engine_of("llama", heads={"router": head})
    async with await EngineMember(engine).start(Request.of(QUESTION)) as session:
        hidden = (await session.exchange(Next(1, hidden=True))).payload.hidden  # type: ignore[union-attr]
        read = by_id(await session.next(0, head="router"))
    states = torch.tensor(hidden)[None]
    np.testing.assert_allclose(head.read(states, states, None)[0].numpy(), read, atol=1e-5)
    await engine.shut()


async def test_heads_of_many_sessions_are_read_in_one_pass() -> None:
    engine = engine_of("llama", slots=8, prefill_chunk=512, heads={"router": build(HEADS["router"])})
    member = EngineMember(engine)
    sessions = [await member.start(Request.of("x" * (i + 1))) for i in range(8)]
    before = engine.stats()["steps"]
    await together(session.next(2, head="router") for session in sessions)
    assert engine.stats()["steps"] - before == 1
    await together(session.close() for session in sessions)
    await engine.shut()


def saved(folder: Path, artifact: artifacts.Artifact) -> HeadSettings:
    artifacts.save(folder, *artifact)
    return HeadSettings(artifact.manifest.kind, folder)


def test_a_head_comes_back_from_its_folder_as_it_was_saved(tmp_path: Path) -> None:
    settings = saved(tmp_path / "head", router())
    heads = load_heads({"citer": settings}, "v", WIDTH)
    assert heads.cards["citer"].kind == "router"
    assert heads.cards["citer"].labels == ("stay", "leave")
    digest = artifacts.digest(tmp_path / "head")
    artifacts.save(tmp_path / "head", *router(seed=5))
    assert artifacts.digest(tmp_path / "head") != digest
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


@pytest.mark.parametrize(
    ("artifact", "kind", "says"),
    [
        (router(vocabulary="other"), "router", "another vocabulary"),
        (router(width=16), "router", "hidden states of 16 numbers; the model's have 32"),
        (router(), "experts", "declared as experts; .* holds a router"),
        (experts()._replace(tensors={}), "experts", "needs a tensor 'rows'"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    tmp_path: Path, artifact: artifacts.Artifact, kind: str, says: str
) -> None:
    settings = replace(saved(tmp_path / "head", artifact), kind=kind)
    with pytest.raises(ConfigurationError, match=says):
        load_heads({"citer": settings}, "v", WIDTH)


def test_what_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no artifact"):
        load_heads({"citer": HeadSettings("router", tmp_path)}, "v", WIDTH)
    (tmp_path / "manifest.json").write_text('{"kind": 3}')
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_heads({"citer": HeadSettings("router", tmp_path)}, "v", WIDTH)


def test_a_kind_that_nobody_knows_is_refused() -> None:
    artifact = router()
    with pytest.raises(ConfigurationError, match=r"no kind of head; allowed: .*experts.*router"):
        build(artifact._replace(manifest=artifact.manifest.model_copy(update={"kind": "oracle"})))
