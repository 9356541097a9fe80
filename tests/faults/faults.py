"""Events that strike: each takes the stage, hits a process or a weight, and tells whom it hit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from ensemble import zoo
from tests.faults.cluster import BACK, Stage

Event = Callable[[Stage], str]
"""Strikes, and says what was hit."""


def slay(pid: int) -> None:
    """No warning, no last words; returns when the process is gone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        with suppress(psutil.TimeoutExpired):
            process.wait(5)


def replica(deployment: str, *, at_work: bool = True) -> Event:
    """SIGKILL for the replica with most work; it is an error if it has none."""

    def strike(stage: Stage) -> str:
        hit = stage.busiest(deployment)
        assert hit.at_work > 0 or not at_work, f"{deployment} had nothing to do"
        slay(hit.pid)
        return f"pid {hit.pid} of {deployment} with {hit.at_work} at work"

    return strike


def every_replica(*deployments: str) -> Event:
    """SIGKILL for all of them."""

    def strike(stage: Stage) -> str:
        hit = [found for deployment in deployments for found in stage.replicas(deployment)]
        assert sum(found.at_work for found in hit) > 0
        for found in hit:
            slay(found.pid)
        return f"{len(hit)} processes, {sum(found.at_work for found in hit)} at work"

    return strike


def actors(prefix: str) -> Event:
    """SIGKILL for Serve's own actors of this kind."""

    def strike(stage: Stage) -> str:
        pids = stage.processes(prefix)
        for pid in pids:
            slay(pid)
        return f"{len(pids)} process(es) of {prefix}"

    return strike


def node_of(deployment: str) -> Event:
    """SIGKILL for a whole node, the one with the busiest replica; another node takes its place."""

    def strike(stage: Stage) -> str:
        assert stage.cluster is not None
        hit = stage.busiest(deployment)
        assert hit.at_work > 0
        node = next(n for n in stage.cluster.worker_nodes if n.node_id == hit.node)
        raylet = node.all_processes["raylet"][0].process.pid
        pids = [process.pid for process in psutil.Process(raylet).children(recursive=True)]
        os.kill(raylet, signal.SIGKILL)
        for pid in pids:
            slay(pid)
        stage.cluster.remove_node(node, allow_graceful=False)
        stage.cluster.add_node(**BACK)
        return f"node of pid {hit.pid} with {len(pids)} processes, {hit.at_work} at work"

    return strike


@contextmanager
def slowed(pid: int, share: float = 0.1, period: float = 0.5) -> Iterator[None]:
    """The process is stopped but for this share of each period (seconds)."""
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(period * (1 - share))
            os.kill(pid, signal.SIGCONT)
            time.sleep(period * share)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def sick_model(folder: Path) -> None:
    """A zoo model that reads NaN where there is a plus: its engine, which tries it without one, finds it well."""
    shutil.copytree(zoo.directory("adder"), folder)
    weights = load_file(folder / "model.safetensors")
    read = weights["model.embed_tokens.weight"]
    weights["lm_head.weight"] = read.clone()
    read[Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("+")] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(settings))
