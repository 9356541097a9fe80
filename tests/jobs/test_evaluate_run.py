"""A whole evaluation over dictated members, every figure of which can be worked out by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from evaluation_doubles import Dictated, asking, questions

from ensemble.errors import MemberError
from jobs.evaluation.grading import grade
from jobs.evaluation.run import Design, Found, evaluated
from jobs.evaluation.systems import System

EXACT = grade("exact")

# Four questions to choose on, four to report from; all answers are "4".
QUESTIONS = [*questions("4", "4", "4", "4", split="development"), *questions("4", "4", "4", "4", start=4)]


def said(right: str) -> Any:
    """Right ("x"), wrong (".") or an error ("!") by the question's number; sampled answers are all right."""

    def says(question: str, before: int) -> str | MemberError:
        letter = right[int(question[1:])]
        if letter == "!" and not before:
            return MemberError("gone")
        return "4" if letter == "x" or before else f"wrong {question}"

    return says


def crew() -> dict[str, Dictated]:
    """``left`` is better on the development part, ``right`` on the test part; ``pair`` makes three calls."""
    return {
        "left": Dictated("left", said("xxx.x..."), tokens=10, logprob=-4.0),
        "right": Dictated("right", said("x....xx."), tokens=20, logprob=-1.0),
        "pair": Dictated("pair", said("----xx.!"), calls=3, tokens=35),
    }


def run(folder: Path, members: Mapping[str, Dictated], **given: Any) -> Found:
    models = frozenset({"left", "right"})
    design = Design(**{"members": ("left", "right"), "models": models, "ensembles": ("pair",), **given})

    async def work() -> Found:
        with asking(folder, members) as inquiry:
            return await evaluated(design, QUESTIONS, EXACT, inquiry)

    return asyncio.run(work())


def named(found: Found, name: str) -> System:
    return next(system for system in found.test if system.name == name)


def right(system: System) -> str:
    return "".join("x" if outcome.right else "." for outcome in system.outcomes)


def test_every_system_by_hand(tmp_path: Path) -> None:
    found = run(tmp_path, crew())
    assert [(s.name, s.accuracy) for s in found.development] == [("left", 0.75), ("right", 0.25)]
    assert found.chosen == "left", "not right, which is better on the test part"
    assert [(s.name, s.kind, right(s)) for s in found.test] == [
        ("left", "member", "x..."),
        ("right", "member", ".xx."),
        # 35 tokens are left's greedy answer and two samples: wrong, right, right.
        ("majority vote of left", "vote", "xxxx"),
        # 35 tokens are left and right; 40 with left's first sample are too many. A tie goes to left, who is the best.
        ("majority vote", "vote", "x..."),
        # Per byte: right's "4" has -1, left's "wrong q5" has -4/8 = -0.5, right's "wrong q4" -1/8.
        ("rerank", "rerank", "...."),
        ("oracle", "oracle", "xxx."),
        ("pair", "ensemble", "xx.."),
    ]
    assert found.best is named(found, "left")


def test_amounts(tmp_path: Path) -> None:
    found = run(tmp_path, crew())
    amounts = {s.name: (s.mean("tokens"), s.mean("calls"), s.errors) for s in found.test}
    assert amounts == {
        "left": (10, 1, 0),
        "right": (20, 1, 0),
        # The last question: the failed attempt of pair had spent its tokens too.
        "majority vote of left": (30, 3, 0),
        "majority vote": (30, 2, 0),
        "rerank": (30, 2, 0),
        "oracle": (30, 2, 0),
        "pair": (35, 3, 1),
    }
    assert all(outcome.tokens <= 35 for system in found.test for outcome in system.outcomes)


def test_the_vote_at_equal_calls(tmp_path: Path) -> None:
    found = run(tmp_path, crew())
    vote = found.equal["pair"]
    # Three calls: left, right, and left's first sample, which is right: q4 "4" against "wrong q4"; q7 one against two
    # different wrong ones, all once; the first of these stands.
    assert [outcome.calls for outcome in vote.outcomes] == [3, 3, 3, 3]
    assert right(vote) == "xxx."
    assert found.capped(named(found, "pair")) == 0
    short = run(tmp_path, crew(), samples=1)
    assert short.capped(named(short, "pair")) == 4
    assert [outcome.calls for outcome in short.equal["pair"].outcomes] == [2, 2, 2, 2]


def test_a_fixed_budget_binds_everyone(tmp_path: Path) -> None:
    members = crew()
    members["pair"] = Dictated("pair", said("----xx.."), calls=3, tokens=24)
    found = run(tmp_path, members, tokens=25)
    assert {r.budget.tokens for member in members.values() for r in member.asked} == {25}
    amounts = {s.name: s.mean("tokens") for s in found.test}
    assert amounts["majority vote of left"] == 20
    assert amounts["majority vote"] == amounts["rerank"] == 10
    # Both answers are needed to know whether any is right; a bound is no system.
    assert amounts["oracle"] == 30
    assert found.equal["pair"].mean("tokens") == 10


def test_where_an_ensemble_goes_above_the_budget_everyone_may(tmp_path: Path) -> None:
    found = run(tmp_path, crew(), tokens=25)
    amounts = {s.name: s.mean("tokens") for s in found.test}
    assert (amounts["pair"], amounts["majority vote of left"], amounts["majority vote"]) == (35, 30, 30)
    # Calls allow left's sample as well, at 40 tokens, but the budget does not.
    assert found.equal["pair"].mean("tokens") == 30
    assert found.capped(named(found, "pair")) == 4


def test_the_budget_holds_for_a_choice_among_members(tmp_path: Path) -> None:
    members = crew()
    members["pair"] = Dictated("pair", said("----xx.."), calls=3, tokens=29)
    found = run(tmp_path, members)
    # Left's answer alone: right's would make it 30.
    assert named(found, "rerank").mean("tokens") == 10
    assert right(named(found, "rerank")) == right(found.best)


def test_without_ensembles_the_budget_is_one_answer_of_each(tmp_path: Path) -> None:
    found = run(tmp_path, crew(), ensembles=())
    assert [s.name for s in found.test] == [
        "left",
        "right",
        "majority vote of left",
        "majority vote",
        "rerank",
        "oracle",
    ]
    assert named(found, "majority vote of left").mean("tokens") == 30
    assert named(found, "majority vote").mean("calls") == 2


def test_only_the_first_answer_is_greedy_and_only_models_tell_likelihoods(tmp_path: Path) -> None:
    members = crew()
    run(tmp_path, members, models=frozenset({"left"}), temperature=0.9)
    greedy = [request for request in members["left"].asked if request.sampling.greedy]
    assert len(greedy) == 8, "each question once"
    assert {request.sampling.logprobs for request in greedy} == {0}
    sampled = [request for request in members["left"].asked if not request.sampling.greedy]
    assert {(request.sampling.temperature, request.sampling.logprobs) for request in sampled} == {(0.9, None)}
    assert len({request.sampling.seed for request in sampled}) == len(sampled)
    assert {request.sampling.logprobs for name in ("right", "pair") for request in members[name].asked} == {None}


def test_ensembles_are_not_asked_what_is_not_reported(tmp_path: Path) -> None:
    members = crew()
    run(tmp_path, members)
    assert sorted(request.question for request in members["pair"].asked) == ["q4", "q5", "q6", "q7"]


def test_going_on_asks_nothing_again_and_another_ensemble_only_itself(tmp_path: Path) -> None:
    members = crew()
    first = run(tmp_path, members)
    asked = {name: len(member.asked) for name, member in members.items()}
    again = run(tmp_path, members)
    # An answer that is kept is told as it was: errors that no retry mends are final.
    assert {name: len(member.asked) for name, member in members.items()} == asked
    assert [right(s) for s in again.test] == [right(s) for s in first.test]
    members["other"] = Dictated("other", said("----xxxx"), calls=2, tokens=30)
    more = run(tmp_path, members, ensembles=("pair", "other"))
    assert {name: len(member.asked) for name, member in members.items()} == {**asked, "other": 4}
    assert right(named(more, "other")) == "xxxx"


def test_without_a_development_part_the_best_is_chosen_on_the_test_part(tmp_path: Path) -> None:
    members = crew()
    design = Design(members=("left", "right"), ensembles=("pair",))

    async def work() -> Found:
        with asking(tmp_path, members) as inquiry:
            return await evaluated(design, QUESTIONS[4:], EXACT, inquiry)

    found = asyncio.run(work())
    assert (found.development, found.chosen) == ([], "right")


@pytest.mark.parametrize("concurrency", [1, 16])
def test_figures_do_not_depend_on_what_runs_at_once(tmp_path: Path, concurrency: Any) -> None:
    members = {
        name: Dictated(name, lambda question, _: "4" if int(question[1:]) % 2 else "5")
        for name in ("left", "right", "pair")
    }
    design = Design(members=("left", "right"), ensembles=("pair",))

    async def work() -> Found:
        with asking(tmp_path, members, concurrency=concurrency) as inquiry:
            return await evaluated(design, QUESTIONS, EXACT, inquiry)

    found = asyncio.run(work())
    assert len({right(system) for system in found.test}) == 1
