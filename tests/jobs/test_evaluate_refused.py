"""What the commands refuse, and that they do so before a cluster is looked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from click.testing import CliRunner, Result

from cluster.cli import main
from cluster.config import load
from ensemble.errors import BadRequest
from jobs.commands.evaluate import designed
from jobs.evaluation.options import budget_of, names_of
from jobs.evaluation.service import of_configuration

SERVICE = str(Path(__file__).parents[1] / "service.yaml")


def invoke(command: str, folder: Path, *arguments: str) -> Result:
    rows = ({"question": f"{i}+1=", "answer": i + 1} for i in range(8))
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"where": SERVICE, "file": str(folder / "in.jsonl"), "-o": str(folder / "out"), "--address": "127.0.0.1:1"}
    if command == "tune":
        given |= {"--method": "gac", "--members": "adder,words"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    where, file = given.pop("where"), given.pop("file")
    return CliRunner().invoke(main, [command, where, file, *(part for pair in given.items() for part in pair)])


SHARED = [
    (("file", "in.txt"), "must end with one of: .parquet, .jsonl, .jsonl.gz, .csv"),
    (("--question", "q"), "has no column 'q'; it has: question, answer"),
    (("--grade", "close"), "unknown grade 'close'; allowed: exact, number, choice, last-line, regex:PATTERN"),
    (("--questions", "9"), "holds 8 questions; 9 are wanted"),
    (("--split", "1"), "at least 0 and below 1"),
    (("--members", "adder,addr"), "no model or ensemble is named 'addr'; there are: adder, "),
    (("--output", SERVICE), "service.yaml is no folder"),
    (("--output", "tests"), "tests holds files that are no evaluation's"),
    (("where", "none.yaml"), "none.yaml: the file cannot be read"),
    (("--concurrency", "0"), "0 is not in the range x>=1"),
    (("--seed", "-1"), "-1 is not in the range x>=0"),
]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        *SHARED,
        (("--ensembles", "adder"), "adder: no ensemble; give models with --members"),
        (("--members", "gac", "--ensembles", "gac"), "gac: either a member or an ensemble"),
        (("--budget", "calls=5"), "--budget calls=5 cannot be used; allowed: tokens=N"),
        (("--budget", "tokens=0"), "N a whole number above 0"),
        (("--temperature", "3"), "3.0 is not in the range 0<=x<=2"),
    ],
)
def test_evaluate_refuses(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    before = ray.is_initialized()
    result = invoke("evaluate", tmp_path, *arguments)
    assert (result.exit_code, ray.is_initialized()) == (2, before)
    assert told in result.output
    assert not (tmp_path / "out" / "report.md").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        *SHARED,
        (("--method", "gaq"), "gaq"),
        (("--members", "adder"), "at least two members"),
        (("--split", "0"), "candidates are chosen on a development part; give --split above 0"),
        (("--grid", "threshold=7"), "no candidate with threshold=7 can be used"),
        (("--grid", "depth=1"), "has no option 'depth'"),
        (("--grid", "threshold"), "--grid threshold is not OPTION=VALUE,VALUE"),
        (("--option", "threshold=.5", "--grid", "threshold=.7"), "threshold: either --option or --grid"),
        (("--option", "threshold"), "'threshold' is not KEY=VALUE"),
        (("--grid", "topk=1,2,3,4,5", "--candidates", "14"), "15 candidates, at most 14 are allowed: lower --steps"),
        (("--steps", "1"), "1 is not in the range 2<=x<=20"),
        (("--method", "best_of_n"), "needs a judge"),
        (("--method", "best_of_n", "--judge", "jury"), "jury"),
        (("--budget", "questions=5"), "5 questions are too few for 3 candidates; give at least 6"),
        (("--budget", "cost=5"), "--budget cost=5 cannot be used; allowed: questions=N or tokens=N"),
    ],
)
def test_tune_refuses(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    before = ray.is_initialized()
    result = invoke("tune", tmp_path, *arguments)
    assert (result.exit_code, ray.is_initialized()) == (2, before)
    assert told in result.output


@pytest.mark.parametrize("command", ["evaluate", "tune"])
def test_a_service_that_is_not_there(tmp_path: Path, command: str) -> None:
    result = invoke(command, tmp_path, "where", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "nothing answers at http://127.0.0.1:9" in result.output


def test_names_that_are_left_out_follow() -> None:
    configuration = load(SERVICE)
    there = of_configuration(configuration)
    amounts = {"samples": 8, "temperature": 0.7, "max_tokens": 8, "seed": 0}

    def names(members: str = "", ensembles: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
        design = designed(there, {"members": [members], "ensembles": [ensembles], **amounts}, None)
        return design.members, design.ensembles

    assert names("adder,words") == (
        ("adder", "words"),
        ("gac", "gac-twins", "unite-twins", "nested", "safe", "zoo-gac"),
    )
    assert names(ensembles="nested") == (("adder", "words"), ("nested",))
    assert names("words,gac", "nested") == (("words", "gac"), ("nested",))
    assert names("words,gac")[1] == ()
    members, ensembles = names()
    assert (set(members), set(ensembles)) == (set(configuration.models), set(configuration.ensembles))


def test_names_and_budgets() -> None:
    assert names_of([" a , b", ",a", "c"]) == ("a", "b", "c")
    assert budget_of([], ("tokens",)) == {}
    assert budget_of(["tokens=7", "questions=2"], ("questions", "tokens")) == {"tokens": 7, "questions": 2}
    for wrong in ("tokens", "tokens=", "tokens=-1", "tokens=1.5", "=5"):
        with pytest.raises(BadRequest):
            budget_of([wrong], ("tokens",))


def test_help_loads_nothing_slow() -> None:
    told_of = "sorted({'ray', 'torch', 'matplotlib', 'pyarrow'} & set(sys.modules))"
    code = f"""
import sys
from cluster.cli import main
from cluster.config import load
for command in ("evaluate", "tune"):
    try:
        main([command, "--help"])
    except SystemExit:
        print("slow:", {told_of})
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.count("slow: []") == 2
