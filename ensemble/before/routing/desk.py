"""The desk of one ensemble in one process: the router in service, and the requests that wait for its word.

Requests of one tick of the event loop are embedded and predicted together. A router is put in another's place by one
assignment; who began with the old one ends with it. Knows nothing of members that answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble.before.encoders.served import ServedEncoder
from ensemble.before.policies import Prediction
from ensemble.before.routing.decision import Reading, Route
from ensemble.before.routing.feedback import Feedback
from ensemble.before.routing.router import Router
from ensemble.errors import BadRequest, EnsembleError, MemberError
from ensemble.outcomes.dense import Floats

if TYPE_CHECKING:
    from ensemble.before.routing.loading import Source

log = logging.getLogger(__name__)

_INLINE = 2000
"""Characters that a router's own encoder reads on the event loop, in about a millisecond; more of them in a thread."""
_SLICE = 0.002
"""Seconds of learning after which requests have their turn."""

Count = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels of something that is counted."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A router that can be asked."""

    router: Router
    digest: str
    """Of its artifact; empty for one that needs none."""
    encoder: ServedEncoder | None = None
    """Makes its embeddings; ``None``: the router has its own, or reads none."""
    since: int = 0
    """Number of the last piece of feedback that it was fitted on."""

    async def embed(self, texts: Sequence[str]) -> Floats:
        """[n, d] float32; of a router that reads none [n, 1], zeros."""
        if self.encoder is not None:
            return await self.encoder.embed(texts)
        own = self.router.encoder
        if own is None:
            return np.zeros((len(texts), 1), np.float32)
        short = sum(map(len, texts)) <= _INLINE
        return own.embed(texts) if short else await asyncio.to_thread(own.embed, texts)


@dataclass(frozen=True, slots=True)
class _Waiting:
    loaded: Loaded
    text: str
    tokens: float
    reading: asyncio.Future[Reading]


class Desk:
    """Of one ensemble."""

    def __init__(self, name: str, loaded: Loaded, source: Source | None = None) -> None:
        """
        Args:
            name: of the ensemble.
            source: where the router comes from; ``None``: it has no artifact.
        """
        self.name = name
        self.source = source
        self.loaded = loaded
        """In service."""
        self.counts: Counter[Count] = Counter()
        """What has happened here, by name and labels."""
        self._waiting: list[_Waiting] = []
        self._turns = set[asyncio.Task[None]]()

    async def read(self, loaded: Loaded, text: str, tokens: float) -> Reading:
        """What a router makes of a question, together with all that ask in the same tick.

        Args:
            loaded: the router in service when the request came.
            tokens: that the prompt has.
        """
        waiting = _Waiting(loaded, text, tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            turn = asyncio.create_task(self._turn())
            self._turns.add(turn)
            turn.add_done_callback(self._turns.discard)
        return await waiting.reading

    async def _turn(self) -> None:
        waiting, self._waiting = self._waiting, []
        for loaded in {id(one.loaded): one.loaded for one in waiting}.values():
            asked = [one for one in waiting if one.loaded is loaded and not one.reading.done()]
            try:
                await _read(loaded, asked)
            except EnsembleError as error:
                _failed(asked, error)
            except Exception as error:
                log.exception("the router of %s has failed", self.name)
                _failed(asked, MemberError(f"the router of {self.name} has failed: {type(error).__name__}"))

    async def learn(self, loaded: Loaded, feedback: Sequence[Feedback]) -> None:
        """Have a router take in feedback, in this order: all of it, or nothing where an error is raised.

        What tells of members that the router does not know is passed over, and so is what it cannot learn.

        Args:
            loaded: the one in service, or one that is to take its place: that one learns beside the requests.

        Raises:
            MemberError: the encoder cannot be reached.
        """
        texts = list(dict.fromkeys(row.question for row in feedback))
        x = dict(zip(texts, await loaded.embed(texts), strict=True))
        learned = 0
        if loaded is self.loaded:
            paused = time.monotonic()
            for row in feedback:
                learned += _learned(loaded.router, [row], x)
                if time.monotonic() - paused > _SLICE:
                    await asyncio.sleep(0)
                    paused = time.monotonic()
        else:
            learned = await asyncio.to_thread(_learned, loaded.router, feedback, x)
        self.count("feedback_learned", learned)
        self.count("feedback_passed_over", len(feedback) - learned)

    def note(self, route: Route) -> None:
        """Count a route."""
        self.count("routed", 1, member=route.arms[route.first].name, why=route.why)
        if route.why == "shadow":
            self.count("route_shadow", 1, agrees="yes" if route.chosen == route.fallback else "no")

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        if by:
            self.counts[name, tuple(labels.items())] += by

    def stats(self) -> dict[str | Count, float]:
        """Value by name and labels."""
        return {name: float(value) for name, value in self.counts.items()}


def _failed(asked: Sequence[_Waiting], error: EnsembleError) -> None:
    """Tell each of those that wait: it goes on without a reading."""
    for one in asked:
        if not one.reading.done():
            one.reading.set_exception(error)


async def _read(loaded: Loaded, asked: Sequence[_Waiting]) -> None:
    texts = list(dict.fromkeys(one.text for one in asked))
    if not texts:
        return
    embedded = await loaded.embed(texts)
    places = {text: place for place, text in enumerate(texts)}
    x = embedded[[places[one.text] for one in asked]]
    prediction = loaded.router.predict(x, np.array([one.tokens for one in asked]))
    doubts = loaded.router.doubtful(x)
    for row, one in enumerate(asked):
        if not one.reading.done():
            one.reading.set_result(Reading(_row(prediction, row), bool(doubts[row])))


def _row(prediction: Prediction, row: int) -> Prediction:
    """Of one query."""
    std = None if prediction.std is None else prediction.std[row : row + 1]
    here = slice(row, row + 1)
    return replace(prediction, quality=prediction.quality[here], cost=prediction.cost[here], std=std)


def _learned(router: Router, feedback: Sequence[Feedback], x: Mapping[str, Floats]) -> int:
    """Take in feedback; returns how much of it was learned."""
    learned = 0
    for row in feedback:
        try:
            # One number that is none would make all of the router's so.
            if np.isfinite(x[row.question]).all():
                row.take(router, x[row.question])
                learned += 1
        except BadRequest:
            continue
        except Exception:
            # All that comes after would wait behind it for ever.
            log.exception("feedback %d cannot be learned", row.sequence)
    return learned
