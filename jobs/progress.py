"""How far a job is, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.recorder import Counts

_LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


class Display:
    """Call it with counts; use it as a context so that the terminal is left clean."""

    def __init__(self, console: Console | None = None, *, unit: str = "rows") -> None:
        self._unit = unit
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("rows", total=None, told="starting")
        self._began: float | None = None
        self._line = 0.0

    def __call__(self, counts: Counts) -> None:
        self._began = self._began or time.monotonic()
        told = self.told(counts, time.monotonic() - self._began, self._unit)
        self._bar.update(self._task, total=counts.rows, completed=counts.done, told=told)
        over = counts.done == counts.rows
        if not self._console.is_terminal and (over or time.monotonic() >= self._line):
            self._line = time.monotonic() + _LINE_EVERY
            self._console.print(f"{counts.done} of {counts.rows} {self._unit}, {told}", highlight=False, soft_wrap=True)

    @staticmethod
    def told(counts: Counts, seconds: float, unit: str = "rows") -> str:
        """Failures and, after a second, speed, in words.

        >>> Display.told(Counts(rows=100, done=60, failed=2, resumed=20), seconds=10)
        '2 failed, 4.0 rows/s, 10 s to go'
        """
        failed = f"{counts.failed} failed"
        if seconds < 1:
            return failed
        speed = (counts.done - counts.resumed) / seconds
        left = f", {(counts.rows - counts.done) / speed:.0f} s to go" if speed and counts.done < counts.rows else ""
        return f"{failed}, {speed:.1f} {unit}/s{left}"

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
