"""RouteLLM: is the strong member needed? Five scorers behind one threshold, for two members or more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from ensemble.before.asking.asking import Asking, AskingOptions
from ensemble.before.asking.ratings import TEMPLATE, ratings
from ensemble.before.costs.cost import MeanCosts, known
from ensemble.before.eagle import MOST, require_battles
from ensemble.before.fitting.searching import SearchOptions
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.duels import Descent, fitted
from ensemble.before.heads.head import Head
from ensemble.before.heads.rated import Rated
from ensemble.before.heads.similarity import SimilarityRanking
from ensemble.before.heads.verdicts import Verdicts
from ensemble.before.policies import Prediction
from ensemble.before.routing.decision import Reading
from ensemble.before.routing.desk import Desk, Loaded
from ensemble.before.routing.router import Router
from ensemble.before.solvers.regression import ridge
from ensemble.before.targets.battles import battles
from ensemble.concurrency import together
from ensemble.errors import BadRequest, ConfigurationError, MemberError
from ensemble.member import Capability, Card
from ensemble.method import Members, Stage, method
from ensemble.request import Request

_SHARPNESS = (1.0, 2.0, 4.0, 8.0)
_HELD = 4096
"""Held-out queries at most."""
_OWN = {
    "gap": ("penalty",),
    "mf": ("size", "epochs", "noise", "fidelity"),
    "sw_ranking": ("groups", "sharpness", "search", "compared"),
    "classifier": ("penalty", "strong", "fidelity"),
    "causal": ("strong", "least"),
}
"""The options of each scorer."""


class RouteLlmFit(SearchOptions):
    """Options of the fit of ``routellm``."""

    scorer: Literal["gap", "mf", "sw_ranking", "classifier", "causal"] = "gap"
    """gap: a ridge regression of how much better one member is than another; mf: matrix factorisation of the battles;
    sw_ranking: Bradley-Terry strengths from battles weighted by similarity; classifier: strong wins, ties or loses;
    causal: a model that is asked while serving. Omitted: gap."""
    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of gap and classifier, on squared weights. Omitted: for gap the best of 1 to 1000 on queries held out,
    each once; for classifier 1."""
    size: int = Field(default=64, ge=1)
    """Of mf: dimension of the space of the members. Omitted: 64."""
    epochs: int = Field(default=50, ge=1)
    """Of mf: passes. Omitted: 50."""
    noise: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Of mf: standard deviation of what is added to each number of an embedding in training. Omitted: 0.1."""
    fidelity: Literal["sound", "reference"] = "sound"
    """Of mf and classifier. sound: a tie is half a win of each, and the members of mf have a bias; reference: mf drops
    ties and has no bias, and to the classifier a tie is a loss of the strong member. Omitted: sound."""
    groups: int = Field(default=10, ge=2)
    """Of sw_ranking: tiers at most. Omitted: 10."""
    sharpness: float | None = Field(default=None, ge=0, le=20)
    """Of sw_ranking: a battle weighs 10^(1 + sharpness · similarity ÷ largest similarity). The paper has 1, for battles
    of 80 000 questions. Omitted: the best of 1, 2, 4 and 8 on a fifth of the queries, held out."""
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


class RouteLlmOptions(AskingOptions):
    """Options of ``routellm``; those of its own are of routers that were fitted with the scorer causal."""

    asked: str | None = Field(default=None)
    """Name of the member that rates the others' answers before they are written; it does not answer itself. The scorer
    causal needs it, the others ask nobody. Omitted: nobody is asked."""
    template: str = TEMPLATE
    """What it is asked. ``{question}``: the question; ``{member}``: the name of the member whose answer is rated,
    needed where there are more than two. Omitted: for a whole number from 1 to 5."""

    @field_validator("template")
    @classmethod
    def _asking(cls, template: str) -> str:
        if "{question}" not in template:
            raise ValueError("template must hold {question}; it may hold {member}")
        return template


@method("routellm", stage=Stage.BEFORE, paper="2406.18665", needs={Capability.GENERATE}, options=RouteLlmOptions)
class RouteLlm(Asking):
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
    * sw_ranking: how fast weights fall with similarity is chosen on held-out queries; tied battles of weight 1 keep
      strengths finite. The weighted wins between tiers are all that the fit for a query needs; the code fits a logistic
      regression on all battles for each query.
      Of more than 8,192 stored queries only those in the nearest cells have weights of their own, unless ``search`` is
      ``exact``; those of another cell weigh what eight of them do on average.
    * classifier: on a frozen embedding, not a fine-tuned encoder; a tie counts half, so that without a threshold the
      member that wins more often is chosen, unless ``fidelity`` is ``reference``.
    * causal: the model is a member that is asked as it is, not one fine-tuned on ratings.
    """

    options: RouteLlmOptions
    Fit: ClassVar[type[FitOptions]] = RouteLlmFit
    asks_with: ClassVar[Capability] = Capability.SESSIONS

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, RouteLlmFit)
        table = training.table
        if len(table.members) < 2:
            raise BadRequest("routellm chooses between members; the table has one")
        head = _head(training, options)
        return Router(table.members, table.best, head, known(training) if head.reads else MeanCosts.fit(training))

    async def read(self, request: Request, members: Members, desk: Desk, loaded: Loaded) -> Reading:
        reading = await super().read(request, members, desk, loaded)
        head = loaded.router.head
        rater = self.seated(members)
        if not isinstance(head, Rated) or rater is None:
            return reading
        others = [name for place, name in enumerate(loaded.router.members) if place != head.strong]
        asked = (ratings(rater, self.options.template, request.question, name) for name in others)
        try:
            rows = await together(asked)
        except MemberError as error:
            # Unrated, the strong member stands first.
            members.passed_over(error, rater.name)
            return reading
        found = np.insert(np.array(rows), head.strong, 0.0, axis=0)
        return replace(reading, prediction=replace(reading.prediction, quality=head.rated(found)[None]))

    def _fits(self, members: Sequence[Card], router: Router, prediction: Prediction) -> None:
        causal = isinstance(router.head, Rated)
        if causal and self.options.asked is None:
            rule = "the router was fitted with the scorer causal, which needs a member that rates answers: set asked"
            raise ConfigurationError(rule, param="asked")
        if not causal and (own := {"asked", "template"} & self.options.model_fields_set):
            rule = f"{' and '.join(sorted(own))} apply to the scorer causal alone; the router has another one"
            raise ConfigurationError(rule, param=min(own))
        if causal and len(router.members) > 2 and "{member}" not in self.options.template:
            raise ConfigurationError("template must hold {member} where more than two are rated", param="template")
        super()._fits(members, router, prediction)


def _head(training: Training, options: RouteLlmFit) -> Head:
    table, x = training.table, training.x
    expected, sound = np.nan_to_num(table.means), options.fidelity == "sound"
    if options.scorer == "gap":
        return ridge(training, options.penalty)
    if options.scorer == "classifier":
        return Verdicts.fit(x, table.quality, _strong(training, options), options.penalty or 1.0, tie=0.5 * sound)
    if options.scorer == "causal":
        return Rated(expected, _strong(training, options), options.least)
    found = battles(table, MOST, seed=training.seed)
    require_battles(len(found))
    if options.scorer == "sw_ranking":
        sharpness = options.sharpness or _sharpness(training, options)
        groups, search, compared = options.groups, options.search, options.compared
        return SimilarityRanking.fit(x, found, expected, groups, sharpness, search, compared)
    descent = Descent(
        size=options.size, epochs=options.epochs, noise=options.noise, ties=sound, biases=sound, seed=training.seed
    )
    return fitted(x, table.quality, expected, descent)


def _sharpness(training: Training, options: RouteLlmFit) -> float:
    """The sharpness whose choices have the highest quality on held-out queries, the least of equals."""
    fitted_, held = training.held_out()
    held = held.rows(np.arange(min(len(held.x), _HELD)))
    quality = np.nan_to_num(held.table.quality)
    found = battles(fitted_.table, MOST, seed=training.seed)
    expected, where = np.nan_to_num(fitted_.table.means), (options.search, options.compared)
    head = SimilarityRanking.fit(fitted_.x, found, expected, options.groups, 1.0, *where)

    def reached(sharpness: float) -> float:
        head.sharpness = sharpness
        return float(quality[np.arange(len(quality)), head.scores(held.x).argmax(axis=1)].mean())

    return max(_SHARPNESS, key=lambda sharpness: (reached(sharpness), -sharpness))


def _strong(training: Training, options: RouteLlmFit) -> int:
    """
    Raises:
        BadRequest: the table has no such member.
    """
    members = training.table.members
    if options.strong is not None and options.strong not in members:
        raise BadRequest(f"strong {options.strong!r} is no member of the table; allowed: {', '.join(members)}")
    return training.table.best if options.strong is None else members.index(options.strong)
