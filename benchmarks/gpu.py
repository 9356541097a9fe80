"""Efficiency of ensembles on one NVIDIA card, over models of 0.5B to 8B parameters: one command, no downloads.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --shapes 0.5B 8B --engines vllm --methods gac --concurrency 1 32
    python benchmarks/gpu.py --device cpu --shapes tiny --concurrency 1 2 --tokens 8 --rounds 1

For each shape, random bfloat16 weights are made on the card and written once to a scratch folder; three models share
them (``models.family``). Two models at a time run on the card, 0.45 of it each, through an ordinary configuration on a
Ray cluster of this machine, with each engine that is installed; this process is the driver. ``gac`` and ``unite`` are
measured over an even pair, two models of the shape that disagree all the time; ``gac``, ``speculative_ensemble`` and
``safe`` over a draft pair, the model and its first layers, which mostly agree. Read the tables as those of
``efficiency.py``, which measures and prints them: all ratios are within one run.

Ends with one line of JSON: figures by shape, engine, pair and concurrency; ``skipped`` or ``failed`` and why stand in
the place of those that are missing. Exit status: 0; 1 where something failed; 2 without a card, or for options that
make no sense. ``--device cpu`` runs the same path with float32 where there is no card; it is there for shape ``tiny``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from efficiency import measure, show
from models import Shape, Sources, family, scratch

from cluster.config import parse
from cluster.local import running
from ensemble.errors import EnsembleError

SHAPES = {
    "tiny": Shape(hidden=128, layers=4, heads=4, kv_heads=2, vocabulary=1000),
    "0.5B": Shape(hidden=896, layers=24, heads=14, kv_heads=2, intermediate=4864, vocabulary=151_936),
    "1.5B": Shape(hidden=1536, layers=28, heads=12, kv_heads=2, intermediate=8960, vocabulary=151_936),
    "3B": Shape(hidden=2048, layers=36, heads=16, kv_heads=2, intermediate=11_008, vocabulary=151_936),
    "8B": Shape(hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14_336, vocabulary=128_256),
}
"""Of well-known models; heads and embeddings have weights of their own throughout."""
PAIRS = {"even": ("large", "twin"), "draft": ("draft", "large")}
METHODS = {"even": ("gac", "unite"), "draft": ("gac", "speculative_ensemble", "safe")}
ENGINES = ("transformers", "vllm")
SHARE = 0.45
"""Of the card, for each model."""
PATIENCE = 60.0
"""Seconds for processes to start: what a run before has left behind may take as long to end."""
NO_CARD = "this benchmark needs an NVIDIA card that PyTorch can use, and there is none; --device cpu tries it out"

Figures = dict[str, Any]


def room(shape: Shape, args: argparse.Namespace) -> str | None:
    """What a model of this shape lacks on the card, if anything."""
    if args.device == "cpu":
        return None
    has = SHARE * torch.cuda.get_device_properties(0).total_memory
    # What computing takes beside weights and cache, and what the driver of the card keeps for each process.
    needs = 2 * shape.parameters + cache(shape, args) + 2 * 2**30
    gib = 2**30
    return f"needs {needs / gib:.1f} GiB for each of two models and has {has / gib:.1f}" if needs > has else None


def cache(shape: Shape, args: argparse.Namespace) -> int:
    """Bytes of keys and values for all sessions of a model."""
    width = 2 if args.device == "cuda" else 4
    return slots(args) * shape.context * shape.cached * width


def slots(args: argparse.Namespace) -> int:
    """Sessions of a model: for all requests at once, with some to spare."""
    most: int = max(args.concurrency)
    return max(16, 2 * most)


def configuration(shape: Shape, engine: str, sources: Sources, args: argparse.Namespace) -> dict[str, Any]:
    """Two models side by side."""
    card = {"device": args.device, "dtype": "bfloat16" if args.device == "cuda" else "float32"}
    amounts = {"cpus": 1, **({"gpus": SHARE} if args.device == "cuda" else {})}
    part: dict[str, Any] = {"engine": engine, "sessions": slots(args), "resources": amounts, **card}
    if engine == "vllm":
        # Told how much to take: engines that start side by side would count each other's memory as their own.
        part["engine_options"] = {"kv_cache_memory_bytes": max(cache(shape, args), 2**28)}
    models = {name: {"source": source, **part} for name, source in sources.items()}
    return {"name": "efficiency", "models": models, "gateway": {"resources": {"cpus": 0.1}}}


def measured(name: str, engine: str, pair: str, sources: Sources, args: argparse.Namespace) -> Figures:
    """Figures of one pair by concurrency, shown as soon as they are there."""
    methods = [method for method in METHODS[pair] if method in args.methods]
    if not methods:
        return {"skipped": f"no method of {', '.join(METHODS[pair])} was asked for"}
    own = {member: sources[member] for member in PAIRS[pair]}
    try:
        with running(parse(configuration(SHAPES[name], engine, own, args)), port=0, wait=PATIENCE):
            figures = asyncio.run(measure(argparse.Namespace(**{**vars(args), "methods": methods}), own))
    except EnsembleError as error:
        print(f"{name}, {engine}, {pair}: failed: {error.message}", file=sys.stderr)
        return {"failed": error.message}
    show(figures, f"{name}, {engine}, {pair} pair")
    return figures


def shape_figures(name: str, args: argparse.Namespace) -> Figures:
    """Figures of one shape by engine and pair."""
    shape = SHAPES[name]
    if (lack := room(shape, args)) is not None:
        print(f"{name}: skipped: {lack}", file=sys.stderr)
        return {"skipped": lack}
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    with scratch(args.scratch) as folder:
        layers = max(1, shape.layers // 8)
        sources = family(shape, layers, args.change, Path(folder), device=args.device, dtype=dtype)
        return {e: {pair: measured(name, e, pair, sources, args) for pair in PAIRS} for e in args.engines}


def failed(figures: Any) -> bool:
    """Whether something is missing that should be there."""
    if not isinstance(figures, dict):
        return False
    return "failed" in figures or any(failed(inner) for inner in figures.values())


def installed() -> list[str]:
    """Engines that can be measured here."""
    return [engine for engine in ENGINES if engine == "transformers" or find_spec(engine) is not None]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=[name for name in SHAPES if name != "tiny"])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=installed(), help="default: those installed")
    every = list(dict.fromkeys(method for methods in METHODS.values() for method in methods))
    parser.add_argument("--methods", nargs="+", choices=every, default=every)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are reported")
    parser.add_argument("--change", type=float, default=0.02, help="how much a model differs from its draft")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--scratch", type=Path, help="existing folder for weights; 8B takes 16 GB. Default: the system's"
    )
    args = parser.parse_args()
    if missing := [engine for engine in args.engines if engine not in installed()]:
        parser.error(f"--engines {missing[0]} is not installed here; allowed: {', '.join(installed())}")
    return args


def benchmark(args: argparse.Namespace) -> int:
    """Measure, print, and return the exit status."""
    if args.device == "cuda" and not torch.cuda.is_available():
        print(NO_CARD, file=sys.stderr)
        return 2
    card = torch.cuda.get_device_name(0) if args.device == "cuda" else "none"
    figures = {name: shape_figures(name, args) for name in args.shapes}
    print(json.dumps({"card": card, "tokens": args.tokens, "rounds": args.rounds, **figures}))
    return int(failed(figures))


def main() -> None:
    sys.exit(benchmark(arguments()))


if __name__ == "__main__":
    main()
