"""Routers compared on an outcome table: what is fitted to, what is counted, what is told, what is refused."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from cluster.cli import main
from ensemble.before.costs.cost import MeanCosts
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.policies import Utility
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router
from ensemble.errors import BadRequest
from ensemble.outcomes.curves import hull
from ensemble.outcomes.splits import Split
from ensemble.outcomes.table import Outcomes, read
from jobs.evaluation.routers import divisions, figures, words
from jobs.evaluation.routers.comparison import Comparison, compared, routers
from jobs.evaluation.routers.run import run

N = 120
LEFT, RIGHT = "left", "right"


def table(*, cost: bool = True, texts: bool = True, splits: bool = False, holes: int = 0) -> Outcomes:
    """Four tasks in turn; ``left`` is right on sums and products, ``right``, which is dearer, on the other two."""
    tasks = np.array(["sum", "product", "colour", "animal"])[np.arange(N) % 4]
    sure = np.isin(tasks, ["sum", "product"])
    random = np.random.default_rng(0)
    right = np.where(sure, random.random(N) < 0.2, random.random(N) < 0.9)
    left = np.where(sure, random.random(N) < 0.9, random.random(N) < 0.1)
    rows = [*range(N), *range(N - holes)]
    cells = {
        "query_id": [f"q{row}" for row in rows],
        "member": [LEFT] * N + [RIGHT] * (N - holes),
        "quality": [*left.astype(float), *right.astype(float)[: N - holes]],
    }
    if cost:
        cells["cost"] = [0.001] * N + [0.003] * (N - holes)
    queries = {"query_id": [f"q{row}" for row in range(N)], "task": tasks.tolist()}
    if texts:
        queries["text"] = [f"{task} number {row}" for row, task in enumerate(tasks)]
    if splits:
        queries["split"] = ["test" if row % 3 == 0 else "train" for row in range(N)]
    kinds = np.array([["sum", "product", "colour", "animal"].index(task) for task in tasks])
    features = np.eye(8, dtype=np.float32)[kinds]
    return Outcomes.of(pa.table(cells), pa.table(queries), features=None if texts else features)


class Fixed(Routing):
    """Says what it is told to."""

    name, policy = "fixed", Utility()
    said = (0.2, 0.7)

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        table = training.table
        store = Neighbours.fit(training.x[:1], np.array([cls.said]), 1)
        return Router(table.members, table.best, store, MeanCosts.fit(training))


class Shy(Fixed):
    name = "shy"

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        raise BadRequest("needs three members")


class Broken(Fixed):
    name = "broken"

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        raise np.linalg.LinAlgError("singular matrix")


def of(outcomes: Outcomes, *, share: float | None = 0.5, tasks: bool = False) -> Comparison:
    encoded = divisions.encoded(outcomes, outcomes.dense(), "features")
    split = divisions.by_tasks(outcomes, 0) if tasks else [divisions.by_split(outcomes, share, 0)]
    entrants = {"fixed": Fixed, "knn_router": routers(["knn_router"])["knn_router"], "shy": Shy}
    return compared("here", divisions.divided(encoded, split, 0), entrants, lambda name: None)


@pytest.fixture(scope="module")
def found() -> Comparison:
    return of(table(texts=False))


def test_a_router_is_judged_by_whom_it_thinks_best_and_by_what_that_costs(found: Comparison) -> None:
    fixed, knn = found.entrants
    assert fixed.best.chosen is not None and set(fixed.best.chosen) == {1}
    assert fixed.best.point == pytest.approx((0.003, found.tested.means[1]))
    assert fixed.served.point == fixed.best.point
    # Each task is a place of its own, so that neighbours tell it: 0.9 of the answers are right.
    assert knn.best.quality.mean() > found.single.quality.mean() + 0.2
    assert knn.brier < fixed.brier
    apart = np.abs(np.array(Fixed.said) - found.tested.means)
    assert fixed.calibration_error == pytest.approx(apart.mean(), abs=1e-6)
    assert found.refused == {"shy": "needs three members"}


def test_one_that_breaks_costs_nobody_elses_figures_and_alone_shows_where() -> None:
    outcomes = table(texts=False)
    encoded = divisions.encoded(outcomes, outcomes.dense(), "features")
    divided = divisions.divided(encoded, [divisions.by_split(outcomes, 0.5, 0)], 0)
    both = compared("here", divided, {"broken": Broken, "fixed": Fixed}, lambda name: None)
    assert [entrant.name for entrant in both.entrants] == ["fixed"]
    assert both.refused == {"broken": "its fit broke: LinAlgError: singular matrix"}
    with pytest.raises(np.linalg.LinAlgError):
        compared("here", divided, {"broken": Broken}, lambda name: None)


def test_a_gain_on_a_single_query_is_no_gain() -> None:
    cells = {"query_id": ["p", "p", "q", "q"], "member": [LEFT, RIGHT] * 2, "quality": [1.0, 0.0, 0.0, 1.0]}
    queries = {"query_id": ["p", "q"], "text": ["a", "b"], "split": ["train", "test"]}
    outcomes = Outcomes.of(pa.table(cells), pa.table(queries), features=np.eye(2, dtype=np.float32))
    found = of(outcomes, share=None)
    rows = figures.rows(found, 0)
    fixed = next(row for row in rows if row.name == "fixed")
    assert (found.single.quality.tolist(), fixed.against.difference, fixed.against.low) == ([0.0], 1.0, 0.0)
    assert "fixed does not beat the best single member, left: tie, +100.0 [0.0, +100.0]" in words.findings(found, rows)


def test_figures_of_one_router(found: Comparison) -> None:
    rows = {row.name: row for row in figures.rows(found, 0)}
    fixed, knn = rows["fixed"], rows["knn_router"]
    assert fixed.shares == {LEFT: 0.0, RIGHT: 1.0} and fixed.top == (RIGHT, 1.0) and fixed.entropy == 0
    assert 0 < knn.entropy <= 1 and knn.top[1] < 0.8
    assert knn.against.low > 0 and rows["best single"].against.difference == 0
    assert knn.tasks["sum"] > 0.7 and fixed.tasks["sum"] < 0.5
    assert knn.curve.best == pytest.approx(knn.quality) and knn.curve.area > fixed.curve.area
    assert knn.curve.gain == pytest.approx(knn.quality / rows["best single"].quality - 1)
    assert not rows["random"].shares and isnan(rows["random"].fit_seconds)


def test_two_members_have_figures_where_the_strong_one_is_better(found: Comparison) -> None:
    knn = found.entrants[1]
    strong = replace(found.single, chosen=np.ones(len(found.tested), int))
    pair = figures.pair(replace(found, references=(strong,)), knn)
    assert pair.apgr > 0.7 and 0 < pair.cpt50 < pair.cpt80 < 1
    # The member that was best where it was fitted to is the worse one on the tested part.
    assert found.tested.means[0] < found.tested.means[1] and isnan(figures.pair(found, knn).apgr)


def test_curves_go_from_the_cheapest_member_to_the_best_choice(found: Comparison) -> None:
    knn = hull(found.entrants[1].curve)
    assert knn[0].cost == pytest.approx(0.001)
    assert [point.cost for point in found.zero] == pytest.approx([0.001, 0.003])


def test_findings_say_who_does_not_beat_the_best_single_member(found: Comparison) -> None:
    told = list(words.findings(found, figures.rows(found, 0)))
    assert told[0].startswith("fixed does not beat the best single member, ")
    assert told[1].startswith("knn_router beats the best single member, ") and "wins by" in told[1]
    assert told[2] == "shy was not fitted: needs three members"


def test_without_costs_there_is_no_curve() -> None:
    found = of(table(texts=False, cost=False))
    assert not found.zero and not found.entrants[0].curve
    rows = figures.rows(found, 0)
    assert not words.curves(found, rows).rows and isnan(rows[-1].curve.area)


def test_every_task_is_tested_on_once_by_routers_that_never_saw_it() -> None:
    outcomes = table(texts=False)
    encoded = divisions.encoded(outcomes, outcomes.dense(), "features")
    parts = divisions.divided(encoded, divisions.by_tasks(outcomes, 0), 0)
    for part in parts:
        assert not set(part.fit.table.tasks) & set(part.test.table.tasks)
    tested = sorted(query for part in parts for query in part.test.table.queries)
    assert tested == sorted(outcomes.dense().queries)
    found = of(outcomes, tasks=True)
    assert len(found.tested) == N and len(found.single.quality) == N
    assert "best of known task" not in {reference.name for reference in found.references}


def test_the_tables_own_parts_are_used_unless_a_share_is_given() -> None:
    outcomes = table(splits=True)
    own = divisions.by_split(outcomes, None, 0)
    assert own.test.tolist() == list(range(0, N, 3)) and len(own.fit) == N - N // 3
    assert len(divisions.by_split(outcomes, 0.8, 0).fit) == round(0.8 * N)
    assert len(divisions.by_split(table(), None, 0).fit) == round(0.7 * N)


def test_queries_with_a_hole_are_fitted_to_and_not_tested_on() -> None:
    outcomes = table(texts=False, holes=30)
    encoded = divisions.encoded(outcomes, outcomes.dense(), None)
    (part,) = divisions.divided(encoded, [divisions.by_split(outcomes, 0.5, 0)], 0)
    assert part.test.table.complete.all() and not part.fit.table.complete.all()
    assert len(part.test.table) < N // 2


def test_a_member_that_cannot_be_fitted_to_is_refused() -> None:
    outcomes = table(texts=False, holes=30)
    encoded = divisions.encoded(outcomes, outcomes.dense(), None)
    with pytest.raises(BadRequest, match="no query that is fitted to has an outcome with a quality of right"):
        divisions.divided(encoded, [Split(np.arange(90, 120), np.arange(90))], 0)


def test_tfidf_is_fitted_to_nothing_that_is_tested_on() -> None:
    outcomes = table()
    encoded = divisions.encoded(outcomes, outcomes.dense(), None)
    assert encoded.encoder == "tfidf"
    first, second = divisions.divided(encoded, divisions.by_tasks(outcomes, 0)[:2], 0)
    assert first.fit.x.shape != second.fit.x.shape or not np.array_equal(first.test.x[:5], second.test.x[:5])
    assert np.linalg.norm(first.fit.x, axis=1) == pytest.approx(1, abs=1e-5)


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("outcomes")
    table(texts=False).write(made / "table")
    table(texts=False, cost=False).write(made / "free")
    return made


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_the_command_tells_and_writes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = invoke("--routers", "knn_router", "--outcomes", folder / "table", "-o", out, "--ood-by", "task")
    assert done.exit_code == 0, done.output
    for told in (
        "In distribution",
        "Tasks that were not fitted to",
        "query oracle",
        "CostSave",
        "the best single member",
    ):
        assert told in done.output
    report = (out / "report.md").read_text()
    assert "84 fitted to, 36 others tested on" in report and "120 tested on in 4 groups of tasks" in report
    kept = pq.read_table(out / "routers.parquet").to_pylist()
    assert {row["part"] for row in kept} == {"In distribution", "Tasks that were not fitted to"}
    knn = next(row for row in kept if row["router"])
    assert knn["name"] == "knn_router" and {share["name"] for share in knn["shares"]} == {LEFT, RIGHT}
    assert set(pq.read_table(out / "curves.parquet")["name"].to_pylist()) == {"knn_router", "single members"}
    assert (out / "quality_cost.png").read_bytes().startswith(b"\x89PNG")


def test_without_costs_nothing_is_drawn(folder: Path, tmp_path: Path) -> None:
    given = {"outcomes": folder / "free", "routers": ("knn_router",), "members": (), "output": tmp_path, "seed": 0}
    run({**given, "split": None, "ood_by": None, "encoder": None}, lambda name: None)
    assert {file.name for file in tmp_path.iterdir()} == {"report.md", "routers.parquet"}
    assert "quality_cost.png" not in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give CONFIG_OR_URL and FILE, or --routers and --outcomes"),
        (("--routers", "all"), "--routers and --outcomes go together"),
        (("--outcomes", "TABLE"), "--routers and --outcomes go together"),
        (("a.yaml", "b.csv", "--routers", "all", "--outcomes", "TABLE"), "leave CONFIG_OR_URL and FILE out"),
        (
            ("a.yaml", "b.csv", "--ood-by", "task"),
            "--ood-by: nothing that an evaluation of members and",
        ),
        (("a.yaml", "b.csv", "--encoder", "tfidf"), "--encoder: nothing that an evaluation of members"),
        (
            ("--routers", "all", "--outcomes", "TABLE", "--budget", "tokens=5", "--max-tokens", "9"),
            "--budget, --max-tokens: nothing that an evaluation of routers takes",
        ),
        (("--routers", "knn", "--outcomes", "TABLE"), "no router is named knn; there are: "),
        (("--routers", "knn_router", "--outcomes", "nowhere"), "nowhere"),
        (
            ("--routers", "knn_router", "--outcomes", "TABLE", "--members", "left,up"),
            "no member up; it has: left, ",
        ),
        (("--routers", "knn_router", "--outcomes", "TABLE", "--split", "1"), "above 0 and below 1; got 1"),
        (("--routers", "knn_router", "--outcomes", "TABLE", "--encoder", "tfidf"), "without a text; allowed: features"),
    ],
)
def test_what_is_refused(folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    named = [str(folder / "table") if part == "TABLE" else part for part in arguments]
    done = invoke(*named, "-o", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_embeddings_that_did_not_come_are_refused() -> None:
    outcomes = table()
    with pytest.raises(BadRequest, match="no embeddings of its queries; allowed: tfidf"):
        divisions.encoded(outcomes, outcomes.dense(), "features")


def test_one_task_cannot_be_left_out(folder: Path) -> None:
    outcomes = read(folder / "table")
    sums = outcomes.rows(np.array(outcomes.column("task")) == "sum")
    with pytest.raises(BadRequest, match="needs two of them; the table has 1"):
        divisions.by_tasks(sums, 0)


def test_a_table_without_a_whole_row_cannot_be_tested_on() -> None:
    outcomes = table(texts=False, holes=N)
    view = outcomes.dense((LEFT,))
    apart = Outcomes.of(outcomes.cells, outcomes.queries, pa.table({"member": [LEFT, RIGHT]}), outcomes.features)
    with pytest.raises(BadRequest, match="has an outcome of every member; name fewer with --members"):
        encoded = divisions.encoded(apart, apart.dense(), None)
        divisions.divided(encoded, [divisions.by_split(apart, None, 0)], 0)
    assert view.complete.all()
