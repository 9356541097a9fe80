"""From the configuration to the Serve application: ``cluster.app:build`` is what Serve and KubeRay import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from ray import serve

from cluster.config import parse
from cluster.plan import Deployment, plan
from cluster.schema import Configuration, EncoderConfig, EnsembleConfig, HeadConfig, JudgeConfig, ModelConfig
from deployments import driver, embedder, feedback, ingress, model
from deployments.admission import reserve
from deployments.driver import EnsembleSettings, JudgeSettings
from deployments.engines.settings import EncoderSettings, HeadSettings, Limits, ModelSettings
from deployments.gateway import Limits as HttpLimits
from deployments.ingress import Listing
from deployments.placement import Placement
from deployments.routing import Help
from ensemble import artifacts
from ensemble.method import named


class Arguments(BaseModel):
    """Arguments of the application builder."""

    config: dict[str, Any]
    """The configuration, as ``Configuration.as_dict`` writes it."""
    prefer: dict[str, dict[str, str]] = {}
    """Labels of the nodes to try first, by deployment. Omitted: any node with room."""
    per_node: dict[str, int] = {}
    """Most replicas on one node, by deployment. Omitted: any number."""
    spare: list[str] = []
    """Deployments of which there is room for one more replica, so that a new version comes up before the old one goes.
    Omitted: of none."""


def build(arguments: Arguments) -> serve.Application:
    """Every model, every ensemble over them, and the gateway over both."""
    configuration = parse(arguments.config)
    placed = placements(arguments, configuration)
    grace = configuration.gateway.grace_seconds
    models = {
        name: model.deploy(
            settings_of(name, config), replicas=config.replicas, placement=placed[f"model-{name}"], grace=grace
        )
        for name, config in configuration.models.items()
    }
    served = {name: models[base] for name, base in configuration.bases.items()}
    help = _help(configuration, placed)
    for name in in_order(configuration):
        served[name] = _ensemble(configuration, name, served, placed[f"ensemble-{name}"], help)
    listings = {name: _listing(configuration, name) for name in (*configuration.bases, *configuration.ensembles)}
    gateway = configuration.gateway
    limits = HttpLimits(body_bytes=gateway.max_body_bytes, choices=gateway.max_choices)
    return ingress.deploy(
        listings,
        served,
        limits,
        replicas=gateway.replicas,
        placement=placed["gateway"],
        grace=grace,
    )


def _help(configuration: Configuration, placed: Mapping[str, Placement]) -> Help:
    """What routers may ask."""
    grace = configuration.gateway.grace_seconds
    encoders = {
        name: embedder.deploy(
            encoder_settings(name, config), replicas=config.replicas, placement=placed[f"encoder-{name}"], grace=grace
        )
        for name, config in configuration.encoders.items()
    }
    config = configuration.feedback
    keeper = feedback.deploy(config.path, placement=placed["feedback"], grace=grace) if config is not None else None
    return Help(encoders, keeper)


def encoder_settings(name: str, config: EncoderConfig) -> EncoderSettings:
    """What a replica of the encoder needs to know; a fit loads the same."""
    return EncoderSettings(
        name=name,
        source=config.source,
        pooling=config.pooling,
        max_tokens=config.max_tokens,
        device=config.device,
        threads=config.threads,
        batch=config.batch,
        remembered=config.remembered,
    )


def _for(configuration: Configuration, name: str, help: Help) -> Help | None:
    """What the ensemble's router may ask; which encoder it needs its artifact may say, which need not be here."""
    config = configuration.ensembles[name]
    if not routes(config):
        return None
    chosen = help.encoders if config.encoder is None else {config.encoder: help.encoders[config.encoder]}
    return Help(chosen if named(config.method).takes_encoder else {}, help.keeper)


def routes(config: EnsembleConfig) -> bool:
    """Whether a few of the members answer, chosen for each question."""
    return not named(config.method).joint


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
    limits = Limits(
        prefill_chunk=config.prefill_chunk,
        run_ahead=config.run_ahead,
        requests=config.sessions + config.queue,
        idle_seconds=config.idle_seconds,
    )
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
        engine_options=config.engine_options,
        tensor_parallel=config.tensor_parallel,
        pipeline_parallel=config.pipeline_parallel,
        gpu_share=min(config.reserved.gpus, 1.0) or 1.0,
        adapters=config.adapters,
        heads={name: _head(head) for name, head in config.heads.items()},
    )


def _head(config: HeadConfig) -> HeadSettings:
    # On a machine that only renders manifests the artifact need not be there.
    there = config.path.is_dir()
    return HeadSettings(config.kind, config.path, artifacts.digest(config.path) if there else "")


def placements(arguments: Arguments, configuration: Configuration) -> dict[str, Placement]:
    """What one replica of each deployment reserves, and on which nodes."""
    return {
        d.served_as: placement(
            d,
            arguments.prefer.get(d.served_as, {}),
            arguments.per_node.get(d.served_as),
            d.served_as in arguments.spare,
        )
        for d in plan(configuration).deployments
    }


def placement(
    deployment: Deployment, prefer: Mapping[str, str], per_node: int | None = None, spare: bool = False
) -> Placement:
    """What one replica reserves, and on which nodes, in Ray's words."""
    return Placement(
        amounts=deployment.bundle,
        pieces=deployment.bundles,
        labels=deployment.labels,
        prefer=prefer,
        per_node=per_node,
        spare=spare,
    )


def _ensemble(
    configuration: Configuration, name: str, served: Mapping[str, serve.Application], placed: Placement, help: Help
) -> serve.Application:
    config = configuration.ensembles[name]
    judge = configuration.judges[config.judge] if config.judge is not None else None
    settings = EnsembleSettings(
        name=name,
        method=config.method,
        members=config.members,
        places=places(configuration, name),
        options=config.options,
        caps=config.caps.value,
        budget=config.budget.value,
        judge=_judge(str(config.judge), judge) if judge is not None else None,
        encoder=config.encoder,
        queue=config.queue,
        policy=config.policy.value,
    )
    asked = {*config.members, *([judge.model] if judge is not None and judge.model is not None else [])}
    return driver.deploy(
        settings,
        {member: served[member] for member in sorted(asked)},
        replicas=config.replicas,
        placement=placed,
        grace=configuration.gateway.grace_seconds,
        help=_for(configuration, name, help),
    )


def places(configuration: Configuration, name: str) -> int | None:
    """Choices that one driver of the ensemble works on at once: as many as its scarcest member has places for; where
    one member answers, as many as all together.

    ``None`` if all its members are ensembles, which have drivers of their own.
    """
    ensemble = configuration.ensembles[name]
    seats = Counter(configuration.bases[member] for member in ensemble.members if member in configuration.bases)
    models = {base: configuration.models[base] for base in seats}
    free = [(m.sessions - reserve(m.sessions)) * m.replicas // seats[base] for base, m in models.items()]
    together = sum if routes(ensemble) else min
    return max(1, together(free) // ensemble.replicas) if free else None


def _judge(name: str, config: JudgeConfig) -> JudgeSettings:
    return JudgeSettings(name=name, kind=config.kind, model=config.model, options=config.options)


def _listing(configuration: Configuration, name: str) -> Listing:
    ensemble: EnsembleConfig | None = configuration.ensembles.get(name)
    if ensemble is None:
        return Listing()
    judge = configuration.judges[ensemble.judge].model if ensemble.judge is not None else None
    least = ensemble.policy.value.least(len(ensemble.members), joint=not routes(ensemble))
    kept = routes(ensemble) and configuration.feedback is not None
    return Listing(ensemble.method, ensemble.members, least, judge, kept)
