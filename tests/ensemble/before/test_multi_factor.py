"""Multi-factor: weights and limits of a fit, and the load in service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.before.heads.factors import Factors
from ensemble.before.multi_factor import MultiFactor, MultiFactorFit
from ensemble.before.routing.router import Router, keep
from ensemble.ensemble import Ensemble
from ensemble.errors import MemberLost
from ensemble.request import Event, Request
from tests.ensemble.before.routing.desks import Says, trace
from tests.ensemble.before.toys import table

TRAINING = table(n=60, members=3, size=3)


def head(router: Router) -> Factors:
    assert isinstance(router.head, Factors)
    return router.head


def test_the_table_gives_costs_and_latencies() -> None:
    found = head(MultiFactor.fit(TRAINING, MultiFactorFit(quality="mean", most_cost=0.003)))
    assert found.cost == pytest.approx([0.001, 0.002, 0.004]) and found.latency == pytest.approx([0.1, 0.2, 0.4])
    means = TRAINING.table.means
    expected = 0.4 * means[:2] + 0.2 * np.array([1, 2 / 3]) + 0.2 * np.array([1, 2 / 3]) + 0.2
    scores = found.scores(TRAINING.x)[0]
    assert scores[:2] == pytest.approx(expected) and np.isneginf(scores[2])


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="all weights are 0"):
        MultiFactorFit(quality_weight=0, latency_weight=0, cost_weight=0, load_weight=0)


class Held(Says):
    """Answers when it is let."""

    let: asyncio.Event

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        await self.let.wait()
        async for event in super().generate(request):
            yield event


def served(folder: Path, **given: object) -> tuple[Ensemble, list[Held]]:
    options = MultiFactorFit(quality="mean", quality_weight=0, cost_weight=0.01, latency_weight=0)
    keep(folder / "f", "multi_factor", MultiFactor.fit(TRAINING, options))
    members = [Held(f"m{i}") for i in range(3)]
    for member in members:
        member.let = asyncio.Event()
    return Ensemble("m", "multi_factor", members, options={"path": str(folder / "f")}), members


async def test_answers_under_way_send_the_next_one_elsewhere(tmp_path: Path) -> None:
    ensemble, members = served(tmp_path)
    asked = []
    for _ in range(3):
        asked.append(asyncio.create_task(ensemble.answer(Request.of("sum 1"))))
        await asyncio.sleep(0.02)
    load = head(ensemble.prepared.loaded.router).load  # type: ignore[union-attr]
    assert load.tolist() == [1, 1, 1]
    for member in members:
        member.let.set()
    answers = await asyncio.gather(*asked)
    assert [answer.text for answer in answers] == ["m0", "m1", "m2"] and load.tolist() == [0, 0, 0]
    assert trace(answers[0])["chosen"] == "m0"


async def test_failures_and_departures_free_the_load(tmp_path: Path) -> None:
    ensemble, members = served(tmp_path)
    load = head(ensemble.prepared.loaded.router).load  # type: ignore[union-attr]
    leaving = asyncio.create_task(ensemble.answer(Request.of("sum 1")))
    await asyncio.sleep(0.02)
    assert load.sum() == 1
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert load.sum() == 0
    for member in members:
        member.let.set()
        member.error = MemberLost("gone", member=member.name)
    with pytest.raises(MemberLost):
        await ensemble.answer(Request.of("sum 1"))
    assert load.sum() == 0
