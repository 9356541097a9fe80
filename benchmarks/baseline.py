"""What published code does, beside this system: the same two models, the same rule, the same answers, in one run.

    python benchmarks/baseline.py --concurrency 1 8

Token-level ensembles are published as a loop over model servers: one request at a time, one unary call to each model
for each token, the probabilities of the whole vocabulary in each reply, a mean of whole vectors, its largest entry sent
on. The baseline does that with Ray Serve handles as they come, over plain transformers models with a cache of their
own for the one request. Published code also tokenises its whole text again where members of different tokenizers
disagree on a token's ids; members here have one vocabulary, so that this never happens: left out in the baseline's
favour. Beside it ``gac`` answers the same requests over the same weights, in the same process.

Read *ratio*: tokens per second of ``gac`` over those of the baseline, the median over rounds. *Same* is the share of
answers that are equal letter by letter; what is missing to 1 are ties that floating point decides. Ends with one line
of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from models import Shape, Sources, even, lettered, scratch
from ray import serve
from rich.console import Console
from rich.table import Table
from transformers import DynamicCache

from cluster.config import parse
from cluster.local import running
from deployments.calls import LOGGING
from deployments.engines.fetching import load
from deployments.member import RemoteMember
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.request import Request, Sampling

Probabilities = npt.NDArray[np.float32]
PROMPT = "the quick brown fox jumps over the lazy dog "


class PublishedReplica:
    """A model that knows one request and answers each token with all probabilities."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self._model, self._tokenizer = load(Path(folder))

    async def begin(self, prompt: str) -> Probabilities:
        """Probabilities of the first token, shape [vocabulary]."""
        self._cache = DynamicCache()
        return self._next(self._tokenizer.encode(prompt, add_special_tokens=False))

    async def append(self, token: int) -> Probabilities:
        """Probabilities of the token after this one, shape [vocabulary]."""
        return self._next([token])

    def _next(self, ids: list[int]) -> Probabilities:
        model: Any = self._model
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), past_key_values=self._cache, use_cache=True).logits[0, -1]
            probabilities: Probabilities = logits.softmax(-1).numpy()
        return probabilities


class Published:
    """The loop around such models."""

    def __init__(self, handles: Sequence[Any], vocabulary: int) -> None:
        self._handles, self._tokenizer = handles, lettered(vocabulary)
        self._turn = asyncio.Lock()

    async def answer(self, prompt: str, tokens: int) -> str:
        """One answer; others wait for their turn."""
        async with self._turn:
            vectors = await asyncio.gather(*(handle.begin.remote(prompt) for handle in self._handles))
            ids = [int(np.mean(vectors, axis=0).argmax())]
            while len(ids) < tokens:
                vectors = await asyncio.gather(*(handle.append.remote(ids[-1]) for handle in self._handles))
                ids.append(int(np.mean(vectors, axis=0).argmax()))
        return str(self._tokenizer.decode(ids))


def deployed(sources: Sources) -> list[Any]:
    """Handles of the baseline's models."""
    handles = []
    for name, source in sources.items():
        options = {"logging_config": LOGGING, "ray_actor_options": {"num_cpus": 0.5}}
        deployment: Any = serve.deployment(PublishedReplica, name=name, **options)
        handles.append(serve.run(deployment.bind(source["path"]), name=f"published-{name}", route_prefix=None))
    return handles


def configuration(sources: Sources, concurrency: int) -> dict[str, Any]:
    """The same models as ours."""
    part = {"sessions": max(16, 2 * concurrency), "resources": {"cpus": 1}}
    models = {name: {"source": source, **part} for name, source in sources.items()}
    return {"name": "baseline", "models": models, "gateway": {"resources": {"cpus": 0.1}}}


Way = Callable[[str, int], Awaitable[str]]
"""From a prompt and a number of tokens to an answer."""


async def timed(way: Way, prompts: Sequence[str], tokens: int) -> tuple[float, list[str]]:
    """Tokens per second of requests at once, and their answers."""

    async def one(prompt: str) -> str:
        return await way(prompt, tokens)

    began = time.perf_counter()
    answers = await together(one(prompt) for prompt in prompts)
    return len(prompts) * tokens / (time.perf_counter() - began), answers


async def measure(args: argparse.Namespace, sources: Sources, handles: Sequence[Any]) -> dict[str, Any]:
    """Medians over all rounds, by concurrency; the two take turns."""
    members = [
        await RemoteMember.connect(name, serve.get_deployment_handle(f"model-{name}", "baseline")) for name in sources
    ]
    ensemble = Ensemble("pair", "gac", members)
    published = Published(handles, args.vocabulary)

    async def ours(prompt: str, tokens: int) -> str:
        return (await ensemble.answer(Request(prompt=prompt, sampling=Sampling(max_tokens=tokens)))).text

    figures: dict[str, Any] = {}
    await timed(ours, [PROMPT, f"{PROMPT}twice "], 8)
    await timed(published.answer, [PROMPT], 8)
    for concurrency in args.concurrency:
        rounds = []
        for number in range(args.rounds):
            prompts = [f"{number} {i} {PROMPT}" for i in range(concurrency)]
            baseline, theirs = await timed(published.answer, prompts, args.tokens)
            rate, answers = await timed(ours, prompts, args.tokens)
            same = sum(a == b for a, b in zip(theirs, answers, strict=True)) / concurrency
            rounds.append({"baseline": baseline, "ours": rate, "ratio": rate / baseline, "same": same})
        figures[str(concurrency)] = {key: round(median(r[key] for r in rounds), 2) for key in rounds[0]}
    return figures


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    table = Table("concurrent", "baseline", "gac", "ratio", "same", title="tokens per second")
    for concurrency, row in figures.items():
        table.add_row(concurrency, *(str(value) for value in row.values()))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are reported")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    args = parser.parse_args()
    with scratch() as folder:
        shape = Shape(hidden=args.hidden, layers=args.layers, vocabulary=args.vocabulary)
        sources = even(shape, Path(folder))
        with running(parse(configuration(sources, max(args.concurrency))), port=0):
            figures = asyncio.run(measure(args, sources, deployed(sources)))
    show(figures)
    settings = {name: getattr(args, name) for name in ("hidden", "layers", "vocabulary", "tokens", "rounds")}
    print(json.dumps({"cpus": os.cpu_count(), **settings, **figures}))


if __name__ == "__main__":
    main()
