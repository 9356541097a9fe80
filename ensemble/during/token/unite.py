"""UniTE: the next token is elected among the members' top-k strings, each member scoring all of them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.concurrency import together
from ensemble.distributions import likeliest
from ensemble.during.token.drafting.drafts import Drafting
from ensemble.during.token.drafting.rulings import DraftRule, Ruling, row_of
from ensemble.during.token.drafting.speculation import admit_drafting, check_drafting, speculative
from ensemble.during.token.election.ballot import Ballot, decided, favourite
from ensemble.during.token.election.beginnings import Beginnings
from ensemble.during.token.election.certificate import weighted
from ensemble.during.token.election.strings import (
    Duplicates,
    Spelling,
    certain,
    known_masses,
    leader,
    logsum,
    nominated,
    shares_within,
    spelling,
)
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.during.token.lockstep import Decision, Panel, lockstep
from ensemble.errors import BadAnswer, ConfigurationError
from ensemble.member import Capability, Card, Distribution, Floats
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import draw, processed, seeded
from ensemble.vocabulary import Ids, Union, Vocabulary, union_of

_beginnings = Beginnings()


class UniteOptions(Options):
    """Options of ``unite``."""

    weights: Weights = "average"
    """One number for each member, normalised; a member with 0 is never called, unless it drafts. Omitted: all equal."""
    topk: int = Field(10, ge=1)
    """Tokens each member nominates (the paper's k). Omitted: 10."""
    listed: int = Field(64, ge=1)
    """Tokens each member lists; those after the first ``topk`` only save look-ups. Omitted: 64."""
    duplicates: Duplicates = "mask"
    """A string that a member has no token for is scored by its first sub-token. Where that token already scores
    another string of the step, the string gets its score too (``keep``), none (``mask``), or the score of a logit of 0
    (``reference``). Omitted: ``mask``, as anything else counts the same evidence twice."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference``: the first member writes only the sub-token that scored the elected string and the others adopt its
    text; first sub-tokens that are a lone blank are passed over."""
    draft: Drafting | None = None
    """Decide in blocks that members draft (``speculative_ensemble``): the same answers, or as likely ones, sooner. For
    members of one vocabulary, with ``fidelity: fixed``. Omitted: token by token."""


@method(
    "unite",
    stage=Stage.TOKEN,
    paper="2410.03777",
    needs={Capability.GENERATE, Capability.SESSIONS},
    options=UniteOptions,
)
class Unite(Method[UniteOptions]):
    """Union top-k ensembling (arXiv 2410.03777): softmax of each member over the union of all top-k strings, weighted
    mean, argmax.

    Asks of members: sessions and ``tokenise``. For each token one exchange with each member (listed·8 bytes up), then
    in steps that the lists do not decide, one with those that do not list all of the union (4 bytes for each look-up).

    Departures from the paper and its code:

    * Strings are classes of equal bytes; a member's score for a string is the sum over its ids for it.
    * The stop ids of all members are one string that is elected like any other; published code has no stop.
    * A first sub-token is that of the exact bytes, a lone blank included (``fidelity: reference`` passes over it).
    * What was elected is committed whole at every member; published code advances the main model by the sub-token only
      (``fidelity: reference``).
    * ``duplicates`` defaults to ``mask``; published code gives them a raw logit of 0 under some tokenizers and keeps
      them under others. Members report log-probabilities, in which a raw logit of 0 cannot be found again;
      ``duplicates: reference`` puts it at that of a uniform distribution, -ln V.
    * Strings are taken in order of their bytes, the stop class first; ties go to the first. Published order is that of
      insertion.
    * Members have their own chat templates; sampling from the mean is an extension.
    """

    options: UniteOptions
    caps = MappingProxyType({"topk": 128, "listed": 1024})

    def check(self, members: Sequence[Card]) -> None:
        check_weights(self.options.weights, members)
        if self.options.fidelity == "reference" and 0 not in shares(self.options.weights, len(members)):
            rule = "fidelity: reference writes the text of the first member, so its weight must be above 0"
            raise ConfigurationError(rule, param="weights")
        if self.options.draft is not None:
            if self.options.fidelity == "reference":
                raise ConfigurationError("draft is for whole strings; it takes fidelity: fixed", param="draft")
            check_drafting(self.options.draft, members)

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        if self.options.draft is not None:
            seats = list(shares(self.options.weights, len(members)))
            admit_drafting(request, self.options.draft, seats, members)

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        request = replace(request, sampling=seeded(request.sampling))
        rule = UnionTopK(self.options, shares(self.options.weights, len(members)), request.sampling)
        if self.options.draft is not None:
            return speculative(request, members, rule, self.options.draft)
        return lockstep(request, members, rule)


class UnionTopK(DraftRule):
    """The rule of UniTE."""

    averages: ClassVar[bool] = True
    """Whether the string with the largest weighted mean of shares is written, however small the mean."""

    def __init__(self, options: UniteOptions, weights: Mapping[int, float], sampling: Sampling) -> None:
        self._options = options
        self._weights = weights
        self._seats = self.seats = list(weights)
        self.listed = max(options.topk, options.listed)
        self._sampling = sampling

    async def elect(self, panel: Panel, position: int) -> Decision:
        listed = await panel.next(dict.fromkeys(self._seats, self.listed))
        union = panel.union(self._seats)
        if (decision := self.favourite(union, listed) or self._led(union, listed)) is not None:
            return decision
        listed, classes = await self._nominations(panel, union, listed)
        spellings = await self._spellings(panel, union, classes)
        masses = self.clear(listed, spellings)
        if masses is not None:
            ballot = self.ballot(union, classes, masses, [(d.ids, d.logprobs) for d in listed.values()])
            column = int(ballot.mean.argmax())
        else:
            told = await self._told(panel, listed, spellings)
            masses = np.stack([self._shares(panel, seat, spellings[seat], told[seat]) for seat in self._seats])
            facts = [(np.array(list(t), np.int32), np.array(list(t.values()))) for t in told.values()]
            ballot = self.ballot(union, classes, masses, facts)
            column = self.choose(union, classes, masses, ballot.mean, position)
        decision = ballot.decision(column, self._sampling.logprobs)
        if self._options.fidelity == "reference":
            return self._of_main(panel, decision, spellings[0].ids[column])
        return decision

    def ruling(self, vocabularies: Sequence[Vocabulary], told: Sequence[Distribution]) -> Ruling | None:
        # In one vocabulary every member has ids of its own for every string.
        union = union_of(vocabularies)
        lists = [likeliest(row_of(d), self.listed) if d.complete else d for d in told]
        classes = nominated(union, lists, self._options.topk)
        if not len(classes):
            return None
        strings, own = [union.bytes_of(int(c)) for c in classes], [union.ids(0, int(c)) for c in classes]
        spellings = dict.fromkeys(self._seats, spelling(strings, own, {}))
        masses = self.clear(dict(zip(self._seats, lists, strict=True)), spellings)
        facts = [(d.ids, d.logprobs) for d in told]
        if masses is None:
            known = [dict(zip(d.ids.tolist(), d.logprobs.tolist(), strict=True)) for d in told]
            if any(i not in ids for ids in known for named in own for i in named):
                return None
            nothing = np.zeros(len(own), bool)
            scores = [np.array([logsum([ids[i] for i in named]) for named in own]) for ids in known]
            masses = np.stack([shares_within(row, nothing, self._options.duplicates) for row in scores])
        ballot = self.ballot(union, classes, masses, facts)
        with np.errstate(divide="ignore"):
            return Ruling(ballot, processed(np.log(ballot.mean), self._sampling))

    def ballot(self, union: Union, classes: Ids, masses: Floats, told: Sequence[tuple[Ids, Floats]]) -> Ballot:
        """What the members' shares come to: here, their weighted mean.

        Args:
            classes: shape [S], those of the union that were nominated.
            masses: shape [M, S], of each at each member.
            told: ids of each member and how likely they are, in any scale.
        """
        mean = weighted(list(self._weights.values()), masses)
        return Ballot(union, self._weights, classes, masses, mean / mean.sum(), told)

    def certain(self, masses: Floats, missing: Floats) -> int | None:
        """The column that leads in a ballot whatever is missing; ``None`` if that depends on it. As ``certain``."""
        return certain(masses, missing, np.array(list(self._weights.values())))

    def favourite(self, union: Union, listed: Mapping[int, Distribution]) -> Decision | None:
        """The string that every member holds likeliest by far, as it wins any mean of their shares; ``None`` without
        one, or where it is not all that is wanted.
        """
        if not self._plain or self._options.fidelity == "reference":
            return None
        return favourite(union, self._weights, [(d.ids, np.exp(d.logprobs[:2])) for d in listed.values()])

    def _led(self, union: Union, listed: Mapping[int, Distribution]) -> Decision | None:
        """The string that leads by what members nominated alone; ``None`` without one, or where it is not enough."""
        masked = self._options.duplicates == "mask" and self._options.fidelity == "fixed"
        if not (self.averages and self._plain and masked):
            return None
        told = list(listed.values())
        class_ = leader(union, told, list(self._weights.values()), self._options.topk)
        return None if class_ is None else decided(union, self._weights, class_, [(d.ids, d.logprobs) for d in told])

    def clear(self, listed: Mapping[int, Distribution], spellings: Mapping[int, Spelling]) -> Floats | None:
        """Shares as far as the lists tell them, shape [M, S], if whatever look-ups would add leaves the same winner.

        Most steps are clear, and then one exchange with each member is enough.
        """
        if not self._plain:
            return None
        kept = self._options.duplicates == "keep"
        known = [known_masses(listed[seat], spellings[seat], kept) for seat in self._seats]
        masses, unknown = (np.array(rows) for rows in zip(*known, strict=True))
        floors = np.array([[math.exp(listed[seat].logprobs[-1])] for seat in self._seats])
        if self.certain(masses, unknown * floors) is None:
            return None
        return np.asarray(masses / masses.sum(axis=1, keepdims=True))

    def choose(self, union: Union, classes: Ids, masses: Floats, mean: Floats, position: int) -> int:
        """Column of the class that is written.

        Args:
            classes: shape [S], those of the union that were nominated.
            masses: shape [M, S], of each at each member; ``mean``: shape [S], their weighted mean.
        """
        with np.errstate(divide="ignore"):
            return draw(np.log(mean), self._sampling, position)

    @property
    def _plain(self) -> bool:
        """Whether it is enough to know who wins, and masses that are not listed are all that could change it."""
        plain = self._sampling.greedy and self._sampling.logprobs is None
        return plain and self._options.duplicates != "reference"

    async def _nominations(
        self, panel: Panel, union: Union, listed: dict[int, Distribution]
    ) -> tuple[dict[int, Distribution], Ids]:
        """The members' lists, and the classes of the union; lists of nothing but control ids are made longer."""
        length = self.listed
        while True:
            for nominees in (self._options.topk, length):
                if len(classes := nominated(union, list(listed.values()), nominees)):
                    return listed, classes
            if all(distribution.complete for distribution in listed.values()):
                raise BadAnswer("no member has a text token or a stop id to elect")
            length *= 2
            listed = await panel.next(dict.fromkeys(self._seats, length))

    async def _spellings(self, panel: Panel, union: Union, classes: Ids) -> dict[int, Spelling]:
        named = classes.tolist()
        own = {s: union.spelt(member, named) for member, s in enumerate(self._seats)}
        if all(all(ids) for ids in own.values()):
            return {s: spelling((), ids, {}) for s, ids in own.items()}
        strings = [union.bytes_of(c) for c in named]
        foreign = {s: [t for t, ids in zip(strings, own[s], strict=True) if t and not ids] for s in self._seats}
        news = {s: _beginnings.unknown(panel.member(s), panel.vocabulary(s), foreign[s]) for s in self._seats}
        if any(news.values()):
            await together(
                _beginnings.learn(panel.member(s), panel.vocabulary(s), new) for s, new in news.items() if new
            )
        return {s: spelling(strings, own[s], self._first(panel, s, foreign[s])) for s in self._seats}

    def _first(self, panel: Panel, seat: int, foreign: Sequence[bytes]) -> dict[bytes, int]:
        """First sub-tokens of strings that are no token of the member's, where it can spell them."""
        if not foreign:
            return {}
        vocabulary = panel.vocabulary(seat)
        blank = b" " if self._options.fidelity == "reference" else None
        begun = _beginnings.of(panel.member(seat), vocabulary, foreign)
        return {
            string: ids[1] if len(ids) > 1 and vocabulary.tokens[ids[0]] == blank else ids[0]
            for string, ids in zip(foreign, begun, strict=True)
            if ids
        }

    async def _told(
        self, panel: Panel, listed: Mapping[int, Distribution], spellings: Mapping[int, Spelling]
    ) -> dict[int, dict[int, float]]:
        """Log-probabilities by seat and id of all that members listed, and of all that the strings are scored by."""
        told = {s: dict(zip(d.ids.tolist(), d.logprobs.tolist(), strict=True)) for s, d in listed.items()}
        needed = {s: dict.fromkeys(i for ids in spellings[s].ids for i in ids if i not in told[s]) for s in told}
        wanted = {seat: tuple(ids) for seat, ids in needed.items() if ids}
        if wanted:
            for seat, logprobs in (await panel.logprobs_at(wanted)).items():
                told[seat].update(zip(wanted[seat], logprobs.tolist(), strict=True))
        return told

    def _shares(self, panel: Panel, seat: int, spelt: Spelling, told: Mapping[int, float]) -> Floats:
        scores = np.array([logsum([told[i] for i in ids]) for ids in spelt.ids])
        zero = -float(np.log(panel.vocabulary(seat).size))
        return shares_within(scores, spelt.duplicate, self._options.duplicates, zero=zero)

    @staticmethod
    def _of_main(panel: Panel, decision: Decision, scored_by: tuple[int, ...]) -> Decision:
        if not decision.text:
            return decision
        ids = decision.spelling.get(0, scored_by)
        return replace(decision, text=panel.vocabulary(0).text(ids), spelling={0: ids})
