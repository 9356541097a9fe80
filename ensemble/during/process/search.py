"""One request's search over steps: who writes which step, what the judge says, and which steps are best.

``le_mcts.py`` has the options and tells the events; ``tree.py`` the bookkeeping; ``steps.py`` the members' side.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Literal

from ensemble.concurrency import together
from ensemble.during.process.steps import Step, StepWriters
from ensemble.during.process.tree import Node, Tree
from ensemble.judges.judge import Judge
from ensemble.judges.rewards import Reduction, reduced
from ensemble.request import Request
from ensemble.sampling import seeded

ATTEMPTS = 3
"""Steps written for one expansion, if each repeats a sibling, before it is given up."""

Commit = Literal["step", "end"]


class Search:
    """Rounds of expansions below a node, until a step may be settled or the search is over."""

    def __init__(
        self,
        request: Request,
        tree: Tree,
        writers: StepWriters,
        names: Sequence[str],
        judge: Judge,
        *,
        iterations: int,
        depth: int,
        children: int,
        temperature: float,
        returns: Reduction,
        stop_at: float | None,
        commit: Commit,
    ) -> None:
        self.tree = tree
        self._request = request
        self._writers = writers
        self._names = names
        self._judge = judge
        self._left = iterations
        self._depth = depth
        self._children = children
        self._returns = returns
        self._stop_at = stop_at
        self._sampling = seeded(request.sampling)
        self._temperature = temperature if request.sampling.greedy else request.sampling.temperature
        self._by_name = sorted(range(len(names)), key=lambda member: names[member])
        self._draws = count()
        self._enough = False
        self._by_step = commit == "step"
        self._share = self._fair_share(tree.root)

    def goes_on(self, under: Node) -> bool:
        """Whether there are iterations left and anything to try below a node."""
        return self._left > 0 and not self._enough and self.tree.open(under)

    async def round(self, under: Node, workers: int) -> list[Node]:
        """Expand up to ``workers`` nodes at once; the new ones. The judge sees all new steps in one call.

        Every iteration is used up, also one that found no new step.
        """
        nodes = self._selected(under, min(workers, self._left, max(1, self._share) if self._by_step else workers))
        self._left -= len(nodes)
        self._share -= len(nodes)
        steps = await self._written(nodes)
        new = [(node, step) for node, step in zip(nodes, steps, strict=True) if step is not None]
        judged = await self._judge.judge(self._request, [self._solution(*one) for one in new]) if new else []
        for node, step in zip(nodes, steps, strict=True):
            if step is None:
                self.tree.skip(node)
        return [self._added(node, step, rewards[-1]) for (node, step), rewards in zip(new, judged, strict=True)]

    def end(self) -> None:
        """Look no further: what was found is what there is."""
        self._enough = True

    def settled(self, node: Node) -> bool:
        """Whether the best step after a node may be committed."""
        return self._by_step and self._share <= 0 and bool(node.children)

    def commit(self, node: Node) -> Node:
        """The best child, from which the search goes on."""
        child = node.best_child
        self._share = self._fair_share(child)
        return child

    def best_below(self, node: Node) -> list[Node]:
        """Steps from a node to the best finished answer below it; without one, along the highest values."""
        if best := self._best_end(node):
            return best.path[node.depth :]
        path: list[Node] = []
        while node.children:
            node = node.best_child
            path.append(node)
        return path

    async def written_on(self, node: Node) -> AsyncGenerator[Step, None]:
        """Steps of the first member that is left, from a node to the end, drawn as the request says."""
        text, tokens, end = node.text, node.tokens, node.step.end
        while end is None:
            seed = self._random().getrandbits(62)
            writer = self._writers.present[0]
            step = await self._writers.write(writer, 0, text, tokens, replace(self._sampling, seed=seed))
            if step is None and writer not in self._writers.present:
                continue  # It was lost; another one writes on.
            if step is None:
                return
            text, tokens, end = text + step.text, tokens + step.tokens, step.end
            yield step

    def _selected(self, under: Node, most: int) -> list[Node]:
        nodes: list[Node] = []
        while len(nodes) < most and (node := self.tree.select(under)):
            nodes.append(node)
        return nodes

    async def _written(self, nodes: Sequence[Node]) -> list[Step | None]:
        """A step for each node that none of its children holds; ``None`` where members only repeat those."""
        steps: list[Step | None] = [None] * len(nodes)
        for _ in range(ATTEMPTS):
            missing = [worker for worker, step in enumerate(steps) if step is None]
            tried = await together(self._drawn(nodes[worker], worker, self._random()) for worker in missing)
            for worker, step in zip(missing, tried, strict=True):
                beside = [s for node, s in zip(nodes, steps, strict=True) if s and node is nodes[worker]]
                beside += [child.step for child in nodes[worker].children]
                if step is not None and all(_identity(step) != _identity(other) for other in beside):
                    steps[worker] = step
        return steps

    async def _drawn(self, node: Node, worker: int, random: Random) -> Step | None:
        left = [member for member in self._by_name if member in self._writers.present]
        member = left[random.randrange(len(left))]
        sampling = replace(self._sampling, temperature=self._temperature, seed=random.getrandbits(62))
        step = await self._writers.write(member, worker, node.text, node.tokens, sampling)
        if step is not None and step.end is None and node.depth + 1 >= self._depth:
            return replace(step, end="length")
        return step

    def _random(self) -> Random:
        """A new stream of random numbers that depends on the request's seed and a running number alone."""
        return Random(f"{self._sampling.seed}/step {next(self._draws)}")

    def _solution(self, node: Node, step: Step) -> list[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        first, *others = [decoder.decode(text) for text in [*(n.step.text for n in node.path), step.text]]
        return [self._request.partial + first, *others]

    def _added(self, node: Node, step: Step, reward: float) -> Node:
        new = self.tree.add(node, step, reward)
        ended = self._stop_at is not None and step.end is not None
        self._enough |= ended and reduced(new.rewards, self._returns) >= (self._stop_at or 0)
        return new

    def _best_end(self, node: Node) -> Node | None:
        return max(node.ends(), key=lambda end: (reduced(end.rewards, self._returns), -end.id), default=None)

    def _fair_share(self, node: Node) -> int:
        """Iterations for the step after a node: the same for each step likely left, but enough for a choice."""
        best = self._best_end(node)
        steps = (best.depth if best else self._depth) - node.depth
        return max(self._children, math.ceil(self._left / max(1, steps)))


def _identity(step: Step) -> tuple[bytes, bool]:
    return step.text, step.end is None
