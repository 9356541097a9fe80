"""When what nobody has been told of is tried again, and when it is given up."""

from __future__ import annotations

import pytest

from deployments import retrial
from deployments.opening import VERSIONS
from deployments.retrial import LOSSES, Retrial
from ensemble.errors import MemberLost, OtherVersion

OWN_LOSS, INNER_LOSS = MemberLost("lost", member="m"), MemberLost("lost", member="inner")
OWN_VERSION, INNER_VERSION = OtherVersion("other", member="m"), OtherVersion("other", member="inner")


async def trials(tried: Retrial, error: MemberLost | OtherVersion, most: int = 40) -> int:
    """How often it may be tried again after this error; ends with the error as it is."""
    for count in range(most):
        try:
            await tried.after(error)
        except (MemberLost, OtherVersion) as raised:
            assert raised is error
            return count
    return most


async def test_within_an_ensemble_only_another_version_is_tried_again() -> None:
    assert await trials(Retrial("m", again=False), OWN_LOSS) == 0
    assert await trials(Retrial("m", again=False), INNER_VERSION) == 0
    assert await trials(Retrial("m", again=False), OWN_VERSION) == VERSIONS - 1


async def test_at_the_gateway_a_lost_replica_is_replaced_a_few_times() -> None:
    assert await trials(Retrial("m", again=True), OWN_LOSS) == LOSSES


async def test_what_a_living_driver_says_of_its_members_is_final() -> None:
    assert await trials(Retrial("m", again=True), INNER_LOSS) == 0


@pytest.mark.parametrize("error", [OWN_VERSION, INNER_VERSION], ids=["its own", "a member's"])
async def test_at_the_gateway_another_version_is_tried_for_a_while(
    error: OtherVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrial, "UPDATE", 0.3)
    assert 2 <= await trials(Retrial("m", again=True), error) < 40


async def test_no_longer_than_the_request_has_time() -> None:
    assert await trials(Retrial("m", again=True, seconds=0.0), OWN_VERSION) == 0
