"""The judge contract: rewards for the steps of candidate solutions.

A reward model, a process reward model, a rule and a model asked for a verdict all look like this to a method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ensemble.member import Member
from ensemble.request import Request

Solution = Sequence[str]
"""The steps of one candidate, in order; a finished answer is a solution of one step. Their texts join exactly."""


class Judge(ABC):
    """Scores solutions to a request."""

    name: str

    @property
    def models(self) -> Sequence[Member]:
        """Members this judge calls, so that their usage is counted; none for a rule."""
        return ()

    def over(self, models: Sequence[Member]) -> Judge:
        """The same judge calling these members instead (the same ones, metered for one request)."""
        return self

    @abstractmethod
    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        """One reward in [0, 1] for every step of every solution; all solutions are judged at once.

        A step is judged in the light of the request and the steps before it.
        """
