"""Fitting DeePEn: the worked example, anchors, rows without a direction, sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble import artifacts, heads
from ensemble.errors import ConfigurationError
from ensemble.fitting.deepen import DeepenFit, fingerprint, fit_deepen, relative
from ensemble.fitting.models import ModelArrays
from ensemble.vocabulary import Vocabulary

TEN = DeepenFit(temperature=10)


def test_worked_example() -> None:
    main = relative(np.array([[1, 0], [0.8, 0.6], [0, 1]]), np.array([0, 2], np.int32), TEN)
    expected = [0.999955, 0.000045, 0.880797, 0.119203, 0.000045, 0.999955]
    assert main.flatten() == pytest.approx(expected, abs=1e-6)
    helper = relative(np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.8], [-1, 0.2]]), np.array([0, 1], np.int32), TEN)
    expected = [0.999511, 0.000489, 0.000489, 0.999511, 0.167174, 0.832826, 0.000019, 0.999981]
    assert helper.flatten() == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 10_000), st.floats(1, 100))
def test_rows_sum_to_one_whatever_the_lengths_of_vectors(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(25, 4))
    options, anchors = DeepenFit(temperature=temperature), np.arange(0, 25, 3, dtype=np.int32)
    rows = relative(vectors, anchors, options)
    assert rows.sum(axis=1) == pytest.approx(np.ones(25), abs=1e-5)
    scaled = relative(vectors * rng.uniform(0.5, 2, size=(25, 1)), anchors, options)
    np.testing.assert_allclose(scaled, rows, atol=1e-4)


def test_a_token_without_a_direction_is_seen_from_nowhere() -> None:
    vectors = np.random.default_rng(1).normal(size=(6, 4))
    vectors[4] = 0
    rows = relative(vectors, np.array([0, 1, 2], np.int32), DeepenFit())
    assert rows[4].tolist() == pytest.approx([1 / 3] * 3) and not np.isnan(rows).any()
    assert rows[3].max() > 0.5


def model(name: str, tokens: tuple[bytes, ...], seed: int, width: int = 4) -> ModelArrays:
    stops = frozenset(i for i, token in enumerate(tokens) if not token)
    rows = np.random.default_rng(seed).normal(size=(len(tokens) + 2, width)).astype(np.float32)
    return ModelArrays(name, Vocabulary(tokens, stops), rows, rows)


def trio() -> list[ModelArrays]:
    return [
        model("a", (b"x", b"y", b"z", b"only a", b""), 1),
        model("b", (b"", b"z", b"y", b"x", b"x"), 2, width=7),
        model("c", (b"w", b"x", b"", b"", b"z", b"y"), 3),
    ]


def test_anchors_are_what_all_have_and_every_head_has_them_in_one_order() -> None:
    found = fit_deepen(trio(), TEN)
    assert list(found) == ["a", "b", "c"]
    space = fingerprint([b"x", b"y", b"z"])
    for models, ids in zip(trio(), ([0, 1, 2], [4, 2, 1], [1, 5, 4]), strict=True):
        manifest, tensors = found[models.name]
        assert (manifest.space, manifest.kind, manifest.vocabulary) == (
            space,
            "relative",
            models.vocabulary.fingerprint,
        )
        rows = models.input_embeddings[: models.vocabulary.size]
        np.testing.assert_array_equal(tensors["rows"], relative(rows, np.array(ids, np.int32), TEN))
        assert tensors["stops"].tolist() == sorted(models.vocabulary.stop_ids)
        assert tensors["rows"][ids].argmax(axis=1).tolist() == [0, 1, 2]
    assert found["a"].manifest.others == {m.name: m.vocabulary.fingerprint for m in trio()[1:]}


def test_the_space_tells_anchors_apart() -> None:
    assert fingerprint([b"x", b"y"]) != fingerprint([b"xy"]) != fingerprint([b"y", b"x"]) != fingerprint([b"x", b"y"])
    spaces = {fit_deepen(models)["a"].manifest.space for models in (trio(), trio()[:1], trio()[:2])}
    assert len(spaces) == 2


def test_a_token_that_one_member_never_trained_is_no_anchor() -> None:
    members = trio()
    members[1].input_embeddings[2] = 0
    found = fit_deepen(members)
    assert {artifact.tensors["rows"].shape[1] for artifact in found.values()} == {2}
    assert found["b"].tensors["rows"][2].tolist() == [0.5, 0.5]


def test_fewer_anchors_are_the_same_for_all() -> None:
    found = fit_deepen(trio(), DeepenFit(anchors=2))
    assert {a.manifest.space for a in found.values()} == {fingerprint([b"x", b"z"])}
    assert found["a"].manifest.metrics == {"anchors": 2.0}


@pytest.mark.parametrize(("half", "dtype"), [(None, np.float32), (True, np.float16), (False, np.float32)])
def test_precision_on_disk(half: bool | None, dtype: type, tmp_path: Path) -> None:
    artifact = fit_deepen(trio(), DeepenFit(half=half))["a"]
    artifacts.save(tmp_path / "a", *artifact)
    loaded = artifacts.load(tmp_path / "a")
    assert loaded.tensors["rows"].dtype == dtype
    assert heads.build(loaded).card.space == artifact.manifest.space


def test_large_matrices_are_stored_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensemble.fitting.deepen._LARGE", 14)
    found = fit_deepen(trio())
    assert {name: str(a.tensors["rows"].dtype) for name, a in found.items()} == {
        "a": "float16",
        "b": "float16",
        "c": "float16",
    }
    monkeypatch.setattr("ensemble.fitting.deepen._LARGE", 16)
    assert {str(a.tensors["rows"].dtype) for a in fit_deepen(trio()).values()} == {"float32", "float16"}


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a, b have no trained token in common"):
        fit_deepen([model("a", (b"x", b""), 1), model("b", (b"y", b""), 1)])


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": np.inf}, {"anchors": 0}])
def test_options_out_of_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="must be") as refused:
        DeepenFit(**options)  # type: ignore[arg-type]
    assert refused.value.param == next(iter(options))
