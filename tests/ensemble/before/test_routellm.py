"""RouteLLM: its scorers, its threshold, and a model that is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.before.heads.rated import Rated
from ensemble.before.heads.similarity import SimilarityRanking
from ensemble.before.heads.verdicts import Verdicts
from ensemble.before.policies import Threshold
from ensemble.before.routellm import RouteLlm, RouteLlmFit
from ensemble.before.routing.router import keep
from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, ConfigurationError, MemberLost
from ensemble.request import Request
from ensemble.testing import ScriptedMember
from tests.ensemble.before.routing.desks import FirstWord, Says, trace
from tests.ensemble.before.toys import table

PAIR = table(n=120, members=2, tasks=2)
SCORERS = ("mf", "sw_ranking", "classifier")
FITS = {"mf": {"size": 8, "epochs": 10, "noise": 0.02}}
DIGITS = [b"1", b"2", b"3", b"4", b"5", b""]


def fitted(scorer: str, **options: Any) -> np.ndarray:
    fit = RouteLlmFit.model_validate({"scorer": scorer, **FITS.get(scorer, {}), **options})
    return RouteLlm.fit(PAIR, fit).predict(PAIR.x).quality


@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_of_two_are_a_probability_and_the_rest(scorer: str) -> None:
    scores = fitted(scorer)
    assert ((scores >= 0) & (scores <= 1)).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("scorer", ["gap", *SCORERS])
def test_the_share_of_strong_answers_falls_with_the_threshold(scorer: str) -> None:
    fit = RouteLlmFit.model_validate({"scorer": scorer, **FITS.get(scorer, {})})
    router = RouteLlm.fit(PAIR, fit)
    prediction = router.predict(PAIR.x)
    allowed, random = np.ones(prediction.quality.shape, bool), np.random.default_rng(0)

    def share(threshold: float) -> float:
        policy = Threshold(margin=2 * threshold - 1)
        return float((policy.choose(prediction, allowed, random).chosen == router.best).mean())

    shares = [share(threshold) for threshold in np.linspace(-0.5, 1.5, 201)]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1 and shares[-1] == 0 and len(set(shares)) > 3
    if scorer != "gap":
        assert share(0.0) == 1 and share(1.0 + 1e-6) == 0


def test_the_gap_regresses_by_how_much_one_is_better() -> None:
    scores = fitted("gap", penalty=1.0)
    gap = PAIR.table.quality[:, 0] - PAIR.table.quality[:, 1]
    rows = np.concatenate([PAIR.x - PAIR.x.mean(axis=0)], axis=1)
    slope = np.linalg.solve(rows.T @ rows + np.eye(rows.shape[1]), rows.T @ (gap - gap.mean()))
    assert np.allclose(scores[:, 0] - scores[:, 1], gap.mean() + rows @ slope, atol=1e-5)


def test_the_classifiers_reference_form_counts_ties_for_the_weak_one() -> None:
    strong = PAIR.table.best
    assert (fitted("classifier")[:, strong] > fitted("classifier", fidelity="reference")[:, strong]).all()


def test_each_scorer_is_its_own_head() -> None:
    three = table(n=60)
    heads = {
        s: RouteLlm.fit(three, RouteLlmFit.model_validate({"scorer": s})).head for s in ("sw_ranking", "classifier")
    }
    assert isinstance(heads["sw_ranking"], SimilarityRanking) and isinstance(heads["classifier"], Verdicts)
    causal = RouteLlm.fit(three, RouteLlmFit(scorer="causal", strong="m2", least=3)).head
    assert isinstance(causal, Rated) and (causal.strong, causal.least) == (2, 3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scorer": "gap", "epochs": 3}, "the scorer gap has no option epochs; it has: penalty"),
        ({"scorer": "mf", "groups": 3}, "the scorer mf has no option groups; it has: size, epochs, noise, fidelity"),
        ({"least": 3}, "it has: penalty"),
    ],
)
def test_options_of_other_scorers_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RouteLlmFit.model_validate(options)


def test_tables_that_cannot_be_learned_from_are_refused() -> None:
    with pytest.raises(BadRequest, match="'big' is no member of the table; allowed: m0, m1"):
        RouteLlm.fit(PAIR, RouteLlmFit(scorer="causal", strong="big"))
    with pytest.raises(BadRequest, match="the table has one"):
        RouteLlm.fit(table(members=1), RouteLlmFit())
    alone = PAIR.table.quality.copy()
    alone[np.arange(120), np.arange(120) % 2] = np.nan
    for scorer in ("mf", "sw_ranking"):
        with pytest.raises(BadRequest, match="no query with outcomes of two members"):
            RouteLlm.fit(replace(PAIR, table=replace(PAIR.table, quality=alone)), RouteLlmFit(scorer=scorer))


def causal(folder: Path, members: int = 2) -> Path:
    """A router that asks; ``m0`` is the strong one."""
    training = table(n=30, members=members)
    keep(folder / "causal", "routellm", RouteLlm.fit(training, RouteLlmFit(scorer="causal", strong="m0")))
    return folder / "causal"


def rater(good: float) -> ScriptedMember:
    return ScriptedMember("rater", DIGITS, [{b"1": 1 - good, b"5": good}])


def served(path: Path, rates: Any, members: int = 2, **options: Any) -> Ensemble:
    says = [Says(f"m{i}") for i in range(members)]
    given = {"path": str(path), "asked": "rater", "fallback": "m0"} | options
    return Ensemble("routed", "routellm", [*says, rates], options=given)


async def test_the_weak_one_answers_where_its_answer_is_rated_good(tmp_path: Path) -> None:
    path = causal(tmp_path)
    for good, who in ((0.9, "m1"), (0.2, "m0")):
        answer = await served(path, rater(good)).answer(Request.of("hard?"))
        assert answer.text == who
        told = trace(answer)
        assert told["scores"] == pytest.approx({"m0": 1 - good, "m1": good})
        assert set(answer.usage) == {who, "rater"}


async def test_who_is_asked_does_not_answer_and_its_failure_is_told(tmp_path: Path) -> None:
    failing = ScriptedMember("rater", DIGITS, [{b"1": 1.0}], fail_at=0)
    answer = await served(causal(tmp_path), failing).answer(Request.of("hard?"))
    assert answer.text == "m0" and "rater" not in trace(answer)["scores"]
    assert [(i.member, i.reason) for i in answer.choices[0].incidents][:1] == [("rater", MemberLost.code)]


async def test_of_more_than_two_each_is_rated(tmp_path: Path) -> None:
    class Rater(ScriptedMember):
        def prompt_ids(self, request: Request) -> list[int]:
            self.good = 0.9 if "of m2" in request.question else 0.6
            return []

        def _scripted(self, prompt: Any, ids: Any) -> Any:
            row = np.full(len(DIGITS), -np.inf)
            row[[0, 4]] = np.log([1 - self.good, self.good])
            return row

    asked = Rater("rater", DIGITS, [])
    answer = await served(causal(tmp_path, 3), asked, 3, template="answer of {member} to {question}").answer(
        Request.of("hard?")
    )
    assert set(trace(answer)["scores"]) == {"m0", "m1", "m2"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"asked": "nobody"}, "'nobody' is no member; allowed: m0, m1, rater"),
        ({"fallback": "rater"}, "'rater' is asked and does not answer"),
        ({"template": "how good?"}, "template must hold {question}"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises((ConfigurationError, BadRequest), match=told):
        served(causal(tmp_path), rater(0.5), **options)


def test_a_rater_has_sessions_and_causal_routers_have_a_rater(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="rater has only generate"):
        served(causal(tmp_path), Says("rater"))
    with pytest.raises(ConfigurationError, match="needs a member that rates answers: set asked"):
        Ensemble("routed", "routellm", [Says("m0"), Says("m1")], options={"path": str(causal(tmp_path))})


def test_three_need_the_name_of_whose_answer_is_rated(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"template must hold \{member\}"):
        served(causal(tmp_path, 3), rater(0.5), 3, template="{question}?")


def test_other_scorers_ask_nobody(tmp_path: Path) -> None:
    gap = RouteLlm.fit(table(n=30, members=2, size=3), RouteLlmFit())
    keep(tmp_path / "gap", "routellm", replace(gap, encoder=FirstWord()))
    with pytest.raises(ConfigurationError, match="asked apply to the scorer causal alone"):
        served(tmp_path / "gap", rater(0.5))
