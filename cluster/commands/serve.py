"""``ensemble serve``: bring a configuration up on a Ray cluster started here, or on one that is there already."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from cluster.commands.common import Failed, interruptible
from cluster.commands.configuration import configuration_file, loaded
from cluster.schema import Configuration
from ensemble.errors import EnsembleError


@click.command()
@configuration_file
@click.option("--host", help="Address to listen on; goes before the file's.")
@click.option("--port", type=click.IntRange(1, 65535), help="TCP port; goes before the file's.")
@click.option(
    "--address", metavar="ADDRESS", help="Ray cluster to run on; `auto` finds one here. Omitted: one is started."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Let replicas wait so long for nodes that an autoscaler adds. Omitted: refuse what there is no room for.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time that requests under way have at the end; goes before the file's. A second Ctrl-C ends it at once.",
)
@click.option("--detach", is_flag=True, help="Leave it running and return; only with --address.")
def serve(
    file: Path,
    host: str | None,
    port: int | None,
    address: str | None,
    wait: float | None,
    grace: float | None,
    detach: bool,
) -> None:
    """Serve a configuration FILE until Ctrl-C; without FILE, the packaged miniature models.

    At the end no new requests are taken, and those under way are answered.

    Exit status 2 if the configuration cannot be used, 1 if it cannot be brought up.
    """
    if detach and address is None:
        raise click.UsageError("--detach needs --address: a cluster started here ends with this command")
    if detach and grace is not None:
        raise click.UsageError("--grace is nothing with --detach: this command does not take down what it leaves")
    configuration = loaded(file)
    # Ray takes seconds to import; mistakes in the file are told before.
    from cluster import local

    progress = _Progress()
    try:
        if detach:
            _told(local.start(configuration, address=address, host=host, port=port, wait=wait, progress=progress))
            return
        running = local.running(configuration, address=address, host=host, port=port, wait=wait, progress=progress)
        # Twice: Ray has a handler of its own, which it puts in the place of ours when it starts.
        with interruptible(), running as url, interruptible():
            _told(url)
            _until_interrupted()
            left = local.drain(configuration, _grace(configuration, grace), _draining)
    except (EnsembleError, ConnectionError) as error:
        raise Failed(str(error)) from error
    except KeyboardInterrupt:
        click.echo("stopped at once")
    else:
        click.echo(f"stopped; requests cut off: {left}" if left else "stopped")


def _until_interrupted() -> None:
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _grace(configuration: Configuration, given: float | None) -> float:
    return configuration.gateway.grace_seconds if given is None else given


def _draining(requests: int) -> None:
    click.echo(f"no new requests are taken; under way: {requests}", err=True)


def _told(url: str) -> None:
    click.echo(f"serving at {url}")


class _Progress:
    """Tells on standard error what has become of each deployment since it was last called."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def __call__(self, states: Mapping[str, str]) -> None:
        for name, state in states.items():
            if self._states.get(name) != state:
                click.echo(f"{name}: {state.lower()}", err=True)
        self._states = dict(states)
