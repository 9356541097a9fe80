"""Which pods hold the deployments of a plan: groups of equal pods, sized and counted.

A pure function over amounts; knows nothing of Kubernetes objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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
        """What one replica takes."""
        return cls(deployment.cpus, deployment.gpus, deployment.memory or 0, dict(deployment.custom))

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
    """Names of the deployments whose replicas were put here."""


def groups(deployments: Iterable[Deployment], *, pod_cpus: int) -> list[Group]:
    """Groups with room for every replica.

    Replicas with GPUs share pods with those that want the same kind of GPU, the others with those that want the same
    custom resources. A pod has as many GPUs as its hungriest replica wants.

    Args:
        pod_cpus: cores of a pod without GPUs; more where one replica wants more.
    """
    kinds: dict[tuple[bool, str, tuple[str, ...]], list[Deployment]] = {}
    for deployment in deployments:
        kind = (deployment.gpus > 0, deployment.accelerator_type or "", tuple(sorted(deployment.custom)))
        kinds.setdefault(kind, []).append(deployment)
    return [_group(kinds[kind], pod_cpus) for kind in sorted(kinds)]


def _group(deployments: Sequence[Deployment], pod_cpus: int) -> Group:
    largest = Amounts()
    for deployment in deployments:
        largest |= Amounts.of(deployment)
    gpus = math.ceil(largest.gpus)
    limit = Amounts(math.inf if gpus else max(pod_cpus, math.ceil(largest.cpus)), gpus)
    pods = _packed([Amounts.of(d) for d in deployments for _ in range(d.replicas)], limit)
    room = Amounts()
    for pod in pods:
        room |= pod
    room = Amounts(math.ceil(room.cpus) if gpus else limit.cpus, gpus, room.memory, room.custom)
    return Group(deployments[0].accelerator_type, len(pods), room, tuple(d.name for d in deployments))


def _packed(replicas: Sequence[Amounts], limit: Amounts) -> list[Amounts]:
    """First fit, largest first: what each pod holds."""
    pods: list[Amounts] = []
    for replica in sorted(replicas, key=lambda r: (r.gpus, r.cpus), reverse=True):
        fits = (i for i, pod in enumerate(pods) if _within(pod + replica, limit))
        i = next(fits, None)
        if i is None:
            pods.append(replica)
        else:
            pods[i] += replica
    return pods


def _within(amounts: Amounts, limit: Amounts) -> bool:
    # Sums of fractions such as 0.1 are compared with a hair's breadth to spare.
    return amounts.cpus <= limit.cpus + 1e-9 and amounts.gpus <= limit.gpus + 1e-9
