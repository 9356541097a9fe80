"""SAFE: one member drafts, the others read, and distributions are fused only where both may and should be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from ensemble.during.span.relay import Plan, relay
from ensemble.during.span.sharpening import Sharpening
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.member import Capability, Card
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request


class SafeOptions(Options):
    """Options of ``safe``."""

    drafter: str | None = None
    """Name of the member that writes; the others verify. Omitted: the first member."""
    draft_tokens: int = Field(5, ge=1)
    """Tokens drafted before they are verified (the paper's γ). Omitted: 5."""
    threshold: float = Field(0.5, ge=0, le=1)
    """A token that its drafter gives at least this probability is never disputed; 0: the drafter writes alone and the
    others are never called. Omitted: 0.5."""
    agreement: float = Field(1.0, ge=0, le=2)
    """A token to which drafter and verifier together give at least this probability is not disputed. Omitted: 1."""
    fuse: Literal["gac", "unite"] = "gac"
    """The rule for a disputed token: that of ``gac`` or that of ``unite``. Omitted: ``gac``."""
    sharpening: Sharpening = "heur"
    """Where no string has half of the fused mass: ``heur`` gives likely strings the masses of those that begin with
    them, ``geom`` takes the geometric mean, ``none`` the likeliest. Omitted: ``heur``."""
    topk: int = Field(20, ge=1)
    """Tokens that members list at each place of a draft, for the tokens that turn out to be disputed. Omitted: 20."""
    weights: Weights = "average"
    """One number for each member, its part in what is fused; a verifier with 0 is never called. Omitted: all equal."""
    overlap: bool = True
    """Draft on while the last draft is verified; what stands after a replaced token is dropped. Omitted: true."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference``: the drafter's stop is not verified, and verifiers of the drafter's vocabulary tokenise its text
    anew, as published."""


@method(
    "safe", stage=Stage.SPAN, paper="2510.15346", needs={Capability.GENERATE, Capability.SESSIONS}, options=SafeOptions
)
class Safe(Method[SafeOptions]):
    """Stable and fast ensembling (arXiv 2510.15346): the drafter writes γ tokens, each verifier reads them in its own
    tokens, and at the first token that is disputed at a safe place the members' distributions are fused.

    A place is safe for a verifier where a token of its reading begins with a token of the draft. There it objects if
    the drafter gave its token less than ½, both gave theirs less than 1 together, and the verifier's is not its
    likeliest. What precedes the dispute is kept; the fused winner takes the token's place, and drafting goes on there.

    Asks of members: sessions; the drafter writes alone, verifiers score text. Two messages for γ tokens, one to the
    drafter and one to each verifier, which overlap; 8·topk bytes for each token and member. A dispute costs further
    messages only for masses that the lists do not tell.

    Departures from the paper and its code:

    * Prefixes are compared as bytes, not as displayed text without its leading blanks.
    * Any number of verifiers, all at once: a token is disputed if one objects, and fused over the drafter and those
      verifiers for which the place is safe.
    * Verifiers read on from the beginning of a word a few tokens back instead of tokenising the whole answer again; a
      reading that does not agree with the last one is taken again from the beginning.
    * A verifier of the drafter's vocabulary reads its ids, so that every place is safe (``fidelity: reference``
      tokenises the text anew). A drafted stop is verified like any token, behind the text (``fidelity: reference``
      takes it unverified); a stop id counts where the verifier lists it.
    * A draft that ends inside a character is verified when the character is whole.
    * If the fused winner is the drafted token, the rest of the draft stands.
    * The winner is a class of equal bytes; stop ids are one class. The drafter writes it as its own id, or spells the
      answer anew where it has none. Sharpening compares the mean with ½ where published code compares the sum with 1.
    * The strings that collect under ``heur`` are the ten likeliest of the mean, with the masses that the lists tell;
      ``geom`` decides among the strings that are listed.
    * Greedy, as published: a token drawn with temperature may be unlikely with no one in doubt, so that the rule would
      fuse nearly every draw that is not the likeliest.
    """

    options: SafeOptions
    caps = MappingProxyType({"draft_tokens": 64, "topk": 256})
    naming = ("drafter",)

    def check(self, members: Sequence[Card]) -> None:
        check_weights(self.options.weights, members)
        names = [card.name for card in members]
        if self.options.drafter is not None and self.options.drafter not in names:
            rule = f"drafter {self.options.drafter!r} is no member; members: {', '.join(names)}"
            raise ConfigurationError(rule, param="drafter")
        if self._drafter(names) not in shares(self.options.weights, len(members)):
            raise ConfigurationError("the drafter writes most tokens, so its weight must be above 0", param="weights")

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        if not request.sampling.greedy:
            rule = "temperature must be 0: safe verifies greedy drafts; the methods gac and unite draw from the mean"
            raise BadRequest(rule, param="temperature")

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        options = self.options
        plan = Plan(
            drafter=self._drafter(members.names),
            weights=shares(options.weights, len(members)),
            draft_tokens=options.draft_tokens,
            threshold=options.threshold,
            agreement=options.agreement,
            fuse=options.fuse,
            sharpening=options.sharpening,
            topk=max(options.topk, request.sampling.logprobs or 0),
            overlap=options.overlap,
            reference=options.fidelity == "reference",
        )
        return relay(request, members, plan)

    def _drafter(self, names: Sequence[str]) -> int:
        return 0 if self.options.drafter is None else names.index(self.options.drafter)
