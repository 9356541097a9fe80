"""Kind ``relative``: the worked example of DeePEn, and the search's laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensemble import heads
from ensemble.artifacts import Artifact, Manifest
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.fitting.deepen import DeepenFit, relative
from ensemble.heads.relative import Relative
from ensemble.heads.search import Search
from ensemble.member import Floats

MAIN = relative(np.array([[1, 0], [0.8, 0.6], [0, 1]]), np.array([0, 2], np.int32), DeepenFit(temperature=10))
HELPER = relative(
    np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.8], [-1, 0.2]]), np.array([0, 1], np.int32), DeepenFit(temperature=10)
)
Z_MAIN, Z_HELPER = [1.0, 1.2, 0.9], [0.2, 2.0, 0.5, -1.0]
TARGET = [0.402574, 0.597426]
RATES = [0.150000, 0.147247, 0.139257, 0.126813, 0.111132]


def head_of(rows: Floats, stops: tuple[int, ...] = (), dtype: type = np.float32) -> Relative:
    manifest = Manifest(method="deepen", kind="relative", member="m", vocabulary="v", space="s")
    head = heads.build(Artifact(manifest, {"rows": rows.astype(dtype), "stops": np.array(stops, np.int32)}))
    assert isinstance(head, Relative)
    return head


def seen(head: Relative, logits: list[float]) -> Floats:
    return np.asarray(head.read(torch.tensor([logits]), None, None)[0].exp())


def search(rate: float, steps: int = 5, *, reference: bool = True, target: Floats | None = None) -> Search:
    told = torch.log(torch.tensor([TARGET] if target is None else target[None], dtype=torch.float32))
    numbers = torch.tensor([rate]), torch.tensor([steps]), torch.tensor([reference])
    return Search(torch.from_numpy(MAIN), torch.tensor([Z_MAIN]), told, *numbers)


def test_worked_example_of_the_vectors() -> None:
    main, helper = seen(head_of(MAIN), Z_MAIN), seen(head_of(HELPER), Z_HELPER)
    assert main == pytest.approx([0.663994, 0.336006], abs=1e-6)
    assert helper == pytest.approx([0.141153, 0.858847], abs=1e-6)
    assert (main + helper) / 2 == pytest.approx(TARGET, abs=1e-6)


def test_worked_example_of_the_search_as_published() -> None:
    found = search(0.15)
    losses = [float(found.step()[0]) / 2]
    assert found.logits[0].tolist() == pytest.approx([0.8485, 1.0482, 1.04865], abs=1e-5)
    losses += [float(found.step()[0]) / 2 for _ in range(4)]
    assert losses == pytest.approx([0.071187, 0.040705, 0.018538, 0.005598, 0.000499], abs=1e-6)
    assert found.logits[0].tolist() == pytest.approx([0.370663, 0.560620, 1.520659], abs=2e-6)
    assert int(search(0.15, 1).run().argmax()) == 2, "already after one step"


def test_worked_example_of_too_large_a_step() -> None:
    found = search(0.3)
    losses = [float(found.step()[0]) / 2 for _ in range(5)]
    assert losses[2] == pytest.approx(0.000024, abs=1e-6) and losses[4] == pytest.approx(0.018389, abs=2e-6)
    assert int(found.logits.argmax()) == 2


def test_learning_rates_are_those_of_the_schedule() -> None:
    # Without decay, and under a gradient that hardly changes, the first moves are the learning rate itself.
    found, before, moves = search(1e-5, reference=False), torch.tensor([Z_MAIN]), []
    for _ in range(5):
        found.step()
        moves.append(float((found.logits - before)[0].abs().max()))
        before = found.logits
    assert [1.5e4 * move for move in moves] == pytest.approx(RATES, rel=0.03)


def told(rate: float, steps: int, reference: bool, vector: Floats) -> torch.Tensor:
    return torch.tensor([[rate, steps, float(reference), *np.log(vector)]], dtype=torch.float32)


@pytest.mark.parametrize("reference", [True, False])
def test_the_head_answers_over_its_own_tokens(reference: bool) -> None:
    found = head_of(MAIN).read(torch.tensor([Z_MAIN]), None, told(0.15, 5, reference, np.array(TARGET)))
    expected = search(0.15, reference=reference).run().log_softmax(-1)
    torch.testing.assert_close(found, expected)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-6)


def test_both_fidelities_differ_by_the_decay() -> None:
    published, fixed = search(0.15).run(), search(0.15, reference=False).run()
    assert (published - fixed).abs().max() > 1e-3


def test_many_anchors_bring_the_published_search_to_a_halt() -> None:
    rng = np.random.default_rng(0)
    rows, anchors = relative(rng.normal(size=(40, 6)), np.arange(40, dtype=np.int32), DeepenFit(temperature=3)), 40
    wide = np.tile(rows, (1, 2500)) / 2500
    target = np.full(anchors * 2500, 1 / (anchors * 2500))
    start = torch.tensor(rng.normal(size=(1, 40)) * 3, dtype=torch.float32)
    moved = [
        float((head_of(wide).read(start, None, told(0.15, 5, mode, target)) - start.log_softmax(-1)).abs().mean())
        for mode in (True, False)
    ]
    assert moved[0] < 0.75 * moved[1]


@given(st.integers(0, 10_000), st.floats(0.01, 1), st.booleans())
def test_who_is_there_already_stays(seed: int, rate: float, reference: bool) -> None:
    rng = np.random.default_rng(seed)
    head = head_of(relative(rng.normal(size=(30, 5)), np.arange(0, 30, 2, dtype=np.int32), DeepenFit()))
    logits = torch.tensor(rng.normal(size=(1, 30)) * 3, dtype=torch.float32)
    own = np.asarray(head.read(logits, None, None)[0].exp())
    found = head.read(logits, None, told(rate, 5, reference, own))
    torch.testing.assert_close(found, logits.log_softmax(-1))


@given(st.integers(0, 10_000))
def test_order_of_anchors_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = relative(rng.normal(size=(20, 5)), np.arange(8, dtype=np.int32), DeepenFit(temperature=10))
    target, order = rng.dirichlet(np.ones(8)), rng.permutation(8)
    logits = torch.tensor(rng.normal(size=(1, 20)), dtype=torch.float32)
    one = head_of(rows).read(logits, None, told(0.15, 5, False, target))
    other = head_of(rows[:, order]).read(logits, None, told(0.15, 5, False, target[order]))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_search_brings_the_vectors_together() -> None:
    head, target = head_of(MAIN), np.array(TARGET)
    before = abs(seen(head, Z_MAIN) - target).max()
    found = head.read(torch.tensor([Z_MAIN]), None, told(0.15, 5, False, target))[0].tolist()
    assert abs(seen(head, found) - target).max() < before / 5


def test_places_do_not_touch_one_another() -> None:
    rng = np.random.default_rng(3)
    head = head_of(relative(rng.normal(size=(20, 5)), np.arange(8, dtype=np.int32), DeepenFit(temperature=10)), (4,))
    logits = torch.tensor(rng.normal(size=(6, 20)), dtype=torch.float32)
    logits[2, 4] = 9.0
    questions = [told(0.05 * (i + 1), i, i % 2 == 0, rng.dirichlet(np.ones(8))) for i in range(6)]
    given_ = torch.cat(questions)
    alone = torch.cat([head.read(logits[[i]], None, given_[[i]]) for i in range(6)])
    torch.testing.assert_close(head.read(logits, None, given_), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head.read(logits, None, None)[[1]], head.read(logits[[1]], None, None))


def test_a_place_that_ends_the_answer_is_not_searched() -> None:
    start = torch.tensor([[0.5, 1.2, 0.1]])
    given_ = told(0.3, 5, False, np.array([0.999, 0.001]))
    assert head_of(MAIN, stops=(1,)).read(start, None, given_).tolist() == start.log_softmax(-1).tolist()
    assert head_of(MAIN, stops=(0,)).read(start, None, given_).tolist() != start.log_softmax(-1).tolist()


def test_extreme_vectors_stay_numbers() -> None:
    rng = np.random.default_rng(3)
    head = head_of(relative(rng.normal(size=(30, 8)), np.arange(10, dtype=np.int32), DeepenFit()))
    logits = torch.full((1, 30), -200.0)
    logits[0, 3] = 0.0
    vector = np.full(10, 1e-30)
    vector[7] = 1.0
    for found in (head.read(logits, None, None), head.read(logits, None, told(5.0, 20, False, vector))):
        assert bool(torch.isfinite(found).all())


def test_half_precision_is_brought_back_to_sums_of_one() -> None:
    rows = relative(np.random.default_rng(1).normal(size=(40, 6)), np.arange(30, dtype=np.int32), DeepenFit())
    head = head_of(rows, dtype=np.float16)
    vector = seen(head, np.random.default_rng(2).normal(size=40).tolist())
    assert vector.sum() == pytest.approx(1, abs=1e-6)
    assert vector == pytest.approx(seen(head_of(rows), np.random.default_rng(2).normal(size=40).tolist()), abs=1e-4)


def test_what_is_told_must_fit() -> None:
    head = head_of(MAIN)
    head.check(0)
    head.check(5)
    for count in (1, 2, 4, 6):
        with pytest.raises(BadRequest, match="nothing or 5 numbers") as refused:
            head.check(count)
        assert refused.value.param == "given"


def test_what_is_no_representation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="kind relative"):
        head_of(np.zeros((3, 2)))
    with pytest.raises(ConfigurationError, match="kind relative"):
        head_of(np.ones(3))
