"""Which pods hold the deployments of a plan: groups of equal pods, sized and counted.

A pure function over amounts; knows nothing of Kubernetes objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from cluster.nodes import Room
from cluster.plan import Deployment

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Amounts:
    """What something takes, or what is left."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory: int = 0
    """Bytes."""
    custom: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, deployment: Deployment) -> Amounts:
        """What one piece of a replica takes."""
        piece = deployment.piece
        custom = {name: piece[name] for name in deployment.custom}
        return cls(piece.get("CPU", 0.0), piece.get("GPU", 0.0), math.ceil(piece.get("memory", 0)), custom)

    def __add__(self, other: Amounts) -> Amounts:
        names = {**self.custom, **other.custom}
        custom = {name: self.custom.get(name, 0) + other.custom.get(name, 0) for name in names}
        return Amounts(self.cpus + other.cpus, self.gpus + other.gpus, self.memory + other.memory, custom)

    def __or__(self, other: Amounts) -> Amounts:
        """The larger of each."""
        names = {**self.custom, **other.custom}
        custom = {name: max(self.custom.get(name, 0), other.custom.get(name, 0)) for name in names}
        return Amounts(max(self.cpus, other.cpus), max(self.gpus, other.gpus), max(self.memory, other.memory), custom)


@dataclass(frozen=True, slots=True)
class Group:
    """Equal pods."""

    accelerator_type: str | None
    """Ray's name for the GPUs; ``None``: no GPUs, or any kind."""
    pods: int
    room: Amounts
    """What the deployments on the fullest pod take, for each resource; whole CPUs and GPUs."""
    holds: tuple[str, ...]
    """Names under which the deployments are served whose replicas were put here."""
    labels: dict[str, str] = field(default_factory=dict)
    """By which the deployments select their nodes."""

    @property
    def name(self) -> str:
        """Unlike those of the other groups; at most 40 small letters, digits and hyphens, as it is in names of pods."""
        labels = [part for pair in sorted(self.labels.items()) for part in pair]
        kind = ["gpu" if self.room.gpus else "cpu", self.accelerator_type or "", *sorted(self.room.custom), *labels]
        name = "-".join(part for part in kind if part).lower()
        name = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
        return name if len(name) <= 40 else f"{name[:31].rstrip('-')}-{sha256(name.encode()).hexdigest()[:8]}"


def groups(deployments: Iterable[Deployment], *, pod_cpus: int) -> list[Group]:
    """Groups with room for every replica.

    Replicas with GPUs share pods with those that want the same kind of GPU, the others with those that want the same
    custom resources; all share them only with those that select nodes by the same labels. A pod has as many GPUs as its
    hungriest replica wants on one node.

    Args:
        pod_cpus: cores of a pod without GPUs; more where one replica wants more.
    """
    kinds: dict[tuple[object, ...], list[Deployment]] = {}
    for deployment in deployments:
        labels = tuple(sorted(deployment.labels.items()))
        kind = (deployment.gpus > 0, deployment.accelerator_type or "", tuple(sorted(deployment.custom)), labels)
        kinds.setdefault(kind, []).append(deployment)
    return [_group(kinds[kind], pod_cpus) for kind in sorted(kinds)]


def _group(deployments: Sequence[Deployment], pod_cpus: int) -> Group:
    largest = Amounts()
    for deployment in deployments:
        largest |= Amounts.of(deployment)
    gpus = math.ceil(largest.gpus)
    limit = Amounts(math.inf if gpus else max(pod_cpus, math.ceil(largest.cpus)), gpus)
    pods = _packed([Amounts.of(d) for d in deployments for _ in range(d.replicas * d.pieces)], limit)
    room = Amounts()
    for pod in pods:
        room |= pod
    room = Amounts(math.ceil(room.cpus) if gpus else limit.cpus, gpus, room.memory, room.custom)
    first = deployments[0]
    return Group(first.accelerator_type, len(pods), room, tuple(d.served_as for d in deployments), dict(first.labels))


def _packed(replicas: Sequence[Amounts], limit: Amounts) -> list[Amounts]:
    """First fit, largest first: what each pod holds."""
    empty = Room.of({"CPU": limit.cpus, "GPU": limit.gpus})
    pods: list[Amounts] = []
    rooms: list[Room] = []
    for replica in sorted(replicas, key=lambda r: (r.gpus, r.cpus), reverse=True):
        piece = {"CPU": replica.cpus, "GPU": replica.gpus}
        left = ((i, room) for i, pod in enumerate(rooms) for room in pod.without(piece))
        i, room = next(left, (len(pods), next(empty.without(piece))))
        pods[i:] = [pods[i] + replica if i < len(pods) else replica, *pods[i + 1 :]]
        rooms[i:] = [room, *rooms[i + 1 :]]
    return pods
