"""A collection: members asked, answers graded, and the outcome table that comes of both.

    questions ──▶ a batch job for each member and sample, all at once ──▶ grading ──▶ outcome table

Asking and judging go on where they were stopped; grading and the table are made anew each time, so that a collection
can be graded by another notion without asking a member again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cluster.schema import Configuration
from ensemble.outcomes.table import Outcomes
from jobs.collecting import answers, judged, prices, questions
from jobs.collecting.answers import Plan
from jobs.collecting.grades import Notion, Row, notion
from jobs.recorder import Counts

if TYPE_CHECKING:
    from jobs.asking import Target

Told = Callable[[Counts], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How a collection is carried out; nothing here changes what it comes to."""

    address: str | None = None
    """Of a running Ray cluster; ``None``: the one that this process is connected to, or a new one."""
    concurrency: int = 8
    """Questions under way at a time at each member, and answers at the judge, at most."""
    attempts: int = 6
    """Times that a question is put, or an answer judged, at most, while errors are such that a retry may help."""
    asking: Told = lambda counts: None
    """Told how many answers there are."""
    judging: Told = lambda counts: None
    """Told how many answers are judged."""
    starting: Callable[[Any], None] | None = None
    """Told the states of deployments that are brought up."""


def collected(configuration: Configuration, plan: Plan, source: Path, grade: str, ways: Ways) -> Outcomes:
    """Ask what is missing, grade all, and write the table to the plan's folder.

    Raises:
        BadRequest: the plan, the file or the grade cannot be used; or the grade failed on an answer.
        ConfigurationError: a member could not be brought up.
        Interrupted: the work could not go on; the same call goes on from there.
    """
    asked = questions.read(source, plan.columns)
    queries = asked.drop_columns([questions.ASKED])
    known = notion(grade, queries.to_pylist())
    if known.judge is not None:
        judged.require(configuration, known.judge)
    plan.check(configuration)
    with plan.claimed(), ExitStack() as stack:
        plan.put(asked)
        service = _Service(configuration, ways, stack, _needed(configuration, plan, known))
        _ask(configuration, plan, ways, service)
        cells = answers.cells(plan, configuration)
        grades = _graded(configuration, plan.output, known, queries.to_pylist(), cells, ways, service)
        table = Outcomes.of(
            _with(cells, grades), queries, prices.members(plan.members, configuration), where=str(plan.output)
        )
        table.write(plan.output)
    return table


def _needed(configuration: Configuration, plan: Plan, known: Notion) -> list[str]:
    """Models and ensembles that the collection may ask."""
    judge = configuration.judges[known.judge].model if known.judge is not None else None
    names = [*(job.model for job in plan.jobs.values()), *([judge] if judge is not None else [])]
    return list(dict.fromkeys(names))


class _Service:
    """The configuration, served from the first time that somebody needs it."""

    def __init__(self, configuration: Configuration, ways: Ways, stack: ExitStack, names: Sequence[str]) -> None:
        """
        Args:
            names: of all models and ensembles that may be needed.
        """
        self._configuration, self._ways, self._stack, self._names = configuration, ways, stack, names
        self._targets: Mapping[str, Target] | None = None

    def targets(self) -> Mapping[str, Target]:
        """Where each is asked."""
        from jobs.application import serving

        if self._targets is None:
            ways = self._ways
            serves = serving(self._configuration, self._names, ways.address, ways.starting)
            self._targets = self._stack.enter_context(serves)
        return self._targets

    @contextmanager
    def serve(self, names: Sequence[str]) -> Iterator[Mapping[str, Target]]:
        """As ``jobs.batch`` has it; stays up for the judge."""
        yield self.targets()


def _ask(configuration: Configuration, plan: Plan, ways: Ways, service: _Service) -> None:
    from jobs import batch

    amounts = {"concurrency": ways.concurrency, "attempts": ways.attempts}
    batch.run_all(configuration, list(plan.jobs.values()), service.serve, **amounts, progress=ways.asking)


class _Grades(NamedTuple):
    """[cells] each."""

    quality: Sequence[float | None]
    """0 to 1; ``None`` where a member gave no answer, or the judge no verdict."""
    errors: Sequence[str | None]
    """Why there is no verdict on an answer."""


def _with(cells: pa.Table, grades: _Grades) -> pa.Table:
    errors = pc.coalesce(cells["error"], pa.array(grades.errors, pa.large_string()))
    cells = cells.set_column(cells.column_names.index("error"), "error", errors)
    return cells.append_column("quality", pa.array(grades.quality, pa.float64()))


def _graded(
    configuration: Configuration,
    output: Path,
    notion: Notion,
    queries: Sequence[Row],
    cells: pa.Table,
    ways: Ways,
    service: _Service,
) -> _Grades:
    by_id = {query["query_id"]: query for query in queries}
    rows = [by_id[name] for name in cells["query_id"].to_pylist()]
    texts: list[str | None] = cells["response"].to_pylist()
    if notion.graded is not None:
        grade = notion.graded
        quality = [None if text is None else grade(row, text) for row, text in zip(rows, texts, strict=True)]
        return _Grades(quality, [None] * len(texts))
    assert notion.judge is not None
    shown = [None if text is None else judged.Shown(row["text"], text) for row, text in zip(rows, texts, strict=True)]
    rewards = judged.Rewards(output, configuration, notion.judge)
    wanted = [one for one in shown if one is not None]
    if rewards.missing(wanted):
        if configuration.judges[notion.judge].model is not None:
            service.targets()
        asyncio.run(_judge(configuration, notion.judge, rewards, wanted, ways))
    keys = ["" if one is None else one.key for one in shown]
    return _Grades([rewards.known.get(key) for key in keys], [rewards.refused.get(key) for key in keys])


async def _judge(
    configuration: Configuration, name: str, rewards: judged.Rewards, shown: Sequence[judged.Shown], ways: Ways
) -> None:
    judge = await judged.connected(configuration, name)
    await rewards.ask(judge, shown, ways.concurrency, ways.attempts, ways.judging)
