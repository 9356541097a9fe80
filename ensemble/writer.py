"""Writing one answer token by token: draws, stop rules, text, reports. Knows not where log-probabilities come from."""

from __future__ import annotations

import numpy as np

from ensemble.distributions import likeliest
from ensemble.member import Floats
from ensemble.request import Delta, Event, Finish, FinishReason, Sampling, TokenLogprob
from ensemble.sampling import draw
from ensemble.text import TextStream
from ensemble.vocabulary import Vocabulary


class Writer:
    """One choice of one generation.

    >>> writer = Writer("a", Vocabulary((b"x", b""), frozenset({1})), Sampling(max_tokens=1), position=0, room=9)
    >>> [event.text for event in writer.write(np.log([0.9, 0.1])) if isinstance(event, Delta)], writer.finished
    (['x'], True)
    """

    def __init__(
        self, name: str, vocabulary: Vocabulary, sampling: Sampling, *, position: int, room: int, choice: int = 0
    ) -> None:
        """
        Args:
            sampling: with a seed.
            position: ids already in the answer.
            room: ids that fit into the context.
        """
        self.ids: list[int] = []
        """What was written, a stop id included."""
        self.finished = False
        self._credits = {name: 1.0}
        self._vocabulary = vocabulary
        self._sampling = sampling
        self._position = position
        self._limit = min(room, sampling.max_tokens or room)
        self._stream = TextStream(sampling.stop)
        self._choice = choice

    def write(self, logprobs: Floats) -> list[Event]:
        """Draw the next token from its log-probabilities, shape [size]; the events that follow from it."""
        allowed = np.where(self._vocabulary.writable, logprobs, -np.inf)
        token = draw(allowed, self._sampling, self._position + len(self.ids))
        return self.written(token, self._report(token, logprobs))

    def written(self, token: int, report: tuple[TokenLogprob, ...] = ()) -> list[Event]:
        """The events that follow from a token that was drawn elsewhere; ``report`` of its log-probability."""
        self.ids.append(token)
        if token in self._vocabulary.stop_ids:
            return self._end("", (), "stop")
        text = self._stream.push(self._vocabulary.tokens[token])
        if self._stream.stopped:
            return self._end(text, report, "stop")
        if len(self.ids) >= self._limit:
            return self._end(text, report, "length")
        return [Delta(text, self._credits, report, self._choice)] if text or report else []

    def _end(self, text: str, report: tuple[TokenLogprob, ...], reason: FinishReason) -> list[Event]:
        self.finished = True
        text += self._stream.flush()
        ended = Finish(reason, self._choice)
        return [Delta(text, self._credits, report, self._choice), ended] if text or report else [ended]

    def _report(self, token: int, logprobs: Floats) -> tuple[TokenLogprob, ...]:
        wanted = self._sampling.logprobs
        if wanted is None:
            return ()
        tokens = self._vocabulary.tokens
        top = likeliest(logprobs, wanted) if wanted else None
        alternatives = zip(top.ids, top.logprobs, strict=True) if top else ()
        reported = tuple((tokens[i], float(logprob)) for i, logprob in alternatives)
        return (TokenLogprob(tokens[token], float(logprobs[token]), reported),)
