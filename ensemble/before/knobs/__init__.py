"""Knobs: the value of a policy that keeps a share of the traffic, a budget or a loss of quality.

They are set on a table, of queries that the router was not fitted to; what they give is a policy.
"""

from __future__ import annotations

from ensemble.before.knobs.calibrate import for_budget, for_drop, for_share
from ensemble.before.knobs.decided import decided
from ensemble.before.knobs.knob import Knob
from ensemble.before.knobs.ladder import KNOBS, ladder, turned

__all__ = ["KNOBS", "Knob", "decided", "for_budget", "for_drop", "for_share", "ladder", "turned"]
