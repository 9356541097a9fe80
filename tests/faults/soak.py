"""Load that goes on: while a member is slow, while the configuration changes, and for minutes among faults."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import numpy as np
import psutil

from cluster import local
from cluster.config import load, parse
from tests.faults import faults
from tests.faults.cluster import Stage
from tests.faults.limits import sent
from tests.faults.load import Stream, ask, freed, held
from tests.faults.losses import TOKENS, undisturbed
from tests.faults.scenarios import Found, Scenario

SECONDS = float(os.environ.get("FAULTS_SOAK_SECONDS", "300"))
EVERY = 25.0
"""Seconds between two faults of the soak."""
MIXED = ("rambler", "ramble", "thinned", "lasting", "gac", "nested", "voters")
STRUCK = ("model-frail", "model-steady", "ensemble-lasting")
TYPED = re.compile(r"^[a-z_]+$")


def slow(stage: Stage) -> Found:
    """One replica runs a tenth of the time. Figure: how many times longer the answer takes."""
    stage.answering("hedged")
    stage.whole("model-steady", 2)
    plain = undisturbed(stage.url, "hedged")
    begun = time.monotonic()
    Stream(stage.url, "hedged", max_tokens=TOKENS).result()
    alone = time.monotonic() - begun
    stream = Stream(stage.url, "hedged", max_tokens=TOKENS)
    before = stream.under_way(60)
    hit = stage.busiest("model-steady")
    with faults.slowed(hit.pid, share=0.1, period=10):
        begun = time.monotonic()
        other = Stream(stage.url, "ramble", max_tokens=300).result()
        others = time.monotonic() - begun
        heard = stream.result()
    assert heard.answered and heard.text == plain, heard.error
    assert other.answered and others < alone, f"a request elsewhere took {others:.1f} s"
    assert any(incident["kind"] == "hedged" for incident in heard.ensemble["incidents"]), heard.ensemble
    freed(stage.url, 15)
    proof = f"pid {hit.pid} stopped 90 % of the time after {before} pieces"
    return Found(proof, (heard.ended - heard.pieces[0][0]) / alone)


class Clients:
    """Requests of several kinds, one after the other in each of several threads, until it is over."""

    def __init__(self, url: str, models: Sequence[str], threads: int, tokens: int, *, leaving: float = 0.0) -> None:
        """
        Args:
            leaving: share of the requests whose client leaves in the middle.
        """
        self.ends = Counter[str]()
        self.texts = Counter[str]()
        self.under_way = 0
        self._url, self._models, self._tokens, self._leaving = url, models, tokens, leaving
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"

    def _run(self, number: int) -> None:
        draw = random.Random(number)
        while not self._over.is_set():
            model = draw.choice(self._models)
            self.under_way += 1
            if draw.random() < self._leaving:
                with suppress(OSError), sent(self._url, model, stream=draw.random() < 0.5):
                    self._over.wait(draw.random())
                self.ends["left"] += 1
            else:
                self.ends[self._asked(model, f"{draw.randrange(10, 50)}+{draw.randrange(10, 50)}=")] += 1
            self.under_way -= 1

    def _asked(self, model: str, question: str) -> str:
        try:
            reply = ask(self._url, model, question if len(self._models) > 1 else "go", max_tokens=self._tokens)
        except httpx.HTTPError as error:
            return type(error).__name__
        if reply.status_code == 200:
            self.texts[reply.json()["choices"][0]["message"]["content"]] += 1
            return "answered"
        try:
            return str(reply.json()["error"]["code"])
        except (ValueError, KeyError):
            return f"HTTP {reply.status_code}: {reply.text[:80]}"


def rolled(stage: Stage) -> Found:
    """Another model takes the place of one under load. Figure: requests that failed or were answered by a mixture."""
    old = ask(stage.url, "ramble", max_tokens=100).json()["choices"][0]["message"]["content"]
    changed: dict[str, Any] = load(stage.file).as_dict()
    changed["models"]["frail"]["source"]["random"]["seed"] = 7
    clients = Clients(stage.url, ["ramble"], threads=3, tokens=100)
    try:
        time.sleep(1)
        before = sum(clients.ends.values())
        begun = time.monotonic()
        local.start(parse(changed), address="auto")
        took = time.monotonic() - begun
        during = sum(clients.ends.values()) - before
        time.sleep(2)
    finally:
        clients.stop()
    new = ask(stage.url, "ramble", max_tokens=100).json()["choices"][0]["message"]["content"]
    undisturbed.cache_clear()
    assert new != old, "the new configuration is not served"
    assert min(clients.texts[old], clients.texts[new]) > 0
    freed(stage.url, 5)
    failed = sum(count for end, count in clients.ends.items() if end != "answered")
    mixed = sum(count for text, count in clients.texts.items() if text not in (old, new))
    assert not failed, clients.ends
    return Found(f"{during} requests in the {took:.0f} s that it took", failed + mixed)


class Memory:
    """Resident memory of processes over time."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._begun = time.monotonic()
        self._samples = dict[str, list[tuple[float, float]]]()

    def sample(self) -> None:
        for name, pid in self._pids.items():
            with suppress(psutil.NoSuchProcess):
                resident = psutil.Process(pid).memory_info().rss / 2**20
                self._samples.setdefault(name, []).append((time.monotonic() - self._begun, resident))

    def slopes(self, after: float) -> dict[str, float]:
        """MiB per minute by process, from the samples after so many seconds.

        The median slope of all pairs of samples: what grows all the time shows in it, a single step of an allocator
        does not.
        """
        kept = {name: np.array([s for s in samples if s[0] >= after]) for name, samples in self._samples.items()}
        return {name: _median_slope(samples) * 60 for name, samples in kept.items() if len(samples) > 2}


def _median_slope(samples: np.ndarray) -> float:
    """Of points (x, y), shape [n, 2] (Theil and Sen's estimator)."""
    early, late = np.triu_indices(len(samples), k=1)
    x, y = (samples[late] - samples[early]).T
    return float(np.median(y / x))


@contextmanager
def beaten(stage: Stage, told: Counter[str]) -> Iterator[None]:
    """Every now and then a process of those that may be struck is killed."""
    over = threading.Event()

    def beat() -> None:
        turn = 0
        while not over.wait(EVERY):
            deployment = STRUCK[turn % len(STRUCK)]
            if found := stage.replicas(deployment):
                faults.slay(found[0].pid)
                told[f"{deployment} {'at work' if found[0].at_work else 'idle'}"] += 1
            turn += 1

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def soaked(stage: Stage) -> Found:
    """Mixed methods and faults for minutes. Figure: MiB per minute by which a process that lives on grows."""
    stage.answering(*MIXED)
    names = ["model-rambler", "model-adder", "model-words", "ensemble-ramble", "ensemble-gac", "ensemble-nested"]
    pids = {name: stage.busiest(name).pid for name in [*names, "gateway"]}
    pids |= {f"proxy {i}": pid for i, pid in enumerate(stage.processes("SERVE_PROXY"))}
    memory, struck, end = Memory(pids), Counter[str](), time.monotonic() + SECONDS
    clients = Clients(stage.url, MIXED, threads=6, tokens=120, leaving=0.2)
    try:
        with beaten(stage, struck):
            while time.monotonic() < end:
                memory.sample()
                time.sleep(min(1.0, SECONDS / 60))
    finally:
        clients.stop()
    stage.answering(*MIXED)
    freed(stage.url, 65)
    assert not held(stage.url)
    untyped = {how: count for how, count in clients.ends.items() if not TYPED.match(how)}
    assert not untyped, untyped
    assert clients.ends["answered"] > sum(clients.ends.values()) / 2, clients.ends
    slopes = memory.slopes(SECONDS * 0.4)
    worst = max(slopes, key=lambda name: slopes[name])
    told = ", ".join(f"{count} {how}" for how, count in clients.ends.most_common())
    hits = ", ".join(f"{name} {count}" for name, count in struck.items())
    all_slopes = ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items())
    return Found(f"{told}; killed: {hits}; MiB/min: {all_slopes}", slopes[worst])


SCENARIOS = [
    Scenario(
        name="slow member",
        claim="a replica that is ten times slower does not slow an answer down where hedging is on, nor other requests",
        play=slow,
        bound=3,
        unit="times as long",
    ),
    Scenario(
        name="configuration changed under load",
        claim="while a new configuration is rolled out no request fails and none is answered by a mixture of both",
        play=rolled,
        bound=0,
        unit="requests failed or mixed",
    ),
    Scenario(
        name="soak",
        claim="minutes of mixed methods and faults leave no open session and no process that grows",
        play=soaked,
        bound=2.0 if SECONDS >= 120 else 20.0,
        unit="MiB/min",
    ),
]
