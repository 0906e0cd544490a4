"""The view of a workflow at work: what state files say, what is made of them, how it looks, and all that goes wrong."""
import dataclasses
import fcntl
import io
import itertools
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from esa_notebooks.runs import follow, notices, status
from esa_notebooks.runs.execution import execute
from esa_notebooks.runs.follow import Follower, stuck, tally
from esa_notebooks.runs.forecast import Durations, Job, remaining
from esa_notebooks.runs.notices import Notices, State, lost, plain, read_state
from esa_notebooks.runs.record import SCHEMA
from esa_notebooks.runs.shelf import Shelf, question
from esa_notebooks.runs.status import StatusRow, status_table, status_text, summary, with_progress
from esa_notebooks.runs.view import picture
from esa_notebooks.runs.watch import Log, Watch
from tests.runs.conftest import ROOT, prose

HOSTILE = "\x1b[2J\x1b]0;owned\x07Gaps \x9b1A[bold red]in[/] \u202eit\r\n\x00\x08 \ud83d"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def job(id: str, *needs: str, **more) -> Job:
    stage, _, name = id.partition("/")
    return Job(id, stage, name, needs, **more)


def path_of(reports: Path, id: str) -> Path:
    return reports / "workflow" / f"{id}.state"


def write(reports: Path, id: str, **fields) -> None:
    """A state file as a runner on another machine would leave it."""
    path = path_of(reports, id)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".beside")
    told = {"job": id, "status": "running", "run_id": "20260101T000000Z-00000000", "started": None, "pid": 7,
            "process": "7", "host": "node07", "boot_id": "b", "pids": "p"} | fields
    beside.write_text(json.dumps(told))
    os.replace(beside, path)


@pytest.fixture
def reports(tmp_path) -> Path:
    return tmp_path / "reports"


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def comes_true(what, within: float = 20) -> bool:
    """Whether `what` becomes true within so many seconds, looked at often."""
    until = time.monotonic() + within
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def whats(events: list) -> list[str]:
    return [e.what for e in events]


# Saying

def test_start_and_end_are_written_at_once_and_the_last_word_soon(reports):
    told = Notices(path_of(reports, "a/b"), every_s=1)
    told.say(run_id="20260101T000000Z-00000000")
    assert read_state(told.path).status == "running"
    told.say(section="one", cells=3)
    told.say(section="two")
    assert read_state(told.path).section == ""
    assert comes_true(lambda: read_state(told.path).section == "two")
    told.say(status="failed")
    state = read_state(told.path)
    assert (state.status, state.job, state.run_id) == ("failed", "a/b", "20260101T000000Z-00000000")
    assert 0.9 < state.duration_s < 20 and state.ended >= state.started
    assert [p.name for p in told.path.parent.iterdir()] == ["b.state"]


def test_a_quiet_job_gives_signs_and_an_ended_one_no_more(reports):
    told = Notices(path_of(reports, "a/b"), sign_s=0.05)
    told.say()
    marks: set = set()
    assert comes_true(lambda: marks.add(notices.mark(told.path)) or len(marks) > 3)
    told.say(status="succeeded")
    last = notices.mark(told.path)
    time.sleep(0.2)
    assert notices.mark(told.path) == last
    assert not [t for t in threading.enumerate() if t.name == "notices" and t._target.__self__ is told]


def test_a_reader_never_sees_half_a_notice(reports):
    told = Notices(path_of(reports, "a/b"), every_s=0)
    told.say(section="x" * 60)
    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(read_state(told.path))
    reader = threading.Thread(target=read)
    reader.start()
    for n in range(400):
        told.say(cells=400, cells_done=n)
        with told._turn:
            told._write()
    stop.set()
    reader.join()
    told.say(status="succeeded")
    assert len(seen) > 10 and None not in seen and len({s.cells_done for s in seen}) > 5


def test_a_job_again_with_the_same_notices_begins_anew(reports):
    told = Notices(path_of(reports, "a/b"))
    told.say()
    told.say(status="failed")
    told.say(status="running")
    state = read_state(told.path)
    assert state.ended is None and state.duration_s is None
    told.say(status="up to date")
    assert read_state(told.path).status == "up to date"


@pytest.mark.parametrize("path", [None, Path("/proc/nowhere/a/b.state"), Path("/dev/full/b.state")])
def test_what_cannot_be_written_stops_nothing(path):
    told = Notices(path)
    for fields in ({}, {"cells": 2}, {"status": "succeeded"}):
        told.say(**fields)
    assert told.fields.get("status") == (None if path is None else "succeeded")


# Reading

@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"[]", b'"running"', b"\xff\xfe\x00", b"[" * 100_000,
    b'{"status": "done"}', b'{"status": ["running"]}', b'{"status": {"running": 1}}',
    b'{"status": "running", "pad": "' + b"x" * 70_000 + b'"}',
], ids=["empty", "half", "null", "list", "text", "binary", "deep", "unknown", "unhashable", "mapping", "huge"])
def test_damaged_files_say_nothing(reports, content):
    follower = Follower([job("a/b")], reports)
    path_of(reports, "a/b").parent.mkdir(parents=True)
    path_of(reports, "a/b").write_bytes(content)
    assert read_state(path_of(reports, "a/b")) is None
    assert follower.poll() == [] and tally(follower)[""]["waiting"] == 1


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p),
                                  lambda p: os.symlink(p, p)], ids=["pipe", "folder", "device", "loop"])
def test_what_is_no_file_is_not_opened(reports, make):
    follower = Follower([job("a/b")], reports)
    path_of(reports, "a/b").parent.mkdir(parents=True)
    make(path_of(reports, "a/b"))
    assert follower.poll() == []


@pytest.mark.parametrize("fields", [
    {"cells": "many", "cells_done": None, "section": 7, "host": [], "pid": "x", "process": 3, "started": 12,
     "duration_s": "1"},
    {"cells": float("nan"), "cells_done": float("inf"), "memory_bytes": -1, "pid": 1e300, "started": "9999-99-99"},
    {"cells": True, "cells_done": 10**400, "started": "0001-01-01T00:00:00+23:59", "ended": "x" * 500},
    {"run_id": "../../../../etc", "job": "../../x"},
    {"cells": 3, "cells_done": 30},
])
def test_fields_of_the_wrong_kind_are_nothing_known(reports, fields):
    follower = Follower([job("a/b", expected_s=5)], reports)
    write(reports, "a/b", **fields)
    assert whats(follower.poll()) == ["started"]
    state = follower.tracks["a/b"].state
    assert 0 <= state.cells_done <= state.cells <= 10 and state.run_id in ("", "20260101T000000Z-00000000")
    assert "about" not in str(picture(follower, 80, 20, 2)[0])
    write(reports, "a/b", status="failed", **fields)
    (ended,) = follower.poll()
    assert ended.what == "failed" and ".." not in ended.detail


def test_strangers_in_the_folder_are_passed_over(reports):
    follower = Follower([job("a/b")], reports)
    for name in ("x.state", ".b.state.9.partial", "b.done", "b.key"):
        (reports / "workflow" / "a").mkdir(parents=True, exist_ok=True)
        (reports / "workflow" / "a" / name).write_text('{"status": "running"}')
    assert follower.poll() == []


def test_what_an_earlier_invocation_left_does_not_count(reports):
    for id, how in (("a/old", "succeeded"), ("a/dead", "running")):
        write(reports, id, status=how)
    follower = Follower([job("a/old"), job("a/dead"), job("a/new")], reports)
    assert follower.poll() == [] and tally(follower)[""]["waiting"] == 3
    write(reports, "a/old", status="succeeded")
    assert whats(follower.poll()) == ["succeeded"]


@given(st.text(max_size=300) | st.text(alphabet="\x1b[]\x07\x9b;0m\u202e\n\r\ta[red]/", max_size=80))
def test_no_text_commands_a_terminal(text):
    shown = plain(text, 60)
    assert not CONTROL.search(shown) and len(shown) <= 60 and "\n" not in shown
    shown.encode("utf-8")


# What happened

def test_a_killed_process_is_noticed_once_and_is_no_success(reports, tmp_path):
    runner = subprocess.Popen([sys.executable, "-c", "import sys, time\n"
                               "from esa_notebooks.runs.notices import Notices\n"
                               "n = Notices(sys.argv[1]); n.say(cells=3); print('on', flush=True); time.sleep(60)",
                               str(path_of(reports, "a/b"))], cwd=ROOT, stdout=subprocess.PIPE)
    out = io.StringIO()
    with Watch([job("a/b"), job("c/d", "a/b")], reports, stream=out) as watch:
        assert runner.stdout.readline() == b"on\n"
        seen = watch.poll()
        time.sleep(1.3)
        assert watch.poll() == [] and tally(watch.follower)[""]["running"] == 1, "quiet is not dead"
        runner.kill()
        runner.wait()
        until = time.monotonic() + 5
        while "no sign" not in whats(seen) and time.monotonic() < until:
            seen += watch.poll()
            time.sleep(0.05)
        seen += watch.poll()
        watch.end()
    assert whats(seen) == ["started", "no sign"]
    assert "no sign since" in out.getvalue() and "ends        failed: 0 of 2 done" in out.getvalue()
    assert "without a sign" in out.getvalue()


def test_a_runner_killed_with_its_engine_is_asked_once_more(reports):
    runner = subprocess.Popen([sys.executable, "-c", "import sys, os\nfrom esa_notebooks.runs.notices import Notices\n"
                               "Notices(sys.argv[1]).say(); os.kill(os.getpid(), 9)",
                               str(path_of(reports, "a/b"))], cwd=ROOT)
    out = io.StringIO()
    with Watch([job("a/b")], reports, stream=out) as watch:
        runner.wait()
        watch.end("cancelled")
    assert "no sign since" in out.getvalue() and "ends        cancelled: 0 of 1 done" in out.getvalue()


def test_another_machine_is_given_a_minute_and_may_come_back(reports):
    hand = Hand()
    follower = Follower([job("a/b")], reports, now=hand)
    write(reports, "a/b")
    assert [e.detail for e in follower.poll()] == ["on node07"]
    hand.s += 59
    assert whats(follower.poll()) == ["running"]
    hand.s += 2
    (silent,) = follower.poll()
    assert silent.what == "no sign" and "from node07" in silent.detail
    assert "no sign since" in "\n".join(map(str, picture(follower, 80, 20, 2)))
    write(reports, "a/b", cells=3)
    assert follower.poll() == [] and follower.tracks["a/b"].status == "running" and tally(follower)[""]["running"] == 1


def test_a_process_id_given_to_another_process_is_not_the_runner(reports):
    told = Notices(path_of(reports, "a/b"))
    told.say()
    state = read_state(told.path)
    told.say(status="succeeded")
    assert not lost(state, 5)
    assert lost(dataclasses.replace(state, process="1"), 5)
    assert not lost(dataclasses.replace(state, process="1"), 0.5), "a last word may still be on its way"
    rebooted = dataclasses.replace(state, where=(state.where[0], "another boot", state.where[2]))
    assert not lost(rebooted, 5) and lost(rebooted, 61)


@pytest.mark.parametrize("shift", [-86400, 86400, -1e12, 1e12])
def test_a_clock_that_jumps_does_no_harm(reports, monkeypatch, shift):
    told = Notices(path_of(reports, "a/b"))
    real = time.time
    hand = Hand()
    follower = Follower([job("a/b", expected_s=60)], reports, now=hand)
    monkeypatch.setattr(follow.time, "time", lambda: real() + shift)
    told.say(cells=4, cells_done=1)
    assert whats(follower.poll()) == ["started"]
    hand.s += 20
    shown = "\n".join(map(str, picture(follower, 100, 30, 2)))
    assert "1 of 4" in shown and "0:20" in shown
    rows = with_progress([StatusRow("a/b", "a", "b", "to run")], reports)
    assert rows[0].state == "running" or shift > 0
    told.say(status="succeeded")
    assert whats(follower.poll()) == ["succeeded"]


def test_failures_take_with_them_what_stands_on_them_and_nothing_else(reports):
    follower = Follower([job("a/1"), job("a/2"), job("b/1", "a/1"), job("b/2", "a/2"), job("c/12", "b/1", "b/2"),
                         job("d/x", "not/there")], reports)
    write(reports, "a/1", status="timed_out")
    follower.poll()
    assert stuck(follower) == {"b/1": "a/1", "c/12": "a/1"}
    assert tally(follower)[""]["waiting"] == 3
    write(reports, "a/1", status="running", started="2026-01-01T00:00:00Z", pid=8)   # tried again
    assert whats(follower.poll()) == ["started"] and stuck(follower) == {}
    write(reports, "a/1", status="succeeded", run_id="20260101T000000Z-00000001")
    assert whats(follower.poll()) == ["succeeded"] and tally(follower)["a"]["done"] == 1


def test_a_long_job_is_heard_of_ever_less_often(reports):
    hand = Hand()
    follower = Follower([job("a/b")], reports, now=hand)
    said = []
    for second in range(0, 3600, 5):
        write(reports, "a/b", cells=9, cells_done=4, section="Training")
        said += [(second, e.detail) for e in follower.poll() if e.what == "running"]
        hand.s += 5
    at = [s for s, _ in said]
    assert at[:5] == [30, 60, 120, 240, 480] and max(b - a for a, b in itertools.pairwise(at)) == 300
    assert said[1][1] == "1:00  cell 5 of 9  Training"


def test_an_ended_job_says_where_to_read_and_why(reports, monkeypatch):
    run = reports / "runs" / "prepare" / "20260101T000000Z-00000000"
    run.mkdir(parents=True)
    (run / "report.html").touch()
    (run / "record.json").write_text(json.dumps({"reason": {"what": f"Broken: {HOSTILE}\nmore"}}))
    monkeypatch.chdir(reports.parent)
    follower = Follower([job("clean/a")], reports)   # the stage is called otherwise than its notebook
    write(reports, "clean/a", status="failed", duration_s=2.06)
    (event,) = follower.poll()
    assert event.detail == ("2.1 s  reports/runs/prepare/20260101T000000Z-00000000/report.html  "
                            "Broken: Gaps [bold red]in[/] it")


# The forecast

JOBS = st.lists(st.tuples(st.floats(0, 1000), st.integers(1, 4), st.lists(st.integers(0, 30), max_size=3)),
                min_size=1, max_size=30)


@given(JOBS, st.integers(1, 8))
def test_a_forecast_lies_between_what_is_possible_and_one_after_the_other(drawn, cores):
    jobs = [job(f"s/{n}", *(f"s/{i}" for i in needs if i < n), expected_s=s, cpu=cpu)
            for n, (s, cpu, needs) in enumerate(drawn)]
    longest: dict[str, float] = {}
    for j in jobs:
        longest[j.id] = j.expected_s + max((longest[n] for n in j.needs), default=0)
    work = sum(j.expected_s * min(j.cpu, cores) for j in jobs) / cores
    seconds, known = remaining(jobs, {}, cores)
    slack = 1e-6 * (1 + seconds)
    assert known and max(work, max(longest.values())) - slack <= seconds <= sum(j.expected_s for j in jobs) + slack


def test_a_forecast_of_a_circle_or_of_nothing_comes_to_an_end():
    assert remaining([job("a/1", "a/2", expected_s=1), job("a/2", "a/1", expected_s=1)], {}, 2) == (0, True)
    assert remaining([], {}, 2) == (0, True)


def test_what_is_not_known_is_said(reports):
    follower = Follower([job("a/1", expected_s=100), job("a/2")], reports)
    assert "at least 2 min left" in str(picture(follower, 100, 20, 1)[-1])
    assert "time left unknown" in str(picture(Follower([job("a/2")], reports), 100, 20, 1)[-1])
    write(reports, "a/1", status="succeeded")
    write(reports, "a/2", status="succeeded")
    follower.poll()
    assert "left" not in str(picture(follower, 100, 20, 1)[-1])


def test_durations_pass_over_what_tells_nothing(reports):
    attempts = [("a", "succeeded", 5), ("a", "failed", 1), ("a", "succeeded", None), ("b", "killed", None),
                ("a", "succeeded", -3), ("a", "succeeded", 1e300), ("a", "succeeded", "long")]
    for n, (dataset, how, took) in enumerate(attempts):
        run = reports / "runs" / "prepare" / f"20260101T00{n:02}00Z-00000000"
        run.mkdir(parents=True)
        (run / "record.json").write_text(json.dumps({
            "schema": SCHEMA, "status": how, "key": "0" * 64, "interactive": False, "duration_s": took, "outputs": [],
            "notebook": {"path": "p.ipynb"}, "parameters": [{"name": "dataset", "value": dataset}]}))
    (reports / "runs" / "prepare" / "20260101T990000Z-00000000").mkdir()
    durations = Durations(Shelf(reports))
    assert durations.expected(question("p.ipynb", [("dataset", "a")]), "prepare") == 5
    assert durations.expected(question("p.ipynb", [("dataset", "b")]), "prepare") == 5, "the stage stands in"
    assert durations.expected("", "explore") is None


# How it looks

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 200), st.integers(1, 60), st.integers(0, 99),
       st.booleans())
def test_the_view_fits_any_terminal(tmp_path_factory, n, stages, width, height, seed, ascii_only):
    hand = Hand()
    kinds = ("waiting", "running", "no sign", "failed", "succeeded", "up to date")
    follower = Follower([job(f"stage{i % stages}/{'信号' * (i % 9)}{i}", expected_s=i or None) for i in range(n)],
                        tmp_path_factory.getbasetemp() / "none", now=hand)
    for i, track in enumerate(follower.tracks.values()):
        track.status = kinds[(i * seed) % 6]
        track.state = State(track.job.id, "running", "", None, None, None, i, 2 * i, plain(HOSTILE) * (seed % 5),
                            None, 1, "", "h", ("", "", ""), 1e9)
    lines = picture(follower, width, height, 2, ascii_only)
    assert 1 <= len(lines) <= height and max(line.cell_len for line in lines) < max(width, 2)
    assert not any(CONTROL.search(line.plain) for line in lines)
    if ascii_only and n == 0:
        assert all(line.plain.isascii() for line in lines)


def on_screen(watch: Watch) -> str:
    return watch.console.export_text(clear=False)


def test_hostile_titles_reach_neither_terminal_nor_log(reports, study):
    for console in (Console(file=io.StringIO(), force_terminal=True, width=120, height=30, record=True),
                    Console(file=io.StringIO(), width=120)):
        told = Notices(path_of(reports, "a/b"))
        with Watch([job("a/b")], reports, console=console) as watch:
            told.say(cells=2, section=HOSTILE, host=HOSTILE)
            watch.poll()
            watch.say(f"a message: {HOSTILE}")
            told.say(status="failed")
            watch.poll()
        got = console.file.getvalue()
        assert "owned" not in got and "\x1b[2J" not in got and "\x9b" not in got and "\u202e" not in got
        assert "Gaps [bold red]in[/] it" in got, "brackets are text, no markup"
    log = (reports / "workflow" / "log.txt").read_text()
    assert not CONTROL.search(log) and log.count("a message: Gaps [bold red]in[/] it") == 2


def test_a_log_has_one_line_per_event_and_the_file_the_same(reports):
    out = io.StringIO()
    jobs = [job("a/1"), job("a/2"), job("b/1", "a/1"), job("b/2", up_to_date=True)]
    with Watch(jobs, reports, cores=2, stream=out) as watch:
        for how in ("running", "running", "succeeded"):
            write(reports, "a/1", status=how)
            watch.poll()
        write(reports, "a/2", status="up to date")
        write(reports, "b/1", status="failed")
        watch.poll()
        watch.poll()
        watch.end()
    lines = out.getvalue().splitlines()
    assert (reports / "workflow" / "log.txt").read_text().splitlines() == lines
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  \S", line) for line in lines)
    assert [line[22:34].strip() for line in lines] == ["begins", "started", "succeeded", "up to date", "failed", "ends"]
    assert "4 jobs, 1 of them up to date" in lines[0] and "failed: 3 of 4 done" in lines[-1]


VIEW = """
import sys, time
from pathlib import Path
from esa_notebooks.runs.notices import Notices
from esa_notebooks.runs.watch import Job, Watch
reports, how = Path(sys.argv[1]), sys.argv[2]
jobs = [Job("prepare/telemetry", "prepare", "telemetry", (), 30), Job("explore/telemetry", "explore", "telemetry",
        ("prepare/telemetry",), 60), Job("quality/shuttle", "quality", "shuttle", (), 9)]
n = {j.id: Notices(reports / "workflow" / f"{j.id}.state") for j in jobs}
with Watch(jobs, reports, cores=2) as watch:
    n["quality/shuttle"].say(status="failed")
    n["prepare/telemetry"].say(cells=12, cells_done=7, section="Gaps in the signal")
    time.sleep(0.25)
    for i in range(12 if how == "slow" else 8):
        watch.poll()
        if i == 3:
            print("to stdout")
            watch.say("a message")
        if i == 5 and how == "stop":
            raise KeyboardInterrupt
        time.sleep(0.1 if how == "slow" else 0.02)
    n["prepare/telemetry"].say(status="succeeded")
    watch.poll()
    watch.end()
Path(reports, "done").touch()
"""


def on_terminal(reports: Path, how: str = "", size: tuple[int, int] = (24, 80), stdout=None, resize=None,
                hang_up=False, **env):
    """What a terminal of `size` got from the program above, and its exit code."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "CI")}
    program = subprocess.Popen([sys.executable, "-c", VIEW, str(reports), how], cwd=ROOT, stdin=slave,
                               stdout=stdout or slave, stderr=slave,
                               env=clean | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | env)
    os.close(slave)
    got, since = b"", None
    while True:
        try:
            part = os.read(master, 65536) if select.select([master], [], [], 20)[0] else b""
        except OSError:
            part = b""
        if not part:
            break
        got, since = got + part, since or time.monotonic()
        if resize and time.monotonic() - since > 0.4:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *resize, 0, 0))
            resize = None
        if hang_up and time.monotonic() - since > 0.4:
            break
    os.close(master)
    return got.decode(), program.wait(20)


def frames(got: str) -> list[str]:
    """Each picture that was drawn, without the codes; lines that were printed above it included."""
    return [re.sub(r"\x1b\[[0-?]*[A-Za-z]", "", f) for f in re.split(r"(?:\x1b\[1A\x1b\[2K)+", got)]


@pytest.mark.parametrize("size", [(24, 100), (24, 60), (6, 40)], ids=["wide", "narrow", "tiny"])
def test_on_a_terminal(reports, size):
    got, code = on_terminal(reports, size=size)
    assert code == 0, got
    drawn = frames(got)
    lines = [line for f in drawn for line in re.split(r"[\r\n]+", f)]
    assert max(map(len, lines[lines.index("a message"):])) < size[1] and "a message" in lines and "to stdout" in lines
    assert "\x1b[?25l" in got and got.rindex("\x1b[?25h") > got.rindex("\x1b[?25l"), "the cursor is given back"
    assert any("7 of 12" in f for f in drawn)
    assert ("Gaps in the signal" in got) == (size[1] == 100)
    assert any(line.startswith("0 of 3 done · about 2 min left · 0:0") for line in lines)
    assert "1 of 3 done" in drawn[-1] and "× 1 failed" in "".join(drawn[-2:]) and "\x1b[36m" in got


def test_without_colour(reports):
    got, code = on_terminal(reports, NO_COLOR="1")
    assert code == 0 and "━" in got and "×" in got
    assert not re.search(r"\x1b\[(3|4|9)\d", got) and not re.search(r"\x1b\[\d*;?(3|4|9)\d", got)


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "unknown"}], ids=str)
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(reports, env):
    got, code = on_terminal(reports, **env)
    assert code == 0 and "\x1b" not in got
    assert len([line for line in got.splitlines() if line.startswith("20")]) == 6, got


def test_a_terminal_without_our_characters(reports):
    got, code = on_terminal(reports, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0 and got.isascii() and "x 1 failed" in got and "====" in got


@pytest.mark.parametrize("resize", [(24, 50), (5, 200)], ids=["narrower", "lower"])
def test_resizing_does_no_harm(reports, resize):
    got, code = on_terminal(reports, "slow", size=(24, 100), resize=resize)
    assert code == 0 and (reports / "done").exists()
    assert "1 of 3 done" in frames(got)[-1]
    after = [line for f in frames(got)[-2:] for line in re.split(r"[\r\n]+", f)]
    assert max(map(len, after)) < resize[1]


def test_a_terminal_that_vanishes_stops_nothing(reports):
    _, code = on_terminal(reports, "slow", hang_up=True, stdout=subprocess.DEVNULL)
    assert (reports / "done").exists() and code == 0
    assert "ends        failed: 1 of 3 done" in (reports / "workflow" / "log.txt").read_text()


def test_stopping_gives_the_terminal_back(reports):
    got, code = on_terminal(reports, "stop")
    assert code in (1, 130, -signal.SIGINT) and not (reports / "done").exists()
    assert got.rindex("\x1b[?25h") > got.rindex("\x1b[?25l") and "0 of 3 done" in got


def test_output_that_goes_into_a_file_stays_there(reports, tmp_path):
    with open(tmp_path / "out", "wb") as out:
        got, code = on_terminal(reports, stdout=out)
    assert code == 0 and (tmp_path / "out").read_text() == "to stdout\n" and "to stdout" not in got


@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1", "TERM": "xterm-256color", "TTY_COMPATIBLE": "1"}],
                         ids=["plain", "colour asked for"])
def test_a_pipe_gets_no_escape_codes(reports, env):
    done = subprocess.run([sys.executable, "-c", VIEW, str(reports), ""], cwd=ROOT, env=os.environ | env,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "\x1b" not in done.stderr + done.stdout and done.stdout == "to stdout\n"
    assert done.stderr == (reports / "workflow" / "log.txt").read_text()


def test_a_reader_that_went_away_stops_nothing(reports):
    read, end = os.pipe()
    os.close(read)
    program = subprocess.run([sys.executable, "-c", VIEW, str(reports), ""], cwd=ROOT, stderr=end,
                             stdout=subprocess.DEVNULL)
    os.close(end)
    assert (reports / "done").exists() and program.returncode in (0, 120)


# The log

def test_the_log_is_bounded(reports):
    path = reports / "workflow" / "log.txt"
    path.parent.mkdir(parents=True)
    path.write_text("old\n" * 300_000)
    (path.parent / "log.1.txt").write_text("older")
    with Watch([job("a/b")], reports, stream=io.StringIO()):
        pass
    assert path.read_text().count("\n") == 1 and (path.parent / "log.1.txt").read_text().startswith("old\n")
    with Watch([job("a/b")], reports, stream=io.StringIO()):
        pass
    assert path.read_text().count("begins") == 2


@pytest.mark.parametrize("make", [os.mkdir, lambda p: os.symlink("/dev/null", p)], ids=["folder", "link"])
def test_a_log_that_cannot_be_written_is_said_once(reports, make):
    (reports / "workflow").mkdir(parents=True)
    make(reports / "workflow" / "log.txt")
    out = io.StringIO()
    with Watch([job("a/b")], reports, stream=out) as watch:
        watch.say("one")
        watch.say("two")
    assert out.getvalue().count("cannot be written") == 1 and "two" in out.getvalue()


def test_two_writers_do_not_mix_their_lines(tmp_path):
    logs = [Log(tmp_path / "log.txt") for _ in range(4)]
    writers = [threading.Thread(target=lambda log=log, n=n: [log.write(str(n) * 500) for _ in range(200)])
               for n, log in enumerate(logs)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 800 and {(len(line), len(set(line))) for line in lines} == {(500, 1)}


# A thousand jobs

def test_a_thousand_jobs_are_looked_at_in_less_than_20_ms(reports):
    jobs = [job(f"s{i % 8}/{i}", *([f"s{(i - 1) % 8}/{i - 1}"] if i % 8 else []), expected_s=10.0) for i in range(1000)]
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    told = [Notices(path_of(reports, j.id)) for j in jobs]
    with Watch(jobs, reports, cores=2, console=console) as watch:
        for n in told[:500]:
            n.say(status="succeeded", cells=9)
        watch.poll()
        quiet, busy = [], []
        for n in told[500:530]:
            n.say(status="succeeded")
            for took in (busy, quiet):
                at = time.thread_time()   # of this thread alone, however busy the machine is
                watch.poll()
                took.append(time.thread_time() - at)
    assert statistics.median(quiet) < 0.02 and statistics.median(busy) < 0.02, (max(quiet), max(busy))


# Status

def test_status_completes_rows_by_what_runs(reports):
    rows = [StatusRow(f"a/{n}", "a", n, "to run", why="never run") for n in ("here", "there", "dead", "idle")]
    told = Notices(path_of(reports, "a/here"))
    told.say(cells=9, cells_done=2, section=HOSTILE)
    write(reports, "a/there", cells=4)
    write(reports, "a/dead")
    os.utime(path_of(reports, "a/dead"), (time.time() - 3600,) * 2)
    write(reports, "a/idle", status="succeeded")
    here, there, dead, idle = with_progress(rows, reports)
    told.say(status="succeeded")
    assert here.state == there.state == "running"
    assert here.why.startswith("2 of 9 cells, 0:0") and there.why.endswith("on node07")
    assert dead.state == "to run" and "no sign since" in dead.why and dead.why.endswith("never run") and idle == rows[3]
    assert summary([here, there, dead, idle]) == "4 jobs: 2 running, 2 to run"


@pytest.mark.parametrize("width,ascii_only", [(140, False), (80, False), (60, True), (30, True)])
def test_the_table_has_a_line_per_job_at_any_width(width, ascii_only):
    rows = [StatusRow(f"stage/{state}", "stage", state, state, "20261124T181737Z-42561f5b", "2026-11-24T18:17:37Z", 3.2,
                      HOSTILE * 9) for state in status.STATES]
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii" if ascii_only else "utf-8")
    Console(file=out, width=width, force_terminal=True, no_color=True).print(status_table(rows))
    out.flush()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.buffer.getvalue().decode()).splitlines()
    assert len(lines) >= len(rows) + 2 and max(map(len, lines)) <= width
    assert all(state[:20] in line for state, line in zip(status.STATES, lines, strict=False))
    assert not CONTROL.search("".join(lines)) and ("4256" in lines[0]) == (width >= 110)


def test_plain_status_is_for_pipes():
    rows = [StatusRow("a/b", "a", "b", "failed", "20261124T181737Z-42561f5b", "2026-11-24T18:17:37Z", 3.21,
                      f"x {HOSTILE}"),
            StatusRow("a/c", "a", "c", "never run")]
    lines = status_text(rows).splitlines()
    assert re.split(r"  +", lines[0]) == ["failed", "a/b", "20261124T181737Z-42561f5b", "2026-11-24T18:17:37Z", "3.2 s",
                                         "x Gaps [bold red]in[/] it"]
    assert re.split(r"  +", lines[1]) == ["never run", "a/c", "-", "-", "-", "-"]
    assert status_text([]) == "" and summary([]) == "0 jobs"


def test_a_state_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'done' is no state of a job; there are up to date, "):
        StatusRow("a/b", "a", "b", "done")


# A real run

def test_a_notebook_executed_for_a_workflow(study, reports, capsys):
    """Each cell waits until the test has seen, on the screen, that it is being executed."""
    wait = "import time, pathlib\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.02)"
    gates = {(2, "Gaps in [red]it"): study.root / "one", (3, "Then"): study.root / "two"}
    one, two = (wait.format(str(gate)) for gate in gates.values())
    path = study.write("n", prose("## Gaps\x1b[2J in [red]it"), one, prose("## Then"), f"{two}\n1/0", "never = 1",
                       parameters="n: int = 1  # x")
    reports = study.root / "reports"
    told = Notices(reports / "workflow" / "explore" / "a.state")
    seen, ended = [], threading.Event()

    def run() -> None:
        told.say()
        folder = execute(study.plan(path), notices=told)
        told.say(status=json.loads((folder / "record.json").read_text())["status"], run_id=folder.name)
        ended.set()
    runner = threading.Thread(target=run, daemon=True)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    with Watch([job("explore/a")], reports, console=console) as watch:
        runner.start()
        while not ended.wait(0.05):
            seen += watch.poll()
            state = watch.follower.tracks["explore/a"].state
            gate = gates.get((state.cells_done, state.section)) if state else None
            if gate and f"{state.cells_done} of 5" in on_screen(watch) and state.section in on_screen(watch):
                gate.touch()
        runner.join()
        seen += watch.poll()
        watch.end()
    happened = [w for w in whats(seen) if w != "running"]   # a busy machine may be long at it
    assert happened == ["started", "failed"] and "ZeroDivisionError" in seen[-1].detail
    assert all(gate.exists() for gate in gates.values()) and "0 of 1 done" in on_screen(watch)
    assert capsys.readouterr().err == "", "the view speaks, the runner does not"
