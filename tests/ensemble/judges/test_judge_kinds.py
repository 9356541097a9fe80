"""Judges as a configuration names them."""

from __future__ import annotations

from typing import Any

import pytest

from ensemble.errors import ConfigurationError, MissingCapability
from ensemble.judges import KINDS, build
from ensemble.judges.equalities import EqualityJudge
from ensemble.judges.verdict import VerdictJudge
from ensemble.member import Member
from ensemble.request import Request
from ensemble.testing import ScriptedMember, TinyMember


async def test_options_reach_the_judge() -> None:
    judge = build("equalities", "sums", {"neutral": 0.1})
    assert isinstance(judge, EqualityJudge) and judge.name == "sums"
    assert await judge.judge(Request.of("?"), [["so"]]) == [[0.1]]


def test_a_judge_is_built_over_its_model() -> None:
    model = TinyMember("tiny")
    judge = build("verdict", "v", {"template": "{answer}?", "chat": False}, model)
    assert isinstance(judge, VerdictJudge) and list(judge.models) == [model]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_defaults_are_valid(kind: str) -> None:
    assert KINDS[kind].Options() == KINDS[kind].Options.model_validate({})


@pytest.mark.parametrize(
    ("kind", "options", "model", "message"),
    [
        ("oracle", {}, None, "unknown kind of judge 'oracle'; known: equalities, verdict"),
        ("equalities", {"natural": 1}, None, "has no option 'natural'; equalities has: neutral"),
        ("equalities", {"neutral": 2}, None, "neutral"),
        ("equalities", {}, TinyMember("tiny"), "takes no model"),
        ("verdict", {}, None, "needs a model"),
        ("verdict", {"template": "{nothing}"}, TinyMember("tiny"), "template"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, options: dict[str, Any], model: Member | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(kind, "j", options, model)


def test_a_model_must_be_able_to_score() -> None:
    with pytest.raises(MissingCapability):
        build("verdict", "v", {}, ScriptedMember.answering("talker", ["yes"]))
