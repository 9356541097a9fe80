"""A model asked for a verdict: how much likelier it finds "yes" than "no" after being shown a step or an answer.

Works with any member that has sessions; knows no method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from string import Formatter
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ensemble.concurrency import together
from ensemble.errors import MissingCapability
from ensemble.judges.judge import Judge, Solution
from ensemble.member import Capability, Member
from ensemble.request import Message, Request

FIELDS = frozenset({"question", "answer", "step"})


class VerdictOptions(BaseModel):
    """Options of a judge of kind ``verdict``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    template: str = "{question}\n\nSolution so far:\n{answer}\n\nIs the last step right? Answer yes or no."
    """What the model is asked. ``{question}``: the request's question; ``{answer}``: the solution up to and including
    the judged step; ``{step}``: the judged step alone; both without the line end they close with. Braces are doubled
    to stand for themselves. Omitted: whether the last step of the solution so far is right."""
    chat: bool = True
    """Ask in a user message; false: with a raw prompt that the verdict continues. Omitted: true."""
    yes: str = Field(default="yes", min_length=1)
    """Continuation that approves. Omitted: ``yes``."""
    no: str = Field(default="no", min_length=1)
    """Continuation that rejects. Omitted: ``no``."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        try:
            parts = [
                (field, spec or how) for _, field, spec, how in Formatter().parse(self.template) if field is not None
            ]
        except ValueError as error:
            raise ValueError(f"template: {error}") from error
        fields = {field for field, _ in parts}
        if formatted := [field for field, format in parts if format]:
            raise ValueError(f"template: {formatted[0]} must stand in its braces alone, as {{{formatted[0]}}}")
        if not fields <= FIELDS:
            raise ValueError(f"template has {sorted(fields - FIELDS)}; it may hold {sorted(FIELDS)}")
        if not fields & {"answer", "step"}:
            raise ValueError("template must hold {answer} or {step}")
        if self.yes == self.no:
            raise ValueError("yes and no must differ")
        return self


class VerdictJudge(Judge):
    """Reward = p(yes) / (p(yes) + p(no)), each the probability of the whole continuation.

    One session for each judged step, all at once; two scorings of a few tokens each.

    >>> import asyncio
    >>> from ensemble.testing import ScriptedMember
    >>> model = ScriptedMember("checker", [b"yes", b"no", b"so", b""], [{b"yes": 0.6, b"no": 0.2, b"so": 0.2}])
    >>> judge = VerdictJudge("verdict", model, template="check {question}{answer}?", chat=False)
    >>> round(asyncio.run(judge.judge(Request.of("47+38="), [["85"]]))[0][0], 6)
    0.75
    """

    Options = VerdictOptions

    def __init__(
        self,
        name: str,
        model: Member,
        *,
        template: str = VerdictOptions.model_fields["template"].default,
        chat: bool = True,
        yes: str = "yes",
        no: str = "no",
    ) -> None:
        """
        Raises:
            MissingCapability: the model has no sessions.
            pydantic.ValidationError: the template or the verdicts cannot be used.
        """
        if Capability.SESSIONS not in model.card.capabilities:
            raise MissingCapability(
                f"judge {name} needs a model with sessions; {model.name} has none", member=model.name
            )
        self.name = name
        self._model = model
        self._options = VerdictOptions(template=template, chat=chat, yes=yes, no=no)

    @property
    def models(self) -> Sequence[Member]:
        return (self._model,)

    def over(self, models: Sequence[Member]) -> VerdictJudge:
        (model,) = models
        return VerdictJudge(self.name, model, **self._options.model_dump())

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        shown = [list(zip(accumulate(solution), solution, strict=True)) for solution in solutions]
        rewards = iter(
            await together(self._reward(request.question, answer, step) for steps in shown for answer, step in steps)
        )
        return [[next(rewards) for _ in steps] for steps in shown]

    async def _reward(self, question: str, answer: str, step: str) -> float:
        # Whether a step ends with its line or with the answer is the cutting's doing and says nothing about it.
        answer, step = answer.removesuffix("\n"), step.removesuffix("\n")
        text = self._options.template.format(question=question, answer=answer, step=step)
        asked = Request(messages=(Message("user", text),)) if self._options.chat else Request(prompt=text)
        async with await self._model.start(asked) as session:
            yes, no = await session.score(self._options.yes.encode(), self._options.no.encode())
        return _share(yes.total, no.total)


def _share(yes: float, no: float) -> float:
    """exp(yes) / (exp(yes) + exp(no)); an even share if both are impossible.

    >>> _share(-800.0, -800.0), _share(float("-inf"), -1.0), _share(-1.0, -2000.0)
    (0.5, 0.0, 1.0)
    """
    if yes == no:
        return 0.5
    top = max(yes, no)
    return math.exp(yes - top) / (math.exp(yes - top) + math.exp(no - top))
