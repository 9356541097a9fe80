"""How close ensembles come to their slowest member, and where a step's time goes.

    python benchmarks/efficiency.py --methods gac unite --concurrency 1 8 32
    python benchmarks/efficiency.py --methods eva deepen packllm core abe byte_level --concurrency 1 8
    python benchmarks/efficiency.py --pair draft --methods gac speculative_ensemble safe purify r2r citer
    python benchmarks/efficiency.py --engine vllm

Two models run as deployments of a Ray cluster; this process is the driver. In one run, round by round, it measures each
member's own rate alone, its rate while the other decodes independently beside it (on a machine with few cores members
share them), and the rate of each method over both. *Efficiency* is the ensemble's tokens per second over the slowest
member's. Of each step the slower exchange counts: engine time is what its reply reports, wire time what it takes beyond
that, and the driver's time is what is left of the step. ``--pair even``: two models of one size that disagree all the
time; ``--pair draft``: a small one and a larger one that mostly agree. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import aclosing
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from models import Shape, deepened, even, scratch
from ray import serve
from rich.console import Console
from rich.table import Table

from cluster.app import settings_of
from cluster.config import Configuration, parse
from cluster.local import running
from deployments.engines.loading import load_model
from deployments.member import RemoteMember
from ensemble.artifacts import Manifest, save
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.member import Edit, Exchange, Member, Question, Reply, Session
from ensemble.request import Delta, Request
from jobs.commands.fit import run as fit

PROMPT = "the quick brown fox jumps over the lazy dog "
METHODS = (
    "gac",
    "unite",
    "eva",
    "deepen",
    "packllm",
    "core",
    "abe",
    "byte_level",
    "purify",
    "speculative_ensemble",
    "safe",
    "citer",
    "r2r",
)
OPTIONS: dict[str, dict[str, Any]] = {"abe": {"beam": 1}, "citer": {"threshold": 0.5}}
"""Of methods that are not measured with their defaults."""
STEPWISE = ("gac", "unite", "eva", "purify")
"""Methods that ask each member once for each token."""
PARTS = ("step", "engine", "wire", "driver")

_number = count(10_000)
"""Of the next request: all as long as each other."""

Exchanges = list[tuple[float, float]]
"""Of one session: seconds that each exchange took, and how many of them inside the engine."""
Figures = dict[str, float]


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

    def post(self, question: Question | None = None, *, edit: Edit | None = None) -> asyncio.Future[Reply]:
        began = time.perf_counter()
        sent = self._inner.post(question, edit=edit)
        sent.add_done_callback(lambda sent: self._note(sent, time.perf_counter() - began))
        return sent

    def _note(self, sent: asyncio.Future[Reply], seconds: float) -> None:
        if not sent.cancelled() and sent.exception() is None:
            self._exchanges.append((seconds, sent.result().seconds))

    async def exchange(self, question: Question | None = None, *, edit: Edit | None = None) -> Reply:
        return await self.post(question, edit=edit)

    def _send(self, exchange: Exchange) -> asyncio.Future[Reply]:
        return self.post(exchange.question, edit=exchange.edit)

    async def fork(self) -> Session:
        return _TimedSession(await self._inner.fork(), self._exchanges)

    async def close(self) -> None:
        await self._inner.close()


def configuration(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two models; places for all requests at once, with some to spare."""
    shape = Shape(hidden=args.hidden, layers=args.layers)
    draft = args.pair == "draft"
    sources = deepened(shape, args.draft_layers, args.change, folder) if draft else even(shape, folder)
    part = {"engine": args.engine, "sessions": max(16, 2 * max(args.concurrency)), "resources": {"cpus": 1}}
    if args.engine == "transformers":
        part["run_ahead"] = args.run_ahead
    models = {name: {"source": source, **part} for name, source in sources.items()}
    for name, heads in resident(args.methods, models, folder / "heads").items():
        models[name]["heads"] = heads
    return {"name": "efficiency", "models": models, "gateway": {"resources": {"cpus": 0.1}}}


def resident(methods: Iterable[str], models: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Heads by member, fitted to its weights; a router of random weights, which leaves about half to the other."""
    first, second = models
    made = {"eva": ("eva", f"{first},{second}"), "deepen": ("deepen", f"{first},{second}")}
    heads: dict[str, dict[str, Any]] = {first: {}, second: {}}
    plain = parse({"models": {name: {"source": model["source"]} for name, model in models.items()}})
    for method in set(methods) & set(made):
        given: dict[str, Any] = {
            "output": folder / method,
            "data": None,
            "options": (),
            "question": "question",
            "answer": None,
        }
        given |= {"grade_name": "exact", "split": 0.8, "seed": 0}
        for name, artifact in fit(method, plain, (first, second), given).items():
            heads[name][method] = {"kind": artifact.manifest.kind, "path": str(folder / method / name)}
    if "citer" in methods:
        heads[first]["citer"] = {"kind": "router", "path": str(_router(plain, first, folder / "citer"))}
    return {name: own for name, own in heads.items() if own}


def _router(plain: Configuration, small: str, folder: Path) -> Path:
    loaded = load_model(settings_of(small, plain.models[small]))
    width = loaded.model.config.hidden_size
    random = np.random.default_rng(0)
    shapes = {"weight0": (2 * width, width), "bias0": (2 * width,), "weight1": (width, 2 * width), "bias1": (width,)}
    shapes |= {"weight2": (1, width), "bias2": (1,)}
    tensors = {name: random.normal(size=shape).astype(np.float32) / width**0.5 for name, shape in shapes.items()}
    fingerprint = loaded.tokeniser.vocabulary.fingerprint
    save(folder, Manifest(method="citer", kind="router", member=small, vocabulary=fingerprint), tensors)
    return folder


async def asked(member: Member, concurrency: int, tokens: int) -> Figures:
    """Tokens per second of requests at once, and median seconds until the first text of an answer."""

    async def first() -> float:
        began, waited = time.perf_counter(), 0.0
        # No two requests of a run are alike, so that no prompt cache helps.
        request = Request.of(f"{next(_number)} {PROMPT}", max_tokens=tokens)
        async with aclosing(member.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta) and not waited:
                    waited = time.perf_counter() - began
        return waited

    began = time.perf_counter()
    waits = await together(first() for _ in range(concurrency))
    return {"rate": concurrency * tokens / (time.perf_counter() - began), "first": median(waits)}


def slowest(own: Iterable[Figures]) -> Figures:
    """The lowest rate and the longest wait."""
    own = list(own)
    return {"rate": min(figures["rate"] for figures in own), "first": max(figures["first"] for figures in own)}


class Run:
    """The members, and the methods over them."""

    def __init__(self, members: list[TimedMember], methods: Iterable[str], tokens: int) -> None:
        self._members, self._tokens = members, tokens
        self._ensembles = {m: Ensemble(m, m, members, options=OPTIONS.get(m)) for m in methods}

    async def round(self, concurrency: int) -> dict[str, Figures]:
        """Figures of the slowest member ``alone`` and ``beside`` the other, and of each method."""
        figures = {"alone": slowest([await asked(member, concurrency, self._tokens) for member in self._members])}
        figures["beside"] = slowest(await together(asked(m, concurrency, self._tokens) for m in self._members))
        for method in self._ensembles:
            figures[method] = await self._ensemble(method, concurrency)
        return figures

    async def _ensemble(self, method: str, concurrency: int) -> Figures:
        clock: dict[str, list[Exchanges]] = defaultdict(list)
        for member in self._members:
            member.clock = clock
        figures = await asked(self._ensembles[method], concurrency, self._tokens)
        pairs = [max(step) for own in clock.values() for step in zip(*own, strict=False)]
        exchange, engine = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        step = concurrency / figures["rate"]
        return figures | {"step": step, "engine": engine, "wire": exchange - engine, "driver": step - exchange}


async def connected(names: Iterable[str]) -> list[TimedMember]:
    """The models that run."""
    handles = {name: serve.get_deployment_handle(f"model-{name}", "efficiency") for name in names}
    return [await TimedMember.connect(name, handle) for name, handle in handles.items()]


async def measure(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Medians over all rounds, by concurrency."""
    members = await connected(names)
    await Run(members, args.methods, 8).round(2)
    run = Run(members, args.methods, args.tokens)
    figures: dict[str, Any] = {}
    for concurrency in args.concurrency:
        rounds = [await run.round(concurrency) for _ in range(args.rounds)]
        figures[str(concurrency)] = {name: _summary(name, rounds) for name in rounds[0]}
    return figures


def _summary(name: str, rounds: list[dict[str, Figures]]) -> Figures:
    middle = {key: median(r[name][key] for r in rounds) for key in rounds[0][name]}
    summary = {"tokens_per_s": middle["rate"], "first_ms": 1e3 * middle["first"]}
    if name not in ("alone", "beside"):
        for own in ("beside", "alone"):
            summary[f"of_{own}"] = median(r[name]["rate"] / r[own]["rate"] for r in rounds)
        # Exchanges of methods that draft are not one for each token.
        summary |= {f"{part}_ms": 1e3 * middle[part] for part in PARTS if name in STEPWISE or part == "step"}
    return {key: round(value, 3 if key.startswith("of_") else 2) for key, value in summary.items()}


def show(figures: dict[str, Any], title: str = "slowest member, and methods over both members") -> None:
    """The figures as a table."""
    columns = ("tokens_per_s", "of_beside", "of_alone", "first_ms", *(f"{part}_ms" for part in PARTS))
    table = Table("concurrent", "", *columns, title=title)
    for concurrency, rows in figures.items():
        for name, row in rows.items():
            table.add_row(concurrency, name, *(str(row.get(column, "")) for column in columns))
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--pair", choices=("even", "draft"), default="even")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["gac", "unite"])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are reported")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--draft-layers", type=int, default=1, help="layers of the smaller model of --pair draft")
    parser.add_argument("--change", type=float, default=0.02, help="how much the larger model differs from it")
    parser.add_argument("--run-ahead", action="store_true", help="members compute on their guesses (transformers only)")
    args = parser.parse_args()
    with scratch() as folder:
        described = configuration(args, Path(folder))
        with running(parse(described), port=0):
            figures = asyncio.run(measure(args, described["models"]))
    show(figures)
    settings = ("engine", "pair", "hidden", "layers", "tokens", "rounds")
    print(json.dumps({"cpus": os.cpu_count(), **{name: getattr(args, name) for name in settings}, **figures}))


if __name__ == "__main__":
    main()
