"""Routers over miniature models, fitted on what these can do, and a service of them in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml

from ensemble.artifacts import Manifest
from ensemble.before.encoders.encoder import Encoder
from ensemble.before.encoders.tfidf import Tfidf
from ensemble.before.fitting.training import Training
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router, keep
from ensemble.outcomes.dense import Dense, Floats
from tests.conftest import free_port
from tests.serving.conftest import body

MEMBERS = ("adder", "words")
SUMS = tuple(f"{a}+{b}=" for a in range(11, 99, 9) for b in range(12, 99, 17))
CAPITALS = tuple(
    f"capital of {country}=" for country in ("France", "Spain", "Italy", "Kenya", "Norway", "Peru", "Japan")
)
REVERSED = tuple(
    f"reverse {word}=" for word in ("stone", "green", "plate", "chair", "bread", "smoke", "train", "glass")
)
QUESTIONS = (*SUMS, *(CAPITALS + REVERSED) * 3)
RIGHT = {"adder": [1.0] * len(SUMS) + [0.0] * (len(QUESTIONS) - len(SUMS))}
RIGHT["words"] = [1 - quality for quality in RIGHT["adder"]]
SMALL = {"cpus": 0.05}


def table(members: Sequence[str] = MEMBERS) -> Dense:
    """Who is right on which question; member ``name`` or ``name|…`` is as good as ``name``, any other as the first."""
    columns = [RIGHT.get(member.split("|")[0].split("@")[0], RIGHT["adder"]) for member in members]
    quality = np.array(columns).T
    tasks = ["sum" if i < len(SUMS) else "word" for i in range(len(QUESTIONS))]
    return Dense(
        queries=tuple(f"q{i}" for i in range(len(QUESTIONS))),
        texts=QUESTIONS,
        members=tuple(members),
        quality=quality,
        cost=np.full(quality.shape, 0.001) * np.arange(1, len(members) + 1),
        input_tokens=np.full(quality.shape, 6.0),
        output_tokens=np.full(quality.shape, 4.0),
        latency=np.full(quality.shape, 0.1),
        prices=np.full((len(members), 2), 1e-4),
        tasks=tuple(tasks),
    )


def training(x: Floats | None = None, members: Sequence[str] = MEMBERS) -> tuple[Training, Encoder | None]:
    """The table with embeddings: these, or those of character n-grams."""
    own = Tfidf.fit(QUESTIONS, features=400, size=24) if x is None else None
    embedded = own.embed(QUESTIONS) if own is not None else x
    assert embedded is not None
    return Training(table=table(members), x=embedded), own


def fitted(cls: type[Routing], **options: Any) -> Router:
    """A router of a method with an encoder of its own."""
    trained, encoder = training()
    return replace(cls.fit(trained, cls.Fit(**options)), encoder=encoder)


def kept(folder: Path, cls: type[Routing], router: Router, encoder: str = "") -> str:
    keep(folder, cls.name, router, Manifest(method="", kind="", encoder=encoder))
    return str(folder)


def configuration(ensembles: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Miniature models, and ensembles over them."""
    models = {name: {"source": {"zoo": name}, "resources": SMALL} for name in MEMBERS}
    made = {name: {"members": list(MEMBERS), "resources": SMALL, **settings} for name, settings in ensembles.items()}
    return {"name": "routers", "models": models, "ensembles": made, "gateway": {"resources": SMALL}, **sections}


@dataclass
class Routed:
    """A running service from outside."""

    url: str
    http: httpx.Client
    process: subprocess.Popen[str]

    def ask(self, model: str, question: str, **fields: Any) -> dict[str, Any]:
        reply = self.http.post("/v1/chat/completions", json=body(model, question, trace=True, max_tokens=8, **fields))
        assert reply.status_code == 200, reply.text
        value: dict[str, Any] = reply.json()
        return value

    def text(self, model: str, question: str) -> str:
        """The answer of a single model."""
        reply = self.http.post("/v1/chat/completions", json=body(model, question, max_tokens=8))
        assert reply.status_code == 200, reply.text
        return str(reply.json()["choices"][0]["message"]["content"])

    def routed(self, model: str, question: str, **fields: Any) -> str:
        """Who has answered."""
        return str(trace(self.ask(model, question, **fields))["answers"][0])

    def say(self, **feedback: Any) -> httpx.Response:
        return self.http.post("/v1/feedback", json=feedback)

    def metric(self, sample: str) -> float:
        """The value of a sample by the beginning of its line."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample))

    def kill(self) -> None:
        """The whole service, at once."""
        processes = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for process in processes:
            if process.is_running():
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        self.process.wait(10)


def trace(reply: dict[str, Any], kind: str = "route") -> dict[str, Any]:
    """Of the first choice, the outermost one's."""
    found = [told["data"] for told in reply["ensemble"]["traces"][0] if told["kind"] == kind]
    return next(data for data in found if data.get("ensemble", reply["model"]) == reply["model"])


@contextmanager
def serving(file: Path, settings: dict[str, Any]) -> Iterator[Routed]:
    """The configuration as a service on a Ray cluster of its own."""
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "cluster.cli", "serve", str(file), "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        told: list[str] = []
        reader = threading.Thread(target=told.extend, args=(process.stderr,))
        reader.start()
        try:
            found = re.fullmatch(r"serving at (\S+)\n", process.stdout.readline())
            assert found, "".join(told)
            with httpx.Client(base_url=found[1], timeout=60) as http:
                yield Routed(found[1], http, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)
            reader.join(30)


def within(seconds: float, holds: Any) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not (met := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(met)
