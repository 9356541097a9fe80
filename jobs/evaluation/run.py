"""An evaluation: what is asked of whom, and the systems that the replies make.

    development part   every member once, greedily: says which member is the best
    test part          every member once, every ensemble once; then samples of members, as far as the budget goes

The best member is chosen where nothing is reported from, so that the luck of the choice is not part of its figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ensemble.concurrency import together
from jobs.evaluation.asks import Ask, Reply
from jobs.evaluation.grading import Grade
from jobs.evaluation.inquiry import Inquiry
from jobs.evaluation.questions import Question
from jobs.evaluation.systems import (
    Kind,
    Outcome,
    System,
    alone,
    oracle,
    ranked,
    reranked,
    round_robin,
    voted,
    within,
)

VOTE, RERANK, ORACLE = "majority vote", "rerank", "oracle"
"""Names of systems that are made of members' answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What is compared, and how."""

    members: tuple[str, ...]
    ensembles: tuple[str, ...] = ()
    models: frozenset[str] = frozenset()
    """Those members that are models: they are asked for log-probabilities."""
    tokens: int | None = None
    """Budget of each question, for every system alike; ``None``: what the dearest ensemble spent on it. See
    ``allowance``."""
    samples: int = 8
    """Answers of each member that a vote may use, the greedy one included."""
    temperature: float = 0.7
    """Of sampled answers; a member's first is greedy."""
    max_tokens: int = 256
    """Of each answer."""
    seed: int = 0

    def ask(self, name: str, question: Question, sample: int = 0) -> Ask:
        """A member's or an ensemble's answer; the first is greedy."""
        return Ask(
            name=name,
            question=question.text,
            seed=question.seed(self.seed, sample),
            max_tokens=self.max_tokens,
            temperature=self.temperature if sample else 0.0,
            tokens=self.tokens,
            logprobs=name in self.models and not sample,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What an evaluation came to."""

    development: Sequence[System]
    """The members there; empty without a development part."""
    test: Sequence[System]
    """All systems, the members first."""
    chosen: str
    """The best member of the development part; without one, of the test part."""
    equal: Mapping[str, System]
    """By ensemble: the majority vote that made as many calls, question by question."""

    @property
    def members(self) -> list[System]:
        """Of the test part."""
        return [system for system in self.test if system.kind == "member"]

    @property
    def ensembles(self) -> list[System]:
        return [system for system in self.test if system.kind == "ensemble"]

    @property
    def best(self) -> System:
        """The chosen member on the test part."""
        return next(system for system in self.members if system.name == self.chosen)

    @property
    def hindsight(self) -> System:
        """The member that is best on the test part; the chosen one where it is among the best."""
        return max(self.members, key=lambda system: (system.accuracy, system is self.best))

    def capped(self, ensemble: System) -> int:
        """Questions on which the vote had fewer calls than the ensemble, as it ran out of samples or tokens."""
        pairs = zip(self.equal[ensemble.name].outcomes, ensemble.outcomes, strict=True)
        return sum(vote.calls < own.calls for vote, own in pairs)


@dataclass(frozen=True, slots=True)
class Trial:
    """All replies to one question of the test part."""

    question: Question
    answers: Mapping[str, Reply]
    """By member and ensemble: the answer to the question, put once."""
    pool: Sequence[Reply]
    """Candidates of the members' vote, as many as any ensemble's calls allow."""
    own: Sequence[Reply]
    """Answers of the best member, as many as the budget allows."""
    budget: int
    """Tokens that every system may spend on this question."""


async def evaluated(design: Design, questions: Sequence[Question], grade: Grade, inquiry: Inquiry) -> Found:
    """Ask what has to be asked, and make systems of it."""
    development = [question for question in questions if question.split == "development"]
    test = [question for question in questions if question.split == "test"]
    names = (*design.members, *design.ensembles)
    before, answers = await together(
        (_asked(design, design.members, development, inquiry), _asked(design, names, test, inquiry))
    )
    known = [_single(name, "member", development, before, grade) for name in design.members] if development else []
    judged = known or [_single(name, "member", test, answers, grade) for name in design.members]
    order = [system.name for system in ranked(judged)]
    rows = zip(test, answers, strict=True)
    trials = await together(_trial(design, order, question, row, inquiry) for question, row in rows)
    equal = {name: _equal(name, trials, grade) for name in design.ensembles}
    return Found(known, _systems(design, order, trials, grade), order[0], equal)


Answers = Sequence[Mapping[str, Reply]]
"""For each question the replies by name."""


async def _asked(design: Design, names: Sequence[str], questions: Sequence[Question], inquiry: Inquiry) -> Answers:
    asks = [design.ask(name, question) for question in questions for name in names]
    replies = iter(await inquiry.all(asks))
    return [{name: next(replies) for name in names} for _ in questions]


async def _trial(
    design: Design,
    order: Sequence[str],
    question: Question,
    answers: Mapping[str, Reply],
    inquiry: Inquiry,
) -> Trial:
    """Ask one question as often as votes need it.

    Args:
        order: the members, the best of the development part first: so their candidates take turns.
    """
    fused = [answers[name] for name in design.ensembles]
    one_each = [answers[name] for name in design.members]
    calls = max((reply.calls for reply in fused), default=sum(reply.calls for reply in one_each))
    budget = allowance(design.tokens, [reply.tokens for reply in fused], [reply.tokens for reply in one_each])
    turns = [design.ask(order[m], question, sample) for m, sample in round_robin(design.samples, len(order))]
    own = [design.ask(order[0], question, sample) for sample in range(design.samples)]
    return Trial(
        question,
        answers,
        await _until(turns, inquiry, calls=calls, tokens=None if design.tokens is None else budget),
        await _until(own, inquiry, tokens=budget),
        budget,
    )


def allowance(fixed: int | None, fused: Sequence[int], one_each: Sequence[int]) -> int:
    """Tokens that every system may spend on one question.

    Work stops within a step of a limit, not before it: where an ensemble went above a fixed one, everyone may.

    Args:
        fixed: by the user; ``None``: the dearest ensemble says, or without ensembles an answer of each member.
        fused: what each ensemble spent.
        one_each: what each member spent.

    >>> allowance(None, [9, 13], [5, 5]), allowance(None, [], [5, 5])
    (13, 10)
    >>> allowance(10, [9, 13], [5, 5]), allowance(20, [9, 13], [5, 5]), allowance(20, [], [5, 5])
    (13, 20, 20)
    """
    spent = max(fused, default=0)
    if fixed is not None:
        return max(fixed, spent)
    return spent if fused else sum(one_each)


async def _until(
    asks: Sequence[Ask], inquiry: Inquiry, *, calls: int | None = None, tokens: int | None
) -> Sequence[Reply]:
    """Replies until the next would be above a limit; one after another, as what they cost is only known afterwards."""
    replies: list[Reply] = []
    for ask in asks:
        if replies and calls is not None and sum(reply.calls for reply in replies) >= calls:
            break
        replies.append(await inquiry.one(ask))
        if len(within(replies, calls=calls, tokens=tokens)) < len(replies):
            return replies[:-1]
    return replies


def _single(name: str, kind: Kind, questions: Sequence[Question], answers: Answers, grade: Grade) -> System:
    rows = zip(questions, answers, strict=True)
    return System(name, kind, tuple(alone(question, row[name], grade) for question, row in rows))


def _systems(design: Design, order: Sequence[str], trials: Sequence[Trial], grade: Grade) -> Sequence[System]:
    """Members, what is made of their answers, and ensembles."""

    def made(name: str, kind: Kind, outcome: Callable[[Trial], Outcome]) -> System:
        return System(name, kind, tuple(map(outcome, trials)))

    def one_each(trial: Trial) -> list[Reply]:
        return [trial.answers[name] for name in order]

    def single(name: str, kind: Kind) -> System:
        return made(name, kind, lambda t: alone(t.question, t.answers[name], grade))

    return [
        *(single(name, "member") for name in design.members),
        made(f"{VOTE} of {order[0]}", "vote", lambda t: voted(t.question, within(t.own, tokens=t.budget), grade)),
        made(VOTE, "vote", lambda t: voted(t.question, within(t.pool, tokens=t.budget), grade)),
        made(RERANK, "rerank", lambda t: reranked(t.question, within(one_each(t), tokens=t.budget), grade)),
        made(ORACLE, "oracle", lambda t: oracle(t.question, one_each(t), grade)),
        *(single(name, "ensemble") for name in design.ensembles),
    ]


def _equal(name: str, trials: Sequence[Trial], grade: Grade) -> System:
    """The vote with as many calls as one ensemble, question by question."""
    outcomes = (voted(t.question, within(t.pool, calls=t.answers[name].calls), grade) for t in trials)
    return System(f"{VOTE} at the calls of {name}", "vote", tuple(outcomes))
