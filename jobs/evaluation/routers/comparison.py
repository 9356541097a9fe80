"""Routers fitted to the same outcomes and compared on the same other ones.

Every router is judged by the member with the highest quality that it predicts, so that heads are compared and not
knobs; by what its own policy does with its defaults; and, where there are costs, by the curve over all prices of money.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ensemble.before.policies.policy import Prediction, best_of
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.method import Stage, methods
from ensemble.outcomes import sweeps
from ensemble.outcomes.curves import Point
from ensemble.outcomes.dense import Dense, Floats, Ints
from ensemble.outcomes.measures import brier, calibration_error
from ensemble.outcomes.references import SINGLE, Taken, references, singles, taken
from jobs.evaluation.routers.divisions import Division

Routers = Mapping[str, type[Routing]]
Told = Callable[[str], None]
"""Told the name of the router that is fitted now."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Entrant:
    """One router."""

    name: str
    best: Taken
    """Where the member with the highest predicted quality answers."""
    served: Taken
    """Where its own policy decides, with its defaults."""
    predicted: Floats
    """[n, M], quality."""
    curve: tuple[Point, ...]
    """Over prices of money; empty where costs are not known."""
    brier: float
    """Of the predicted quality; NaN where scores only rank."""
    calibration_error: float
    fit_seconds: float
    decision_ms: float
    """Median over single queries, given their embedding."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Comparison:
    """Routers on the same queries."""

    title: str
    tested: Dense
    references: tuple[Taken, ...]
    zero: tuple[Point, ...]
    """Single members; empty where costs are not known."""
    oracle: tuple[Point, ...]
    """Curve of who knows every outcome; empty where costs are not known."""
    entrants: tuple[Entrant, ...]
    refused: Mapping[str, str]
    """Routers that were not fitted to this table, and why."""

    @property
    def single(self) -> Taken:
        """The best single member, picked on what was fitted to."""
        return next(reference for reference in self.references if reference.name == SINGLE)


def routers(names: Sequence[str] = ()) -> Routers:
    """Methods that are fitted to outcomes.

    Args:
        names: empty: all.

    Raises:
        BadRequest: there is no such router; the message lists those there are.
    """
    known = {n: m for n, m in methods().items() if m.stage is Stage.BEFORE and issubclass(m, Routing)}
    if strange := [name for name in names if name not in known]:
        raise BadRequest(f"no router is named {', '.join(strange)}; there are: {', '.join(known)}", param="routers")
    return {name: known[name] for name in names or known}


def compared(title: str, divisions: Sequence[Division], entrants: Routers, told: Told) -> Comparison:
    """Fit every router to each division and put what they do on the tested parts together; one that cannot be fitted,
    or breaks, is told of."""
    tested = joined([division.test.table for division in divisions])
    listed = [references(division.fit.table, division.test.table) for division in divisions]
    priced = bool((~np.isnan(tested.cost)).all() and tested.cost.any())
    found, refused = list[Entrant](), dict[str, str]()
    for name, method in entrants.items():
        told(name)
        try:
            found.append(entrant(method, divisions, tested, priced=priced))
        except (BadRequest, ConfigurationError) as error:
            refused[name] = error.message
        except Exception as error:
            # One router that breaks on a table does not cost what the others have shown.
            if len(entrants) == 1:
                raise
            refused[name] = f"its fit broke: {type(error).__name__}: {error}"
    return Comparison(
        title=title,
        tested=tested,
        references=_pooled(listed),
        zero=tuple(singles(tested)) if priced else (),
        oracle=tuple(sweeps.oracle_sweep(tested)) if priced else (),
        entrants=tuple(found),
        refused=refused,
    )


def entrant(method: type[Routing], divisions: Sequence[Division], tested: Dense, *, priced: bool) -> Entrant:
    """One router on all divisions.

    Raises:
        BadRequest: the table lacks what the router learns from.
    """
    began = perf_counter()
    fitted = [method.fit(division.fit, method.Fit()) for division in divisions]
    seconds = perf_counter() - began
    predictions = [r.predict(d.test.x, _tokens(d.test.table)) for r, d in zip(fitted, divisions, strict=True)]
    quality, cost = (np.concatenate([getattr(p, name) for p in predictions]) for name in ("quality", "cost"))
    probable = fitted[0].head.probabilities or fitted[0].calibration is not None
    return Entrant(
        name=method.name,
        best=taken(method.name, tested, np.concatenate([_best(p) for p in predictions])),
        served=_served(method, predictions, tested),
        predicted=quality,
        curve=tuple(sweeps.sweep(quality, cost, tested)) if priced else (),
        brier=brier(quality, tested.quality) if probable else float("nan"),
        calibration_error=calibration_error(quality, tested.quality) if probable else float("nan"),
        fit_seconds=seconds,
        decision_ms=decision_ms(fitted[0], divisions[0].test.x),
    )


def _best(prediction: Prediction) -> Ints:
    allowed = np.ones(prediction.quality.shape, bool)
    return best_of(prediction.quality, allowed, prediction.cost).chosen


def _served(method: type[Routing], predictions: Sequence[Prediction], tested: Dense) -> Taken:
    """Under the method's own policy. Where several members answer, the one with most votes stands for the answer, and
    all are paid."""
    random = np.random.default_rng(0)
    choices = [method.policy.choose(p, np.ones(p.quality.shape, bool), random) for p in predictions]
    own = taken(method.name, tested, np.concatenate([choice.chosen for choice in choices]))
    if any(choice.weights is None for choice in choices):
        return own
    asked = np.concatenate([choice.weights > 0 for choice in choices if choice.weights is not None])
    cost = np.where(asked, tested.cost, 0).sum(axis=1)
    return Taken(name=own.name, quality=own.quality, cost=cost, chosen=own.chosen)


def decision_ms(router: Router, x: Floats, rounds: int = 30) -> float:
    """Median of predictions for one query."""
    times = []
    for row in range(rounds):
        one = x[row % len(x)][None]
        began = perf_counter()
        router.predict(one)
        times.append(perf_counter() - began)
    return 1e3 * float(np.median(times))


def _tokens(table: Dense) -> Floats:
    """[n], tokens of each prompt: the mean over members; 0 where nothing is known."""
    seen = ~np.isnan(table.input_tokens)
    sums = np.nan_to_num(table.input_tokens).sum(axis=1)
    return np.asarray(sums / np.maximum(seen.sum(axis=1), 1))


def joined(tables: Sequence[Dense]) -> Dense:
    """Tables over the same members, one behind the other: ids, texts, tasks, quality and cost."""
    return Dense(
        queries=tuple(query for table in tables for query in table.queries),
        texts=tuple(text for table in tables for text in table.texts),
        members=tables[0].members,
        quality=np.concatenate([table.quality for table in tables]),
        cost=np.concatenate([table.cost for table in tables]),
        tasks=tuple(task for table in tables for task in table.tasks),
    )


def _pooled(listed: Sequence[Sequence[Taken]]) -> tuple[Taken, ...]:
    """The references that all divisions have."""
    names = [reference.name for reference in listed[0]]
    by_name = [{reference.name: reference for reference in references} for references in listed]
    return tuple(_behind([of[name] for of in by_name]) for name in names if all(name in of for of in by_name))


def _behind(same: Sequence[Taken]) -> Taken:
    """One way of choosing on several parts, one behind the other."""
    chosen = [part.chosen for part in same if part.chosen is not None]
    return Taken(
        name=same[0].name,
        quality=np.concatenate([part.quality for part in same]),
        cost=np.concatenate([part.cost for part in same]),
        chosen=np.concatenate(chosen) if chosen else None,
    )
