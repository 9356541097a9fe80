"""From the options of ``ensemble fit`` to a fit of routers, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from cluster.app import encoder_settings
from cluster.commands.common import options_of, table
from cluster.commands.configuration import loaded
from ensemble.before.knobs import Knob
from ensemble.before.policies import Policy, policy
from ensemble.before.routing.method import Routing
from ensemble.errors import BadRequest
from ensemble.method import methods
from jobs.fitting import words
from jobs.fitting.routers import Order, Served, run
from jobs.fitting.routers import add as added


def named(method: str | None, several: str | None, others: Sequence[str]) -> Mapping[str, type[Routing]]:
    """The routers that are wanted.

    Args:
        several: names with commas, or ``all``, where no single one is named.
        others: names of methods that are fitted in another way, for the message.

    Raises:
        BadRequest: there is no such router.
    """
    known = {name: cls for name, cls in methods().items() if issubclass(cls, Routing)}
    wanted = [method] if method is not None else [name.strip() for name in (several or "").split(",") if name.strip()]
    if wanted == ["all"] and method is None:
        return known
    if strange := [name for name in wanted if name not in known]:
        there = ", ".join((*known, *others) if method is not None else known)
        raise BadRequest(f"nothing is fitted for {', '.join(strange)}; allowed: {there}", param="method")
    return {name: known[name] for name in wanted}


def fit(routers: Mapping[str, type[Routing]], file: Path, given: Mapping[str, Any]) -> None:
    """Fit routers and print what became of them."""
    report = run(_order(routers, file, given), lambda name: click.echo(name, err=True))
    table(*words.quality(report))
    for finding in words.findings(report):
        click.echo(finding)
    if report.encoder == "features":
        click.echo("embeddings came with the table: serve the encoder that made them, and name it in `encoder`")
    click.echo(words.snippet(report))


def add(routers: Mapping[str, type[Routing]], file: Path, given: Mapping[str, Any]) -> None:
    """Add a member to a router and print who is in it now."""
    (name,) = routers
    if given["source"] is None:
        raise click.UsageError("--add-member needs --from, the folder of the router")
    member = given["add_member"]
    router, count = added(name, member, given["source"], given["outcomes"], given["output"], _served(file))
    click.echo(f"{given['output']}: {', '.join(router.members)}")
    known = (
        f"was learned from {count} outcomes" if count else "has no outcome with a quality: it counts as a mean member"
    )
    click.echo(f"{member} {known}")


def _order(routers: Mapping[str, type[Routing]], file: Path, given: Mapping[str, Any]) -> Order:
    return Order(
        routers=routers,
        outcomes=given["outcomes"],
        output=given["output"],
        members=tuple(name.strip() for name in (given["members"] or "").split(",") if name.strip()),
        encoder=given["encoder"],
        served=_served(file),
        policy=_policy(given["policy"]),
        knob=_knob(given),
        options=options_of(given["options"]),
        split=given["split"],
        seed=given["seed"],
        feedback=given["feedback"],
    )


def _policy(text: str | None) -> Policy | None:
    if text is None:
        return None
    try:
        return policy(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise BadRequest("--policy is no YAML; allowed: a mapping such as '{kind: utility, price: 2}'") from error


def _knob(given: Mapping[str, Any]) -> Knob | None:
    named = [name for name in ("share", "budget", "drop") if given[name] is not None]
    if len(named) > 1:
        raise click.UsageError(f"{', '.join(f'--{name}' for name in named)}: a policy keeps one of them")
    return Knob(named[0], given[named[0]]) if named else None  # type: ignore[arg-type]


def _served(file: Path) -> Served:
    def embed(name: str, texts: Sequence[str]) -> tuple[np.ndarray, str]:
        configuration = loaded(file)
        if name not in configuration.encoders:
            there = ", ".join(("tfidf", "features", *configuration.encoders))
            raise BadRequest(f"no encoder is named {name!r} in {file}; allowed: {there}", param="encoder")
        # Imports torch.
        from deployments.engines.encoding import TextEncoder

        encoder = TextEncoder.load(encoder_settings(name, configuration.encoders[name]))
        return encoder.embed(texts), encoder.identity

    return embed
