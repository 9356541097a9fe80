"""Speculation over engines with caches: two random-weight models of one vocabulary in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from deployments.engines.engine import EngineMember
from deployments.engines.loading import start
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import RandomModel, RandomSource
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.request import Request

GREEDY = [("gac", {}), ("unite", {}), ("speculative_ensemble", {})]
TARGETS = [{}, {"processing": "ensemble"}, {"target": "contrastive"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def members() -> AsyncIterator[list[EngineMember]]:
    engines = []
    for seed in range(2):
        source = RandomSource(random=RandomModel(architecture="llama", seed=seed))
        engines.extend((await start(ModelSettings(name=f"r{seed}", source=source))).values())
    yield [EngineMember(engine) for engine in engines]
    for engine in engines:
        assert engine.stats()["open_sessions"] == 0
        await engine.shut()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("draft", [{}, {"overlap": True}, {"lengths": [2, 3]}], ids=str)
@pytest.mark.parametrize(("method", "options"), GREEDY, ids=["gac", "unite", "speculative_ensemble"])
async def test_greedy_answers_are_those_of_the_plain_rule(members, method, options, draft) -> None:
    request = Request.of("go", max_tokens=40)
    plain = Ensemble("plain", "unite" if method == "unite" else "gac", members)
    fast = Ensemble("fast", method, members, options={**options, "draft": draft})
    wanted = await plain.answer(request)
    # Several at once, so that blocks and steps of different requests share passes.
    found = await together(fast.answer(request) for _ in range(3))
    assert [answer.text for answer in found] == [wanted.text] * 3


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("options", TARGETS, ids=str)
async def test_drawn_answers_follow_their_seed(members, options) -> None:
    ensemble = Ensemble("fast", "speculative_ensemble", members, options=options)
    asked = [Request.of("go", max_tokens=24, temperature=1, top_p=0.95, seed=seed) for seed in (1, 2, 1)]
    first, second, again = await together(ensemble.answer(request) for request in asked)
    assert first.text == again.text != second.text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_with_itself_needs_few_passes_of_its_own(members) -> None:
    twins = Ensemble("twins", "speculative_ensemble", [members[0], members[0]], options={"draft": {"lengths": [8, 1]}})
    plain = Ensemble("plain", "gac", [members[0]])
    request = Request.of("go", max_tokens=48)
    found, wanted = await twins.answer(request), await plain.answer(request)
    assert found.text == wanted.text
    # One that drafts writes each token; the other adds one to each block and reads the rest.
    assert found.usage["r0"].completion_tokens < 1.25 * wanted.usage["r0"].completion_tokens
