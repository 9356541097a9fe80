"""ABE: members write in their own tokens, and only such moves are made on which their texts agree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import MappingProxyType

from pydantic import Field

from ensemble.during.token.agreement.beam import BeamRule
from ensemble.during.token.agreement.draws import TurnsRule
from ensemble.during.token.agreement.places import Bench
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.during.token.lockstep import Rule, lockstep
from ensemble.errors import BadRequest
from ensemble.member import Capability, Card
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request
from ensemble.sampling import seeded

_BEAM = 5


class AbeOptions(Options):
    """Options of ``abe``."""

    weights: Weights = "average"
    """One number for each member, normalised; a member with 0 is never called. Omitted: all equal."""
    beam: int | None = Field(None, ge=1)
    """Partial answers that are followed at once, in greedy requests; 1 streams every token and forks no session.
    Omitted: 5."""
    topk: int = Field(64, ge=1)
    """Tokens a member lists at first; four times as many where these may hold back a better move. Omitted: 64."""
    patience: int = Field(1024, ge=1)
    """Tokens a member lists at most in a step in which the members agree on anything at all. Omitted: 1024."""


@method(
    "abe", stage=Stage.TOKEN, paper="2502.21265", needs={Capability.GENERATE, Capability.SESSIONS}, options=AbeOptions
)
class Abe(Method[AbeOptions]):
    """Agreement-based ensembling (arXiv 2502.21265): beam search over joint moves by Σ wᵢ·log pᵢ(yᵢ) / |yᵢ|, where yᵢ
    are member i's own tokens, and all members' texts begin the longest of them. Who has it waits for the others.

    Asks of members: sessions. One exchange for each move with each member that moves, all at once: 8·topk bytes up and
    an id down for each partial answer; longer lists or look-ups where these leave a move open. A beam has as many
    sessions at each member, which are forked where partial answers part and then moved by the difference. With
    temperature above 0 also full distributions.

    Departures from the paper and its code:

    * Moves are sought by the text of whoever gets farthest, so that no combination that disagrees is looked at and no
      bound of 10 000 visits is needed; what is found is what the search over the cross product finds. ``patience``
      bounds the lists instead: beyond it the best moves so far are taken.
    * A member that is behind is asked about exactly the tokens that agree, where they are few.
    * The stop ids of a member are one token of their joint probability.
    * Partial answers that score no better than the best finished one are dropped, and the answer ends when none is
      left. ``max_tokens`` counts moves: no member writes more tokens. At the end of the room a finished answer goes
      before one that is cut.
    * Copies of a member may agree in different tokens for one text; such moves take part, as in any ensemble, so that
      beams of copies equal the member's own beam search only if no token begins another.
    * With temperature above 0 one answer is drawn: whenever all have written the whole text, one member, drawn by
      weight, draws freely and alone may stop; the others follow, each drawing among the tokens that agree. Published
      code always begins with the first.
    * No log-probabilities are reported, as scores are none.
    """

    options: AbeOptions
    caps = MappingProxyType({"beam": 16, "topk": 1024, "patience": 16384})

    def check(self, members: Sequence[Card]) -> None:
        check_weights(self.options.weights, members)

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        if request.sampling.logprobs is not None:
            raise BadRequest("abe reports no log-probabilities; leave logprobs out", param="logprobs")
        if request.sampling.greedy:
            return
        if (self.options.beam or 1) > 1:
            raise BadRequest("temperature must be 0 with a beam; draws follow one answer: beam 1", param="temperature")
        for seat in shares(self.options.weights, len(members)):
            if Capability.FULL_DISTRIBUTION not in members[seat].capabilities:
                rule, name = "temperature must be 0: draws need full distributions", members[seat].name
                raise BadRequest(f"{rule}, and {name} does not give them", param="temperature", member=name)

    def calls(self, members: int) -> Sequence[int]:
        return (self.options.beam or _BEAM,) * members

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        weights = shares(self.options.weights, len(members))
        bench = Bench(request, [members[seat] for seat in weights])
        # The loop counts pieces of text; the rules count moves.
        unlimited = replace(request, sampling=replace(request.sampling, max_tokens=None))
        return lockstep(unlimited, members, self._rule(request, bench, weights))

    def _rule(self, request: Request, bench: Bench, weights: dict[int, float]) -> Rule:
        if not request.sampling.greedy:
            return TurnsRule(bench, weights, seeded(request.sampling))
        return BeamRule(
            bench,
            weights,
            beam=self.options.beam or _BEAM,
            topk=self.options.topk,
            patience=self.options.patience,
            steps=request.sampling.max_tokens,
        )
