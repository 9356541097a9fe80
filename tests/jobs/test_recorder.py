from __future__ import annotations

import asyncio

import pytest
from filelock import FileLock

from ensemble.errors import ConfigurationError
from jobs import recorder
from jobs.journal import Index, files
from jobs.recorder import Counts, Recorder, Recorders


async def test_what_is_appended_is_on_disk(tmp_path):
    first = Recorder(tmp_path, 4)
    await first.append({"row": 2})
    assert Index(tmp_path, 4).done.tolist() == [False, False, True, False]
    await first.append({"row": 1, "error": {"code": "x"}})
    assert await first.counts() == Counts(4, 2, 1, 0)
    await first.close()
    second = Recorder(tmp_path, 4)
    assert await second.missing([0, 1, 2, 3]) == [0, 3]
    await second.append({"row": 0})
    assert await second.counts() == Counts(rows=4, done=3, failed=1, resumed=2)


async def test_records_that_come_together_go_to_disk_together(tmp_path):
    one = Recorder(tmp_path, 100)
    writes: list[int] = []
    write = one._writer.write
    one._writer.write = lambda records: (writes.append(len(records)), write(records))[1]  # type: ignore[method-assign]
    await asyncio.gather(*(one.append({"row": row}) for row in range(100)))
    assert (sum(writes), len(writes) < 10) == (100, True)
    assert Index(tmp_path, 100).done.all()


async def test_a_row_is_written_once(tmp_path):
    one = Recorder(tmp_path, 3)
    await asyncio.gather(*(one.append({"row": 0, "text": str(i)}) for i in range(3)), one.append({"row": 1}))
    await one.append({"row": 0, "text": "late", "error": {"code": "x"}})
    assert len(files(tmp_path)[0].read_text().splitlines()) == 2
    assert await one.counts() == Counts(3, 2, 0)
    await one.append({"row": 2})
    assert next(Index(tmp_path, 3).records()) == {"row": 0, "text": "0"}


async def test_a_full_disk_ends_it_for_good(tmp_path):
    one = Recorder(tmp_path, 3)
    write = one._writer.write

    def full(records):
        one._writer._file.write(b'{"row": 0, "te')
        raise OSError(28, "No space left on device")

    one._writer.write = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space left"):
        await one.append({"row": 0})
    one._writer.write = write  # type: ignore[method-assign]
    # A further line would be glued to the torn one.
    with pytest.raises(OSError, match="No space left"):
        await one.append({"row": 1})
    await one.close()
    assert not Index(tmp_path, 3).done.any()


async def test_only_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "_PREDECESSOR", 0.05)
    with FileLock(tmp_path / "recorder.lock"), pytest.raises(ConfigurationError, match="another run still writes here"):
        Recorder(tmp_path, 1)
    assert await Recorder(tmp_path, 1).missing([0]) == [0]


async def test_recorders_of_several_jobs_keep_them_apart_and_count_them_together(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    before = Recorder(folders[1], 3)
    await before.append({"row": 2})
    await before.close()
    both = Recorders([(folders[0], 2), (folders[1], 3)])
    await both.append(0, {"row": 1, "error": {"code": "x"}})
    await both.append(1, {"row": 1})
    assert (await both.missing(0, [0, 1]), await both.missing(1, [0, 1, 2])) == ([0], [0])
    assert await both.counts() == Counts(rows=5, done=3, failed=1, resumed=1)
    await both.close()
    assert await Recorder(folders[0], 2).missing([0, 1]) == [0]
