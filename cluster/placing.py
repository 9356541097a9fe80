"""Which nodes hold the replicas of a plan, or what is missing: bin packing, whole before anything is started.

A pure function over deployments and nodes. GPUs are told apart: two fractions share one only if they fit on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.nodes import Amounts, Node, Room, matches, one, shown
from cluster.plan import Deployment
from ensemble.errors import ConfigurationError

Places = dict[str, tuple[str, ...]]
"""Ids of the nodes of each deployment, by the name it is served under; one for each piece of each replica."""

STEPS = 20_000
"""Tries of a piece on a node after which the search for a place for everything is given up."""


class Unplaceable(ConfigurationError):
    """No node, or not all nodes together, can hold what was asked for; the message says what is missing."""

    code = "unplaceable"


class _Piece(NamedTuple):
    deployment: Deployment
    replica: int


class _GivenUp(Exception):
    """The search took too long."""


def place(
    deployments: Iterable[Deployment], nodes: Sequence[Node], *, current: Mapping[str, Collection[str]] | None = None
) -> Places:
    """A node for every piece of every replica.

    Replicas stay where they are, go to nodes without GPUs if they need none, and to different nodes where that leaves
    room for everything.

    Args:
        current: ids of the nodes where replicas run already, by the name the deployment is served under.

    Returns:
        Places for everything; none at all if the search was given up without an answer.

    Raises:
        Unplaceable: there is no way, which was proven.
    """
    wanted = list(deployments)
    if problems := [p for d in wanted if (p := _alone(d, nodes)) is not None]:
        raise Unplaceable("\n".join(problems))
    pieces = _ordered(wanted, nodes)
    selecting = {key for d in wanted for key in d.labels}
    for spread in (True, False):
        search = _Search(nodes, current or {}, selecting, spread)
        try:
            if search.fits(pieces, 0):
                return search.places()
        except _GivenUp:
            continue
        raise Unplaceable(_together(wanted, nodes, pieces[search.deepest], search))
    return {}


def _ordered(deployments: Sequence[Deployment], nodes: Sequence[Node]) -> list[_Piece]:
    """Pieces with the fewest nodes to choose from first, then the largest."""

    def rank(d: Deployment) -> tuple[float, ...]:
        choice = sum(matches(n.labels, d.labels) and bool(list(Room.of(n.free).without(d.piece))) for n in nodes)
        return (choice, -d.piece.get("GPU", 0), -d.piece.get("CPU", 0), -d.piece.get("memory", 0))

    ordered = sorted(deployments, key=rank)
    return [_Piece(d, replica) for d in ordered for replica in range(d.replicas) for _ in range(d.pieces)]


@dataclass
class _Search:
    """Depth first, best node first; nodes that are alike are tried once."""

    nodes: Sequence[Node]
    current: Mapping[str, Collection[str]]
    selecting: Collection[str]
    """Labels by which any deployment selects nodes."""
    spread: bool
    deepest: int = 0
    left: list[Room] = field(default_factory=list)
    """What each node had left where the search came deepest."""
    _rooms: list[Room] = field(init=False)
    _put: list[tuple[_Piece, int]] = field(default_factory=list)
    _failed: set[tuple[object, ...]] = field(default_factory=set)
    _steps: int = 0

    def __post_init__(self) -> None:
        self._rooms = [Room.of(node.free) for node in self.nodes]
        self.left = list(self._rooms)

    def places(self) -> Places:
        found: dict[str, list[str]] = {}
        for piece, i in self._put:
            found.setdefault(piece.deployment.served_as, []).append(self.nodes[i].id)
        return {name: tuple(ids) for name, ids in found.items()}

    def fits(self, pieces: Sequence[_Piece], at: int) -> bool:
        """Whether all pieces from there on have places beside those that are put."""
        if at > self.deepest:
            self.deepest, self.left = at, list(self._rooms)
        if at == len(pieces):
            return True
        state = (at, *sorted(((self._kind(i), room.key) for i, room in enumerate(self._rooms)), key=repr))
        if state in self._failed:
            return False
        for i, room in self._ways(pieces[at]):
            before, self._rooms[i] = self._rooms[i], room
            self._put.append((pieces[at], i))
            if self.fits(pieces, at + 1):
                return True
            self._put.pop()
            self._rooms[i] = before
        self._failed.add(state)
        return False

    def _ways(self, piece: _Piece) -> Iterator[tuple[int, Room]]:
        tried = set()
        for i in sorted(range(len(self.nodes)), key=lambda i: self._rank(piece, i)):
            alike = (self._kind(i), self._rooms[i].key)
            if alike in tried or not matches(self.nodes[i].labels, piece.deployment.labels):
                continue
            tried.add(alike)
            for room in self._rooms[i].without(piece.deployment.piece):
                self._steps += 1
                if self._steps > STEPS:
                    raise _GivenUp
                yield i, room

    def _kind(self, i: int) -> tuple[tuple[str, str], ...]:
        """Those labels by which nodes are selected."""
        return tuple(sorted((k, v) for k, v in self.nodes[i].labels.items() if k in self.selecting))

    def _rank(self, piece: _Piece, i: int) -> tuple[float, ...]:
        node, needs = self.nodes[i], piece.deployment.piece
        same = [p for p, at in self._put if at == i and p.deployment is piece.deployment]
        beside = sum(p.replica == piece.replica for p in same)
        return (
            node.id not in self.current.get(piece.deployment.served_as, ()),
            node.has_gpus and not needs.get("GPU"),
            -beside,
            len(same) if self.spread else 0,
            sum(self._rooms[i].gpus),
            self._rooms[i].amounts.get("CPU", 0.0),
        )


def _alone(deployment: Deployment, nodes: Sequence[Node]) -> str | None:
    """Why not even one replica of the deployment has a place on empty nodes, if so."""
    piece = deployment.piece
    fitting = [node for node in nodes if matches(node.labels, deployment.labels)]
    if any(list(Room.of(node.free).without(piece)) for node in fitting):
        return None
    asked = f"{deployment.served_as}: one {_unit(deployment)} needs {shown(piece)} on one node"
    if not fitting:
        rules = ", ".join(f"{key}: {rule}" for key, rule in deployment.labels.items())
        return f"{asked}; none of the {len(nodes)} nodes has the labels {rules}"
    return f"{asked}; {_closest(piece, [(node.name, Room.of(node.free)) for node in fitting])}"


def _unit(deployment: Deployment) -> str:
    return "replica" if deployment.pieces == 1 else f"of the {deployment.pieces} stages of a replica"


def _closest(piece: Amounts, rooms: Sequence[tuple[str, Room]]) -> str:
    """What the node that comes closest is short of."""

    def lack(at: tuple[str, Room]) -> tuple[float, float]:
        short = at[1].lacks(piece)
        return len(short), sum(1 - amount / piece[name] for name, amount in short.items())

    name, room = min(rooms, key=lack)
    # A node may have too little of nothing, and yet no GPU of which enough is left.
    return f"the best of {len(rooms)}, {name}, has {' and '.join(one(n, v) for n, v in room.lacks(piece).items())} free"


def _together(deployments: Sequence[Deployment], nodes: Sequence[Node], stuck: _Piece, search: _Search) -> str:
    piece = stuck.deployment.piece
    names = {name for d in deployments for name in d.piece if not name.startswith("accelerator_type:")}
    needed = {n: sum(d.piece.get(n, 0) * d.pieces * d.replicas for d in deployments) for n in sorted(names)}
    free = {n: sum(node.free.get(n, 0) for node in nodes) for n in needed}
    rooms = [
        (node.name, room)
        for node, room in zip(nodes, search.left, strict=True)
        if matches(node.labels, stuck.deployment.labels)
    ]
    return (
        f"there is not room for everything: in all {shown(needed)} are needed, and {shown(free)} are free on "
        f"{len(nodes)} nodes; {stuck.deployment.served_as}: one {_unit(stuck.deployment)} needs {shown(piece)} on one "
        f"node, and beside the others {_closest(piece, rooms)}"
    )
