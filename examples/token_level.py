"""Token-level methods on the miniature models, from nothing: questions, fits, a service, a comparison, batch jobs.

    python examples/token_level.py --questions 200 --output out/token_level
    python examples/token_level.py --only batch --rows 50

Runs the commands that it prints; those that ask the service find it running. The heads are made beside the
configuration, in examples/heads.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from commands import free_port, run

from cluster.config import load
from cluster.local import running
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


STEPS = ("fit", "compare", "batch")
FILE = HERE / "token_level.yaml"


def main() -> None:
    given = arguments()
    given.output.mkdir(parents=True, exist_ok=True)
    files(given.output, given.questions, given.rows)
    steps = given.only or STEPS
    if "fit" in steps:
        fit(given.output)
    if "compare" in steps or "batch" in steps:
        with served():
            if "compare" in steps:
                compare(given.output, given.samples)
            if "batch" in steps:
                batch(given.output)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100, help="of each kind, half of them for development")
    parser.add_argument("--output", type=Path, default=Path("out/token_level"))
    parser.add_argument("--samples", type=int, default=3, help="answers of each member, for votes")
    parser.add_argument("--rows", type=int, default=20, help="of each batch job: the first questions")
    parser.add_argument("--only", choices=STEPS, action="append", help="leave the other steps out; repeatable")
    return parser.parse_args()


def fit(folder: Path) -> None:
    for method, (members, data, further) in FITS.items():
        source = ["--data", str(folder / data)] if data else []
        run("fit", method, str(FILE), "--members", members, *source, *further, "--output", heads(method))


@contextmanager
def served() -> Iterator[None]:
    """The configuration running, for all commands that ask it: it takes longer to start than to answer."""
    with running(load(FILE), port=free_port()):
        yield


def compare(folder: Path, samples: int) -> None:
    test, report = str(folder / "test.jsonl"), str(folder / "report")
    share = ("--split", "0.5", "--grade", "last-line", "--task", "task", "--samples", str(samples))
    run("evaluate", str(FILE), test, "-o", report, *share)


def batch(folder: Path) -> None:
    """The same rows put to every ensemble."""
    # A folder holds one job, and after another fit it is another one.
    shutil.rmtree(folder / "batch", ignore_errors=True)
    rows = str(folder / "rows.jsonl")
    for name in load(FILE).ensembles:
        output = str(folder / "batch" / name)
        run("batch", str(FILE), "--ensemble", name, "--input", rows, "--output", output, "--max-tokens", "256")


def heads(method: str) -> str:
    return str(HERE / "heads" / method)


def files(folder: Path, count: int, rows: int) -> None:
    """Questions to fit to, others to compare by, and the first of those for batch jobs."""
    write(folder / "who.jsonl", TASKS, max(count, 30), "train")
    write(folder / "sums.jsonl", ("add", "chain"), max(count, 30), "train")
    write(folder / "test.jsonl", TASKS, count, "test")
    lines = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(lines[:rows]), encoding="utf-8")


def write(path: Path, tasks: Sequence[str], count: int, split: Split) -> None:
    items = [item for task in tasks for item in generate(task, count, 2026, split)]
    random.Random(2026).shuffle(items)
    rows = ({"question": i.prompt, "answer": i.answer, "expert": EXPERTS[i.task], "task": i.task} for i in items)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
