"""BEST-Route: the cheapest arm, a member and a number of samples, that is likely to match the best member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.match import Match
from ensemble.before.policies import Enough, Policy
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.matching import best, matches, rated, samples_of
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Dense, Floats

TIMES = "@"
"""Stands between a member's name and the number of its samples."""


class BestRouteFit(FitOptions):
    """Options of the fit of ``best_route``."""

    reference: str | None = None
    """Name of the member whose single answer is to be matched. Omitted: the one with the highest mean quality."""
    samples: int = Field(default=1, ge=1, le=64)
    """Arms ``member@2`` to ``member@n`` are made of each plain member's outcomes up to this many samples; 1: the arms
    are those that the table has. Omitted: 1."""
    outcomes: Literal["graded", "rates"] = "graded"
    """What a quality without samples is: a grade of one answer, or the rate at which answers are right. Omitted:
    graded."""
    selector: float = Field(default=1.0, ge=0, le=1)
    """How well the best of several samples is found: 1 always, 0 not at all. Of arms that are made. Omitted: 1."""
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """How much worse an answer may be and still match, in units of quality. Omitted: 0."""
    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of the logistic regressions. Omitted: the best of 0.3, 1, 3, … 100 on a fifth of the queries, held out."""


@method("best_route", stage=Stage.BEFORE, paper="2506.22716", needs={Capability.GENERATE}, options=RoutingOptions)
class BestRoute(Routing):
    """BEST-Route (arXiv 2506.22716): for each arm ``"member@n"`` the probability that the best of its n samples is as
    good as one answer of the reference; the cheapest arm that is likely enough answers, else the reference.

    The paper's threshold on P(match) - P(no match) is the policy ``enough`` with least = (1 + threshold) ÷ 2. The
    probability never falls with n.

    Asks of members: one answer of the chosen one, or its n samples.

    Departures from the paper and its code:

    * Logistic regression on a frozen sentence encoder stands for a fine-tuned encoder with a head for each arm.
    * The best of several samples is found as well as ``selector`` says; no reward model is trained.
    * n samples cost n answers and the prompt once where prices of tokens are known, else n times an answer.
    """

    Fit: ClassVar[type[FitOptions]] = BestRouteFit
    policy: ClassVar[Policy] = Enough()

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, BestRouteFit)
        table = training.table
        reference = _reference(table, options)
        arms = _arms(table, options)
        armed = _armed(table, arms, options.selector)
        labels = np.stack([_label(table, arm, reference, options) for arm in arms], axis=1)
        place = next(i for i, arm in enumerate(arms) if (arm.column, arm.made) == (reference, 1))
        right = table.quality[:, reference]
        head = Match.fit(
            training.x, labels, place, _chains(arms), penalty=options.penalty, right=right, seed=training.seed
        )
        return Router(armed.members, place, head, known(replace(training, table=armed)))


class _Arm(NamedTuple):
    name: str
    member: str
    """Without the number of samples."""
    samples: int
    """Answers of which the best is taken."""
    column: int
    """Of the table."""
    made: int
    """Samples that are drawn of the column's outcomes; 1: the column is this arm's own."""


def parted(name: str) -> tuple[str, int]:
    """Member and number of samples of a name; a plain name is one sample.

    >>> parted("small@4"), parted("large"), parted("a@b")
    (('small', 4), ('large', 1), ('a@b', 1))
    """
    member, _, count = name.rpartition(TIMES)
    return (member, int(count)) if member and count.isdecimal() and int(count) else (name, 1)


def _arms(table: Dense, options: BestRouteFit) -> list[_Arm]:
    """The columns, and after them the arms that are made of the outcomes of plain ones."""
    if options.samples > 1 and table.samples is None and options.outcomes == "graded":
        rule = "the table has no single samples, so arms of several are not known"
        raise BadRequest(f"{rule}; allowed: samples 1, or outcomes: rates", param="samples")
    arms = [_Arm(name, *parted(name), column, 1) for column, name in enumerate(table.members)]
    there = {(arm.member, arm.samples) for arm in arms}
    for arm in [arm for arm in arms if arm.samples == 1]:
        for count in range(2, options.samples + 1):
            if (arm.member, count) not in there:
                arms.append(_Arm(f"{arm.member}{TIMES}{count}", arm.member, count, arm.column, count))
    return arms


def _chains(arms: Sequence[_Arm]) -> list[list[int]]:
    """Positions of each member's arms, fewest samples first."""
    found: dict[str, list[int]] = {}
    for place in sorted(range(len(arms)), key=lambda i: arms[i].samples):
        found.setdefault(arms[place].member, []).append(place)
    return list(found.values())


def _reference(table: Dense, options: BestRouteFit) -> int:
    """Column of the reference: one sample."""
    single = [column for column, name in enumerate(table.members) if parted(name)[1] == 1]
    if not single:
        raise BadRequest("best_route matches a single answer of some member; all columns are of several samples")
    if options.reference is None:
        return max(single, key=lambda column: np.nan_to_num(table.means[column], nan=-1.0))
    names = [table.members[column] for column in single]
    if options.reference not in names:
        rule = f"reference is no member with single answers; allowed: {', '.join(names)}"
        raise BadRequest(rule, param="reference")
    return table.members.index(options.reference)


def _label(table: Dense, arm: _Arm, reference: int, options: BestRouteFit) -> Floats:
    """[n], P(match); NaN where the arm or the reference was not observed."""
    if table.samples is None and options.outcomes == "rates":
        return rated(table.quality[:, arm.column], table.quality[:, reference], arm.made, options.selector)
    own, other = samples_of(table, arm.column), samples_of(table, reference)
    return matches(own, other, options.tolerance, arm.made, options.selector)


def _armed(table: Dense, arms: Sequence[_Arm], selector: float) -> Dense:
    """The table with a column for each arm, and what each costs."""
    columns, made = [arm.column for arm in arms], np.array([float(arm.made) for arm in arms])
    found = table.among([table.members[column] for column in columns])
    more = (made - 1) * found.output_tokens * found.prices[:, 1]
    cost = np.where(np.isnan(more) | (found.cost < 0), found.cost * made, found.cost + more)
    return replace(
        found,
        members=tuple(arm.name for arm in arms),
        quality=np.stack([best(found.quality[:, i], arm.made, selector) for i, arm in enumerate(arms)], axis=1),
        samples=None,
        cost=cost,
        output_tokens=found.output_tokens * made,
    )
