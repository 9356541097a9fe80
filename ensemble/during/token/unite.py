"""UniTE: the next token is elected among the members' top-k strings, each member scoring all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ensemble.concurrency import together
from ensemble.during.token.ballot import Ballot
from ensemble.during.token.beginnings import Beginnings
from ensemble.during.token.certificate import weighted
from ensemble.during.token.lockstep import Decision, Panel, Rule, lockstep
from ensemble.during.token.weights import Weights, check_weights, shares
from ensemble.errors import BadAnswer, ConfigurationError
from ensemble.member import Capability, Card, Distribution, Floats
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import draw, seeded
from ensemble.vocabulary import NO_CLASS, Ids, Union

Duplicates = Literal["keep", "mask", "reference"]

_beginnings = Beginnings()


class UniteOptions(Options):
    """Options of ``unite``."""

    weights: Weights = "average"
    """One number for each member, normalised; a member with 0 is never called. Omitted: all equal."""
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
    one with those that do not list all of the union (4 bytes for each look-up).

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

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        rule = UnionTopK(self.options, shares(self.options.weights, len(members)), seeded(request.sampling))
        return lockstep(request, members, rule)


class UnionTopK(Rule):
    """The rule of UniTE."""

    def __init__(self, options: UniteOptions, weights: Mapping[int, float], sampling: Sampling) -> None:
        self._options = options
        self._weights = weights
        self._seats = list(weights)
        self._sampling = sampling

    async def elect(self, panel: Panel, position: int) -> Decision:
        listed, classes = await self._nominations(panel)
        union = panel.union(self._seats)
        spellings = await self._spellings(panel, union, classes)
        told = await self._told(panel, listed, spellings)
        masses = [self._shares(panel, seat, spellings[seat], told[seat]) for seat in self._seats]
        mean = weighted(list(self._weights.values()), masses)
        mean = mean / mean.sum()
        with np.errstate(divide="ignore"):
            column = draw(np.log(mean), self._sampling, position)
        facts = [(np.array(list(t), np.int32), np.array(list(t.values()))) for t in told.values()]
        ballot = Ballot(union, self._weights, classes, np.stack(masses), mean, facts)
        decision = ballot.decision(column, self._sampling.logprobs)
        if self._options.fidelity == "reference":
            return self._of_main(panel, decision, spellings[0].ids[column])
        return decision

    async def _nominations(self, panel: Panel) -> tuple[dict[int, Distribution], Ids]:
        """The members' lists, and the classes of the union; lists of nothing but control ids are made longer."""
        topk, length = self._options.topk, max(self._options.topk, self._options.listed)
        while True:
            listed = await panel.next(dict.fromkeys(self._seats, length))
            union = panel.union(self._seats)
            for nominees in (topk, length):
                if len(classes := nominated(union, list(listed.values()), nominees)):
                    return listed, classes
            if all(distribution.complete for distribution in listed.values()):
                raise BadAnswer("no member has a text token or a stop id to elect")
            length *= 2

    async def _spellings(self, panel: Panel, union: Union, classes: Ids) -> dict[int, Spelling]:
        strings = [union.bytes_of(int(c)) for c in classes]
        own = {s: [union.ids(member, int(c)) for c in classes] for member, s in enumerate(self._seats)}
        foreign = {s: [t for t, ids in zip(strings, own[s], strict=True) if t and not ids] for s in self._seats}
        await together(
            _beginnings.learn(panel.member(seat), panel.vocabulary(seat), new)
            for seat, texts in foreign.items()
            if (new := _beginnings.unknown(panel.member(seat), panel.vocabulary(seat), texts))
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
        told = {s: dict(zip(d.ids.tolist(), d.logprobs.tolist(), strict=True)) for s, d in listed.items()}
        needed = {s: dict.fromkeys(i for ids in spellings[s].ids for i in ids if i not in told[s]) for s in told}
        wanted = {seat: tuple(ids) for seat, ids in needed.items() if ids}
        if wanted:
            for seat, logprobs in (await panel.logprobs_at(wanted)).items():
                told[seat].update(zip(wanted[seat], logprobs.tolist(), strict=True))
        return told

    def _shares(self, panel: Panel, seat: int, spelt: Spelling, told: Mapping[int, float]) -> Floats:
        scores = np.array([_logsum([told[i] for i in ids]) for ids in spelt.ids])
        zero = -float(np.log(panel.vocabulary(seat).size))
        return shares_within(scores, spelt.duplicate, self._options.duplicates, zero=zero)

    @staticmethod
    def _of_main(panel: Panel, decision: Decision, scored_by: tuple[int, ...]) -> Decision:
        if not decision.text:
            return decision
        ids = decision.spelling.get(0, scored_by)
        return replace(decision, text=panel.vocabulary(0).text(ids), spelling={0: ids})


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one member scores each string of the union. S strings."""

    ids: tuple[tuple[int, ...], ...]
    """Per string: its own ids, or the first sub-token, or none if the member cannot spell it."""
    duplicate: npt.NDArray[np.bool_]
    """Shape [S]: it is scored by a first sub-token that scores another string already."""


def nominated(union: Union, listed: Sequence[Distribution], topk: int) -> Ids:
    """Classes of the first ``topk`` tokens of each list, shape [S], ascending; none of control ids or without mass."""
    tops = [d.ids[:topk][d.logprobs[:topk] > -np.inf] for d in listed]
    classes = np.unique(np.concatenate([union.classes[i][ids] for i, ids in enumerate(tops)]))
    return np.asarray(classes[classes != NO_CLASS])


def spelling(strings: Sequence[bytes], own: Sequence[tuple[int, ...]], first: Mapping[bytes, int]) -> Spelling:
    """Own ids come first; the other strings get their first sub-tokens in order.

    >>> spelling([b"Pa", b"Par", b"Pas"], [(4,), (), ()], {b"Par": 4, b"Pas": 7}).duplicate.tolist()
    [False, True, False]
    """
    used = {i for ids in own for i in ids}
    ids, duplicate = list(own), np.zeros(len(own), bool)
    for position, string in enumerate(strings):
        if not own[position] and string in first:
            ids[position] = (first[string],)
            duplicate[position] = first[string] in used
            used.add(first[string])
    return Spelling(tuple(ids), duplicate)


def shares_within(
    scores: Floats, duplicate: npt.NDArray[np.bool_], duplicates: Duplicates, *, zero: float = 0.0
) -> Floats:
    """One member's probabilities inside the union.

    Args:
        scores: shape [S], logits or log-probabilities (they differ by a constant, which has no effect), ``-inf`` for
            strings that the member cannot spell.
        duplicate: shape [S].
        zero: where a raw logit of 0 lies on the scale of ``scores``; only ``reference`` asks.

    Returns:
        Shape [S], sums to 1; all 0 if the member has no score for any string.

    >>> scores, duplicate = np.array([3.6, 3.0, 3.0]), np.array([False, False, True])
    >>> [shares_within(scores, duplicate, how).round(3).tolist() for how in ("keep", "mask")]
    [[0.477, 0.262, 0.262], [0.646, 0.354, 0.0]]
    """
    if duplicates != "keep":
        scores = np.where(duplicate, -np.inf if duplicates == "mask" else zero, scores)
    if not np.isfinite(scores).any():
        return np.zeros(len(scores))
    masses = np.exp(scores - scores.max())
    return np.asarray(masses / masses.sum())


def _logsum(logprobs: Sequence[float]) -> float:
    if len(logprobs) == 1:
        return logprobs[0]
    with np.errstate(divide="ignore"):
        return float(np.log(sum(np.exp(logprobs)))) if logprobs else -np.inf
