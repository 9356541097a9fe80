"""``report.md``: an evaluation in words and tables, with what was asked and how, so that it can be done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from jobs.evaluation import tables
from jobs.evaluation.run import Found
from jobs.evaluation.statistics import compared
from jobs.evaluation.tables import Words, percent

PLOT = "quality_cost.png"
_SHOWN = 10
"""Errors told with their messages."""


def write(
    found: Found,
    path: Path,
    *,
    title: str,
    facts: Mapping[str, object],
    seed: int,
    more: Sequence[Words] = (),
    first: Sequence[str] = (),
) -> None:
    """Write the report.

    Args:
        facts: what was asked and how, by what it is called.
        more: further tables, after those that every report has.
        first: findings that go before those that every report has.
    """
    parts = [
        f"# {title}",
        listed([f"{name}: {value}" for name, value in facts.items()]),
        "## Findings",
        listed([*first, *findings(found, seed)]),
        *_tables(found, seed, more),
    ]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _tables(found: Found, seed: int, more: Sequence[Words]) -> Iterator[str]:
    for words in (tables.systems(found, seed), tables.equal_calls(found, seed), tables.by_task(found), *more):
        yield from section(words)
    yield f"![Quality against price]({PLOT})"
    if found.development:
        rows = [[system.name, percent(system.accuracy), *tables.prices(system)] for system in found.development]
        yield from section(Words("Members on the development part", ("system", "right %", *tables.PRICES), rows))
    yield from section(tables.errors(found))
    yield from _examples(found)
    yield (
        "95 %: percentile interval of a bootstrap over questions (2,000 resamples); differences are paired, on the "
        "same questions, in points. p: McNemar's exact test of won against lost. tokens, calls, cost: means for each "
        "answer over all models; seconds: of the slowest of calls made at once."
    )


def findings(found: Found, seed: int) -> Iterator[str]:
    """What was found, a sentence each: losses are told as losses."""
    yield best_member(found)
    for system in found.ensembles:
        against = compared(system.right, found.best.right, seed=seed)
        sentence = f"{system.name}: {against.verdict} against {found.chosen}, the best member"
        if found.hindsight.accuracy > found.best.accuracy:
            luckiest = compared(system.right, found.hindsight.right, seed=seed)
            sentence += f"; {luckiest.verdict} against {found.hindsight.name}, the best in hindsight"
        if system.name in found.equal:
            vote = compared(system.right, found.equal[system.name].right, seed=seed)
            sentence += f"; {vote.verdict} against the majority vote at equal calls"
        yield sentence
    yield from tables.apart(found.development or found.members)


def best_member(found: Found) -> str:
    """Which it is, how it was chosen, and which one would have been best in hindsight."""
    here = f"the best member is {found.chosen}, right on {percent(found.best.accuracy)} % of the test part"
    if not found.development:
        return f"{here}; it was chosen on these questions, as there is no development part, so its figure is flattering"
    chosen = next(system for system in found.development if system.name == found.chosen)
    here += f"; it was chosen on the development part, with {percent(chosen.accuracy)} %"
    if found.hindsight.accuracy == found.best.accuracy:
        return f"{here}; in hindsight none is better"
    return f"{here}; in hindsight {found.hindsight.name} is better, with {percent(found.hindsight.accuracy)} %"


def section(words: Words) -> Iterator[str]:
    """A heading and a table; nothing if it has no rows."""
    if words.rows:
        yield f"## {words.title}"
        yield words.markdown()


def listed(sentences: Sequence[str]) -> str:
    """Markdown's list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _examples(found: Found) -> Iterator[str]:
    told = (
        f"row {outcome.question.row}, {system.name}: {outcome.error}"
        for system in (*found.development, *found.test)
        for outcome in system.outcomes
        if outcome.error is not None
    )
    if shown := list(islice(told, _SHOWN)):
        yield listed(shown)
