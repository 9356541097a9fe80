"""CITER: a small model writes, and a router over its hidden states leaves single tokens to a large one."""

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


class CiterOptions(Options):
    """Options of ``citer``."""

    threshold: float = Field(0.95, ge=0, allow_inf_nan=False)
    """The small member writes every token to which the router gives at least this probability of being good enough; 0:
    all of them; above 1: none, the large one writes everything. Omitted: 0.95."""
    head: str = Field("citer", min_length=1)
    """Name of the router, a resident head of kind ``router`` at the small member. Omitted: ``citer``."""
    small: str | None = None
    """Name of the member that writes where the router lets it. Omitted: the first member."""
    large: str | None = None
    """Name of the member that writes elsewhere. Omitted: the other one."""
    turn: int = Field(1, ge=1)
    """Tokens that the large member writes before the small one goes on. Omitted: 1."""
    segment: int = Field(16, ge=1)
    """Tokens that the small member writes in one message at most; they are streamed together. Omitted: 16."""


@method(
    "citer",
    stage=Stage.TOKEN,
    paper="2502.01976",
    needs={Capability.GENERATE, Capability.SESSIONS},
    options=CiterOptions,
)
class Citer(Method[CiterOptions]):
    """Token-level routing (arXiv 2502.01976): the small member's token stands where σ(MLP(h)) ≥ θ, h its last hidden
    state; elsewhere the large member writes the token.

    Asks of members: sessions; of the small one a router (``ensemble fit citer``). One exchange with the small member
    for each segment, not for each token, and one with the large member for each token that is left to it: ids, some
    bytes each. The large member reads what it has missed when it is its turn, a few tokens at once.

    Departures from the paper and its code:

    * The large member's cache is kept and takes in what it missed; published code reads the whole prefix at each call.
    * The small member decodes on by itself until the router leaves a token to the other.
    * Members of different vocabularies: the other one spells the text anew from where its own spelling differs.
    * Sampling: every token is drawn from its writer's distribution; the paper is greedy.
    """

    options: CiterOptions
    caps = MappingProxyType({"turn": 64, "segment": 256})
    naming = ("small", "large")

    def check(self, members: Sequence[Card]) -> None:
        small, _ = check_pair(members, "small", self.options.small, "large", self.options.large)
        members[small].require_head(self.options.head, "router", self.name)

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        small, large = pair(members.names, self.options.small, self.options.large)
        gate = Gate(self.options.head, stay=self.options.threshold)
        plan = Plan(first=small, other=large, gate=gate, turn=self.options.turn, segment=self.options.segment)
        return handover(request, members, plan)
