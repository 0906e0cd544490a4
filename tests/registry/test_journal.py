"""The journal: chains that were altered, lines that were never finished, disks that are full, many writers."""

import errno
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from esa_notebooks.registry import journal
from esa_notebooks.registry.journal import JournalError, append, check, in_production, read, stamp, timeline

BY = "ada@example.org"
NIGHT = datetime(2026, 3, 1, 22, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "registry" / journal.FILE
    for n, event in enumerate(["challenger", "champion", "challenger", "champion", "rolled_back"]):
        append(file, event, BY, at=NIGHT + timedelta(hours=n), model="thermal", version=str(n // 2 + 1))
    return file


@pytest.mark.parametrize("line", range(6))
@pytest.mark.parametrize("field, value", [("by", "eve@example.org"), ("version", "9"), ("at", "2026-01-01T00:00:00Z")])
def test_every_altered_line_is_named_and_stops_writing(path, line, field, value):
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    lines[line][field] = value
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert [f"entry {line + 1} (" in c for c in check(read(path))] == [True]
    before = path.read_bytes()
    with pytest.raises(JournalError, match=f"altered: entry {line + 1}"):
        append(path, "alarm", BY, model="thermal")
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", range(5))
def test_a_removed_and_an_inserted_and_an_exchanged_line(path, line):
    lines = path.read_text().splitlines(keepends=True)
    for changed in (
        lines[:line] + lines[line + 1 :],
        lines[: line + 1] + lines[line:],
        lines[:line] + [lines[line + 1], lines[line]] + lines[line + 2 :],
    ):
        path.write_text("".join(changed))
        assert check(read(path))


def test_a_rewritten_entry_with_its_own_hash_is_found_by_the_next(path):
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    lines[2]["version"] = "9"
    lines[2]["hash"] = journal.Entry(**lines[2]).computed()
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    (complaint,) = check(read(path))
    assert complaint.startswith("entry 4 follows another entry")


@pytest.mark.parametrize("cut", [1, 10, 100, -1])
def test_a_torn_last_line_is_set_aside_and_said(path, cut):
    whole = path.read_bytes()
    line = whole.splitlines()[-1]
    path.write_bytes(whole + line[:cut])
    assert len(read(path)) == 6 and check(read(path)) == []
    append(path, "alarm", BY, model="thermal")
    entries = read(path)
    assert [e.event for e in entries[-2:]] == ["settled", "alarm"] and f"{len(line[:cut])} bytes" in entries[-2].reason
    assert check(entries) == [] and path.with_name(path.name + ".torn").read_bytes() == line[:cut] + b"\n"


@pytest.mark.parametrize("text", ["not json", "[]", '{"n": 1}', '{"n": NaN}', "[" * 100000])
def test_a_line_that_is_no_entry(path, text):
    path.write_text(text + "\n" + path.read_text())
    with pytest.raises(JournalError, match="Line 1 .* is no entry"):
        read(path)


def test_a_full_disk_leaves_the_journal_as_it_was(path, monkeypatch):
    before, real, fits = path.read_bytes(), os.write, [50]

    def full(file, data):
        if not fits:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: fits.pop()])  # some of it fits

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.raises(OSError, match="No space left") as told:
        append(path, "alarm", BY, model="thermal")
    monkeypatch.undo()
    assert path.read_bytes() == before and told.value.filename == str(path)


@pytest.mark.parametrize(
    "event, by, told, said",
    [
        ("championn", BY, {}, "Did you mean `champion`"),
        ("alarm", "", {}, "Say who"),
        ("alarm", BY, {"modell": "x"}, "Did you mean `model`"),
        ("alarm", BY, {"hash": "0"}, "no field `hash`"),
        ("alarm", BY, {"details": {"x": float("nan")}}, "finite"),
        ("alarm", BY, {"at": datetime(2026, 1, 1)}, "no zone"),  # noqa: DTZ001
    ],
)
def test_what_is_no_entry_is_not_written(path, event, by, told, said):
    before = path.read_bytes()
    with pytest.raises(JournalError, match=said):
        append(path, event, by, **told)
    assert path.read_bytes() == before


def test_many_writers_make_one_chain(tmp_path):
    path, pids = tmp_path / journal.FILE, []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(10):
                    append(path, "alarm", f"{n}@example.org")
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    assert len(read(path)) == 41 and check(read(path)) == []


def test_what_was_in_production_when(path):
    entries = read(path)
    assert in_production(entries, "thermal", NIGHT) is None and in_production(entries, "other") is None
    assert in_production(entries, "thermal", NIGHT + timedelta(hours=1)) == "1"
    assert in_production(entries, "thermal", NIGHT + timedelta(hours=3, minutes=59)) == "2"
    told = timeline(entries, "thermal")
    assert told["to"].tolist() == [*told["from"].tolist()[1:], None] and told.version.tolist() == ["1", "2", "3"]
    assert timeline([], "thermal").empty and stamp(NIGHT) == "2026-03-01T22:00:00Z"


def test_no_journal_is_an_empty_one(tmp_path):
    assert read(tmp_path / "nothing.jsonl") == [] and check([]) == []
