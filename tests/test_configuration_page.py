"""``docs/configuration.md`` tells every key that a configuration may hold, as the types say."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensemble.zoo import MEMBERS
from tests.documents import read, script

page = script("configuration_page")
SECTIONS = page.sections()


def test_the_page_is_up_to_date() -> None:
    assert page.written() == page.PAGE.read_text(encoding="utf-8"), "`make configuration`"


@pytest.fixture
def stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    copy = tmp_path / "docs" / "configuration.md"
    copy.parent.mkdir()
    copy.write_text(read("docs/configuration.md").replace("| `engine` |", "| `motor` |"), encoding="utf-8")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "PAGE", copy)
    return copy


def test_a_page_of_another_day_is_told_and_written_anew(
    stale: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["configuration_page.py", "--check"])
    assert page.main() == 1
    assert "docs/configuration.md is not up to date" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["configuration_page.py"])
    assert page.main() == 0
    assert stale.read_text(encoding="utf-8") == read("docs/configuration.md")


@pytest.mark.parametrize("name", SECTIONS)
def test_each_key_says_what_it_means_and_what_holds_without_it(name: str) -> None:
    schema = SECTIONS[name].schema
    assert schema["description"]
    required = set(schema.get("required", ()))
    for key, inner in schema["properties"].items():
        assert inner.get("description"), key
        assert key in required or re.search(r"Omitted:\s", inner["description"]), key


def test_links_within_the_tables_are_those_of_the_sections() -> None:
    anchors = {page.anchor(section.title) for section in SECTIONS.values()}
    assert len(anchors) == len(SECTIONS)


def test_a_value_may_be_written_as_the_page_says() -> None:
    told = {
        "a name": page.value({"type": "string", "maxLength": 63}),
        "at most": page.value({"type": "integer", "minimum": 1, "maximum": 9}),
        "above": page.value({"type": "number", "exclusiveMinimum": 0}),
        "or none": page.value({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        "a decimal": page.value({"anyOf": [{"type": "number"}, {"type": "string"}]}),
        "several": page.value({"type": "array", "items": {"type": "string"}}),
        "by name": page.value({"type": "object", "additionalProperties": {"type": "number"}}),
    }
    assert told == {
        "a name": "name",
        "at most": "whole number, 1 to 9",
        "above": "number above 0",
        "or none": "whole number",
        "a decimal": "number",
        "several": "list of: text",
        "by name": "by name: number",
    }


def test_the_miniature_models_are_all_named() -> None:
    (described,) = (inner["description"] for inner in SECTIONS["ZooSource"].schema["properties"].values())
    assert [name for name in MEMBERS if name not in described] == []
