"""Choosing members, weights and options on the development part, and judging the choice on the test part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cluster.config import Configuration
from ensemble.concurrency import together
from jobs.evaluation.asks import Ask
from jobs.evaluation.candidates import NAME, Candidate
from jobs.evaluation.grading import Grade
from jobs.evaluation.halving import Purse, Rung, Standing, search
from jobs.evaluation.inquiry import Inquiry
from jobs.evaluation.questions import Question
from jobs.evaluation.run import Design, Found
from jobs.evaluation.space import Wish
from jobs.evaluation.systems import Kind, Outcome, System, alone, ranked
from jobs.evaluation.tables import Words, percent

UNTUNED = "untuned"
"""Name of the first candidate in reports: all members, equal weights, the first values."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning came to."""

    found: Found
    """Members, the first candidate and the chosen one, on the test part."""
    candidates: Sequence[Candidate]
    standings: Sequence[Standing]
    """On the development part, the best first."""
    tokens: int
    """Spent on the candidates there."""

    @property
    def chosen(self) -> Candidate:
        return self.candidates[self.standings[0].candidate]

    @property
    def best(self) -> System:
        """The best member of the development part, there."""
        return next(system for system in self.found.development if system.name == self.found.chosen)

    def warnings(self) -> Iterator[str]:
        """What speaks against the choice."""
        accuracy = self.standings[0].accuracy
        if accuracy <= self.best.accuracy:
            yield (
                f"no candidate was better than {self.best.name} alone on the development part "
                f"({percent(accuracy)} against {percent(self.best.accuracy)} %): use {self.best.name}"
            )

    def table(self) -> Words:
        """The candidates, the best first."""
        columns = ("candidate", "rungs", "questions", "right %", "tokens")
        rows = [
            [
                self.candidates[standing.candidate].words,
                f"{standing.rungs}",
                f"{len(standing.outcomes)}",
                percent(standing.accuracy),
                f"{-standing.score(list(standing.outcomes))[1]:.1f}" if standing.outcomes else "-",
            ]
            for standing in self.standings
        ]
        return Words("Candidates on the development part", columns, rows)


async def tuned(
    design: Design,
    candidates: Sequence[Candidate],
    rungs: Sequence[Rung],
    purse: Purse,
    width: int,
    questions: Sequence[Question],
    grade: Grade,
    inquiry: Inquiry,
) -> Tuned:
    """Ask the members everything, the candidates what the rungs say, and the first and the chosen one the test part."""
    parts = {split: [q for q in questions if q.split == split] for split in ("development", "test")}

    async def system(name: str, kind: Kind, split: str, ask: Candidate | str) -> System:
        replies = await inquiry.all([_ask(design, ask, question) for question in parts[split]])
        rows = zip(parts[split], replies, strict=True)
        return System(name, kind, tuple(alone(question, reply, grade) for question, reply in rows))

    async def members(split: str) -> list[System]:
        return await together(system(name, "member", split, name) for name in design.members)

    async def answer(candidate: int, place: int) -> Outcome:
        question = parts["development"][place]
        return alone(question, await inquiry.one(_ask(design, candidates[candidate], question)), grade)

    development = await members("development")
    standings = await search(rungs, answer, purse, width=width)
    pair = {UNTUNED: candidates[0], NAME: candidates[standings[0].candidate]}
    test = await members("test")
    ensembles = await together(system(name, "ensemble", "test", candidate) for name, candidate in pair.items())
    found = Found(development, [*test, *ensembles], ranked(development)[0].name, {})
    return Tuned(found, candidates, standings, purse.spent)


def _ask(design: Design, whom: Candidate | str, question: Question) -> Ask:
    if isinstance(whom, str):
        return replace(design.ask(whom, question), logprobs=False)
    return replace(design.ask(whom.ensemble, question), options=whom.options)


def entry(tuned: Tuned, configuration: Configuration | None, wish: Wish) -> dict[str, Any]:
    """The chosen candidate as it stands under ``ensembles:`` in a configuration.

    Members without weight are left out, unless options speak of them.
    """
    chosen = tuned.chosen
    before: dict[str, Any] = {"method": wish.method}
    if configuration is not None:
        before = configuration.as_dict()["ensembles"][chosen.ensemble]
    options = {**before.get("options", {}), **chosen.given}
    members = list(chosen.members)
    if isinstance(options.get("weights"), list) and not options.get("draft"):
        members = list(chosen.called)
        options["weights"] = [weight for weight in options["weights"] if weight]
    return {**before, "members": members, **({"options": options} if options else {})}


def write(tuned: Tuned, configuration: Configuration | None, wish: Wish, path: Path) -> None:
    """Write ``chosen.yaml``: an entry to be pasted into a configuration, and how it did."""
    accuracy = tuned.found.test[-1].accuracy
    head = [
        f"right on {percent(tuned.standings[0].accuracy)} % of {len(tuned.standings[0].outcomes)} questions of the "
        f"development part and on {percent(accuracy)} % of the test part,",
        f"where {tuned.found.chosen}, the best member, is right on {percent(tuned.found.best.accuracy)} %",
        *tuned.warnings(),
    ]
    body = yaml.safe_dump({"ensembles": {NAME: entry(tuned, configuration, wish)}}, sort_keys=False)
    path.write_text("".join(f"# {line}\n" for line in head) + body, encoding="utf-8")
