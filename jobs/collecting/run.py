"""A collection: members asked, answers graded, and the outcome table that comes of both.

    questions ──▶ a batch job for each member and sample ──▶ grading ──▶ outcome table

Asking and judging go on where they were stopped; grading and the table are made anew each time, so that a collection
can be graded by another notion without asking a member again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from cluster.schema import Configuration
from ensemble.errors import BadRequest
from ensemble.outcomes.table import Outcomes
from jobs.collecting import answers, judged, prices, questions
from jobs.collecting.answers import Plan
from jobs.collecting.grades import Notion, Row, notion
from jobs.job import Job
from jobs.recorder import Counts

Told = Callable[[Counts], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How a collection is carried out; nothing here changes what it comes to."""

    address: str | None = None
    """Of a running Ray cluster; ``None``: the one that this process is connected to, or a new one."""
    concurrency: int = 8
    """Questions under way at a time, at most."""
    attempts: int = 6
    """Times that a question is put at most, while its errors are such that a retry may help."""
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
    plan.put(asked)
    with _claimed(plan.output), ExitStack() as service:
        serve = _Service(configuration, ways, service, _needed(configuration, plan, known))
        _ask(configuration, plan, len(asked), ways, serve)
        cells = answers.cells(plan, configuration)
        quality = _graded(configuration, plan.output, known, queries.to_pylist(), cells, ways, serve)
        cells = cells.append_column("quality", pa.array(quality, pa.float64()))
        table = Outcomes.of(cells, queries, prices.members(plan.members, configuration), where=str(plan.output))
        table.write(plan.output)
    return table


def _needed(configuration: Configuration, plan: Plan, known: Notion) -> set[str]:
    """Models and ensembles that the collection may ask."""
    judge = configuration.judges[known.judge].model if known.judge is not None else None
    return {job.model for job in plan.jobs.values()} | ({judge} if judge is not None else set())


class _Service:
    """The configuration, served from the first time that somebody needs it."""

    def __init__(self, configuration: Configuration, ways: Ways, stack: ExitStack, names: set[str]) -> None:
        """
        Args:
            names: of all models and ensembles that may be needed.
        """
        self._configuration, self._ways, self._stack, self._names = configuration, ways, stack, names
        self._up = False

    def need(self, name: str) -> None:
        """
        Args:
            name: a model or ensemble of the configuration that must be served.
        """
        from jobs.application import serving

        if not self._up:
            ways = self._ways
            self._stack.enter_context(serving(self._configuration, name, ways.address, ways.starting, self._names))
            self._up = True


def _ask(configuration: Configuration, plan: Plan, rows: int, ways: Ways, service: _Service) -> None:
    from jobs.batch import run

    jobs = list(plan.jobs.values())

    def one(job: Job, told: Told) -> Any:
        for missing in answers.pending([job]):
            service.need(missing.model)
        return run(configuration, job, concurrency=ways.concurrency, attempts=ways.attempts, progress=told)

    # Those that are complete go first: where they turn out to be of another collection, nothing has been started.
    left = list(answers.pending(jobs))
    answers.asked([*(job for job in jobs if job not in left), *left], one, rows, ways.asking)


def _graded(
    configuration: Configuration,
    output: Path,
    notion: Notion,
    queries: Sequence[Row],
    cells: pa.Table,
    ways: Ways,
    service: _Service,
) -> list[float | None]:
    """[cells], 0 to 1; ``None`` where a member gave no answer."""
    by_id = {query["query_id"]: query for query in queries}
    rows = [by_id[name] for name in cells["query_id"].to_pylist()]
    texts: list[str | None] = cells["response"].to_pylist()
    if notion.graded is not None:
        grade = notion.graded
        return [None if text is None else grade(row, text) for row, text in zip(rows, texts, strict=True)]
    assert notion.judge is not None
    shown = [None if text is None else judged.Shown(row["text"], text) for row, text in zip(rows, texts, strict=True)]
    rewards = judged.Rewards(output, configuration, notion.judge)
    wanted = [one for one in shown if one is not None]
    if rewards.missing(wanted):
        model = configuration.judges[notion.judge].model
        if model is not None:
            service.need(model)
        asyncio.run(_judge(configuration, notion.judge, rewards, wanted, ways))
    return [None if one is None else rewards.known[one.key] for one in shown]


async def _judge(
    configuration: Configuration, name: str, rewards: judged.Rewards, shown: Sequence[judged.Shown], ways: Ways
) -> None:
    await rewards.ask(await judged.connected(configuration, name), shown, ways.concurrency, ways.judging)


@contextmanager
def _claimed(output: Path) -> Iterator[None]:
    lock = FileLock(output / answers.FOLDER / "collect.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadRequest(f"{output}: another run is at work here", param="output") from error
    try:
        yield
    finally:
        lock.release()
