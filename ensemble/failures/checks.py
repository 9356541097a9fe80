"""Which answers of a member count. What does not is never voted on: it becomes a typed error with a reason to count.

A check runs for every message of every step, so each is a handful of whole-array operations.
"""

from __future__ import annotations

import numpy as np

from ensemble.errors import BadAnswer
from ensemble.member import Distribution, Floats, LogprobsAt, Next, Payload, Proposal, Propose, Question, Score, Scored

_largest = np.maximum.reduce
"""NaN if there is one; a third of the time of ``max``."""
_UNSIGNED = {4: np.uint32, 8: np.uint64}
"""By bytes of an id: as these, negative ids are larger than all others."""
_ROUNDING = 1e-3
"""Log-probabilities made of half-precision logits may exceed 0 by less."""


def check(member: str, question: Question | None, payload: Payload, size: int) -> None:
    """Refuse an answer that cannot be one to this question.

    Args:
        size: ids of the member's vocabulary.

    Raises:
        BadAnswer: with the reason ``nan``, ``wrong_ids``, ``empty`` or ``over_long``.
    """
    reason = _fault(question, payload, size)
    if reason is not None:
        raise BadAnswer(f"{member} gave an answer that cannot be used: {reason}", member=member, reason=reason)


def _fault(question: Question | None, payload: Payload, size: int) -> str | None:
    if isinstance(question, Next):
        return _of_distribution(payload, size) if isinstance(payload, Distribution) else "empty"
    if isinstance(question, LogprobsAt):
        return _of_look_up(question, payload)
    if isinstance(question, Score):
        return _of_scores(question, payload, size)
    if isinstance(question, Propose):
        return _of_proposal(question, payload, size) if isinstance(payload, Proposal) else "empty"
    return None


def _of_distribution(told: Distribution, size: int) -> str | None:
    ids, logprobs = told.ids, told.logprobs
    if not len(ids) or len(ids) != len(logprobs):
        return "empty" if not len(ids) else "wrong_ids"
    # Where not even the likeliest token is possible, there is no distribution.
    if not -np.inf < _largest(logprobs) <= _ROUNDING:
        return "nan"
    return None if _largest(ids.view(_UNSIGNED[ids.itemsize])) < max(size, told.size) else "wrong_ids"


def _of_look_up(question: LogprobsAt, payload: Payload) -> str | None:
    if not isinstance(payload, np.ndarray) or len(payload) != len(question.ids):
        return "empty"
    return None if not len(payload) or _probable(payload) else "nan"


def _of_scores(question: Score, payload: Payload, size: int) -> str | None:
    if not isinstance(payload, tuple) or len(payload) != len(question.continuations):
        return "empty"
    return next((fault for scored in payload if (fault := _of_scored(scored, size))), None)


def _of_scored(scored: Scored, size: int) -> str | None:
    if len(scored.logprobs) != len(scored.ids):
        return "wrong_ids"
    if len(scored.logprobs) and not _probable(scored.logprobs):
        return "nan"
    if scored.ids and not 0 <= min(scored.ids) <= max(scored.ids) < size:
        return "wrong_ids"
    return next((fault for d in scored.distributions if (fault := _of_distribution(d, size))), None)


def _of_proposal(question: Propose, proposal: Proposal, size: int) -> str | None:
    if not proposal.ids:
        return None if proposal.finish == "gate" else "empty"
    if len(proposal.ids) > question.until.tokens:
        return "over_long"
    if not 0 <= min(proposal.ids) <= max(proposal.ids) < size or len(proposal.logprobs) != len(proposal.ids):
        return "wrong_ids"
    if not _probable(proposal.logprobs):
        return "nan"
    return next((fault for d in proposal.distributions if (fault := _of_distribution(d, size))), None)


def _probable(logprobs: Floats) -> bool:
    """No NaN and nothing above 0: the largest tells both."""
    return bool(_largest(logprobs) <= _ROUNDING)
