"""What was fitted, as rows of words, as sentences, and as what to add to a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import yaml

from ensemble.before.fitting.fitted import Fitted
from ensemble.before.policies import Policy
from ensemble.method import named
from ensemble.outcomes.measures import shares
from ensemble.outcomes.references import SINGLE
from jobs.fitting.routers import Report

Cells = list[str]


class Shown(NamedTuple):
    """A table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Cells]


def quality(report: Report) -> Shown:
    """Routers under the policies that they are kept with, below what they are held against; no rows where nothing was
    left out of the fit."""
    told = [found for found in report.fitted if found.taken is not None]
    if not told:
        return Shown("", (), [])
    # A router may leave members out, and then has references of its own; those of one who has most are shown.
    widest = max(told, key=lambda found: len(found.members))
    rows = [
        [other.name, _percent(other.point.quality), "", _number(other.point.cost), "", "", ""]
        for other in widest.references
    ]
    rows += [[found.method, *_figures(found), _worded(found.policy)] for found in told]
    columns = ("system", "quality %", "against the best single", "cost", "most traffic", "share %", "policy")
    return Shown(f"{widest.metrics['tested_on']:.0f} queries that were not fitted to", columns, rows)


def _figures(found: Fitted) -> Cells:
    assert found.taken is not None and found.taken.chosen is not None
    parts = shares(found.taken.chosen, len(found.members))
    cost = _number(found.metrics.get("cost", float("nan")))
    top = found.members[int(np.argmax(parts))]
    return [_percent(found.metrics["quality"]), _apart(found.metrics), cost, top, _percent(float(parts.max()))]


def findings(report: Report) -> Iterator[str]:
    """A sentence for each router, who does not beat the best single member is said not to; and for who is left out."""
    for member in report.left_out:
        yield f"{member} was left out: no query that is fitted to has an outcome with a quality of it"
    for found in report.fitted:
        yield _finding(found)
    for name, why in report.refused.items():
        yield f"{name} was not fitted: {why}"


def _finding(found: Fitted) -> str:
    if not found.metrics:
        return f"{found.method}: no query was left out of the fit that has an outcome of every member; nothing is known"
    beats = "beats" if found.metrics["gain_low"] > 0 else "does not beat"
    single = next(other for other in found.references if other.name == SINGLE)
    assert single.chosen is not None
    best = found.members[int(single.chosen[0])]
    return f"{found.method} {beats} the best single member, {best}: {_apart(found.metrics)}{_saved(found.metrics)}"


def _saved(metrics: Mapping[str, float]) -> str:
    cost, single = metrics.get("cost", 0.0), metrics.get("best_single_cost", 0.0)
    if not (cost > 0 and single > 0):
        return ""
    return f", at {100 * abs(1 - cost / single):.0f} % {'less' if cost <= single else 'more'} cost"


def snippet(report: Report) -> str:
    """What to add to a configuration file so that the routers are served."""
    entries = {found.method: _entry(found, str(report.folders[found.method].resolve())) for found in report.fitted}
    return str(yaml.safe_dump({"ensembles": entries}, sort_keys=False, allow_unicode=True)).rstrip()


def _entry(found: Fitted, folder: str) -> dict[str, Any]:
    options: dict[str, Any] = {"path": folder}
    if found.policy != getattr(named(found.method), "policy", None):
        options["policy"] = {"kind": _kind(found.policy), **found.policy.model_dump(mode="json", exclude_defaults=True)}
    seats = dict.fromkeys(_seat(name) for name in found.router.members)
    return {"method": found.method, "members": list(seats), "options": options}


def _seat(column: str) -> str:
    """The member that answers for a column ``member|strategy`` or ``member@n``."""
    base = column.partition("|")[0]
    member, _, count = base.rpartition("@")
    return member if member and count.isdecimal() else base


def _kind(policy: Policy) -> str:
    return str(type(policy).model_fields["kind"].default)


def _worded(policy: Policy) -> str:
    """
    >>> from ensemble.before.policies import Mix
    >>> _worded(Mix(mu=0.123456))
    'mix mu=0.1235'
    """
    given = policy.model_dump(exclude_defaults=True, exclude={"kind"})
    values = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in given.items())
    return " ".join([_kind(policy), *values])


def _percent(part: float) -> str:
    return f"{100 * part:.1f}"


def _apart(metrics: Mapping[str, float]) -> str:
    gain, low, high = (100 * metrics[name] for name in ("gain", "gain_low", "gain_high"))
    return f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]"


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.3g}"
