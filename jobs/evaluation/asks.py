"""One question to one model or ensemble, what came of it, and the ledger in which that is kept.

An answer is known by all that it depends on: whom it was asked of, how, and the words of the question. So a run that
was stopped goes on where it was, and one with another ensemble asks only that one. Knows no statistics and no HTTP.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from threading import Lock
from typing import Any, Self

from filelock import FileLock, Timeout

from ensemble.errors import BadRequest
from ensemble.request import Budget, Message, Request, Sampling
from jobs.journal import Record, Writer, files

JOURNAL = "_answers"
"""Folder of the ledger within the output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question and how it is put."""

    name: str
    """Model or ensemble."""
    question: str
    seed: int
    max_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    options: str = "{}"
    """Of the ensemble's method, for this request, as JSON with sorted keys."""
    tokens: int | None = None
    """Prompt and completion tokens that may be spent; what has been written by then is the answer. ``None``: any."""
    logprobs: bool = False
    """Ask for the log-probability of each token."""

    def key(self, meaning: str) -> str:
        """What the answer is known by.

        Args:
            meaning: of the name, as the service knows it.
        """
        return hashlib.sha256(json.dumps([asdict(self), meaning], sort_keys=True).encode()).hexdigest()

    @property
    def request(self) -> Request:
        """What is sent."""
        return Request(
            messages=(Message("user", self.question),),
            sampling=Sampling(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                seed=self.seed,
                logprobs=0 if self.logprobs else None,
            ),
            budget=Budget() if self.tokens is None else Budget(tokens=self.tokens, exhausted="partial"),
            options=json.loads(self.options),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of it; amounts are over all members and all attempts."""

    text: str = ""
    finish: str | None = None
    """``stop`` or ``length``; ``None`` where there is no answer."""
    error: str | None = None
    """``code: message``, where there is no answer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    cost: Decimal = field(default_factory=Decimal)
    seconds: float = 0.0
    """From the first attempt to the end of the last."""
    logprob: float | None = None
    """Sum over the answer's tokens, natural logarithm; ``None`` where it was not told."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_record(self) -> Record:
        """JSON values."""
        return {**asdict(self), "cost": str(self.cost)}

    @classmethod
    def of(cls, record: Record) -> Self:
        """From what ``as_record`` gave."""
        return cls(**{**record, "cost": Decimal(record["cost"])})


class Ledger:
    """Answers on disk, by key; each is there before it counts."""

    def __init__(self, folder: Path) -> None:
        self._writer = Writer(folder)
        self._known = dict(_kept(folder))
        self._one_at_a_time = Lock()

    def find(self, key: str) -> Reply | None:
        return self._known.get(key)

    def add(self, key: str, reply: Reply, *, final: bool = True) -> None:
        """Returns when it is on disk; may be called from several threads.

        Args:
            final: whether the next run may take it; an error that a retry may mend is asked again.
        """
        self._known[key] = reply
        if final:
            with self._one_at_a_time:
                self._writer.write([{"row": 0, "key": key, "reply": reply.as_record()}])

    def close(self) -> None:
        self._writer.close()


@contextmanager
def kept_in(output: Path) -> Iterator[Ledger]:
    """The ledger of an output folder, which is made if it is not there; no other run may use it meanwhile.

    Raises:
        BadRequest: the folder holds something else, or another run is at work in it.
    """
    folder = output / JOURNAL
    if output.exists() and not output.is_dir():
        raise BadRequest(f"{output} is no folder", param="output")
    if output.exists() and not folder.is_dir() and any(output.iterdir()):
        raise BadRequest(f"{output} holds files that are no evaluation's; give a new or empty folder", param="output")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadRequest(f"{output}: another run is at work here", param="output") from error
    ledger = Ledger(folder)
    try:
        yield ledger
    finally:
        ledger.close()
        lock.release()


def _kept(folder: Path) -> Iterator[tuple[str, Reply]]:
    for path in files(folder):
        for line in path.read_bytes().split(b"\n"):
            record = _record(line)
            if record is not None:
                yield record["key"], Reply.of(record["reply"])


def _record(line: bytes) -> dict[str, Any] | None:
    """``None`` for what a crash left of one."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "reply" in found else None
