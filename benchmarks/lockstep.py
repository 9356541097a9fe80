"""How close lockstep decoding comes to its slowest member: efficiency, and where a step's time goes.

    python benchmarks/lockstep.py --concurrency 1 8 --tokens 64

Two random-weight models of one size and different architecture run as deployments of a Ray cluster; this process is
the driver. In one run it measures each member's own rate alone, its rate while the other decodes independently beside
it (on a machine with few cores members share them), and the rate of ``gac`` over both. Efficiency is the ensemble's
tokens per second over the slowest member's. Of each step the slower exchange counts: engine time is what its reply
reports, wire time what it takes beyond that, and the driver's time is what is left of the step. Ends with one line
of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any, cast

from ray import serve
from rich.console import Console
from rich.table import Table

from cluster.config import parse
from cluster.local import running
from deployments.member import RemoteMember
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.member import Edit, Exchange, Member, Question, Reply, Session
from ensemble.request import Request

ARCHITECTURES = ("llama", "qwen2")
RATES = ("alone", "beside", "ensemble")
PARTS = ("step", "engine", "wire", "driver")
PROMPT = "the quick brown fox jumps over the lazy dog "


Exchanges = list[tuple[float, float]]
"""Of one session: seconds that each exchange took, and how many of them inside the engine."""


class TimedMember(RemoteMember):
    """A member whose sessions note the time of their exchanges, by request."""

    clock: dict[str, list[Exchanges]]

    async def start(self, request: Request) -> Session:
        exchanges: Exchanges = []
        self.clock[request.id].append(exchanges)
        return _TimedSession(await super().start(request), exchanges)


class _TimedSession(Session):
    def __init__(self, inner: Session, exchanges: Exchanges) -> None:
        self.member, self.vocabulary = inner.member, inner.vocabulary
        self._inner, self._exchanges = inner, exchanges

    async def exchange(self, question: Question | None = None, *, edit: Edit | None = None) -> Reply:
        began = time.perf_counter()
        reply = await self._inner.exchange(question, edit=edit)
        self._exchanges.append((time.perf_counter() - began, reply.seconds))
        return reply

    async def _send(self, exchange: Exchange) -> Reply:
        return await self.exchange(exchange.question, edit=exchange.edit)

    async def fork(self) -> Session:
        return _TimedSession(await self._inner.fork(), self._exchanges)

    async def close(self) -> None:
        await self._inner.close()


def slowest(clock: dict[str, list[Exchanges]]) -> tuple[float, float]:
    """Mean over all steps of the slower member's exchange, and of its time inside the engine."""
    pairs = [max(step) for sessions in clock.values() for step in zip(*sessions, strict=False)]
    return sum(whole for whole, _ in pairs) / len(pairs), sum(engine for _, engine in pairs) / len(pairs)


def configuration(args: argparse.Namespace) -> dict[str, Any]:
    """Two models of about 12 parameters × hidden² × layers each."""
    shape = {
        "hidden_size": args.hidden,
        "intermediate_size": 4 * args.hidden,
        "num_hidden_layers": args.layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 1024,
        # Peaked distributions, as trained models have: near-uniform ones would measure widening, not lockstep.
        "initializer_range": 0.1,
    }
    models = {
        name: {"source": {"random": {"architecture": name, "config": shape, "seed": seed}}, "resources": {"cpus": 1}}
        for seed, name in enumerate(ARCHITECTURES)
    }
    return {"name": "lockstep", "models": models, "gateway": {"resources": {"cpus": 0.1}}}


def question(number: int, tokens: int) -> Request:
    """Requests differ, so that no prompt cache helps."""
    return Request.of(f"{number} {PROMPT}", max_tokens=tokens)


async def rate(members: Iterable[Member], concurrency: int, tokens: int, *, at_once: bool) -> list[float]:
    """Tokens per second of each member, one after another or all at once."""

    async def own(member: Member) -> float:
        began = time.perf_counter()
        answers = await together(member.answer(question(i, tokens)) for i in range(concurrency))
        written = sum(usage.completion_tokens for answer in answers for usage in answer.usage.values())
        return written / (time.perf_counter() - began)

    members = list(members)
    return await together(map(own, members)) if at_once else [await own(member) for member in members]


async def ensemble_rate(ensemble: Ensemble, concurrency: int, tokens: int) -> tuple[float, float]:
    """Decided tokens per second, and seconds per step of one request."""
    began = time.perf_counter()
    answers = await together(ensemble.answer(question(i, tokens)) for i in range(concurrency))
    seconds = time.perf_counter() - began
    decided = max(sum(answer.usage[m.name].completion_tokens for answer in answers) for m in ensemble.members)
    return decided / seconds, seconds * concurrency / decided


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    handles = {name: serve.get_deployment_handle(f"model-{name}", "lockstep") for name in ARCHITECTURES}
    members = [cast(TimedMember, await TimedMember.connect(name, handle)) for name, handle in handles.items()]
    ensemble = Ensemble("pair", "gac", members)
    shape = {name: getattr(args, name) for name in ("hidden", "layers", "tokens", "rounds")}
    figures: dict[str, Any] = {"cpus": os.cpu_count(), **shape}
    figures |= {name: {} for name in ("efficiency", "efficiency_alone", "tokens_per_s", "step_ms")}
    await _warm(members, ensemble)
    for concurrency in args.concurrency:
        rounds = [await _round(members, ensemble, concurrency, args.tokens) for _ in range(args.rounds)]
        _report(figures, str(concurrency), rounds)
    return figures


async def _warm(members: list[TimedMember], ensemble: Ensemble) -> None:
    for member in members:
        member.clock = defaultdict(list)
    await rate(members, 2, 8, at_once=True)
    await ensemble_rate(ensemble, 2, 8)


async def _round(members: list[TimedMember], ensemble: Ensemble, concurrency: int, tokens: int) -> dict[str, float]:
    clock: dict[str, list[Exchanges]] = defaultdict(list)
    for member in members:
        member.clock = clock
    alone = await rate(members, concurrency, tokens, at_once=False)
    beside = await rate(members, concurrency, tokens, at_once=True)
    decided, step = await ensemble_rate(ensemble, concurrency, tokens)
    exchange, engine = slowest(clock)
    return {
        "alone": min(alone),
        "beside": min(beside),
        "ensemble": decided,
        "step": step,
        "engine": engine,
        "wire": exchange - engine,
        "driver": max(0.0, step - exchange),
    }


def _report(figures: dict[str, Any], concurrency: str, rounds: list[dict[str, float]]) -> None:
    middle = {name: median(r[name] for r in rounds) for name in rounds[0]}
    figures["efficiency"][concurrency] = round(median(r["ensemble"] / r["beside"] for r in rounds), 3)
    figures["efficiency_alone"][concurrency] = round(median(r["ensemble"] / r["alone"] for r in rounds), 3)
    figures["tokens_per_s"][concurrency] = {name: round(middle[name], 1) for name in RATES}
    figures["step_ms"][concurrency] = {name: round(1e3 * middle[name], 2) for name in PARTS}


def show(figures: dict[str, Any]) -> None:
    """The figures as tables."""
    console = Console()
    rates = Table("concurrent", *RATES, "efficiency", "of alone", title="tokens/s: slowest member, and gac over both")
    steps = Table("concurrent", *PARTS, title="milliseconds of a step")
    for c, of_rate in figures["tokens_per_s"].items():
        ratios = (figures["efficiency"][c], figures["efficiency_alone"][c])
        rates.add_row(c, *map(str, of_rate.values()), *map(str, ratios))
        steps.add_row(c, *map(str, figures["step_ms"][c].values()))
    console.print(rates, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are reported")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    args = parser.parse_args()
    with running(parse(configuration(args)), port=0):
        figures = asyncio.run(measure(args))
    show(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
