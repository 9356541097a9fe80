"""Decision policies: how predictions become a choice. Any policy goes with any head."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ensemble.before.policies.assign import Assign
from ensemble.before.policies.enough import Enough
from ensemble.before.policies.mix import Mix
from ensemble.before.policies.policy import Choice, Policy, Prediction
from ensemble.before.policies.sample import Sample
from ensemble.before.policies.subset import Subset
from ensemble.before.policies.threshold import Threshold
from ensemble.before.policies.unsure import Unsure
from ensemble.before.policies.utility import Utility
from ensemble.before.policies.within import Within
from ensemble.errors import BadRequest

AnyPolicy = Annotated[
    Utility | Mix | Threshold | Within | Enough | Subset | Sample | Assign | Unsure, Field(discriminator="kind")
]
"""Every policy; ``kind`` says which."""

_POLICIES: TypeAdapter[Policy] = TypeAdapter(AnyPolicy)
_KINDS = {
    str(cls.model_fields["kind"].default): cls
    for cls in (Utility, Mix, Threshold, Within, Enough, Subset, Sample, Assign, Unsure)
}


def policy(given: Any) -> Policy:
    """The policy of a configuration's mapping.

    Raises:
        BadRequest: no policy is of that kind, or the kind has no such option or value.
    """
    try:
        return _POLICIES.validate_python(given)
    except ValidationError as error:
        raise BadRequest(_refusal(error.errors()[0]), param="policy") from error


def _refusal(problem: ErrorDetails) -> str:
    if problem["type"] == "union_tag_not_found":
        return f"a policy is a mapping with a kind; kinds: {', '.join(sorted(_KINDS))}"
    if problem["type"] == "union_tag_invalid":
        return f"no policy is of kind {problem['ctx']['tag']!r}; kinds: {', '.join(sorted(_KINDS))}"
    kind, *option = (str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        has = ", ".join(name for name in _KINDS[kind].model_fields if name != "kind")
        return f"the policy {kind} has no option {option[0]!r}; it has: {has}"
    return f"the policy {' '.join([kind, *option])}: {problem['msg']}"


__all__ = [
    "AnyPolicy",
    "Assign",
    "Choice",
    "Enough",
    "Mix",
    "Policy",
    "Prediction",
    "Sample",
    "Subset",
    "Threshold",
    "Unsure",
    "Utility",
    "Within",
    "policy",
]
