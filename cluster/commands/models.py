"""``ensemble models``: what a gateway serves."""

from __future__ import annotations

import click

from cluster import client
from cluster.commands.ask import url_option
from cluster.commands.common import Failed, table


@click.command()
@url_option
def models(url: str) -> None:
    """List the models and ensembles that a gateway serves."""
    try:
        listed = client.models(url)
    except client.Unanswered as error:
        raise Failed(str(error)) from error
    rows = [
        (m["id"], m.get("kind", "model"), m.get("method", "-"), ", ".join(m.get("members", ())) or "-", _context(m))
        for m in listed
    ]
    table("Models", ("name", "kind", "method", "members", "context"), rows)


def _context(model: dict[str, object]) -> str:
    return str(model.get("context_length", "-"))
