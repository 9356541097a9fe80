"""The part of a configuration that some of its names need."""

from __future__ import annotations

from cluster.config import parse
from cluster.schema import Configuration


def configuration() -> Configuration:
    models = {name: {"source": {"zoo": name}} for name in ("adder", "words", "pairs", "mixed")}
    return parse(
        {
            "models": models,
            "judges": {
                "verifier": {"kind": "verdict", "model": "mixed", "options": {"template": "check {question}{answer}?"}},
                "sums": {"kind": "equalities"},
            },
            "ensembles": {
                "pair": {"method": "gac", "members": ["adder", "words"]},
                "best": {"method": "best_of_n", "members": ["pair", "words"], "judge": "verifier"},
                "lonely": {"method": "gac", "members": ["pairs", "adder"]},
            },
        }
    )


def test_a_model_needs_nothing_else() -> None:
    part = configuration().only(["words"])
    assert (set(part.models), part.ensembles, part.judges) == ({"words"}, {}, {})


def test_an_ensemble_needs_its_members_their_members_and_its_judges_model() -> None:
    part = configuration().only(["best"])
    assert set(part.models) == {"adder", "words", "mixed"}
    assert set(part.ensembles) == {"pair", "best"} and set(part.judges) == {"verifier"}


def test_what_is_left_is_a_configuration_of_its_own() -> None:
    part = configuration().only(["lonely", "words"])
    again = parse(part.as_dict())
    assert again == part and set(again.models) == {"pairs", "adder", "words"} and set(again.ensembles) == {"lonely"}


def test_all_names_give_the_whole() -> None:
    whole = configuration()
    part = whole.only([*whole.models, *whole.ensembles])
    assert (part.models, part.ensembles) == (whole.models, whole.ensembles) and set(part.judges) == {"verifier"}
