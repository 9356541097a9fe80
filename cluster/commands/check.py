"""``ensemble check``: the resolved plan of a configuration, or everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster.commands.common import Failed, pairs, size, table
from cluster.commands.configuration import configuration_file, loaded
from cluster.placing import Places, place
from cluster.plan import Deployment, Plan, plan
from cluster.schema import Configuration
from ensemble.errors import EnsembleError


@click.command()
@configuration_file
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--cluster",
    "address",
    metavar="ADDRESS",
    help="Ray cluster whose nodes must have room for the plan; `auto` finds one here. Omitted: no nodes are looked at.",
)
def check(file: Path, as_json: bool, address: str | None) -> None:
    """Check a configuration FILE and print the plan it resolves to; nothing is loaded or started.

    Without FILE the packaged miniature models are checked. Exit status 2 if the configuration cannot be used, 1 if the
    cluster is not there or has no room for it.
    """
    configuration = loaded(file)
    resolved = plan(configuration)
    places = _places(configuration, address) if address is not None else None
    if as_json:
        click.echo(json.dumps(resolved.as_dict() | ({} if places is None else {"places": places}), indent=2))
        return
    _show(resolved)
    if places is not None:
        table("Places", ("deployment", "nodes"), [(name, ", ".join(ids)) for name, ids in places.items()])


def _places(configuration: Configuration, address: str) -> Places:
    # Ray takes seconds to import; mistakes in the file are told before.
    from cluster import census, local

    try:
        local.attach(configuration, address)
        nodes = census.nodes(configuration.name)
        current = census.places(configuration.name)
        return place(plan(configuration).deployments, nodes, current=current)
    except (EnsembleError, ConnectionError) as error:
        raise Failed(str(error)) from error


def _show(resolved: Plan) -> None:
    click.echo(f"application {resolved.name}, served on {resolved.gateway['host']}:{resolved.gateway['port']}\n")
    _show_models(resolved)
    judges = [(name, j["kind"], j["model"] or "-", pairs(j["options"])) for name, j in resolved.judges.items()]
    table("Judges", ("name", "kind", "model", "options"), judges)
    encoders = [(name, *(str(e[key]) for key in ("pooling", "max_tokens"))) for name, e in resolved.encoders.items()]
    table("Encoders", ("name", "pooling", "max tokens"), encoders)
    _show_ensembles(resolved)
    rows = [
        (
            d.name,
            d.role,
            f"{d.replicas}",
            f"{d.cpus:g}",
            f"{d.gpus:g}",
            size(d.memory),
            _needs(d),
        )
        for d in resolved.deployments
    ]
    table(
        "Deployments (amounts for one replica)", ("name", "role", "replicas", "CPUs", "GPUs", "memory", "needs"), rows
    )
    click.echo(f"in all {resolved.cpus:g} CPUs and {resolved.gpus:g} GPUs")


def _show_models(resolved: Plan) -> None:
    rows = [
        (name, model["engine"], pairs(model["source"]), model["dtype"], model["device"], f"{model['replicas']}")
        for name, model in resolved.models.items()
    ]
    table("Models", ("name", "engine", "source", "dtype", "device", "replicas"), rows)


def _show_ensembles(resolved: Plan) -> None:
    rows = [
        (
            name,
            f"{e['method']} ({e['stage']})",
            ", ".join(e["members"]),
            pairs(e["options"]),
            e["judge"] or "-",
            pairs({"n": e["caps"]["n"], "max_tokens": e["caps"]["max_tokens"], **e["caps"]["options"]}),
            pairs(e["budget"]),
        )
        for name, e in resolved.ensembles.items()
    ]
    table("Ensembles", ("name", "method", "members", "options", "judge", "caps", "budget"), rows)


def _needs(deployment: Deployment) -> str:
    stages = deployment.pieces if deployment.pieces > 1 else None
    known = {"accelerator_type": deployment.accelerator_type, "stages": stages}
    return pairs({**known, **deployment.custom, **deployment.labels})
