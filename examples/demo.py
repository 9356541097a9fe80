"""All of it on one machine: models and ensembles are brought up, asked, measured, and run over a file.

Goes through the doors that users have: HTTP with the official ``openai`` client, and the command line. Exit status 1 if
anything fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as parquet
import ray
from commands import free_port
from openai import OpenAI
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.config import Configuration, load
from cluster.local import running
from deployments.engines.sources import ZooSource
from ensemble.zoo.tasks import TASKS, Item, check, generate_mixed

CONFIGURATION = Path(__file__).with_name("demo.yaml")
OUT = Path("out/demo")
SEED = 2026
"""Of the measured questions. The options in the configuration were chosen on other seeds."""
CONCURRENT = 8
"""Requests under way while measuring."""
MAX_TOKENS = 64
ZOO = ("47+38=", "reverse stone=", "capital of Italy=", "sum 12+30+45:\n")
ENGLISH = ("What is the capital of France?", "Why is the sky blue? Answer in one sentence.")
COLOURS = ("cyan", "magenta", "yellow", "green", "blue")

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Shown:
    """One answer as a client sees it."""

    text: str
    usage: Mapping[str, Any]
    """As the API tells it: sums, and ``members`` with each one's own."""
    seconds: float
    credits: Sequence[Mapping[str, Any]] = ()
    """Spans of the text with the members that wrote or elected them."""


@click.command()
@click.option("--only", type=click.Choice(["answers", "figures", "batch"]), help="One part instead of all three.")
@click.option("--questions", default=50, show_default=True, type=click.IntRange(4), help="Questions to measure with.")
def main(only: str | None, questions: int) -> None:
    """Models and ensembles on a local Ray cluster: answers, figures, and a batch job."""
    configuration = load(CONFIGURATION)
    with served(configuration) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        if only in (None, "answers"):
            show_answers(client, configuration)
        if only in (None, "figures"):
            show_figures(client, configuration, questions)
        if only in (None, "batch"):
            show_batch()


# Bringing up


@contextmanager
def served(configuration: Configuration) -> Iterator[str]:
    """The configuration on a Ray cluster of its own, on a free port."""
    started = time.monotonic()
    ready: set[str] = set()

    def progress(states: Mapping[str, str]) -> None:
        for name in (name for name, state in states.items() if state == "HEALTHY" and name not in ready):
            ready.add(name)
            console.print(f"  {time.monotonic() - started:4.0f} s  {name}")

    heading(f"Starting {len(configuration.models)} models and {len(configuration.ensembles)} ensembles on Ray")
    with running(configuration, port=free_port(), progress=progress) as url:
        console.print(f"  {time.monotonic() - started:4.0f} s  everything is served at {url}/v1")
        yield url


def heading(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


# Answers


def show_answers(client: OpenAI, configuration: Configuration) -> None:
    """Every ensemble's answers as they are written; who wrote what, and what each member spent."""
    heading("Answers, streamed; each piece in the colour of the member that gave it most of its weight")
    for name, ensemble in configuration.ensembles.items():
        colours = dict(zip(dict.fromkeys(ensemble.members), COLOURS, strict=False))
        members = ", ".join(f"[{colour}]{member}[/]" for member, colour in colours.items())
        console.print(f"\n[bold]{name}[/bold]: {ensemble.method} of {members}")
        for question in questions_for(name):
            show_answer(client, name, question, colours)


def questions_for(ensemble: str) -> Sequence[str]:
    return ENGLISH if ensemble.startswith("smol") else ZOO


def show_answer(client: OpenAI, name: str, question: str, colours: Mapping[str, str]) -> None:
    console.print(f"  {on_one_line(question.rstrip())} ", end="", style="dim")
    answer = streamed(client, name, question, colours)
    if not answer.text.strip():
        raise SystemExit(f"{name} has no answer to {question!r}")
    console.print(f"      by    {'  '.join(map(written, spans(answer)))}", style="dim")
    spent = ", ".join(used(member, usage) for member, usage in answer.usage["members"].items())
    rate = answer.usage["completion_tokens"] / answer.seconds
    console.print(f"      used  {spent}; {answer.seconds:.1f} s, {rate:.0f} tokens/s over all members", style="dim")


def on_one_line(text: str) -> str:
    return text.replace("\n", " ⏎ ")


def streamed(client: OpenAI, name: str, question: str, colours: Mapping[str, str]) -> Shown:
    """Ask, and print the answer as it comes."""
    started = time.monotonic()
    text, usage = "", None
    credits: Sequence[Mapping[str, Any]] = ()
    with client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": question}],
        max_tokens=MAX_TOKENS,
        seed=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as chunks:
        for chunk in chunks:
            told = (chunk.model_extra or {}).get("ensemble", {}).get("credits", {})
            piece = "".join(choice.delta.content or "" for choice in chunk.choices)
            if isinstance(told, list):
                credits = told[0]
            elif piece:
                console.print(Text(on_one_line(piece), style=colours[max(told, key=told.__getitem__)]), end="")
            text, usage = text + piece, chunk.usage or usage
    console.print()
    assert usage is not None, "the stream ends with its usage where it is asked for"
    return Shown(text, usage.model_dump(), time.monotonic() - started, credits)


def spans(answer: Shown) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Pieces of the text and who wrote them, to a tenth; neighbours of equal weights are joined."""
    pieces = ((answer.text[span["start"] : span["end"]], rounded(span["members"])) for span in answer.credits)
    for weights, group in groupby(pieces, key=itemgetter(1)):
        yield "".join(text for text, _ in group), weights


def rounded(weights: Mapping[str, float]) -> Mapping[str, float]:
    return {member: round(weights[member], 1) for member in sorted(weights) if weights[member] >= 0.05}


def written(span: tuple[str, Mapping[str, float]]) -> str:
    """A span and its members, the heaviest first."""
    text, weights = span
    shown = text if len(text) <= 24 else text[:22] + "…"
    shares = ", ".join(f"{m} {w:g}" for m, w in sorted(weights.items(), key=lambda share: -share[1]))
    return f"{shown!r}: {shares}"


def used(member: str, usage: Mapping[str, Any]) -> str:
    return f"{member} {usage['calls']} calls {usage['prompt_tokens']}+{usage['completion_tokens']} tokens"


# Figures


@dataclass(frozen=True)
class Figures:
    """How one model or ensemble did on all questions."""

    name: str
    right: Mapping[str, float]
    """Share of right answers by task."""
    accuracy: float
    calls: float
    """Per answer, as are tokens."""
    tokens: float
    seconds: float
    """For all questions."""


def show_figures(client: OpenAI, configuration: Configuration, count: int) -> None:
    """Accuracy and price of every zoo member and every ensemble over them, on generated questions."""
    items = generate_mixed(count, SEED)
    members = [name for name, model in configuration.models.items() if isinstance(model.source, ZooSource)]
    ensembles = [name for name, e in configuration.ensembles.items() if set(e.members) <= set(members)]
    heading(f"{count} generated questions (seed {SEED}), {CONCURRENT} at a time; members answer greedily")
    with console.status("asking"), ThreadPoolExecutor(CONCURRENT) as pool:
        alone = [measured(client, pool, name, items) for name in members]
        together = [measured(client, pool, name, items) for name in ensembles]
    best = max(alone, key=lambda figures: figures.accuracy)
    console.print(table(alone, together, best))
    routed = sum(max(f.right[item.task] for f in alone) for item in items) / count
    error = (best.accuracy * (1 - best.accuracy) / count) ** 0.5
    console.print(f"gain: over {best.name}, the best member: {best.accuracy:.2f} ± {error:.2f} (one standard error)")
    console.print(f"the best member of each task, if one knew which that is: {routed:.2f}")
    console.print("calls, tokens: per answer, of all members and the judge; seconds: for all questions")


def measured(client: OpenAI, pool: ThreadPoolExecutor, name: str, items: Sequence[Item]) -> Figures:
    started = time.monotonic()
    answers = list(pool.map(lambda pair: answered(client, name, *pair), enumerate(items)))
    seconds = time.monotonic() - started
    right = [check(item, answer.text) for item, answer in zip(items, answers, strict=True)]
    by_task = {task: mean(r for r, item in zip(right, items, strict=True) if item.task == task) for task in TASKS}
    return Figures(name, by_task, mean(right), mean(map(calls, answers)), mean(map(tokens, answers)), seconds)


def answered(client: OpenAI, name: str, seed: int, item: Item) -> Shown:
    started = time.monotonic()
    reply = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": item.prompt}], max_tokens=MAX_TOKENS, seed=seed
    )
    assert reply.usage is not None
    return Shown(reply.choices[0].message.content or "", reply.usage.model_dump(), time.monotonic() - started)


def calls(answer: Shown) -> int:
    return sum(usage["calls"] for usage in answer.usage["members"].values())


def tokens(answer: Shown) -> int:
    return int(answer.usage["total_tokens"])


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def table(alone: Sequence[Figures], together: Sequence[Figures], best: Figures) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", *TASKS, "all", "gain", "calls", "tokens", "seconds"):
        shown.add_column(column, justify="right" if column else "left", no_wrap=True)
    for figures in alone:
        shown.add_row(*cells(figures, Text("best" if figures is best else "")))
    shown.add_section()
    for figures in together:
        gain = figures.accuracy - best.accuracy
        shown.add_row(*cells(figures, Text(f"{gain:+.2f}", style="green" if gain > 0 else "red")))
    return shown


def cells(figures: Figures, gain: Text) -> list[str | Text]:
    shares = [f"{figures.right[task]:.2f}" for task in TASKS]
    price = [f"{figures.calls:.1f}", f"{figures.tokens:.0f}", f"{figures.seconds:.1f}"]
    return [figures.name, *shares, f"{figures.accuracy:.2f}", gain, *price]


# A batch job


def show_batch() -> None:
    """Questions from a file, through ``ensemble batch`` on the cluster that is running."""
    OUT.mkdir(parents=True, exist_ok=True)
    questions, answers = OUT / "questions.jsonl", OUT / "answers"
    rows = [{"question": item.prompt} for item in generate_mixed(24, SEED + 1)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shutil.rmtree(answers, ignore_errors=True)
    address = ray.get_runtime_context().gcs_address
    files = ["--input", str(questions), "--output", str(answers)]
    arguments = ["batch", str(CONFIGURATION), "--ensemble", "zoo-gac", *files, "--address", address]
    heading("A batch job on the same cluster")
    console.print(f"$ ensemble {' '.join(arguments)}", style="dim")
    subprocess.run([sys.executable, "-m", "cluster.cli", *arguments], check=True)
    console.print(f"{parquet.read_table(answers).num_rows} answers as Parquet in {answers}")


if __name__ == "__main__":
    main()
