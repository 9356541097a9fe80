"""R2R's training-free baseline: a small model writes, and leaves the tokens of which it is unsure to a large one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import MappingProxyType

from pydantic import Field

from ensemble.during.token.handing_over.handover import Plan, handover
from ensemble.during.token.handing_over.roles import check_pair, pair
from ensemble.member import Capability, Card, Gate
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request
from ensemble.sampling import seeded


class R2rOptions(Options):
    """Options of ``r2r``."""

    entropy: float = Field(0.45, ge=0, allow_inf_nan=False)
    """The small member writes every token where the entropy of its distribution is at most this, in nats. Omitted:
    0.45."""
    small: str | None = None
    """Name of the member that writes where it is sure. Omitted: the first member."""
    large: str | None = None
    """Name of the member that writes elsewhere. Omitted: the other one."""
    turn: int = Field(1, ge=1)
    """Tokens that the large member writes before the small one goes on. Omitted: 1."""
    segment: int = Field(16, ge=1)
    """Tokens that the small member writes in one message at most; they are streamed together. Omitted: 16."""


@method(
    "r2r", stage=Stage.TOKEN, paper="2505.21600", needs={Capability.GENERATE, Capability.SESSIONS}, options=R2rOptions
)
class R2r(Method[R2rOptions]):
    """Entropy routing (the baseline of R2R, arXiv 2505.21600): the small member's token stands where
    H(p) = -Σ p·log p ≤ the limit; elsewhere the large member writes the token.

    Asks of members: sessions; of the small one whole distributions, as its engine computes the entropy. One exchange
    with the small member for each segment and one with the large member for each token that is left to it: ids, some
    bytes each. The large member reads what it has missed when it is its turn.

    Departures from the paper and its code:

    * The router is the entropy alone, which the paper compares its own network with; ``citer`` has a network.
    * The small member decodes on by itself until it leaves a token to the other.
    * Members of different vocabularies: the other one spells the text anew from where its own spelling differs.
    * Sampling: every token is drawn from its writer's distribution.
    """

    options: R2rOptions
    caps = MappingProxyType({"turn": 64, "segment": 256})
    naming = ("small", "large")

    def check(self, members: Sequence[Card]) -> None:
        small, _ = check_pair(members, "small", self.options.small, "large", self.options.large)
        members[small].require(frozenset({Capability.FULL_DISTRIBUTION}), self.name)

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        small, large = pair(members.names, self.options.small, self.options.large)
        gate = Gate(entropy=self.options.entropy)
        plan = Plan(first=small, other=large, gate=gate, turn=self.options.turn, segment=self.options.segment)
        return handover(request, members, plan)
