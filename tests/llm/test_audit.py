"""The audit log: nothing changed unseen, nothing lost among many writers, and no text in it."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

import esa_notebooks.llm.audit as module
from esa_notebooks.llm.audit import Audit, AuditError, check, fingerprint, head
from esa_notebooks.llm.policy import read_policy

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path):
    audit = Audit(tmp_path / "llm" / "audit.jsonl")
    for n in range(6):
        audit.append(at=NOON, event="admitted", team="a", tokens=n, text_sha="é\n\u2028")
    return audit


def lines(audit):
    return audit.path.read_bytes().splitlines(keepends=True)


def put(audit, changed):
    audit.path.write_bytes(b"".join(changed))


def test_a_whole_log_is_whole(log, tmp_path):
    assert check(log.path) == [] and head(log.path)[0] == 6
    assert check(tmp_path / "none.jsonl") == [] and head(tmp_path / "none.jsonl") is None
    assert [json.loads(line)["n"] for line in lines(log)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("place", range(6))
def test_every_changed_byte_of_a_line_is_noticed_there(log, place):
    """The first complaint names the line that was changed, whichever of its bytes it was."""
    whole = lines(log)
    for at in range(0, len(whole[place]) - 1, 7):
        changed = bytearray(whole[place])
        changed[at] ^= 1
        put(log, [*whole[:place], bytes(changed), *whole[place + 1 :]])
        first = check(log.path)[0]
        assert f"line {place + 1} " in first or changed[at] == 10, (at, first)


def test_removed_swapped_doubled_and_foreign_lines(log):
    whole = lines(log)
    for changed, says in (
        ([*whole[:2], *whole[3:]], "line 3 does not follow line 2"),
        ([whole[1], whole[0], *whole[2:]], "line 1 does not follow line 0"),
        ([*whole[:3], whole[2], *whole[3:]], "line 4 does not follow line 3"),
        ([*whole[:3], b"\n", *whole[3:]], "line 4 is no entry"),
        ([*whole[:3], b"[1]\n", *whole[3:]], "line 4 is no entry"),
        ([*whole[:3], b"\xff\xfe\n", *whole[3:]], "line 4 is no entry"),
        ([*whole[:3], b'{"hash": "x"}\n', *whole[3:]], "line 4 is no entry"),
        ([*whole[:3], b"[" * 100_000 + b"\n", *whole[3:]], "line 4 is no entry"),
        (whole[1:], "line 1 does not follow line 0"),
    ):
        put(log, changed)
        assert says in check(log.path)[0]


def test_a_log_cut_off_is_noticed_and_not_continued(log):
    whole = lines(log)
    for left in (5, 3, 0):
        put(log, whole[:left])
        assert "ends before line 6" in check(log.path)[0]
        with pytest.raises(AuditError, match="truncated"):
            log.append(event="admitted")
    log.path.unlink()
    assert "ends before line 6" in check(log.path)[0]
    with pytest.raises(AuditError, match="truncated"):
        log.append(event="admitted")


def test_who_writes_both_files_is_caught_only_by_a_hash_kept_elsewhere(log):
    kept = head(log.path)
    forged = Audit(log.path.with_name("forged.jsonl"))
    for n in range(8):
        forged.append(at=NOON, event="admitted", team="b", tokens=n)
    os.replace(forged.path, log.path)
    os.replace(forged.path.with_name("forged.jsonl.head"), log.path.with_name("audit.jsonl.head"))
    assert check(log.path) == [], "as documented: without it, nothing can be seen"
    assert (
        check(log.path, kept)[0]
        == "line 6 is not the one of which the hash that was kept elsewhere tells: the log was written anew"
    )


def test_an_altered_last_line_stops_the_log(log):
    whole = lines(log)
    put(log, [*whole[:5], whole[5].replace(b'"tokens": 5', b'"tokens": 0')])
    with pytest.raises(AuditError, match="last line was altered"):
        log.append(event="admitted")


def test_a_torn_last_line_is_set_aside_and_said(log):
    whole = lines(log)
    put(log, [*whole, b'{"event": "adm'])
    assert "never finished" in check(log.path)[0]
    assert log.append(event="admitted", at=NOON)["n"] == 8
    note = json.loads(lines(log)[6])
    assert note["event"] == "mended" and "14 bytes" in note["what"] and check(log.path) == []
    assert log.path.with_name("audit.jsonl.torn").read_bytes() == b'{"event": "adm\n'


def test_a_lost_head_is_said_in_the_log(log):
    log.path.with_name("audit.jsonl.head").unlink()
    assert "cannot be said" in check(log.path)[0]
    log.append(event="admitted")
    assert "head was missing" in lines(log)[6].decode() and check(log.path) == [] and head(log.path)[0] == 8
    log.path.with_name("audit.jsonl.head").write_text("six")
    with pytest.raises(AuditError, match="altered"):
        log.append(event="admitted")


def test_a_long_line_is_found_from_behind(tmp_path):
    audit = Audit(tmp_path / "audit.jsonl")
    for size in (1, 200_000, 1, 70_000, 8192, 8191):
        audit.append(event="x", note="é" * size)
    assert check(audit.path) == [] and head(audit.path)[0] == 6


def test_no_text_unless_the_policy_says_so(tmp_path):
    asked = [{"role": "user", "content": "When does the next pass begin? \ud800"}]
    quiet, told = Audit(tmp_path / "quiet.jsonl"), Audit(tmp_path / "told.jsonl", prompts=True)
    entry = quiet.append(event="refused", messages=asked)
    assert (entry["prompt_sha256"], entry["prompt_bytes"]) == fingerprint(
        asked
    ) and "next pass" not in quiet.path.read_text()
    assert json.loads(told.append(event="refused", messages=asked)["prompt"]) == asked
    assert check(quiet.path) == check(told.path) == []


def test_the_policy_decides_and_its_hash_is_in_every_line(tmp_path):
    policy = read_policy(ROOT / "governance" / "policy.yaml")
    audit = Audit.of(policy, tmp_path / "audit.jsonl")
    assert audit.append(event="x")["policy"] == policy.sha256 and not audit.prompts and audit.sync_every == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "k"},
        {"text": "t"},
        {"content": "c"},
        {"prompt": "p"},
        {"n": 1},
        {"hash": "h"},
        {"before": "b"},
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": object()},
        {"value": "\ud800"},
    ],
)
def test_what_a_log_must_not_hold_leaves_it_as_it_was(log, fields):
    before = log.path.read_bytes()
    with pytest.raises(AuditError):
        log.append(event="x", **fields)
    assert log.path.read_bytes() == before
    with pytest.raises(AuditError, match="no zone"):
        log.append(event="x", at=datetime(2027, 3, 1))


def test_a_full_disk_leaves_no_half_line(log, monkeypatch):
    before, real = log.path.read_bytes(), os.write

    def full(file, data):
        if len(data) > 20:
            return real(file, data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", lambda file, data: full(file, data[:20] if len(data) > 30 else data))
    with pytest.raises(OSError, match="No space"):
        log.append(event="x")
    monkeypatch.undo()
    assert log.path.read_bytes() == before and log.append(event="x")["n"] == 7


def test_lines_are_on_the_disk_before_their_head_tells_of_them(tmp_path, monkeypatch):
    """With `sync_every`, the head lags; it never runs ahead, or a loss of power would look like a truncation."""
    audit, synced = Audit(tmp_path / "audit.jsonl", sync_every=3), []
    monkeypatch.setattr(module.os, "fsync", lambda file: synced.append(audit.path.read_bytes().count(b"\n")))
    heads = []
    for _ in range(7):
        audit.append(event="x")
        heads.append(head(audit.path)[0])
    assert synced == [1, 4, 7] and heads == [1, 1, 1, 4, 4, 4, 7]  # the first line gets its head at once
    audit.append(event="x")
    audit.sync()
    assert head(audit.path)[0] == audit.path.read_bytes().count(b"\n")
    assert check(audit.path) == []


def test_files_are_for_their_owner_only(log):
    assert {oct(p.stat().st_mode & 0o777) for p in log.path.parent.iterdir()} == {"0o600"}


WRITE = """
import sys
from esa_notebooks.llm.audit import Audit
from concurrent.futures import ThreadPoolExecutor
audit = Audit({path!r}, sync_every={every})
with ThreadPoolExecutor(50) as threads:
    list(threads.map(lambda n: audit.append(event="x", writer=f"{{sys.argv[1]}}-{{n}}", note="n" * 300), range(100)))
"""


def test_two_hundred_writers_leave_a_whole_chain(tmp_path):
    """Four processes with fifty threads each; every line is there once, and one process is killed on the way."""
    path = tmp_path / "audit.jsonl"
    script = WRITE.format(path=str(path), every=25)
    ran = [subprocess.Popen([sys.executable, "-c", script, str(n)]) for n in range(4)]
    assert [p.wait(timeout=120) for p in ran] == [0] * 4
    assert check(path) == []
    writers = [json.loads(line).get("writer") for line in path.read_bytes().splitlines()]
    assert len(writers) == 400 + writers.count(None) and set(writers) - {None} == {
        f"{p}-{n}" for p in range(4) for n in range(100)
    }


def test_killed_while_writing(tmp_path):
    """kill -9 at any moment: what was finished stands, and the next writer goes on."""
    path = tmp_path / "audit.jsonl"
    script = WRITE.format(path=str(path), every=1).replace("range(100)", "range(100000)")
    for _ in range(2):
        ran = subprocess.Popen([sys.executable, "-c", script, "0"])
        while ran.poll() is None and (not path.exists() or path.stat().st_size < 20_000):
            pass
        ran.kill()
        ran.wait()
        Audit(path).append(event="after")
        assert check(path) == []
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: Audit(path).append(event="x", n_=n), range(20)))
    assert check(path) == []
