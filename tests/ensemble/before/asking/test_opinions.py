"""Opinions: what a model is shown, and what its answer names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.asking.opinions import LONGEST, named, prompt
from ensemble.request import Message, Request

NAMES = ["coder", "writer"]
TEXTS = {"coder": "writes programs", "writer": 'writes "prose"'}


def test_the_prompt_holds_descriptions_and_the_conversation_without_its_system_message() -> None:
    messages = (
        Message("system", "be brief"),
        Message("user", "hello"),
        Message("assistant", "hi"),
        Message("user", "sort"),
    )
    text = prompt(Request(messages=messages), TEXTS).question
    assert '{"name": "coder", "description": "writes programs"}' in text and '\\"prose\\"' in text
    assert "user: hello\nassistant: hi\nuser: sort\n</conversation>" in text and "be brief" not in text


def test_only_the_end_of_a_long_conversation_is_shown() -> None:
    text = prompt(Request(prompt="a" * LONGEST + "z" * 100), TEXTS).question
    shown = text.split("<conversation>\n")[1].split("\n</conversation>")[0]
    assert len(shown) == LONGEST and shown.endswith("z" * 100)


def test_a_model_is_asked_for_little_and_greedily() -> None:
    asked = prompt(Request.of("sort", temperature=1.0, max_tokens=900), TEXTS)
    assert asked.sampling.greedy and asked.sampling.max_tokens is not None and asked.sampling.max_tokens < 50


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"route": "coder"}', "coder"),
        ("{'route': 'writer'}", "writer"),
        ('I think:\n```json\n{"route": "coder"}\n```', "coder"),
        ('{"why": "x"} {"route": "coder"}', "coder"),
        ('{"route": "other"}', None),
        ('{"route": "painter"}', None),
        ('{"route": 3}', None),
        ('{"route": "Coder"}', None),
        ('["coder"]', None),
        ("coder", None),
        ("", None),
        ('{"route": "coder"', None),
    ],
)
def test_an_answer_names_a_member_or_nobody(text: str, name: str | None) -> None:
    assert named(text, NAMES) == name


@given(st.text())
def test_whatever_a_model_writes_can_be_read(text: str) -> None:
    assert named(text, NAMES) in (None, *NAMES)
    assert named("{" + text + "}", NAMES) in (None, *NAMES)
