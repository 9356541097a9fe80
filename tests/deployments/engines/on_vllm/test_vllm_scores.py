"""How continuations are scored: the way that computes fewer tokens, with the same numbers either way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.engines.vllm.listings import listings
from ensemble.member import Floats
from ensemble.testing.local import TinyMember

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm installs it"
)
PREFIX = list(b"a prefix of more than one block, which the cache holds")


class FakeCore:
    """A small model that answers requests as vLLM does, and counts them."""

    block, size = 16, 256

    def __init__(self, *, whole_prompts: bool = True) -> None:
        self.whole_prompts = whole_prompts
        self.asked: list[tuple[int, int | None]] = []
        self._model = TinyMember("tiny").model

    def row(self, ids: Sequence[int]) -> Floats:
        return self._model((), ids)

    async def once(self, ids: Sequence[int], adapter: Any, *, topk: int, forced: int | None = None) -> Any:
        self.asked.append((len(ids), forced))
        row = self.row(ids)
        return listings(flat([(row, int(row.argmax()) if forced is None else forced)], topk), self.size)[0]

    async def run(self, ids: Sequence[int], params: Any, adapter: Any = None) -> AsyncIterator[Any]:
        self.asked.append((len(ids), None))
        rows = [(self.row(ids[:end]), ids[end]) for end in range(1, len(ids))]
        prompt = flat(rows, params.prompt_logprobs, first=True)
        last = self.row(ids)
        out = SimpleNamespace(logprobs=flat([(last, int(last.argmax()))], params.logprobs))
        yield SimpleNamespace(prompt_logprobs=prompt, outputs=[out])


def flat(rows: list[tuple[Floats, int]], topk: int, *, first: bool = False) -> Any:
    from vllm.logprobs import FlatLogprobs

    found = FlatLogprobs()
    if first:
        found.append(None)
    for row, token in rows:
        best = np.argsort(-row, kind="stable")[:topk].tolist()
        values = [float(row[token]), *row[best].tolist()]
        found.append_fast([token, *best], values, range(topk + 1), [None] * (topk + 1))  # type: ignore[arg-type]
    return found


def scored(core: FakeCore, *continuations: tuple[int, ...], topk: int = 0) -> Any:
    from deployments.engines.vllm.scores import Scorer

    scorer = Scorer(core, None, PREFIX, topk, 512)  # type: ignore[arg-type]
    return asyncio.run(scorer.score(continuations, None))


@pytest.mark.parametrize("whole", [True, False])
def test_both_ways_give_the_chain_of_the_model(whole: bool) -> None:
    core = FakeCore(whole_prompts=whole)
    one, other = tuple(b"continued at length"), tuple(b"continued otherwise")
    for ids, result in zip((one, other), scored(core, one, other, topk=3), strict=True):
        rows = [core.row([*PREFIX, *ids[:end]]) for end in range(len(ids) + 1)]
        assert result.ids == ids
        assert result.logprobs == pytest.approx([row[i] for row, i in zip(rows, ids, strict=False)], abs=1e-5)
        assert result.greedy.tolist() == [int(row.argmax()) for row in rows]
        for listed, row in zip(result.distributions, rows, strict=True):
            assert listed.logprobs == pytest.approx(np.sort(row)[::-1][:3], abs=1e-5)
    assert (len(core.asked) == 2) == whole


def test_a_short_continuation_is_scored_place_by_place_and_shared_beginnings_once() -> None:
    core = FakeCore()
    scored(core, (1,), (1, 2))
    assert sorted(core.asked, key=str) == sorted(
        [(len(PREFIX), 1), (len(PREFIX) + 1, 2), (len(PREFIX) + 2, None)], key=str
    )


def test_a_long_continuation_is_scored_as_a_whole_prompt_with_what_it_begins_with() -> None:
    core = FakeCore()
    long = tuple(range(60))
    results = scored(core, long, long[:20])
    assert core.asked == [(len(PREFIX) + 60, None)]
    assert results[1].total == pytest.approx(float(results[0].logprobs[:20].sum()), abs=1e-4)
