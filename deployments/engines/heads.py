"""The resident heads of one model: which questions they answer, and all that is asked of them at once as one batch.

Knows no session and no event loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from deployments.engines.settings import HeadSettings
from ensemble import artifacts, heads
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.heads import Head
from ensemble.member import Floats, Gate, HeadCard, Next


@dataclass(frozen=True, slots=True)
class Read:
    """What is to be read at one place."""

    head: str
    """Empty: the entropy of the next-token distribution, in nats, as the only value."""
    given: Floats | None = field(default=None, compare=False)
    fresh: bool = True
    """Whether it takes a pass; else log-probabilities that are known already are enough."""


class Heads:
    """Heads by name."""

    def __init__(self, heads: Mapping[str, Head] | None = None) -> None:
        self._heads = heads or {}

    @property
    def cards(self) -> dict[str, HeadCard]:
        return {name: head.card for name, head in self._heads.items()}

    def to(self, device: torch.device) -> Heads:
        return Heads({name: head.to(device) for name, head in self._heads.items()})

    def of_question(self, question: Next) -> Read | None:
        """
        Raises:
            BadRequest: there is no such head, or it is told what it does not take.
        """
        if not question.head:
            if question.given is not None:
                raise BadRequest("given is for heads; name one in head, or leave it out", param="given")
            return None
        head = self._named(question.head)
        head.check(0 if question.given is None else len(question.given))
        return Read(question.head, question.given, head.reads_states)

    def of_gate(self, gate: Gate | None) -> Read | None:
        """
        Raises:
            BadRequest: there is no such head, or the gate looks at nothing, or at two things.
        """
        if gate is None:
            return None
        gate.check()
        if gate.head:
            self._named(gate.head).check(0)
        return Read(gate.head)

    def listed(self, name: str) -> int:
        """Likeliest tokens that are all a head looks at, for heads that do not look at all."""
        listed = self._named(name).listed
        assert listed is not None, "a configuration that puts other heads at an engine of lists is refused"
        return listed

    def look(self, reads: Sequence[Read], rows: Sequence[Floats]) -> list[Floats]:
        """Outcomes at places whose log-probabilities are known, each shape [V]."""
        logprobs = torch.from_numpy(np.stack(rows)).to(self._device(reads[0].head))
        with torch.inference_mode():
            found = self(list(reads), logprobs, logprobs, None)
        return [outcomes for outcomes in found if outcomes is not None]

    def __call__(
        self,
        reads: Sequence[Read | None],
        logits: torch.Tensor,
        logprobs: torch.Tensor,
        states: torch.Tensor | None,
    ) -> list[Floats | None]:
        """Outcomes, each shape [its head's], for those places that are read. n places.

        Args:
            logits, logprobs: shape [n, V].
            states: shape [n, hidden size].
        """
        alike = defaultdict[tuple[str, int], list[int]](list)
        for place, read in enumerate(reads):
            if read is not None:
                alike[read.head, 0 if read.given is None else len(read.given)].append(place)
        found: list[Floats | None] = [None] * len(reads)
        for (name, told), places in alike.items():
            given = [read.given for place in places if (read := reads[place]) is not None] if told else []
            for place, outcomes in zip(places, self._read(name, places, given, logits, logprobs, states), strict=True):
                found[place] = outcomes
        return found

    def _read(
        self,
        name: str,
        places: list[int],
        given: Sequence[Floats | None],
        logits: torch.Tensor,
        logprobs: torch.Tensor,
        states: torch.Tensor | None,
    ) -> Floats:
        if not name:
            return np.asarray(torch.special.entr(logprobs[places].exp()).sum(-1, keepdim=True).cpu().numpy())
        told = None
        if given:
            told = torch.from_numpy(np.stack([np.asarray(values, np.float32) for values in given])).to(logits.device)
        own = None if states is None else states[places].float()
        return np.asarray(self._heads[name].read(logits[places].float(), own, told).float().cpu().numpy())

    def _named(self, name: str) -> Head:
        if name not in self._heads:
            known = ", ".join(sorted(self._heads)) or "none"
            raise BadRequest(f"there is no head {name!r}; allowed: {known}", param="head")
        return self._heads[name]

    def _device(self, name: str) -> torch.device:
        return self._heads[name].device


def load_heads(wanted: Mapping[str, HeadSettings], vocabulary: str, width: int) -> Heads:
    """The heads of a model.

    Args:
        vocabulary: the model's fingerprint.
        width: of its hidden states.

    Raises:
        ConfigurationError: an artifact cannot be read, is of another kind than declared, or was fitted for another
            model.
    """
    return Heads({name: _loaded(name, settings, vocabulary, width) for name, settings in wanted.items()})


def _loaded(name: str, settings: HeadSettings, vocabulary: str, width: int) -> Head:
    where = f"heads.{name}"
    artifact = artifacts.load(Path(settings.path))
    if artifact.manifest.kind != settings.kind:
        rule = f"head {name} is declared as {settings.kind}; {settings.path} holds a {artifact.manifest.kind}"
        raise ConfigurationError(rule, param=where)
    if artifact.manifest.vocabulary != vocabulary:
        rule = f"head {name} was fitted for a model of another vocabulary ({artifact.manifest.member}); fit it again"
        raise ConfigurationError(rule, param=where)
    head = heads.build(artifact)
    if head.width not in (None, width):
        rule = f"head {name} reads hidden states of {head.width} numbers; the model's have {width}; fit it again"
        raise ConfigurationError(rule, param=where)
    return head
