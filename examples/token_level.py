"""Token-level methods on the miniature models, from nothing: questions, fits, a service, a comparison.

    python examples/token_level.py --questions 200 --output out/token_level

Runs the commands that it prints. The heads are made beside the configuration, in examples/heads.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ensemble.zoo.tasks import TASKS, Split, generate

HERE = Path(__file__).parent
EXPERTS = {"add": "adder", "chain": "adder", "reverse": "words", "capital": "words"}
"""Who should answer what."""
FITS: Mapping[str, tuple[str, str | None, Sequence[str]]] = {
    "eva": ("words,adder", None, ("--option", "shared=same")),
    "deepen": ("adder,words", None, ()),
    "etr": ("mixed,adder,words", "who.jsonl", ()),
    "citer": ("pupil,adder", "sums.jsonl", ("--grade", "last-line")),
}
"""Members, data and further arguments by method."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--questions", type=int, default=100, help="of each kind, half of them for development")
    arguments.add_argument("--output", type=Path, default=Path("out/token_level"))
    arguments.add_argument("--samples", type=int, default=3, help="answers of each member, for votes")
    given = arguments.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    files(given.output, given.questions)
    for method, (members, data, further) in FITS.items():
        source = ["--data", str(given.output / data)] if data else []
        run(
            "fit",
            method,
            str(HERE / "token_level.yaml"),
            "--members",
            members,
            *source,
            *further,
            "--output",
            heads(method),
        )
    test, report = str(given.output / "test.jsonl"), str(given.output / "report")
    share = ("--split", "0.5", "--grade", "last-line", "--task", "task", "--samples", str(given.samples))
    run("evaluate", str(HERE / "token_level.yaml"), test, "-o", report, *share)


def heads(method: str) -> str:
    return str(HERE / "heads" / method)


def files(folder: Path, count: int) -> None:
    """Questions to fit to, and others to compare by."""
    write(folder / "who.jsonl", TASKS, max(count, 30), "train")
    write(folder / "sums.jsonl", ("add", "chain"), max(count, 30), "train")
    write(folder / "test.jsonl", TASKS, count, "test")


def write(path: Path, tasks: Sequence[str], count: int, split: Split) -> None:
    items = [item for task in tasks for item in generate(task, count, 2026, split)]
    random.Random(2026).shuffle(items)
    rows = ({"question": i.prompt, "answer": i.answer, "expert": EXPERTS[i.task], "task": i.task} for i in items)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(*command: str) -> None:
    """An ``ensemble`` command, as it would be typed."""
    print("$ ensemble", *command, flush=True)
    done = subprocess.run([sys.executable, "-m", "cluster.cli", *command], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
