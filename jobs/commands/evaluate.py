"""``ensemble evaluate``: members and ensembles on questions with known answers, or routers on an outcome table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cluster.commands.common import table
from ensemble.errors import BadRequest
from jobs.commands.common import quiet, starting
from jobs.evaluation.options import (
    about,
    asking,
    budget_of,
    columns_of,
    names_of,
    reading,
    task_options,
    told,
)

if TYPE_CHECKING:
    from jobs.evaluation.run import Design, Found
    from jobs.evaluation.service import Known


@click.command()
@click.argument("where", metavar="[CONFIG_OR_URL", required=False)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE]", required=False)
@click.option("--members", multiple=True, metavar="NAMES", help="With commas. Omitted: all models of the ensembles.")
@click.option("--ensembles", multiple=True, metavar="NAMES", help="Omitted: all whose models are among the members.")
@click.option("--budget", multiple=True, metavar="tokens=N", help="Of each question. Omitted: the dearest ensemble's.")
@click.option("--samples", default=8, show_default=True, type=click.IntRange(min=1), help="Of a member, for votes.")
@click.option("--temperature", default=0.7, show_default=True, type=click.FloatRange(0, 2), help="Of samples.")
@click.option("--routers", multiple=True, metavar="NAMES", help="Fit and compare these, or `all`, on --outcomes.")
@click.option("--outcomes", type=click.Path(path_type=Path), help="Outcome table: a Parquet file or a folder.")
@click.option("--ood-by", type=click.Choice(["task"]), help="Of routers: leave tasks out of the fit in turn as well.")
@click.option("--encoder", type=click.Choice(["features", "tfidf"]), help="Of routers. Omitted: the table's features.")
@task_options
@click.pass_context
def evaluate(context: click.Context, /, where: str | None, file: Path | None, **given: Any) -> None:
    """Ask members and ensembles of a configuration, or of the service at a URL, the questions in FILE (Parquet, JSON
    lines, CSV) under one token budget, and compare them with the best member, the oracle, a majority vote at equal
    calls and a choice by likelihood.

    Writes report.md, summary.parquet, answers.parquet and quality_cost.png. A run that was stopped goes on where it
    was. Exit status 2 if it is refused, 1 if it could not go on, 130 if it was interrupted.

    With --routers nothing is asked: routers are fitted to one part of the outcome table --outcomes (--split is the
    share; omitted: the table's own parts train and test, or 0.7) and compared on the other part with the best single
    member, chance and oracles. Writes report.md, routers.parquet, curves.parquet and quality_cost.png.
    """
    if given["routers"] or given["outcomes"] is not None:
        _routers(context, where, file, given)
        return
    if where is None or file is None:
        raise click.UsageError("give CONFIG_OR_URL and FILE, or --routers and --outcomes")
    _only(context, "ood_by", "encoder")
    with told(given["output"]):
        found, seed = run(where, file, given), given["seed"]
    # What draws the tables is imported with the run.
    from jobs.evaluation import tables
    from jobs.evaluation.report import findings

    for words in (tables.systems(found, seed), tables.equal_calls(found, seed), tables.by_task(found)):
        table(*words)
    for finding in findings(found, seed):
        click.echo(finding)
    click.echo(f"{given['output'] / 'report.md'}")


def _routers(context: click.Context, where: str | None, file: Path | None, given: Mapping[str, Any]) -> None:
    """Compare routers and tell what was found."""
    if where is not None or file is not None:
        raise click.UsageError("routers are compared on --outcomes alone; leave CONFIG_OR_URL and FILE out")
    if not given["routers"] or given["outcomes"] is None:
        raise click.UsageError("--routers and --outcomes go together")
    # Takes seconds to import.
    from jobs.evaluation.routers import results, words
    from jobs.evaluation.routers.run import USES, run

    _only(context, *(name for name in given if name not in USES))
    split = given["split"] if "split" in _named(context) else None
    with told(given["output"]):
        found = run({**given, "split": split}, lambda name: click.echo(name, err=True))
    for comparison, rows in found:
        click.echo(comparison.title)
        for shown in results.tables(comparison, rows):
            table(*shown)
        for finding in words.findings(comparison, rows):
            click.echo(finding)
    click.echo(f"{given['output'] / results.REPORT}")


def _only(context: click.Context, *inapplicable: str) -> None:
    """Refuse options that say nothing of what is done.

    Raises:
        UsageError: naming them.
    """
    if wrong := [f"--{name.replace('_', '-')}" for name in inapplicable if name in _named(context)]:
        kind = "routers" if context.params["routers"] else "members and ensembles"
        raise click.UsageError(f"{', '.join(wrong)}: nothing that an evaluation of {kind} takes")


def _named(context: click.Context) -> set[str]:
    """Options that were given."""
    return {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}


def run(where: str, file: Path, given: Mapping[str, Any]) -> Found:
    """Ask, compare, write; what can be refused is refused before anything is started.

    Raises:
        BadRequest: the file, a name or an option cannot be used.
        ConfigurationError: the service could not be brought up.
    """
    from jobs.evaluation import plot, report, results
    from jobs.evaluation.asks import kept_in
    from jobs.evaluation.grading import grade
    from jobs.evaluation.inquiry import inquired
    from jobs.evaluation.questions import read
    from jobs.evaluation.run import evaluated
    from jobs.evaluation.service import known

    tokens = budget_of(given["budget"], ("tokens",)).get("tokens")
    notion = grade(given["grade_name"])
    questions = read(file, columns_of(given), notion, **reading(given))
    there = known(where)
    design = designed(there, given, tokens)
    output, seed = given["output"], given["seed"]
    if there.url is None:
        quiet()
    with kept_in(output) as ledger:
        names = (*design.members, *design.ensembles)
        work = partial(evaluated, design, questions, notion)
        found = inquired(there, names, ledger, work, **asking(given), starting=starting)
        results.write(found, output, seed=seed)
        facts = {"service": where, **about(file, given, questions), **_facts(design, given)}
        report.write(found, output / "report.md", title=f"Evaluation on {file.name}", facts=facts, seed=seed)
        plot.draw(found.test, output / report.PLOT)
    return found


def designed(there: Known, given: Mapping[str, Any], tokens: int | None) -> Design:
    """Whom to ask: names that are left out follow from those that are given.

    Raises:
        BadRequest: a name is unknown or of the wrong kind, or there is no member.
    """
    from jobs.evaluation.run import Design

    members, ensembles = names_of(given["members"]), names_of(given["ensembles"])
    there.require((*members, *ensembles))
    if wrong := [name for name in ensembles if there.names[name].method is None]:
        raise BadRequest(f"{', '.join(wrong)}: no ensemble; give models with --members", param="ensembles")
    if not members:
        wanted = ensembles or tuple(there.names)
        members = tuple(dict.fromkeys(model for name in wanted for model in there.models(name)))
    if not ensembles:
        fused = (name for name, listed in there.names.items() if listed.method is not None and name not in members)
        ensembles = tuple(name for name in fused if set(there.models(name)) <= set(members))
    if both := set(members) & set(ensembles):
        raise BadRequest(f"{', '.join(sorted(both))}: either a member or an ensemble", param="members")
    amounts = {key: given[key] for key in ("samples", "temperature", "max_tokens", "seed")}
    models = frozenset(name for name in members if there.names[name].method is None)
    return Design(members=members, ensembles=ensembles, models=models, tokens=tokens, **amounts)


def _facts(design: Design, given: Mapping[str, Any]) -> dict[str, object]:
    budget = "what the dearest ensemble spent on it" if design.ensembles else "what one answer of each member costs"
    return {
        "budget of each question": budget if design.tokens is None else f"{design.tokens} tokens",
        "answers": f"greedy, at most {design.max_tokens} tokens",
        "samples of a member for votes": f"{design.samples} at most, all but the first at {design.temperature:g}",
    }
