"""Lessons learned from LLM routing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.before.heads.head import Outcome
from ensemble.before.heads.linear import Logistic
from ensemble.before.lessons_llm_routing import LessonsFit, LessonsLlmRouting, even
from ensemble.before.policies import Subset
from tests.ensemble.before.toys import lawful, table

CLUSTERS = {"model": "clusters", "clusters": 3}


@pytest.mark.parametrize("options", [{}, {"weighted": True}, CLUSTERS], ids=str)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, LessonsLlmRouting, LessonsFit(**options), tolerance=2e-2)


@pytest.mark.parametrize("decision", ["foretold", "sorted"])
def test_laws_where_the_order_of_members_counts(tmp_path: Path, decision: str) -> None:
    lawful(tmp_path, LessonsLlmRouting, LessonsFit(decision=decision), ordered=True)


def test_the_most_confident_is_the_one_of_the_highest_logit() -> None:
    training = table()
    router = LessonsLlmRouting.fit(training, LessonsFit())
    assert isinstance(router.head, Logistic)
    told = router.predict(training.x).quality
    assert np.array_equal(told.argmax(axis=1), router.head.logits(training.x).argmax(axis=1))
    assert np.ptp(told.sum(axis=1)) > 0.01


def votes(success: float) -> np.ndarray:
    training = table()
    told = LessonsLlmRouting.fit(training, LessonsFit(**CLUSTERS, success=success)).predict(training.x)
    choice = Subset(size=3, weighted=False).choose(told, np.ones((240, 3), bool), np.random.default_rng(0))
    assert choice.weights is not None
    return choice.weights


def test_members_of_some_success_vote_or_the_best_alone() -> None:
    assert (votes(0.0) > 0).all()
    assert ((votes(1.1) > 0).sum(axis=1) == 1).all()
    assert (votes(1.1).argmax(axis=1) == np.arange(240) % 3).all()


def test_one_cluster_is_the_best_single_member() -> None:
    training = table(members=4)
    router = LessonsLlmRouting.fit(training, LessonsFit(model="clusters", clusters=1))
    assert (router.predict(training.x).quality.argmax(axis=1) == training.table.best).all()


def test_balanced_weights() -> None:
    truth = np.array([[1.0], [0.0], [0.0], [0.0], [np.nan]])
    weight = even(truth)[:4, 0]
    assert weight.tolist() == pytest.approx([2.0, 2 / 3, 2 / 3, 2 / 3])
    assert weight.mean() == pytest.approx(1)


def test_an_outcome_moves_its_member_alone() -> None:
    training = table()
    for options in ({}, CLUSTERS):
        router = LessonsLlmRouting.fit(training, LessonsFit(**options))
        before = router.predict(training.x).quality
        router.learn(Outcome(x=training.x[0], member=0, quality=1.0))
        after = router.predict(training.x).quality
        assert after[0, 0] > before[0, 0]
        assert np.array_equal(after[:, 1:], before[:, 1:])


@pytest.mark.parametrize("options", [{"clusters": 9}, {"model": "clusters", "decision": "sorted"}], ids=str)
def test_options_that_the_model_does_not_read_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="does not read"):
        LessonsFit(**options)
