"""Options that ``ensemble evaluate`` and ``ensemble tune`` share, and how both run and fail. Imports nothing slow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cluster.commands.common import Failed, interruptible
from cluster.commands.configuration import Refused
from ensemble.errors import BadRequest, ConfigurationError, EnsembleError
from jobs.commands.common import INTERRUPTED

if TYPE_CHECKING:
    from jobs.evaluation.questions import Columns, Question

F = TypeVar("F", bound=Callable[..., Any])


def task_options(command: F) -> F:
    """What both commands ask for about the task file and the asking."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


_SHARED = (
    click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the results."),
    click.option("--grade", "grade_name", default="exact", show_default=True, metavar="GRADE",
                 help="exact, number, choice, last-line or regex:PATTERN with one group around the answer."),
    click.option("--question", default="question", show_default=True, metavar="COLUMN", help="Column with questions."),
    click.option("--answer", default="answer", show_default=True, metavar="COLUMN", help="Column with right answers."),
    click.option("--task", metavar="COLUMN", help="Column by which figures are told apart. Omitted: over all only."),
    click.option("--questions", type=click.IntRange(min=1), metavar="N", help="Draw so many rows. Omitted: all."),
    click.option("--split", default=0.5, show_default=True, type=float, help="Share that is the development part."),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0),
                 help="Of the split, the drawn rows, sampled answers and the bootstrap."),
    click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(min=1),
                 help="Tokens of an answer at most."),
    click.option("--concurrency", default=8, show_default=True, type=click.IntRange(min=1),
                 help="Questions under way at most."),
    click.option("--attempts", default=6, show_default=True, type=click.IntRange(min=1),
                 help="Times to put a question at most."),
    click.option("--address", metavar="ADDRESS", help="Ray cluster; `auto` finds one here. Omitted: one is started."),
)  # fmt: skip


def columns_of(given: Mapping[str, Any]) -> Columns:
    """Where the task file says what."""
    from jobs.evaluation.questions import Columns

    return Columns(given["question"], given["answer"], given["task"])


def reading(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which of the task file's questions, as ``questions.read`` takes it."""
    return {"count": given["questions"], "share": given["split"], "seed": given["seed"]}


def asking(given: Mapping[str, Any]) -> dict[str, Any]:
    """How they are asked, as ``inquiry.inquired`` takes it."""
    return {key: given[key] for key in ("concurrency", "attempts", "address")}


def about(file: Path, given: Mapping[str, Any], questions: Sequence[Question]) -> dict[str, object]:
    """What a report says of the questions."""
    parts = Counter(question.split for question in questions)
    return {
        "questions": f"{file}, {parts['test']} in the test part, {parts['development']} in the development part",
        "seed": given["seed"],
        "right answers by": given["grade_name"],
    }


def names_of(given: Iterable[str]) -> tuple[str, ...]:
    """Names given one by one or with commas between; each once.

    >>> names_of(["a,b", "c", "a"])
    ('a', 'b', 'c')
    """
    return tuple(dict.fromkeys(name.strip() for part in given for name in part.split(",") if name.strip()))


def budget_of(given: Iterable[str], allowed: tuple[str, ...]) -> dict[str, int]:
    """Budgets given as NAME=N.

    >>> budget_of(["tokens=500"], ("tokens",))
    {'tokens': 500}

    Raises:
        BadRequest: another name, or no whole number above 0.
    """
    found: dict[str, int] = {}
    for pair in given:
        name, _, number = pair.partition("=")
        if name not in allowed or not number.isdecimal() or not int(number):
            forms = " or ".join(f"{name}=N" for name in allowed)
            raise BadRequest(f"--budget {pair} cannot be used; allowed: {forms}, N a whole number above 0")
        found[name] = int(number)
    return found


def canonical(options: Mapping[str, Any]) -> str:
    """Options as JSON that is equal for equal options."""
    return json.dumps(dict(options), sort_keys=True)


@contextmanager
def told(output: Path) -> Iterator[None]:
    """Failures as the command line tells them: 2 refused, 1 could not go on, 130 interrupted."""
    go_on = f"answers are kept in {output}; the same command goes on from there"
    try:
        with interruptible():
            yield
    except (BadRequest, ConfigurationError) as error:
        raise Refused(error.message) from error
    except (EnsembleError, ConnectionError) as error:
        raise Failed(f"{error}\n{go_on}") from error
    # Ray answers a polite kill with an exit of its own once it runs.
    except (KeyboardInterrupt, SystemExit):
        click.echo(f"interrupted; {go_on}", err=True)
        raise SystemExit(INTERRUPTED) from None
