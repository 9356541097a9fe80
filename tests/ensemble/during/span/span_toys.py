"""What the tests of drafting share: an ensemble in one line, and the published algorithm done the slow way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from token_toys import Toy, mean

from ensemble.ensemble import Ensemble
from ensemble.member import Member
from ensemble.request import Answer


def safe(members: Sequence[Member], **options) -> Ensemble:
    return Ensemble("e", "safe", members, options=options)


def disputes(answer: Answer) -> list[tuple[str, str]]:
    """(drafted, elected), in order."""
    traces = [t for t in answer.choices[0].traces if t.kind == "dispute"]
    return [(t.data["drafted"], t.data["elected"]) for t in traces]


class Plain:
    """SAFE over members whose distributions depend on the text alone: every block is tokenised and judged anew."""

    def __init__(self, members: Sequence[Toy], draft_tokens: int) -> None:
        self.drafter, self.verifiers = members[0], members[1:]
        self.draft_tokens = draft_tokens

    def answer(self, prompt: bytes, steps: int) -> bytes:
        """At most so many tokens."""
        answer = b""
        while steps > 0:
            drafted = list(self._draft(prompt + answer, min(steps, self.draft_tokens)))
            for token, winner in self._judged(prompt, answer, drafted):
                if not winner:
                    return answer
                answer, steps = answer + winner, steps - 1
                if winner != token:
                    break
        return answer

    def _draft(self, text: bytes, tokens: int) -> Iterator[int]:
        vocabulary = self.drafter.tokeniser.vocabulary
        for _ in range(tokens):
            token = _favourite(self.drafter, text)
            yield token
            if token in vocabulary.stop_ids:
                return
            text += vocabulary.tokens[token]

    def _judged(self, prompt: bytes, answer: bytes, drafted: Sequence[int]) -> Iterator[tuple[bytes, bytes]]:
        texts = [self.drafter.tokeniser.vocabulary.tokens[i] for i in drafted]
        for place, (token, text) in enumerate(zip(drafted, texts, strict=True)):
            before = answer + b"".join(texts[:place])
            probability = np.exp(self.drafter.after(prompt + before)[token])
            said = [(v, self._said(v, prompt, before, answer + b"".join(texts))) for v in self.verifiers]
            aligned = [(v, opinion) for v, opinion in said if opinion]
            if any(probability < 0.5 and probability + p < 1 and not likeliest for _, (p, likeliest) in aligned):
                present = [self.drafter, *(v for v, _ in aligned)]
                fused = mean(present, [1 / len(present)] * len(present), prompt + before)
                yield text, max(fused, key=lambda string: fused[string])
            else:
                yield text, text

    def _said(self, verifier: Toy, prompt: bytes, before: bytes, whole: bytes) -> tuple[float, bool] | None:
        """Probability of the verifier's own token there, and whether it is its likeliest; nothing between tokens."""
        vocabulary = verifier.tokeniser.vocabulary
        ids = verifier.tokeniser.encode(whole)
        starts = list(accumulate((len(vocabulary.tokens[i]) for i in ids), initial=0))
        if len(before) not in starts:
            return None
        row = np.exp(verifier.after(prompt + before))
        own = ids[starts.index(len(before)) :][:1]
        favourite = _favourite(verifier, prompt + before)
        if not own:
            stops = list(vocabulary.stop_ids)
            return float(row[stops].sum()), favourite in stops
        return float(row[own[0]]), vocabulary.tokens[favourite] == vocabulary.tokens[own[0]]


def _favourite(member: Toy, text: bytes) -> int:
    writable = member.tokeniser.vocabulary.writable
    return int(np.argmax(np.where(writable, member.after(text), -np.inf)))
