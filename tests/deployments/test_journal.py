"""The journal of feedback: what is acknowledged is there, whatever happens to who writes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deployments import journal as journals
from deployments import segments
from deployments.given import Kept, OtherFeedback
from deployments.journal import Journal, records, routes_path
from ensemble.errors import ConfigurationError


def preference(winner: str, loser: str, **given: Any) -> dict[str, Any]:
    shared = {"kind": "preference", "ensemble": "r", "question": "q", "id": "x", "choice": 0}
    return {**shared, "winner": winner, "loser": loser, "tie": False, **given}


def outcome(member: str = "a", quality: float = 1.0, **given: Any) -> dict[str, Any]:
    return {"kind": "outcome", "ensemble": "r", "question": "q", "member": member, "quality": quality, **given}


def route(id: str, choice: int = 0) -> dict[str, Any]:
    return {"kind": "route", "ensemble": "r", "id": id, "choice": choice, "question": f"of {id}", "member": "a"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "said.jsonl"


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    first = Journal(path)
    assert first.append([outcome(), outcome()]) == [Kept(1), Kept(2)]
    first.note([route("x")])
    first.close()
    second = Journal(path)
    assert second.last == 2 and second.append([outcome()]) == [Kept(3)]
    assert second.route("r", "x", 0) == route("x") and second.route("r", "x", 1) is None
    assert [record["sequence"] for record in records(path)] == [1, 2, 3]


def test_since_tells_pages_of_one_ensemble(path: Path) -> None:
    journal = Journal(path)
    journal.append([outcome(str(i)) | {"ensemble": "rs"[i % 2]} for i in range(7)])
    assert [r["member"] for r in journal.since(0, "r")[0]] == ["0", "2", "4", "6"]
    rows, through = journal.since(0, "s", page=3)
    assert ([row["sequence"] for row in rows], through) == ([2], 3)
    rows, through = journal.since(through, "s", page=100)
    assert ([row["sequence"] for row in rows], through) == ([4, 6], 7)
    assert journal.since(7, "s") == ([], 7)


@pytest.mark.parametrize("torn", ['{"kind": "outc', '{"kind": "outcome", "ensemble": "r", "sequence": 3}', "\0\0"])
def test_a_torn_line_is_cut_off(path: Path, torn: str) -> None:
    journal = Journal(path)
    journal.append([outcome(), outcome()])
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode())
    again = Journal(path)
    assert path.read_bytes() == whole
    assert again.append([outcome()]) == [Kept(3)]
    assert [record["sequence"] for record in records(path)] == [1, 2, 3]


def test_a_broken_line_in_the_middle_takes_nothing_else_with_it(path: Path) -> None:
    journal = Journal(path)
    journal.append([outcome(), outcome(), outcome()])
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"#" * (len(lines[1]) - 1) + b"\n" + lines[2])
    again = Journal(path)
    assert [row["sequence"] for row in again.since(0, "r")[0]] == [1, 3] and again.last == 3


def test_what_is_sent_twice_counts_once(path: Path) -> None:
    journal = Journal(path)
    same = outcome(id="x", choice=0)
    assert journal.append([same, same]) == [Kept(1), Kept(1, duplicate=True)]
    assert journal.append([outcome(id="x", choice=1), outcome("b", id="x", choice=0)]) == [Kept(2), Kept(3)]
    keyed = outcome(id=None, key="k")
    assert journal.append([keyed, keyed]) == [Kept(4), Kept(4, duplicate=True)]
    journal.close()
    again = Journal(path)
    assert again.append([same, keyed]) == [Kept(1, duplicate=True), Kept(4, duplicate=True)]
    assert again.append([outcome(), outcome()]) == [Kept(5), Kept(6)]


def test_another_judgement_under_the_same_key_is_refused(path: Path) -> None:
    journal = Journal(path)
    (kept, other) = journal.append([outcome(id="x"), outcome(id="x", quality=0.5)])
    assert kept == Kept(1) and isinstance(other, OtherFeedback) and other.status == 409
    assert journal.last == 1


def test_a_pair_of_members_is_judged_once(path: Path) -> None:
    journal = Journal(path)
    first, again, turned, tie = journal.append(
        [preference("a", "b"), preference("a", "b"), preference("b", "a"), preference("a", "b", tie=True)]
    )
    assert (first, again) == (Kept(1), Kept(1, duplicate=True))
    assert isinstance(turned, OtherFeedback) and isinstance(tie, OtherFeedback)
    ties = [preference("a", "b", id="y", tie=True), preference("b", "a", id="y", tie=True)]
    assert journal.append(ties) == [Kept(2), Kept(2, duplicate=True)]


def test_the_latest_answers_are_known(path: Path) -> None:
    journal = Journal(path, routes=2)
    journal.note([route(id) for id in "xyz"])
    assert [journal.route("r", id, 0) is not None for id in "xyz"] == [False, True, True]


def test_one_process_alone_writes(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(BlockingIOError):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        Journal(tmp_path / "file" / "said.jsonl")


def test_a_write_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.append([outcome()])

    def full(file: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(segments.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        journal.append([outcome("lost")])
    monkeypatch.undo()
    assert journal.append([outcome("b")]) == [Kept(2)]
    assert [record["member"] for record in records(path)] == ["a", "b"]


def test_what_is_left_of_a_failed_write_takes_nothing_with_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)

    def fails(*_: Any) -> None:
        raise OSError(5, "input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(segments.os, "fsync", fails)
        broken.setattr(segments.os, "ftruncate", fails)
        with pytest.raises(OSError, match="input/output"):
            journal.append([outcome("lost")])
    assert journal.append([outcome("b")]) == [Kept(1)]
    assert [record["member"] for record in records(path)] == ["b"]
    assert journal.since(0, "r")[0][0]["member"] == "b"


def test_files_are_of_bounded_size_and_read_in_order(path: Path) -> None:
    journal = Journal(path, full=1000)
    for i in range(30):
        assert journal.append([outcome(str(i), id=str(i))]) == [Kept(i + 1)]
    names = [file.name for file in segments.files(path)]
    assert names[:3] == ["said.jsonl", "said.000002.jsonl", "said.000003.jsonl"] and len(names) == 3
    assert all(file.stat().st_size < 1200 for file in segments.files(path))
    journal.close()
    again = Journal(path, full=1000)
    assert [row["member"] for row in again.since(0, "r")[0]] == [str(i) for i in range(30)]
    assert again.append([outcome("0", id="0"), outcome("30")]) == [Kept(1, duplicate=True), Kept(31)]
    assert [record["sequence"] for record in records(path)] == list(range(1, 32))


def test_a_line_that_is_torn_in_a_later_file_is_cut_off(path: Path) -> None:
    journal = Journal(path, full=300)
    journal.append([outcome(str(i)) for i in range(5)])
    journal.append([outcome("5")])
    journal.close()
    last = segments.files(path)[-1]
    assert last != path
    whole = last.read_bytes()
    last.write_bytes(whole + b'{"kind": "outc')
    assert Journal(path, full=300).append([outcome()]) == [Kept(7)]
    assert last.read_bytes().startswith(whole)
    assert [record["sequence"] for record in records(path)] == list(range(1, 8))


def test_answers_that_nobody_can_name_any_more_take_no_room(path: Path) -> None:
    journal = Journal(path, routes=10, full=500)
    for i in range(200):
        journal.note([route(str(i))])
    assert [journal.route("r", str(i), 0) is not None for i in (0, 189, 190, 199)] == [False, False, True, True]
    kept = segments.files(routes_path(path))
    assert len(kept) <= 4 and sum(file.stat().st_size for file in kept) < 2500
    journal.close()
    again = Journal(path, routes=10, full=500)
    again.note([route("200")])
    assert [again.route("r", str(i), 0) is not None for i in (190, 191, 200)] == [False, True, True]


def test_a_journal_of_one_file_with_answers_in_it_is_read(path: Path) -> None:
    path.parent.mkdir()
    old = [route("x"), {**outcome(id="x", choice=0), "sequence": 1}, route("y")]
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    journal = Journal(path)
    assert journal.last == 1 and journal.route("r", "y", 0) == route("y")
    assert journal.append([outcome(id="x", choice=0), outcome()]) == [Kept(1, duplicate=True), Kept(2)]
    journal.note([route("z")])
    assert [journal.route("r", id, 0) is not None for id in "xyz"] == [True] * 3


def test_a_record_that_lacks_something_stops_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_text('{"kind": "outcome"}\n{"kind": "route"}\n[]\n' + json.dumps({**outcome(), "sequence": 4}) + "\n")
    journal = Journal(path)
    assert journal.append([outcome()]) == [Kept(5)]
    assert caplog.text.count("left out") == 3


def test_a_file_that_has_become_shorter_is_told(path: Path) -> None:
    journal = Journal(path)
    journal.append([outcome()])
    os.truncate(path, 20)
    with pytest.raises(OSError, match="shorter"):
        journal.since(0, "r")


def test_pages_are_of_bounded_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.append([outcome(question="q" * 10_000) for _ in range(20)])
    monkeypatch.setattr(journals, "_PAGE_BYTES", 35_000)
    rows, through = journal.since(0, "r")
    assert ([row["sequence"] for row in rows], through) == ([1, 2, 3, 4], 4)
    monkeypatch.setattr(journals, "_PAGE_BYTES", 10)
    assert journal.since(4, "r")[1] == 5


def test_who_has_heard_more_than_there_is_is_told(path: Path) -> None:
    journal = Journal(path)
    journal.append([outcome(), outcome()])
    assert journal.since(9, "r") == ([], 2)


WRITER = """
import sys
from pathlib import Path
from deployments.journal import Journal
journal = Journal(Path(sys.argv[1]))
while True:
    (kept,) = journal.append([dict(kind="outcome", ensemble="r", question="q" * 500, member="a", quality=1.0)])
    print(kept.sequence, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_that_it_has_acknowledged(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        time.sleep(0.3)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = [1, *(int(line) for line in writer.stdout if line.endswith("\n"))]
    journal = Journal(path)
    kept = [row["sequence"] for row in journal.since(0, "r", page=10**6)[0]]
    assert len(acknowledged) > 5
    assert kept[: len(acknowledged)] == acknowledged and len(kept) <= len(acknowledged) + 1
