"""Write ``docs/methods/`` anew: a page for each method, a table over all, and the table in README.md.

A page says what the method's class, ``facts/`` and ``measured.json`` say, and nothing of its own; where there is no
figure it has none. ``--check`` writes nothing and ends with status 1 if something is not up to date.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from method_classes import capital, described, options
from method_facts import Facts, Measured
from pydantic import TypeAdapter

from ensemble.method import Method, Stage, methods

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "methods"
FACTS = PAGES / "facts"
MEASURED = PAGES / "measured.json"

_STAGES = list(Stage)
_NOTE = "<!-- `make methods` writes this from the docstrings of the method, facts/{name}.toml and measured.json. -->"
_TABLE = re.compile(r"(<!-- table of methods: .*? -->\n).*?(<!-- end of table -->)", re.DOTALL)


class Source(NamedTuple):
    """All that a page is made of."""

    method: type[Method[Any]]
    facts: Facts
    measured: Measured | None


def sources() -> Mapping[str, Source]:
    """What is known of each of our methods, in the order of the tables."""
    ours = {name: method for name, method in methods().items() if method.__module__.startswith("ensemble.")}
    ordered = sorted(ours, key=lambda name: (_STAGES.index(ours[name].stage), name))
    figures = TypeAdapter(dict[str, Measured]).validate_json(MEASURED.read_bytes())
    return {name: Source(ours[name], facts_of(name), figures.get(name)) for name in ordered}


def facts_of(name: str) -> Facts:
    return Facts.model_validate(tomllib.loads((FACTS / f"{name}.toml").read_text(encoding="utf-8")))


def written() -> dict[Path, str]:
    """Every file that is written, with its text."""
    known = sources()
    found = {PAGES / f"{name}.md": page(source) for name, source in known.items()}
    for path, table in ((PAGES / "README.md", overview(known)), (ROOT / "README.md", short(known))):
        text = path.read_text(encoding="utf-8")
        found[path] = _TABLE.sub(lambda match, table=table: f"{match[1]}\n{table}\n{match[2]}", text)  # type: ignore[misc]
    return found


def page(source: Source) -> str:
    """One method's page."""
    method, facts, measured = source
    told = described(inspect.getdoc(method) or "")
    about = rows(
        ("the members meet", "paper", "asks of members", "vocabularies", "for each token and member"),
        [(method.stage.value, _paper(method), _needs(method), _vocabularies(facts), facts.traffic)],
    )
    sections = [
        _NOTE.format(name=method.name),
        f"# {method.name}",
        f"{capital(facts.sentence)}.",
        about,
        f"## What it is\n\n{told.what}",
        f"## When to use it\n\n{facts.use.strip()}",
        f"## When not\n\n{facts.avoid.strip()}",
        *([f"## What it asks of members\n\n{told.asks}"] if told.asks else []),
        *([_trained(facts)] if facts.trained else []),
        f"## Configuration\n\n```yaml\n{facts.example.strip()}\n```",
        f"## Options\n\n{rows(('option', 'means', 'default', 'cap'), list(options(method)))}",
        *([_measured(measured)] if measured else [_compared()] if f"| {method.name} |" in _routers() else []),
        *([f"## Notes\n\n{facts.notes.strip()}"] if facts.notes else []),
        *([f"## Departures from the paper\n\n{told.departures}"] if told.departures else []),
    ]
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def _trained(facts: Facts) -> str:
    return f"## What is fitted\n\n{facts.trained.strip()}\n\n```sh\n{facts.fit.strip()}\n```"


def _measured(measured: Measured) -> str:
    parts = ["## Measured"]
    if (quality := measured.quality) is not None:
        best = f"the best member, {quality.best}: {quality.best_accuracy:.3g}"
        parts.append(f"Quality on {quality.on}, members {quality.members}: {quality.accuracy:.3g}; {best}.")
        parts.append(f"Against the best member, in points: **{quality.verdict}**. {capital(quality.why)}".strip())
    if (efficiency := measured.efficiency) is not None:
        parts.append(f"Efficiency ({efficiency.on}): {efficiency.told} requests at a time.")
    commands = "\n".join(measured.commands)
    return "\n\n".join([*parts, f"```sh\n{commands}\n```"])


def _compared() -> str:
    return "## Measured\n\nBeside all other routers, on public tables of real models: [routers](../routers.md#figures)."


@cache
def _routers() -> str:
    return (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")


def overview(known: Mapping[str, Source]) -> str:
    """The table over all methods."""
    heads = ("method", "stage", "paper", "needs", "fitted", "for each token and member", "vocabularies")
    return rows(
        (*heads, "quality against the best member", "efficiency"),
        [
            (
                f"[{name}]({name}.md)",
                method.stage.value,
                _paper(method),
                _needs(method),
                "yes" if facts.trained else "no",
                facts.traffic,
                facts.vocabularies,
                measured.quality.verdict if measured and measured.quality else "",
                measured.efficiency.told if measured and measured.efficiency else "",
            )
            for name, (method, facts, measured) in known.items()
        ],
    )


def short(known: Mapping[str, Source]) -> str:
    """The table of README.md."""
    return rows(
        ("method", "the members meet", "paper", "in a sentence"),
        [
            (f"[`{name}`](docs/methods/{name}.md)", method.stage.value, _paper(method), facts.sentence)
            for name, (method, facts, _) in known.items()
        ],
    )


def rows(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *cells]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _paper(method: type[Method[Any]]) -> str:
    # What is not on arXiv names its place: a host and a path.
    place = method.paper if "/" in method.paper else f"arxiv.org/abs/{method.paper}"
    return f"[{method.paper.partition('/')[0]}](https://{place})"


def _needs(method: type[Method[Any]]) -> str:
    wanted = sorted(need.value.replace("_", " ") for need in method.needs) + ["judge"] * method.needs_judge
    return ", ".join(wanted)


def _vocabularies(facts: Facts) -> str:
    return {"any": "any", "one": "one for all", "one to fit": "any; one to be fitted"}[facts.vocabularies]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a file is not up to date")
    check = parser.parse_args().check
    texts = written()
    stale = [p for p, text in texts.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    stale += [p for p in PAGES.glob("*.md") if p not in texts]
    for path in stale:
        told = f"{path.relative_to(ROOT)} is not up to date; `make methods`" if check else f"{path.relative_to(ROOT)}"
        sys.stdout.write(f"{told}\n")
        if not check and path in texts:
            path.write_text(texts[path], encoding="utf-8")
        elif not check:
            path.unlink()
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
