"""Write the tables of ``docs/configuration.md`` anew: every key that a configuration may hold, as the types say.

What stands above the tables is written by hand. ``--check`` writes nothing and ends with status 1 if the page is not up
to date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from method_classes import capital
from method_pages import rows

from cluster.config import Configuration
from ensemble.judges import KINDS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"

Schema = Mapping[str, Any]
"""JSON schema of one part of the file."""

_TABLES = re.compile(r"(<!-- keys: .*? -->\n).*?(<!-- end of keys -->)", re.DOTALL)
_WORDS = {"string": "text", "boolean": "`true` or `false`", "object": "mapping", "null": ""}


class Section(NamedTuple):
    """One part of the file: where it may stand, and what may stand in it."""

    title: str
    paths: list[str]
    schema: Schema


class Reference(NamedTuple):
    """A part that a value may be."""

    part: str
    several: bool = False
    """The value holds several by name."""
    alternative: bool = False
    """Other parts may stand there instead."""


def sections() -> Mapping[str, Section]:
    """All parts by name, each where it comes up first; parts that may stand in several places are told once."""
    whole = Configuration.model_json_schema()
    found = {"": Section("The file", [], whole)}
    _walk(whole, "", whole["$defs"], found)
    for kind, judge in KINDS.items():
        title = f"`judges.NAME.options` of kind `{kind}`"
        found[f"judge {kind}"] = Section(title, [], judge.Options.model_json_schema())
    return found


def _walk(schema: Schema, path: str, parts: Mapping[str, Schema], found: dict[str, Section]) -> None:
    for key, inner in schema.get("properties", {}).items():
        for name, several, alternative in _references(inner):
            where = f"{path}.{key}".lstrip(".") + (".NAME" if several else "")
            if name not in found:
                title = f"`{key}` with `{parts[name]['required'][0]}`" if alternative else f"`{where}`"
                found[name] = Section(title, [], parts[name])
                _walk(parts[name], where, parts, found)
            found[name].paths.append(where)


def _references(schema: Schema) -> Iterator[Reference]:
    if "$ref" in schema:
        yield Reference(schema["$ref"].rpartition("/")[2])
    for choice in schema.get("oneOf", ()):
        yield from (one._replace(alternative=True) for one in _references(choice))
    for choice in schema.get("anyOf", ()):
        yield from _references(choice)
    for inner in schema.get("patternProperties", {}).values():
        yield from (one._replace(several=True) for one in _references(inner))


def text(section: Section, found: Mapping[str, Section]) -> str:
    """A section as Markdown."""
    told = _markdown(section.schema.get("description", ""))
    others = [f"`{path}`" for path in dict.fromkeys(section.paths) if f"`{path}`" != section.title]
    where = f" At {', '.join(others)}." if others else ""
    required = section.schema.get("required", ())
    cells = [(f"`{key}`", *_row(inner, key in required, found)) for key, inner in section.schema["properties"].items()]
    return f"### {section.title}\n\n{told}{where}\n\n{rows(('key', 'value', 'means', 'omitted'), cells)}".rstrip()


def _row(schema: Schema, required: bool, found: Mapping[str, Section]) -> tuple[str, str, str]:
    """Value, meaning, and what holds where the key is left out."""
    means, _, omitted = _markdown(schema.get("description", "")).partition(" Omitted: ")
    named = [found[reference.part].title for reference in _references(schema)]
    links = " or ".join(f"[{title}](#{anchor(title)})" for title in dict.fromkeys(named))
    what = f"by name: {links}" if links and "patternProperties" in schema else links or value(schema)
    return what, means, "must be given" if required else capital(omitted.rstrip(".")) or _default(schema)


def anchor(title: str) -> str:
    """What a heading is linked by, as forges make it.

    >>> anchor("`models.NAME` and `x`")
    'modelsname-and-x'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def value(schema: Schema) -> str:
    """What may stand there, in words.

    >>> value({"type": "integer", "minimum": 1}), value({"enum": ["a", "b"]})
    ('whole number, 1 or more', '`a`, `b`')
    """
    kind: str = schema.get("type", "")
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(filter(None, map(value, _choices(schema["anyOf"])))))
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(schema)
    if kind == "array":
        return f"list of: {value(schema['items'])}"
    inner = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
    if isinstance(inner, Mapping):
        return f"by name: {value(inner)}"
    return "path" if schema.get("format") == "path" else "name" if "maxLength" in schema else _WORDS.get(kind, kind)


def _choices(schemas: Sequence[Schema]) -> Sequence[Schema]:
    """What may stand there; that a decimal may also be written as text need not be told."""
    numbers = [schema for schema in schemas if schema.get("type") == "number"]
    return numbers or schemas


def _bounds(schema: Schema) -> str:
    least, above, most = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None:
        return f" above {above:g}"
    if least is None:
        return ""
    return f", {least:g} or more" if most is None else f", {least:g} to {most:g}"


def _markdown(description: str) -> str:
    return " ".join(description.replace("``", "`").split())


def written() -> str:
    """The page with its tables made anew."""
    found = sections()
    tables = "\n\n".join(text(section, found) for section in found.values())
    return _TABLES.sub(lambda match: f"{match[1]}\n{tables}\n\n{match[2]}", PAGE.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the page is not up to date")
    check = parser.parse_args().check
    page = written()
    stale = PAGE.read_text(encoding="utf-8") != page
    if stale and check:
        sys.stdout.write(f"{PAGE.relative_to(ROOT)} is not up to date; `make configuration`\n")
    elif stale:
        PAGE.write_text(page, encoding="utf-8")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
