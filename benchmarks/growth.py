"""What more members and longer contexts cost ``gac``, and what an open request holds in memory.

    python benchmarks/growth.py --members 2 3 4 --context 256 1024 4096

Four small models run as deployments of a Ray cluster; this process is the driver. For each number of members, and for
two members behind prompts of each length, it measures a step after the first and its parts, as ``efficiency.py`` does,
and *efficiency*: tokens per second after the first over those of the slowest member while all decode independently
beside each other. The models share the machine's cores with each other and with the driver: where there are fewer
cores than models, a step takes longer with each member because the members do, so read efficiency and the driver's
part, not the step, as the price of the ensemble.

Prompts are random characters of one token each. *Prefill* is the time to the first token of a prompt never seen. The
requests measured after it share their prompt with it but for the last tokens, so that they decode at that length at
once. Memory of a session at an engine is the whole cache over its slots, which grow in steps of two. At the driver 64
requests are held open behind their first token: *grown* is what the process has got from the system meanwhile, which
is too little where it uses again what was free inside it, and *allocated* what Python's allocator has handed out; both
over 64. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import string
import time
import tracemalloc
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from statistics import median
from typing import Any

import psutil  # type: ignore[import-untyped]
from efficiency import PARTS, Exchanges, Figures, TimedMember, connected, slowest
from models import Shape, even, scratch
from rich.console import Console
from rich.table import Table

from cluster.config import parse
from cluster.local import running
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.member import Member
from ensemble.request import Delta, Event, Request, Sampling

VOCABULARY = 4096
OPEN = 64
"""Requests that are open at once where the driver's memory is measured."""
PROMPT = 128
"""Tokens of prompts where the number of members grows."""


def configuration(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """As many models as the largest ensemble has members, with few slots."""
    shape = Shape(args.hidden, args.layers, 4, VOCABULARY, context=max(args.context) + args.tokens + 64)
    sources = even(shape, folder, max(args.members))
    part = {"sessions": max(4, 2 * args.concurrency), "resources": {"cpus": 1}}
    models = {name: {"source": source, **part} for name, source in sources.items()}
    return {"name": "efficiency", "models": models, "gateway": {"resources": {"cpus": 0.1}}}


def prompts(length: int, count: int, seed: int) -> list[str]:
    """Prompts of so many tokens that differ in the last few."""
    drawn = random.Random(f"{length} {seed}")
    text = "".join(drawn.choices(string.ascii_uppercase, k=length - 4))
    return [f"{text}{number:04}" for number in range(count)]


def asking(prompt: str, tokens: int) -> Request:
    return Request(prompt=prompt, sampling=Sampling(max_tokens=tokens))


async def decoded(member: Member, prompts: Sequence[str], tokens: int) -> Figures:
    """Tokens per second after each answer's first, summed over requests at once, and median seconds until that."""

    async def one(prompt: str) -> tuple[float, float]:
        began, first = time.perf_counter(), 0.0
        async with aclosing(member.generate(asking(prompt, tokens))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta) and not first:
                    first = time.perf_counter()
        return first - began, (tokens - 1) / (time.perf_counter() - first)

    waits, rates = zip(*await together(one(prompt) for prompt in prompts), strict=True)
    return {"rate": sum(rates), "first": median(waits)}


async def stepped(members: Sequence[TimedMember], prompts: Sequence[str], tokens: int) -> Figures:
    """Figures of ``gac`` over members, beside those of the members; parts of a step in seconds."""
    beside = slowest(await together(decoded(member, prompts, tokens) for member in members))
    clock: dict[str, list[Exchanges]] = defaultdict(list)
    for member in members:
        member.clock = clock
    figures = await decoded(Ensemble("all", "gac", members), prompts, tokens)
    # The first exchange reads the prompt.
    slower = [max(step) for own in clock.values() for step in list(zip(*own, strict=False))[1:]]
    exchange, engine = (sum(column) / len(slower) for column in zip(*slower, strict=True))
    step = len(prompts) / figures["rate"]
    parts = {"step": step, "engine": engine, "wire": exchange - engine, "driver": step - exchange}
    return {"tokens_per_s": figures["rate"], "efficiency": figures["rate"] / beside["rate"], **parts}


async def repeated(rounds: int, measured: Callable[[int], Awaitable[Figures]]) -> Figures:
    """Medians over rounds; parts in milliseconds."""
    seen = [await measured(number) for number in range(rounds)]
    middle = {key: median(figures[key] for figures in seen) for key in seen[0]}
    named = {f"{key}_ms" if key in PARTS else key: 1e3 * v if key in PARTS else v for key, v in middle.items()}
    return {key: round(value, 3 if key == "efficiency" else 2) for key, value in named.items()}


async def by_members(args: argparse.Namespace, members: Sequence[TimedMember]) -> dict[str, Figures]:
    """Figures by number of members."""
    figures = {}
    for count in args.members:

        async def measured(number: int, some: Sequence[TimedMember] = members[:count]) -> Figures:
            return await stepped(some, prompts(PROMPT, args.concurrency, number), args.tokens)

        figures[str(count)] = await repeated(args.rounds, measured)
    return figures


async def by_context(args: argparse.Namespace, pair: Sequence[TimedMember]) -> dict[str, Figures]:
    """Figures of two members by length of the prompt, with the cache's megabytes for each session."""
    figures = {}
    for length in sorted(args.context):

        async def measured(number: int, length: int = length) -> Figures:
            texts = prompts(length, args.concurrency + 1, number)
            read = [(await decoded(member, texts[:1], 2))["first"] for member in pair]
            return {**await stepped(pair, texts[1:], args.tokens), "prefill_ms": 1e3 * max(read)}

        figures[str(length)] = await repeated(args.rounds, measured)
        held = [(await member.stats())["cache_bytes"] for member in pair]
        figures[str(length)]["cache_mb"] = round(max(held) / max(4, 2 * args.concurrency) / 2**20, 3)
    return figures


async def of_driver(args: argparse.Namespace, pair: Sequence[TimedMember]) -> dict[str, float]:
    """Kilobytes that this process grows by for each open request of two members."""
    ensemble = Ensemble("pair", "gac", pair)
    for member in pair:
        member.clock = defaultdict(list)
    texts = prompts(min(args.context), OPEN, args.rounds)
    await together(begun(ensemble.generate(asking(text, args.tokens))) for text in texts[:2])
    grown = await _growth(ensemble, texts, args.tokens, _resident)
    # Only now, as tracing takes memory itself.
    tracemalloc.start()
    allocated = await _growth(ensemble, texts, args.tokens, lambda: tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return {"open_requests": OPEN, "allocated_kb": allocated, "grown_kb": grown}


async def _growth(ensemble: Ensemble, texts: Sequence[str], tokens: int, taken: Callable[[], int]) -> float:
    """Kilobytes taken for each request while all are open."""
    gc.collect()
    before = taken()
    async with AsyncExitStack() as stack:
        events = [await stack.enter_async_context(aclosing(ensemble.generate(asking(t, tokens)))) for t in texts]
        await together(begun(answer) for answer in events)
        gc.collect()
        grown = taken() - before
    return round(grown / len(texts) / 2**10, 1)


def _resident() -> int:
    size: int = psutil.Process().memory_info().rss
    return size


async def begun(events: AsyncIterator[Event]) -> None:
    """Wait for the first text."""
    async for event in events:
        if isinstance(event, Delta):
            return


async def measure(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """All figures of one run."""
    members = await connected(names)
    await stepped(members, prompts(PROMPT, args.concurrency, args.rounds), 8)
    return {
        "members": await by_members(args, members),
        "context": await by_context(args, members[:2]),
        "memory": await of_driver(args, members[:2]),
    }


def show(figures: dict[str, Any]) -> None:
    """The figures as tables."""
    for growing in ("members", "context"):
        rows: dict[str, Figures] = figures[growing]
        columns = list(next(iter(rows.values())))
        table = Table(growing, *columns, title=f"gac, by {growing}")
        for size, row in rows.items():
            table.add_row(size, *(str(row[column]) for column in columns))
        Console(width=140).print(table)
    text = "driver, for each of {open_requests} open requests: allocated {allocated_kb} kB, grown {grown_kb} kB"
    Console(width=140).print(text.format(**figures["memory"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--context", type=int, nargs="+", default=[256, 1024, 4096], help="tokens of the prompt")
    parser.add_argument("--concurrency", type=int, default=2, help="requests at once")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are reported")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    if min(args.members) < 2:
        parser.error("--members must be 2 or more")
    if min(args.context) < 8 or args.tokens < 4:
        parser.error("--context must be 8 or more, and --tokens 4 or more")
    with scratch() as folder:
        described = configuration(args, Path(folder))
        with running(parse(described), port=0):
            figures = asyncio.run(measure(args, list(described["models"])))
    show(figures)
    settings = {name: getattr(args, name) for name in ("hidden", "layers", "concurrency", "tokens", "rounds")}
    print(json.dumps({"cpus": os.cpu_count(), **settings, **figures}))


if __name__ == "__main__":
    main()
