"""From the configuration to the Serve application: ``cluster.app:build`` is what Serve and KubeRay import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from ray import serve

from cluster.config import parse
from cluster.schema import Configuration, DriverResources, EnsembleConfig, ModelConfig, Resources
from deployments import driver, ingress, model
from deployments.driver import EnsembleSettings, JudgeSettings
from deployments.engines.settings import Limits, ModelSettings
from deployments.gateway import Limits as HttpLimits
from deployments.ingress import Listing


class Arguments(BaseModel):
    """Arguments of the application builder."""

    config: dict[str, Any]
    """The configuration, as ``Configuration.as_dict`` writes it."""


def build(arguments: Arguments) -> serve.Application:
    """Every model, every ensemble over them, and the gateway over both."""
    configuration = parse(arguments.config)
    served = {name: _model(name, config) for name, config in configuration.models.items()}
    for name in in_order(configuration):
        served[name] = _ensemble(configuration, name, served)
    listings = {name: _listing(configuration, name) for name in (*configuration.models, *configuration.ensembles)}
    gateway = configuration.gateway
    limits = HttpLimits(body_bytes=gateway.max_body_bytes, choices=gateway.max_choices)
    return ingress.deploy(listings, served, limits, replicas=gateway.replicas, actor=actor_options(gateway.resources))


def in_order(configuration: Configuration) -> list[str]:
    """Ensembles, each after those that it contains. A checked configuration has no cycles."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for member in configuration.ensembles[name].members:
            if member in configuration.ensembles and member not in ordered:
                visit(member)
        if name not in ordered:
            ordered.append(name)

    for name in configuration.ensembles:
        visit(name)
    return ordered


def settings_of(name: str, config: ModelConfig) -> ModelSettings:
    """What a replica of the model needs to know."""
    limits = Limits(prefill_chunk=config.prefill_chunk, idle_seconds=config.idle_seconds)
    return ModelSettings(
        name=name,
        source=config.source,
        engine=config.engine,
        dtype=config.dtype,
        device=config.device,
        context_length=config.context_length,
        slots=config.sessions,
        threads=config.threads,
        limits=limits,
        price=config.price.value,
        chat_template=config.chat_template,
    )


def actor_options(resources: DriverResources) -> dict[str, Any]:
    """Resources of one replica in Ray's words."""
    options: dict[str, Any] = {"num_cpus": resources.cpus, "resources": dict(resources.custom)}
    if resources.memory is not None:
        options["memory"] = resources.memory
    if isinstance(resources, Resources):
        options["num_gpus"] = resources.gpus
        if resources.accelerator_type is not None:
            options["accelerator_type"] = resources.accelerator_type
    return options


def _model(name: str, config: ModelConfig) -> serve.Application:
    return model.deploy(settings_of(name, config), replicas=config.replicas, actor=actor_options(config.resources))


def _ensemble(configuration: Configuration, name: str, served: Mapping[str, serve.Application]) -> serve.Application:
    config = configuration.ensembles[name]
    judge = configuration.judges[config.judge] if config.judge is not None else None
    settings = EnsembleSettings(
        name=name,
        method=config.method,
        options=config.options,
        caps=config.caps.value,
        budget=config.budget.value,
        judge=JudgeSettings(name=str(config.judge), kind=judge.kind, options=judge.options) if judge else None,
    )
    judge_model = served[judge.model] if judge is not None and judge.model is not None else None
    members = [served[member] for member in config.members]
    return driver.deploy(
        settings, members, judge_model, replicas=config.replicas, actor=actor_options(config.resources)
    )


def _listing(configuration: Configuration, name: str) -> Listing:
    ensemble: EnsembleConfig | None = configuration.ensembles.get(name)
    return Listing(ensemble.method, ensemble.members) if ensemble is not None else Listing()
