"""What an ensemble does when a member fails: values that the configuration file sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnLoss = Literal["fail", "degrade", "recover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How far an ensemble goes on without a member, and how long it waits for one.

    It cannot bring back what a lost replica had computed, only compute it again: the usage of a recovered answer holds
    both. A member that is asked a second time elsewhere may spell what it adopted from others in other tokens.
    """

    on_loss: OnLoss = "fail"
    """``fail``: the request ends with a typed error. ``recover``: the member's session is opened again on another
    replica from the committed bytes. ``degrade``: the answer goes on without the member, and says so."""
    quorum: int | None = None
    """Members that are enough; below, the request fails. ``None``: with ``degrade`` more than half of them, with
    ``recover`` all (with a number, what cannot be recovered is dropped)."""
    patience: float = 30.0
    """Seconds that ``recover`` looks for another replica."""
    step_seconds: float | None = None
    """Seconds that a member has for one message, in which it may have to read the prompt; then it counts as lost.
    ``None``: no limit."""
    hedge_seconds: float | None = None
    """Seconds after which a message is also sent to another replica of the member; the first reply counts. ``None``:
    never."""
    breaker_failures: int = 5
    """Failures in a row after which a member is not asked for a while. What a client did wrong is no failure."""
    breaker_seconds: float = 5.0
    """Seconds that it is not asked; then one request tries it."""

    @property
    def timed(self) -> bool:
        """Whether single messages have to be watched."""
        return self.step_seconds is not None or self.hedge_seconds is not None

    def least(self, members: int, *, joint: bool = True) -> int:
        """Members that have to take part.

        >>> Policy(on_loss="degrade").least(3), Policy(on_loss="recover").least(3), Policy(quorum=1).least(3)
        (2, 3, 3)

        Args:
            joint: every answer is of all of them. Else of one; which one, and who stands in for it, the method says.
        """
        if not joint:
            return min(self.quorum or 1, members)
        if self.on_loss == "fail":
            return members
        if self.quorum is not None:
            return min(self.quorum, members)
        return members // 2 + 1 if self.on_loss == "degrade" else members
