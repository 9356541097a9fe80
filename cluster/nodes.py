"""Nodes as amounts and labels, and what of them a piece of a replica takes. Knows no deployments and no Ray."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Amounts = Mapping[str, float]
"""By Ray's names: ``CPU``, ``GPU``, ``memory`` in bytes, and any other resource."""

HAIR = 1e-6
"""Sums of fractions such as 0.1 are compared with this to spare."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine."""

    id: str
    name: str
    """For people."""
    free: Amounts
    """What replicas may still take."""
    labels: Mapping[str, str] = field(default_factory=dict)
    has_gpus: bool = False
    """Whether it has GPUs at all, taken or not."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of a node while pieces are put on it."""

    amounts: Amounts
    gpus: tuple[float, ...]
    """What is left of each GPU, least first."""

    @classmethod
    def of(cls, free: Amounts) -> Room:
        """All of it. Which GPUs are shared is not known from outside: as few as possible are taken to be."""
        gpus = free.get("GPU", 0.0)
        part = gpus - math.floor(gpus + HAIR)
        whole = (1.0,) * math.floor(gpus + HAIR)
        return cls({k: v for k, v in free.items() if k != "GPU"}, (part, *whole) if part > HAIR else whole)

    def without(self, piece: Amounts) -> Iterator[Room]:
        """What is left beside a piece, for each way to choose its GPUs that makes a difference; fullest GPU first."""
        others = {name: amount for name, amount in piece.items() if name != "GPU"}
        if any(self.amounts.get(name, 0.0) + HAIR < amount for name, amount in others.items()):
            return
        left = {name: amount - others.get(name, 0.0) for name, amount in self.amounts.items()}
        for gpus in _taken(self.gpus, piece.get("GPU", 0.0)):
            yield Room(left, gpus)

    def lacks(self, piece: Amounts) -> dict[str, float]:
        """How much there is of each resource of which there is too little for the piece."""
        short = {n: self.amounts.get(n, 0.0) for n, v in piece.items() if n != "GPU"}
        short = {name: amount for name, amount in short.items() if amount + HAIR < piece[name]}
        if not list(_taken(self.gpus, piece.get("GPU", 0.0))):
            fraction = piece["GPU"] < 1
            short["GPU"] = max(self.gpus, default=0.0) if fraction else sum(g > 1 - HAIR for g in self.gpus)
        return short

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rooms that take the same pieces."""
        return (self.gpus, *((n, round(v, 6)) for n, v in sorted(self.amounts.items()) if v > HAIR))


def _taken(gpus: tuple[float, ...], wanted: float) -> Iterator[tuple[float, ...]]:
    """A fraction comes from one GPU; a whole number from so many that nobody shares."""
    if wanted >= 1:
        shared = [g for g in gpus if g < 1 - HAIR]
        whole = len(gpus) - len(shared)
        if whole + HAIR >= wanted:
            yield (*shared, *(1.0 for _ in range(whole - round(wanted))))
    elif wanted > 0:
        for gpu in dict.fromkeys(g for g in gpus if g + HAIR >= wanted):
            i = gpus.index(gpu)
            left = max(round(gpu - wanted, 6), 0.0)
            yield tuple(sorted((*gpus[:i], left, *gpus[i + 1 :])))
    else:
        yield gpus


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether labels satisfy a selector, as Ray reads it: a label that is not there is unlike every value.

    >>> matches({"zone": "a"}, {"zone": "in(a, b)"}), matches({}, {"zone": "!a"}), matches({}, {"zone": "a"})
    (True, True, False)
    """
    return all(_satisfied(labels.get(key), rule) for key, rule in selector.items())


def _satisfied(value: str | None, rule: str) -> bool:
    positive = rule.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", positive)
    values = [v.strip() for v in listed[1].split(",")] if listed else [positive]
    return (value in values) is (positive == rule)


def shown(amounts: Amounts) -> str:
    """Amounts for people.

    >>> shown({"CPU": 4.0, "GPU": 1.0, "memory": 2**31, "accelerator_type:H100": 0.001})
    '4 CPUs, 1 GPU, 2 GiB of memory, an H100'
    """
    return ", ".join(one(name, amount) for name, amount in amounts.items()) or "nothing"


def one(name: str, amount: float) -> str:
    """One amount for people."""
    if name in ("CPU", "GPU"):
        return f"{amount:g} {name}{'' if amount == 1 else 's'}"
    if name == "memory":
        return f"{amount / 2**30:.3g} GiB of memory"
    kind = name.removeprefix("accelerator_type:")
    if kind != name:
        return f"{'an' if kind[0] in 'AEFHILMNORSX' else 'a'} {kind}" if amount else f"no {kind}"
    return f"{amount:g} of {name}"
