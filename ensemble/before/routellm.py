"""RouteLLM: is the strong member needed? Five scorers behind one threshold, for two members or more."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.battles import battles
from ensemble.before.costs import known
from ensemble.before.eagle import MOST, require_battles
from ensemble.before.heads.duels import Descent, fitted
from ensemble.before.heads.head import Head
from ensemble.before.heads.linear import Ridge
from ensemble.before.heads.rated import Rated
from ensemble.before.heads.similarity import SimilarityRanking
from ensemble.before.heads.verdicts import Verdicts
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.training import FitOptions, Training
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method

_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_OWN = {
    "gap": ("penalty",),
    "mf": ("size", "epochs", "noise", "fidelity"),
    "sw_ranking": ("groups",),
    "classifier": ("penalty", "strong", "fidelity"),
    "causal": ("strong", "least"),
}
"""The options of each scorer."""


class RouteLlmFit(FitOptions):
    """Options of the fit of ``routellm``."""

    scorer: Literal["gap", "mf", "sw_ranking", "classifier", "causal"] = "gap"
    """gap: a ridge regression of how much better one member is than another; mf: matrix factorisation of the battles;
    sw_ranking: Bradley-Terry strengths from battles weighted by similarity; classifier: strong wins, ties or loses;
    causal: a model that is asked while serving. Omitted: gap."""
    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of gap and classifier, on squared weights. Omitted: for gap the best of 1 to 1000 on a fifth of the queries, held
    out; for classifier 1."""
    size: int = Field(default=64, ge=1)
    """Of mf: dimension of the space of the members. Omitted: 64."""
    epochs: int = Field(default=50, ge=1)
    """Of mf: passes. Omitted: 50."""
    noise: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Of mf: standard deviation of what is added to each number of an embedding in training. Omitted: 0.1."""
    fidelity: Literal["sound", "reference"] = "sound"
    """Of mf and classifier. sound: a tie is half a win of each, and the members of mf have a bias; reference: mf drops ties
    and has no bias, and to the classifier a tie is a loss of the strong member. Omitted: sound."""
    groups: int = Field(default=10, ge=2)
    """Of sw_ranking: tiers at most. Omitted: 10."""
    strong: str | None = None
    """Of classifier and causal: the member that the others are held against. Omitted: who is best overall."""
    least: int = Field(default=4, ge=2, le=5)
    """Of causal: rating, 1 to 5, from which on an answer is good enough. Omitted: 4."""

    @model_validator(mode="after")
    def _applicable(self) -> RouteLlmFit:
        given = self.model_fields_set - {"scorer"}
        if others := sorted(given - set(_OWN[self.scorer])):
            allowed = ", ".join(_OWN[self.scorer])
            raise ValueError(f"the scorer {self.scorer} has no option {', '.join(others)}; it has: {allowed}")
        return self


@method("routellm", stage=Stage.BEFORE, paper="2406.18665", needs={Capability.GENERATE}, options=RoutingOptions)
class RouteLlm(Routing):
    """Strong where P(strong wins | query) ≥ threshold (arXiv 2406.18665), with one of five scorers.

    Battles are made of the outcomes: of two members observed on a query the one with the higher quality wins. Scores
    are s and 1 - s for two members; of more, each member's mean probability of beating another (mf, sw_ranking) or
    of being good enough (classifier, causal), or its quality (gap). The policy ``threshold`` cuts between two of them,
    any other policy chooses among all; ``ensemble fit … --share`` sets the cut for a share of strong answers. A
    preference is stored (sw_ranking) or moves the two members' vectors (mf); a single outcome is a battle against the
    quality that was expected of the best of the others.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * The default scorer is none of the paper's: on outcomes of both members a regression of the quality gap is better
      than all classifiers of battles, as ties say something.
    * mf: dimension 64, not 128; ties are kept and members have a bias, unless ``fidelity`` is ``reference``.
    * sw_ranking: tied battles of weight 1 keep strengths finite. The weighted wins between tiers are all that the fit
      for a query needs; the code fits a logistic regression on all battles for each query.
    * classifier: on a frozen embedding, not a fine-tuned encoder; a tie counts half, so that without a threshold the
      member that wins more often is chosen, unless ``fidelity`` is ``reference``.
    * causal: the model is a member that is asked as it is, not one fine-tuned on ratings.
    """

    Fit: ClassVar[type[FitOptions]] = RouteLlmFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, RouteLlmFit)
        table = training.table
        if len(table.members) < 2:
            raise BadRequest("routellm chooses between members; the table has one")
        return Router(table.members, table.best, _head(training, options), known(training))


def _head(training: Training, options: RouteLlmFit) -> Head:
    table, x = training.table, training.x
    expected, sound = np.nan_to_num(table.means), options.fidelity == "sound"
    if options.scorer == "gap":
        penalty = options.penalty or Ridge.tuned(x, table.quality, _PENALTIES, training.seed)
        return Ridge.fit(x, table.quality, penalty)
    if options.scorer == "classifier":
        return Verdicts.fit(x, table.quality, _strong(training, options), options.penalty or 1.0, tie=0.5 * sound)
    if options.scorer == "causal":
        return Rated(expected, _strong(training, options), options.least)
    found = battles(table, MOST, seed=training.seed)
    require_battles(len(found))
    if options.scorer == "sw_ranking":
        return SimilarityRanking.fit(x, found, expected, options.groups)
    descent = Descent(
        size=options.size, epochs=options.epochs, noise=options.noise, ties=sound, biases=sound, seed=training.seed
    )
    return fitted(x, table.quality, expected, descent)


def _strong(training: Training, options: RouteLlmFit) -> int:
    """
    Raises:
        BadRequest: the table has no such member.
    """
    members = training.table.members
    if options.strong is not None and options.strong not in members:
        raise BadRequest(f"strong {options.strong!r} is no member of the table; allowed: {', '.join(members)}")
    return training.table.best if options.strong is None else members.index(options.strong)
