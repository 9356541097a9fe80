"""The configuration file, read and checked: every problem is reported at once, each with its line.

This is the door to the configuration: ``load`` for files and text, ``parse`` for values that came over a wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cluster.consistency import Mistake, mistakes
from cluster.schema import (
    BudgetConfig,
    CapsConfig,
    Configuration,
    DriverResources,
    EnsembleConfig,
    GatewayConfig,
    JudgeConfig,
    ModelConfig,
    PriceConfig,
    Resources,
)
from cluster.yaml_lines import Document, Problem, Unreadable
from ensemble.errors import ConfigurationError

__all__ = [
    "ZOO",
    "BudgetConfig",
    "CapsConfig",
    "Configuration",
    "DriverResources",
    "EnsembleConfig",
    "GatewayConfig",
    "JudgeConfig",
    "ModelConfig",
    "PriceConfig",
    "Resources",
    "load",
    "parse",
]

ZOO = Path(__file__).with_name("zoo.yaml")
"""The configuration of the models that come with the package."""


def load(source: Path | str) -> Configuration:
    """A configuration from a file, or from text.

    Args:
        source: a path; or the YAML text itself, recognised by a line break in it.

    Raises:
        ConfigurationError: one line ``FILE:LINE: key.path: what is wrong`` for every problem found.
    """
    if isinstance(source, str) and "\n" in source:
        return _checked(source, "<text>", None)
    path = Path(source)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: the file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}:{line}: the file is not UTF-8 text") from error
    return _checked(text, str(path), path.absolute().parent)


def parse(data: Mapping[str, Any]) -> Configuration:
    """A configuration from plain values, checked like a file.

    Raises:
        ConfigurationError: one line ``key.path: what is wrong`` for every problem found.
    """
    configuration, found = _parsed(dict(data), None)
    if configuration is None or found:
        raise ConfigurationError("\n".join(_text(mistake.path, mistake.message) for mistake in found))
    return configuration


def _checked(text: str, name: str, folder: Path | None) -> Configuration:
    try:
        document = Document(text)
    except Unreadable as error:
        raise ConfigurationError(_report(name, error.problems)) from error
    configuration, found = _parsed(document.data, folder)
    if configuration is None or found:
        lines = [Problem(document.line(mistake.path), *mistake) for mistake in found]
        raise ConfigurationError(_report(name, lines))
    return configuration


def _report(name: str, problems: list[Problem]) -> str:
    return "\n".join(f"{name}:{p.line}: {_text(p.path, p.message)}" for p in sorted(problems, key=lambda p: p.line))


def _text(path: tuple[str | int, ...], message: str) -> str:
    return f"{'.'.join(map(str, path))}: {message}" if path else message


def _parsed(data: Any, folder: Path | None) -> tuple[Configuration | None, list[Mistake]]:
    try:
        configuration = Configuration.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        return None, list(dict.fromkeys(_mistake(data, details) for details in error.errors()))
    return configuration, list(mistakes(configuration))


def _mistake(data: Any, details: ErrorDetails) -> Mistake:
    path, types = _walked(data, details)
    if details["type"] == "extra_forbidden":
        allowed = {field for model in _models(types) for field in model.model_fields}
        return Mistake(path, _unknown_key(str(path[-1]), sorted(allowed)))
    if details["type"] == "missing":
        return Mistake(path, "the key is missing; it has no default")
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] in ("value_error", "model_source", "model_type", "dict_type"):
        return Mistake(path, message)
    shown = repr(details["input"])
    return Mistake(path, f"got {shown if len(shown) <= 60 else shown[:57] + '...'}; allowed: {_rule(message)}")


def _rule(message: str) -> str:
    """What pydantic's message allows.

    >>> _rule("Input should be 'cpu' or 'cuda'"), _rule("String should match pattern '^a$'")
    ("'cpu' or 'cuda'", "text that should match pattern '^a$'")
    """
    return message.removeprefix("Input should be ").replace("String should", "text that should", 1)


def _walked(data: Any, details: ErrorDetails) -> tuple[tuple[str | int, ...], list[Any]]:
    """Where an error stands in the file, and the types of the value around it."""
    path: list[str | int] = []
    around: list[Any] = []
    types: list[Any] = [Configuration]
    for i, part in enumerate(details["loc"]):
        models = list(_models(types))
        if len(models) > 1:
            # Pydantic tells the branch of a union here, which is named after the key that decides for it.
            types = [model for model in models if part in model.model_fields]
            continue
        around, types = types, [inner for type_ in types for inner in _inside(type_, part)]
        missing = details["type"] == "missing" and i == len(details["loc"]) - 1
        if missing or _holds(data, part):
            path.append(part)
            data = None if missing else data[part]
    return tuple(path), around


def _holds(data: Any, part: str | int) -> bool:
    return (isinstance(data, Mapping) and part in data) or (
        isinstance(data, list) and isinstance(part, int) and part < len(data)
    )


def _unknown_key(key: str, allowed: list[str]) -> str:
    close = get_close_matches(key, allowed, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return f"unknown key{hint}; allowed: {', '.join(allowed) or 'none'}"


def _inside(type_: Any, part: str | int) -> Iterator[Any]:
    """Types one step further in."""
    for model in _models([type_]):
        if part in model.model_fields:
            yield model.model_fields[str(part)].annotation
    if get_origin(type_) in (dict, tuple, list):
        yield get_args(type_)[-1]


def _models(types: list[Any]) -> Iterator[type[BaseModel]]:
    """The pydantic models among some types, inside unions too."""
    for type_ in types:
        if isinstance(type_, type) and issubclass(type_, BaseModel):
            yield type_
        elif get_origin(type_) in (dict, tuple, list):
            continue
        else:
            yield from _models(list(get_args(type_)[:1] if get_origin(type_) is Annotated else get_args(type_)))
