"""Calls that one request has under way at once, at one model: each finds its replica, and none waits for another.

Serve's router confuses concurrent calls that have one parent request (see ``deployments.member.begun``): all but one
would wait for ever.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Door

pytestmark = pytest.mark.usefixtures("free")


def test_a_judge_reads_many_candidates_at_two_replicas(door: Door) -> None:
    reply = door.ask("best", "47+38=", ensemble={"samples": 12}, seed=1)
    calls = reply["usage"]["members"]
    assert calls["adder"]["calls"] == calls["words"]["calls"] == 1
    assert calls["mixed"]["calls"] == 1 + 12


def test_choices_of_a_forest(door: Door) -> None:
    reply = door.ask("forest", "47+38=", n=4, seed=1)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert {name: used["calls"] for name, used in reply["usage"]["members"].items()} == dict.fromkeys(
        ("adder", "words", "mixed"), 4
    )


def test_choices_of_an_ensemble_in_an_ensemble(door: Door) -> None:
    reply = door.ask("nested", "47+38=", n=2, seed=1)
    used = reply["usage"]["members"]
    # Two choices; in each, two samples of gac, which opens one session at the adder, and one call to words besides.
    assert used["adder"]["calls"] == 4 and used["words"]["calls"] == 4 + 2
    assert all(choice["message"]["content"] for choice in reply["choices"])


def test_nested_requests_at_once(door: Door) -> None:
    with ThreadPoolExecutor(6) as pool:
        texts = list(pool.map(lambda seed: door.text("nested", "47+38=", n=2, seed=seed), range(6)))
    assert all(texts)


def test_workers_of_a_search_share_two_replicas(door: Door) -> None:
    text = door.text("search", "sum 12+30+45:\n", ensemble={"workers": 4, "iterations": 12}, seed=2)
    assert text.count("\n") >= 1
