"""Fitting EVA: the worked example, alignment of spaces that are alike, filters, stop ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ensemble import artifacts, heads
from ensemble.errors import ConfigurationError
from ensemble.fitting import alignment
from ensemble.fitting.alignment import aligned, nearest, unit
from ensemble.fitting.eva import EvaFit, fit_eva, kept
from ensemble.fitting.models import ModelArrays, shared_ids
from ensemble.member import Floats
from ensemble.vocabulary import Vocabulary

PIVOT = torch.tensor([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], dtype=torch.float64)
HELPER = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.6, 0.8]], dtype=torch.float64)


def test_worked_example_of_the_similarities() -> None:
    ids, scores = nearest(HELPER, PIVOT, 4)
    dense = torch.zeros(3, 4, dtype=torch.float64).scatter_(1, ids, scores)
    rows = dense.tolist()
    assert rows[0] == pytest.approx([0.993884, 0.762732, -0.773021, -1.877336], abs=1e-6)
    assert rows[1] == pytest.approx([-0.773021, 0.409351, 0.993884, -0.110432], abs=1e-6)
    assert rows[2] == pytest.approx([0.206116, 0.960000, 0.606116, -1.089568], abs=1e-6)
    assert ids.tolist() == [[0, 1, 2, 3], [2, 1, 3, 0], [1, 2, 0, 3]]


def by_definition(left: torch.Tensor, right: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    cosines = unit(left) @ unit(right).T
    found = (2 * cosines - cosines.amax(dim=0)).topk(count, dim=1)
    return found.indices, found.values


@pytest.mark.parametrize("spare", [1, 4])
@pytest.mark.parametrize("rows", [1, 7, 90, 1000])
def test_neighbours_are_those_of_the_definition(rows: int, spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_PAIRS", rows * 60)
    monkeypatch.setattr(alignment, "_SPARE", spare)
    rng = np.random.default_rng(3)
    right = torch.from_numpy(rng.normal(size=(60, 6)))
    # The closest rows come last, so that nobody knows at first which rows on the right are crowded.
    left = torch.cat([torch.from_numpy(rng.normal(size=(150, 6))), right + 0.05])
    seen: list[tuple[int, int]] = []
    ids, scores = nearest(left, right, 5, lambda done, of: seen.append((done, of)))
    expected = by_definition(left, right, 5)
    assert torch.equal(ids, expected[0])
    torch.testing.assert_close(scores, expected[1], atol=1e-12, rtol=0)
    assert seen == [(min(done, 210), 210) for done in range(rows, 210 + rows, rows)]


def test_every_neighbour_can_be_asked_for() -> None:
    ids, scores = nearest(HELPER, PIVOT, 9)
    assert ids.shape == scores.shape == (3, 4)


def test_worked_example_of_the_rows() -> None:
    _, scores = nearest(HELPER, PIVOT, 2)
    raw = kept(scores.numpy(), EvaFit(fidelity="reference"))
    assert raw.flatten() == pytest.approx([0.993884, 0.762732, 0.993884, 0.409351, 0.96, 0.606116], abs=1e-6)
    normalised = kept(scores.numpy(), EvaFit())
    assert normalised.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert normalised == pytest.approx(raw / raw.sum(axis=1, keepdims=True), abs=1e-6)


def test_rows_are_filtered() -> None:
    same = [0.5, 0.5, 0.499, 0.498, 0.5, 0.5]
    scores = np.array([[0.9, 0.5, 0.0999, 0.05, -0.2, -1], same, [*same[:5], 0.05], [0.0] * 6])
    weights = kept(scores, EvaFit(fidelity="reference"))
    assert weights[0].tolist() == pytest.approx([0.9, 0.5, 0, 0, 0, 0])
    assert not weights[1].any(), "six alike mean nothing"
    assert weights[2].astype(bool).tolist() == [True] * 5 + [False], "five alike are kept"
    assert not weights[3].any() and not kept(scores, EvaFit())[3].any()


@pytest.mark.parametrize(("left", "right"), [(8, 8), (8, 12), (12, 8)])
@pytest.mark.parametrize("seeds", [40, 6])
def test_a_rotated_space_is_found_again(left: int, right: int, seeds: int) -> None:
    rng = np.random.default_rng(0)
    core = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 8))
    spaces = [torch.from_numpy(core @ _turn(rng, 8, width)) for width in (left, right)]
    places = np.arange(seeds, dtype=np.int32)
    one, other, whitened = aligned(spaces[0], spaces[1], (places, places))
    ids, _ = nearest(one, other, 1)
    assert not whitened and (ids[:, 0] == torch.arange(200)).double().mean() > 0.95


def test_whitening_takes_enough_seeds() -> None:
    rng = np.random.default_rng(0)
    core = rng.normal(size=(300, 8))
    spaces = [torch.from_numpy(core @ _turn(rng, 8, 8)) for _ in range(2)]
    for seeds, expected in ((8, False), (9, True), (100, True)):
        places = np.arange(seeds, dtype=np.int32)
        one, other, whitened = aligned(spaces[0], spaces[1], (places, places))
        assert whitened is expected
    torch.testing.assert_close(unit(one), unit(other), atol=1e-6, rtol=0)


def _turn(rng: np.random.Generator, narrow: int, wide: int) -> Floats:
    turn, _ = np.linalg.qr(rng.normal(size=(max(narrow, wide), narrow)))
    return np.asarray(turn.T[:, :wide] if narrow <= wide else turn.T)


WORDS = [bytes([97 + i]) for i in range(26)] + [bytes([65 + i]) for i in range(26)]


def model(name: str, tokens: list[bytes], stops: int, vectors: Floats, seed: int) -> ModelArrays:
    """A model with a control id, then text tokens, then stop ids; its space is turned as its seed says."""
    rng = np.random.default_rng(seed)
    vocabulary = Vocabulary((b"", *tokens, *[b""] * stops), frozenset(range(1 + len(tokens), 1 + len(tokens) + stops)))
    rows = np.concatenate([rng.normal(size=(1, vectors.shape[1])), vectors, rng.normal(size=(stops, vectors.shape[1]))])
    turned = rows @ _turn(rng, vectors.shape[1], vectors.shape[1])
    return ModelArrays(name, vocabulary, turned.astype(np.float32), turned.astype(np.float32))


def pair(helper_stops: int = 1, pivot_stops: int = 2) -> tuple[ModelArrays, ModelArrays]:
    """Two models of one space; the helper calls its last ten tokens otherwise."""
    vectors = np.random.default_rng(5).normal(size=(len(WORDS), 12))
    other = [*WORDS[:-10], *[word * 2 for word in WORDS[-10:]]]
    return model("helper", other, helper_stops, vectors, 1), model("pivot", WORDS, pivot_stops, vectors, 2)


def dense(artifact: artifacts.Artifact) -> Floats:
    ids, weights = artifact.tensors["ids"], artifact.tensors["weights"]
    table = np.zeros((len(ids), artifact.manifest.settings["size"]))
    np.add.at(table, (np.arange(len(ids))[:, None], ids), weights)
    return table


def test_tokens_are_aligned_without_a_common_spelling() -> None:
    helper, pivot = pair()
    artifact = fit_eva(helper, pivot)
    table, count = dense(artifact), len(WORDS)
    assert table[1 : 1 + count].argmax(axis=1).tolist() == list(range(1, 1 + count))
    manifest = artifact.manifest
    assert (manifest.kind, manifest.member, manifest.space) == ("projection", "helper", pivot.vocabulary.fingerprint)
    assert manifest.vocabulary == helper.vocabulary.fingerprint and manifest.settings["whitened"] is True
    assert manifest.metrics == {"seeds": 42, "twins_first": 1.0, "covered": 1.0}


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
def test_stop_ids_are_aligned_and_control_ids_stand_for_nothing(fidelity: str) -> None:
    helper, pivot = pair(helper_stops=2, pivot_stops=3)
    table = dense(fit_eva(helper, pivot, EvaFit(fidelity=fidelity)))  # type: ignore[arg-type]
    for stop in helper.vocabulary.stop_ids:
        assert {i: round(w, 6) for i, w in enumerate(table[stop]) if w} == dict.fromkeys(
            sorted(pivot.vocabulary.stop_ids), 0.333333
        )
    assert not table[0].any() and not table[:, 0].any()
    texts = table[1 : 1 + len(WORDS)]
    assert not texts[:, sorted(pivot.vocabulary.stop_ids)].any()
    sums = texts.sum(axis=1)
    assert (sums == pytest.approx(np.ones(len(sums)))) is (fidelity == "fixed")


def test_a_model_and_itself() -> None:
    _, pivot = pair()
    table = dense(fit_eva(pivot, pivot))
    text = slice(1, 1 + len(WORDS))
    assert (table.argmax(axis=1)[text] == np.arange(len(table))[text]).all()
    assert (dense(fit_eva(pivot, pivot, EvaFit(shared="same")))[text, text] == np.eye(len(WORDS))).all()


def test_shared_tokens_can_stand_for_themselves_alone() -> None:
    helper, pivot = pair()
    similar, same = (dense(fit_eva(helper, pivot, EvaFit(shared=how))) for how in ("similar", "same"))
    assert (same[1:43, 1:43] == np.eye(42)).all() and (same[1:43] > 0).sum() == 42
    np.testing.assert_array_equal(same[43:], similar[43:])
    assert (similar[1:43] > 0).sum() > 42


def test_tokens_that_were_never_trained_have_no_part() -> None:
    helper, pivot = pair()
    helper.output_embeddings[3] = 0
    pivot.output_embeddings[5] = 0
    artifact = fit_eva(helper, pivot)
    table = dense(artifact)
    assert not table[3].any() and not table[:, 5].any() and artifact.manifest.metrics["seeds"] == 40


def test_it_is_a_head_when_it_comes_back_from_the_disk(tmp_path: Path) -> None:
    helper, pivot = pair()
    artifact = fit_eva(helper, pivot, EvaFit(topk=7))
    artifacts.save(tmp_path / "head", *artifact)
    head = heads.build(artifacts.load(tmp_path / "head"))
    logits = np.random.default_rng(1).normal(size=(2, helper.vocabulary.size)).astype(np.float32)
    chances = np.where(logits >= np.sort(logits)[:, [-7]], np.exp(logits), 0)
    expected = chances / chances.sum(axis=1, keepdims=True) @ dense(artifact)
    np.testing.assert_allclose(head.read(torch.from_numpy(logits), None, None).exp().numpy(), expected, atol=1e-6)


def test_it_tells_how_far_it_has_come() -> None:
    helper, pivot = pair()
    seen: list[tuple[int, int]] = []
    fit_eva(helper, pivot, told=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (len(WORDS), len(WORDS))


def test_nothing_in_common_is_refused() -> None:
    vectors = np.random.default_rng(5).normal(size=(3, 4))
    models = model("a", [b"a", b"b", b"c"], 1, vectors, 1), model("b", [b"x", b"y", b"z"], 1, vectors, 2)
    with pytest.raises(ConfigurationError, match="no token in common"):
        fit_eva(*models)


@pytest.mark.parametrize("options", [{"topk": 0}, {"topk": 321}, {"neighbours": 0}, {"threshold": -0.1}])
def test_options_out_of_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="must be") as refused:
        EvaFit(**options)  # type: ignore[arg-type]
    assert refused.value.param == next(iter(options))


def test_shared_ids_are_the_last_of_their_bytes() -> None:
    rows = np.ones((5, 2))
    one = ModelArrays("a", Vocabulary((b"b", b"a", b"a", b"", b""), frozenset({3})), rows, rows)
    other = ModelArrays("b", Vocabulary((b"", b"a", b"c", b"b", b"b"), frozenset({0})), rows, rows)
    assert [ids.tolist() for ids in shared_ids([one, other])] == [[2, 0], [1, 4]]


def test_arrays_that_are_too_short_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="output embeddings") as refused:
        ModelArrays("a", Vocabulary((b"a", b"b")), np.ones((2, 3)), np.ones((1, 3)))
    assert refused.value.param == "a"
