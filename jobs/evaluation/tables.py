"""The figures of an evaluation as rows of words, the same for the terminal and for Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ensemble.outcomes.bootstrap import interval
from jobs.evaluation.run import Found
from jobs.evaluation.statistics import compared
from jobs.evaluation.systems import System, mean

APART = 0.10
"""Accuracy, as a share, between members above which fusing usually loses to the better one."""


class Words(NamedTuple):
    """A table."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Its lines; numbers stand right."""
        aligned = ("---", *("---:" for _ in self.columns[1:]))
        cells = (("" if c == "system" else c for c in self.columns), aligned, *self.rows)
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def systems(found: Found, seed: int) -> Words:
    """One row for each system of the test part."""
    columns = ("system", "right %", "95 %", "against the best member", "won–lost", "p")
    rows = [[*_quality(found, system, seed), *prices(system)] for system in found.test]
    return Words("All systems, same questions", (*columns, *PRICES), rows)


PRICES = ("tokens", "calls", "seconds", "cost", "errors")


def prices(system: System) -> list[str]:
    """Means over the answers, and errors in all."""
    return [
        f"{system.mean('tokens'):.1f}",
        f"{system.mean('calls'):.1f}",
        f"{system.mean('seconds'):.2f}",
        f"{system.mean('cost'):.3g}",
        f"{system.errors}",
    ]


def _quality(found: Found, system: System, seed: int) -> Iterator[str]:
    yield system.name
    yield percent(system.accuracy)
    yield "–".join(percent(end) for end in interval(system.right.astype(float), seed=seed))
    if system is found.best:
        yield from ("best member", "", "")
        return
    against = compared(system.right, found.best.right, seed=seed)
    yield against.verdict
    yield f"{against.won}–{against.lost}"
    yield f"{against.p:.2g}"


def equal_calls(found: Found, seed: int) -> Words:
    """Each ensemble against the vote that made as many calls."""
    columns = ("system", "right %", "vote right %", "against the vote", "won–lost", "p", "calls", "vote's calls")
    rows = []
    for system in (system for system in found.ensembles if system.name in found.equal):
        vote = found.equal[system.name]
        against = compared(system.right, vote.right, seed=seed)
        short = f" ({found.capped(system)} questions with fewer)" if found.capped(system) else ""
        words = [against.verdict, f"{against.won}–{against.lost}", f"{against.p:.2g}"]
        calls = [f"{system.mean('calls'):.1f}", f"{vote.mean('calls'):.1f}{short}"]
        rows.append([system.name, percent(system.accuracy), percent(vote.accuracy), *words, *calls])
    return Words("Ensembles against the majority vote at equal calls", columns, rows)


def by_task(found: Found) -> Words:
    """Accuracy of each system on each task; no rows where the questions are of one."""
    counts = Counter(outcome.question.task for outcome in found.best.outcomes)
    if len(counts) < 2:
        return Words("By task", ("system",), [])
    rows = [
        [
            system.name,
            *(percent(mean([float(o.right) for o in system.outcomes if o.question.task == task])) for task in counts),
        ]
        for system in found.test
    ]
    return Words("By task, right %", ("system", *(f"{task or '-'} ({n})" for task, n in counts.items())), rows)


def errors(found: Found) -> Words:
    """How often each system had which error."""
    counts = Counter(
        (system.name, outcome.error.partition(":")[0])
        for system in (*found.development, *found.test)
        for outcome in system.outcomes
        if outcome.error is not None
    )
    rows = [[name, code, str(count)] for (name, code), count in counts.items()]
    return Words("Errors; each counts as a wrong answer", ("system", "error", "answers"), rows)


def percent(share: float) -> str:
    """Per cent with one decimal.

    >>> percent(0.8125)
    '81.2'
    """
    return f"{100 * share:.1f}"


def apart(members: Iterable[System]) -> Iterator[str]:
    """A warning for each member that is more than ten points below the best of them."""
    ordered = sorted(members, key=lambda system: -system.accuracy)
    for system in ordered[1:]:
        gap = ordered[0].accuracy - system.accuracy
        # Shares are quotients of small numbers; exactly ten points are not more than ten.
        if gap > APART + 1e-9:
            yield (
                f"{system.name} is {100 * gap:.1f} points below {ordered[0].name}: fusing members more than about "
                "ten points apart usually loses to the better one, unless each is better on questions of its own"
            )
