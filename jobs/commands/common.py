"""What the commands of jobs share: which column asks, what is told while models start, and how an interruption ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import click

from jobs.job import Kind, Subject

INTERRUPTED = 130
"""Exit status of an interrupted command."""


def subject_of(given: Mapping[str, Any]) -> Subject:
    kinds: tuple[Kind, ...] = ("question", "messages", "prompt")
    named = [Subject(kind, given[f"{kind}_column"]) for kind in kinds if given[f"{kind}_column"] is not None]
    if len(named) > 1:
        wrong = ", ".join(f"--{subject.kind}-column" for subject in named)
        raise click.UsageError(f"a row asks one thing: give only one of {wrong}")
    return named[0] if named else Subject()


def starting(states: Mapping[str, str]) -> None:
    """Tell the states of deployments that are brought up."""
    told = ", ".join(f"{name} {state.lower()}" for name, state in states.items())
    click.echo(told, err=True)


def quiet() -> None:
    """Ray's own messages would run through the progress bar; failures come as exceptions all the same."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data  # noqa: F401  # sets its loggers up, which the next line changes

    logging.getLogger("ray.data").setLevel(logging.ERROR)
