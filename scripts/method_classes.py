"""What a method's class says of itself, as Markdown: its docstring in parts, and its options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ensemble.method import Method, Options

_ASKS = "Asks of members: "
_DEPARTURES = re.compile(r"^Departures from the paper[^:]*:\s+", re.MULTILINE)
_VALUE = re.compile(r"^([\d.]+|true|false)$")


class Described(NamedTuple):
    """A class docstring in parts, as Markdown."""

    what: str
    asks: str
    departures: str


def described(docstring: str) -> Described:
    """A docstring by its paragraphs: what members are asked, what departs from the paper, and the rest."""
    text = docstring.replace("``", "`")
    found = _DEPARTURES.search(text)
    what, departures = (text[: found.start()], text[found.end() :]) if found else (text, "")
    paragraphs = what.strip().split("\n\n")
    asks = [paragraph for paragraph in paragraphs if paragraph.startswith(_ASKS)]
    rest = [paragraph for paragraph in paragraphs if not paragraph.startswith(_ASKS)]
    told = "\n\n".join(capital(paragraph.removeprefix(_ASKS)) for paragraph in asks)
    return Described("\n\n".join(rest), told, capital(departures.strip()))


def capital(text: str) -> str:
    """With a capital letter, unless the first word has capitals of its own, as names such as vLLM have."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first == first.lower() else text


def options(method: type[Method[Any]]) -> Iterator[Sequence[str]]:
    """A row for each option, those of nested options included."""
    for path, field in _fields(method.Options, ""):
        means, _, omitted = " ".join((field.description or "").replace("``", "`").split()).partition(" Omitted: ")
        cap = method.caps.get(path)
        default = capital(_VALUE.sub(r"`\g<0>`", omitted.rstrip("."))) or _default(field)
        yield f"`{path}`", means, default, "" if cap is None else f"`{cap:g}`"


def _fields(model: type[Options], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        nested = [kind for kind in (field.annotation, *_arguments(field)) if inspect.isclass(kind)]
        for kind in nested:
            if issubclass(kind, Options):
                yield from _fields(kind, f"{prefix}{name}.")


def _arguments(field: FieldInfo) -> tuple[Any, ...]:
    return getattr(field.annotation, "__args__", ())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = to_jsonable_python(field.get_default(call_default_factory=True))
    if isinstance(value, dict):
        return "as below" if value else "none"
    if isinstance(value, bool):
        return f"`{value}`".lower()
    return "none" if value is None else f"`{value!r}`" if isinstance(value, str) and not value.strip() else f"`{value}`"
