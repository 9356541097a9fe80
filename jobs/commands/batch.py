"""``ensemble batch``: a question for each row of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.commands.common import Failed, interruptible, options_of, table
from cluster.commands.configuration import Refused, configuration_file, loaded
from ensemble.errors import BadRequest, EnsembleError
from ensemble.request import Sampling
from jobs.commands.common import INTERRUPTED, quiet, starting, subject_of
from jobs.job import Job

if TYPE_CHECKING:
    from jobs.results import Summary


@click.command()
@configuration_file
@click.option("--ensemble", "model", required=True, metavar="NAME", help="Ensemble or model of the configuration.")
@click.option("--input", "source", required=True, type=click.Path(path_type=Path), help=".parquet, .jsonl, .jsonl.gz.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the Parquet files.")
@click.option("--address", metavar="ADDRESS", help="Ray cluster; `auto` finds one here. Omitted: one is started.")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(min=1), help="Rows under way at most.")
@click.option(
    "--attempts", default=6, show_default=True, type=click.IntRange(min=1), help="Times to ask a row at most."
)
@click.option("--question-column", metavar="COLUMN", help="Column with the user's question. Omitted: `question`.")
@click.option("--messages-column", metavar="COLUMN", help="Column with whole conversations, lists or JSON.")
@click.option("--prompt-column", metavar="COLUMN", help="Column with raw text to continue.")
@click.option("--id-column", metavar="COLUMN", help="Column whose values must be there and differ.")
@click.option("--prefix", default="", metavar="TEXT", help="Goes before the names of the added columns.")
@click.option("--credits", is_flag=True, help="Add a column with the members that wrote each part.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the method; repeatable.")
@click.option("--max-tokens", type=int, help="Tokens to write at most, for each row.")
@click.option("--temperature", type=float, help="0 (the default) is greedy.")
@click.option("--top-p", type=float, help="Smallest set of tokens whose mass reaches it is kept.")
@click.option("--seed", type=int, help="Same seed, same text; the same for all rows.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Answers end before this; repeatable.")
def batch(file: Path, **given: Any) -> None:
    """Ask an ensemble or model of a configuration FILE the question in each row of a Parquet or JSON-lines file.

    Without FILE the packaged miniature models are asked. Rows that fail are told in the column `error`. A job that was
    stopped or killed goes on where it was when the same command is given again. Exit status 2 if the job is refused,
    1 if it could not go on, 130 if it was interrupted.
    """
    configuration = loaded(file)
    try:
        job = _job(given)
        job.check(configuration)
    except BadRequest as error:
        raise Refused(error.message) from error
    quiet()
    # Ray takes seconds to import; what can be refused without it has been.
    from jobs.batch import run
    from jobs.progress import Display

    ways = {key: given[key] for key in ("address", "concurrency", "attempts")}
    try:
        with interruptible(), Display() as display:
            summary = run(configuration, job, **ways, progress=display, starting=starting)
    except BadRequest as error:
        raise Refused(error.message) from error
    except (EnsembleError, ConnectionError) as error:
        raise Failed(f"{error}\n{_go_on(job)}") from error
    # Ray answers a polite kill with an exit of its own once it runs.
    except (KeyboardInterrupt, SystemExit):
        click.echo(f"interrupted; {_go_on(job)}", err=True)
        raise SystemExit(INTERRUPTED) from None
    _tell(summary, job)


def _job(given: Mapping[str, Any]) -> Job:
    names = ("max_tokens", "temperature", "top_p", "seed")
    sampling = {name: given[name] for name in names if given[name] is not None}
    return Job(
        model=given["model"],
        input=given["source"],
        output=given["output"],
        subject=subject_of(given),
        id_column=given["id_column"],
        sampling=Sampling(**sampling, stop=given["stop"]),
        options=options_of(given["options"]),
        prefix=given["prefix"],
        credits=given["credits"],
    )


def _go_on(job: Job) -> str:
    return f"finished rows are kept in {job.output}; the same command goes on from there"


def _tell(summary: Summary, job: Job) -> None:
    failed = ", ".join(f"{count} {code}" for code, count in sorted(summary.failed.items()))
    click.echo(f"{summary.rows} rows in {job.output}" + (f", of which failed: {failed}" if failed else ""))
    rows = [
        (member, str(u.calls), str(u.prompt_tokens), str(u.completion_tokens), str(u.cost))
        for member, u in sorted(summary.usage.items())
    ]
    table("Usage", ("member", "calls", "prompt_tokens", "completion_tokens", "cost"), rows)
