"""The tree's arithmetic to six decimals, and laws of search that hold for any rewards."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.during.process.steps import Step
from ensemble.during.process.tree import Backup, Node, Tree

A, B = 0, 1


def grow(tree: Tree, parent: Node, step: Step, reward: float) -> Node:
    tree.reserve(parent)
    return tree.add(parent, step, reward)


def grown(exploration: float, backup: Backup = "optimistic") -> tuple[Tree, Node, Node]:
    """root → A1 (.6), root → B1 (.4), A1 → A1B2 (.9), A1 → A1A2 (.2)."""
    tree = Tree(exploration=exploration, children=2, backup=backup)
    a1 = grow(tree, tree.root, Step(b"A1", A), 0.6)
    b1 = grow(tree, tree.root, Step(b"B1", B), 0.4)
    grow(tree, a1, Step(b"B2", B), 0.9)
    grow(tree, a1, Step(b"A2", A), 0.2)
    return tree, a1, b1


def test_values_are_backed_up_optimistically() -> None:
    tree = Tree(exploration=1.0, children=2)
    a1 = grow(tree, tree.root, Step(b"A1", A), 0.6)
    assert (tree.root.value, a1.value) == (0.6, 0.6)
    b1 = grow(tree, tree.root, Step(b"B1", B), 0.4)
    assert tree.root.value == pytest.approx(0.6)
    grow(tree, a1, Step(b"B2", B), 0.9)
    assert (tree.root.value, a1.value) == (pytest.approx(0.65), pytest.approx(0.75))
    grow(tree, a1, Step(b"A2", A), 0.2)
    assert (tree.root.value, a1.value, b1.value) == (pytest.approx(0.6875), pytest.approx(0.8), 0.4)
    assert (tree.root.visits, a1.visits, b1.visits) == (4, 3, 1)


@pytest.mark.parametrize(
    ("exploration", "backup", "bounds", "root", "chosen"),
    [
        (1.0, "optimistic", (1.479778, 1.577410), 0.6875, "b1"),
        (0.5, "optimistic", (1.139889, 0.988705), 0.6875, "a1"),
        (0.5, "mean", (0.906556, 0.988705), 0.525, "b1"),
    ],
)
def test_bounds_and_what_they_choose(
    exploration: float, backup: Backup, bounds: tuple[float, float], root: float, chosen: str
) -> None:
    tree, a1, b1 = grown(exploration, backup)
    assert (tree.bound(a1), tree.bound(b1)) == (pytest.approx(bounds[0], abs=1e-6), pytest.approx(bounds[1], abs=1e-6))
    assert tree.root.value == pytest.approx(root, abs=1e-12)
    assert a1.value == pytest.approx(0.566667 if backup == "mean" else 0.8, abs=1e-6)
    selected = tree.select()
    assert selected is not None and selected.path[0] is {"a1": a1, "b1": b1}[chosen]


def test_nodes_know_their_way() -> None:
    tree, a1, _ = grown(1.0)
    leaf = a1.children[0]
    assert (leaf.text, leaf.depth, leaf.rewards, tree.root.path) == (b"A1B2", 2, [0.6, 0.9], [])
    assert a1.best_child is leaf and tree.root.best_child is a1


def test_finished_answers_are_not_expanded() -> None:
    tree = Tree(exploration=1.0, children=1)
    end = grow(tree, tree.root, Step(b"x", A, end="stop"), 0.9)
    assert not tree.open(tree.root) and tree.select() is None
    assert list(tree.root.ends()) == [end]


def test_a_subtree_whose_answers_are_all_finished_is_left_out() -> None:
    tree = Tree(exploration=0.0, children=2)
    best = grow(tree, tree.root, Step(b"a", A), 0.9)
    other = grow(tree, tree.root, Step(b"b", B), 0.1)
    grow(tree, best, Step(b"c", A, end="stop"), 0.9)
    grow(tree, best, Step(b"d", A, end="stop"), 0.9)
    assert tree.select() is other


def test_a_good_enough_child_stops_widening_but_not_at_the_root() -> None:
    tree = Tree(exploration=0.0, children=3, epsilon=0.1)
    a = grow(tree, tree.root, Step(b"a", A), 0.5)
    for _ in range(2):
        assert tree.select() is tree.root
        tree.skip(tree.root)
    grow(tree, a, Step(b"b", A), 0.2)
    assert a.value == pytest.approx(0.35) and tree.select() is a
    better = tree.add(a, Step(b"c", B), 0.6)
    assert tree.select() is better


def test_expansions_given_up_take_the_place_of_children() -> None:
    tree = Tree(exploration=1.0, children=3)
    child = grow(tree, tree.root, Step(b"a", A), 0.5)
    for _ in range(2):
        node = tree.select()
        assert node is tree.root
        tree.skip(node)
        assert (node.expected, node.awaited) == (0, 0)
    assert tree.select() is child and tree.root.visits == 1


def test_expansions_under_way_count_as_visits_and_as_children() -> None:
    tree = Tree(exploration=1.0, children=2)
    a = grow(tree, tree.root, Step(b"a", A), 0.5)
    b = grow(tree, tree.root, Step(b"b", B), 0.5)
    assert [tree.select() for _ in range(4)] == [a, b, a, b]
    assert tree.select() is None and not tree.open(tree.root)
    assert (tree.root.expected, a.expected, a.awaited) == (4, 2, 2)
    tree.add(a, Step(b"c", A), 0.5)
    assert (tree.root.expected, a.expected, a.awaited) == (3, 1, 1)


def test_a_search_may_begin_below_the_root() -> None:
    tree, a1, b1 = grown(1.0)
    selected = tree.select(under=a1)
    assert selected in a1.children and b1.expected == 0


def explored(rewards: Sequence[float], seed: int, **options: object) -> Tree:
    tree = Tree(exploration=0.5, children=2, **options)  # type: ignore[arg-type]
    random = Random(seed)
    for number, reward in enumerate(rewards):
        node = tree.select()
        if node is None:
            break
        end = "stop" if random.random() < 0.2 else None
        tree.add(node, Step(str(number).encode(), random.randrange(2), end=end), reward)
    return tree


def nodes(node: Node) -> list[Node]:
    return [node, *(below for child in node.children for below in nodes(child))]


@pytest.mark.parametrize("backup", get_args(Backup))
@given(rewards=st.lists(st.floats(0, 1), max_size=20), seed=st.integers(0, 99))
def test_laws_of_the_search(backup: Backup, rewards: list[float], seed: int) -> None:
    tree = explored(rewards, seed, backup=backup)
    everything = nodes(tree.root)
    assert tree.root.visits == tree.size - 1 == len(everything) - 1
    for node in everything:
        assert node.visits == len(nodes(node)) - (node is tree.root)
        assert -1e-12 <= node.value <= max((below.reward for below in nodes(node)), default=0) + 1e-12
        assert node.expected == node.awaited == 0
        assert len(node.children) <= 2 and not (node.step.end and node.children)


@given(st.floats(0, 1), st.integers(1, 14))
def test_equal_rewards_are_explored_breadth_first(reward: float, count: int) -> None:
    tree = Tree(exploration=1.0, children=2)
    for number in range(count):
        node = tree.select()
        assert node is not None
        tree.add(node, Step(str(number).encode(), A), reward)
    depths = [node.depth for node in sorted(nodes(tree.root), key=lambda node: node.id)]
    assert depths == sorted(depths)


@given(st.lists(st.floats(0, 1), max_size=15), st.integers(0, 9))
def test_the_same_rewards_grow_the_same_tree(rewards: list[float], seed: int) -> None:
    def shape(node: Node) -> tuple[object, ...]:
        return (node.id, node.value, *map(shape, node.children))

    assert shape(explored(rewards, seed).root) == shape(explored(rewards, seed).root)
