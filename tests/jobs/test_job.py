from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import parse
from cluster.schema import Configuration
from ensemble.errors import BadRequest, OverCap, UnknownModel, UnknownOption
from ensemble.request import Sampling
from jobs.job import Job, Subject


def configured(**changes: Any) -> Configuration:
    return parse(
        {
            "models": {
                "a": {"source": {"zoo": "adder"}},
                "b": {"source": {"zoo": "words"}, **changes.get("b", {})},
                "c": {"source": {"zoo": "mixed"}, **changes.get("c", {})},
            },
            "judges": {"v": {"kind": "verdict", "model": "c", "options": changes.get("v", {})}},
            "ensembles": {
                "pair": {"method": "gac", "members": ["a", "b"], "caps": {"max_tokens": 9}, **changes.get("pair", {})},
                "best": {"method": "best_of_n", "members": ["pair"], "judge": "v", "options": {"samples": 2}},
                "forest": {"method": "agent_forest", "members": ["a"], "caps": {"options": {"samples": 4}}}
                | {"options": {"samples": 2}},
            },
        }
    )


def job(model: str, **given: Any) -> Job:
    return Job(model=model, input=Path("in.jsonl"), output=Path("out"), **given)


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        (job("pear"), UnknownModel, "no model or ensemble is named 'pear'; there are: pair, best, forest, a, b, c"),
        (job("a", options={"topk": 1}), UnknownOption, "a is a model; only ensembles take options"),
        (job("pair", options={"depth": 1}), BadRequest, "method gac has no option 'depth'; it has: .*topk"),
        (job("pair", options={"threshold": 7}), BadRequest, "option 'threshold' of method gac"),
        (job("pair", sampling=Sampling(max_tokens=10)), OverCap, "max_tokens is 10; at most 9"),
        (job("forest", options={"samples": 5}), BadRequest, "samples is 5, above its cap of 4"),
    ],
)
def test_what_is_refused(asked, error, told):
    with pytest.raises(error, match=told):
        asked.check(configured())


def test_what_is_taken():
    asked = [
        job("a"),
        job("pair", sampling=Sampling(max_tokens=9), options={"threshold": 0.5}),
        job("best"),
        job("forest", options={"samples": 4}),
    ]
    assert [one.check(configured()) for one in asked] == [None] * 4


def test_columns_carry_the_prefix():
    assert job("a", prefix="x_", credits=True).columns == (
        *("x_text", "x_finish_reason", "x_usage", "x_totals", "x_error", "x_seconds"),
        "x_credits",
    )


SAME = [
    configured(b={"replicas": 3, "resources": {"cpus": 2}, "sessions": 2, "threads": 2}),
    configured(pair={"replicas": 2, "resources": {"cpus": 1}}),
    configured(c={"price": {"input": 3}}),
]
OTHER = [
    configured(b={"price": {"input": 3}}),
    configured(b={"source": {"zoo": "mixed"}}),
    configured(pair={"options": {"threshold": 0.5}}),
]


@pytest.mark.parametrize(("configurations", "same"), [(SAME, True), (OTHER, False)])
def test_the_configuration_counts_as_far_as_answers_depend_on_it(configurations, same):
    before = job("pair").identity(configured(), "d")
    assert [job("pair").identity(other, "d") == before for other in configurations] == [same] * 3


def test_a_judge_and_its_model_count():
    before = job("best").identity(configured(), "d")
    for changed in (configured(c={"price": {"input": 3}}), configured(v={"chat": False})):
        assert job("best").identity(changed, "d")["configuration"] != before["configuration"]


def test_each_wish_counts():
    wishes: list[dict[str, Any]] = [
        {},
        {"sampling": Sampling(seed=1)},
        {"options": {"threshold": 0.5}},
        {"subject": Subject("prompt", "question")},
        {"id_column": "id"},
        {"prefix": "x"},
        {"credits": True},
    ]
    found = [job("pair", **wish).identity(configured(), "d") for wish in wishes]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])
    assert job("pair").identity(configured(), "e") != found[0]
