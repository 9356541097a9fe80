"""What an evaluation leaves on disk as tables: every answer of every system, and one row for each system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ensemble.outcomes.bootstrap import interval
from jobs.evaluation.run import Found
from jobs.evaluation.statistics import Comparison, compared
from jobs.evaluation.systems import Outcome, System

_SCALE = 18
_LAST = Decimal(1).scaleb(-_SCALE)
ANSWERS = pa.schema(
    [
        ("row", pa.int64()),
        ("split", pa.string()),
        ("task", pa.string()),
        ("system", pa.string()),
        ("kind", pa.string()),
        ("question", pa.string()),
        ("expected", pa.string()),
        ("answer", pa.string()),
        ("right", pa.bool_()),
        ("tokens", pa.int64()),
        ("calls", pa.int64()),
        ("seconds", pa.float64()),
        ("cost", pa.decimal128(38, _SCALE)),
        ("finish", pa.string()),
        ("error", pa.string()),
    ]
)
"""A row for each question and system. ``tokens`` and ``calls`` are over all models; ``cost`` has 18 decimals."""

_COMPARED = [("difference", pa.float64()), ("low", pa.float64()), ("high", pa.float64())]
_COMPARED += [("won", pa.int64()), ("lost", pa.int64()), ("p", pa.float64()), ("verdict", pa.string())]
SUMMARY = pa.schema(
    [
        ("split", pa.string()),
        ("system", pa.string()),
        ("kind", pa.string()),
        ("best", pa.bool_()),
        ("questions", pa.int64()),
        ("accuracy", pa.float64()),
        ("accuracy_low", pa.float64()),
        ("accuracy_high", pa.float64()),
        ("against_best", pa.struct(_COMPARED)),
        ("against_vote", pa.struct(_COMPARED)),
        ("tokens", pa.float64()),
        ("calls", pa.float64()),
        ("seconds", pa.float64()),
        ("cost", pa.float64()),
        ("errors", pa.int64()),
    ]
)
"""A row for each system of each part; amounts are means over its answers, shares are not per cent. ``against_best``:
against the best member, ``against_vote``: of an ensemble against the vote with as many calls; null where neither is."""


def write(found: Found, folder: Path, *, seed: int) -> None:
    """Write ``answers.parquet`` and ``summary.parquet``; each is there whole or not at all."""
    systems = (*found.development, *found.test)
    answers = [_answer(system, outcome) for system in systems for outcome in system.outcomes]
    _written(pa.Table.from_pylist(answers, ANSWERS), folder / "answers.parquet")
    _written(pa.Table.from_pylist(list(_summaries(found, seed)), SUMMARY), folder / "summary.parquet")


def _answer(system: System, outcome: Outcome) -> dict[str, Any]:
    question = outcome.question
    return {
        "row": question.row,
        "split": question.split,
        "task": question.task or None,
        "system": system.name,
        "kind": system.kind,
        "question": question.text,
        "expected": question.answer,
        "answer": None if outcome.error else outcome.text,
        "right": outcome.right,
        "tokens": outcome.tokens,
        "calls": outcome.calls,
        "seconds": outcome.seconds,
        "cost": outcome.cost.quantize(_LAST, context=Context(prec=38)),
        "finish": outcome.finish,
        "error": outcome.error,
    }


def _summaries(found: Found, seed: int) -> Iterator[dict[str, Any]]:
    parts: Iterable[tuple[str, Sequence[System]]] = (("development", found.development), ("test", found.test))
    for split, systems in parts:
        for system in systems:
            low, high = interval(system.right.astype(float), seed=seed)
            against = split == "test" and system is not found.best
            voting = found.equal.get(system.name) if system.kind == "ensemble" else None
            yield {
                "split": split,
                "system": system.name,
                "kind": system.kind,
                "best": system.kind == "member" and system.name == found.chosen,
                "questions": len(system.outcomes),
                "accuracy": system.accuracy,
                "accuracy_low": low,
                "accuracy_high": high,
                "against_best": _compared(compared(system.right, found.best.right, seed=seed)) if against else None,
                "against_vote": _compared(compared(system.right, voting.right, seed=seed)) if voting else None,
                "tokens": system.mean("tokens"),
                "calls": system.mean("calls"),
                "seconds": system.mean("seconds"),
                "cost": system.mean("cost"),
                "errors": system.errors,
            }


def _compared(found: Comparison) -> dict[str, Any]:
    return {key: getattr(found, key) for key, _ in _COMPARED}


def _written(table: pa.Table, path: Path) -> None:
    temporary = path.with_suffix(".part")
    pq.write_table(table, temporary)
    os.replace(temporary, path)
