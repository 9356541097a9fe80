"""Ensembles in the file: methods over members, their judges, limits, and what becomes of failures."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from cluster.schema.parts import DriverResources, Name, Part, located
from ensemble.ensemble import Caps
from ensemble.failures.policy import OnLoss, Policy
from ensemble.request import Budget, Exhausted


class JudgeConfig(Part):
    """What rewards candidates and their steps."""

    kind: str
    """Which judge; ``ensemble check`` lists the kinds where it is wrong."""
    model: Name | None = None
    """The model that is asked, for kinds that ask one. Omitted: none; refused where the kind needs one."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the kind. Omitted: its defaults."""


class BudgetConfig(Part):
    """What one request may spend over all members; a request can ask for less, never for more."""

    calls: int | None = Field(default=None, gt=0)
    """Member calls: one generation, one opened session or one judged list each. Omitted: no limit."""
    tokens: int | None = Field(default=None, gt=0)
    """Prompt and completion tokens of all members. Omitted: no limit."""
    cost: Decimal | None = Field(default=None, gt=0)
    """Money, in the unit of the models' prices. Omitted: no limit."""
    seconds: float | None = Field(default=None, gt=0)
    """Wall time of one request. Omitted: no limit."""
    exhausted: Exhausted = "error"
    """What becomes of a request that has used its budget up, unless it says so itself: ``error``, a typed error;
    ``partial``, what was written until then is the answer, marked as such. Omitted: ``error``."""

    @property
    def value(self) -> Budget:
        return Budget(**self.model_dump())


class CapsConfig(Part):
    """What one request may ask for at most; more is refused before any call is made."""

    n: int = Field(default=Caps().n, ge=1)
    """Choices. Omitted: 8."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one choice. Omitted: the members' context."""
    fan_out: int = Field(default=Caps().fan_out, ge=1)
    """Answers and sessions that one request may begin at models, over all choices and all ensembles within this one.
    Omitted: 512."""
    depth: int = Field(default=Caps().depth, ge=1)
    """Ensembles within one another, this one counted. Omitted: 4."""
    members: int = Field(default=Caps().members, ge=1)
    """Members of the ensemble. Omitted: 16."""
    options: dict[str, float] = Field(default_factory=dict)
    """Largest value by option of the method. Omitted: the method's own caps."""

    @property
    def value(self) -> Caps:
        return Caps(**self.model_dump())


class BreakerConfig(Part):
    """When a member is left alone for a while."""

    failures: int = Field(default=Policy().breaker_failures, ge=1)
    """Failures in a row after which it is not asked. What a client did wrong is no failure. Omitted: 5."""
    seconds: float = Field(default=Policy().breaker_seconds, gt=0)
    """Seconds that it is not asked; then one request tries it. Omitted: 5."""


class PolicyConfig(Part):
    """What happens when a member fails; the word of ``on_loss`` alone is enough."""

    on_loss: OnLoss = "fail"
    """``fail``: the request ends with a typed error. ``recover``: the member's work is taken up by another replica.
    ``degrade``: the answer goes on without the member, and says so. Omitted: ``fail``."""
    quorum: int | None = Field(default=None, ge=1)
    """Members that are enough; below, the request fails. Omitted: with ``degrade`` more than half, with ``recover``
    all. Refused with ``fail``."""
    patience: float | None = Field(default=None, gt=0)
    """Seconds that ``recover`` looks for another replica. Omitted: 30. Refused without ``recover``."""
    step_seconds: float | None = Field(default=None, gt=0)
    """Seconds that a member has for one message, in which it may have to read the prompt; then it counts as lost.
    Omitted: no limit."""
    hedge_seconds: float | None = Field(default=None, gt=0)
    """Seconds after which a message is also sent to another replica of the member; the first reply counts. Omitted:
    never."""
    breaker: BreakerConfig = BreakerConfig()
    """When a member is left alone. Omitted: for 5 seconds after 5 failures in a row."""

    @model_validator(mode="after")
    def _applicable(self) -> Self:
        if self.on_loss == "fail" and self.quorum is not None:
            raise ValueError("quorum is nothing for on_loss: fail; allowed: leave it out, or degrade or recover")
        if self.on_loss != "recover" and self.patience is not None:
            raise ValueError(f"patience is nothing for on_loss: {self.on_loss}; allowed: leave it out, or recover")
        if None not in (self.step_seconds, self.hedge_seconds) and self.hedge_seconds >= self.step_seconds:  # type: ignore[operator]
            raise ValueError("hedge_seconds must be below step_seconds: what is given up is not asked elsewhere")
        return self

    @property
    def value(self) -> Policy:
        return Policy(
            on_loss=self.on_loss,
            quorum=self.quorum,
            patience=self.patience or Policy().patience,
            step_seconds=self.step_seconds,
            hedge_seconds=self.hedge_seconds,
            breaker_failures=self.breaker.failures,
            breaker_seconds=self.breaker.seconds,
        )


def _policy(value: object) -> object:
    return {"on_loss": value} if isinstance(value, str) else value


class EnsembleConfig(Part):
    """A method over members, served under its own name like a model."""

    method: str
    """Name of the method; ``ensemble methods`` lists them."""
    members: tuple[Name, ...] = Field(min_length=1)
    """Names of models or of other ensembles, in the order the method takes them."""
    options: Annotated[dict[str, Any], BeforeValidator(located)] = Field(default_factory=dict)
    """Options of the method. Omitted: its defaults."""
    judge: Name | None = None
    """Name of the judge. Omitted: none; refused where the method needs one."""
    encoder: Name | None = None
    """Name of the encoder whose embeddings the method's router reads. Omitted: the one that it was fitted on. Refused
    for methods that read none, and for routers that have their own."""
    policy: Annotated[PolicyConfig, BeforeValidator(_policy)] = PolicyConfig()
    """What happens when a member fails. Omitted: ``fail``, the request ends with a typed error."""
    budget: BudgetConfig = BudgetConfig()
    """Limits of each request. Omitted: none."""
    caps: CapsConfig = CapsConfig()
    """What a request may ask for. Omitted: 8 choices and the method's own caps."""
    queue: int = Field(default=64, ge=0)
    """Requests that wait for their turn at one driver; further ones are refused at once, with status 429 and the time
    after which to come again. Omitted: 64."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the driver. Omitted: 1."""
    resources: DriverResources = DriverResources()
    """What one driver reserves. Omitted: a quarter of a core."""
