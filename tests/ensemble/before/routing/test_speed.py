"""What a decision takes, beside the encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.costs.cost import MeanCosts
from ensemble.before.encoders.served import Encoders, ServedEncoder
from ensemble.before.heads.linear import Ridge
from ensemble.before.routing.router import Router
from ensemble.outcomes.dense import Floats
from ensemble.request import Request
from tests.ensemble.before.routing.desks import Says, artifact, ensemble, trace

SIZE, MEMBERS = 384, tuple(f"m{i}" for i in range(11))


class Instant(ServedEncoder):
    name, fingerprint, size = "instant", "f", SIZE

    async def embed(self, texts: Sequence[str]) -> Floats:
        return np.full((len(texts), SIZE), SIZE**-0.5, np.float32)


@pytest.mark.slow
async def test_a_whole_answer_of_nothing_takes_two_milliseconds_at_most(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((500, SIZE)).astype(np.float32)
    head = Ridge.fit(x / np.linalg.norm(x, axis=1, keepdims=True), random.random((500, len(MEMBERS))), 1.0)
    path = artifact(tmp_path / "r", Router(MEMBERS, 0, head, MeanCosts(np.ones(len(MEMBERS)))), encoder="instant f")
    routed = ensemble(path, [Says(name) for name in MEMBERS], encoders=Encoders({"instant": Instant()}))
    taken = []
    for i in range(200):
        began = time.perf_counter()
        answer = await routed.answer(Request.of(f"question {i}"))
        taken.append(time.perf_counter() - began)
        assert trace(answer)["why"] == "policy"
    # The whole way through an ensemble, its meter and its guards.
    assert float(np.median(taken)) < 0.002
