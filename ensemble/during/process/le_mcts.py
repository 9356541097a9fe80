"""LE-MCTS: members take turns by reasoning step, in a tree search that a judge of steps guides (arXiv 2412.15797)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from types import MappingProxyType

from pydantic import Field

from ensemble.concurrency import shielded
from ensemble.during.process.search import Commit, Search
from ensemble.during.process.steps import Step, StepWriters
from ensemble.during.process.tree import Backup, Node, Tree
from ensemble.errors import BadRequest, BudgetExceeded
from ensemble.judges.rewards import Reduction
from ensemble.member import Capability, Card
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Delta, Event, Finish, Request, Trace
from ensemble.text import TextStream


class LeMctsOptions(Options):
    iterations: int = Field(default=20, ge=1)
    """Expansions over the whole answer."""
    exploration: float = Field(default=0.5, ge=0)
    """C of the upper confidence bound: 0.5 for hard questions, 1 and more for easy ones."""
    children: int = Field(default=3, ge=1)
    """Next steps tried from one partial solution at most."""
    step_tokens: int = Field(default=64, ge=1)
    """A step without a delimiter ends after so many tokens."""
    depth: int = Field(default=8, ge=1)
    """Steps of an answer in the search at most; an answer so long is cut there."""
    delimiter: str = Field(default="\n", min_length=1)
    """What a step ends with; it belongs to the step."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Temperature of the steps; a request's own temperature goes first where it is above 0."""
    terminal: re.Pattern[str] | None = None
    """An answer is finished with the step that makes its text match, besides where its writer stops. Only the
    configuration sets it. Omitted: never."""
    epsilon: float | None = Field(default=None, ge=0)
    """Stop widening below a step once a next step's value is not below its own by more than this. Omitted: off."""
    backup: Backup = "optimistic"
    """A step's value averages the values of its best continuation, or all rewards below it."""
    returns: Reduction = "mean"
    """Which finished answer is best: by mean, minimum or product over its steps' rewards, or by its last step's.
    ``last`` suits judges whose reward for a step speaks for all before it, and no judge that looks at one step only."""
    workers: int = Field(default=1, ge=1)
    """Expansions at once."""
    stop_at: float | None = Field(default=None, ge=0, le=1)
    """End the search at a finished answer with this reward (as ``returns`` has it). Omitted: use all iterations."""
    commit: Commit = "step"
    """``step``: a share of the iterations for each step, ``children`` at least, which is then settled and streamed;
    ``end``: all iterations from the beginning of the answer, then the best answer found."""


@method(
    "le_mcts",
    stage=Stage.PROCESS,
    paper="2412.15797",
    needs={Capability.GENERATE, Capability.SESSIONS},
    options=LeMctsOptions,
    judge=True,
)
class LeMcts(Method[LeMctsOptions]):
    """Search over steps.

    Each expansion draws a member uniformly and lets it write one step: one exchange with that member (text to adopt
    and step in one message) and a share of one call to the judge. A member has one session for each worker that
    drew it. Workers go in rounds, so a seed gives the same tree however long members take. A step that only repeats
    a sibling is drawn again, twice at most; then the iteration is lost, and counts as one of the node's children.

    With ``commit: step`` a step is settled, and its text streamed, after its share of the iterations (those left,
    over the steps that are likely left): the one of the highest value; its subtree is kept. Once the iterations are
    used up or all answers below are finished, the rest is the finished answer of the highest reward, or else the
    steps of the highest values, from which the first member writes on, greedily unless the request has a temperature.

    The judge sees the text that the request began the answer with as a part of the first step.

    Departures from the paper: committing by step (``commit: end`` is the paper's search); finished answers compared by
    the mean over their steps (``returns: last`` is the paper's rule); no answer marker by default.
    """

    caps = MappingProxyType({"iterations": 200, "children": 16, "depth": 64, "step_tokens": 1024, "workers": 16})
    fixed = ("terminal",)

    def calls(self, members: int) -> Sequence[int]:
        return (self.options.workers,) * members

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        if request.sampling.logprobs is not None:
            raise BadRequest("le_mcts reports no log-probabilities; leave logprobs out", param="logprobs")

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        writers = self._writers(request, members)
        search = self._search(request, members, writers)
        told = _Told(request.sampling.stop, members.names)
        node = search.tree.root
        try:
            while search.goes_on(node):
                for new in await self._round(search, node, members):
                    yield _grown(new, members.names)
                if search.settled(node):
                    node = search.commit(node)
                    for event in told.committed(node):
                        yield event
            async with aclosing(self._rest(search, node, told, members)) as events:
                async for event in events:
                    yield event
        finally:
            await shielded(writers.close())

    async def _round(self, search: Search, node: Node, members: Members) -> list[Node]:
        """New nodes; none, and the end of the search, where the budget ended and the answer may be a partial one."""
        try:
            return await search.round(node, self.options.workers)
        except BudgetExceeded as error:
            if not members.settle(error):
                raise
            search.end()
            return []

    async def _rest(self, search: Search, node: Node, told: _Told, members: Members) -> AsyncGenerator[Event, None]:
        """What follows a node once the search is over."""
        path = search.best_below(node)
        for step_node in path:
            for event in told.committed(step_node):
                yield event
        try:
            async with aclosing(search.written_on(path[-1] if path else node)) as steps:
                async for step in steps:
                    for event in told.step(step):
                        yield event
        except BudgetExceeded as error:
            if not members.settle(error):
                raise
        for event in told.end():
            yield event

    def _writers(self, request: Request, members: Members) -> StepWriters:
        o = self.options
        return StepWriters(request, members, step_tokens=o.step_tokens, delimiter=o.delimiter, terminal=o.terminal)

    def _search(self, request: Request, members: Members, writers: StepWriters) -> Search:
        o = self.options
        return Search(
            request,
            Tree(exploration=o.exploration, children=o.children, epsilon=o.epsilon, backup=o.backup),
            writers,
            members.names,
            members.judge,
            iterations=o.iterations,
            depth=o.depth,
            children=o.children,
            temperature=o.temperature,
            returns=o.returns,
            stop_at=o.stop_at,
            commit=o.commit,
        )


class _Told:
    """Turns settled steps into text that is certain, credited to their writers."""

    def __init__(self, stop: tuple[str, ...], names: Sequence[str]) -> None:
        self._stream = TextStream(stop)
        self._names = names
        self._last = Step(b"", 0)

    def committed(self, node: Node) -> Iterator[Event]:
        yield Trace("commit", {"node": node.id})
        yield from self.step(node.step)

    def step(self, step: Step) -> Iterator[Event]:
        self._last = step
        if text := self._stream.push(step.text):
            yield Delta(text, {self._names[step.writer]: 1.0})

    def end(self) -> Iterator[Event]:
        if text := self._stream.flush():
            yield Delta(text, {self._names[self._last.writer]: 1.0})
        yield Finish(self._last.end or "length")


def _grown(node: Node, names: Sequence[str]) -> Trace:
    """What a picture of the tree needs: the new node, and how its ancestors stand now."""
    above = [{"id": n.id, "visits": n.visits, "value": n.value} for n in _ancestors(node)]
    return Trace(
        "node",
        {
            "id": node.id,
            "parent": above[0]["id"],
            "member": names[node.step.writer],
            "text": node.step.text.decode(errors="replace"),
            "end": node.step.end,
            "reward": node.reward,
            "visits": node.visits,
            "value": node.value,
            "above": above,
        },
    )


def _ancestors(node: Node) -> Iterator[Node]:
    while node.parent is not None:
        node = node.parent
        yield node
