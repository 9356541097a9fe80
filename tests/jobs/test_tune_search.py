"""Successive halving, and a whole tuning over dictated members."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluation_doubles import Dictated, asking, questions, reply

from cluster.config import load, parse
from ensemble.errors import BadRequest
from ensemble.request import Delta, Event, Finish, Request, Spent, Usage
from jobs.evaluation import tuning
from jobs.evaluation.candidates import Candidate
from jobs.evaluation.grading import grade
from jobs.evaluation.halving import Purse, Rung, Standing, schedule, search
from jobs.evaluation.options import canonical
from jobs.evaluation.run import Design
from jobs.evaluation.space import Wish
from jobs.evaluation.systems import Outcome, alone
from jobs.evaluation.tuning import Tuned, tuned

EXACT = grade("exact")
SERVICE = load(Path(__file__).parents[1] / "service.yaml")


@pytest.mark.parametrize(
    ("candidates", "there", "budget", "rungs"),
    [
        (1, 50, None, [(1, 50)]),
        (2, 50, None, [(2, 50)]),
        (3, 60, None, [(3, 40), (2, 60)]),
        (8, 100, 240, [(8, 10), (4, 20), (2, 40)]),
        (8, 12, 240, [(8, 10), (4, 12), (2, 12)]),
        (5, 100, 30, [(5, 2), (3, 3), (2, 5)]),
        (64, 10_000, None, [(64, 312), (32, 625), (16, 1250), (8, 2500), (4, 5000), (2, 10_000)]),
    ],
)
def test_rungs(candidates: Any, there: Any, budget: Any, rungs: Any) -> None:
    found = schedule(candidates, there, budget)
    assert found == [Rung(*rung) for rung in rungs]
    if budget is not None:
        assert sum(rung.candidates * rung.questions for rung in found) <= budget


def test_budgets_that_are_too_small() -> None:
    with pytest.raises(BadRequest, match="20 questions are too few for 8 candidates; give at least 24"):
        schedule(8, 100, 20)
    assert schedule(8, 100, 24)[0] == Rung(8, 1)


class Field:
    """Candidate i is right on the first ``skills[i]`` of ten questions, over and over."""

    def __init__(self, skills: list[int], tokens: int = 10) -> None:
        self.asked: Counter[tuple[int, int]] = Counter()
        self._skills, self._tokens = skills, tokens
        self.questions = questions(*["4"] * 200)

    async def answer(self, candidate: int, place: int) -> Outcome:
        self.asked[candidate, place] += 1
        await asyncio.sleep(0)
        text = "4" if place % 10 < self._skills[candidate] else "5"
        return alone(self.questions[place], reply(text, tokens=self._tokens + candidate), EXACT)


def sought(field: Field, rungs: list[Rung], purse: Purse | None = None, width: int = 4) -> list[Standing]:
    return asyncio.run(search(rungs, field.answer, purse or Purse(), width=width))


def test_the_best_is_found_and_no_answer_is_wasted() -> None:
    field = Field([3, 9, 5, 1, 2, 6, 4, 0])
    standings = sought(field, schedule(8, 100, 3 * 160))
    assert [s.candidate for s in standings] == [1, 5, 2, 6, 0, 4, 3, 7]
    assert [len(s.outcomes) for s in standings] == [80, 80, 40, 40, 20, 20, 20, 20]
    assert [s.rungs for s in standings] == [3, 3, 2, 2, 1, 1, 1, 1]
    assert [s.accuracy for s in standings[:3]] == [0.9, 0.6, 0.5]
    assert set(field.asked.values()) == {1}, "no question is put twice"


def test_ties_go_to_fewer_tokens() -> None:
    assert [s.candidate for s in sought(Field([5, 5, 5]), schedule(3, 20))] == [0, 1, 2]


def test_an_empty_purse_ends_the_search() -> None:
    field, purse = Field([3, 9, 5, 1]), Purse(limit=900)
    standings = sought(field, schedule(4, 100), purse)
    assert 900 <= purse.spent <= 900 + 4 * 13
    assert purse.spent == sum((10 + candidate) * n for (candidate, _), n in field.asked.items())
    assert standings[0].candidate == 1
    counts = [len(s.outcomes) for s in standings]
    assert max(counts) - min(counts) <= 2, "question by question"
    with pytest.raises(BadRequest, match="too small for one answer of each candidate"):
        sought(Field([3, 9, 5, 1]), schedule(4, 100), Purse(limit=1), width=1)


def test_candidates_are_compared_on_common_questions() -> None:
    # The purse ends in the middle of a question: the last one is right only for those that were asked it.
    field = Field([2, 2])
    standings = sought(field, [Rung(2, 3)], Purse(limit=10 + 11 + 10), width=1)
    assert sorted(len(s.outcomes) for s in standings) == [1, 2]
    assert standings[0].candidate == 0


class Pair(Dictated):
    """An ensemble of ``left`` and ``right``: right where the heavier one is, on even or odd questions; equal: never."""

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.asked.append(request)
        left, right = request.options["weights"]
        number = int(request.question[1:])
        yield Spent("pair", Usage(2, 19, 1))
        yield Delta("4" if (left > right and number % 10) or (right > left and number % 2) else "5")
        yield Finish("stop")


def members() -> dict[str, Dictated]:
    return {
        "left": Dictated("left", lambda question, _: "4" if int(question[1:]) % 4 else "5"),
        "right": Dictated("right", lambda question, _: "4" if int(question[1:]) % 2 else "5"),
        "pair": Pair("pair", lambda *_: ""),
    }


CANDIDATES = [
    Candidate("pair", ("left", "right"), canonical({"weights": weights})) for weights in ([1, 1], [1, 3], [3, 1])
]


def tune(folder: Path, crew: dict[str, Dictated]) -> Tuned:
    asked = [*questions(*["4"] * 40, split="development"), *questions(*["4"] * 40, start=40)]
    rungs, design = schedule(3, 40), Design(members=("left", "right"))

    async def work() -> Tuned:
        with asking(folder, crew) as inquiry:
            return await tuned(design, CANDIDATES, rungs, Purse(), 4, asked, EXACT, inquiry)

    return asyncio.run(work())


def test_the_choice_is_made_on_one_part_and_judged_on_the_other(tmp_path: Path) -> None:
    crew = members()
    found = tune(tmp_path, crew)
    assert found.chosen == CANDIDATES[2]
    assert found.standings[0].accuracy == 0.9
    assert [(s.name, s.kind, s.accuracy) for s in found.found.test] == [
        ("left", "member", 0.75),
        ("right", "member", 0.5),
        ("untuned", "ensemble", 0.0),
        ("tuned", "ensemble", 0.9),
    ]
    assert (found.found.chosen, found.best.accuracy) == ("left", 0.75)
    assert list(found.warnings()) == []
    on_test = [r.options["weights"] for r in crew["pair"].asked if int(r.question[1:]) >= 40]
    assert Counter(map(tuple, on_test)) == {(1, 1): 40, (3, 1): 40}, "losers are not asked what is not reported"
    assert found.tokens == 20 * len([r for r in crew["pair"].asked if int(r.question[1:]) < 40])
    assert found.table().rows[0] == ["left 3, right 1", "2", "40", "90.0", "20.0"]


def test_going_on_asks_nothing_again(tmp_path: Path) -> None:
    crew = members()
    first = tune(tmp_path, crew)
    asked = {name: len(member.asked) for name, member in crew.items()}
    again = tune(tmp_path, crew)
    assert {name: len(member.asked) for name, member in crew.items()} == asked
    assert again.chosen == first.chosen and again.tokens == first.tokens


def test_a_choice_that_is_no_better_than_the_best_member_is_warned_of(tmp_path: Path) -> None:
    crew = members()
    crew["left"] = Dictated("left", lambda *_: "4")
    found = tune(tmp_path, crew)
    assert list(found.warnings()) == [
        "no candidate was better than left alone on the development part (90.0 against 100.0 %): use left"
    ]


def wish(**given: Any) -> Wish:
    wanted: dict[str, Any] = {"method": "gac", "members": ("left", "right"), "options": {}, "grid": {}, "steps": 4}
    return Wish(**{**wanted, **given})


def test_what_is_written_can_be_pasted(tmp_path: Path) -> None:
    found = tune(tmp_path / "answers", members())
    tuning.write(found, None, wish(), tmp_path / "chosen.yaml")
    text = (tmp_path / "chosen.yaml").read_text()
    assert text.startswith(
        "# right on 90.0 % of 40 questions of the development part and on 90.0 % of the test part,\n"
    )
    entries = yaml.safe_load(text)["ensembles"]
    assert entries == {"tuned": {"method": "gac", "members": ["left", "right"], "options": {"weights": [3, 1]}}}
    data = SERVICE.as_dict()
    data["models"] |= {"left": data["models"]["adder"], "right": data["models"]["words"]}
    data["ensembles"] |= entries
    assert parse(data).ensembles["tuned"].options == {"weights": [3, 1]}


def test_members_without_weight_are_left_out_of_the_entry() -> None:
    chosen = Candidate("forest", ("adder", "words", "mixed"), json.dumps({"weights": [0, 1, 2], "topk": 5}))
    found = Tuned(None, [chosen], [Standing(0)], 0)  # type: ignore[arg-type]
    made = tuning.entry(found, None, wish())
    assert made == {"method": "gac", "members": ["words", "mixed"], "options": {"weights": [1, 2], "topk": 5}}


def test_what_the_configuration_says_of_the_ensemble_is_kept() -> None:
    chosen = Candidate("gac", ("adder", "words"), json.dumps({"weights": [3, 1]}))
    made = tuning.entry(Tuned(None, [chosen], [Standing(0)], 0), SERVICE, wish())  # type: ignore[arg-type]
    assert made == {
        "method": "gac",
        "members": ["adder", "words"],
        "resources": {"cpus": 0.1},
        "options": {"weights": [3, 1]},
    }
