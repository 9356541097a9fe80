"""Byte level: every next byte is elected from the members' exact distributions over bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.concurrency import together
from ensemble.during.token.bytes.reader import Reader
from ensemble.during.token.bytes.tree import OUTCOMES, STOP
from ensemble.during.token.election.certificate import weighted
from ensemble.during.token.election.weights import Weights, check_weights, shares
from ensemble.during.token.lockstep import Decision, NoRoom, Panel, Rule, lockstep
from ensemble.errors import BadAnswer
from ensemble.member import Capability, Card, Floats
from ensemble.method import Members, Method, Options, Stage, method
from ensemble.request import Event, Request, Sampling
from ensemble.sampling import draw, seeded

Combine = Literal["mix", "product"]


class ByteLevelOptions(Options):
    """Options of ``byte_level``."""

    weights: Weights = "average"
    """One number for each member, normalised; a member with 0 is never called. Omitted: all equal."""
    combine: Combine = "mix"
    """``mix``: the weighted mean of probabilities; ``product``: that of log-probabilities, normalised; a byte that a
    member excludes is then excluded. Omitted: ``mix``."""
    keep: float = Field(1e-4, ge=0, lt=0.5)
    """Segmentations of the text that are dropped at each byte may have this part of its probability together: over
    texts of n bytes a member's distribution is off by n·keep at most, in total variation; 0 keeps all. Omitted:
    0.0001."""
    paths: int = Field(32, ge=1)
    """Segmentations that are followed for each member at most, the likeliest; beyond them ``keep`` is no bound.
    Omitted: 32."""
    window: int = Field(3, ge=1)
    """Tokens at the end of the text in which segmentations may differ. Whichever is the likeliest before them is
    settled and committed, and ``keep`` does not count what is dropped for it; else one that is a little less likely
    would be followed, and read again, up to the end of the answer. Omitted: 3."""


@method(
    "byte_level",
    stage=Stage.TOKEN,
    paper="2506.14123",
    needs={Capability.GENERATE, Capability.SESSIONS, Capability.FULL_DISTRIBUTION},
    options=ByteLevelOptions,
)
class ByteLevel(Method[ByteLevelOptions]):
    """Ensembling by bytes (arXiv 2506.14123, 2410.09303): P(b | x) = Σ wᵢ·Pᵢ(x·b) / Pᵢ(x), or the weighted product,
    over 256 bytes and the stop; Pᵢ(x) sums the probabilities of all token sequences of member i that cover the text x.

    A member's sequences that matter are paths of a tree: what they share is committed, the rest is a few tokens. The
    next byte's masses are sums over ranges of the vocabulary in order of bytes. A byte needs an exchange with a member
    only where a path ends at it that has more than a negligible part in the text.

    Asks of members: sessions and full distributions. One exchange at each byte at which a token may end that matters,
    at all such members at once: from one for each token, where the model is sure how it spells, to one for each byte.
    Each brings one row of 4·V bytes at the trunk, or for each path one for every token it has beyond the trunk and one
    more. The vectors that are combined are made at the driver, so that nothing else travels.

    Departures from the paper and its code:

    * All segmentations count, as the models give them probability; published code follows those that byte-pair merges
      can produce (and optionally filters the last token), which needs each tokenizer's rules. ``keep``, ``paths``
      and ``window`` bound how many are followed.
    * The tree is at the driver, the cache at the member; published code has both in one process.
    * Control ids are left out of each row and the rest is normalised; all stop ids are one outcome.
    * Where no path that is kept leads to what was elected, the member spells the text anew and goes on from there. So
      it does with the text that a request began the answer with: the first token begins behind it.
    * ``max_tokens`` counts tokens of the first member that has a weight, by its likeliest path: bytes would surprise
      who sets it, and paths that disagree on it are rare.
    * Reported log-probabilities are those of bytes. Temperature, top-p and top-k shape the combined distribution over
      bytes, which is not what they do to tokens; the greedy text is that of the likeliest bytes, not of the likeliest
      tokens.
    * Ties go to the smaller byte, the stop last. Proxy tuning and speculation are left out.
    """

    options: ByteLevelOptions
    caps = MappingProxyType({"paths": 256, "window": 64})

    def check(self, members: Sequence[Card]) -> None:
        check_weights(self.options.weights, members)

    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        rule = ByteRule(replace(request, sampling=seeded(request.sampling)), members, self.options)
        # The loop counts bytes; the rule ends the answer.
        unlimited = replace(request, sampling=replace(request.sampling, max_tokens=None))
        return lockstep(unlimited, members, rule)


class ByteRule(Rule):
    """Elects bytes. It has sessions of its own; the loop's stay unused."""

    def __init__(self, request: Request, members: Members, options: ByteLevelOptions) -> None:
        """
        Args:
            request: its sampling has a seed unless it is greedy.
        """
        self._weights = shares(options.weights, len(members))
        bounds = {"limit": options.paths, "window": options.window}
        self._readers = {seat: Reader(members[seat], request, keep=options.keep, **bounds) for seat in self._weights}
        self._first = next(iter(self._readers.values()))
        self._combine = options.combine
        self._sampling = request.sampling
        self._text = bytearray(request.partial.encode())

    async def elect(self, panel: Panel, position: int) -> Decision:
        limit = self._sampling.max_tokens
        if limit is not None and self._first.tokens >= limit:
            raise NoRoom
        missing = [reader for reader in self._readers.values() if not reader.ready]
        if missing:
            text = bytes(self._text)
            await together(reader.make_ready(text) for reader in missing)
        rows = {seat: reader.distribution() for seat, reader in self._readers.items()}
        combined = combine(self._combine, list(self._weights.values()), list(rows.values()))
        with np.errstate(divide="ignore"):
            elected = draw(np.log(combined), self._sampling, position)
        if elected != STOP:
            self._commit(elected)
        return self._decision(rows, combined, elected)

    async def close(self) -> None:
        await together(reader.close() for reader in self._readers.values())

    def _commit(self, byte: int) -> None:
        self._text.append(byte)
        for reader in self._readers.values():
            reader.advance(byte)

    def _decision(self, rows: Mapping[int, Floats], combined: Floats, elected: int) -> Decision:
        parts = {seat: weight * float(rows[seat][elected]) for seat, weight in self._weights.items()}
        return Decision(
            text=_spelt(elected),
            spelling={},
            shares=parts if self._combine == "mix" else self._weights,
            logprob=float(np.log(combined[elected])),
            top=_top(combined, self._sampling),
        )


def combine(how: Combine, weights: Sequence[float], rows: Sequence[Floats]) -> Floats:
    """One distribution of several, shape [n].

    Args:
        weights: summing to 1.
        rows: probabilities, shape [n] each.

    Raises:
        BadAnswer: there is nothing that all members allow, which only a product asks.

    >>> rows = [np.array([0.571429, 0.375, 0.053571]), np.array([0.2, 0.7, 0.1])]
    >>> [combine(how, [0.5, 0.5], rows).round(4).tolist() for how in ("mix", "product")]
    [[0.3857, 0.5375, 0.0768], [0.366, 0.5547, 0.0792]]
    """
    if how == "mix":
        return weighted(weights, rows)
    with np.errstate(divide="ignore"):
        logs = weighted(weights, [np.log(row) for row in rows])
    if not np.isfinite(logs.max()):
        raise BadAnswer("there is no byte that all members allow; combine: mix takes those of any", reason="unfinished")
    masses = np.exp(logs - logs.max())
    return np.asarray(masses / masses.sum())


def _spelt(outcome: int) -> bytes:
    return b"" if outcome == STOP else bytes([outcome])


def _top(combined: Floats, sampling: Sampling) -> tuple[tuple[bytes, float], ...]:
    if not sampling.logprobs:
        return ()
    best = np.argsort(-combined, kind="stable")[: min(sampling.logprobs, OUTCOMES)].tolist()
    return tuple((_spelt(outcome), float(np.log(combined[outcome]))) for outcome in best if combined[outcome] > 0)
