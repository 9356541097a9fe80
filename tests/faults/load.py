"""Clients of the running service: streams that can be watched while they are written, and what came of them."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

Json = dict[str, Any]
SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} ([\d.e+-]+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
GAUGES = ("ensemble_open_sessions", "ensemble_running", "ensemble_waiting")


def wait_for(condition: Callable[[], bool], seconds: float) -> float | None:
    """Seconds until the condition came true; ``None`` if it did not in time."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            return None
        time.sleep(0.02)
    return time.monotonic() - begun


def body(model: str, question: str = "go", **fields: Any) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": question}], **fields}


@dataclass
class Heard:
    """What a client was told."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[tuple[float, str]] = field(default_factory=list)
    """Moment (monotonic seconds) and text of each piece."""
    error: Json | None = None
    finish: str | None = None
    ensemble: Json = field(default_factory=dict)
    usage: Json = field(default_factory=dict)
    whole: bool = False
    """The stream ended with its end mark."""
    ended: float = 0.0
    broken: str | None = None
    """How the connection failed, if it did."""

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.pieces)

    @property
    def code(self) -> str | None:
        """Of the typed error that ended it."""
        return None if self.error is None else str(self.error["code"])

    @property
    def answered(self) -> bool:
        return self.status == 200 and self.error is None and self.broken is None and self.whole

    @property
    def longest_pause(self) -> float:
        """Seconds, the longest between two neighbouring pieces."""
        moments = [moment for moment, _ in self.pieces]
        return max((later - earlier for earlier, later in pairwise(moments)), default=0.0)

    def hear(self, chunk: Json) -> None:
        self.usage = chunk.get("usage") or self.usage
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self.ensemble |= chunk.get("ensemble", {})
        for choice in chunk["choices"]:
            text = choice["delta"].get("content")
            if text:
                self.pieces.append((time.monotonic(), text))
            self.finish = choice.get("finish_reason") or self.finish


class Stream:
    """One streamed request in a thread of its own."""

    def __init__(self, url: str, model: str, question: str = "go", **fields: Any) -> None:
        self.heard = Heard()
        self._url = url
        self._body = body(model, question, stream=True, stream_options={"include_usage": True}, **fields)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def under_way(self, pieces: int = 10, seconds: float = 30) -> int:
        """Wait until it has written so much; how many pieces there are then."""
        wait_for(lambda: len(self.heard.pieces) >= pieces or not self._thread.is_alive(), seconds)
        assert self._thread.is_alive(), f"over before it was struck: {self.heard.error or self.heard.broken}"
        assert len(self.heard.pieces) >= pieces, f"only {len(self.heard.pieces)} pieces in {seconds} s"
        return len(self.heard.pieces)

    def result(self, seconds: float = 60) -> Heard:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"hangs: {len(self.heard.pieces)} pieces, then nothing for {seconds} s"
        return self.heard

    def _run(self) -> None:
        try:
            with httpx.stream("POST", f"{self._url}/v1/chat/completions", json=self._body, timeout=150) as reply:
                self.heard.status, self.heard.headers = reply.status_code, dict(reply.headers)
                self._read(reply)
        except httpx.HTTPError as error:
            self.heard.broken = type(error).__name__
        finally:
            self.heard.ended = time.monotonic()

    def _read(self, reply: httpx.Response) -> None:
        if reply.status_code != 200:
            self.heard.error = _refusal(reply)
            return
        for line in reply.iter_lines():
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                self.heard.whole = True
            elif data:
                self.heard.hear(json.loads(data))


def _refusal(reply: httpx.Response) -> Json:
    reply.read()
    try:
        error: Json = reply.json()["error"]
    except (ValueError, KeyError):
        return {"code": f"http_{reply.status_code}", "message": reply.text}
    return error


def ask(url: str, model: str, question: str = "go", seconds: float = 60, **fields: Any) -> httpx.Response:
    """One whole reply, whatever its status."""
    return httpx.post(f"{url}/v1/chat/completions", json=body(model, question, **fields), timeout=seconds)


def answers(url: str, model: str, question: str = "go") -> bool:
    """Whether a short request is answered now."""
    try:
        return ask(url, model, question, seconds=10, max_tokens=2).status_code == 200
    except httpx.HTTPError:
        return False


def told(url: str, model: str) -> str:
    """What a short request is told, in words."""
    try:
        return ask(url, model, seconds=10, max_tokens=2).text
    except httpx.HTTPError as error:
        return type(error).__name__


def metrics(url: str) -> dict[tuple[str, ...], float]:
    """Value by metric and the values of its labels, in their order."""
    text = httpx.get(f"{url}/metrics", timeout=20).text
    return {
        (name, *(v for _, v in LABEL.findall(labels))): float(value) for name, labels, value in SAMPLE.findall(text)
    }


def held(url: str) -> dict[tuple[str, ...], float]:
    """What requests hold at the moment, where that is not nothing."""
    try:
        found = metrics(url)
    except httpx.HTTPError:
        return {("unreachable",): 1.0}
    return {key: value for key, value in found.items() if key[0] in GAUGES and value}


def freed(url: str, seconds: float) -> float:
    """Seconds until nothing is held any more; it is an error if that takes longer than given."""
    took = wait_for(lambda: not held(url), seconds)
    assert took is not None, f"still held after {seconds} s: {held(url)}"
    return took
