"""What a user wants to be kept, and the policy that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ensemble.before.knobs.calibrate import for_budget, for_drop, for_share
from ensemble.before.knobs.ladder import KNOBS
from ensemble.before.policies.assign import Assign
from ensemble.before.policies.policy import Policy, Prediction
from ensemble.before.policies.threshold import Threshold
from ensemble.before.policies.utility import Utility
from ensemble.outcomes.dense import Dense


@dataclass(frozen=True, slots=True)
class Knob:
    """One figure that a policy is set to keep."""

    of: Literal["share", "budget", "drop"]
    """``share``: part of the traffic that the strong member answers; ``budget``: money for a query, on average;
    ``drop``: part of the best member's quality that may be lost."""
    value: float

    def fitting(self, own: Policy, priced: bool) -> Policy:
        """The policy that is set where nobody names one: the method's own if it has such a knob.

        Args:
            priced: whether costs are known.
        """
        if self.of == "share" or (self.of == "drop" and not priced):
            return own if isinstance(own, Threshold) else Threshold()
        return own if type(own) in KNOBS or isinstance(own, Assign) else Utility()

    def set(self, policy: Policy, prediction: Prediction, table: Dense) -> Policy:
        """The policy with its knob where it keeps the figure on these queries.

        Args:
            prediction: for the table's queries and members.

        Raises:
            BadRequest: the policy has no such knob, or no value of it keeps the figure.
        """
        if self.of == "share":
            return for_share(policy, prediction, self.value)
        if self.of == "budget":
            return for_budget(policy, prediction, table, self.value)
        return for_drop(policy, prediction, table, self.value)
