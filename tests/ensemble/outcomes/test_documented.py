"""What ``docs/outcomes.md`` prints, and the columns that it lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ensemble.outcomes.schema import ALIASES, CELLS, MEMBERS, QUERIES

TEXT = (Path(__file__).parents[3] / "docs" / "outcomes.md").read_text(encoding="utf-8")


def test_the_example_prints_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    ((code, printed),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "outcomes.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_every_column_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", TEXT))
    assert {*QUERIES, *CELLS, *MEMBERS, *ALIASES} <= explained
