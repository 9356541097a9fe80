"""ETR: each expert is one more token of a generalist; where that is the likeliest, the expert writes the rest."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType

from pydantic import Field

from ensemble.concurrency import shielded
from ensemble.during.token.handing_over.handover import Pen, decisions
from ensemble.during.token.lockstep import Decision, NoRoom, Transcript
from ensemble.errors import BadAnswer, ConfigurationError
from ensemble.member import Capability, Card, Distribution, Gate, Member, Proposal, Until
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Delta, Event, Finish, FinishReason, Request, Spent, Trace
from ensemble.sampling import seeded


class EtrOptions(Options):
    """Options of ``etr``."""

    meta: str | None = None
    """Name of the generalist that begins each answer. Omitted: the first member."""
    head: str = Field("etr", min_length=1)
    """Name of the expert rows, a resident head of kind ``experts`` at the generalist. Omitted: ``etr``."""
    experts: Mapping[str, str] = Field(default_factory=dict)
    """Members by the name that the head has for them. Omitted: the names are the members' own."""
    stay: float | None = Field(None, ge=0, le=1)
    """The generalist writes on where its likeliest token has at least this probability beside the experts. Omitted:
    where it is more likely than each expert, as published."""
    segment: int = Field(16, ge=1)
    """Tokens that the generalist writes in one message at most; they are streamed together. Omitted: 16."""


@method("etr", stage=Stage.TOKEN, paper="2403.16854", needs={Capability.GENERATE}, options=EtrOptions)
class Etr(Method[EtrOptions]):
    """Expert token routing (arXiv 2403.16854): rows W_e beside the generalist's output rows W; where the argmax of
    [W·h, W_e·h] is an expert, it writes the rest of the answer.

    Asks of members: that they generate; of the generalist a session and expert rows (``ensemble fit etr``). One message
    to the generalist for each segment, usually one in all, then one answer of one expert. Experts may be ensembles.

    Departures from the paper and its code:

    * What the generalist has written before stays, and the expert goes on from there; published code loses it.
    * Rows of their own take no token's place; published code overwrites unused special tokens.
    * Experts have templates and vocabularies of their own. They do not hand over again.
    """

    options: EtrOptions
    caps = MappingProxyType({"segment": 256})
    naming = ("meta",)

    def check(self, members: Sequence[Card]) -> None:
        names = [card.name for card in members]
        if self.options.meta is not None and self.options.meta not in names:
            rule = f"meta {self.options.meta!r} is no member; members: {', '.join(names)}"
            raise ConfigurationError(rule, param="meta")
        meta = members[self._meta(names)]
        meta.require(frozenset({Capability.SESSIONS}), self.name)
        labels = meta.require_head(self.options.head, "experts", self.name).labels[1:]
        for label, name in self.options.experts.items():
            if name not in names or name == meta.name:
                rule = f"expert {label!r} is {name!r}; allowed: {', '.join(n for n in names if n != meta.name)}"
                raise ConfigurationError(rule, param="experts")
        unknown = [label for label in labels if label not in self.options.experts and label not in names]
        if unknown:
            rule = f"the head knows an expert {unknown[0]!r}, which is no member; say in experts which member it is"
            raise ConfigurationError(rule, param="experts")

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        return self._written(request, members)

    def _meta(self, names: Sequence[str]) -> int:
        return 0 if self.options.meta is None else names.index(self.options.meta)

    async def _written(self, request: Request, members: Members) -> AsyncGenerator[Event, None]:
        answer = _Answer(request, members, self._meta(members.names), self.options)
        try:
            while answer.finish is None and answer.expert is None:
                for event in await answer.segment():
                    yield event
        finally:
            await shielded(answer.close())
        if answer.expert is not None:
            async with aclosing(answer.handed_over(answer.expert)) as events:
                async for event in events:
                    yield event
        if rest := answer.transcript.flush():
            yield rest
        assert answer.finish is not None
        yield Finish(answer.finish)


class _Answer:
    """One answer under way."""

    def __init__(self, request: Request, members: Members, meta: int, options: EtrOptions) -> None:
        self.finish: FinishReason | None = None
        self.expert: int | None = None
        """Seat of the member that writes the rest."""
        self.transcript = Transcript(request.sampling, members.names)
        self._request, self._members, self._options = request, members, options
        self._labels = members[meta].card.require_head(options.head, "experts", "etr").labels
        self._pen = Pen(meta, members[meta], request)
        self._text = request.partial.encode()
        self._left = request.sampling.max_tokens
        self._written = 0
        self._alone = not self._experts()

    def _experts(self) -> dict[int, int]:
        """Seats by outcome, of the experts that are there."""
        seats = {name: seat for seat, name in enumerate(self._members.names)}
        own = (self._options.experts.get(label, label) for label in self._labels[1:])
        return {outcome: seats[name] for outcome, name in enumerate(own, 1) if name in seats}

    async def segment(self) -> list[Event]:
        """What the generalist writes until an expert is wanted."""
        sampling = self._request.sampling
        try:
            proposal = await self._pen.write(self._text, self._until(), sampling, sampling.logprobs or 0)
        except NoRoom:
            self.finish = "length"
            return []
        self._pen.learn(proposal.ids, self._pen.vocabulary)
        events = self._taken(decisions(self._pen, proposal))
        if self.finish is None:
            events += self._ended(proposal)
        return events

    def _until(self) -> Until:
        """Where the generalist stops and asks again; it finishes a character that it has begun."""
        begun = not _whole(self._text)
        tokens = 1 if begun else self._options.segment
        gate = None if self._alone or begun else Gate(self._options.head, stay=self._options.stay)
        return Until(tokens if self._left is None else min(tokens, self._left), gate=gate)

    def _ended(self, proposal: Proposal) -> list[Event]:
        if proposal.finish == "gate":
            assert proposal.outcomes is not None
            return self._wanted(proposal.outcomes)
        if proposal.finish in ("stop", "context"):
            self.finish = "stop" if proposal.finish == "stop" else "length"
        return []

    def _wanted(self, outcomes: Distribution) -> list[Event]:
        """The likeliest expert takes over, unless it is not there; inside a character it has to wait."""
        if outcomes.size != len(self._labels):
            raise BadAnswer(f"{self._pen.name} told {outcomes.size} outcomes, not {len(self._labels)}")
        expert = self._experts().get(next(int(o) for o in outcomes.ids if o))
        if not _whole(self._text):
            return []
        if expert is None:
            self._alone = True
            return []
        self.expert = expert
        chances = {self._labels[o]: float(p) for o, p in zip(outcomes.ids, outcomes.probabilities, strict=True)}
        return [Trace("handover", {"to": self._members.names[expert], "after": self._written, "outcomes": chances})]

    async def handed_over(self, expert: int) -> AsyncGenerator[Event, None]:
        """What the expert writes after the text so far."""
        member: Member = self._members[expert]
        sampling = replace(self._request.sampling, max_tokens=self._left)
        request = replace(self._request, partial=self._text.decode(errors="replace"), sampling=sampling)
        async with aclosing(member.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta):
                    for delta in self._taken(_decided(expert, event)):
                        yield delta
                elif isinstance(event, Finish):
                    self.finish = self.finish or event.reason
                elif not isinstance(event, Spent):
                    yield event
                if self.finish is not None:
                    break

    def _taken(self, written: Sequence[Decision]) -> list[Event]:
        events: list[Event] = []
        for decision in written:
            self._text += decision.text
            self._written += 1
            if delta := self.transcript.write(decision):
                events.append(delta)
            if self._left is not None and self.expert is None:
                self._left -= 1
            if self.transcript.stopped or (self._left == 0 and self.expert is None):
                self.finish = "stop" if self.transcript.stopped else "length"
                break
        return events

    async def close(self) -> None:
        await self._pen.close()


def _decided(seat: int, delta: Delta) -> list[Decision]:
    if not delta.tokens:
        return [Decision(text=delta.text.encode(), spelling={}, shares={seat: 1.0}, logprob=0.0)]
    return [
        Decision(text=told.token, spelling={}, shares={seat: 1.0}, logprob=told.logprob, top=told.top)
        for told in delta.tokens
    ]


def _whole(text: bytes) -> bool:
    """Whether it ends with a whole character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text[-3:])
    return not decoder.getstate()[0]
