"""``ensemble fit eva``: a projection into the pivot's vocabulary, for each helper."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from ensemble.artifacts import Artifact
from ensemble.fitting.eva import EvaFit, fit_eva
from jobs.fitting.fit import Task, fitted

options = EvaFit
members = "the pivot, then its helpers"
least, most = 2, None
answer = None
compares = False


async def run(task: Task) -> Mapping[str, Artifact]:
    pivot, *helpers = task.models
    found = {}
    for helper in helpers:
        told = partial(task.told, f"tokens of {helper.name} compared")
        artifact = await asyncio.to_thread(fit_eva, helper.arrays, pivot.arrays, task.options, told=told)
        found[helper.name] = fitted(task, artifact, "eva")
    return found
