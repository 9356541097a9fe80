"""Every router on every table of a folder, against the best single member, chance, oracles and plain baselines.

    python benchmarks/routers.py --data DIR
    python benchmarks/routers.py --data DIR --routers knn_router embedllm --sets routerbench3:random
    python benchmarks/routers.py --data DIR --write docs/routers.md

DIR (or the environment variable ENSEMBLE_DATA) holds, itself or in a folder ``routing``, the sets routerbench3,
alpacaeval2, routerarena_pair, openllm19, routerdc7 and routellm_pair, each a folder that
``ensemble.outcomes.table.read`` reads, with embeddings of the queries; where there are none, as there are no texts, the
known task is the embedding. Divisions: a seeded draw of 70 % to fit to (``random``), the origin's parts without texts
that are tested on (``origin``), and tasks that were not fitted to (``ood``); of the pair, its tasks. Only queries that
every member answered.

What was computed is kept in ``--output`` and used again unless ``--again`` names the router (or ``all``). ``--write``
puts the tables between the markers of a Markdown file. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensemble.before.fitting.training import Training
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.outcomes.dense import Dense
from ensemble.outcomes.references import Taken
from ensemble.outcomes.table import Outcomes, read
from jobs.evaluation.routers import words
from jobs.evaluation.routers.comparison import Comparison, Entrant, compared, entrant, routers
from jobs.evaluation.routers.divisions import Division
from jobs.evaluation.routers.figures import Row, rows
from jobs.evaluation.routers.results import draw
from jobs.evaluation.tables import Words

SEED = 2024
BEGIN, END = "<!-- figures: benchmarks/routers.py -->", "<!-- end of figures -->"

Divided = tuple[np.ndarray, np.ndarray]
"""Positions to fit to and to test on."""


class Plain(NamedTuple):
    """What a plain method with tuned options reaches on one set: quality, and the area of its curve."""

    knn: float
    ridge: float
    clusters: float
    factors: float
    areas: tuple[float, ...] = ()

    @property
    def best(self) -> float:
        return max(self.knn, self.ridge, self.clusters, self.factors)


PLAIN = {
    "routerbench3:random": Plain(0.8768, 0.8768, 0.8768, 0.8695, (0.8531, 0.8535, 0.8538, 0.8493)),
    "alpacaeval2:random": Plain(0.7160, 0.7075, 0.7039, 0.7084, (0.7148, 0.7064, 0.7028, 0.7137)),
    "routerarena_pair:random": Plain(0.7272, 0.6975, 0.7025, 0.7018, (0.7271, 0.7231, 0.7231, 0.7271)),
    "routerdc7:origin": Plain(0.5730, 0.5914, 0.5840, 0.5796),
    "routerdc7:ood": Plain(0.5312, 0.5418, 0.5469, 0.5423),
    "routerdc7:random": Plain(0.6045, 0.6086, 0.6106, 0.6015),
}
"""kNN over k and weights, ridge over its penalty, k-means over the number of clusters, factorisation over its rank, all
on MiniLM embeddings and these divisions; computed apart from this project's code."""
PLAIN_APGR = {
    "mmlu": {"kNN on the gap": 0.651, "ridge on the gap": 0.659, "logistic on battles": 0.609},
    "gsm8k": {"kNN on the gap": 0.620, "ridge on the gap": 0.616, "logistic on battles": 0.615},
    "mmlu+gsm8k": {"kNN on the gap": 0.666, "ridge on the gap": 0.654, "logistic on battles": 0.587},
}
"""Likewise, of the pair sets."""


class Set(NamedTuple):
    """A table and how it is divided."""

    folder: str
    way: str
    divide: Callable[[Outcomes, Dense], Divided]

    @property
    def name(self) -> str:
        return f"{self.folder}:{self.way}"


def drawn(rows: np.ndarray) -> Divided:
    """70 % and 30 % of some rows."""
    order = rows[np.random.default_rng(SEED).permutation(len(rows))]
    cut = int(0.7 * len(rows))
    return order[:cut], order[cut:]


def at_random(outcomes: Outcomes, view: Dense) -> Divided:
    return drawn(np.flatnonzero(view.complete))


def as_at_the_origin(outcomes: Outcomes, view: Dense) -> Divided:
    split, texts = np.array(outcomes.column("split")), np.array(view.texts, object)
    tested = set(texts[split == "test"])
    fresh = np.array([text not in tested for text in texts])
    complete = view.complete
    return np.flatnonzero((split == "train") & fresh & complete), np.flatnonzero((split == "test") & complete)


def out_of_distribution(outcomes: Outcomes, view: Dense) -> Divided:
    split, complete = np.array(outcomes.column("split")), view.complete
    return np.flatnonzero(np.isin(split, ["train", "test"]) & complete), np.flatnonzero((split == "ood") & complete)


def of_tasks(*begins: str) -> Callable[[Outcomes, Dense], Divided]:
    """A draw among the queries of some tasks, without those the origin found in training data of its encoders."""

    def divide(outcomes: Outcomes, view: Dense) -> Divided:
        wanted = np.array([task.startswith(begins) for task in view.tasks])
        clean = np.array([note != "contaminated" for note in outcomes.column("note")])
        return drawn(np.flatnonzero(wanted & clean & view.complete))

    return divide


SETS = (
    Set("routerbench3", "random", at_random),
    Set("alpacaeval2", "random", at_random),
    Set("routerarena_pair", "random", at_random),
    Set("openllm19", "random", at_random),
    Set("routerdc7", "origin", as_at_the_origin),
    Set("routerdc7", "ood", out_of_distribution),
    Set("routerdc7", "random", at_random),
    Set("routellm_pair", "mmlu", of_tasks("mmlu")),
    Set("routellm_pair", "gsm8k", of_tasks("gsm8k")),
    Set("routellm_pair", "mmlu+gsm8k", of_tasks("mmlu", "gsm8k")),
)


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of unit length; what travelled as float16 is so but for rounding."""
    x = features.astype(np.float32)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9))


def known_task(view: Dense) -> np.ndarray:
    """A vector of its own for each task."""
    tasks, place = np.unique(np.array(view.tasks), return_inverse=True)
    return np.eye(len(tasks), dtype=np.float32)[place]


def place(data: Path, of: Set) -> Path | None:
    """The set's folder among the data; None where there is none."""
    return next((there for parent in (data, data / "routing") if (there := parent / of.folder).is_dir()), None)


def division(data: Path, of: Set) -> Division:
    """The parts of a set of the folder ``data`` that are fitted to and tested on.

    Raises:
        BadRequest: the folder does not hold the set, or it cannot be read.
    """
    there = place(data, of)
    if there is None:
        raise BadRequest(f"{data} does not hold {of.folder}, nor does {data / 'routing'}", param="data")
    outcomes = read(there, responses=False)
    view = outcomes.dense()
    x = known_task(view) if view.features is None else unit(view.features)
    fit, test = of.divide(outcomes, view)
    return Division(*(Training(table=view.rows(part), x=x[part], seed=SEED) for part in (fit, test)))


# What was computed


def keep(file: Path, one: Entrant | str) -> None:
    """An entrant, or why there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(one, str):
        np.savez_compressed(file, refused=one)
        return
    assert one.best.chosen is not None and one.served.chosen is not None
    np.savez_compressed(
        file,
        predicted=one.predicted.astype(np.float32),
        best=np.stack([one.best.quality, one.best.cost, one.best.chosen]),
        served=np.stack([one.served.quality, one.served.cost, one.served.chosen]),
        curve=np.array(one.curve).reshape(-1, 2),
        numbers=[one.brier, one.calibration_error, one.fit_seconds, one.decision_ms],
    )


def kept(file: Path) -> Entrant | str:
    from ensemble.outcomes.curves import Point

    with np.load(file) as values:
        if "refused" in values:
            return str(values["refused"])
        ways = [
            Taken(name=file.stem, quality=q, cost=c, chosen=m.astype(int))
            for q, c, m in (values["best"], values["served"])
        ]
        scores = dict(zip(("brier", "calibration_error", "fit_seconds", "decision_ms"), values["numbers"], strict=True))
        return Entrant(
            name=file.stem,
            best=ways[0],
            served=ways[1],
            predicted=values["predicted"],
            curve=tuple(Point(*map(float, point)) for point in values["curve"]),
            **{name: float(value) for name, value in scores.items()},
        )


def measured(found: Comparison, parts: Division, name: str) -> Entrant | str:
    """One router on one set; a refusal is a result, and so is a failure, which is told."""
    try:
        return entrant(routers([name])[name], [parts], found.tested, priced=bool(found.zero))
    except (BadRequest, ConfigurationError) as error:
        return error.message
    except Exception as error:
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {error}"


def comparison(given: argparse.Namespace, of: Set) -> tuple[Comparison, list[Row]]:
    """A set with all routers, from what is kept and what is fitted now."""
    parts = division(given.data, of)
    found = compared(of.name, [parts], {}, lambda name: None)
    entrants, refused = list[Entrant](), dict[str, str]()
    for name in routers(given.routers):
        file = given.output / of.name.replace(":", "_") / f"{name}.npz"
        if not file.is_file() or name in given.again or "all" in given.again:
            one = measured(found, parts, name)
            keep(file, one)
            print(of.name, name, one if isinstance(one, str) else f"{one.best.quality.mean():.4f}", flush=True)
        one = kept(file)
        if isinstance(one, str):
            refused[name] = one
        else:
            entrants.append(one)
    found = replace(found, entrants=tuple(entrants), refused=refused)
    return found, rows(found, seed=0)


# What is told


def summary(told: Mapping[str, Sequence[Row]]) -> Words:
    """Quality of every router on every set that is no pair, with a mark where it beats or loses to the best single."""
    sets = [name for name in told if not name.startswith("routellm")]
    names = list(dict.fromkeys(row.name for name in sets for row in told[name]))
    by_set = {name: {row.name: row for row in told[name]} for name in sets}
    body = [[name, *(_cell(by_set[s].get(name)) for s in sets)] for name in names]
    plain = [[label, *(_plain(s, label) for s in sets)] for label in ("knn", "ridge", "clusters", "factors")]
    return Words("Quality, %", ("system", *sets), [*body, *([f"plain {row[0]}", *row[1:]] for row in plain)])


def _plain(name: str, label: str) -> str:
    return f"{100 * getattr(PLAIN[name], label):.1f}" if name in PLAIN else ""


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    mark = "+" if row.against.low > 0 else "−" if row.against.high < 0 else ""
    return f"{100 * row.quality:.1f}{mark}"


def macro(told: Mapping[str, Sequence[Row]]) -> Words:
    """Means over tasks of the mean quality on each, in the form of RouterDC's paper."""
    sets = [name for name in told if name in ("routerdc7:origin", "routerdc7:ood")]
    names = list(dict.fromkeys(row.name for name in sets for row in told[name]))
    of = {name: {row.name: np.mean(list(row.tasks.values())) for row in told[name]} for name in sets}
    body = [[name, *(f"{100 * of[s][name]:.2f}" if name in of[s] else "" for s in sets)] for name in names]
    return Words("Mean over tasks, %", ("system", *sets), body if sets else [])


def areas(told: Mapping[str, tuple[Comparison, Sequence[Row]]]) -> Iterable[Words]:
    for name, (found, of) in told.items():
        if found.zero and not name.startswith("routellm"):
            table = words.curves(found, of)
            reached = PLAIN[name].areas if name in PLAIN else ()
            blank = [""] * (len(table.columns) - 2)
            labels = ("knn", "ridge", "clusters", "factors")
            plain = [[f"plain {k}", words.number(a, 4), *blank] for k, a in zip(labels, reached, strict=False)]
            yield Words(f"{name}: {table.title.partition(':')[2].strip()}", table.columns, [*table.rows, *plain])


def pairs(told: Mapping[str, Sequence[Row]]) -> Words:
    """APGR and CPT of every router on the pair sets."""
    sets = [name for name in told if name.startswith("routellm")]
    by_set = {name: {row.name: row.pair for row in told[name] if row.router} for name in sets}
    names = list(dict.fromkeys(row for name in sets for row in by_set[name]))
    body = [[name, *(_pair(by_set[s].get(name)) for s in sets)] for name in names]
    plain = [[f"plain {k}", *(f"{PLAIN_APGR[s.partition(':')[2]][k]:.3f}" for s in sets)] for k in PLAIN_APGR["mmlu"]]
    return Words("APGR (CPT 50 %, CPT 80 %)", ("system", *sets), [*body, *plain])


def _pair(pair: Any) -> str:
    if pair is None or np.isnan(pair.apgr):
        return ""
    return f"{pair.apgr:.3f} ({100 * pair.cpt50:.0f}, {100 * pair.cpt80:.0f})"


def write(told: Mapping[str, tuple[Comparison, Sequence[Row]]], file: Path) -> None:
    """Put the tables between the markers."""
    by_set = {name: of for name, (_, of) in told.items()}
    tables = [summary(by_set), macro(by_set), pairs(by_set), *areas(told)]
    parts = [f"### {table.title}\n\n{table.markdown()}" for table in tables if table.rows]
    text = file.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    file.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}", encoding="utf-8")


def told_in_json(told: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Quality, difference to the best single, area and APGR by set and router."""
    return {name: {row.name: _figures(row) for row in of} for name, of in told.items()}


def _figures(row: Row) -> dict[str, float]:
    values = {
        "quality": row.quality,
        "low": row.against.low,
        "high": row.against.high,
        "cost": row.cost,
        "served": row.served_quality,
        "area": row.curve.area,
        "max": row.curve.best,
        "saving": row.curve.saving,
        "apgr": row.pair.apgr,
        "cpt50": row.pair.cpt50,
    }
    return {name: round(float(value), 6) for name, value in values.items() if not np.isnan(value)}


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    there = os.environ.get("ENSEMBLE_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=there and Path(there), help="Omitted: ENSEMBLE_DATA.")
    parser.add_argument("--routers", nargs="+", default=[], help="Omitted: all.")
    parser.add_argument("--sets", nargs="+", default=[], choices=[of.name for of in SETS], help="Omitted: all.")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks/routers"), help="Where results are kept.")
    parser.add_argument("--again", nargs="+", default=[], help="Routers to fit again though results are kept.")
    parser.add_argument("--write", type=Path, help="Markdown file with markers.")
    found = parser.parse_args(given)
    if found.data is None or not found.data.is_dir():
        parser.error("--data must be a folder of outcome tables")
    held = [of.name for of in SETS if place(found.data, of)]
    if missing := [of.name for of in wanted(found) if of.name not in held]:
        allowed = f"name some of --sets {' '.join(held)}" if held else "it holds none of the known sets"
        parser.error(f"{found.data} does not hold {', '.join(missing)}: {allowed}")
    return found


def wanted(given: argparse.Namespace) -> list[Set]:
    return [of for of in SETS if not given.sets or of.name in given.sets]


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(arguments)
    told = {of.name: comparison(given, of) for of in wanted(given)}
    for name, (found, of) in told.items():
        print(f"\n## {name}\n\n{words.quality(of).markdown()}")
        print(*words.findings(found, of), sep="\n")
        if found.zero:
            draw(found, given.output / f"{name.replace(':', '_')}.png")
    if given.write is not None:
        write(told, given.write)
    print(json.dumps(told_in_json({name: of for name, (_, of) in told.items()})))
    return int(any(why.startswith("failed") for found, _ in told.values() for why in found.refused.values()))


if __name__ == "__main__":
    sys.exit(main())
