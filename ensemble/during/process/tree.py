"""The search tree over steps: selection by upper confidence bounds, and backed-up values (arXiv 2412.15797).

Pure bookkeeping over values; knows no members, no judge and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ensemble.during.process.steps import Step

Backup = Literal["optimistic", "mean"]


@dataclass(slots=True, eq=False)
class Node:
    """A partial solution: the steps from the root to here."""

    id: int
    """Nodes are numbered in the order in which they were added; the root is 0."""
    step: Step
    parent: Node | None = None
    reward: float = 0.0
    """The judge's, for the newest step."""
    visits: int = 0
    value: float = 0.0
    children: list[Node] = field(default_factory=list)
    expected: int = 0
    """Expansions under way below this node, counted as visits meanwhile (virtual loss)."""
    awaited: int = 0
    """Expansions under way at this very node."""
    repeats: int = 0
    """Expansions that only repeated the children there are; each takes the place of a child."""

    @property
    def path(self) -> list[Node]:
        """From the first step to this one; empty at the root."""
        return [] if self.parent is None else [*self.parent.path, self]

    @property
    def depth(self) -> int:
        """Number of steps."""
        return len(self.path)

    @property
    def text(self) -> bytes:
        return b"".join(node.step.text for node in self.path)

    @property
    def tokens(self) -> int:
        return sum(node.step.tokens for node in self.path)

    @property
    def rewards(self) -> list[float]:
        return [node.reward for node in self.path]

    @property
    def best_child(self) -> Node:
        """The child of the highest value; the most visited, then the first, among equals."""
        return max(self.children, key=lambda child: (child.value, child.visits, -child.id))

    def ends(self) -> Iterator[Node]:
        """Finished answers at or below this node."""
        if self.step.end is not None:
            yield self
        for child in self.children:
            yield from child.ends()


class Tree:
    """Grows by one step at a time: ``select`` a node, write a step from it, judge it, ``add`` it.

    >>> tree = Tree(exploration=1.0, children=2)
    >>> node = tree.add(tree.select(), Step(b"1+1=2", writer=0), reward=0.6)
    >>> tree.root.visits, tree.root.value
    (1, 0.6)
    """

    def __init__(
        self, *, exploration: float, children: int, epsilon: float | None = None, backup: Backup = "optimistic"
    ) -> None:
        """
        Args:
            exploration: C of the upper confidence bound.
            children: a node with so many is fully expanded.
            epsilon: a node with a child whose value is not below its own by more than this is fully expanded, too;
                not the root, which has no value but its children's. ``None``: off.
            backup: ancestors average the values of their best child, or the rewards of all below them.
        """
        self.root = Node(0, Step(b"", -1))
        self.size = 1
        """Nodes, the root included."""
        self._exploration = exploration
        self._children = children
        self._epsilon = epsilon
        self._backup = backup

    def select(self, under: Node | None = None) -> Node | None:
        """The node to expand next below ``under`` (the root), reserved until ``add`` or ``skip``.

        ``None`` if there is none: every answer below is finished or being written.
        """
        node = under or self.root
        if not self.open(node):
            return None
        while not self._expandable(node):
            node = max(filter(self.open, node.children), key=lambda child: (self.bound(child), -child.id))
        self.reserve(node)
        return node

    def reserve(self, node: Node) -> None:
        """Count an expansion of this node as under way, until ``add`` or ``skip``."""
        self._expect(node, 1)

    def add(self, parent: Node, step: Step, reward: float) -> Node:
        """Take in the step written from a reserved node, and back its reward up to the root."""
        self._expect(parent, -1)
        node = Node(self.size, step, parent, reward, visits=1, value=reward)
        self.size += 1
        parent.children.append(node)
        above: Node | None = parent
        while above is not None:
            above.visits += 1
            latest = reward if self._backup == "mean" else max(child.value for child in above.children)
            above.value += (latest - above.value) / above.visits
            above = above.parent
        return node

    def skip(self, node: Node) -> None:
        """End an expansion of a reserved node without a new step; it counts towards the node's children."""
        self._expect(node, -1)
        node.repeats += 1

    def bound(self, node: Node) -> float:
        """Upper confidence bound v + C·√(ln N_parent / N), expansions under way counted as visits."""
        assert node.parent is not None
        visits, all_visits = node.visits + node.expected, node.parent.visits + node.parent.expected
        return node.value + self._exploration * math.sqrt(math.log(all_visits) / visits)

    def open(self, node: Node) -> bool:
        """Whether there is something left to expand at or below a node."""
        return self._expandable(node) or any(map(self.open, node.children))

    def _expandable(self, node: Node) -> bool:
        tried = len(node.children) + node.awaited + node.repeats
        return node.step.end is None and tried < self._children and not self._good_enough(node)

    def _good_enough(self, node: Node) -> bool:
        if self._epsilon is None or node.parent is None or not node.children:
            return False
        return node.best_child.value >= node.value - self._epsilon

    def _expect(self, node: Node, count: int) -> None:
        node.awaited += count
        above: Node | None = node
        while above is not None:
            above.expected += count
            above = above.parent
