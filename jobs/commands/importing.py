"""``ensemble import``: an outcome table made of another table, or of a service's feedback journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cluster.commands.configuration import Refused
from ensemble.errors import BadRequest

if TYPE_CHECKING:
    import pyarrow as pa

    from ensemble.outcomes.table import Outcomes


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A .parquet file, or a folder.")
@click.option("--map", "maps", multiple=True, metavar="COLUMN=OWN", help="Outcome table's column, FILE's own.")
@click.option(
    "--wide",
    multiple=True,
    metavar="[COLUMN=]PATTERN",
    help="FILE has a column for each member, named so; `*` is the member. COLUMN omitted: quality.",
)
@click.option("--set", "constants", multiple=True, metavar="COLUMN=VALUE", help="The same value in all rows.")
@click.option("--scale", multiple=True, metavar="COLUMN=FACTOR", help="Multiply numbers, such as quality=0.1.")
@click.option("--price", multiple=True, metavar="MEMBER=IN,OUT", help="Money for a million tokens read and written.")
@click.option("--features", type=click.Path(path_type=Path), metavar="FILE.npy", help="An embedding of each query.")
@click.option(
    "--repeats",
    default="refuse",
    show_default=True,
    type=click.Choice(["refuse", "samples"]),
    help="What several answers of a member to a query are.",
)
@click.option("--feedback", is_flag=True, help="FILE is the feedback journal of a service.")
@click.option("--append", is_flag=True, help="Add to the table that is at the output already.")
def import_(file: Path, **given: Any) -> None:
    """Make an outcome table of FILE: Parquet, JSON lines or CSV, with a row for each answer, or with --wide for each
    query.

    Columns are called query_id, text, task, split, member, quality (0 to 1), cost, input_tokens, output_tokens,
    latency (seconds), propensity, response; --map names those that FILE calls otherwise. Columns that nothing is made
    of are told. Exit status 2 if FILE is refused.
    """
    try:
        found, notes, through = run(file, given)
    except BadRequest as error:
        raise Refused(error.message) from error
    for note in notes:
        click.echo(note, err=True)
    counts = f"{len(found)} queries, {len(found.names)} members, {found.cells.num_rows} outcomes"
    click.echo(f"{counts} in {given['output']}")
    if through:
        click.echo(f"feedback up to number {through}; tell `ensemble fit` so with --feedback {through}")


class Imported(NamedTuple):
    """What became of a table."""

    table: Outcomes
    notes: list[str]
    """What the user should know."""
    through: int
    """Number of the journal's last piece of feedback; 0: the file is no journal, or an empty one."""


def run(file: Path, given: Mapping[str, Any]) -> Imported:
    """Make the table and write it.

    Raises:
        BadRequest: the file or an option cannot be used, or there is no outcome.
    """
    from ensemble.outcomes.table import Outcomes, read
    from jobs.collecting import mapping

    output: Path = given["output"]
    if output.exists() and not given["append"] and not (output.is_dir() and not any(output.iterdir())):
        raise BadRequest(f"{output} is there already; give --append to add to it, or another name", param="output")
    table, notes, through = _opened(file, given)
    long, left_out = mapping.mapped(table, _meaning(given))
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}")
    if given["repeats"] == "samples" or given["feedback"]:
        long = mapping.numbered(long)
    found = Outcomes.of(long, where=str(file))
    if not found.cells.num_rows:
        raise BadRequest(f"{file} holds no outcomes", param="input")
    found = found.join(members=_prices(given["price"], found), features=_features(given["features"]))
    if given["append"] and output.exists():
        found = read(output).append(found)
    found.write(output)
    return Imported(found, notes, through)


def _opened(file: Path, given: Mapping[str, Any]) -> tuple[pa.Table, list[str], int]:
    from jobs.collecting import feedback, foreign

    if not given["feedback"]:
        return foreign.rows(file), [], 0
    if given["wide"]:
        raise BadRequest("a feedback journal is not wide; leave --wide out", param="wide")
    journal = feedback.read(file)
    notes = [f"left out: {journal.preferences} preferences"] if journal.preferences else []
    return journal.table, notes, journal.through


def _meaning(given: Mapping[str, Any]) -> Any:
    from jobs.collecting.mapping import Meaning

    wide = [pair if "=" in pair else f"quality={pair}" for pair in given["wide"]]
    factors = {name: _factor(name, value) for name, value in _pairs("--scale", given["scale"]).items()}
    return Meaning(
        columns=_pairs("--map", given["maps"]),
        wide=_pairs("--wide", wide),
        constants=_pairs("--set", given["constants"]),
        factors=factors,
    )


def _pairs(option: str, given: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given:
        name, separator, value = pair.partition("=")
        if not name or not separator or not value or name in found:
            rule = "is there twice" if name in found else "is not COLUMN=VALUE"
            raise BadRequest(f"{option} {pair} {rule}", param=option)
        found[name] = value
    return found


def _factor(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise BadRequest(f"--scale {name}={value}: the factor must be a number", param="scale") from error


def _prices(given: Iterable[str], table: Outcomes) -> pa.Table | None:
    import pyarrow as pa

    rows: list[dict[str, str | float]] = []
    for member, both in _pairs("--price", given).items():
        parts = both.split(",")
        try:
            read, written = (float(part) / 1e6 for part in parts)
        except ValueError as error:
            raise BadRequest(f"--price {member}={both} must be MEMBER=IN,OUT", param="price") from error
        rows.append({"member": member, "input_price": read, "output_price": written})
    table.require([str(row["member"]) for row in rows])
    return pa.Table.from_pylist(rows) if rows else None


def _features(path: Path | None) -> Any:
    from ensemble.outcomes.files import features

    return None if path is None else features(path)
