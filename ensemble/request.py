"""What is asked, what comes back, and what it cost: values that cross every boundary of the system.

Knows nothing of members, methods or transport.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from ensemble.errors import BadRequest, BudgetExceeded

FinishReason = Literal["stop", "length"]
Role = Literal["system", "user", "assistant"]
Exhausted = Literal["error", "partial"]
MOST_MONEY = Decimal(10) ** 15
"""The largest budget of money."""
Happening = Literal["dropped", "rejoined", "recovered", "hedged", "excluded", "exhausted"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    >>> Sampling(temperature=0.7, seed=1).greedy
    False
    """

    max_tokens: int | None = None
    """Tokens to write at most; ``None``: until the context is full."""
    temperature: float = 0.0
    """0 is greedy (the default); otherwise log-probabilities are divided by it."""
    top_p: float = 1.0
    """Smallest set of tokens whose mass reaches it is kept; 1 keeps all."""
    top_k: int = 0
    """Number of tokens kept; 0 keeps all."""
    seed: int | None = None
    """Same seed, same request, same text, whatever runs beside it. ``None``: a fresh seed for each request."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    logprobs: int | None = None
    """Report each token's log-probability with this many alternatives (0 to 20); ``None``: no report."""

    def __post_init__(self) -> None:
        _require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "must be at least 1")
        _require(0 <= self.temperature <= 2, "temperature", "must be between 0 and 2")
        _require(0 < self.top_p <= 1, "top_p", "must be above 0 and at most 1")
        _require(self.top_k >= 0, "top_k", "must be 0 (off) or more")
        _require(self.seed is None or 0 <= self.seed < 2**63, "seed", "must be between 0 and 2^63 - 1")
        _require(len(self.stop) <= 4 and all(self.stop), "stop", "takes at most 4 strings, none of them empty")
        _require(self.logprobs is None or 0 <= self.logprobs <= 20, "logprobs", "must be between 0 and 20")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one request may spend over all its members; ``None`` means no limit.

    Checked before every call to a member and after every reply. It cannot take back what a call already under way
    spends: work stops within one step of the limit, not before it.
    """

    calls: int | None = None
    """Member calls: one generation, one opened session or one judged list each."""
    tokens: int | None = None
    """Prompt and completion tokens of all members."""
    cost: Decimal | None = None
    """Money, in the unit of the members' prices."""
    seconds: float | None = None
    """Wall time from the start of the request."""
    waited: float = 0.0
    """Seconds of ``seconds`` that had passed when the request was let in; counted where it waits, not asked for."""
    exhausted: Exhausted | None = None
    """What becomes of a request that uses its budget up: ``error``, a typed error; ``partial``, what has been written
    so far is the answer, marked as such. ``None``: as the ensemble says, else ``error``."""

    def __post_init__(self) -> None:
        if self.cost is not None:
            # Decimals know numbers that cannot be subtracted from one another.
            countable = self.cost.is_finite() and self.cost <= MOST_MONEY
            _require(countable, "budget.cost", f"must be above 0 and at most {MOST_MONEY:g}")
        for name in ("calls", "tokens", "cost", "seconds"):
            limit = getattr(self, name)
            _require(limit is None or limit > 0, f"budget.{name}", "must be above 0")

    def tightest(self, other: Budget) -> Budget:
        """The smaller limit of the two, field by field; what becomes of exhausted requests is this one's say.

        >>> Budget(calls=3).tightest(Budget(calls=5, tokens=10))
        Budget(calls=3, tokens=10, cost=None, seconds=None, waited=0.0, exhausted=None)
        """

        def smaller(name: str) -> Any:
            return min((v for v in (getattr(self, name), getattr(other, name)) if v is not None), default=None)

        return Budget(
            calls=smaller("calls"),
            tokens=smaller("tokens"),
            cost=smaller("cost"),
            seconds=smaller("seconds"),
            waited=max(self.waited, other.waited),
            exhausted=self.exhausted or other.exhausted,
        )

    def after(self, spent: Usage, seconds: float) -> Budget:
        """What is left when so much was spent in so many seconds.

        >>> Budget(tokens=10, seconds=3).after(Usage(completion_tokens=4), 1.0).tokens
        6

        Raises:
            BudgetExceeded: nothing is left of one of its amounts.
        """
        used = {"calls": spent.calls, "tokens": spent.total_tokens, "cost": spent.cost}
        used["seconds"] = self.waited + seconds
        limits = {name: limit for name in used if (limit := getattr(self, name)) is not None}
        for name, limit in limits.items():
            if used[name] >= limit:
                raise self.exceeded(name)
        return replace(self, waited=0.0, **{name: limit - used[name] for name, limit in limits.items()})

    def exceeded(self, name: str) -> BudgetExceeded:
        """The error that says that this amount is used up."""
        return BudgetExceeded(f"the budget of {getattr(self, name)} {name} is used up", param=f"budget.{name}")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one model was made to do. Values add.

    >>> Usage(calls=1, prompt_tokens=3) + Usage(completion_tokens=2)
    Usage(calls=1, prompt_tokens=3, completion_tokens=2, cost=Decimal('0'))
    """

    calls: int = 0
    """Generations, opened sessions and scorings."""
    prompt_tokens: int = 0
    """Tokens read: prompts, text adopted from other members, continuations scored."""
    completion_tokens: int = 0
    """Next-token distributions produced: one for each token written or decided on."""
    cost: Decimal = Decimal(0)
    """prompt_tokens × input price + completion_tokens × output price."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
        )

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def total(usages: Iterable[Usage]) -> Usage:
    """Sum of usages; zero for none."""
    return sum(usages, Usage())


class Earlier(NamedTuple):
    """What attempts at a request took whose replica was lost before anything was told."""

    usage: Usage = Usage()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a model or an ensemble: a conversation or a raw prompt.

    >>> Request.of("47+38=", max_tokens=4).messages[0].content
    '47+38='
    """

    messages: tuple[Message, ...] = ()
    """The conversation; each member puts its own chat template around it. Empty when ``prompt`` is given."""
    prompt: str | None = None
    """Raw text to continue, without template."""
    partial: str = ""
    """Text that already stands in the assistant's turn; the answer goes on after it."""
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    """Independent answers wanted (choices)."""
    budget: Budget = field(default_factory=Budget)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the ensemble's method for this request only; refused where the model is not an ensemble."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    earlier: Earlier = field(default_factory=Earlier)
    """Counts against the budget of an ensemble's configuration; ``budget`` is what is left already."""

    def __post_init__(self) -> None:
        _require(bool(self.messages) != (self.prompt is not None), "messages", "or prompt must be given, not both")
        _require(self.n >= 1, "n", "must be at least 1")
        if self.messages:
            _require(any(m.role == "user" for m in self.messages), "messages", "must hold at least one user message")

    @classmethod
    def of(cls, question: str, **sampling: Any) -> Request:
        """A single user message with sampling given by name."""
        return cls(messages=(Message("user", question),), sampling=Sampling(**sampling))

    def again(self, spent: Usage, seconds: float) -> Request:
        """The same request to another replica, when one was lost that had spent so much in so many seconds.

        >>> again = replace(Request.of("Why?"), budget=Budget(calls=3)).again(Usage(calls=1), 0.5)
        >>> again.budget.calls, again.earlier.usage.calls, again.earlier.seconds
        (2, 1, 0.5)

        Raises:
            BudgetExceeded: nothing is left of one amount of its budget.
        """
        earlier = Earlier(self.earlier.usage + spent, self.earlier.seconds + seconds)
        return replace(self, budget=self.budget.after(spent, seconds), earlier=earlier)

    @property
    def question(self) -> str:
        """The text to be answered: the last user message, or the raw prompt."""
        if self.prompt is not None:
            return self.prompt
        return next(m.content for m in reversed(self.messages) if m.role == "user")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One written token (or elected class of equal bytes) and what else was likely there."""

    token: bytes
    logprob: float
    """Natural logarithm."""
    top: tuple[tuple[bytes, float], ...] = ()
    """Most likely alternatives with their log-probabilities, best first; may include the token itself."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of agreed text; never retracted."""

    text: str
    credits: Mapping[str, float] = field(default_factory=dict)
    """Which members wrote or elected it; weights sum to 1."""
    tokens: tuple[TokenLogprob, ...] = ()
    """Filled when ``Sampling.logprobs`` was asked for."""
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """Why: a vote, a tree node, a score. ``kind`` names it, ``data`` holds JSON values."""

    kind: str
    data: Mapping[str, Any]
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Incident:
    """Something went wrong and the answer was written all the same. Never silent: whoever asked is told."""

    kind: Happening
    """``dropped``: the answer goes on without a member; ``rejoined``: it takes part again; ``recovered``: its work was
    taken up by another replica; ``hedged``: another replica was faster; ``excluded``: one of its answers was not
    counted; ``exhausted``: the budget ended the answer early."""
    reason: str
    """Code of the error; of a bad answer what is wrong with it (``BadAnswer.reason``); ``budget.…`` of what ran out."""
    member: str | None = None
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The choice is complete."""

    reason: FinishReason
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What ``member`` used since its last ``Spent`` event."""

    member: str
    usage: Usage


Event = Delta | Trace | Incident | Finish | Spent


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer."""

    text: str
    finish_reason: FinishReason
    credits: tuple[tuple[str, Mapping[str, float]], ...] = ()
    """Spans of the text with the members' weights, in order; their texts join to ``text``."""
    tokens: tuple[TokenLogprob, ...] = ()
    traces: tuple[Trace, ...] = ()
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that came back for one request."""

    choices: tuple[Completion, ...]
    usage: Mapping[str, Usage]
    """By model name."""

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text


def collect(events: Iterable[Event]) -> Answer:
    """Fold a finished event stream into an answer.

    >>> collect([Delta("4"), Delta("2"), Finish("stop")]).text
    '42'
    """
    by_choice: dict[int, list[Event]] = {}
    usage: dict[str, Usage] = {}
    for event in events:
        if isinstance(event, Spent):
            usage[event.member] = usage.get(event.member, Usage()) + event.usage
        else:
            by_choice.setdefault(event.choice, []).append(event)
    return Answer(tuple(_completion(by_choice[choice]) for choice in sorted(by_choice)), usage)


def _completion(events: list[Event]) -> Completion:
    deltas = [e for e in events if isinstance(e, Delta)]
    reason: FinishReason = next((e.reason for e in events if isinstance(e, Finish)), "stop")
    return Completion(
        text="".join(d.text for d in deltas),
        finish_reason=reason,
        credits=merge_credits((d.text, d.credits) for d in deltas),
        tokens=tuple(token for d in deltas for token in d.tokens),
        traces=tuple(e for e in events if isinstance(e, Trace)),
        incidents=tuple(e for e in events if isinstance(e, Incident)),
    )


def merge_credits(spans: Iterable[tuple[str, Mapping[str, float]]]) -> tuple[tuple[str, Mapping[str, float]], ...]:
    """Join neighbouring spans of equal credit.

    >>> merge_credits([("a", {"x": 1.0}), ("b", {"x": 1.0}), ("c", {"y": 1.0})])
    (('ab', {'x': 1.0}), ('c', {'y': 1.0}))
    """
    merged: list[tuple[str, Mapping[str, float]]] = []
    for text, credits in spans:
        if merged and merged[-1][1] == credits:
            merged[-1] = (merged[-1][0] + text, credits)
        elif text:
            merged.append((text, credits))
    return tuple(merged)


def _require(holds: bool, param: str, rule: str) -> None:
    if not holds:
        raise BadRequest(f"{param} {rule}", param=param)
