"""What sub-commands share: reading options, printing tables, failing, ending politely. Imports nothing slow."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 200
"""Columns of a table that does not go to a terminal."""


class Failed(click.ClickException):
    """The server refused, failed or was not there."""

    exit_code = 1


def options_of(given: Iterable[str]) -> dict[str, Any]:
    """Options given as KEY=VALUE; values are read as YAML, so that numbers, lists and truth values can be given.

    >>> options_of(["topk=5", "weights=[1, 2]"])
    {'topk': 5, 'weights': [1, 2]}
    """
    options: dict[str, Any] = {}
    for pair in given:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--option")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"the value of {key!r} is no YAML", param_hint="--option") from error
    return options


@contextmanager
def interruptible() -> Iterator[None]:
    """A polite kill ends the command as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a title; nothing if there are none."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    if shown.row_count:
        console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
        console.print(shown)
        console.print()


def size(amount: int | None) -> str:
    """Bytes for people.

    >>> size(2 * 2**30), size(None)
    ('2 GiB', '-')
    """
    return "-" if amount is None else f"{amount / 2**30:.3g} GiB"


def pairs(values: Mapping[str, Any]) -> str:
    """Keys that have a value, for people.

    >>> pairs({"n": 8, "max_tokens": None, "weights": [0.5, 0.5]})
    'n=8 weights=[0.5, 0.5]'
    """
    given = {key: value for key, value in values.items() if value is not None}
    return " ".join(f"{key}={_shown(value)}" for key, value in given.items()) or "-"


def _shown(value: object) -> str:
    plain = isinstance(value, str) and value.isprintable() and " " not in value and value
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
