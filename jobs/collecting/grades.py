"""Quality of answers, 0 to 1: by a notion of right answers, by a function of the user's, or by a configured judge.

Grading comes after asking and asks no member again, so a collection can be graded anew. Judges are asked elsewhere.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.errors import BadRequest
from jobs.evaluation.grading import KEYS, grade

Row = Mapping[str, Any]
"""A query's columns: ``query_id``, ``text`` and, where known, ``reference``, ``task``."""
Graded = Callable[[Row, str], float]
"""The quality of a text as the answer to a query."""


@dataclass(frozen=True, slots=True)
class Notion:
    """How answers are graded."""

    name: str
    """As it is written on the command line."""
    graded: Graded | None = None
    judge: str | None = None
    """A judge of the configuration, where that is how."""


def notion(name: str, queries: Sequence[Row]) -> Notion:
    """What a name on the command line means for these queries.

    Raises:
        BadRequest: there is no such grade, or the queries lack the references that it needs.
    """
    kind, _, rest = name.partition(":")
    if kind == "judge":
        return Notion(name, judge=rest)
    if kind == "python":
        return Notion(name, _function(name, rest))
    if kind != "regex" and name not in KEYS:
        allowed = ", ".join((*KEYS, "regex:PATTERN", "judge:NAME", "python:MODULE:FUNCTION"))
        raise BadRequest(f"unknown grade {name!r}; allowed: {allowed}", param="grade")
    return Notion(name, _by_reference(name, queries))


def _by_reference(name: str, queries: Sequence[Row]) -> Graded:
    known = grade(name)
    rows = {query["query_id"]: row for row, query in enumerate(queries)}
    expected = {}
    for row, query in enumerate(queries):
        reference = query.get("reference")
        if reference is None:
            rule = f"--grade {name} needs a right answer for each question; question {row} has none"
            raise BadRequest(f"{rule}; name their column with --answer-column", param="grade")
        with _naming(row):
            expected[query["query_id"]] = known.expected(reference)

    def graded(query: Row, text: str) -> float:
        with _naming(rows[query["query_id"]]):
            return float(known.right(text, expected[query["query_id"]]))

    return graded


@contextmanager
def _naming(row: int) -> Iterator[None]:
    try:
        yield
    except BadRequest as error:
        raise BadRequest(f"question {row}: {error.message}", param=error.param) from error


def _function(name: str, path: str) -> Graded:
    module, _, attribute = path.rpartition(":")
    if not module or not attribute:
        raise BadRequest(f"--grade {name} must be python:MODULE:FUNCTION", param="grade")
    try:
        with _importable(Path.cwd()):
            function = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise BadRequest(f"--grade {name} cannot be imported: {told}", param="grade") from error
    if not callable(function):
        raise BadRequest(f"--grade {name} is no function, but of type {type(function).__name__}", param="grade")

    def graded(query: Row, text: str) -> float:
        try:
            quality = float(function(query["text"], text, query.get("reference")))
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise BadRequest(f"--grade {name} failed on query {query['query_id']!r}: {told}", param="grade") from error
        if not 0 <= quality <= 1:
            got = f"--grade {name} gave {quality:g} for query {query['query_id']!r}"
            raise BadRequest(f"{got}; allowed: 0 to 1", param="grade")
        return quality

    return graded


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported meanwhile, as with ``python -m``."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
