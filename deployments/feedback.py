"""The keeper of feedback as one Serve deployment of a single replica: the only writer of the journal.

Whatever waits to be written goes to the disk together. Drivers tell it who has answered, and pull what was said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ray import serve

from deployments.calls import CONCURRENT_CALLS, GRACE, LOGGING, WATCHED, ending
from deployments.given import Given, Kept, UnknownAnswer
from deployments.journal import Journal
from deployments.placement import ANYWHERE, Placement
from deployments.segments import Record
from deployments.versions import version_of, versioned
from ensemble.errors import EnsembleError

log = logging.getLogger(__name__)

NAME = "feedback"
"""Of the deployment."""
_PATIENCE = 2.0
"""Seconds that feedback waits for its answer's route, which comes by another way."""
_LOOK_AGAIN = 0.05
"""Seconds between two tries at a journal that another process still writes."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Something to be done at the journal, and who waits for it."""

    feedback: Record | None
    routes: Sequence[Record]
    done: asyncio.Future[Kept]


class Writer:
    """What waits to be written, by one thread at a time."""

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            clock: seconds since 1970.
        """
        self._journal, self._clock = journal, clock
        self._waiting: list[_Work] = []
        self._writer: asyncio.Task[None] | None = None
        self._noted = asyncio.Event()
        self.broken: OSError | None = None
        """Why the journal could not be written or read."""

    async def keep(self, given: Given) -> Kept:
        """Write feedback; it is on the disk when this returns.

        Raises:
            UnknownAnswer: there is no such answer.
            OtherFeedback: it was judged otherwise before.
        """
        return await self._done(feedback=await self._record(given))

    async def note(self, routes: Sequence[Record]) -> None:
        """Write who has answered."""
        await self._done(routes=[{"kind": "route", "at": self._clock(), **route} for route in routes])
        noted, self._noted = self._noted, asyncio.Event()
        noted.set()

    async def since(self, after: int, ensemble: str) -> tuple[list[Record], int, bool]:
        """Feedback after a number; the number up to which this is all; and whether there is no more."""
        records, through = await asyncio.to_thread(self._journal.since, after, ensemble)
        return records, through, through >= self._journal.last

    async def _record(self, given: Given) -> Record:
        said = asdict(given)
        kind = "outcome" if given.quality is not None else "preference"
        route = await self._route(given) if given.id is not None else {}
        record = {"kind": kind, "at": self._clock(), **said, "question": given.question or route.get("question")}
        if kind == "outcome":
            record["member"] = given.member or route.get("member")
            # What is known of the answer says nothing of another member's.
            same = record["member"] == route.get("member")
            names = ("cost", "input_tokens", "output_tokens", "latency", "propensity")
            record |= {name: route.get(name) if same else None for name in names}
        return record

    async def _route(self, given: Given) -> Record:
        end = asyncio.get_running_loop().time() + _PATIENCE
        while (route := self._noted_route(given)) is None:
            left = end - asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(max(left, 0)):
                    await self._noted.wait()
            except TimeoutError:
                rule = f"{given.ensemble} has given no answer of this id and choice, or too long ago"
                raise UnknownAnswer(rule, param="id") from None
        return route

    def _noted_route(self, given: Given) -> Record | None:
        try:
            return self._journal.route(given.ensemble, str(given.id), given.choice)
        except OSError as error:
            self.broken = error
            raise EnsembleError("the journal of feedback cannot be read") from error

    async def _done(self, *, feedback: Record | None = None, routes: Sequence[Record] = ()) -> Kept:
        work = _Work(feedback, routes, asyncio.get_running_loop().create_future())
        self._waiting.append(work)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await asyncio.shield(work.done)

    async def _write(self) -> None:
        """Write until nobody waits."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                results = await asyncio.to_thread(self._written, waiting)
            except OSError as error:
                self.broken = error
                results = [EnsembleError("the journal of feedback cannot be written")] * len(waiting)
            except Exception:
                # Whatever it is, those that come after are not to wait for ever.
                log.exception("%d pieces of feedback could not be written", len(waiting))
                results = [EnsembleError("this feedback cannot be written")] * len(waiting)
            for work, result in zip(waiting, results, strict=True):
                if isinstance(result, Exception):
                    work.done.set_exception(result)
                    # Whoever waited may have left.
                    work.done.exception()
                else:
                    work.done.set_result(result)
        self._writer = None

    def _written(self, waiting: Sequence[_Work]) -> list[Kept | EnsembleError]:
        self._journal.note([route for work in waiting for route in work.routes])
        kept = iter(self._journal.append([work.feedback for work in waiting if work.feedback is not None]))
        return [Kept(0) if work.feedback is None else next(kept) for work in waiting]


class FeedbackReplica:
    """The keeper."""

    async def __init__(self, path: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._feedback = Writer(await _opened(Path(path)))

    async def keep(self, given: Given) -> Kept:
        return await self._feedback.keep(given)

    async def note(self, routes: Sequence[Record]) -> None:
        await self._feedback.note(routes)

    async def since(self, after: int, ensemble: str) -> tuple[list[Record], int, bool]:
        return await self._feedback.since(after, ensemble)

    def check_health(self) -> None:
        """A replica whose disk has failed is replaced; the next one reads what there is."""
        if self._feedback.broken is not None:
            raise self._feedback.broken


async def _opened(path: Path) -> Journal:
    """The journal, as soon as no other process writes it."""
    while True:
        try:
            return await asyncio.to_thread(Journal, path)
        except BlockingIOError:
            await asyncio.sleep(_LOOK_AGAIN)


def deploy(path: Path, *, placement: Placement = ANYWHERE, grace: float = GRACE) -> serve.Application:
    """The deployment of the keeper.

    Args:
        path: of the journal, on the machine of the replica or where all machines see it.
        grace: seconds that the replica has for what is under way when it is stopped.
    """
    deployment = serve.deployment(
        FeedbackReplica,
        name=NAME,
        num_replicas=1,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
        **WATCHED,
        **ending(grace),
    )
    return versioned(deployment, version_of(str(path))).bind(str(path))
