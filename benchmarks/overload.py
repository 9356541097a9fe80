"""Goodput under overload: what an ensemble answers when ten times as many clients ask as it has places.

    python benchmarks/overload.py --seconds 8 --rounds 3

Clients ask again as soon as they are answered. Whoever is refused comes again after the time that the refusal names and
a little more, each another little. Loads are measured in turns, so that a busy moment of the machine hits them alike.
Goodput is the tokens per second of answers at the highest load ÷ those at the best of the others; all that is begun is
finished (whatever fails is told), so tokens count as they are written. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from cluster.config import parse

LOADS = (1, 2, 10)
"""Clients for each place."""
PLACES = 5
"""Of six sessions less the one that is left to plain requests."""
WRITTEN = r'^ensemble_usage_completion_tokens_total\{{model="{}",[^}}]*\}} ([\d.e+-]+)$'
SMALL = {"cpus": 0.1}
CONFIGURATION: Mapping[str, Any] = {
    "name": "overload",
    "models": {
        name: {"source": {"random": {"architecture": "llama", "seed": seed}}, "sessions": 6, "resources": SMALL}
        for seed, name in enumerate(("left", "right"))
    },
    "ensembles": {
        "pair": {"method": "gac", "members": ["left", "right"], "queue": 2 * PLACES, "resources": SMALL},
    },
    "gateway": {"resources": SMALL},
}


@dataclass
class Seen:
    """What the clients of one load have met, once they were told to count."""

    counting: bool = False
    answered: int = 0
    failed: int = 0
    tokens: float = 0.0
    """Written in the time that counts, by all members."""
    refusals: list[float] = field(default_factory=list)
    """Seconds that each has taken."""


async def client(http: httpx.AsyncClient, request: Mapping[str, Any], seen: Seen, rng: random.Random) -> None:
    """Asks until it is cancelled."""
    while True:
        began = time.perf_counter()
        reply = await http.post("/v1/chat/completions", json=request)
        taken = time.perf_counter() - began
        if reply.status_code == 200:
            seen.answered += seen.counting
            continue
        again = reply.headers.get("retry-after")
        if seen.counting:
            seen.failed += again is None
            seen.refusals += [taken] if again is not None else []
        await asyncio.sleep(float(again or 1) * (1 + rng.random() / 2))


async def written(http: httpx.AsyncClient, model: str) -> float:
    """Tokens that an ensemble's members have written for it so far."""
    told = (await http.get("/metrics")).text
    return sum(float(value) for value in re.findall(WRITTEN.format(re.escape(model)), told, re.MULTILINE))


async def load(url: str, request: Mapping[str, Any], clients: int, seconds: float, seed: int) -> Seen:
    """One load for some seconds, after half as many in which it settles."""
    seen, limits = Seen(), httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        tasks = [asyncio.create_task(client(http, request, seen, random.Random(seed + i))) for i in range(clients)]
        await asyncio.wait(tasks, timeout=seconds / 2, return_when=asyncio.FIRST_EXCEPTION)
        seen.counting, before, began = True, await written(http, request["model"]), time.perf_counter()
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        seen.counting = False
        seen.tokens = (await written(http, request["model"]) - before) / (time.perf_counter() - began) * seconds
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    seen.failed += sum(not isinstance(end, asyncio.CancelledError) for end in ends)
    return seen


async def measure(
    url: str,
    *,
    model: str = "pair",
    places: int = PLACES,
    loads: Sequence[int] = LOADS,
    tokens: int = 300,
    seconds: float = 8,
    rounds: int = 3,
) -> dict[str, Any]:
    """Figures of a running service.

    Args:
        places: requests that the ensemble works on at once.
        loads: clients for each place, the highest last.

    Returns:
        By load, medians over the rounds: tokens, answers and refusals in a second, slowest refusal in milliseconds;
        failures in all; ``goodput``, the ratio of the medians; and each round's own ratio.
    """
    request = {"model": model, "messages": [{"role": "user", "content": "go"}], "max_tokens": tokens}
    met: dict[int, list[Seen]] = {each: [] for each in loads}
    for turn in range(rounds):
        for each in loads:
            met[each].append(await load(url, request, each * places, seconds, seed=1000 * turn))
    ratios = [
        met[loads[-1]][turn].tokens / max(1, *(met[each][turn].tokens for each in loads[:-1])) for turn in range(rounds)
    ]
    rows = [_row(seen, seconds) for seen in met.values()]
    return {
        "loads": dict(zip(map(str, met), rows, strict=True)),
        "goodput": round(rows[-1]["tokens_per_s"] / max(row["tokens_per_s"] for row in rows[:-1]), 3),
        "rounds": [round(ratio, 3) for ratio in ratios],
    }


def _row(seen: Sequence[Seen], seconds: float) -> dict[str, float]:
    return {
        "tokens_per_s": round(median(s.tokens for s in seen) / seconds, 1),
        "answered_per_s": round(median(s.answered for s in seen) / seconds, 2),
        "refused_per_s": round(median(len(s.refusals) for s in seen) / seconds, 2),
        "refusal_ms": round(1e3 * median(max(s.refusals, default=0) for s in seen), 1),
        "failed": sum(s.failed for s in seen),
    }


def show(figures: Mapping[str, Any]) -> None:
    table = Table(
        "clients for each place", "tokens / s", "answered / s", "refused / s", "slowest refusal, ms", "failed"
    )
    for each, row in figures["loads"].items():
        table.add_row(each, *(f"{value:g}" for value in row.values()))
    Console().print(table)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=300, help="tokens of each answer")
    parser.add_argument("--seconds", type=float, default=8, help="of each load in each round")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are reported")
    args = parser.parse_args()
    from cluster.local import running

    with running(parse(dict(CONFIGURATION)), port=free_port()) as url:
        figures = asyncio.run(measure(url, tokens=args.tokens, seconds=args.seconds, rounds=args.rounds))
    show(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
