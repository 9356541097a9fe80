"""CITER's labels and network: the worked example, what a label means, and that a fitted router routes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ensemble.artifacts import Artifact, Manifest
from ensemble.errors import ConfigurationError
from ensemble.fitting.citer import Example, labelled, relabelled, together_written
from ensemble.fitting.router import CiterFit, Network, fit
from ensemble.heads import build
from ensemble.member import Floats
from ensemble.testing import LocalMember
from ensemble.vocabulary import LongestMatch, Vocabulary

WORDS = Vocabulary((b"a", b"b", b"c", b""), frozenset({3}))


def reciter(name: str, text: bytes, **options: int) -> LocalMember:
    """Writes a text by position, whatever it is asked; its state says the position."""

    def row(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        token = WORDS.tokens.index(text[len(ids) : len(ids) + 1]) if len(ids) < len(text) else 3
        masses = np.full(4, 0.01)
        masses[token] = 0.97
        return np.log(masses)

    def state(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        return np.array([len(ids), 1.0])

    member = LocalMember(name, LongestMatch(WORDS), row, states=state, **options)  # type: ignore[arg-type]
    member.prompt_ids = lambda request: []  # type: ignore[method-assign]
    return member


def nobody(done: int, of: int) -> None:
    return None


OPTIONS = CiterFit(tokens=12)


async def test_labels_say_who_has_the_references_token() -> None:
    small, large = reciter("s", b"abca"), reciter("l", b"accb")
    told: list[tuple[int, int]] = []
    labels = await labelled(
        small, large, [Example("q", "acca")], lambda number, text: False, OPTIONS, lambda d, n: told.append((d, n))
    )
    # a: both; c: only the large one; c and a: the small one; then the stop.
    assert labels.good.tolist() == [1, 0, 1, 1, 1]
    assert labels.states[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert labels.open == () and told == [(1, 1)]
    assert small.open_sessions == large.open_sessions == 0


@pytest.mark.parametrize("good", [True, False])
async def test_where_both_miss_it_the_answers_end_decides(good: bool) -> None:
    heard: list[str] = []

    def right(number: int, text: str) -> bool:
        heard.append(text)
        return good

    labels = await labelled(
        reciter("s", b"abca"), reciter("l", b"abcb"), [Example("q", "acca")], right, OPTIONS, nobody
    )
    assert labels.good.tolist() == [1, float(good), 1, 1, 1]
    assert [(place.row, place.ids) for place in labels.open] == [(1, (0, 1))]
    assert heard == ["abca"], "the small member writes on from its own token"


async def test_open_places_are_labelled_again_by_what_both_come_to() -> None:
    small, large = reciter("s", b"abca"), reciter("l", b"abcb")
    example = Example("q", "acca")
    labels = await labelled(small, large, [example], lambda number, text: True, OPTIONS, nobody)
    # A router that lets the small member write up to its third token only.
    layers = {
        "weight0": np.array([[-1.0, 2.5], [0, 0]]),
        "bias0": np.zeros(2),
        "weight1": np.eye(2),
        "bias1": np.zeros(2),
    }
    router = Network({**layers, "weight2": np.array([[40.0, 0]]), "bias2": np.array([-10.0])})
    answers = [
        lambda place=place: together_written(small, large, example, place, router, OPTIONS) for place in labels.open
    ]
    heard: list[str] = []

    def right(number: int, text: str) -> bool:
        heard.append(text)
        return False

    again = await relabelled(labels, answers, right, OPTIONS, nobody)
    assert heard == ["abcb"], "the large one writes the fourth token"
    assert again.good.tolist() == [1, 0, 1, 1, 1]


async def test_labels_and_answers_end_with_the_context() -> None:
    small, large = reciter("s", b"abcabc" * 9, context_length=6), reciter("l", b"aaaa", context_length=4)
    heard: list[str] = []

    def right(number: int, text: str) -> bool:
        heard.append(text)
        return False

    labels = await labelled(small, large, [Example("q", "accaccacc")], right, OPTIONS, nobody)
    assert labels.good.tolist() == [1, 0, 1, 1], "four tokens fit at the large member"
    assert heard == ["abcabc"], "the small member's own context is larger"


async def test_a_member_that_never_stops_is_labelled_along_the_text_alone() -> None:
    endless = Vocabulary((b"a", b"b"))
    pair = [LocalMember(name, LongestMatch(endless), lambda p, i: np.log([0.9, 0.1]), states=_flat) for name in "sl"]
    labels = await labelled(pair[0], pair[1], [Example("ab", "aa")], lambda number, text: True, OPTIONS, nobody)
    assert labels.good.tolist() == [1, 1]


def _flat(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
    return np.ones(2)


@pytest.mark.parametrize(
    "option",
    [
        {"iterations": 0},
        {"concurrency": 0},
        {"batch": 1},
        {"epochs": 0},
        {"held_out": 1.0},
        {"dropout": 1.0},
        {"learning_rate": float("nan")},
        {"threshold": -0.1},
    ],
)
def test_options_that_fit_nothing_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="must be") as refused:
        CiterFit(**option)
    assert refused.value.param == next(iter(option))


def test_a_router_takes_some_tokens() -> None:
    states, good = data(3, 0)
    assert fit(states, good, CiterFit(epochs=1, held_out=0.9))[1]["tokens"] == 1
    with pytest.raises(ConfigurationError, match="3 labelled tokens at least; there are 2"):
        fit(states[:2], good[:2], CiterFit(epochs=1))


def data(count: int, seed: int) -> tuple[Floats, Floats]:
    random = np.random.default_rng(seed)
    states = random.normal(size=(count, 6)).astype(np.float32)
    return states, (states[:, 0] * states[:, 1] > 0).astype(np.float32)


def test_a_network_learns_what_no_line_separates() -> None:
    states, good = data(3000, 0)
    told: list[tuple[int, int]] = []
    router, metrics = fit(states, good, CiterFit(epochs=60, learning_rate=3e-3), lambda d, n: told.append((d, n)))
    fresh, labels = data(1000, 1)
    assert ((router.score(fresh) > 0.5) == (labels > 0.5)).mean() > 0.85
    assert metrics["auc"] > 0.9 and metrics["tokens"] == 600
    assert told[-1][1] == 60


def test_the_head_scores_as_the_network_that_was_fitted() -> None:
    states, good = data(500, 2)
    router, _ = fit(states, good, CiterFit(epochs=3))
    manifest = Manifest(method="citer", kind="router", member="s", vocabulary="v")
    import torch

    own = torch.tensor(states[:20])
    read = build(Artifact(manifest, router.layers)).read(own, own, None).exp().numpy()
    np.testing.assert_allclose(read[:, 0], router.score(states[:20]), atol=1e-6)
    np.testing.assert_allclose(read.sum(1), 1, atol=1e-6)


def test_worked_example_of_the_loss() -> None:
    scores, labels = np.array([0.97, 0.40, 0.99, 0.93]), np.array([1.0, 0, 1, 1])
    loss = -np.mean(labels * np.log(scores) + (1 - labels) * np.log(1 - scores))
    assert loss == pytest.approx(0.155976, abs=1e-6)


def test_fitting_is_the_same_for_the_same_seed() -> None:
    states, good = data(400, 3)
    one, other = (fit(states, good, CiterFit(epochs=4))[0].layers for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)
