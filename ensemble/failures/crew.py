"""Who takes part in one request: members that are left out, how many are enough, and who comes back.

Every change is an ``Incident`` for whoever asked. Knows no sessions and no text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from ensemble.concurrency import cancel
from ensemble.errors import MEMBER_FAILURES, BadAnswer, BudgetExceeded, EnsembleError, MemberError, MemberLost
from ensemble.failures.breaker import Breaker
from ensemble.failures.policy import Policy
from ensemble.member import Capability, Member
from ensemble.request import Happening, Incident, Request


class Crew:
    """The members of one request, by seat: their number in the configured order."""

    def __init__(
        self, members: Sequence[Member], policy: Policy, breakers: Mapping[str, Breaker], *, joint: bool = True
    ) -> None:
        """
        Args:
            joint: every answer is of all of them, else of a few (``Method.joint``).

        Raises:
            MemberLost: too few members may be asked at the moment.
        """
        self._members = members
        self._policy = policy
        self._breakers = breakers
        self._least = policy.least(len(members), joint=joint)
        self._joint = joint
        self._out: dict[str, EnsembleError] = {}
        self._told: list[Incident] = []
        self._trying: dict[str, asyncio.Task[None]] = {}
        self.exhausted: BudgetExceeded | None = None
        """What ended the work, where what there is until then is to be the answer."""
        if policy.on_loss != "recover" or self._least < len(members):
            self._begin()

    @property
    def present(self) -> list[int]:
        """Seats of those that take part."""
        return [seat for seat, member in enumerate(self._members) if member.name not in self._out]

    @property
    def complete(self) -> bool:
        return not self._out

    def has(self, name: str) -> bool:
        """Whether this member takes part."""
        return name not in self._out

    @property
    def rejoins(self) -> bool:
        """Whether who comes back is to take part in what is being written."""
        return self._joint and bool(self._out)

    def drain(self) -> list[Incident]:
        """What has happened since the last call."""
        told, self._told = self._told, []
        return told

    def tell(self, kind: Happening, reason: str, member: str | None = None) -> None:
        self._told.append(Incident(kind, reason, member))

    def note(self, incident: Incident) -> None:
        """Something that a nested ensemble told."""
        self._told.append(incident)

    def spare(self, error: EnsembleError) -> bool:
        """Whether the answer goes on without the member at fault; from now on it does."""
        name = error.through
        if not isinstance(error, MEMBER_FAILURES) or name is None or self._policy.on_loss == "fail":
            return False
        if name in self._out:
            return True
        if not self._enough_without(name):
            return False
        self._leave_out(name, error)
        self._trip(name, error)
        return True

    def passed_over(self, error: EnsembleError, name: str) -> None:
        """Tell that a member failed that another one can stand in for, whatever the policy; it may be asked again."""
        if isinstance(error, BadAnswer):
            self.tell("excluded", error.reason, name)
            return
        self.tell("dropped", error.code, name)
        self._trip(name, error)

    def settle(self, error: BudgetExceeded, *, partial: bool) -> bool:
        """Whether what there is so far is to be the answer."""
        if partial and self.exhausted is None:
            self.exhausted = error
            self.tell("exhausted", error.param or "budget")
        return partial

    def returned(self, request: Request) -> bool:
        """Whether a member that was left out takes part again. Who is due is tried in the background meanwhile."""
        back = [name for name, trying in self._trying.items() if trying.done() and not trying.cancelled()]
        for name in back:
            if self._trying.pop(name).exception() is None:
                del self._out[name]
                self.tell("rejoined", "answers again", name)
        for member in self._members:
            self._try(member, request)
        return bool(back) and any(name not in self._out for name in back)

    async def close(self) -> None:
        """End what is tried in the background."""
        await cancel(self._trying.values())

    def _begin(self) -> None:
        for name in dict.fromkeys(member.name for member in self._members):
            if self._breakers[name].admits():
                continue
            lost = MemberLost(f"{name} failed several times and is left alone for a while", member=name)
            lost.retry_after = self._policy.breaker_seconds
            if not self._enough_without(name):
                raise lost
            self._leave_out(name, lost)

    def _enough_without(self, name: str) -> bool:
        left = sum(member.name != name and member.name not in self._out for member in self._members)
        return left >= self._least

    def _leave_out(self, name: str, error: EnsembleError) -> None:
        self._out[name] = error
        if isinstance(error, BadAnswer):
            self.tell("excluded", error.reason, name)
        else:
            self.tell("dropped", error.code, name)

    def _trip(self, name: str, error: EnsembleError) -> None:
        # Who has too much to do is well: other requests may find room.
        if isinstance(error, MemberError) and error.retryable:
            self._breakers[name].trip()

    def _try(self, member: Member, request: Request) -> None:
        name = member.name
        # Who gave a wrong answer would give it again.
        lost = name in self._out and self._out[name].retryable and name not in self._trying
        if lost and self._breakers[name].admits():
            self._trying[name] = asyncio.create_task(_tried(member, request, self._breakers[name].succeeded))


async def _tried(member: Member, request: Request, succeeded: Callable[[], None]) -> None:
    """Returns if the member answers."""
    if Capability.SESSIONS in member.card.capabilities:
        session = await member.start(request)
        await session.close()
    succeeded()
