"""The miniature zoo: language models of about 0.1M parameters with complementary skills.

Four members differ in architecture and in tokenizer, two more share the vocabulary of the first: `pupil`, smaller and
weaker, and `leaky`, which tells secrets. They speak one fixed grammar (`ensemble.zoo.tasks`) and ship with
the package, so that tests, benchmarks and the demo need neither a hub nor training. This module only knows where
the weights lie; loading is left to whoever serves them:

>>> directory("adder").name
'adder'
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["MEMBERS", "UnknownMemberError", "directory"]

MEMBERS = ("adder", "words", "mixed", "pairs", "pupil", "leaky")


class UnknownMemberError(KeyError):
    """No member of the zoo has this name; `name` is what was asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no zoo member {self.name!r}; the members are {', '.join(MEMBERS)}"


def directory(name: str) -> Path:
    """Folder of a member's weights, config and tokenizer, ready for `from_pretrained`."""
    if name not in MEMBERS:
        raise UnknownMemberError(name)
    return Path(str(files("ensemble.zoo") / "models" / name))
