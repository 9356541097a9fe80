"""The measurement of scale, on a table of next to nothing."""

from __future__ import annotations

import json

import pytest

from benchmarks import router_scale


@pytest.mark.parametrize("name", ["knn_router", "knn_router search=cells compared=50", "routellm scorer=sw_ranking"])
def test_a_router_with_options_is_fitted_and_asked(name: str) -> None:
    given = router_scale.options(["--queries", "300", "--size", "16", "--seconds", "0.05"])
    found = router_scale.alone(name, given, members=3)
    assert found["outcomes"] == 900
    assert found["queries_per_s"] > 0 and found["per_cpu_s"] > 0 and found["decision_ms"] > 0


def test_an_option_that_does_not_apply_is_refused() -> None:
    given = router_scale.options(["--queries", "50", "--size", "8"])
    with pytest.raises(ValueError, match="compared goes with cells and auto"):
        router_scale.alone("knn_router search=exact compared=50", given, members=2)


def test_each_router_is_measured_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--queries", "3000", "--members", "3", "--size", "32", "--seconds", "0.2"]
    assert router_scale.main(["--routers", "knn_router", *sizes]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["knn_router"]
    assert set(told) == {"outcomes", "fit_s", "fit_mb", "table_mb", "queries_per_s", "per_cpu_s", "decision_ms"}
    assert told["outcomes"] == 9000 and told["fit_mb"] > 0 and told["queries_per_s"] > 100
