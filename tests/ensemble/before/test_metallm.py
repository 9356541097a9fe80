"""MetaLLM: ridge regression of rewards that goes on in service."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.bandits import LinearBandit
from ensemble.before.heads.head import Outcome
from ensemble.before.metallm import CONSTANT, MetaLlm, MetaLlmFit
from ensemble.before.policies import Sample
from ensemble.before.targets.rewards import Weighted
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import table

TRAINING = table(n=90, holes=0.3)


def test_the_fit_is_ridge_regression_of_the_reward() -> None:
    router = MetaLlm.fit(TRAINING, MetaLlmFit(penalty=2.0, cost_weight=0.5))
    rows = np.concatenate([TRAINING.x, np.full((90, 1), CONSTANT)], axis=1).astype(float)
    for m in range(3):
        seen = TRAINING.table.observed[:, m]
        reward = TRAINING.table.quality[seen, m] - 0.5 * TRAINING.table.cost[seen, m] / 0.004
        direct = np.linalg.solve(rows[seen].T @ rows[seen] + 2.0 * np.eye(rows.shape[1]), rows[seen].T @ reward)
        assert np.allclose(router.predict(TRAINING.x).quality[:, m], rows @ direct, atol=1e-6)


def test_rewards_of_other_shapes() -> None:
    router = MetaLlm.fit(TRAINING, MetaLlmFit(reward="xrouter", penalty=2.0))
    plain = MetaLlm.fit(TRAINING, MetaLlmFit(penalty=2.0))
    # What is paid for a right answer is less for the dear ones.
    share = router.predict(TRAINING.x).quality.mean(axis=0) / plain.predict(TRAINING.x).quality.mean(axis=0)
    assert share[0] > share[1] > share[2]


def test_cost_weight_moves_choices_to_the_cheap_one() -> None:
    free, dear = (MetaLlm.fit(TRAINING, MetaLlmFit(penalty=2.0, cost_weight=w)) for w in (0.0, 5.0))
    chosen = [router.predict(TRAINING.x).quality.argmax(axis=1) for router in (free, dear)]
    assert (chosen[1] == 0).mean() > (chosen[0] == 0).mean() + 0.3


def test_upper_bounds_explore_and_learning_ends_it() -> None:
    router = MetaLlm.fit(TRAINING.rows(np.arange(6)), MetaLlmFit(penalty=1.0))
    wide = router.widened("new", TRAINING.x[:0], np.zeros(0))
    assert isinstance(wide.head, LinearBandit)
    x, policy = TRAINING.x[20], Sample(by="ucb", spread=3.0)
    before = wide.predict(x[None])
    for _ in range(40):
        now = wide.predict(x[None])
        chosen = int(policy.choose(now, np.ones(now.quality.shape, bool), np.random.default_rng(0)).chosen[0])
        wide.learn(Outcome(x=x, member=chosen, quality=float(chosen == 2)))
    after = wide.predict(x[None])
    assert before.std is not None and after.std is not None
    assert (after.std < before.std).sum() >= 2 and after.quality.argmax() == 2


def test_forgetting_reaches_the_head() -> None:
    head = MetaLlm.fit(TRAINING, MetaLlmFit(penalty=2.0, forget=0.9)).head
    assert isinstance(head, LinearBandit) and head.forget == 0.9 and isinstance(head.reward, Weighted)


def test_cost_without_costs_is_refused() -> None:
    with pytest.raises(BadRequest, match="the table has no cost"):
        MetaLlm.fit(table(costs=False), MetaLlmFit(cost_weight=0.5))
