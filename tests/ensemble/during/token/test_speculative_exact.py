"""Exactness of what is drawn: every course that an answer can take, added up, and a statistical test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest

from ensemble import sampling as sampling_module
from ensemble.during.token.drafting import drafts, speculation
from ensemble.during.token.election import targets
from ensemble.ensemble import Ensemble
from ensemble.member import Floats
from ensemble.request import Request
from ensemble.testing import LocalMember, TinyMember
from ensemble.vocabulary import LongestMatch, Vocabulary

TOKENS = (b"x", b"y", b"")
STEPS = 4
Target = Callable[[Sequence[Floats]], Floats]


def member(name: str, seed: int) -> LocalMember:
    """A model over three tokens, the last of them the stop, whose rows depend on all that was written."""

    def row(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        return np.log(np.random.default_rng([seed, len(ids), *ids]).dirichlet([3, 3, 1]))

    return LocalMember(name, LongestMatch(Vocabulary(TOKENS, frozenset({2}))), row)


# Random numbers that are nowhere yet: only what is decided by them narrows them down.


@dataclass
class Course:
    """One course of an answer: which way each decision went, and how likely that was."""

    script: list[int]
    likelihood: float = 1.0
    taken: list[int] = field(default_factory=list)
    ways: list[int] = field(default_factory=list)
    numbers: dict[tuple[int, int], Number] = field(default_factory=dict)

    def number(self, seed: int, position: int) -> Number:
        return self.numbers.setdefault((seed, position), Number(self))

    def choose(self, masses: Sequence[float]) -> int:
        step = len(self.taken)
        possible = [i for i, mass in enumerate(masses) if mass > 0]
        way = self.script[step] if step < len(self.script) else 0
        self.taken.append(way)
        self.ways.append(len(possible))
        self.likelihood *= masses[possible[way]] / sum(masses)
        return possible[way]

    def following(self) -> Course | None:
        """The next course in order."""
        taken, ways = list(self.taken), list(self.ways)
        while taken and taken[-1] + 1 == ways[-1]:
            taken.pop(), ways.pop()
        return Course([*taken[:-1], taken[-1] + 1]) if taken else None


@dataclass
class Number:
    """A random number in [low, high); asking on which side of an edge it lies branches the course."""

    course: Course
    low: float = 0.0
    high: float = 1.0

    def among(self, edges: Sequence[float]) -> int:
        """The cell that it lies in; ``edges``: upper ends, the last of them 1."""
        lower = [0.0, *edges[:-1]]
        cells = [(max(a, self.low), min(b, self.high)) for a, b in zip(lower, edges, strict=True)]
        cell = self.course.choose([max(0.0, b - a) for a, b in cells])
        self.low, self.high = cells[cell]
        return cell

    def __mul__(self, factor: float) -> Scaled:
        return Scaled(self, float(factor))


@dataclass
class Scaled:
    number: Number
    factor: float

    def __lt__(self, other: float) -> bool:
        edge = 1.0 if self.factor == 0 else min(1.0, float(other) / self.factor)
        return self.number.among([edge, 1.0]) == 0


def picked(probabilities: Floats, point: Number) -> int:
    cumulative = np.cumsum(probabilities) / np.sum(probabilities)
    return point.among([*cumulative[:-1], 1.0])


async def courses(
    monkeypatch: pytest.MonkeyPatch,
    members: Sequence[LocalMember],
    options: Mapping[str, object],
    method: str = "speculative_ensemble",
    **sampling: object,
) -> tuple[Counter[str], int]:
    """Probability of every answer, by going through all courses; and their number."""
    ensemble = Ensemble("e", method, members, options=options)
    request = Request.of("", max_tokens=STEPS, seed=1, **sampling)
    answers: Counter[str] = Counter()
    course: Course | None = Course([])
    count = 0
    while course is not None:
        count += 1
        for module in (sampling_module, drafts, speculation, targets):
            monkeypatch.setattr(module, "pick", picked)
            if hasattr(module, "uniform"):
                monkeypatch.setattr(module, "uniform", course.number)
        choice = (await ensemble.answer(request)).choices[0]
        answers[choice.text + ("." if choice.finish_reason == "stop" else "")] += course.likelihood
        course = course.following()
    return answers, count


def plain(members: Sequence[LocalMember], target: Target) -> dict[str, float]:
    """Probability of every answer, token by token."""
    found: dict[str, float] = {}
    for ids in product(range(3), repeat=STEPS):
        stop = ids.index(2) if 2 in ids else STEPS
        written = ids[:stop]
        likelihood = 1.0
        for step in range(min(stop + 1, STEPS)):
            likelihood *= target([m.model((), ids[:step]) for m in members])[ids[step]]
        found["".join("xy"[i] for i in written) + ("." if stop < STEPS else "")] = likelihood
    return {answer: likelihood for answer, likelihood in found.items() if likelihood > 1e-15}


def shaped(masses: Floats, temperature: float, top_p: float) -> Floats:
    """Temperature, then the smallest set that reaches ``top_p``."""
    masses = masses ** (1 / temperature)
    masses = masses / masses.sum()
    order = np.argsort(-masses)
    before = np.cumsum(masses[order]) - masses[order]
    masses[order[before >= top_p]] = 0
    return masses / masses.sum()


def mixture(weights: Sequence[float], processing: str, *how: float) -> Target:
    def target(rows: Sequence[Floats]) -> Floats:
        masses = [np.exp(row) for row in rows]
        if processing == "members":
            return sum(w * shaped(m, *how) for w, m in zip(weights, masses, strict=True))  # type: ignore[return-value]
        return shaped(sum(w * m for w, m in zip(weights, masses, strict=True)), *how)  # type: ignore[arg-type]

    return target


def contrastive(processing: str, alpha: float, least: float, *how: float) -> Target:
    """The second member is the expert."""

    def target(rows: Sequence[Floats]) -> Floats:
        amateur, expert = (np.exp(row) for row in rows)
        if processing == "members":
            expert, amateur = shaped(expert, *how), shaped(amateur, how[0], 1.0)
        masses = np.where(expert >= least * expert.max(), expert, 0) * amateur**-alpha
        return masses / masses.sum() if processing == "members" else shaped(masses / masses.sum(), *how)

    return target


PLAIN = {"temperature": 1.0, "top_p": 1.0}
SHAPED = {"temperature": 0.7, "top_p": 0.9}
LENGTHS = [(1, 1), (2, 1), (3, 1), (1, 3), (2, 2)]


@pytest.mark.parametrize("overlap", [False, True], ids=["turns", "overlap"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("processing", ["members", "ensemble"])
async def test_two_members(monkeypatch, lengths, processing: str, overlap: bool) -> None:
    members = [member("q", 1), member("p", 2)]
    draft = {"lengths": lengths, "overlap": overlap}
    options = {"weights": [0.3, 0.7], "processing": processing, "draft": draft}
    found, count = await courses(monkeypatch, members, options, **SHAPED)
    assert found == pytest.approx(plain(members, mixture((0.3, 0.7), processing, *SHAPED.values())), abs=1e-12)
    assert count > len(found)


@pytest.mark.parametrize("overlap", [False, True], ids=["turns", "overlap"])
@pytest.mark.parametrize("lengths", [(2, 1, 1), (2, 2, 1), (1, 1, 2)], ids=str)
async def test_three_members(monkeypatch, lengths, overlap: bool) -> None:
    members = [member(name, seed) for seed, name in enumerate("abc")]
    draft = {"lengths": lengths, "overlap": overlap}
    found, _ = await courses(monkeypatch, members, {"weights": [1, 2, 1], "draft": draft}, **PLAIN)
    assert found == pytest.approx(plain(members, mixture((0.25, 0.5, 0.25), "members", 1, 1)), abs=1e-12)


@pytest.mark.parametrize("lengths", [(2, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("processing", ["members", "ensemble"])
@pytest.mark.parametrize("plausibility", [0, 0.3])
async def test_contrasts(monkeypatch, lengths, processing: str, plausibility: float) -> None:
    members = [member("amateur", 3), member("expert", 4)]
    options = {
        "target": "contrastive",
        "alpha": 0.4,
        "plausibility": plausibility,
        "processing": processing,
        "draft": {"lengths": lengths},
    }
    found, _ = await courses(monkeypatch, members, options, **SHAPED)
    expected = plain(members, contrastive(processing, 0.4, plausibility, *SHAPED.values()))
    assert found == pytest.approx(expected, abs=1e-12)


async def test_gac_and_its_drafts(monkeypatch) -> None:
    members = [member("q", 1), member("p", 2)]
    options = {"weights": [1, 3], "draft": {"lengths": [2, 2]}}
    found, _ = await courses(monkeypatch, members, options, "gac", **SHAPED)
    expected = plain(members, mixture((0.25, 0.75), "ensemble", *SHAPED.values()))
    assert found == pytest.approx(expected, abs=1e-12)


def nominated(rows: Sequence[Floats]) -> Floats:
    """The mean of both members' probabilities within the union of their likeliest tokens."""
    masses = [np.exp(row) for row in rows]
    union = np.isin(np.arange(3), [int(m.argmax()) for m in masses])
    return shaped(sum(np.where(union, m, 0) / m[union].sum() for m in masses) / 2, *SHAPED.values())


@pytest.mark.parametrize("overlap", [False, True], ids=["turns", "overlap"])
async def test_unite_and_its_drafts(monkeypatch, overlap: bool) -> None:
    members = [member("q", 1), member("p", 2)]
    options = {"topk": 1, "draft": {"lengths": [2, 2], "overlap": overlap}}
    found, _ = await courses(monkeypatch, members, options, "unite", **SHAPED)
    assert found == pytest.approx(plain(members, nominated), abs=1e-12)


async def test_a_drafter_without_weight_is_ordinary_speculative_decoding(monkeypatch) -> None:
    members = [member("q", 1), member("p", 2)]
    options = {"weights": [0, 1], "draft": {"lengths": [2, 1]}}
    found, count = await courses(monkeypatch, members, options, **PLAIN)
    assert found == pytest.approx(plain(members, mixture((0, 1), "members", 1, 1)), abs=1e-12)
    assert count > len(found)
    assert members[0].exchanges


async def test_a_member_alone_is_never_rejected(monkeypatch) -> None:
    members = [member("q", 1), member("p", 2)]
    found, count = await courses(monkeypatch, members, {"weights": [1, 0]}, **PLAIN)
    assert found == pytest.approx(plain(members, mixture((1, 0), "members", 1, 1)), abs=1e-12)
    # Each answer comes about in one way, but for what is drafted behind a stop or the limit: nothing is.
    assert count == len(found)
    assert members[1].exchanges == 0


async def test_random_numbers_used_twice_would_be_found_out(monkeypatch) -> None:
    """The courses see a dependence: drawing corrections with the members' own numbers is not exact."""
    monkeypatch.setattr(drafts.Stream, "seed", lambda self, seed: seed)
    members = [member("q", 1), member("p", 2)]
    found, _ = await courses(monkeypatch, members, {"draft": {"lengths": [2, 1]}}, **PLAIN)
    assert found != pytest.approx(plain(members, mixture((0.5, 0.5), "members", 1, 1)), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"weights": [2, 1], "draft": {"lengths": [3, 1]}}, mixture((2 / 3, 1 / 3), "members", 0.8, 1.0)),
        ({"target": "contrastive", "draft": {"lengths": [3, 2]}}, contrastive("members", 0.1, 0.1, 0.8, 1.0)),
    ],
    ids=["weights", "contrastive"],
)
async def test_drawn_bytes_of_larger_models_pass_a_test_of_fit(options: dict[str, object], target: Target) -> None:
    members = [TinyMember("q", 1), TinyMember("p", 2)]
    ensemble = Ensemble("e", "speculative_ensemble", members, options=options)
    prompt = members[0].tokeniser.encode(b"go")
    runs = 1200
    # The second byte is the first that is drafted.
    seen: Counter[int] = Counter()
    for seed in range(runs):
        request = Request.of("go", max_tokens=2, temperature=0.8, seed=seed, logprobs=0)
        tokens = (await ensemble.answer(request)).choices[0].tokens
        seen[tokens[1].token[0] if len(tokens) == 2 else 0] += 1
    first = target([m.model(prompt, ()) for m in members])
    chances = sum(first[i] * target([m.model(prompt, (i,)) for m in members]) for i in range(1, 256))
    chances[0] += first[0]
    likely = np.flatnonzero(chances * runs >= 8)
    counts = np.array([*(seen[int(i)] for i in likely), runs - sum(seen[int(i)] for i in likely)])
    awaited = runs * np.array([*chances[likely], 1 - chances[likely].sum()])
    statistic = float((((counts - awaited) ** 2) / awaited).sum())
    freedom = len(likely)
    assert len(likely) > 10
    # Mean of the distribution plus three standard deviations.
    assert statistic < freedom + 3 * np.sqrt(2 * freedom)
