"""Decision policies: how predictions become a choice. Any policy goes with any head."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from ensemble.before.policies.policy import Choice, Policy, Prediction
from ensemble.before.policies.utility import Utility

AnyPolicy = Annotated[Utility, Field()]
"""Every policy; ``kind`` says which."""


def policy(given: Any) -> Policy:
    """The policy of a configuration's mapping."""
    found: Policy = TypeAdapter(AnyPolicy).validate_python(given)
    return found


__all__ = ["AnyPolicy", "Choice", "Policy", "Prediction", "Utility", "policy"]
