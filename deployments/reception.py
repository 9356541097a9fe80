"""How one driver receives requests: each waits for its turn, is answered by the ensemble, and is entered in the books.

Knows no Ray. What is spent is counted as the ensemble tells it, whether or not anybody is there to hear of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

from deployments.admission import Admission
from deployments.answering import cut_short
from deployments.tally import ANSWERING, Stat, Tally
from ensemble.ensemble import Ensemble
from ensemble.errors import BudgetExceeded
from ensemble.request import Budget, Event, Request, Spent, Trace


class Reception:
    """Of one driver."""

    def __init__(
        self,
        ensemble: Ensemble,
        tally: Tally,
        *,
        admission: Admission | None = None,
        budget: Budget | None = None,
        note: Callable[[Request, Event], None] | None = None,
    ) -> None:
        """
        Args:
            tally: the books; what the ensemble cannot tell any more, it enters there itself.
            admission: to the ensemble's members; ``None``: they admit for themselves.
            budget: of each request, as the configuration has it; its time begins with the wait.
            note: told of every event beside the tally.
        """
        self._ensemble, self._tally, self._admission = ensemble, tally, admission
        self._budget = budget or Budget()
        self._note = note
        self.running = 0
        """Requests that are being answered, or wait for their turn."""

    async def answered(self, request: Request) -> AsyncGenerator[Event, None]:
        """Events of one request, with who answers before the first that tells of an answer.

        Raises:
            QueueFull: too many wait already.
            EnsembleError: as the ensemble fails.
        """
        self.running += 1
        introduced = False
        try:
            async with aclosing(self._in_turn(request)) as events:
                async for event in events:
                    if isinstance(event, Trace) and event.kind == ANSWERING:
                        continue  # of an ensemble within
                    self._enter(request, event)
                    if not introduced and not isinstance(event, Spent):
                        introduced = True
                        yield self._introduction
                    yield event
        finally:
            self.running -= 1

    def stats(self) -> dict[Stat, float]:
        """Value by name and labels."""
        waiting, refused = (a.waiting, a.refused) if (a := self._admission) is not None else (0, 0)
        own: dict[Stat, float] = {"running": self.running, "waiting": waiting, "queue_refused": refused}
        return own | dict[Stat, float](self._tally.stats())

    @property
    def _introduction(self) -> Trace:
        members = [member.name for member in self._ensemble.members]
        return Trace(ANSWERING, {"method": self._ensemble.method, "members": members})

    def _enter(self, request: Request, event: Event) -> None:
        self._tally.note(event)
        if self._note is not None:
            self._note(request, event)

    async def _in_turn(self, request: Request) -> AsyncGenerator[Event, None]:
        try:
            async with (
                self._admitted(request) as admitted,
                aclosing(self._ensemble.generate(admitted)) as events,
            ):
                async for event in events:
                    yield event
        except _Late as late:
            if request.budget.tightest(self._budget).exhausted != "partial":
                raise
            for event in cut_short(late, range(request.n)):
                yield event

    @asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[Request]:
        """The request when its turn has come, and how long that took of its budget."""
        if self._admission is None:
            yield request
            return
        budget = request.budget.tightest(self._budget)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(budget.seconds):
                    await stack.enter_async_context(self._admission.held(request.n))
            except TimeoutError as error:
                rule = f"the budget of {budget.seconds} seconds was used up by waiting for other requests"
                raise _Late(rule, param="budget.seconds") from error
            if budget.seconds is not None:
                request = replace(request, budget=replace(request.budget, waited=loop.time() - began))
            yield request


class _Late(BudgetExceeded):
    """The turn of a request came after its time."""
