"""What sub-commands that take a configuration share: the argument, reading it, refusing it."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import click

from cluster.config import ZOO, Configuration, load
from ensemble.errors import ConfigurationError

configuration_file = click.argument("file", default=ZOO, type=click.Path(path_type=Path), metavar="[FILE]")
"""The configuration file; the packaged miniature models where none is given."""


class Refused(click.ClickException):
    """The configuration cannot be used."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, err=True)


def loaded(file: Path) -> Configuration:
    """The configuration of a file.

    Raises:
        Refused: with every problem on a line of its own.
    """
    try:
        return load(file)
    except ConfigurationError as error:
        raise Refused(error.message) from error
