"""The resolved plan: which deployments a configuration becomes, and what each of them reserves.

A pure function of the configuration: nothing is loaded or started. ``ensemble check`` shows it, ``cluster.kubernetes``
sizes machines by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cluster.schema import Configuration, DriverResources, EnsembleConfig, Hosted, JudgeConfig
from ensemble.judges import KINDS
from ensemble.method import build

Role = Literal["model", "encoder", "ensemble", "feedback", "gateway"]
SINGLE = ("gateway", "feedback")
"""Roles of which there is one deployment."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment; amounts are for one replica."""

    name: str
    role: Role
    replicas: int
    cpus: float
    gpus: float = 0.0
    memory: int | None = None
    """Bytes; ``None``: none reserved."""
    accelerator_type: str | None = None
    custom: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """Selector by label that its nodes have to satisfy."""
    pieces: int = 1
    """Equal pieces of one replica, each on one node: the stages of a pipeline."""
    group: int = 1
    """GPUs of one piece; where there are several pieces, each is a bundle of its own, as each is for one worker."""

    @property
    def served_as(self) -> str:
        """Name of the Serve deployment."""
        return self.name if self.role in SINGLE else f"{self.role}-{self.name}"

    @property
    def piece(self) -> dict[str, float]:
        """What one piece reserves, by Ray's names; ``memory`` in bytes."""
        return {name: amount * (self.bundles // self.pieces) for name, amount in self.bundle.items()}

    @property
    def bundles(self) -> int:
        """Parts of one replica that Ray reserves together."""
        return self.pieces * self.group if self.pieces > 1 else 1

    @property
    def bundle(self) -> dict[str, float]:
        """What one of them reserves."""
        whole = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory or 0, **self.custom}
        # Ray counts in ten-thousandths, and bytes are whole.
        shares = {name: round(amount / self.bundles, 4) for name, amount in whole.items() if amount}
        if "memory" in shares:
            shares["memory"] = math.ceil(shares["memory"])
        kind = {} if self.accelerator_type is None else {f"accelerator_type:{self.accelerator_type}": 0.001}
        return shares | kind


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a configuration stands for, defaults filled in; JSON values only."""

    name: str
    models: dict[str, dict[str, Any]]
    judges: dict[str, dict[str, Any]]
    encoders: dict[str, dict[str, Any]]
    ensembles: dict[str, dict[str, Any]]
    feedback: dict[str, Any] | None
    gateway: dict[str, Any]
    deployments: tuple[Deployment, ...]

    @property
    def cpus(self) -> float:
        """CPU cores of all replicas."""
        return round(sum(d.replicas * d.cpus for d in self.deployments), 6)

    @property
    def gpus(self) -> float:
        """GPUs of all replicas."""
        return round(sum(d.replicas * d.gpus for d in self.deployments), 6)

    def as_dict(self) -> dict[str, Any]:
        """The plan with its totals."""
        return {**asdict(self), "total": {"cpus": self.cpus, "gpus": self.gpus}}


def plan(configuration: Configuration) -> Plan:
    """What a checked configuration becomes."""
    return Plan(
        name=configuration.name,
        models={name: _filled(model) for name, model in configuration.models.items()},
        judges={name: _judged(judge) for name, judge in configuration.judges.items()},
        encoders={name: _filled(encoder) for name, encoder in configuration.encoders.items()},
        ensembles={name: _resolved(ensemble) for name, ensemble in configuration.ensembles.items()},
        feedback=None if configuration.feedback is None else _filled(configuration.feedback),
        gateway=_filled(configuration.gateway),
        deployments=tuple(_deployments(configuration)),
    )


def _filled(part: Any) -> dict[str, Any]:
    filled: dict[str, Any] = part.model_dump(mode="json")
    return filled


def _judged(judge: JudgeConfig) -> dict[str, Any]:
    options = KINDS[judge.kind].Options.model_validate(judge.options)
    return {**_filled(judge), "options": options.model_dump(mode="json")}


def _resolved(ensemble: EnsembleConfig) -> dict[str, Any]:
    method = build(ensemble.method, ensemble.options)
    filled = _filled(ensemble)
    filled["options"] = method.options.model_dump(mode="json")
    filled["caps"]["options"] = {**method.caps, **ensemble.caps.options}
    return {**filled, "stage": method.stage.value, "paper": method.paper}


def _deployments(configuration: Configuration) -> Iterable[Deployment]:
    for name, model in configuration.models.items():
        yield _of_hosted(name, "model", model, pieces=model.pipeline_parallel, group=model.tensor_parallel)
    for name, encoder in configuration.encoders.items():
        yield _of_hosted(name, "encoder", encoder)
    for name, ensemble in configuration.ensembles.items():
        yield _of_driver(name, "ensemble", ensemble.replicas, ensemble.resources)
    if configuration.feedback is not None:
        yield _of_driver("feedback", "feedback", 1, configuration.feedback.resources)
    yield _of_driver("gateway", "gateway", configuration.gateway.replicas, configuration.gateway.resources)


def _of_hosted(name: str, role: Role, hosted: Hosted, **pieces: int) -> Deployment:
    r = hosted.reserved
    return Deployment(
        name=name,
        role=role,
        replicas=hosted.replicas,
        cpus=r.cpus,
        gpus=r.gpus,
        memory=r.memory,
        accelerator_type=r.accelerator_type,
        custom=dict(r.custom),
        labels=dict(r.labels),
        **pieces,
    )


def _of_driver(name: str, role: Role, replicas: int, r: DriverResources) -> Deployment:
    return Deployment(name, role, replicas, r.cpus, memory=r.memory, custom=dict(r.custom), labels=dict(r.labels))
