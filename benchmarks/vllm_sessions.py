"""What a session costs on vLLM, against vLLM's own decoding: both in one run, in turns, at 1 and 8 concurrent.

    python benchmarks/vllm_sessions.py [--tokens 60] [--rounds 5]

Random weights of a shape whose step takes some ten milliseconds on one core. Native decoding lists 20 log-probabilities
for each token, as sessions do. The last line is JSON: milliseconds per token, medians over rounds, and their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from deployments.engines.engine import EngineMember
from deployments.engines.loading import start
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import RandomModel, RandomSource
from ensemble.concurrency import together
from ensemble.member import Append
from ensemble.request import Request

SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "intermediate_size": 2048,
    "initializer_range": 0.3,
}
TOPK = 20


async def native(engine: Any, prompt: str, tokens: int) -> None:
    """vLLM's own decoding, greedy, with lists."""
    from deployments.engines.vllm.core import chunk

    params = chunk(max_tokens=tokens, logprobs=TOPK)
    async with aclosing(engine._core.run(list(prompt.encode()), params)) as outputs:
        written = sum([len(output.outputs[0].token_ids) async for output in outputs])
    assert written == tokens


async def session(engine: Any, prompt: str, tokens: int) -> None:
    """The same by a session that is told each token."""
    async with await EngineMember(engine).start(Request(prompt=prompt)) as opened:
        written: tuple[int, ...] = ()
        for _ in range(tokens):
            listed = await opened.next(TOPK, edit=Append(written))
            written = (int(listed.ids[0]),)


async def timed(way: Callable[[Any, str, int], Awaitable[None]], engine: Any, concurrent: int, tokens: int) -> float:
    """Milliseconds from one token of an answer to the next."""
    prompts = [f"{way.__name__} {number}: " + "a prompt of some length " * 4 for number in range(concurrent)]
    began = time.perf_counter()
    await together(_awaited(way(engine, prompt, tokens)) for prompt in prompts)
    return 1e3 * (time.perf_counter() - began) / tokens


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def measured(tokens: int, rounds: int) -> dict[str, Any]:
    source = RandomSource(random=RandomModel(architecture="llama", config=SHAPE))
    engine = (await start(ModelSettings(name="m", source=source, engine="vllm")))["m"]
    figures: dict[str, Any] = {}
    for concurrent in (1, 8):
        times: dict[str, list[float]] = {"native": [], "session": []}
        for _ in range(rounds):
            for way in (native, session):
                times[way.__name__].append(await timed(way, engine, concurrent, tokens))
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratio = statistics.median(s / n for s, n in zip(times["session"], times["native"], strict=True))
        print(f"{concurrent} concurrent: native {medians['native']:.1f} ms per token, session {medians['session']:.1f}")
        figures[str(concurrent)] = {**{k: round(v, 2) for k, v in medians.items()}, "ratio": round(ratio, 3)}
    await engine.shut()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(json.dumps({"vllm_sessions": asyncio.run(measured(asked.tokens, asked.rounds))}))


if __name__ == "__main__":
    main()
