"""What ``ensemble batch`` refuses, and that it does so before a cluster is looked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray
from click.testing import CliRunner, Result
from rich.console import Console

from cluster.cli import main
from cluster.commands.configuration import Refused
from cluster.config import load
from ensemble.errors import BadRequest
from jobs.batch import run
from jobs.job import Job
from jobs.progress import Display
from jobs.recorder import Counts

SERVICE = str(Path(__file__).parents[1] / "service.yaml")


def batch(folder: Path, *arguments: str, row: object = None) -> Result:
    row = {"question": "1+1=", "id": 1} if row is None else row
    (folder / "in.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    given = {"--ensemble": "gac", "--input": str(folder / "in.jsonl"), "--output": str(folder / "out")}
    given |= {"--address": "127.0.0.1:1"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    return CliRunner().invoke(main, ["batch", SERVICE, *(part for pair in given.items() for part in pair)])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ensemble", "gaq"), "no model or ensemble is named 'gaq'; there are: gac, "),
        (("--option", "depth=1"), "method gac has no option 'depth'; it has: "),
        (("--option", "threshold=7"), "option 'threshold' of method gac: "),
        (("--option", "threshold"), "'threshold' is not KEY=VALUE"),
        (("--option", "threshold=["), "the value of 'threshold' is no YAML"),
        (("--ensemble", "adder", "--option", "topk=1"), "adder is a model; only ensembles take options"),
        (("--temperature", "3"), "temperature must be between 0 and 2"),
        (("--max-tokens", "0"), "max_tokens must be at least 1"),
        (("--concurrency", "0"), "0 is not in the range x>=1"),
        (
            ("--input", "in.csv"),
            "in.csv: unknown format; a file name must end with one of: .parquet, .jsonl, .jsonl.gz",
        ),
        (("--input", "none.parquet"), "none.parquet: the file cannot be read: No such file or directory"),
        (("--question-column", "q"), "has no column 'q'; it has: question, id"),
        (("--prompt-column", "p", "--messages-column", "m"), "give only one of --messages-column, --prompt-column"),
        (("--id-column", "id"), "rows 0 and 1 of "),
        (("--id-column", "key"), "has no column 'key'"),
        (("--output", SERVICE), "service.yaml is no folder"),
        (("--output", "tests"), "tests holds files that are no job's"),
    ],
)
def test_refused(tmp_path, arguments, told):
    before = ray.is_initialized()
    result = batch(tmp_path, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.split())
    assert ray.is_initialized() == before
    assert not (tmp_path / "out").exists()


def test_columns_that_are_there_already_need_a_prefix(tmp_path):
    result = batch(tmp_path, row={"question": "?", "text": "t", "seconds": 1})
    assert (result.exit_code, "already has columns text, seconds; give a prefix" in result.stderr) == (2, True)


def test_a_folder_of_another_job_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_job.json").write_text('{"model": "gac"}')
    result = batch(tmp_path)
    assert (result.exit_code, "out holds another job, with a different input, " in result.stderr) == (2, True)


def test_an_unusable_configuration_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("models: {}\n")
    result = CliRunner().invoke(
        main, ["batch", str(tmp_path / "c.yaml"), "--ensemble", "a", "--input", "i", "--output", "o"]
    )
    assert (result.exit_code, "c.yaml:1: models: " in result.stderr) == (Refused.exit_code, True)


@pytest.mark.parametrize("given", [{"concurrency": 0}, {"attempts": 0}])
def test_run_refuses_what_makes_no_sense(tmp_path, given):
    job = Job(model="gac", input=tmp_path / "in.jsonl", output=tmp_path / "out")
    with pytest.raises(BadRequest, match=f"{next(iter(given))} must be at least 1"):
        run(load(SERVICE), job, **given)


def test_a_job_of_no_rows_needs_no_cluster(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"question": pa.array([], pa.string())}), tmp_path / "in.parquet")
    job = Job(model="gac", input=tmp_path / "in.parquet", output=tmp_path / "out")
    assert run(load(SERVICE), job, address="127.0.0.1:1").rows == 0


def test_progress_is_lines_where_there_is_no_terminal(capsys):
    console = Console(stderr=True, force_terminal=False)
    with Display(console) as display:
        for done in (1, 2, 3):
            display(Counts(rows=3, done=done, failed=1))
    told = capsys.readouterr().err.splitlines()
    assert [line.split(",")[:2] for line in told] == [["1 of 3 rows", " 1 failed"], ["3 of 3 rows", " 1 failed"]]


def test_progress_is_a_bar_on_a_terminal(capsys):
    with Display(Console(stderr=True, force_terminal=True, width=100)) as display:
        display(Counts(rows=8, done=4, failed=1, resumed=2))
        display._bar.refresh()
    told = capsys.readouterr().err
    assert "4/8" in told and "1 failed" in told
