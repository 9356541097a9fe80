"""Methods: the algorithms of the field, each a class with options and a ``run``; and their registry.

A method sees members, never engines or machines. Files below ``before/``, ``during/`` and ``after/`` hold one method
each and are found by walking those folders; other distributions add methods through the entry-point group
``ray_ensemble.methods``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ensemble.errors import (
    BadRequest,
    BudgetExceeded,
    ConfigurationError,
    EnsembleError,
    UnknownOption,
)
from ensemble.judges.judge import Judge
from ensemble.member import Capability, Card, Member
from ensemble.request import Budget, Event, Request

if TYPE_CHECKING:
    from ensemble.before.encoders.served import Encoders
    from ensemble.failures.crew import Crew

ENTRY_POINTS = "ray_ensemble.methods"


class Stage(StrEnum):
    """When the members meet."""

    BEFORE = "before"
    TOKEN = "during/token"
    SPAN = "during/span"
    PROCESS = "during/process"
    SELECTION = "after/selection"
    CASCADE = "after/cascade"


class Options(BaseModel):
    """Base of every method's options; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


O = TypeVar("O", bound=Options)  # noqa: E741
M = TypeVar("M", bound="type[Method[Any]]")


class Members(Sequence[Member]):
    """The members of one run, in the configured order, and the judge if the ensemble has one."""

    def __init__(
        self,
        members: Sequence[Member],
        judge: Judge | None = None,
        crew: Crew | None = None,
        budget: Budget | None = None,
        prepared: Any = None,
    ) -> None:
        """
        Args:
            prepared: what the method has made when the ensemble was loaded (``Method.prepared``).
        """
        self._members = tuple(members)
        self._judge = judge
        self._crew = crew
        self._budget = budget or Budget()
        self.prepared = prepared

    def __getitem__(self, index: Any) -> Any:
        return self._members[index]

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self._members)

    def spare(self, error: EnsembleError) -> bool:
        """Whether the method goes on without the member at fault; from then on it takes no part.

        Only for methods that lose less in going on themselves than in being run again over the others.
        """
        return self._crew is not None and self._crew.spare(error)

    def passed_over(self, error: EnsembleError, member: str) -> None:
        """Tell that another member answers in the place of one that failed before it had written anything."""
        if self._crew is not None:
            self._crew.passed_over(error, member)

    def settle(self, error: BudgetExceeded) -> bool:
        """Whether what the method has got so far is to be made the answer."""
        return self._crew is not None and self._crew.settle(error, partial=self._budget.exhausted == "partial")

    def exclude(self, member: str, reason: str) -> None:
        """Tell that an answer of a member is not counted."""
        if self._crew is not None:
            self._crew.tell("excluded", reason, member)

    @property
    def present(self) -> list[int]:
        """Positions of the members that take part."""
        crew = self._crew
        return [i for i, member in enumerate(self._members) if crew is None or crew.has(member.name)]

    @property
    def judge(self) -> Judge:
        assert self._judge is not None, "methods that need a judge are refused without one when they are loaded"
        return self._judge


class Method(ABC, Generic[O]):
    """One published way of combining models.

    Subclasses are decorated with ``@method(...)`` and define ``run``. An instance serves one configuration of options
    and keeps no state between requests.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    paper: ClassVar[str]
    """arXiv id; host and path of what is not there."""
    needs: ClassVar[frozenset[Capability]]
    """What every member must be able to do."""
    needs_judge: ClassVar[bool]
    Options: ClassVar[type[Options]]
    caps: ClassVar[Mapping[str, float]] = MappingProxyType({})
    """Largest value of an option that multiplies work, unless the configuration sets another."""
    naming: ClassVar[tuple[str, ...]] = ()
    """Options that name a member and can be left out."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Options that the configuration alone sets; requests that bring other values are refused. Regular expressions are
    such: matching a hostile one takes for ever, and a driver answers nobody meanwhile."""
    joint: ClassVar[bool] = True
    """All members take part in every answer. Else a few do, chosen for each: the others may be out of service, or have
    too short a context for it."""
    takes_encoder: ClassVar[bool] = False
    """Whether it reads embeddings of the questions."""

    def __init__(self, options: O) -> None:
        self.options = options

    def check(self, members: Sequence[Card]) -> None:
        """Refuse members or options that do not fit together; runs when the configuration is loaded and for each
        request that brings options.

        Raises:
            ConfigurationError: naming the option and what is allowed.
        """

    def admit(self, request: Request, members: Sequence[Card]) -> None:
        """Refuse a request this method cannot honour, before any call is made.

        Raises:
            BadRequest: naming the field and what is allowed.
        """

    def prepared(self, name: str, members: Sequence[Card], encoders: Encoders) -> Any:
        """What all requests of an ensemble share, made once when it is loaded; a run finds it at its members.

        Args:
            name: of the ensemble.

        Raises:
            ConfigurationError: what it is to be made of cannot be read, or does not fit.
        """
        return None

    def calls(self, members: int) -> Sequence[int]:
        """Answers and sessions that one choice begins at each member at most, in order."""
        return (1,) * members

    def among(self, names: Sequence[str], present: Sequence[int]) -> Self:
        """This method for some of the members only: weights are theirs, options that name others are at their defaults.

        Args:
            names: of all members.
            present: positions of those that take part.
        """
        left = {names[i] for i in present}
        changed = _of_some(self.options, present)
        changed |= {option: None for option in self.naming if getattr(self.options, option) not in left}
        return type(self)(self.options.model_copy(update=changed))

    @abstractmethod
    def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        """Answer one request (one choice); yields one ``Finish`` at the end."""


_BY_MEMBER = ("weights", "lengths", "offsets")
"""Options that hold one number for each member, where they hold numbers."""


def _of_some(options: Options, present: Sequence[int]) -> dict[str, Any]:
    """What changes in options when only some of the members are left."""
    changed: dict[str, Any] = {}
    for name in type(options).model_fields:
        value = getattr(options, name)
        if name in _BY_MEMBER and isinstance(value, tuple):
            changed[name] = tuple(value[i] for i in present)
        elif isinstance(value, Options):
            changed[name] = value.model_copy(update=_of_some(value, present))
    return changed


_registry: dict[str, type[Method[Any]]] = {}


def method(
    name: str, *, stage: Stage, paper: str, needs: set[Capability], options: type[Options], judge: bool = False
) -> Callable[[M], M]:
    """Register a method under ``name``."""

    def register(cls: M) -> M:
        cls.name, cls.stage, cls.paper = name, stage, paper
        cls.needs, cls.needs_judge, cls.Options = frozenset(needs), judge, options
        if name in _registry and _registry[name].__qualname__ != cls.__qualname__:
            raise ConfigurationError(f"two methods are named {name}: {_registry[name]} and {cls}")
        _registry[name] = cls
        return cls

    return register


def methods() -> Mapping[str, type[Method[Any]]]:
    """All methods by name, ours and those of plug-ins."""
    _discover()
    return dict(sorted(_registry.items()))


def named(name: str) -> type[Method[Any]]:
    """The method of this name.

    Raises:
        ConfigurationError: there is none; the message lists those there are.
    """
    if name not in methods():
        raise ConfigurationError(f"unknown method {name!r}; known: {', '.join(methods())}", param="method")
    return _registry[name]


def build(name: str, options: Mapping[str, Any]) -> Method[Any]:
    """A method with validated options.

    Raises:
        UnknownOption: an option the method does not have; the message lists those it has.
        BadRequest: a value it does not allow.
    """
    cls = named(name)
    try:
        return cls(cls.Options.model_validate(dict(options)))
    except ValidationError as error:
        raise _refusals(cls, error)[0] from error


def refusals(name: str, options: Mapping[str, Any]) -> list[EnsembleError]:
    """Everything ``build`` would refuse; empty if nothing."""
    cls = named(name)
    try:
        cls.Options.model_validate(dict(options))
    except ValidationError as error:
        return _refusals(cls, error)
    return []


def _refusals(cls: type[Method[Any]], error: ValidationError) -> list[EnsembleError]:
    return [_refusal(cls, problem) for problem in error.errors()]


def _refusal(cls: type[Method[Any]], problem: ErrorDetails) -> EnsembleError:
    option = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(cls.Options.model_fields)) or "none"
        return UnknownOption(f"method {cls.name} has no option {option!r}; it has: {allowed}", param=option)
    return BadRequest(f"option {option!r} of method {cls.name}: {problem['msg']}", param=option)


@cache
def _discover() -> None:
    for package in ("ensemble.before", "ensemble.during", "ensemble.after"):
        if importlib.util.find_spec(package) is None:
            continue
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
            importlib.import_module(module.name)
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
