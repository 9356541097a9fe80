"""Ratings: a model is asked how good a member's answer to a question would be, from 1 to 5.

Works with any member that has sessions; knows no router.
"""

from __future__ import annotations

import numpy as np

from ensemble.distributions import log_softmax
from ensemble.member import Member
from ensemble.outcomes.dense import Floats
from ensemble.request import Message, Request

TEMPLATE = (
    "How good would the answer of {member} to the question below be? Give a whole number from 1 (useless) to 5 (as "
    "good as any). Say the number alone.\n\nQuestion:\n{question}\n\nRating:"
)
RATINGS = tuple(str(rating).encode() for rating in range(1, 6))


async def ratings(rater: Member, template: str, question: str, member: str) -> Floats:
    """[5], probabilities of the ratings: a softmax over the log-probabilities of the five digits.

    Args:
        template: with ``{question}`` and ``{member}``.
    """
    text = template.replace("{member}", member).replace("{question}", question)
    async with await rater.start(Request(messages=(Message("user", text),))) as session:
        scored = await session.score(*RATINGS)
    return rating_odds(np.array([one.total for one in scored]))


def rating_odds(logprobs: Floats) -> Floats:
    """[5]; even where all ratings are impossible.

    >>> rating_odds(np.log(np.array([0.1, 0.1, 0.2, 0.3, 0.1]))).round(3).tolist()
    [0.125, 0.125, 0.25, 0.375, 0.125]
    """
    if np.isneginf(logprobs).all():
        return np.full(len(logprobs), 1 / len(logprobs))
    return np.asarray(np.exp(log_softmax(logprobs)))
