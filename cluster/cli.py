"""The command ``ensemble``. Sub-commands are imported when they are called, so that the light ones start fast.

Other distributions, and the folders above this one, add sub-commands through the entry-point group
``ray_ensemble.commands``.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import click

ENTRY_POINTS = "ray_ensemble.commands"

BUILT_IN = MappingProxyType(
    {
        "ask": "cluster.commands.ask:ask",
        "check": "cluster.commands.check:check",
        "k8s": "cluster.commands.k8s:k8s",
        "methods": "cluster.commands.methods:methods",
        "models": "cluster.commands.models:models",
        "serve": "cluster.commands.serve:serve",
    }
)
"""``module:attribute`` of each sub-command of this package."""


class Commands(click.Group):
    """A group whose sub-commands are found by name and imported on call."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*BUILT_IN, *_added()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in BUILT_IN:
            module, _, attribute = BUILT_IN[cmd_name].partition(":")
            command: Any = getattr(importlib.import_module(module), attribute)
        elif cmd_name in _added():
            command = _added()[cmd_name].load()
        else:
            return None
        assert isinstance(command, click.Command), f"{cmd_name} is no click command"
        return command


def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ray-ensemble")
def main() -> None:
    """LLM ensembles as a service on a Ray cluster."""


if __name__ == "__main__":
    main()
