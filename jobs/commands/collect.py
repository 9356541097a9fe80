"""``ensemble collect``: an outcome table of a configuration's members on questions of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cluster.commands.common import table
from cluster.commands.configuration import configuration_file, loaded
from ensemble.errors import BadRequest
from jobs.commands.common import quiet, starting, subject_of
from jobs.evaluation.options import names_of, told

if TYPE_CHECKING:
    from ensemble.outcomes.table import Outcomes
    from jobs.collecting.run import Ways
    from jobs.recorder import Counts


@click.command()
@configuration_file
@click.option("--input", "source", required=True, type=click.Path(path_type=Path), help="Parquet, JSON lines or CSV.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the outcome table.")
@click.option("--members", multiple=True, required=True, metavar="NAMES", help="Models and ensembles, with commas.")
@click.option(
    "--strategy", "strategies", multiple=True, metavar="NAME=TEXT", help="TEXT goes before the question to MEMBER|NAME."
)
@click.option("--samples", default=1, show_default=True, type=click.IntRange(min=1), help="Answers to each question.")
@click.option(
    "--grade",
    "grade_name",
    default="exact",
    show_default=True,
    metavar="GRADE",
    help="exact, number, choice, last-line, regex:PATTERN, judge:NAME or python:MODULE:FUNCTION.",
)
@click.option("--question-column", metavar="COLUMN", help="Column with the user's question. Omitted: `question`.")
@click.option("--messages-column", metavar="COLUMN", help="Column with whole conversations, lists or JSON.")
@click.option("--prompt-column", metavar="COLUMN", help="Column with raw text to continue.")
@click.option("--answer-column", metavar="COLUMN", help="Right answers. Omitted: `answer` where a grade needs them.")
@click.option("--id-column", metavar="COLUMN", help="Names of the queries. Omitted: made of the question's text.")
@click.option("--task-column", metavar="COLUMN", help="What kind of query each is.")
@click.option("--split-column", metavar="COLUMN", help="The part of the table that each belongs to.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Tokens of an answer at most.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 (the default) is greedy; samples need more.")
@click.option("--top-p", type=float, help="Smallest set of tokens whose mass reaches it is kept.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the first sample; each further one has the next.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Answers end before this; repeatable.")
@click.option(
    "--concurrency", default=8, show_default=True, type=click.IntRange(min=1), help="Under way at each member."
)
@click.option("--attempts", default=6, show_default=True, type=click.IntRange(min=1), help="Of a question at most.")
@click.option("--address", metavar="ADDRESS", help="Ray cluster; `auto` finds one here. Omitted: one is started.")
def collect(file: Path, **given: Any) -> None:
    """Ask members of a configuration FILE the questions of a table, grade the answers, and write an outcome table:
    quality, tokens, cost and latency of each answer.

    Without FILE the packaged miniature models are asked. A collection that was stopped or killed goes on where it was
    when the same command is given again; with another --grade the answers are graded anew, and no member is asked
    again. Exit status 2 if it is refused, 1 if it could not go on, 130 if it was interrupted.
    """
    configuration = loaded(file)
    with told(given["output"]):
        from jobs.collecting.answers import Plan
        from jobs.collecting.run import collected

        plan = Plan(
            members=names_of(given["members"]),
            output=given["output"],
            columns=_columns(given),
            samples=given["samples"],
            strategies=_strategies(given["strategies"]),
            sampling=_sampling(given),
        )
        quiet()
        with _ways(given) as ways:
            outcomes = collected(configuration, plan, given["source"], given["grade_name"], ways)
    table("Outcomes", HEADER, summary(outcomes))
    click.echo(f"{len(outcomes)} queries, {outcomes.cells.num_rows} outcomes in {given['output']}")


HEADER = ("member", "answers", "failed", "quality", "cost", "output_tokens", "latency")


def summary(outcomes: Outcomes) -> list[tuple[str, ...]]:
    """A row for each member: counts, and means over what was observed; ``-`` where nothing was."""
    rows = []
    for name in outcomes.names:
        cells = outcomes.among([name]).cells
        failed = len(cells) - cells["error"].null_count if "error" in cells.column_names else 0
        means = [_mean(cells, column) for column in HEADER[3:]]
        rows.append((name, str(len(cells)), str(failed), *means))
    return rows


def _mean(cells: Any, column: str) -> str:
    values = cells[column].to_numpy() if column in cells.column_names else np.zeros(0)
    values = values[~np.isnan(values)]
    return f"{values.mean():.4g}" if len(values) else "-"


def _columns(given: Mapping[str, Any]) -> Any:
    from jobs.collecting.questions import Columns

    named = given["grade_name"].partition(":")[0]
    reference = given["answer_column"] or (None if named in ("judge", "python") else "answer")
    told = {key: given[f"{key}_column"] for key in ("id", "task", "split")}
    return Columns(subject_of(given), reference, **told)


def _strategies(given: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given:
        name, _, text = pair.partition("=")
        if not name or not text or name in found:
            raise BadRequest(f"--strategy {pair} must be NAME=TEXT, each NAME once", param="strategy")
        found[name] = text
    return found


def _sampling(given: Mapping[str, Any]) -> Any:
    from ensemble.request import Sampling

    names = ("max_tokens", "temperature", "top_p", "seed")
    return Sampling(**{name: given[name] for name in names if given[name] is not None}, stop=given["stop"])


@contextmanager
def _ways(given: Mapping[str, Any]) -> Iterator[Ways]:
    from jobs.collecting.run import Ways
    from jobs.progress import Display

    ways = {key: given[key] for key in ("address", "concurrency", "attempts")}
    shown: dict[str, Display] = {}
    with ExitStack() as opened:

        def teller(unit: str) -> Callable[[Counts], None]:
            def tell(counts: Counts) -> None:
                if unit not in shown:
                    opened.close()
                    shown[unit] = opened.enter_context(Display(unit=unit))
                shown[unit](counts)

            return tell

        yield Ways(**ways, asking=teller("answers"), judging=teller("verdicts"), starting=starting)
