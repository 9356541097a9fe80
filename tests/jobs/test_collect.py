"""Collections: each cell asked once, graded by any notion, and what is refused before anybody is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from collecting_doubles import Answerers, written

from cluster.config import load
from ensemble.errors import BadRequest, ContextTooLong, EnsembleError, MemberLost, Overloaded
from ensemble.judges.judge import Judge, Solution
from ensemble.outcomes.table import read
from ensemble.request import Request, Sampling
from jobs import asking
from jobs.batch import Interrupted
from jobs.collecting import judged
from jobs.collecting.answers import Plan
from jobs.collecting.grades import notion
from jobs.collecting.questions import Columns
from jobs.collecting.run import Ways, collected
from jobs.commands.collect import collect
from jobs.evaluation.grading import grade
from jobs.job import Subject

SERVICE = Path(__file__).parents[1] / "service.yaml"
ROWS = [{"question": f"{i}+{i}=", "answer": str(2 * i), "kind": "even" if i % 2 == 0 else "odd"} for i in range(6)]
COLUMNS = Columns(reference="answer", task="kind")
NAN = np.nan


def answer(member: str, question: str) -> str:
    """The adder is right, others are right on even sums of 4 and say nothing to the last."""
    number = int(question.partition("+")[0])
    if member != "adder" and number == 5:
        raise ContextTooLong("too long for words")
    return f"{question}{2 * number}" if member == "adder" or number % 2 == 0 else "?"


@pytest.fixture
def answerers(monkeypatch: pytest.MonkeyPatch) -> Answerers:
    return Answerers(monkeypatch, answer)


def plan(folder: Path, **changed: Any) -> Plan:
    return Plan(**{"members": ("adder", "words"), "output": folder / "out", "columns": COLUMNS} | changed)


def run(plan: Plan, file: Path, grade: str = "number", **ways: Any) -> Any:
    return collected(load(SERVICE), plan, file, grade, Ways(**ways))


def test_the_table_holds_quality_tokens_cost_and_latency(tmp_path: Path, answerers: Answerers) -> None:
    found = run(plan(tmp_path), written(tmp_path, ROWS))
    dense = read(tmp_path / "out").dense()
    assert dense.members == ("adder", "words")
    np.testing.assert_array_equal(dense.quality, [[1, 1], [1, 0], [1, 1], [1, 0], [1, 1], [1, np.nan]])
    assert dense.tasks == ("even", "odd") * 3
    assert dense.texts[1] == "1+1="
    # The adder has a price in the file, words has none.
    np.testing.assert_array_equal(dense.prices, [[1e-6, 2e-6], [np.nan, np.nan]])
    np.testing.assert_array_equal(dense.cost[0], [0.5, np.nan])
    assert (dense.input_tokens[0, 0], dense.output_tokens[0, 0], dense.latency[0, 0]) == (10, 4, 0.25)
    errors = [cell["error"] for cell in found.cells.to_pylist() if cell["error"]]
    assert errors == ["context_length_exceeded: too long for words"]
    assert [cell["response"] for cell in found.cells.to_pylist()][:2] == ["0+0=0", "1+1=2"]


def test_a_second_run_asks_nobody_and_needs_no_cluster(tmp_path: Path, answerers: Answerers) -> None:
    file = written(tmp_path, ROWS)
    first = run(plan(tmp_path), file)
    assert (len(answerers.asked), answerers.served) == (12, [["adder", "words"]])
    second = run(plan(tmp_path), file)
    assert (len(answerers.asked), answerers.served) == (12, [["adder", "words"]])
    assert second.cells.equals(first.cells)


def test_what_is_lost_goes_on_where_it_was(tmp_path: Path, answerers: Answerers) -> None:
    file = written(tmp_path, ROWS)
    answerers.last = 8
    with pytest.raises(Interrupted):
        run(plan(tmp_path), file)
    assert not (tmp_path / "out" / "outcomes.parquet").exists()
    answerers.last = None
    told = []
    found = run(plan(tmp_path), file, asking=told.append)
    assert len(answerers.asked) == len(set(answerers.asked)) == 12
    assert found.cells.num_rows == 12
    assert (told[-1].rows, told[-1].done, told[-1].resumed) == (12, 12, 8)


def test_another_member_is_asked_alone(tmp_path: Path, answerers: Answerers) -> None:
    file = written(tmp_path, ROWS)
    run(plan(tmp_path), file)
    found = run(plan(tmp_path, members=("mixed", "adder")), file)
    assert [name for name, _ in answerers.asked[12:]] == ["mixed"] * 6
    assert found.names == ("mixed", "adder")


def test_samples_have_seeds_of_their_own(tmp_path: Path, answerers: Answerers) -> None:
    sampling = Sampling(temperature=0.7, seed=5)
    found = run(plan(tmp_path, members=("adder",), samples=3, sampling=sampling), written(tmp_path, ROWS))
    assert answerers.seeds == [5, 6, 7]
    assert found.dense().samples.shape == (6, 1, 3)
    assert sorted(set(found.cells["sample"].to_pylist())) == [0, 1, 2]


def test_graded_anew_without_asking(tmp_path: Path, answerers: Answerers, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, ROWS)
    assert run(plan(tmp_path), file, "exact").dense().means.tolist() == [0, 0]
    assert run(plan(tmp_path), file, r"regex:=(\d+)$").dense().means[0] == 1
    (tmp_path / "mygrade.py").write_text(
        "def long(question, text, reference): return len(text) / 10 if reference else 0"
    )
    monkeypatch.chdir(tmp_path)
    assert run(plan(tmp_path), file, "python:mygrade:long").dense().quality[3].tolist() == pytest.approx([0.5, 0.1])
    assert len(answerers.asked) == 12


def test_a_judge_by_rule_needs_no_model(tmp_path: Path, answerers: Answerers) -> None:
    file = written(tmp_path, ROWS)
    columns = Columns()
    told = []
    found = run(plan(tmp_path, columns=columns), file, "judge:sums", judging=told.append)
    assert found.dense().quality[:, 0].tolist() == [1.0] * 6
    assert found.dense().quality[1, 1] == 0.5
    assert (told[-1].done, told[-1].rows) == (len(told), len(told))


def test_nothing_is_judged_twice_and_a_torn_line_is_nothing(tmp_path: Path, answerers: Answerers) -> None:
    file = written(tmp_path, ROWS)
    run(plan(tmp_path), file, "judge:sums")
    (journal,) = (tmp_path / "out" / "_judged").glob("sums-*/*.jsonl")
    # Both say the same to the three even sums, the adder to the odd ones, and words "?" to two of them.
    lines = journal.read_bytes().split(b"\n")[:-1]
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == 8
    journal.write_bytes(b"\n".join(lines[:-1]) + b"\n" + lines[-1][:20])
    told = []
    run(plan(tmp_path), file, "judge:sums", judging=told.append)
    assert [(counts.done, counts.resumed) for counts in told] == [(8, 7)]


class Strict(Judge):
    """Cannot judge what is long, and says so with one error or another."""

    def __init__(self, *errors: EnsembleError) -> None:
        self.name = "strict"
        self.errors, self.asked = list(errors), 0

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        self.asked += 1
        if self.errors and "5+5=" in request.question:
            raise self.errors.pop(0)
        return [[1.0]]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Strict]:
    """Puts a strict judge in the place of the configured one."""

    def put(*errors: EnsembleError) -> Strict:
        strict = Strict(*errors)

        async def connected(configuration: Any, name: str) -> Judge:
            return strict

        monkeypatch.setattr(judged, "connected", connected)
        monkeypatch.setattr(asking, "_FIRST_WAIT", 0.001)
        return strict

    return put


def test_an_answer_that_the_judge_cannot_judge_is_a_hole_and_asked_again(
    tmp_path: Path, answerers: Answerers, judge: Callable[..., Strict]
) -> None:
    file = written(tmp_path, ROWS)
    alone = plan(tmp_path, members=("adder",), columns=Columns())
    judge(ContextTooLong("too long to judge"))
    found = run(alone, file, "judge:sums")
    np.testing.assert_array_equal(found.dense().quality[:, 0], [1, 1, 1, 1, 1, NAN])
    assert found.cells["error"].to_pylist()[5] == "the judge: context_length_exceeded: too long to judge"
    assert found.cells["response"].to_pylist()[5] == "5+5=10"
    strict = judge()
    assert run(alone, file, "judge:sums").dense().quality[:, 0].tolist() == [1.0] * 6
    assert strict.asked == 1


def test_a_judge_that_may_come_back_is_tried_again_and_loses_no_verdict(
    tmp_path: Path, answerers: Answerers, judge: Callable[..., Strict]
) -> None:
    file = written(tmp_path, ROWS)
    alone = plan(tmp_path, members=("adder",), columns=Columns())
    strict = judge(Overloaded("busy"), Overloaded("busy"))
    assert run(alone, file, "judge:sums", attempts=3).dense().means[0] == 1
    assert strict.asked == 8
    judge(*[MemberLost("gone")] * 2)
    again = plan(tmp_path, members=("adder",), columns=Columns(), output=tmp_path / "other")
    with pytest.raises(MemberLost):
        run(again, file, "judge:sums", attempts=2, concurrency=1)
    strict = judge()
    assert run(again, file, "judge:sums").dense().means[0] == 1
    assert strict.asked == 1


def test_a_run_beside_another_touches_nothing(tmp_path: Path, answerers: Answerers) -> None:
    first = plan(tmp_path)
    run(first, written(tmp_path, ROWS))
    asked = tmp_path / "out" / "_answers" / "questions.parquet"
    before = asked.read_bytes()
    with first.claimed(), pytest.raises(BadRequest, match="another run is at work here"):
        run(first, written(tmp_path, ROWS[:2]))
    assert asked.read_bytes() == before


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([1.0, float("nan")]), "row 1 of .*, column 'answer': must be text or a number"),
        (pa.array([Decimal("2"), Decimal("4")]), None),
        (pa.array(["2", "4"]).dictionary_encode(), None),
    ],
)
def test_right_answers_of_any_type(tmp_path: Path, answerers: Answerers, column: pa.Array, told: str | None) -> None:
    questions = pa.array(["1+1=", "2+2="]).dictionary_encode()
    pq.write_table(pa.table({"question": questions, "answer": column}), tmp_path / "q.parquet")
    alone = plan(tmp_path, members=("adder",), columns=Columns(reference="answer"))
    if told is None:
        assert run(alone, tmp_path / "q.parquet").dense().means[0] == 1
    else:
        with pytest.raises(BadRequest, match=told):
            run(alone, tmp_path / "q.parquet")


def test_names_in_csv_files_are_kept_as_they_are(tmp_path: Path, answerers: Answerers) -> None:
    (tmp_path / "q.csv").write_text("question,answer,key\n1+1=,2.0,007\n2+2=,04,07\n")
    columns = Columns(reference="answer", id="key")
    found = run(plan(tmp_path, members=("adder",), columns=columns), tmp_path / "q.csv")
    assert found.queries["query_id"].to_pylist() == ["007", "07"]
    assert (found.column("reference"), found.dense().means[0]) == (("2.0", "04"), 1)


def test_questions_have_names_made_of_what_is_asked_or_of_a_column(tmp_path: Path, answerers: Answerers) -> None:
    file = written(tmp_path, [{"question": "1+1=", "answer": 2, "key": 7}])
    one = run(plan(tmp_path, columns=Columns(reference="answer")), file)
    other = run(plan(tmp_path, output=tmp_path / "b", columns=Columns(reference="answer", id="key")), file)
    assert len(one.queries["query_id"][0].as_py()) == 16
    assert other.queries["query_id"].to_pylist() == ["7"]
    assert other.column("reference") == ("2",)


def test_conversations_are_asked_and_known_by_their_last_question(tmp_path: Path, answerers: Answerers) -> None:
    answerers.answer = lambda member, value: str(value[-1]["content"])
    turns = [{"role": "system", "content": "add"}, {"role": "user", "content": "3+3="}]
    file = written(tmp_path, [{"talk": turns, "answer": "3+3="}])
    columns = Columns(Subject("messages", "talk"), reference="answer")
    found = run(plan(tmp_path, columns=columns), file, "exact")
    assert found.column("text") == ("3+3=",)
    assert found.dense().quality.tolist() == [[1, 1]]


def test_csv_and_parquet_are_read_alike(tmp_path: Path, answerers: Answerers) -> None:
    rows = pa.Table.from_pylist(ROWS)
    pq.write_table(rows, tmp_path / "q.parquet")
    pyarrow.csv.write_csv(rows, tmp_path / "q.csv")
    found = [run(plan(tmp_path), tmp_path / name) for name in ("q.parquet", "q.csv")]
    assert found[0].queries.equals(found[1].queries)
    assert len(answerers.asked) == 12


def test_a_strategy_goes_before_the_question_of_its_members(tmp_path: Path, answerers: Answerers) -> None:
    answerers.answer = lambda member, question: question
    members = ("adder", "adder|brief", "gac|brief")
    file = written(tmp_path, ROWS[:2])
    found = run(plan(tmp_path, members=members, strategies={"brief": "Be brief. "}), file)
    # Who reads the same file takes turns within a row.
    assert answerers.asked[:3] == [("adder", "0+0="), ("adder", "Be brief. 0+0="), ("gac", "Be brief. 0+0=")]
    assert [name for name, _ in answerers.asked[3:]] == ["adder", "adder", "gac"]
    assert (found.names, found.column("text")) == (members, ("0+0=", "1+1="))
    np.testing.assert_array_equal(found.dense().prices[:, 0], [1e-6, 1e-6, np.nan])


@pytest.mark.parametrize("as_text", [False, True])
def test_a_strategy_goes_before_the_last_message_of_the_user(
    tmp_path: Path, answerers: Answerers, as_text: bool
) -> None:
    answerers.answer = lambda member, value: str(value)
    turns = [{"role": r, "content": c} for r, c in (("user", "1"), ("assistant", "2"), ("user", "3"))]
    file = written(tmp_path, [{"talk": json.dumps(turns) if as_text else turns}])
    columns = Columns(Subject("messages", "talk"))
    brief = plan(tmp_path, members=("adder|brief",), strategies={"brief": "B "}, columns=columns)
    run(brief, file, "judge:sums")
    ((_, asked),) = answerers.asked
    found = json.loads(asked) if as_text else asked
    assert [turn["content"] for turn in found] == ["1", "2", "B 3"]


def command(folder: Path, *arguments: str, rows: list[dict[str, Any]] = ROWS) -> Result:
    given = {"--input": str(written(folder, rows)), "--output": str(folder / "out"), "--members": "adder,words"}
    given |= {"--grade": "number", "--address": "127.0.0.1:1"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    return CliRunner().invoke(collect, [str(SERVICE), *(part for pair in given.items() for part in pair)])


def test_the_command_tells_what_it_collected(tmp_path: Path, answerers: Answerers) -> None:
    result = command(tmp_path, "--task-column", "kind")
    assert result.exit_code == 0, result.output
    words = next(line.split() for line in result.stdout.splitlines() if line.startswith("words"))
    assert words == ["words", "6", "1", "0.6", "-", "4", "0.25"]
    assert f"6 queries, 12 outcomes in {tmp_path / 'out'}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--members", "adder,wrods"), "no model or ensemble is named 'wrods'; there are: gac"),
        (("--members", " , "), "name the members to ask; there are: adder"),
        (("--samples", "2"), "several samples of a greedy answer are the same; give a temperature above 0"),
        (
            ("--grade", "fuzzy"),
            "unknown grade 'fuzzy'; allowed: exact, number, choice, last-line, regex:PATTERN, judge:",
        ),
        (("--grade", "regex:a"), "the pattern of --grade regex:a cannot be used"),
        (("--grade", "judge:sum"), "the configuration has no judge 'sum'; it has: sums, verifier"),
        (("--grade", "python:nowhere"), "--grade python:nowhere must be python:MODULE:FUNCTION"),
        (("--grade", "python:no_such_module:f"), "--grade python:no_such_module:f cannot be imported"),
        (("--grade", "python:json:nothing"), "cannot be imported: AttributeError: "),
        (("--grade", "python:math:pi"), "--grade python:math:pi is no function, but of type float"),
        (("--answer-column", "key"), "has no column 'key'; it has: question, answer, kind"),
        (("--question-column", "q"), "has no column 'q'"),
        (("--id-column", "kind"), "rows 0 and 2 of"),
        (
            ("--input", "q.txt"),
            "q.txt: unknown format; a file name must end with one of: .parquet, .jsonl, .jsonl.gz, .csv",
        ),
        (("--output", "tests"), "tests holds what is no collection's; give a new or empty folder"),
        (("--top-p", "2"), "top_p must be"),
        (("--members", "adder|brief"), "no strategy is named 'brief'; there are: none"),
        (("--strategy", "brief=Be brief."), "no member is asked by the strategy 'brief'; name one MEMBER|brief"),
        (("--strategy", "brief"), "--strategy brief must be NAME=TEXT, each NAME once"),
    ],
)
def test_refused(tmp_path: Path, answerers: Answerers, arguments: tuple[str, ...], told: str) -> None:
    result = command(tmp_path, *arguments)
    assert (result.exit_code, answerers.asked) == (2, []), result.output
    assert told in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "holds no questions"),
        ([{"question": "", "answer": "1"}], "row 0 of"),
        ([{"question": "a", "answer": "1"}, {"question": "a", "answer": "1"}], "rows 0 and 1 of"),
        ([{"question": "a", "answer": None}], "question 0 has none; name their column with --answer-column"),
        ([{"question": "a", "answer": "one"}], "the answer 'one' cannot be read by --grade number"),
        ([{"question": "a", "answer": ["1"]}], "column 'answer': must be text or a number"),
    ],
)
def test_questions_that_cannot_be_used_are_refused(
    tmp_path: Path, answerers: Answerers, rows: list[dict[str, Any]], told: str
) -> None:
    result = command(tmp_path, rows=rows)
    assert (result.exit_code, answerers.asked) == (2, []), result.output
    assert told in " ".join(result.output.split())


def test_other_questions_in_the_same_folder_are_refused(tmp_path: Path, answerers: Answerers) -> None:
    run(plan(tmp_path), written(tmp_path, ROWS))
    with pytest.raises(BadRequest, match="holds another job, with a different input"):
        run(plan(tmp_path), written(tmp_path, ROWS[:3]))
    # What is right may be put right.
    changed = [{**row, "answer": "0"} for row in ROWS]
    assert run(plan(tmp_path), written(tmp_path, changed)).dense().means[0] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("def f(question, text, reference): return 1 / 0", "failed on query .*: ZeroDivisionError"),
        ("def f(question, text, reference): return 3", "gave 3 for query .*; allowed: 0 to 1"),
        ("def f(question): return 1", "failed on query .*: TypeError"),
    ],
)
def test_a_function_that_fails_loses_no_answer(
    tmp_path: Path, answerers: Answerers, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    module = f"grade{abs(hash(body))}"
    (tmp_path / f"{module}.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, ROWS)
    with pytest.raises(BadRequest, match=told):
        run(plan(tmp_path), file, f"python:{module}:f")
    assert run(plan(tmp_path), file).dense().means[0] == 1
    assert len(answerers.asked) == 12


def test_an_answer_on_which_a_pattern_is_too_slow_is_named() -> None:
    queries = [{"query_id": name, "text": name, "reference": "aac"} for name in "xy"]
    graded = notion("regex:((?:a|a)+)c", queries).graded
    assert graded is not None and graded(queries[1], "aac") == 1
    with pytest.raises(BadRequest, match=r"question 1: the pattern .* is still at a text"):
        graded(queries[1], "a" * 40 + "b")
    with pytest.raises(BadRequest, match=r"question 0: the pattern .* is still at a text"):
        notion("regex:((?:a|a)+)c", [{**queries[0], "reference": "a" * 40 + "b"}])


def test_grades_agree_with_those_of_an_evaluation(tmp_path: Path, answerers: Answerers) -> None:
    found = run(plan(tmp_path), written(tmp_path, ROWS))
    number = grade("number")
    right = {row["question"]: number.expected(row["answer"]) for row in ROWS}
    texts = dict(zip(found.queries["query_id"].to_pylist(), found.column("text"), strict=True))
    for cell in found.cells.to_pylist():
        if cell["response"] is not None:
            assert cell["quality"] == number.right(cell["response"], right[texts[cell["query_id"]]])


def test_a_module_that_cannot_be_imported_is_told_before_anybody_is_asked(
    tmp_path: Path, answerers: Answerers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brokengrade.py").write_text("raise RuntimeError('no data here')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="brokengrade:f cannot be imported: RuntimeError: no data here"):
        run(plan(tmp_path), written(tmp_path, ROWS), "python:brokengrade:f")
    assert answerers.asked == []
