"""vLLM beside transformers: the same weights give the same numbers, with and without adapters, whatever is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from deployments.engines.engine import Engine, EngineMember
from deployments.engines.fetching import resolve
from deployments.engines.loading import start
from deployments.engines.settings import Limits, ModelSettings
from deployments.engines.sources import RandomModel, RandomSource
from deployments.wire import server as serving
from ensemble.concurrency import together
from ensemble.distributions import log_softmax
from ensemble.errors import ConfigurationError, ContextTooLong, MemberLost, MissingCapability
from ensemble.member import Append, Floats, Next, Until
from ensemble.request import Message, Request, Sampling
from ensemble.testing.conformance import by_id
from tests.deployments.wire.test_storm import storm
from tests.deployments.wire.wired import comes_true

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm installs it"),
    pytest.mark.asyncio(loop_scope="module"),
]

WIDE = RandomModel(
    architecture="llama",
    config={
        "vocab_size": 5000,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.3,
        "max_position_embeddings": 512,
    },
)
"""Wide enough for each way of looking ids up; rows from 257 on stand for no text."""
RANK, ALPHA = 4, 8
TARGETS = {"q_proj": (64, 64), "v_proj": (64, 32)}
QUESTION = Request(prompt="What is the sum of two and three, and what is their product? Answer in one word.")
QUESTION_FOR_FOUR = Request(prompt=QUESTION.prompt, sampling=Sampling(max_tokens=4))


def write_adapter(folder: Path, seed: int) -> Path:
    """A random LoRA adapter in the format of the peft library."""
    folder.mkdir()
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(2):
        for target, (width, height) in TARGETS.items():
            stem = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            weights[f"{stem}.lora_A.weight"] = torch.randn(RANK, width, generator=random) * 0.3
            weights[f"{stem}.lora_B.weight"] = torch.randn(height, RANK, generator=random) * 0.3
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    return folder


class Reference:
    """The same weights in transformers, with an adapter added to them."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        parts = load_file(adapter / "adapter_model.safetensors") if adapter else {}
        for name in [name for name in parts if "lora_A" in name]:
            path = name.removeprefix("base_model.model.").replace(".lora_A.weight", "")
            change = parts[name.replace("lora_A", "lora_B")] @ parts[name]
            self.model.get_submodule(path).weight.data += ALPHA / RANK * change

    def rows(self, ids: Sequence[int]) -> Floats:
        """Log-probabilities after each id, shape [len(ids), size]."""
        with torch.inference_mode():
            return log_softmax(self.model(torch.tensor([list(ids)])).logits[0].numpy())


@dataclass
class DraftPanel:
    engines: dict[str, Engine]
    references: dict[str, Reference]
    prompt: list[int]

    def member(self, name: str = "base") -> EngineMember:
        return EngineMember(self.engines[name])

    def row(self, ids: Sequence[int] = (), name: str = "base") -> Floats:
        """Log-probabilities after the prompt and some ids, by the reference."""
        row: Floats = self.references[name].rows([*self.prompt, *ids])[-1]
        return row

    @property
    def stats(self) -> dict[str, float]:
        return dict(self.engines["base"].stats())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DraftPanel]:
    """A model with two adapters in one vLLM: four places, blocks of 32 ids."""
    scratch = tmp_path_factory.mktemp("bench")
    adapters = {name: write_adapter(scratch / name, seed) for seed, name in enumerate(("red", "blue"))}
    settings = ModelSettings(
        name="base",
        source=RandomSource(random=WIDE),
        engine="vllm",
        slots=4,
        engine_options={"kv_cache_memory_bytes": 32 << 20},
        adapters=adapters,
        cache=scratch,
    )
    folder = resolve(settings.source, scratch)
    engines = await start(settings)
    references = {"base": Reference(folder), **{name: Reference(folder, path) for name, path in adapters.items()}}
    yield DraftPanel(engines, references, list((QUESTION.prompt or "").encode()))
    assert all(engine.stats()["open_sessions"] == 0 for engine in engines.values())
    assert engines["base"].stats()["slots_held"] == engines["base"].stats()["running"] == 0
    for engine in reversed(engines.values()):
        await engine.shut()


def close_to(expected: Floats) -> object:
    return pytest.approx(expected, abs=2e-4)


async def test_distributions_are_those_of_the_same_weights_elsewhere(bench: DraftPanel) -> None:
    async with await bench.member().start(QUESTION) as session:
        for ids in ([], [65], [65, 66, 67]):
            listed = await session.next(5, edit=Append(tuple(ids[-1:])) if len(ids) < 2 else Append((66, 67)))
            row = bench.row(ids)
            assert listed.ids.tolist() == np.argsort(-row, kind="stable")[:5].tolist()
            assert listed.logprobs == close_to(row[listed.ids])


async def test_a_longer_list_of_the_same_place_agrees_with_the_shorter(bench: DraftPanel) -> None:
    async with await bench.member().start(QUESTION) as session:
        lists = [await session.next(k) for k in (3, 40, 2000, 0)]
    for shorter, longer in pairwise(lists):
        assert longer.ids[: len(shorter.ids)].tolist() == shorter.ids.tolist()
        assert longer.logprobs[: len(shorter.ids)] == close_to(shorter.logprobs)
    assert lists[-1].complete and by_id(lists[-1]) == close_to(bench.row())


@pytest.mark.parametrize("count", [1, 3])
async def test_ids_that_were_not_listed_are_looked_up(bench: DraftPanel, count: int) -> None:
    """One is forced to be drawn; for three the whole distribution is listed."""
    row = bench.row()
    unlikely = tuple(np.argsort(row)[:count].tolist())
    async with await bench.member().start(QUESTION) as session:
        likely = int((await session.next(2)).ids[0])
        got = await session.logprobs_at((likely, *unlikely))
        assert got == close_to(row[[likely, *unlikely]])
        assert (await session.next(2)).ids[0] == likely


@pytest.mark.parametrize("name", ["base", "red"])
@pytest.mark.parametrize("length", [1, 3, 40])
async def test_scores_are_those_of_the_same_weights_elsewhere(bench: DraftPanel, length: int, name: str) -> None:
    random = np.random.default_rng(length)
    ids = tuple(random.integers(0, 256, length).tolist())
    other = (*ids[: length // 2], 7)
    async with await bench.member(name).start(QUESTION) as session:
        scored = await session.score(ids, other, topk=2)
    rows = bench.references[name].rows([*bench.prompt, *ids])[len(bench.prompt) - 1 :]
    assert scored[0].logprobs == close_to(rows[np.arange(length), ids])
    assert scored[0].greedy.tolist() == rows.argmax(axis=1).tolist()
    assert [listed.ids[0] for listed in scored[0].distributions] == rows.argmax(axis=1).tolist()
    assert scored[1].logprobs[-1] == close_to(rows[length // 2, 7])


async def test_what_cannot_be_scored_in_the_context_is_refused(bench: DraftPanel) -> None:
    async with await bench.member().start(QUESTION) as session:
        with pytest.raises(ContextTooLong):
            await session.score([65] * (512 - len(bench.prompt)))
        assert (await session.next(1)).ids[0] == bench.row().argmax()


async def test_an_accepted_proposal_costs_nothing(bench: DraftPanel) -> None:
    async with await bench.member().start(QUESTION) as session:
        proposal = await session.propose(Until(tokens=6))
        before = bench.stats
        listed = await session.next(3, edit=Append(proposal.ids))
        after = bench.stats
        assert after["steps"] - before["steps"] == 1 and after["tokens"] - before["tokens"] == 2
        assert listed.logprobs == close_to(bench.row(proposal.ids)[listed.ids])


async def test_a_proposal_goes_on_where_the_distribution_is_known(bench: DraftPanel) -> None:
    async with await bench.member().start(QUESTION) as session:
        fresh = await session.propose(Until(tokens=5))
    async with await bench.member().start(QUESTION) as session:
        await session.next(1000)
        before = bench.stats["tokens"]
        assert (await session.propose(Until(tokens=5))).ids == fresh.ids
        assert bench.stats["tokens"] - before == 5, "its first id, and four that vLLM drew"


async def test_drawn_tokens_follow_the_writable_part_of_the_distribution(bench: DraftPanel) -> None:
    async with await bench.member().start(QUESTION) as session:
        writable = session.vocabulary.writable
        drawn = [(await session.propose(Until(tokens=1), Sampling(temperature=1, seed=s))).ids[0] for s in range(150)]
    probabilities = np.where(writable, np.exp(bench.row().astype(np.float64)), 0)
    probabilities /= probabilities.sum()
    assert all(writable[i] for i in drawn)
    top = np.argsort(-probabilities)[:3]
    expected, got = probabilities[top].sum(), np.isin(drawn, top).mean()
    assert abs(got - expected) < 4 * np.sqrt(expected * (1 - expected) / len(drawn)) + 1e-9


async def test_adapters_are_models_of_their_own(bench: DraftPanel) -> None:
    rows = {}
    for name in bench.engines:
        async with await bench.member(name).start(QUESTION) as session:
            assert session.member == name
            listed = await session.next(4)
            rows[name] = by_id(await session.next(0))
            assert listed.logprobs == close_to(bench.row(name=name)[listed.ids])
    assert min(np.abs(rows[a] - rows[b]).max() for a, b in [("base", "red"), ("base", "blue"), ("red", "blue")]) > 0.05
    answers = await together(bench.member(name).answer(QUESTION_FOR_FOUR) for name in bench.engines)
    assert [list(answer.usage) for answer in answers] == [[name] for name in bench.engines]


async def test_more_sessions_than_places_and_plain_requests_between_all_end(bench: DraftPanel) -> None:
    evicted = bench.stats["slots_taken_away"]

    async def lockstep(number: int) -> list[int]:
        first, second = bench.member("base"), bench.member("red")
        request = Request(prompt=f"{number}: {QUESTION.prompt}")
        async with await first.start(request) as one, await second.start(request) as other:
            written: list[int] = []
            for _ in range(6):
                lists = await together(s.next(8, edit=Append(tuple(written[-1:]))) for s in (one, other))
                written.append(int(lists[number % 2].ids[0]))
                await asyncio.sleep(0.005 * (number % 3))
            return written

    async with asyncio.timeout(60):
        together_, answers = await asyncio.gather(
            together(lockstep(number) for number in range(7)),
            together(bench.member("blue").answer(QUESTION_FOR_FOUR) for _ in range(8)),
        )
    assert bench.stats["slots_taken_away"] > evicted and bench.stats["slots_waited_for"] == 0
    assert len({answer.text for answer in answers}) == 1
    assert together_[:2] == [await lockstep(0), await lockstep(1)], "alone it is the same"


async def test_an_idle_session_gives_up_its_place_and_comes_back(bench: DraftPanel) -> None:
    members = [await bench.member().start(QUESTION) for _ in range(6)]
    first = [await session.next(3) for session in members]
    again = [await session.next(3, edit=Append((65,))) for session in members]
    assert bench.stats["slots_held"] <= 3, "one place is left to plain requests"
    assert all(listed.ids.tolist() == first[0].ids.tolist() for listed in first)
    assert all(listed.logprobs == close_to(bench.row([65])[listed.ids]) for listed in again)
    await together(session.close() for session in members)


async def test_closing_a_generation_stops_its_work(bench: DraftPanel) -> None:
    events = bench.member().generate(Request(prompt="a", sampling=Sampling(temperature=1, seed=1)))
    await anext(events)
    await anext(events)
    assert bench.stats["running"] == 1
    await events.aclose()  # type: ignore[attr-defined]
    assert bench.stats["running"] == 0


async def test_closing_a_session_ends_what_it_is_doing(bench: DraftPanel) -> None:
    session = await bench.member().start(QUESTION)
    writing = asyncio.create_task(session.propose(Until(tokens=400), Sampling(temperature=2, seed=1)))
    await asyncio.sleep(0.05)
    assert bench.stats["running"] == 1
    await session.close()
    async with asyncio.timeout(5):
        with pytest.raises(MemberLost):
            await writing


async def test_closing_a_session_that_waits_for_a_place_leaves_the_place(bench: DraftPanel) -> None:
    members = [await bench.member().start(QUESTION) for _ in range(4)]
    *writing, waiting = [asyncio.create_task(session.propose(Until(tokens=60))) for session in members]
    assert await comes_true(lambda: bench.stats["slots_waited_for"])
    await members[-1].close()
    async with asyncio.timeout(20):
        with pytest.raises(MemberLost):
            await waiting
        await asyncio.gather(*writing)
    await together(session.close() for session in members)
    assert bench.stats["slots_held"] == 0


async def test_closing_a_session_that_waits_for_its_neighbours_holds_up_none_of_them(bench: DraftPanel) -> None:
    """What the engines' bursts hold back is not sent for a session that has ended."""
    async with await bench.member().start(QUESTION) as one, await bench.member().start(QUESTION) as other:
        for ids in ([], [65], [66]):
            await together(session.next(3, edit=Append(tuple(ids))) for session in (one, other))
        waiting = asyncio.create_task(one.next(3, edit=Append((67,))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await one.close()
        async with asyncio.timeout(5):
            with pytest.raises(MemberLost):
                await waiting
            for _ in range(3):
                assert (await other.next(3, edit=Append((67,)))).ids.size
            llm = bench.engines["base"]._core.llm  # type: ignore[attr-defined]
            assert llm.output_processor.get_num_unfinished_requests() == 1, "the other's"
    assert bench.stats["slots_held"] == bench.stats["running"] == 0


@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_of_drivers_leaves_nothing_behind(
    bench: DraftPanel, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "UNCLAIMED", 0.5)
    assert sum(await storm(bench.engines["base"], seed)) > 0
    llm = bench.engines["base"]._core.llm  # type: ignore[attr-defined]
    assert await comes_true(lambda: llm.output_processor.get_num_unfinished_requests() == 0)
    async with await bench.member().start(QUESTION) as session:
        assert (await session.next(1)).ids[0] == bench.row().argmax()


async def test_what_vllm_does_not_hand_out_is_refused(bench: DraftPanel) -> None:
    async with await bench.member().start(QUESTION) as session:
        with pytest.raises(MissingCapability, match="hidden states"):
            await session.exchange(Next(1, hidden=True))
        with pytest.raises(MissingCapability, match="whole tables"):
            await session.score([65], full=True)
        with pytest.raises(MissingCapability, match="whole tables"):
            await session.propose(Until(tokens=1), full=True)
        assert (await session.next(1)).ids[0] == bench.row().argmax()


async def test_one_request_that_fails_harms_no_other(bench: DraftPanel) -> None:
    engine = bench.engines["base"]
    good = Request(messages=(Message("user", "hello"),), sampling=Sampling(max_tokens=8))
    beside = asyncio.create_task(bench.member().answer(good))
    with pytest.raises(ContextTooLong):
        await bench.member().answer(Request(prompt="x" * 512))
    assert (await beside).choices and engine.alive


async def test_a_dead_engine_is_a_lost_member(tmp_path: Path) -> None:
    settings = ModelSettings(
        name="mortal",
        source=RandomSource(random=WIDE),
        engine="vllm",
        slots=2,
        engine_options={"kv_cache_memory_bytes": 16 << 20},
        limits=Limits(idle_seconds=0.4),
        cache=tmp_path,
    )
    before = {child.pid for child in psutil.Process().children()}
    engine = (await start(settings))["mortal"]
    abandoned = await EngineMember(engine).start(QUESTION)
    await abandoned.next(1)
    await asyncio.sleep(1)
    assert engine.stats()["open_sessions"] == 0 == engine.stats()["slots_held"], "its driver was gone too long"
    session = await EngineMember(engine).start(QUESTION)
    await session.next(1)
    for child in psutil.Process().children():
        if child.pid not in before and "resource_tracker" not in " ".join(child.cmdline()):
            child.kill()
    async with asyncio.timeout(20):
        with pytest.raises(MemberLost):
            while True:
                await session.next(1, edit=Append((65,)))
    assert not engine.alive
    with pytest.raises(MemberLost):
        await EngineMember(engine).answer(QUESTION_FOR_FOUR)
    await engine.shut()


async def test_an_adapter_of_another_model_is_refused_at_the_start(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "foreign", 0)
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name.replace("q_proj", "no_such_part"): w for name, w in weights.items()},
        adapter / "adapter_model.safetensors",
    )
    settings = ModelSettings(
        name="base",
        source=RandomSource(random=WIDE),
        engine="vllm",
        slots=2,
        engine_options={"kv_cache_memory_bytes": 16 << 20},
        adapters={"foreign": adapter},
        cache=tmp_path,
    )
    with pytest.raises(ConfigurationError, match="vLLM cannot compute foreign"):
        await start(settings)


async def test_two_tensor_parallel_processes_compute_what_one_computes(tmp_path: Path) -> None:
    settings = ModelSettings(
        name="halves",
        source=RandomSource(random=WIDE.model_copy(update={"config": {**WIDE.config, "num_key_value_heads": 2}})),
        engine="vllm",
        slots=2,
        tensor_parallel=2,
        engine_options={"kv_cache_memory_bytes": 16 << 20},
        cache=tmp_path,
    )
    engine = (await start(settings))["halves"]
    expected = Reference(resolve(settings.source, tmp_path)).rows(list((QUESTION.prompt or "").encode()))[-1]
    async with await EngineMember(engine).start(QUESTION) as session:
        assert by_id(await session.next(0)) == close_to(expected)
    await engine.shut()
