"""What tests of documents share: which there are, their fenced blocks, and the modules of ``scripts/``."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "k8s/README.md",
    "ensemble/zoo/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
"""Every page that somebody reads."""
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    code: str
    printed: str | None = None
    """What the ``text`` block right after it says that it prints."""

    @property
    def title(self) -> str:
        return self.code.lstrip('"').split("\n", 1)[0][:40]


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, *languages: str) -> list[Block]:
    """A document's blocks in some languages, in order."""
    found = [(match[1], match[2]) for match in _BLOCK.finditer(read(document))]
    after = [*found, ("", "")][1:]
    return [
        Block(language, code, printed if kind == "text" else None)
        for (language, code), (kind, printed) in zip(found, after, strict=True)
        if language in languages
    ]


def script(name: str) -> ModuleType:
    """A module of ``scripts/``, which is no package: its modules find one another as a program's do."""
    folder = str(ROOT / "scripts")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
