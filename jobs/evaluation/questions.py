"""The questions of a task file, with their answers and the part of the file each belongs to.

Reads what ``jobs.inputs`` reads, and CSV. A file that cannot be used as a whole is refused: a question that is left out
would change every figure.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ensemble.after.answers import Key
from ensemble.errors import BadRequest
from jobs.evaluation.grading import Grade
from jobs.inputs import READERS, opened

Split = Literal["development", "test"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file says what."""

    question: str = "question"
    answer: str = "answer"
    task: str | None = None
    """Column by whose values figures are told apart as well; ``None``: only over all."""


@dataclass(frozen=True, slots=True)
class Question:
    """One row."""

    row: int
    """Position in the file, from 0."""
    text: str
    answer: str
    """As the file has it."""
    expected: Key
    """What an answer must come to."""
    task: str = ""
    split: Split = "test"

    def key(self, grade: Grade, text: str) -> Key | None:
        """What a text says to it.

        Raises:
            BadRequest: the grade cannot tell; the message names the row.
        """
        try:
            return grade.key(text)
        except BadRequest as error:
            at = f"an answer to the question of row {self.row}"
            raise BadRequest(f"{at}: {error.message}", param=error.param) from error

    def right(self, grade: Grade, text: str) -> bool:
        """Whether a text answers it; refuses as ``key`` does."""
        return self.key(grade, text) == self.expected

    def seed(self, seed: int, sample: int) -> int:
        """Of one of its sampled answers."""
        return int.from_bytes(blake2b(f"{seed}/{self.row}/{sample}".encode(), digest_size=8).digest()) >> 1


def read(
    path: Path, columns: Columns, grade: Grade, *, count: int | None = None, share: float = 0.5, seed: int = 0
) -> list[Question]:
    """The questions in the order of the file.

    Args:
        count: questions to draw, by the seed; ``None``: all.
        share: of the questions that become the development part.

    Raises:
        BadRequest: the file, a column or a row cannot be used.
    """
    questions = [_question(path, columns, grade, row, cells) for row, cells in enumerate(_rows(path, columns))]
    if not questions:
        raise BadRequest(f"{path} holds no questions", param="file")
    if count is not None and count > len(questions):
        raise BadRequest(f"{path} holds {len(questions)} questions; {count} are wanted", param="questions")
    if count is not None:
        drawn = np.random.default_rng([seed, 0]).permutation(len(questions))[:count]
        questions = [questions[place] for place in sorted(drawn)]
    return divided(questions, share, seed)


def divided(questions: Sequence[Question], share: float, seed: int) -> list[Question]:
    """The same questions, each in a part: of n questions ⌊n · share⌋ in development, and of each task its share.

    Raises:
        BadRequest: the share is not at least 0 and below 1, or leaves a wanted part empty.
    """
    if not 0 <= share < 1:
        raise BadRequest(f"the development part must be at least 0 and below 1; got {share:g}", param="split")
    order = np.random.default_rng([seed, 1]).permutation(len(questions)).tolist()
    order.sort(key=lambda place: questions[place].task)
    # Rounding keeps what is a whole number but for floats, such as 0.7 · 10, from losing one.
    ends = [int(round(share * end, 9)) for end in range(len(order) + 1)]
    development = {place for i, place in enumerate(order) if ends[i + 1] > ends[i]}
    if share and not development:
        rule = f"{len(questions)} questions are too few for a development part of {share:g}"
        raise BadRequest(f"{rule}; give more, or --split 0", param="split")
    return [replace(q, split="development" if i in development else "test") for i, q in enumerate(questions)]


def _rows(path: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    names = [name for name in (columns.question, columns.answer, columns.task) if name is not None]
    if path.name.endswith(".csv"):
        yield from _csv(path, names)
        return
    if not path.name.endswith(tuple(READERS)):
        raise BadRequest(f"{path}: a task file's name must end with one of: {', '.join(READERS)}, .csv", param="file")
    source = opened(path)
    for name in names:
        source.require(name)
    cells = [(cell for chunk in source.cells(name) for cell in chunk) for name in names]
    for row, found in enumerate(zip(*cells, strict=True)):
        for name, cell in zip(names, found, strict=True):
            if cell.problem is not None:
                raise _unusable(path, row, name, cell.problem)
        yield {name: json.loads(cell.value or "null") for name, cell in zip(names, found, strict=True)}


def _csv(path: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of text; the first line names the columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            has = list(reader.fieldnames or ())
            for name in names:
                if name not in has:
                    raise BadRequest(f"{path} has no column {name!r}; it has: {', '.join(has) or 'none'}", param=name)
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadRequest(f"{path}: the file cannot be read: {reason}", param="file") from error


def _question(path: Path, columns: Columns, grade: Grade, row: int, cells: dict[str, Any]) -> Question:
    text, answer = cells[columns.question], cells[columns.answer]
    if not isinstance(text, str) or not text.strip():
        raise _unusable(path, row, columns.question, "a question must be text")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise _unusable(path, row, columns.answer, "an answer must be text or a number")
    task = "" if columns.task is None else cells[columns.task]
    if not isinstance(task, str | int):
        raise _unusable(path, row, str(columns.task), "a task must be text")
    try:
        return Question(row, text, str(answer), grade.expected(str(answer)), str(task))
    except BadRequest as error:
        raise _unusable(path, row, columns.answer, error.message) from error


def _unusable(path: Path, row: int, column: str, problem: str) -> BadRequest:
    return BadRequest(f"row {row} of {path}, column {column!r}: {problem}", param=column)
