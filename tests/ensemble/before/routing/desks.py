"""Routers over questions whose first word decides, and members that say their names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.artifacts import Manifest
from ensemble.before.costs.cost import MeanCosts
from ensemble.before.encoders.encoder import Encoder
from ensemble.before.guards.guard import Guard
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.routing.router import Router, keep
from ensemble.ensemble import Ensemble
from ensemble.member import Capability, Card, Member
from ensemble.outcomes.dense import Bools, Floats
from ensemble.request import Answer, Delta, Event, Finish, Request, Spent, Usage

WORDS = ("sum", "word", "far")


@dataclass
class FirstWord(Encoder, kind="test-first-word"):
    """One dimension for each word that is known; other texts are zero."""

    words: tuple[str, ...] = WORDS

    @property
    def size(self) -> int:
        return len(self.words)

    def embed(self, texts: Sequence[str]) -> Floats:
        return np.array([[float(text.split(" ")[0] == word) for word in self.words] for text in texts], np.float32)


@dataclass
class Far(Guard, kind="test-far"):
    """In doubt about the last word."""

    last: int = len(WORDS) - 1

    def doubtful(self, x: Floats) -> Bools:
        return np.asarray(x[:, self.last] > 0)


QUALITY = {"a": (0.9, 0.2, 0.6), "b": (0.3, 0.8, 0.1), "c": (0.5, 0.4, 0.2)}
"""By member: on each of the words. ``a`` is the best overall."""


def router(quality: Mapping[str, Sequence[float]] = QUALITY, **parts: Any) -> Router:
    """Says what the table says; one neighbour, so that feedback shows at once."""
    table = np.array(list(quality.values()), np.float32).T
    head = Neighbours.fit(np.eye(len(WORDS), dtype=np.float32), table, k=1)
    best = int(table.mean(axis=0).argmax())
    parts = {"encoder": FirstWord(), **parts}
    return Router(tuple(quality), best, head, MeanCosts(np.arange(1.0, len(quality) + 1)), **parts)


def artifact(folder: Path, made: Router | None = None, **manifest: Any) -> Path:
    """The router as an artifact of ``knn_router``."""
    keep(folder, "knn_router", made or router(), Manifest(method="", kind="", **manifest))
    return folder


class Says(Member):
    """Answers with its name, or with what it is told to say; may fail before or after the first text."""

    def __init__(
        self,
        name: str,
        text: str = "",
        *,
        error: Exception | None = None,
        late: bool = False,
        context: int = 1000,
        says: Mapping[str, str] | None = None,
    ) -> None:
        self.card = Card(name, frozenset({Capability.GENERATE}), context)
        self.text, self.error, self.late = text or name, error, late
        self.says = says or {}
        self.asked: list[Request] = []

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.asked.append(request)
        yield Spent(self.name, Usage(calls=1, prompt_tokens=3))
        if self.error is not None and not self.late:
            raise self.error
        for choice in range(request.n):
            yield Delta(self.says.get(request.question, self.text), {self.name: 1.0}, choice=choice)
            if self.error is not None:
                raise self.error
            yield Finish("stop", choice)
            yield Spent(self.name, Usage(completion_tokens=2))


def ensemble(path: Path, members: Sequence[Member] | None = None, **given: Any) -> Ensemble:
    """A router over members; other options than ``path`` by name."""
    settings = {key: given.pop(key) for key in ("policy_of_losses", "encoders") if key in given}
    if "policy_of_losses" in settings:
        settings["policy"] = settings.pop("policy_of_losses")
    options = {"path": str(path), **given}
    return Ensemble("routed", "knn_router", members or [Says(name) for name in "abc"], options=options, **settings)


def trace(answer: Answer, kind: str = "route") -> dict[str, Any]:
    """The only trace of a kind in the first choice."""
    (found,) = [trace for trace in answer.choices[0].traces if trace.kind == kind]
    return dict(found.data)
