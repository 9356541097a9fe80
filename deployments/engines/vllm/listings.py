"""What vLLM lists of one distribution, as arrays. Knows vLLM's flat log-probabilities and nothing of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.errors import BadAnswer
from ensemble.member import Distribution, Floats
from ensemble.vocabulary import Ids


@dataclass(frozen=True, slots=True)
class Listing:
    """One distribution: the token that vLLM drew from it, and its likeliest tokens."""

    token: int
    logprob: float
    """Of ``token``, in the raw distribution."""
    ids: Ids
    """Shape [k], likeliest first; equal log-probabilities in order of id."""
    logprobs: Floats
    """Shape [k], float32, normalised over the whole vocabulary."""
    size: int
    """Width of the whole distribution."""

    def covers(self, topk: int) -> bool:
        """Whether the ``topk`` likeliest tokens (0: all) are listed."""
        return len(self.ids) >= min(topk or self.size, self.size)

    def top(self, topk: int) -> Distribution:
        """The ``topk`` likeliest tokens (0: all)."""
        k = topk or self.size
        return Distribution(self.ids[:k], self.logprobs[:k], self.size)

    def of(self, ids: tuple[int, ...]) -> dict[int, float]:
        """Log-probabilities of those ids that are known."""
        known = dict(zip(self.ids.tolist(), self.logprobs.tolist(), strict=True))
        known[self.token] = self.logprob
        return {i: known[i] for i in ids if i in known}

    def likeliest(self, allowed: Any) -> int | None:
        """The likeliest token among the allowed (a mask by id); ``None`` if none of them is listed."""
        places = np.flatnonzero(allowed[self.ids])
        return int(self.ids[places[0]]) if len(places) else None


def listings(flat: Any, size: int) -> list[Listing]:
    """One listing for each position of vLLM's ``FlatLogprobs``.

    Raises:
        BadAnswer: the model computed something that is no distribution.
    """
    return [
        _listing(flat.token_ids[start:end], flat.logprobs[start:end], size)
        for start, end in zip(flat.start_indices, flat.end_indices, strict=True)
    ]


def _listing(tokens: list[int], values: list[float], size: int) -> Listing:
    if values[0] != values[0]:
        raise BadAnswer("the model's logits are not numbers", reason="nan")
    # The drawn token comes first, and once more at its rank among the likeliest.
    ids, logprobs = np.array(tokens[1:], np.int32), np.array(values[1:], np.float32)
    order = np.lexsort((ids, -logprobs))
    return Listing(tokens[0], values[0], ids[order], logprobs[order], size)
