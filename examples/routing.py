"""Routers over the miniature models, from nothing: an outcome table, fits, a service, a comparison, feedback.

    python examples/routing.py --questions 100 --output out/routers

Runs the commands that it prints; those that ask the service find it running. The routers are made beside the
configuration, in examples/routers.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from pathlib import Path

import httpx
from commands import free_port, run

from cluster.config import load
from cluster.local import running
from ensemble.zoo.tasks import TASKS, Split, generate

HERE = Path(__file__).parent
FILE = HERE / "routing.yaml"
MEMBERS = "adder,words,mixed"
TAUGHT = 12
"""Pieces of feedback after which a bandit that knew nothing has a favourite."""


def main() -> None:
    given = arguments()
    given.output.mkdir(parents=True, exist_ok=True)
    # What a service has learned belongs to its routers; these are made anew.
    shutil.rmtree(HERE / "routers", ignore_errors=True)
    write(given.output / "train.jsonl", given.questions, "train")
    write(given.output / "test.jsonl", given.questions // 2, "test")
    collect(given.output)
    fit(given.output)
    with running(load(FILE), port=(port := free_port())):
        compare(given.output)
        teach(f"http://127.0.0.1:{port}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--questions", type=int, default=100, help="of each kind to learn from; half as many to compare by"
    )
    parser.add_argument("--output", type=Path, default=Path("out/routers"))
    return parser.parse_args()


def collect(folder: Path) -> None:
    """What each member makes of each question."""
    answers = ("--members", MEMBERS, "--grade", "last-line", "--task-column", "task", "--max-tokens", "64")
    run("collect", str(FILE), "--input", str(folder / "train.jsonl"), "--output", str(folder / "outcomes"), *answers)


def fit(folder: Path) -> None:
    """Every router that this table does for; the others are told, with the reason."""
    run("fit", "--routers", "all", "--outcomes", str(folder / "outcomes"), "--output", str(HERE / "routers"))


def compare(folder: Path) -> None:
    share = ("--split", "0", "--grade", "last-line", "--task", "task", "--samples", "1")
    run("evaluate", str(FILE), str(folder / "test.jsonl"), "-o", str(folder / "report"), *share)


def teach(url: str) -> None:
    """Feedback on sums to a bandit that began with nothing: whom it favours before and after."""
    with httpx.Client(base_url=url, timeout=60) as client:
        print("pickllm before feedback:", scores(client))
        for number in range(TAUGHT):
            for member, quality in (("adder", 1), ("words", 0), ("mixed", 0)):
                said = {"model": "pickllm", "question": f"{number}+1=", "member": member, "quality": quality}
                client.post("/v1/feedback", json=said | {"key": f"{member}-{number}"}).raise_for_status()
        # Drivers ask for what is new every half second.
        time.sleep(2)
        print("pickllm after feedback:", scores(client))


def scores(client: httpx.Client) -> dict[str, float]:
    asked = {"model": "pickllm", "messages": [{"role": "user", "content": "12+30="}], "trace": True}
    (traces,) = client.post("/v1/chat/completions", json=asked).raise_for_status().json()["ensemble"]["traces"]
    return next(trace["data"]["scores"] for trace in traces if trace["kind"] == "route")


def write(path: Path, count: int, split: Split) -> None:
    drawn = {item.prompt: item for task in TASKS for item in generate(task, count, 2026, split)}
    items = list(drawn.values())
    random.Random(2026).shuffle(items)
    rows = ({"question": item.prompt, "answer": item.answer, "task": item.task} for item in items)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
