"""The figures of a comparison of routers as rows of words, and as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan

from jobs.evaluation.routers.comparison import Comparison
from jobs.evaluation.routers.figures import Curve, Row, curve
from jobs.evaluation.tables import Words, percent

_TASKS = 12
"""More than this many are not shown in one table."""


def quality(rows: Sequence[Row]) -> Words:
    """Everyone's quality where the member of highest predicted quality answers."""
    columns = ("system", "quality %", "against the best single", "cost", "most traffic", "share %")
    shown = [[r.name, percent(r.quality), _verdict(r), number(r.cost), r.top[0], share(r.top[1])] for r in rows]
    return Words("Quality: the member of highest predicted quality answers", columns, shown)


def _verdict(row: Row) -> str:
    return "" if row.name == "best single" else row.against.verdict


def curves(found: Comparison, rows: Sequence[Row]) -> Words:
    """What everyone reaches over all prices of money; no rows without costs."""
    columns = ("system", "area", "AIQ by largest cost", "max %", "PerfGain %", "CostSave %", "ParetoDist", "arena")
    if not found.zero:
        return Words("Curves", columns, [])
    every = [*found.zero, *(point for entrant in found.entrants for point in entrant.curve)]
    bounds = (("single members", found.zero), ("query oracle", found.oracle))
    shown = [[name, *_curve(curve(found, points, every)), ""] for name, points in bounds]
    shown += [[row.name, *_curve(row.curve), number(row.arena)] for row in rows if row.router]
    return Words("Curves: quality against cost over all prices of money", columns, shown)


def _curve(of: Curve) -> Iterator[str]:
    yield from (number(of.area, 4), number(of.aiq_largest, 4))
    yield from (share(part) for part in (of.best, of.gain, of.saving))
    yield number(of.pareto_distance)


def pairs(rows: Sequence[Row]) -> Words:
    """Choices between a strong and a weak member; no rows where there are more."""
    columns = ("system", "APGR", "CPT 50 %", "CPT 80 %")
    shown = [
        [row.name, number(row.pair.apgr), share(row.pair.cpt50), share(row.pair.cpt80)]
        for row in rows
        if not isnan(row.pair.apgr)
    ]
    return Words("Strong and weak member: share of calls to the strong one, %", columns, shown)


def service(rows: Sequence[Row]) -> Words:
    """What everyone does under its own policy, how far its predictions can be believed, and its speed."""
    columns = ("system", "served %", "served cost", "Brier", "ECE", "entropy, bits", "fit, s", "decision, ms")
    shown = [
        [
            row.name,
            percent(row.served_quality),
            number(row.served_cost),
            *(number(value) for value in (row.brier, row.calibration_error, row.entropy)),
            number(row.fit_seconds),
            number(row.decision_ms),
        ]
        for row in rows
        if row.router
    ]
    return Words("Under their own policies", columns, shown)


def by_task(found: Comparison, rows: Sequence[Row]) -> Words:
    """Quality on each task, the commonest first; no rows where there is one."""
    tasks = sorted(set(found.tested.tasks) - {""}, key=lambda task: (-found.tested.tasks.count(task), task))
    if len(tasks) < 2:
        return Words("By task", ("system",), [])
    title = "By task, quality %" + (f"; the commonest {_TASKS} of {len(tasks)}" if len(tasks) > _TASKS else "")
    tasks = tasks[:_TASKS]
    shown = [[row.name, *(share(row.tasks.get(task, float("nan"))) for task in tasks)] for row in rows]
    return Words(title, ("system", *tasks), shown)


def traffic(found: Comparison, rows: Sequence[Row]) -> Words:
    """Shares of members, of routers that send any traffic there."""
    members = [m for m in found.tested.members if any(row.shares.get(m, 0) >= 0.005 for row in rows if row.router)]
    shown = [[row.name, *(share(row.shares[member]) for member in members)] for row in rows if row.router]
    return Words("Traffic, %", ("system", *members), shown)


def findings(found: Comparison, rows: Sequence[Row]) -> Iterator[str]:
    """A sentence each: who does not beat the best single member is said not to."""
    single = found.tested.members[int(found.single.chosen[0])] if found.single.chosen is not None else ""
    for row in (row for row in rows if row.router):
        beats = "beats" if row.against.low > 0 else "does not beat"
        yield f"{row.name} {beats} the best single member, {single}: {row.against.verdict}"
    for name, why in found.refused.items():
        yield f"{name} was not fitted: {why}"


def number(value: float, digits: int = 3) -> str:
    """
    >>> number(0.12345), number(float("nan"))
    ('0.123', '')
    """
    return "" if isnan(value) else f"{value:.{digits}g}"


def share(part: float) -> str:
    """
    >>> share(0.5), share(float("nan"))
    ('50.0', '')
    """
    return "" if isnan(part) else percent(part)
