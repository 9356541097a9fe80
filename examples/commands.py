"""What the examples share: ``ensemble`` commands, run as they would be typed, and a port to serve on."""

from __future__ import annotations

from socket import socket

import click

from cluster import cli


def run(*command: str) -> None:
    """An ``ensemble`` command, as it would be typed, in this process: so it finds what is served from here."""
    print("$ ensemble", *command, flush=True)
    try:
        cli.main(command, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from error


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
