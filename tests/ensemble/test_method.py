"""Methods as a family: what requests may bring, and what the configuration alone sets."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import Any, get_args

import pytest

from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest
from ensemble.method import methods
from ensemble.request import Request
from ensemble.testing import ScriptedMember

HOSTILE = "((?:a|a)+)$"
"""Takes twice as long for each further letter of a text that does not match."""


def patterns(kind: Any) -> bool:
    """Whether a type is, or holds, a regular expression."""
    return kind is re.Pattern or getattr(kind, "__origin__", None) is re.Pattern or any(map(patterns, get_args(kind)))


def test_no_request_brings_a_regular_expression() -> None:
    found = {
        (name, option)
        for name, method in methods().items()
        for option, field in method.Options.model_fields.items()
        if patterns(field.annotation)
    }
    assert {("agent_forest", "answer"), ("best_of_n", "answer"), ("le_mcts", "terminal")} <= found
    assert not [(name, option) for name, option in found if option not in methods()[name].fixed]


async def test_a_hostile_expression_holds_nobody_up() -> None:
    forest = Ensemble("e", "agent_forest", [ScriptedMember.answering("a", ["a" * 30 + "!"])], options={"samples": 1})
    began = time.monotonic()
    with pytest.raises(BadRequest, match="'answer' is set by the configuration alone"):
        await asyncio.wait_for(forest.answer(replace(Request.of("?"), options={"answer": HOSTILE})), 2)
    assert time.monotonic() - began < 1


async def test_a_request_may_repeat_what_the_configuration_says() -> None:
    options = {"samples": 1, "answer": r"is (\d+)"}
    forest = Ensemble("e", "agent_forest", [ScriptedMember.answering("a", ["is 7"])], options=options)
    assert (await forest.answer(replace(Request.of("?"), options=options))).text == "is 7"
