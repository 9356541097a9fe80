"""Kind ``projection``: the worked example of EVA, masses, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensemble import heads
from ensemble.artifacts import Artifact, Manifest
from ensemble.errors import ConfigurationError
from ensemble.heads.projection import LISTED, Projection
from ensemble.member import Floats

RAW = np.array([[0.993884, 0.762732, 0, 0], [0, 0.409351, 0.993884, 0], [0, 0.96, 0.606116, 0]], np.float32)
HELPER = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))


def artifact(dense: Floats, **settings: object) -> Artifact:
    ids = np.broadcast_to(np.arange(dense.shape[1], dtype=np.int32), dense.shape)
    manifest = Manifest(
        method="eva",
        kind="projection",
        member="h",
        vocabulary="v",
        space="p",
        settings={"size": dense.shape[1], "topk": LISTED, **settings},
    )
    return Artifact(manifest, {"ids": ids.copy(), "weights": dense.astype(np.float32)})


def projected(head: heads.Head, logprobs: Floats) -> Floats:
    return np.asarray(head.read(torch.from_numpy(logprobs), None, None).exp())


def test_worked_example_with_rows_as_published() -> None:
    head = heads.build(artifact(RAW))
    assert (head.card.kind, head.card.space, head.listed, head.told) == ("projection", "p", 320, 0)
    [q] = projected(head, HELPER)
    assert q == pytest.approx([0.695719, 0.711782, 0.259388, 0], abs=1e-6)
    assert q.sum() == pytest.approx(1.666889, abs=1e-6) and q.argmax() == 1


def test_worked_example_with_normalised_rows() -> None:
    [q] = projected(heads.build(artifact(RAW / RAW.sum(axis=1, keepdims=True))), HELPER)
    assert q == pytest.approx([0.396056, 0.423586, 0.180358, 0], abs=1e-6) and q.sum() == pytest.approx(1, abs=1e-6)


def test_only_the_likeliest_are_projected_and_they_count_as_all_there_is() -> None:
    [q] = projected(heads.build(artifact(np.eye(3, 4, dtype=np.float32), topk=2)), HELPER)
    assert q == pytest.approx([7 / 9, 2 / 9, 0, 0], abs=1e-6)


def test_a_list_that_is_cut_off_gives_what_the_whole_gives() -> None:
    logits = np.random.default_rng(1).normal(size=(4, 50)).astype(np.float32)
    head = heads.build(artifact(np.random.default_rng(2).random((50, 9)), topk=8))
    cut = np.where(logits >= np.sort(logits)[:, [-8]], logits, -np.inf)
    np.testing.assert_array_equal(projected(head, logits), projected(head, cut))


def test_places_do_not_touch_one_another() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 30)).astype(np.float32)
    head = heads.build(artifact(np.random.default_rng(2).random((30, 7)))).to(torch.device("cpu"))
    alone = np.concatenate([projected(head, logits[[i]]) for i in range(5)])
    np.testing.assert_allclose(projected(head, logits), alone, rtol=1e-6)


def test_a_token_without_a_row_stands_for_nothing() -> None:
    dense = np.eye(3, 4, dtype=np.float32)
    dense[0] = 0
    [q] = projected(heads.build(artifact(dense)), HELPER)
    assert q == pytest.approx([0, 0.2, 0.1, 0], abs=1e-6)
    [q] = projected(heads.build(artifact(dense, topk=1)), HELPER)
    assert 0 < q.max() < 1e-20, "no distribution is of no mass at all"


@pytest.mark.parametrize("settings", [{"topk": 321}, {"topk": 0}, {"topk": None}, {"size": 2}, {"size": None}])
def test_what_is_no_projection_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="kind projection"):
        heads.build(artifact(RAW, **settings))


def test_tensors_of_other_shapes_are_refused() -> None:
    manifest, tensors = artifact(RAW)
    with pytest.raises(ConfigurationError, match="one shape"):
        Projection.of(Artifact(manifest, {**tensors, "weights": tensors["weights"][:, :2]}))
    with pytest.raises(ConfigurationError, match="'weights'"):
        Projection.of(Artifact(manifest, {"ids": tensors["ids"]}))
