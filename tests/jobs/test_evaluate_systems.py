"""Votes, likelihood, bounds and budgets, worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from evaluation_doubles import questions, reply

from ensemble.errors import BadRequest
from jobs.evaluation.grading import grade
from jobs.evaluation.systems import System, alone, oracle, ranked, reranked, round_robin, voted, within

EXACT, SLOW = grade("exact"), grade("regex:((?:a|a)+)c")
(QUESTION,) = questions("4")


def test_one_answer() -> None:
    outcome = alone(QUESTION, reply("4", tokens=7), EXACT)
    assert (outcome.right, outcome.tokens, outcome.calls, outcome.finish) == (True, 7, 1, "stop")
    assert not alone(QUESTION, reply("5"), EXACT).right


def test_an_error_is_wrong_even_if_its_text_were_right() -> None:
    outcome = alone(QUESTION, reply("4", error="member_failed: gone"), EXACT)
    assert (outcome.right, outcome.error) == (False, "member_failed: gone")


@pytest.mark.parametrize(
    ("texts", "elected"),
    [
        (["5", "4", "4"], "4"),
        (["5", "4", "4", "5"], "5"),
        (["4", "5"], "4"),
        (["", "4"], "4"),
        (["", " "], ""),
        (["4\n", "5", "4"], "4\n"),
    ],
)
def test_votes(texts: Any, elected: Any) -> None:
    outcome = voted(QUESTION, [reply(text) for text in texts], EXACT)
    assert outcome.text == elected
    assert outcome.right == (elected.strip() == "4")
    assert (outcome.calls, outcome.tokens, outcome.cost, outcome.seconds) == (
        len(texts),
        10 * len(texts),
        Decimal(10 * len(texts)),
        10.0,
    )


def test_failed_candidates_do_not_vote_but_cost() -> None:
    outcome = voted(QUESTION, [reply("4", error="x: y"), reply("5"), reply("4", error="x: y")], EXACT)
    assert (outcome.text, outcome.tokens, outcome.error) == ("5", 30, None)
    assert voted(QUESTION, [reply("", error="x: y")], EXACT).error == "x: y"


def test_votes_are_counted_as_answers_are_graded() -> None:
    number = grade("number")
    (question,) = questions("4")
    question = type(question)(0, "q", "4", number.expected("4"))
    outcome = voted(question, [reply("5"), reply("it is 4.0"), reply("2+2=4")], number)
    assert (outcome.text, outcome.right) == ("it is 4.0", True)


def test_reranking_is_by_the_byte() -> None:
    # -3 over 6 bytes beats -1 over 1 byte; "é" has two bytes.
    assert reranked(QUESTION, [reply("5", logprob=-1.0), reply("444444", logprob=-3.0)], EXACT).text == "444444"
    assert reranked(QUESTION, [reply("e", logprob=-1.0), reply("é", logprob=-1.5)], EXACT).text == "é"
    assert reranked(QUESTION, [reply("5"), reply("", logprob=0.0), reply("4", logprob=-9.0)], EXACT).text == "4"
    assert reranked(QUESTION, [reply("5", logprob=-1.0), reply("4", logprob=-1.0)], EXACT).text == "5"


def test_the_oracle() -> None:
    assert oracle(QUESTION, [reply("5"), reply("4"), reply("4 ")], EXACT).text == "4"
    assert oracle(QUESTION, [reply("5"), reply("6")], EXACT).text == "5"
    assert oracle(QUESTION, [reply("5"), reply("4")], EXACT).tokens == 20
    assert not oracle(QUESTION, [reply("5"), reply("4", error="x: y")], EXACT).right


def test_budgets_take_the_first_as_far_as_they_go() -> None:
    replies = [reply("a", tokens=10), reply("b", tokens=10, calls=2), reply("c", tokens=5)]
    assert len(within(replies)) == 3
    assert len(within(replies, tokens=25)) == 3
    assert len(within(replies, tokens=24)) == 2
    assert len(within(replies, tokens=19)) == 1
    assert len(within(replies, tokens=1)) == 1, "an answer has to be given"
    assert len(within(replies, calls=4)) == 3
    assert len(within(replies, calls=3)) == 2
    assert len(within(replies, calls=2)) == 1
    assert len(within(replies, calls=4, tokens=20)) == 2


def test_what_comes_after_a_dear_reply_is_not_taken_instead() -> None:
    assert [r.text for r in within([reply("a"), reply("b", tokens=90), reply("c")], tokens=30)] == ["a"]


def test_members_take_turns() -> None:
    assert list(round_robin(2, 3)) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]


def test_the_best_is_cheaper_among_equals() -> None:
    both = questions("4", "4")

    def system(name: str, texts: str, tokens: int) -> System:
        rows = zip(both, texts, strict=True)
        return System(name, "member", tuple(alone(q, reply(t, tokens=tokens), EXACT) for q, t in rows))

    systems = [system("dear", "45", 20), system("cheap", "54", 10), system("good", "44", 30), system("again", "45", 10)]
    assert [one.name for one in ranked(systems)] == ["good", "cheap", "again", "dear"]
    assert [one.accuracy for one in systems] == [0.5, 0.5, 1.0, 0.5]
    assert systems[0].mean("tokens") == 20.0


def test_an_answer_on_which_a_pattern_is_too_slow_is_named() -> None:
    endless = [reply("4"), reply("a" * 40 + "b")]
    for made in (lambda: voted(QUESTION, endless, SLOW), lambda: alone(QUESTION, endless[1], SLOW)):
        with pytest.raises(BadRequest, match=r"an answer to the question of row 0: the pattern .* is still at a text"):
            made()
