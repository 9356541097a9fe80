"""What a fit to a million outcomes takes in memory and time, and how many queries a second a router then decides.

    python benchmarks/router_scale.py
    python benchmarks/router_scale.py --routers knn_router embedllm --queries 10000 --members 10
    python benchmarks/router_scale.py --routers knn_router "knn_router search=exact" "routellm scorer=sw_ranking"

Outcomes are drawn: queries of tasks that are clusters of unit vectors, members that differ by task. Each router is
fitted in a process of its own with two threads, and asked by two with one thread each, as replicas of a service are.
*fit_mb* is the process's largest resident memory beyond what it holds with the table loaded; *queries_per_s* are
predictions and the router's own policy over blocks of 1,024 embeddings, and *per_cpu_s* the same for each second of a
processor's time, which other work on the machine changes less; *decision_ms* is the median of one query at a time.
Routers that choose between two members are fitted to two; options of a fit may follow a name. Ends with one line of
JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

BLOCK = 1024
WORKERS = 2
MB = 1024
"""``ru_maxrss`` counts kilobytes."""


def table(queries: int, members: int, size: int, seed: int) -> Any:
    """A ``Training`` of drawn outcomes."""
    from ensemble.before.fitting.training import Training
    from ensemble.outcomes.dense import Dense

    random, tasks = np.random.default_rng(seed), 20
    middles = random.standard_normal((tasks, size)).astype(np.float32)
    task = random.integers(0, tasks, queries)
    x = middles[task]
    # In blocks, so that drawing takes less memory than what is measured.
    for start in range(0, queries, 8192):
        rows = slice(start, start + 8192)
        x[rows] += 2 * random.standard_normal(x[rows].shape, np.float32)
        x[rows] /= np.linalg.norm(x[rows], axis=1, keepdims=True)
    skill = random.random((tasks, members), np.float32)
    quality = (random.random((queries, members), np.float32) < skill[task]).astype(np.float32)
    tokens = random.integers(10, 500, (queries, members)).astype(np.float32)
    prices = np.stack([np.full(members, 1e-6), 1e-6 * 2.0 ** np.arange(members)], axis=1)
    names = tuple(str(row) for row in range(queries))
    view = Dense(
        queries=names,
        texts=names,
        members=tuple(f"m{i}" for i in range(members)),
        quality=quality,
        output_tokens=tokens,
        input_tokens=np.full_like(tokens, 100),
        cost=(100 * prices[:, 0] + tokens * prices[:, 1]).astype(np.float32),
        tasks=tuple(f"task {t}" for t in task),
        prices=prices,
    )
    return Training(table=view, x=x, seed=seed)


def alone(name: str, given: argparse.Namespace, members: int) -> dict[str, float]:
    """One router, in this process."""
    from jobs.evaluation.routers.comparison import routers

    name, *settings = name.split()
    method = routers([name])[name]
    fit = method.Fit.model_validate(dict(setting.split("=", 1) for setting in settings))
    training = table(given.queries, members, given.size, 0)
    asked = np.ascontiguousarray(training.x[: 8 * BLOCK])
    before, began = resident(), time.perf_counter()
    router = method.fit(training, fit)
    seconds = time.perf_counter() - began
    fit_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / MB
    return {
        "outcomes": int(training.table.observed.sum()),
        "fit_s": seconds,
        "fit_mb": fit_mb,
        "table_mb": before / MB,
        **speed(method, router, asked, given.seconds),
    }


def resident() -> float:
    """Kilobytes of this process that are in memory now; starts the count of the largest anew where the system can."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def speed(method: Any, router: Any, x: np.ndarray, seconds: float) -> dict[str, float]:
    """Decisions a second in blocks, of all workers together, and how long one alone takes."""
    random = np.random.default_rng(0)

    def decide(rows: np.ndarray) -> None:
        prediction = router.predict(rows, np.full(len(rows), 100.0))
        method.policy.choose(prediction, np.ones(prediction.quality.shape, bool), random)

    # Forked, the workers share what was fitted.
    fork = multiprocessing.get_context("fork")
    told = fork.SimpleQueue()
    workers = [fork.Process(target=_worker, args=(decide, x, seconds, told)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    found = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    single = []
    with threadpool_limits(1):
        for row in range(100):
            at = time.perf_counter()
            decide(x[row : row + 1])
            single.append(time.perf_counter() - at)
    return {
        "queries_per_s": sum(done / passed for done, passed, _ in found),
        "per_cpu_s": sum(done for done, _, _ in found) / sum(spent for _, _, spent in found),
        "decision_ms": 1e3 * float(np.median(single)),
    }


def _worker(decide: Callable[[np.ndarray], None], x: np.ndarray, seconds: float, told: Any) -> None:
    """Tell how many queries were decided, in how many seconds, and in how many of a processor."""
    with threadpool_limits(1):
        decide(x[:BLOCK])
        done, began, spent = 0, time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - began) < seconds:
            start = done % (len(x) - BLOCK + 1) if len(x) > BLOCK else 0
            decide(x[start : start + BLOCK])
            done += len(x[start : start + BLOCK])
        told.put((done, passed, time.process_time() - spent))


def apart(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One router in a process of its own, fitted to all members, or to two where it takes no more."""
    told = ""
    for members in (given.members, 2):
        options = ("queries", "size", "seconds")
        arguments = [part for key in options for part in (f"--{key}", str(getattr(given, key)))]
        command = [sys.executable, __file__, "--alone", name, "--members", str(members), *arguments]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=given.limit, env=os.environ | threads, check=False
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {given.limit:g} s"}
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return found
        told = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"failed": told}


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--routers", nargs="+", default=[], help="Names, each with options of its fit or without. Omitted: all."
    )
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--size", type=int, default=384, help="Length of an embedding.")
    parser.add_argument("--seconds", type=float, default=3.0, help="For which decisions are counted.")
    parser.add_argument("--limit", type=float, default=1200.0, help="Seconds that one router may take in all.")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(arguments)
    if given.alone:
        print(json.dumps(alone(given.alone, given, given.members)))
        return 0
    from jobs.evaluation.routers.comparison import routers

    found = {}
    for name in given.routers or routers([]):
        found[name] = apart(name, given)
        figures = (f"{key} {value:.4g}" if isinstance(value, float) else value for key, value in found[name].items())
        print(f"{name}: {', '.join(map(str, figures))}", flush=True)
    print(json.dumps({name: {k: _rounded(v) for k, v in row.items()} for name, row in found.items()}))
    return int(any("failed" in row for row in found.values()))


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
