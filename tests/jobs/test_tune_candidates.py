"""What tuning chooses among."""

from __future__ import annotations

from math import comb, gcd
from pathlib import Path
from typing import Any

import pytest

from cluster.config import ZOO, load, parse
from ensemble.errors import BadRequest, ConfigurationError
from jobs.evaluation.candidates import Candidate, grid_of, points, simplex, subsets
from jobs.evaluation.service import Known, Listed, of_configuration
from jobs.evaluation.space import Wish, applicable, prepared, wished

SERVICE = load(Path(__file__).parents[1] / "service.yaml")


def wish(method: str = "gac", *members: str, **given: Any) -> Wish:
    members = members or ("adder", "words")
    return Wish(**{"method": method, "members": members, "options": {}, "grid": {}, "steps": 4, **given})


@pytest.mark.parametrize(("members", "steps"), [(2, 2), (2, 5), (3, 3), (3, 4), (4, 4), (5, 3)])
def test_the_simplex_is_whole(members: Any, steps: Any) -> None:
    vectors = simplex(members, steps)
    assert vectors[0] == (1,) * members
    assert len(set(vectors)) == len(vectors)
    assert all(sum(n > 0 for n in v) >= 2 and gcd(*v) == 1 for v in vectors)
    # Every division of the steps, but those that give all to one; equal weights are there once.
    whole = comb(steps + members - 1, members - 1) - members
    assert len(vectors) == whole + (steps % members != 0)
    assert all(steps % sum(v) == 0 for v in vectors[1:])


def test_two_members_of_three_are_a_subset() -> None:
    assert {(1, 1, 0), (1, 0, 1), (0, 1, 1)} <= set(simplex(3, 2))


def test_too_many_weights_are_refused_before_they_are_made() -> None:
    with pytest.raises(BadRequest, match="vectors of weights are too many; lower --steps"):
        simplex(16, 20)


def test_grids() -> None:
    grid = grid_of(["threshold=.5,.7", "fidelity=fixed,reference"])
    assert list(points(grid)) == [
        {"threshold": 0.5, "fidelity": "fixed"},
        {"threshold": 0.5, "fidelity": "reference"},
        {"threshold": 0.7, "fidelity": "fixed"},
        {"threshold": 0.7, "fidelity": "reference"},
    ]
    assert list(points({})) == [{}]
    for given in ("threshold", "threshold=", "=1", "threshold=[1"):
        with pytest.raises(BadRequest):
            grid_of([given])


def test_an_ensemble_that_is_there_is_asked() -> None:
    there, candidates = prepared(of_configuration(SERVICE), wish(grid={"threshold": [0.5, 0.9]}))
    assert there.configuration == SERVICE
    assert {c.ensemble for c in candidates} == {"gac"}
    assert len(candidates) == 3 * 2
    assert candidates[0].given == {"weights": [1, 1], "threshold": 0.5}
    assert candidates[0].words == "adder 1, words 1, threshold=0.5"


def test_one_that_is_not_there_is_added() -> None:
    there, candidates = prepared(of_configuration(SERVICE), wish("unite", "adder", "words", "mixed"))
    assert {c.ensemble for c in candidates} == {"tuned"}
    assert there.configuration is not None
    assert there.configuration.ensembles["tuned"].members == ("adder", "words", "mixed")
    assert there.names["tuned"].method == "unite"
    assert "tuned" not in SERVICE.ensembles
    assert next(c for c in candidates if c.given["weights"] == [1, 0, 1]).called == ("adder", "mixed")


def test_a_taken_name_is_not_taken_again() -> None:
    data = SERVICE.as_dict()
    data["ensembles"]["tuned"] = {"method": "gac", "members": ["mixed", "words"]}
    there, candidates = prepared(of_configuration(parse(data)), wish("unite"))
    assert {c.ensemble for c in candidates} == {"tuned-2"}
    assert set(there.names) - set(of_configuration(SERVICE).names) == {"tuned", "tuned-2"}


def test_without_weights_subsets_are_ensembles() -> None:
    assert list(subsets(["a", "b"])) == [("a", "b")]
    wanted = wish("agent_forest", "adder", "words", "mixed", options={"samples": 6}, grid={"temperature": [0.5, 1.0]})
    there, candidates = prepared(of_configuration(SERVICE), wanted)
    assert len(candidates) == 4 * 2
    assert [c.members for c in candidates[::2]] == [
        ("adder", "words", "mixed"),
        ("words", "mixed"),
        ("adder", "mixed"),
        ("adder", "words"),
    ]
    assert all(there.names[c.ensemble].members == c.members and c.given["samples"] == 6 for c in candidates)
    assert candidates[2].words == "words, mixed, samples=6, temperature=0.5"


def test_judges() -> None:
    wanted = wish("best_of_n", "adder", "words", judge="verifier")
    there, candidates = prepared(of_configuration(SERVICE), wanted)
    assert there.configuration is not None
    assert {there.configuration.ensembles[c.ensemble].judge for c in candidates} == {"verifier"}
    with pytest.raises(ConfigurationError, match="needs a judge"):
        prepared(of_configuration(SERVICE), wish("best_of_n"))


def test_what_a_running_service_lacks_is_refused() -> None:
    there = Known({"a": Listed("a"), "b": Listed("b"), "ab": Listed("ab", "gac", ("b", "a"))}, url="http://x")
    _, candidates = prepared(there, wish("gac", "a", "b"))
    assert candidates[0].members == ("b", "a"), "weights are in the ensemble's order"
    with pytest.raises(BadRequest, match="the service has no ensemble of unite over a, b; give a configuration file"):
        prepared(there, wish("unite", "a", "b"))


def test_combinations_that_the_method_does_not_take_are_left_out() -> None:
    # A primary that decides alone must have weight; without threshold there is no primary.
    zoo = of_configuration(load(ZOO))
    wanted = wish("gac", "adder", "words", "mixed", options={"threshold": 0.9}, steps=2)
    there, candidates = prepared(zoo, wanted)
    assert there.configuration is not None
    kept = applicable(candidates, there.configuration, wanted)
    assert [c.given["weights"] for c in candidates] == [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert [c.given["weights"] for c in kept] == [[1, 1, 1], [1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"grid": {"threshold": [0.5, 7]}}, "no candidate with threshold=7 can be used: .*threshold"),
        ({"grid": {"depth": [1]}}, "no candidate with depth=1 can be used: .*has no option 'depth'"),
        ({"options": {"depth": 1}}, "can be used: .*has no option 'depth'"),
        ({"grid": {"weights": [[1, 1], [1, 1, 1]]}}, r"weights=\[1, 1, 1\] can be used: .*one number for each"),
        ({"grid": {"topk": [20, 5000]}}, "topk=5000 can be used: .*above its cap"),
    ],
)
def test_values_that_are_refused_everywhere_are_refused(given: Any, told: str) -> None:
    wanted = wish(**given)
    there, candidates = prepared(of_configuration(SERVICE), wanted)
    assert there.configuration is not None
    with pytest.raises(BadRequest, match=told):
        applicable(candidates, there.configuration, wanted)


def test_wishes() -> None:
    given = {"method": "gac", "grid": ("threshold=.5",), "steps": 4, "judge": None}
    assert wished(given, ("a", "b"), {}).grid == {"threshold": [0.5]}
    with pytest.raises(BadRequest, match="threshold: either --option or --grid"):
        wished(given, ("a", "b"), {"threshold": 0.5})
    with pytest.raises(BadRequest, match="at least two members"):
        wished(given, ("a",), {})


def test_called_members() -> None:
    assert Candidate("e", ("a", "b"), '{"weights": "average"}').called == ("a", "b")
    assert Candidate("e", ("a", "b"), "{}").called == ("a", "b")
    assert Candidate("e", ("a", "b"), '{"weights": [0, 2]}').called == ("b",)
