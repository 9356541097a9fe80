"""``ensemble serve`` ends what it has begun: SIGTERM under load fails no request that was taken."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import free_port

WRITER = """
name: draining
models:
  writer: {source: {random: {architecture: llama}}, resources: {cpus: 0.1}}
ensembles:
  twins: {method: gac, members: [writer, writer], resources: {cpus: 0.1}}
"""
ENDLESS = 1900
"""Tokens that take longer than any of these tests waits."""


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    file = folder / "writer.yaml"
    file.write_text(WRITER)
    command = [sys.executable, "-m", "cluster.cli", "serve", str(file), "--port", str(free_port()), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=_interruptible
    ) as process:
        assert process.stdout is not None
        try:
            found = re.fullmatch(r"serving at (\S+)\n", process.stdout.readline())
            assert found
            yield process, found[1]
        finally:
            if process.poll() is None:
                process.kill()


def _interruptible() -> None:
    # What a shell runs in the background ignores Ctrl-C, and so does what that starts, these tests' service too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Asking(threading.Thread):
    """One request under way; ``begun`` once it is written, where it is streamed."""

    def __init__(self, url: str, model: str, **fields: Any) -> None:
        super().__init__()
        self._url, self._body = url, {"model": model, "messages": [{"role": "user", "content": "go"}], **fields}
        self.begun = threading.Event()
        self.status = 0
        self.text = ""
        self.start()

    def run(self) -> None:
        try:
            self._ask()
        except httpx.HTTPError as error:
            self.text += f"broken off: {error}"

    def _ask(self) -> None:
        url = f"{self._url}/v1/chat/completions"
        with httpx.stream("POST", url, json=self._body, timeout=60) as reply:
            self.status = reply.status_code
            for piece in reply.iter_text():
                self.text += piece
                self.begun.set()


def until_refused(url: str) -> httpx.Response:
    """The first refusal of new requests, which come every few milliseconds."""
    body = {"model": "writer", "messages": [{"role": "user", "content": "go"}], "max_tokens": 1}
    end = time.monotonic() + 10
    while time.monotonic() < end:
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
        if reply.status_code != 200:
            return reply
    pytest.fail("new requests are still taken")


def test_who_is_under_way_is_answered_and_nobody_else_is_taken(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url):
        streams = [Asking(url, model, stream=True, max_tokens=300) for model in ("writer", "twins")]
        assert all(stream.begun.wait(20) for stream in streams)
        whole = Asking(url, "twins", max_tokens=300)
        metrics = f"{url}/metrics"
        end = time.monotonic() + 10
        while 'ensemble_running{model="twins"} 2' not in httpx.get(metrics).text:
            assert time.monotonic() < end
        process.send_signal(signal.SIGTERM)
        refused = until_refused(url)
        ready, alive = httpx.get(f"{url}/ready"), httpx.get(f"{url}/health")
        for asking in (*streams, whole):
            asking.join(60)
        assert process.wait(30) == 0
        assert process.stdout is not None and process.stdout.read() == "stopped\n"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1 and refused.headers["connection"] == "close"
    assert (ready.status_code, ready.json()["draining"], alive.status_code) == (503, True, 200)
    for stream in streams:
        assert stream.status == 200 and stream.text.endswith("data: [DONE]\n\n"), stream.text[-200:]
        assert '"finish_reason":"length"' in stream.text
    assert whole.status == 200 and json.loads(whole.text)["usage"]["members"]["writer"]["completion_tokens"] >= 300


@pytest.mark.slow
def test_the_grace_has_an_end(tmp_path: Path) -> None:
    with serving(tmp_path, "--grace", "0.5") as (process, url):
        asking = Asking(url, "twins", stream=True, max_tokens=ENDLESS)
        assert asking.begun.wait(20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout is not None and process.stdout.read() == "stopped; requests cut off: 1\n"
        asking.join(20)
    assert "[DONE]" not in asking.text


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--grace", "600") as (process, url):
        asking = Asking(url, "twins", stream=True, max_tokens=ENDLESS)
        assert asking.begun.wait(20)
        process.send_signal(signal.SIGINT)
        until_refused(url)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout is not None and process.stdout.read() == "stopped at once\n"
        asking.join(20)
