"""A vote on one token that is to be a number: what most members would write."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ensemble.during.token.lockstep import Decision, Panel


async def elected_number(panel: Panel, seats: Sequence[int]) -> Decision | None:
    """What most of these seats would write; of several texts the one that comes first. ``None`` where that, or what
    the first of them would write, is no number.
    """
    likeliest = {seat: int(told.ids[0]) for seat, told in (await panel.next(dict.fromkeys(seats, 1))).items()}
    votes = {seat: panel.vocabulary(seat).tokens[likeliest[seat]] for seat in seats}
    counts = Counter(votes.values())
    winner = max(counts, key=lambda text: counts[text])
    if not (votes[seats[0]].isdigit() and winner.isdigit()):
        return None
    voters = [seat for seat in seats if votes[seat] == winner]
    union = panel.union(seats)
    class_ = int(union.classes[seats.index(voters[0])][likeliest[voters[0]]])
    spelling = {seat: ids[:1] for i, seat in enumerate(seats) if (ids := union.ids(i, class_))}
    spelling |= {seat: (likeliest[seat],) for seat in voters}
    share = math.log(len(voters) / len(seats))
    return Decision(text=winner, spelling=spelling, shares=dict.fromkeys(voters, 1.0), logprob=share)
