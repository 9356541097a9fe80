"""Fitting a router: what is told of it comes from queries that it has not seen, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from ensemble.before.costs.cost import known
from ensemble.before.fitting.fitted import Fitted, by_encoder, by_features, by_ngrams, fitted, widened
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.guards.guard import Guard
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.knn_router import KnnFit, KnnRouter
from ensemble.before.knobs import Knob
from ensemble.before.policies import Assign, Mix, Policy, Threshold, Utility, Within
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.outcomes.dense import Bools, Floats
from tests.ensemble.before import toys

FIT, HELD = toys.table(seed=1), toys.table(seed=2)
THREE = KnnFit(k=15)


def plain(held: Training | None = HELD, **given: Any) -> Fitted:
    return fitted(KnnRouter, FIT, held, THREE, **given)


def test_figures_are_those_of_the_choices_on_held_out_queries() -> None:
    found = plain()
    chosen = found.router.predict(HELD.x).quality.argmax(axis=1)
    own = HELD.table.quality[np.arange(240), chosen]
    single = HELD.table.quality[:, FIT.table.best]
    told = found.metrics
    assert told["quality"] == pytest.approx(own.mean()) and told["best_single"] == pytest.approx(single.mean())
    assert told["gain"] == pytest.approx((own - single).mean())
    assert told["gain_low"] < told["gain"] < told["gain_high"]
    assert told["random"] == pytest.approx(HELD.table.quality.mean())
    assert told["oracle"] == pytest.approx(HELD.table.quality.max(axis=1).mean())
    assert told["cost"] == pytest.approx(HELD.table.cost[np.arange(240), chosen].mean())
    assert (told["fitted_to"], told["tested_on"]) == (240, 240)
    assert found.policy == Utility() and found.members == FIT.table.members


def test_the_best_single_member_is_picked_on_what_was_fitted_to() -> None:
    # The members change places: who was best is the worst now.
    quality = FIT.table.quality.copy()
    quality[:, 2] = 1.0
    turned = replace(HELD, table=replace(HELD.table, quality=np.where(np.arange(3) == 2, 0.0, HELD.table.quality)))
    found = fitted(KnnRouter, replace(FIT, table=replace(FIT.table, quality=quality)), turned, THREE)
    assert found.metrics["best_single"] == 0.0


def test_without_costs_none_are_told() -> None:
    found = fitted(KnnRouter, toys.table(costs=False), toys.table(seed=2, costs=False), THREE)
    assert "quality" in found.metrics and not {"cost", "best_single_cost"} & set(found.metrics)


def test_without_held_out_queries_nothing_is_told() -> None:
    holes = replace(HELD.table, quality=HELD.table.quality * np.nan)
    for held in (None, replace(HELD, table=holes)):
        found = plain(held)
        assert found.metrics == {} and found.taken is None and found.router.members == FIT.table.members


def test_queries_with_holes_are_left_out_of_the_comparison() -> None:
    quality = HELD.table.quality.copy()
    quality[:100, 1] = np.nan
    found = plain(replace(HELD, table=replace(HELD.table, quality=quality)))
    assert found.metrics["tested_on"] == 140


@pytest.mark.parametrize(
    ("knob", "policy", "kind"),
    [
        (Knob("budget", 0.002), None, Utility),
        (Knob("budget", 0.002), Mix(scale=9), Mix),
        (Knob("budget", 0.002), Assign(budget=1), Assign),
        (Knob("drop", 0.3), Within(), Within),
        (Knob("drop", 0.3), None, Utility),
        (Knob("share", 0.4), None, Threshold),
    ],
    ids=str,
)
def test_a_knob_is_set_on_one_half_and_told_of_on_the_other(knob: Knob, policy: Policy | None, kind: type) -> None:
    found = plain(knob=knob, policy=policy)
    assert type(found.policy) is kind and found.metrics["tested_on"] == 120
    free = plain(policy=policy)
    if knob.of != "share":
        assert found.metrics["cost"] < free.metrics["cost"]
    if knob.of == "budget":
        assert found.metrics["cost"] == pytest.approx(0.002, rel=0.2)
    if knob.of == "share":
        assert found.taken is not None
        assert np.mean(found.taken.chosen == FIT.table.best) == pytest.approx(0.4, abs=0.15)


def test_where_costs_are_not_known_a_drop_is_kept_by_a_threshold() -> None:
    found = fitted(KnnRouter, toys.table(costs=False), toys.table(seed=2, costs=False), THREE, knob=Knob("drop", 0.3))
    assert isinstance(found.policy, Threshold)


def test_a_knob_needs_queries_to_be_set_on() -> None:
    with pytest.raises(BadRequest, match="leave some out with split"):
        plain(None, knob=Knob("budget", 0.002))


def test_a_policy_that_names_a_stranger_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'gpt' of the policy threshold is no member"):
        plain(policy=Threshold(strong="gpt"))


@dataclass
class Doubts(Guard, kind="test-doubts-everything"):
    def doubtful(self, x: Floats) -> Bools:
        return np.ones(len(x), bool)


class Fewer(Routing):
    """Leaves a member out, makes one of its own, and doubts everything."""

    name = "test-fewer"
    guard: ClassVar[Guard | None] = None

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        quality = training.table.quality[:, [2, 1]]
        head = Neighbours.fit(training.x, np.column_stack([quality, np.ones(len(quality))]), k=15)
        costs = known(replace(training, table=training.table.among(["m2", "m1", "m1"])))
        return Router(("m2", "m1", "m1@4"), 1, head, costs, guard=cls.guard)


def test_only_members_with_outcomes_are_compared() -> None:
    found = fitted(Fewer, FIT, HELD)
    assert found.router.members == ("m2", "m1", "m1@4") and found.members == ("m2", "m1")
    assert found.taken is not None and found.taken.chosen is not None and set(found.taken.chosen) <= {0, 1}
    assert found.metrics["oracle"] == pytest.approx(HELD.table.quality[:, 1:].max(axis=1).mean())


def test_in_doubt_the_best_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fewer, "guard", Doubts())
    found = fitted(Fewer, FIT, HELD)
    assert found.taken is not None and found.taken.chosen is not None and set(found.taken.chosen) == {1}


def test_embeddings_of_ngrams_are_fitted_to_one_part_alone() -> None:
    texts = (*(f"sum {i}" for i in range(20)), *(f"Ωμέγα {i}" for i in range(20)))
    table = replace(toys.table(n=40).table, texts=texts)
    found = by_ngrams(table, np.arange(20))
    assert found.encoder is not None and found.identity == ""
    packed, _ = found.encoder.packed()
    assert packed["kind"] == "tfidf" and found.x.shape == (40, found.encoder.size)
    assert not found.encoder.embed(["Ωμέγα"]).any(), "what is tested on is not known"
    assert (by_encoder(table, found.encoder).x == found.x).all()


def test_features_are_taken_as_they_came() -> None:
    table = replace(FIT.table, features=FIT.x.astype(np.float16))
    found = by_features(table)
    assert found.encoder is None and found.x.dtype == np.float32 and found.x == pytest.approx(FIT.x, abs=1e-3)
    with pytest.raises(BadRequest, match=r"no embeddings.*allowed: tfidf"):
        by_features(FIT.table)


def test_a_query_without_a_text_cannot_be_embedded() -> None:
    table = replace(FIT.table, texts=("a", None, *FIT.table.texts[2:]))
    with pytest.raises(BadRequest, match=r"query 'q1' has no text.*allowed: features"):
        by_ngrams(table, np.arange(10))


def test_the_encoder_is_kept_with_routers_that_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = by_ngrams(FIT.table, np.arange(100)).encoder
    assert plain(encoder=encoder).router.encoder is encoder
    monkeypatch.setattr(KnnRouter, "takes_encoder", False)
    assert plain(encoder=encoder).router.encoder is None


def widen(member: str, names: Sequence[str] = ("m0", "m1", "new")) -> tuple[Router, Router]:
    router = plain().router
    quality = HELD.table.quality.copy()
    quality[5:, 2] = np.nan
    table = replace(HELD.table, members=tuple(names), quality=quality)
    return router, widened(router, member, table, HELD.x)


def test_a_new_member_is_learned_from_what_it_has_answered() -> None:
    before, after = widen("new")
    assert after.members == ("m0", "m1", "m2", "new") and after.best == before.best
    assert (after.predict(HELD.x).quality[:, :3] == before.predict(HELD.x).quality).all()
    assert isinstance(after.head, Neighbours)
    assert (~np.isnan(after.head.quality[:, 3])).sum() == 5
    assert after.predict(HELD.x).cost[:, 3] == pytest.approx(np.nanmean(HELD.table.cost[:, 2]))


@pytest.mark.parametrize(
    ("member", "says"), [("nobody", "no outcomes of 'nobody'; it has: m0, m1, new"), ("m1", "knows 'm1' already")]
)
def test_who_cannot_be_added_is_refused(member: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        widen(member)
