"""YAML with line numbers: plain data, and the line on which each key path stands.

Refuses what YAML would let pass in silence: duplicate keys, keys that are no text (``on``, ``1``), values that refer
to themselves, several documents. Knows nothing of what the keys mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import yaml
from yaml.reader import ReaderError

Path = Sequence[str | int]
"""Keys and list positions from the root."""


class Problem(NamedTuple):
    """One thing that is wrong in a document."""

    line: int
    """Counted from 1."""
    path: tuple[str | int, ...]
    """Where; empty for the document as a whole."""
    message: str


class Unreadable(Exception):
    """The text is no document that can be used; ``problems`` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


class Document:
    """Parsed YAML that remembers lines.

    >>> document = Document("models:\\n  a: {engine: vllm}\\n")
    >>> document.data, document.line(("models", "a", "engine"))
    ({'models': {'a': {'engine': 'vllm'}}}, 2)
    """

    def __init__(self, text: str) -> None:
        """
        Raises:
            Unreadable: the text is no YAML, holds nothing, or says something twice.
        """
        try:
            loader = yaml.SafeLoader(text)
        except yaml.YAMLError as error:
            raise Unreadable([_syntax(error, text)]) from error
        try:
            self._root = loader.get_single_node()
            self._refuse()
            self.data: Any = loader.construct_document(self._root)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise Unreadable([_syntax(error, text)]) from error
        finally:
            loader.dispose()

    def _refuse(self) -> None:
        if self._root is None:
            raise Unreadable([Problem(1, (), "the file is empty")])
        if problems := list(_doubtful(self._root, (), ())):
            raise Unreadable(problems)

    def line(self, path: Path) -> int:
        """Line of a path, or of the nearest enclosing value where the path does not exist."""
        node, line = self._root, _line(self._root)
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line


def _child(node: Any, part: str | int) -> tuple[int, Any] | None:
    """Line and value of one key or list position."""
    if isinstance(node, yaml.SequenceNode):
        inside = isinstance(part, int) and part < len(node.value)
        return (_line(node.value[part]), node.value[part]) if inside else None
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    # Merged keys ("<<") come first, so the last one of a name is the one that counts.
    return next(((_line(key), value) for key, value in reversed(pairs) if key.value == str(part)), None)


def _doubtful(node: Any, path: tuple[str | int, ...], above: tuple[int, ...]) -> Iterator[Problem]:
    if id(node) in above:
        yield Problem(_line(node), path, "the value refers to itself")
        return
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _doubtful(item, (*path, i), (*above, id(node)))
    if isinstance(node, yaml.MappingNode):
        yield from _not_text(node, path)
        yield from _duplicates(node, path)
        for key, value in node.value:
            yield from _doubtful(value, (*path, str(key.value)), (*above, id(node)))


def _not_text(node: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    for key, _ in node.value:
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            name = key.value if isinstance(key, yaml.ScalarNode) else "…"
            yield Problem(
                _line(key), path, f"the key {name} is no text for YAML; allowed: text, in quotes where needed"
            )


def _duplicates(node: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for key, _ in node.value:
        name = str(key.value)
        if name in first and name != "<<":
            yield Problem(
                _line(key), (*path, name), f"the key stands here a second time; it is already on line {first[name]}"
            )
        first.setdefault(name, _line(key))


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _syntax(error: Exception, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).split("\n")[0]
    before = text[: getattr(error, "position", 0)] if isinstance(error, ReaderError) else ""
    return Problem(mark.line + 1 if mark else before.count("\n") + 1, (), f"no valid YAML: {what}")
