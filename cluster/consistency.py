"""What has to fit together in a configuration: names, judges, methods and what their members can do.

Works on cards that are known before anything is loaded: an engine's kind says what its models can do, and an ensemble
can only generate. Knows nothing of files or lines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from typing import NamedTuple

from cluster.schema import Configuration, EnsembleConfig, ModelConfig
from deployments.engines.engine import CAPABILITIES, hosted
from deployments.engines.sources import ZooSource
from ensemble import heads, judges, zoo
from ensemble.ensemble import fan_out, problems
from ensemble.errors import ConfigurationError, EnsembleError, MemberLost
from ensemble.member import Capability, Card, HeadCard, Member
from ensemble.method import build, methods, named
from ensemble.request import Event, Request

_UNKNOWN_CONTEXT = 2**31
"""Stands for a context length that only the weights tell, so that no check refuses it too early."""


_NAMED = ("method", "members", "judge", "encoder")
"""Keys of an ensemble that problems name; other names are of options, though a key may have the same one."""


class Mistake(NamedTuple):
    """One thing that does not fit."""

    path: tuple[str | int, ...]
    message: str


def mistakes(configuration: Configuration) -> Iterator[Mistake]:
    """Everything that does not fit together, in the order of the file."""
    for name, model in configuration.models.items():
        if isinstance(model.source, ZooSource) and model.source.zoo not in zoo.MEMBERS:
            yield Mistake(("models", name, "source", "zoo"), unknown("zoo member", model.source.zoo, zoo.MEMBERS))
    yield from _adapters(configuration)
    yield from _heads(configuration)
    for name in configuration.ensembles:
        if name in configuration.bases:
            yield Mistake(("ensembles", name), "a model has this name already; allowed: a name of its own")
    for name in configuration.judges:
        yield from _judge(configuration, name)
    for name, encoder in configuration.encoders.items():
        if isinstance(encoder.source, ZooSource) and encoder.source.zoo not in zoo.MEMBERS:
            yield Mistake(("encoders", name, "source", "zoo"), unknown("zoo member", encoder.source.zoo, zoo.MEMBERS))
    for name in configuration.ensembles:
        yield from _references(configuration, name)
        yield from _cycle(configuration, name)
        yield from _fit(configuration, name)


def _adapters(configuration: Configuration) -> Iterator[Mistake]:
    """A mistake for every adapter whose name is a model's or another adapter's."""
    taken = set(configuration.models)
    for name, model in configuration.models.items():
        for adapter in model.adapters:
            if adapter in taken:
                message = "a model or adapter has this name already; allowed: a name of its own"
                yield Mistake(("models", name, "adapters", adapter), message)
            taken.add(adapter)


def _heads(configuration: Configuration) -> Iterator[Mistake]:
    """A mistake for every head that there is no class for, or that its model's engine cannot host."""
    for name, model in configuration.models.items():
        for head, config in model.heads.items():
            where = ("models", name, "heads", head, "kind")
            if config.kind not in heads.kinds():
                yield Mistake(where, unknown("kind of head", config.kind, heads.kinds()))
            elif config.kind not in hosted(model.engine):
                can = ", ".join(sorted(hosted(model.engine))) or "none"
                message = f"the engine {model.engine} cannot host heads of kind {config.kind}; it can host: {can}"
                yield Mistake(where, f"{message}, or use the engine transformers")


class _Unloaded(Member):
    """A model of which only the card is known; judges are built over it to see whether they can be."""

    def __init__(self, card: Card) -> None:
        self.card = card

    def generate(self, request: Request) -> AsyncIterator[Event]:
        raise MemberLost(f"{self.name} is not loaded", member=self.name)


def _judge(configuration: Configuration, name: str) -> Iterator[Mistake]:
    judge, where = configuration.judges[name], ("judges", name)
    if judge.kind not in judges.KINDS:
        yield Mistake((*where, "kind"), unknown("kind of judge", judge.kind, judges.KINDS))
        return
    bases = configuration.bases
    model = configuration.models[bases[judge.model]] if judge.model in bases else None
    if judge.model is not None and model is None:
        yield Mistake((*where, "model"), unknown("model", judge.model, bases))
        return
    try:
        known = None if judge.model is None or model is None else _Unloaded(card(judge.model, model))
        judges.build(judge.kind, name, judge.options, known)
    except ConfigurationError as error:
        at_model = error.param == "model" or error.member is not None
        key = ("model",) if at_model else ("options", *(error.param.split(".") if error.param else ()))
        yield Mistake((*where, *key), error.message)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A refusal of a name, with what is allowed and the nearest of it.

    >>> unknown("model", "smol", ["smollm", "adder"])
    "unknown model 'smol', did you mean 'smollm'?; allowed: adder, smollm"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {name!r}{hint}; allowed: {', '.join(names) or 'none, as there is none'}"


def card(name: str, model: ModelConfig) -> Card:
    """What is known of a model, or of an adapter of it, before it is loaded."""
    length = model.context_length or _UNKNOWN_CONTEXT
    resident = {head: HeadCard(config.kind) for head, config in model.heads.items()}
    return Card(name, CAPABILITIES[model.engine], length, price=model.price.value, heads=resident)


def _cards(configuration: Configuration, members: Iterable[str], known: dict[str, Card]) -> list[Card]:
    """Cards of those members that exist.

    Args:
        known: of ensembles, by name; those that are met are added.
    """
    bases = configuration.bases
    return [
        card(name, configuration.models[bases[name]]) if name in bases else _made(configuration, name, known)
        for name in members
        if name in bases or name in configuration.ensembles
    ]


def _made(configuration: Configuration, name: str, known: dict[str, Card]) -> Card:
    """What is known of an ensemble; of one that has mistakes of its own no more than that it can generate."""
    if name not in known:
        ensemble = configuration.ensembles[name]
        # Stands in while its members are looked at, so that one which contains itself is not followed for ever.
        made = known[name] = Card(name, frozenset({Capability.GENERATE}), _UNKNOWN_CONTEXT, depth=1)
        cards = _cards(configuration, ensemble.members, known)
        made = replace(made, depth=1 + max((member.depth for member in cards), default=0))
        with suppress(EnsembleError):
            made = replace(made, fan_out=fan_out(build(ensemble.method, ensemble.options), cards))
        known[name] = made
    return known[name]


def _references(configuration: Configuration, name: str) -> Iterator[Mistake]:
    ensemble, where = configuration.ensembles[name], ("ensembles", name)
    known = {*configuration.bases, *configuration.ensembles} - {name}
    for i, member in enumerate(ensemble.members):
        if member != name and member not in known:
            yield Mistake((*where, "members", i), unknown("member", member, known))
    if ensemble.judge is not None and ensemble.judge not in configuration.judges:
        yield Mistake((*where, "judge"), unknown("judge", ensemble.judge, configuration.judges))
    if ensemble.encoder is not None:
        if ensemble.encoder not in configuration.encoders:
            yield Mistake((*where, "encoder"), unknown("encoder", ensemble.encoder, configuration.encoders))
        elif ensemble.method in methods() and not named(ensemble.method).takes_encoder:
            yield Mistake((*where, "encoder"), f"method {ensemble.method} reads no embeddings; leave encoder out")


def _cycle(configuration: Configuration, name: str) -> Iterator[Mistake]:
    """A mistake for every member through which an ensemble contains itself."""
    for i, member in enumerate(configuration.ensembles[name].members):
        if way := _way(configuration, member, name, set()):
            message = (
                f"the ensemble contains itself: {' → '.join((name, *way))}; allowed: members that do not lead back"
            )
            yield Mistake(("ensembles", name, "members", i), message)


def _way(configuration: Configuration, at: str, goal: str, seen: set[str]) -> tuple[str, ...]:
    """The ensembles from ``at`` to ``goal``; empty if there is no way around those seen."""
    if at == goal:
        return (at,)
    if at in seen or at not in configuration.ensembles:
        return ()
    seen.add(at)
    for member in configuration.ensembles[at].members:
        if way := _way(configuration, member, goal, seen):
            return (at, *way)
    return ()


def _fit(configuration: Configuration, name: str) -> Iterator[Mistake]:
    ensemble = configuration.ensembles[name]
    cards = _cards(configuration, ensemble.members, {})
    if any(_way(configuration, member, name, set()) for member in ensemble.members):
        # What contains itself has no size; that it does is told already.
        cards = [replace(card, fan_out=1, depth=0) for card in cards]
    caps, judged = ensemble.caps.value, ensemble.judge is not None
    # A rule on the members together cannot be checked while one of them is unknown.
    whole = len(cards) == len(ensemble.members)
    for problem in problems(ensemble.method, ensemble.options, cards, judge=judged, caps=caps, whole=whole):
        yield Mistake(("ensembles", name, *_key(ensemble, problem)), problem.message)


def _key(ensemble: EnsembleConfig, problem: ConfigurationError) -> tuple[str | int, ...]:
    """Where in the ensemble a problem stands."""
    if problem.member in ensemble.members:
        return ("members", ensemble.members.index(problem.member))
    if problem.param is None or problem.param in _NAMED:
        return (problem.param,) if problem.param else ()
    parts = problem.param.split(".")
    return tuple(parts) if parts[0] == "caps" else ("options", *parts)
