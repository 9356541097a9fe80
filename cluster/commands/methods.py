"""``ensemble methods``: what ways of combining models there are."""

from __future__ import annotations

import json
from typing import Any

import click
from pydantic_core import PydanticUndefined, to_jsonable_python

from cluster.commands.common import pairs, table
from ensemble.method import Method
from ensemble.method import methods as registered


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def methods(as_json: bool) -> None:
    """List the methods: when the members meet, the paper, what members must be able to do, options with defaults."""
    described = [_described(method) for method in registered().values()]
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    rows = [(m["name"], m["stage"], m["paper"], ", ".join(m["needs"]), _defaults(m["options"])) for m in described]
    table("Methods", ("name", "stage", "arXiv", "needs", "options"), rows)


def _described(method: type[Method[Any]]) -> dict[str, Any]:
    return {
        "name": method.name,
        "stage": method.stage.value,
        "paper": method.paper,
        "needs": sorted(method.needs) + (["judge"] if method.needs_judge else []),
        "options": {
            name: {
                "required": field.is_required(),
                "default": None if field.is_required() else _default(field.get_default(call_default_factory=True)),
                "description": " ".join((field.description or "").split()),
            }
            for name, field in method.Options.model_fields.items()
        },
        "caps": dict(method.caps),
    }


def _default(value: object) -> Any:
    return None if value is PydanticUndefined else to_jsonable_python(value)


def _defaults(options: dict[str, dict[str, Any]]) -> str:
    required = " ".join(name for name, option in options.items() if option["required"])
    given = {name: option["default"] for name, option in options.items() if not option["required"]}
    shown = pairs({name: "none" if value is None else value for name, value in given.items()})
    return " ".join(part for part in (required, shown if given else "") if part) or "-"
