"""``ensemble tune``: members, weights and options of a method, chosen on one part of a file and judged on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.commands.common import options_of, table
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
    from jobs.evaluation.candidates import Candidate
    from jobs.evaluation.questions import Question
    from jobs.evaluation.service import Known
    from jobs.evaluation.space import Wish
    from jobs.evaluation.tuning import Tuned

CHOSEN = "chosen.yaml"


@click.command()
@click.argument("where", metavar="CONFIG_OR_URL")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--method", required=True, metavar="NAME", help="`ensemble methods` lists them.")
@click.option("--members", multiple=True, required=True, metavar="NAMES", help="To choose among, with commas.")
@click.option("--judge", metavar="NAME", help="Judge of the configuration, for methods that need one.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of all candidates; repeatable.")
@click.option("--grid", multiple=True, metavar="OPTION=VALUES", help="Values to try, with commas; repeatable.")
@click.option("--steps", default=4, show_default=True, type=click.IntRange(2, 20), help="Weights in 1/STEPS.")
@click.option(
    "--candidates", "most", default=64, show_default=True, type=click.IntRange(min=1), help="More are refused."
)
@click.option("--budget", multiple=True, metavar="questions=N|tokens=N", help="For all candidates together.")
@task_options
def tune(where: str, file: Path, **given: Any) -> None:
    """Choose members, weights and options of a method on the development part of FILE by successive halving, and report
    on the test part.

    Writes chosen.yaml, an entry for the configuration, and what `ensemble evaluate` writes. Exit status as there.
    """
    with told(given["output"]):
        tuned = run(where, file, given)
    from jobs.evaluation import tables
    from jobs.evaluation.report import findings

    for words in (tuned.table(), tables.systems(tuned.found, given["seed"]), tables.by_task(tuned.found)):
        table(*words)
    for finding in (*tuned.warnings(), *findings(tuned.found, given["seed"])):
        click.echo(finding)
    click.echo(f"{given['output'] / CHOSEN}")


def run(where: str, file: Path, given: Mapping[str, Any]) -> Tuned:
    """Ask, choose, judge, write; what can be refused is refused before anything is started.

    Raises:
        BadRequest: the file, a name, an option or a budget cannot be used.
        ConfigurationError: the method and the members do not fit, or the service could not be brought up.
    """
    from jobs.evaluation import space, tuning
    from jobs.evaluation.asks import kept_in
    from jobs.evaluation.grading import grade
    from jobs.evaluation.halving import Purse, schedule
    from jobs.evaluation.inquiry import inquired
    from jobs.evaluation.questions import read
    from jobs.evaluation.run import Design
    from jobs.evaluation.service import known

    budget = budget_of(given["budget"], ("questions", "tokens"))
    notion = grade(given["grade_name"])
    questions = read(file, columns_of(given), notion, **reading(given))
    wish = space.wished(given, names_of(given["members"]), options_of(given["options"]))
    there, candidates, left_out = _candidates(known(where), wish, given["most"])
    rungs = schedule(len(candidates), _development(questions), budget.get("questions"))
    design = Design(members=wish.members, max_tokens=given["max_tokens"], seed=given["seed"])
    output, purse = given["output"], Purse(budget.get("tokens"))
    if there.url is None:
        quiet()
    with kept_in(output) as ledger:
        names = (*dict.fromkeys(candidate.ensemble for candidate in candidates), *wish.members)
        work = partial(tuning.tuned, design, candidates, rungs, purse, given["concurrency"], questions, notion)
        tuned = inquired(there, names, ledger, work, **asking(given), starting=starting)
        facts = {"service": where, **about(file, given, questions), "method": wish.method}
        facts |= {"members": ", ".join(wish.members), "candidates": _spent(tuned, left_out)}
        _write(tuned, output, f"Tuning of {wish.method} on {file.name}", facts, given["seed"])
        tuning.write(tuned, there.configuration, wish, output / CHOSEN)
    return tuned


def _spent(tuned: Tuned, left_out: int) -> str:
    told = f"{len(tuned.candidates)}, {tuned.tokens} tokens spent on them"
    return f"{told}; {left_out} combinations that the method does not take left out" if left_out else told


def _write(tuned: Tuned, output: Path, title: str, facts: Mapping[str, object], seed: int) -> None:
    from jobs.evaluation import plot, report, results

    results.write(tuned.found, output, seed=seed)
    report.write(
        tuned.found,
        output / "report.md",
        title=title,
        facts=facts,
        seed=seed,
        more=[tuned.table()],
        first=[*tuned.warnings()],
    )
    plot.draw(tuned.found.test, output / report.PLOT)


def _candidates(there: Known, wish: Wish, most: int) -> tuple[Known, Sequence[Candidate], int]:
    """What is there to be asked, the candidates that the method takes, and how many it does not.

    Raises:
        BadRequest: there are more than are allowed.
    """
    from jobs.evaluation.space import applicable, prepared

    there, candidates = prepared(there, wish)
    if len(candidates) > most:
        rule = "lower --steps, give fewer members or values, or raise --candidates"
        raise BadRequest(f"{len(candidates)} candidates, at most {most} are allowed: {rule}", param="candidates")
    taken = applicable(candidates, there.configuration, wish) if there.configuration else candidates
    return there, taken, len(candidates) - len(taken)


def _development(questions: Sequence[Question]) -> int:
    found = sum(question.split == "development" for question in questions)
    if not found:
        raise BadRequest("candidates are chosen on a development part; give --split above 0", param="split")
    return found
