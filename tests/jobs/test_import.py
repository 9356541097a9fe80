"""``ensemble import``: tables of others and feedback journals as outcome tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from ensemble.outcomes.table import Outcomes, read
from jobs.collecting.questions import Columns
from jobs.collecting.questions import read as questions
from jobs.commands.importing import import_

NAN = np.nan

LONG = {
    "prompt": ["1+1=", "1+1=", "2+2="],
    "llm": ["a", "b", "a"],
    "score": [10, 5, 0],
    "ms": [100.0, NAN, 300.0],
    "site": ["x", "y", "z"],
}
WIDE = {"text": ["p", "q"], "acc_a": [1, 0], "acc_b|brief": [None, 0.5], "usd_a": [0.1, 0.2], "note": ["n", None]}
MAPS = ("--map", "text=prompt", "--map", "member=llm", "--map", "quality=score", "--scale", "quality=0.1")


def file(folder: Path, columns: dict[str, Any], name: str = "t.parquet") -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def run(folder: Path, source: Path, *arguments: str) -> Result:
    return CliRunner().invoke(import_, [str(source), "--output", str(folder / "out"), *arguments])


def imported(folder: Path, source: Path, *arguments: str) -> Outcomes:
    result = run(folder, source, *arguments)
    assert result.exit_code == 0, result.output
    return read(folder / "out")


def test_a_long_table(tmp_path: Path) -> None:
    source = file(tmp_path, LONG)
    price = ("--price", "a=1,2")
    result = run(
        tmp_path, source, *MAPS, "--map", "latency=ms", "--scale", "latency=0.001", "--set", "task=sum", *price
    )
    assert result.stderr == "left out: site\n"
    assert result.stdout == f"2 queries, 2 members, 3 outcomes in {tmp_path / 'out'}\n"
    dense = read(tmp_path / "out").dense()
    np.testing.assert_allclose(dense.quality, [[1, 0.5], [0, NAN]])
    np.testing.assert_allclose(dense.latency, [[0.1, NAN], [0.3, NAN]], rtol=1e-6)
    np.testing.assert_array_equal(dense.prices, [[1e-6, 2e-6], [NAN, NAN]])
    assert (dense.texts, dense.tasks) == (("1+1=", "2+2="), ("sum", "sum"))


def test_queries_are_named_as_a_collection_names_them(tmp_path: Path) -> None:
    found = imported(tmp_path, file(tmp_path, LONG), *MAPS)
    pq.write_table(pa.table({"question": ["2+2="]}), tmp_path / "questions.parquet")
    asked = questions(tmp_path / "questions.parquet", Columns())
    assert asked["query_id"].to_pylist() == found.queries["query_id"].to_pylist()[1:]


def test_a_wide_table(tmp_path: Path) -> None:
    found = imported(tmp_path, file(tmp_path, WIDE), "--wide", "acc_*", "--wide", "cost=usd_*")
    dense = found.dense(["a", "b|brief"])
    np.testing.assert_array_equal(dense.quality, [[1, NAN], [0, 0.5]])
    np.testing.assert_allclose(dense.cost, [[0.1, NAN], [0.2, NAN]], rtol=1e-6)
    assert (dense.texts, found.column("note")) == (("p", "q"), ("n", ""))
    assert found.cells.num_rows == 3


def test_a_wide_table_without_texts_is_named_by_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("acc_a,acc_b\n1,0\nnan,1\n")
    found = imported(tmp_path, tmp_path / "t.csv", "--wide", "acc_*", "--scale", "quality=0.5")
    assert found.dense().queries == ("0", "1")
    np.testing.assert_array_equal(found.dense().quality, [[0.5, 0], [NAN, 0.5]])


def test_names_that_are_known_need_no_map(tmp_path: Path) -> None:
    columns = {"query_id": [1, 2], "model": ["a", "a"], "quality": [True, False], "latency_s": [1, 2]}
    found = imported(tmp_path, file(tmp_path, columns))
    assert found.dense().queries == ("1", "2")
    np.testing.assert_array_equal(found.dense().quality, [[1], [0]])
    np.testing.assert_array_equal(found.dense().latency, [[1], [2]])


def test_features_come_along(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(2))
    found = imported(tmp_path, file(tmp_path, LONG), *MAPS, "--features", str(tmp_path / "x.npy"))
    np.testing.assert_array_equal(found.dense().features, np.eye(2))


def test_repeats_are_refused_or_samples(tmp_path: Path) -> None:
    source = file(tmp_path, LONG | {"llm": ["a", "a", "a"]})
    assert "has 2 rows with query_id" in run(tmp_path, source, *MAPS).output
    found = imported(tmp_path, source, *MAPS, "--repeats", "samples")
    np.testing.assert_array_equal(found.dense().samples, [[[1, 0.5]], [[0, NAN]]])
    np.testing.assert_array_equal(found.dense().quality, [[0.75], [0]])


def test_a_table_is_added_to_one_that_is_there(tmp_path: Path) -> None:
    source = file(tmp_path, LONG)
    imported(tmp_path, source, *MAPS)
    assert "is there already; give --append" in run(tmp_path, source, *MAPS).output
    assert "has 2 rows with query_id" in run(tmp_path, source, *MAPS, "--append").output
    other = file(tmp_path, LONG | {"llm": ["c", "d", "c"]}, "other.parquet")
    found = imported(tmp_path, other, *MAPS, "--append")
    assert (found.names, found.cells.num_rows, len(found)) == (("a", "b", "c", "d"), 6, 2)


def journal(folder: Path, *lines: str) -> Path:
    (folder / "feedback.jsonl").write_text("\n".join(lines))
    return folder / "feedback.jsonl"


def outcome(**changed: Any) -> str:
    shared = {"kind": "outcome", "sequence": 0, "model": "router", "question": "1+1=", "member": "a", "quality": 1.0}
    return json.dumps(shared | {"cost": 0.5, "latency": None, "propensity": 0.25} | changed)


def test_a_feedback_journal(tmp_path: Path) -> None:
    preference = {"kind": "preference", "sequence": 4, "question": "1+1=", "winner": "a", "loser": "b"}
    lines = [
        outcome(),
        json.dumps({"kind": "route", "question": "1+1=", "member": "a", "propensity": 0.25}),
        json.dumps(preference),
        outcome(quality=0.0, tokens=[7, 3]),
        outcome(member="b", input_tokens=9),
        '{"kind": "ou',
    ]
    result = run(tmp_path, journal(tmp_path, *lines), "--feedback")
    assert result.stderr == "left out: 1 preferences\n"
    # Who has answered has no number and is no feedback.
    assert result.stdout.splitlines()[1:] == ["feedback up to number 4; tell `ensemble fit` so with --feedback 4"]
    found = read(tmp_path / "out")
    dense = found.dense()
    np.testing.assert_array_equal(dense.quality, [[0.5, 1]])
    np.testing.assert_array_equal(dense.samples, [[[1, 0], [1, NAN]]])
    np.testing.assert_array_equal(dense.propensity, [[0.25, 0.25]])
    np.testing.assert_array_equal(dense.input_tokens, [[7, 9]])
    np.testing.assert_array_equal(dense.output_tokens, [[3, NAN]])
    assert (dense.texts, dense.members) == (("1+1=",), ("a", "b"))


def test_a_feedback_journal_of_several_files(tmp_path: Path) -> None:
    first = journal(tmp_path, outcome(), outcome(member="b"), "")
    first.with_name("feedback.000002.jsonl").write_text(outcome(member="c") + "\n")
    first.with_name("feedback.routes.jsonl").write_text('{"kind": "route"}\n')
    run(tmp_path, first, "--feedback")
    assert read(tmp_path / "out").dense().members == ("a", "b", "c")


@pytest.mark.parametrize("lines", [(), (json.dumps({"kind": "preference", "sequence": 1, "question": "q"}),)])
def test_a_journal_without_outcomes_is_no_table(tmp_path: Path, lines: tuple[str, ...]) -> None:
    result = run(tmp_path, journal(tmp_path, *lines), "--feedback")
    assert (result.exit_code, "holds no outcomes" in result.output) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_journal_with_a_broken_line_within_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, journal(tmp_path, outcome(), "{", outcome()), "--feedback")
    assert (result.exit_code, "line 1 of" in result.output) == (2, True)
    result = run(tmp_path, journal(tmp_path, outcome(quality="good")), "--feedback")
    assert (result.exit_code, "holds a record that is no outcome" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("columns", "arguments", "told"),
    [
        (LONG, (), "nothing names the queries: give --map query_id=COLUMN or --map text=COLUMN"),
        (LONG, ("--map", "text=prompt"), "nothing says who answered: give --map member=COLUMN"),
        (LONG, (*MAPS, "--map", "speed=ms"), "an outcome table has no column 'speed'; it has: query_id, text"),
        (LONG, (*MAPS, "--map", "latency=s"), "the table has no column 's'; it has: prompt, llm"),
        (LONG, (*MAPS, "--set", "member=b"), "member is told twice"),
        (LONG, (*MAPS, "--map", "cost"), "--map cost is not COLUMN=VALUE"),
        (LONG, (*MAPS, "--map", "cost=site"), "column 'cost' of the table must hold numbers; got string"),
        (LONG, (*MAPS, "--scale", "text=2"), "text holds no numbers that can be scaled"),
        (LONG, (*MAPS, "--scale", "cost=two"), "the factor must be a number"),
        (LONG, (*MAPS, "--scale", "latency=0.001"), "nothing tells latency, which is to be scaled; there are: text"),
        (LONG, (*MAPS, "--scale", "cost=nan"), "--scale cost=nan: the factor must be a finite number"),
        (LONG, (*MAPS, "--map", "cost=ms", "--price", "a=inf,1"), "input_price is inf; allowed: finite numbers"),
        (LONG | {"cost": [1, np.inf, 2]}, MAPS, "cost is inf; allowed: finite numbers"),
        (LONG | {"llm": ["a", "", "b"]}, MAPS, "member is empty; allowed: a value in each row"),
        (LONG | {"sample": [0, 1, 2]}, (*MAPS, "--repeats", "samples"), "the table numbers its samples itself"),
        ({"query_id": [], "member": []}, (), "t.parquet holds no outcomes"),
        (LONG, MAPS[:-2], "quality is 10.0; allowed: at least 0, at most 1"),
        (LONG, (*MAPS, "--price", "c=1,2"), "the table has no member c; it has: a, b"),
        (LONG, (*MAPS, "--price", "a=1"), "--price a=1 must be MEMBER=IN,OUT"),
        (WIDE, ("--wide", "score_*"), "no members' columns match 'score_*'; the table has: text, acc_a"),
        (WIDE, ("--wide", "acc_"), "quality=acc_: give a pattern with one *"),
        (WIDE, ("--wide", "task=acc_*"), "task=acc_*: give a pattern with one * for one of response, quality"),
        (WIDE, ("--wide", "acc_*", "--map", "member=note"), "a wide table names members in its columns"),
        (WIDE, ("--feedback", "--wide", "acc_*"), "a feedback journal is not wide"),
    ],
)
def test_refused(tmp_path: Path, columns: dict[str, Any], arguments: tuple[str, ...], told: str) -> None:
    result = run(tmp_path, file(tmp_path, columns), *arguments)
    assert (result.exit_code, told in " ".join(result.output.split())) == (2, True), result.output
    assert not (tmp_path / "out").exists()


def test_what_a_csv_file_calls_things_is_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("query_id,text,member,quality\n007,2020-01-01,1.0,true\n07,1e3,01,FALSE\n")
    dense = imported(tmp_path, tmp_path / "t.csv").dense()
    assert (dense.queries, dense.texts, dense.members) == (("007", "07"), ("2020-01-01", "1e3"), ("1.0", "01"))
    np.testing.assert_array_equal(dense.quality, [[1, NAN], [NAN, 0]])


@pytest.mark.parametrize("missing", ["", " ", "NA", "NaN", "null", "None"])
def test_numbers_that_are_missing_in_a_csv_file_are_holes(tmp_path: Path, missing: str) -> None:
    (tmp_path / "t.csv").write_text(f"query_id,member,quality,cost\nq,a,{missing},1\nr,a, 0.5 ,{missing}\n")
    dense = imported(tmp_path, tmp_path / "t.csv").dense()
    np.testing.assert_array_equal(dense.quality, [[NAN], [0.5]])
    np.testing.assert_array_equal(dense.cost, [[1], [NAN]])


def test_texts_of_many_lines_do_not_end_a_csv_file(tmp_path: Path) -> None:
    rows = "".join(f'q{i},"first\n{"x" * 500}\n",a,1\n' for i in range(5000))
    (tmp_path / "t.csv").write_text(f"query_id,text,member,quality\n{rows}")
    assert len(imported(tmp_path, tmp_path / "t.csv")) == 5000


def test_names_of_members_may_hold_what_patterns_are_made_of(tmp_path: Path) -> None:
    columns = {"text": ["p"], "acc[gpt-4?]": [1], "acc[b]": [0], "acc[]": [0]}
    result = run(tmp_path, file(tmp_path, columns), "--wide", "acc[*]")
    assert (result.exit_code, result.stderr) == (0, "left out: acc[]\n")
    assert read(tmp_path / "out").names == ("gpt-4?", "b")


def test_texts_that_are_no_texts_name_queries_all_the_same(tmp_path: Path) -> None:
    days = pa.array([0, 1], pa.date32())
    found = imported(tmp_path, file(tmp_path, {"text": days, "member": ["a", "a"], "quality": [1, 0]}))
    assert found.column("text") == ("1970-01-01", "1970-01-02")


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("query_id,member,quality,quality\nq,a,1,0\n")
    result = run(tmp_path, tmp_path / "t.csv")
    assert (result.exit_code, "t.csv has the column 'quality' twice" in result.output) == (2, True)


def test_a_line_that_is_no_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"query_id": "q", "member": "a", "quality": 1}\nquality: 2\n')
    result = run(tmp_path, tmp_path / "t.jsonl")
    assert (result.exit_code, "row 1 of" in result.output) == (2, True)
