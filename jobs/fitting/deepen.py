"""``ensemble fit deepen``: a matrix of similarities with shared anchors, for each member."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ensemble.artifacts import Artifact
from ensemble.fitting.deepen import DeepenFit, fit_deepen
from jobs.fitting.fit import Task, fitted

options = DeepenFit
members = "all members"
least, most = 2, None
answer = None
compares = False


async def run(task: Task) -> Mapping[str, Artifact]:
    task.told("matrices", 0, len(task.models))
    artifacts = await asyncio.to_thread(fit_deepen, [model.arrays for model in task.models], task.options)
    task.told("matrices", len(task.models), len(task.models))
    return {name: fitted(task, artifact, "deepen") for name, artifact in artifacts.items()}
