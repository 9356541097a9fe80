"""``ensemble check``: the resolved plan of a configuration, or everything that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from cluster.commands.common import pairs, size, table
from cluster.commands.configuration import configuration_file, loaded
from cluster.plan import Plan, plan


@click.command()
@configuration_file
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def check(file: Path, as_json: bool) -> None:
    """Check a configuration FILE and print the plan it resolves to; nothing is loaded or started.

    Without FILE the packaged miniature models are checked. Exit status 2 if the configuration cannot be used.
    """
    resolved = plan(loaded(file))
    if as_json:
        click.echo(json.dumps(resolved.as_dict(), indent=2))
    else:
        _show(resolved)


def _show(resolved: Plan) -> None:
    click.echo(f"application {resolved.name}, served on {resolved.gateway['host']}:{resolved.gateway['port']}\n")
    _show_models(resolved)
    judges = [(name, j["kind"], j["model"] or "-", pairs(j["options"])) for name, j in resolved.judges.items()]
    table("Judges", ("name", "kind", "model", "options"), judges)
    _show_ensembles(resolved)
    rows = [
        (
            d.name,
            d.role,
            f"{d.replicas}",
            f"{d.cpus:g}",
            f"{d.gpus:g}",
            size(d.memory),
            _needs(d.accelerator_type, d.custom),
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


def _needs(accelerator_type: str | None, custom: Mapping[str, float]) -> str:
    return pairs({"accelerator_type": accelerator_type, **custom})
