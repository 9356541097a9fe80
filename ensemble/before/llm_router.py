"""LLM as a router: a member is told what the others are for, and names who should answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.asking.asking import Asking, AskingOptions
from ensemble.before.asking.opinions import OTHER, named, prompt
from ensemble.before.costs.cost import MeanCosts
from ensemble.before.encoders.served import Encoders
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.arms import Constant
from ensemble.before.routing.decision import Reading
from ensemble.before.routing.desk import Desk, Loaded
from ensemble.before.routing.router import Router
from ensemble.errors import BadRequest, ConfigurationError, MemberError
from ensemble.member import Capability, Card
from ensemble.method import Members, Stage, method
from ensemble.outcomes.dense import Floats
from ensemble.request import Request


class LlmRouterOptions(AskingOptions):
    """Options of ``llm_router``."""

    asked: str | None = Field(default=None)
    """Name of the member that chooses; it does not answer itself. Omitted: none, and whose description is nearest to
    the question answers, by the cosine of embeddings of the ensemble's ``encoder``."""
    descriptions: dict[str, str] = Field(default_factory=dict)
    """What each member is for, by name: one text for each of those that answer."""
    least: float | None = Field(default=None, ge=-1, le=1)
    """Without ``asked``: cosine that a description must reach; below it the fallback answers. Omitted: no bound."""


@method("llm_router", stage=Stage.BEFORE, paper="2506.16655", needs={Capability.GENERATE}, options=LlmRouterOptions)
class LlmRouter(Asking):
    """A model reads the members' descriptions and the conversation, and names one in JSON, as Arch-Router (arXiv
    2506.16655) does; without such a model the description nearest to the question decides.

    Where it says "other", names nobody, fails or cannot be read, the fallback answers (omitted: the first member).
    Nothing is fitted, and no feedback changes it: a new member needs a description.

    Asks of members: one answer of the chosen one, and a short one of the one that chooses.

    Departures from the paper and its code:

    * Any chat model may choose; a small one that was not trained for it often names nobody, or always the same one.
    * The conversation's last 8192 characters are shown, without system messages.
    """

    options: LlmRouterOptions
    Fit: ClassVar[type[FitOptions]] = FitOptions
    fitted = False

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        raise BadRequest("llm_router is not fitted; it needs descriptions in the configuration", param="method")

    def cold(self, members: Sequence[str]) -> Router:
        names = tuple(name for name in members if name != self.options.asked)
        return Router(names, 0, Constant(np.zeros(len(names))), MeanCosts(np.zeros(len(names))))

    def check(self, members: Sequence[Card]) -> None:
        if self.options.path is not None:
            raise ConfigurationError("llm_router is not fitted; leave path out", param="path")
        super().check(members)
        names = [card.name for card in members if card.name != self.options.asked]
        if wrong := sorted(set(names) ^ self.options.descriptions.keys()):
            rule = f"descriptions are needed of those that answer, and of nobody else; at fault: {', '.join(wrong)}"
            raise ConfigurationError(f"{rule}; they are: {', '.join(names)}", param="descriptions")
        if OTHER in names:
            raise ConfigurationError(f"no member can be named {OTHER!r} here: it says that none fits", param="members")
        if self.options.asked is not None and self.options.least is not None:
            raise ConfigurationError("least applies only where nobody is asked; leave one out", param="least")

    def prepared(self, name: str, members: Sequence[Card], encoders: Encoders) -> Desk:
        if (self.options.asked is None) == (encoders.chosen is None):
            rule = "llm_router needs either asked, a member that chooses, or an encoder, to compare descriptions by"
            raise ConfigurationError(rule, param="asked")
        return super().prepared(name, members, encoders)

    async def read(self, request: Request, members: Members, desk: Desk, loaded: Loaded) -> Reading:
        router = loaded.router
        if loaded.encoder is not None:
            texts = [self.options.descriptions[name] for name in router.members]
            return self._nearest(router, await loaded.embed([request.question, *texts]))
        name = await self._opinion(request, members, router.members)
        scores = np.array([[float(member == name) for member in router.members]])
        return _reading(router, scores, doubt=name is None)

    async def _opinion(self, request: Request, members: Members, names: Sequence[str]) -> str | None:
        asked = self.seated(members)
        if asked is None:
            return None
        descriptions = {name: self.options.descriptions[name] for name in names}
        try:
            answer = await asked.answer(prompt(request, descriptions))
        except MemberError as error:
            members.passed_over(error, asked.name)
            return None
        return named(answer.text, names)

    def _nearest(self, router: Router, embedded: Floats) -> Reading:
        scores = embedded[:1] @ embedded[1:].T
        least = self.options.least
        return _reading(router, scores, doubt=least is not None and bool(scores.max() < least))


def _reading(router: Router, scores: Floats, *, doubt: bool) -> Reading:
    return Reading(replace(router.predict(np.zeros((1, 1), np.float32)), quality=scores), doubt)
