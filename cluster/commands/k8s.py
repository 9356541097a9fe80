"""``ensemble k8s``: the configuration as Kubernetes objects."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from cluster.commands.configuration import Refused, configuration_file, loaded
from cluster.kubernetes import render, text
from cluster.pods import Target
from ensemble.errors import ConfigurationError


@click.group()
def k8s() -> None:
    """Run on Kubernetes through KubeRay."""


@k8s.command("render")
@configuration_file
@click.option("--image", help="Image with this package. Omitted: ray-ensemble:VERSION.")
@click.option("--namespace", default="default", show_default=True, help="Namespace of the objects.")
@click.option(
    "--pod-cpus", default=8, show_default=True, type=click.IntRange(min=1), help="Cores of a pod without GPUs."
)
@click.option(
    "--gpu-node-selector",
    "selectors",
    multiple=True,
    metavar="[TYPE:]LABEL=VALUE",
    help="Node label of GPU pods, of all or of one accelerator type; repeatable.",
)
@click.option(
    "--batch",
    metavar="ARGUMENTS",
    help="Add a RayJob that runs `ensemble batch FILE ARGUMENTS`, such as "
    "'--ensemble NAME --input /data/questions.parquet --output /data/answers'.",
)
@click.option("--data-claim", metavar="NAME", help="PersistentVolumeClaim that the RayJob finds under /data.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder to write one file each into.")
def render_command(
    file: Path,
    image: str | None,
    namespace: str,
    pod_cpus: int,
    selectors: tuple[str, ...],
    batch: str | None,
    data_claim: str | None,
    output: Path | None,
) -> None:
    """Print the Kubernetes objects for a configuration FILE, or write them into a folder.

    Pods are sized so that every replica has a place.
    """
    if data_claim is not None and batch is None:
        raise click.UsageError("--data-claim is for the RayJob; give --batch too")
    target = Target(
        namespace=namespace, pod_cpus=pod_cpus, gpu_node_selectors=_selectors(selectors), data_claim=data_claim
    )
    target = replace(target, image=image) if image else target
    try:
        objects = render(loaded(file), target, batch=shlex.split(batch or ""))
    except ConfigurationError as error:
        raise Refused(error.message) from error
    if output is None:
        click.echo(text(objects), nl=False)
        return
    output.mkdir(parents=True, exist_ok=True)
    for item in objects:
        path = output / f"{item['kind'].lower()}.yaml"
        path.write_text(text([item]), encoding="utf-8")
        click.echo(path)


def _selectors(given: Iterable[str]) -> dict[str, dict[str, str]]:
    """By accelerator type, ``""`` for all."""
    selectors: dict[str, dict[str, str]] = {}
    for selector in given:
        label, separator, value = selector.partition("=")
        type_, colon, key = label.rpartition(":")
        if not separator or not key or (colon and not type_):
            raise click.BadParameter(f"{selector!r} is not [TYPE:]LABEL=VALUE", param_hint="--gpu-node-selector")
        selectors.setdefault(type_, {})[key] = value
    return selectors
