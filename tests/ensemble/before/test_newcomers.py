"""One more member, from few outcomes and without a fit: every router takes it, or says why not and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.before.fitting.fitted import widened
from ensemble.before.fitting.training import Training
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router, keep, kept
from ensemble.errors import BadRequest
from ensemble.method import methods
from tests.ensemble.before.toys import table

ROUTERS = {name: found for name, found in methods().items() if issubclass(found, Routing) and name != "llm_router"}
FORMS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in sorted(ROUTERS) if name != "hybrid_llm"),
    ("avengers_pro", {"fidelity": "reference"}),
    ("bench_coe", {"labels": "hard"}),
    ("bench_coe", {"level": "query"}),
    ("carrot", {"estimator": "neighbours"}),
    ("irt_router", {"form": "nirt"}),
    ("lessons_llm_routing", {"decision": "foretold"}),
    ("lessons_llm_routing", {"model": "clusters"}),
    ("llm_bandit", {"objective": "none"}),
    ("multi_factor", {"quality": "mean"}),
    ("rtr", {"cost": "tokens"}),
    ("to_router", {"price": 0.3}),
    *(("routellm", {"scorer": scorer}) for scorer in ("mf", "sw_ranking", "causal")),
]
UNMOVED = {"blending", "lessons_llm_routing", "pickllm", "multi_factor", "routellm"}
"""Whose scores of a newcomer do not rise with its outcomes, in some form: draws, distances, values that start high."""
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("hybrid_llm", {}, "no place for a third; fit best_route, which does the same for more"),
    ("routellm", {"scorer": "classifier"}, "of the strong member to the same query; .* or with another scorer: gap"),
    ("bench_coe", {"level": "query", "labels": "hard"}, "tell no qualities; fit the router again with 'm3'"),
    ("to_router", {"temperature": 0}, "tell no qualities; fit the router again with 'm3'"),
]


def fit(name: str, members: int, **given: Any) -> tuple[Router, Training]:
    whole, method = table(120, members=4), ROUTERS[name]
    if "epochs" in method.Fit.model_fields and name != "routellm":
        given["epochs"] = 2
    known = replace(whole, table=whole.table.among(whole.table.members[:members]))
    return method.fit(known, method.Fit(**given)), whole


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_it_is_taken_and_what_is_said_of_it_follows_its_outcomes(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    router, whole = fit(name, 3, **options)
    few, asked = whole.rows(np.arange(30)), np.full(120, 5.0)
    before, scores = router.predict(whole.x, asked), []
    for quality in (0.0, 1.0):
        given = few.table.quality.copy()
        given[:, 3] = quality
        wider = widened(router, "m3", replace(few.table, quality=given), few.x)
        keep(tmp_path / "wider", name, wider)
        told = kept(tmp_path / "wider", name).predict(whole.x, asked)
        assert told.members == (*router.members, "m3") and told.unusable is None and wider.best == router.best
        assert np.allclose(told.cost[:, :-1], before.cost) and told.cost.shape == told.quality.shape
        scores.append(told.quality[:, -1].mean())
    assert scores[1] > scores[0] or name in UNMOVED
    if options.get("cost") != "tokens":
        nobody = widened(router, "m3", few.table.rows(np.arange(0)), few.x[:0])
        assert nobody.predict(whole.x, asked).unusable is None


@pytest.mark.parametrize(("name", "options", "why"), REFUSED, ids=str)
def test_or_it_is_refused_with_the_reason_and_a_way_out(name: str, options: dict[str, Any], why: str) -> None:
    router, whole = fit(name, 2 if name == "hybrid_llm" else 3, **options)
    with pytest.raises(BadRequest, match=why):
        widened(router, "m3", whole.table, whole.x)
