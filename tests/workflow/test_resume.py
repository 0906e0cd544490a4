"""Failure and resume: what fails takes along what stands on it and nothing else, and whoever is killed, the next run completes."""
import os
import random
import signal
import time

import psutil
import pytest

from tests.workflow.conftest import Project, counts, ended

N = 2
SLOW = f"""
stages:
  make:
    notebook: nbs/make.ipynb
    for: {{n: {list(range(1, N + 1))}}}
    parameters: {{n: "{{n}}", table: "data/interim/{{n}}.txt"}}
    resources: {{memory_gib: 1}}
  double:
    notebook: nbs/double.ipynb
    for: {{n: {list(range(1, N + 1))}}}
    parameters: {{table: "data/interim/{{n}}.txt", doubled: "data/processed/{{n}}.txt"}}
    resources: {{memory_gib: 1}}
  sum:
    notebook: nbs/sum.ipynb
    parameters: {{tables: {{every: double.doubled}}, total: data/processed/total.txt}}
    resources: {{memory_gib: 1}}
"""
LINES = 20
MAKE = f"""
with table.open("w") as f:
    for line in range({LINES}):
        print(n, file=f, flush=True)
        time.sleep(pause)
"""
DOUBLE = "rows = table.read_text().split()\nassert len(rows) == %d, 'half a table'\nfail = False\nif fail:\n    raise ValueError('2 is no good')\n" \
         "doubled.write_text(str(2 * sum(map(int, rows))))" % LINES
SUM = "total.write_text(str(sum(int(p.read_text()) for p in tables)))"
EXPECTED = {f"data/interim/{n}.txt": (f"{n}\n" * LINES).encode() for n in range(1, N + 1)} | {
    f"data/processed/{n}.txt": str(2 * n * LINES).encode() for n in range(1, N + 1)} | {
    "data/processed/total.txt": str(sum(2 * n * LINES for n in range(1, N + 1))).encode()}
JOBS = 2 * N + 1


def slow_study(root, pause: float = 0.03) -> Project:
    """Tables that are written slowly, line by line; what they hold is known beforehand."""
    project = Project(root)
    project.study(SLOW)
    project.notebook("make", f"n: int = 1\ntable: OutputFile = Path('data/interim/1.txt')\npause: float = {pause}", MAKE)
    project.notebook("double", "table: InputFile = Path('data/interim/1.txt')\ndoubled: OutputFile = Path('data/processed/1.txt')", DOUBLE)
    project.notebook("sum", "tables: list[InputFile] = []\ntotal: OutputFile = Path('data/processed/total.txt')", SUM)
    return project


def nothing_half_written(project: Project) -> None:
    """What is published is whole, and whatever is called up to date has its outputs."""
    published = {p: c for p, c in project.outputs().items() if "/." not in p}
    assert all(EXPECTED[p] == c for p, c in published.items())
    for name, state in project.look().states.items():
        if state.state == "up to date":
            assert all(published.get(p) == EXPECTED[p] for p in state.job.writes.values()), name


def staging(project: Project) -> set:
    """The folders in which outputs are being written, or were when their runner was killed."""
    return set((project.root / "data" / "interim").glob(".*"))


def writing(project: Project, before: set = frozenset()) -> bool:
    """Whether some output is half written at this moment, in a folder that was not there `before`."""
    for path in (p for folder in staging(project) - before for p in folder.glob("*.txt")):
        try:
            if 0 < len(path.read_text().split()) < LINES - 5:
                return True
        except OSError:
            continue
    return False


def wait_for(what, process=None, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until and (process is None or process.poll() is None), "it did not come to that"
        time.sleep(0.005)


def family(process, *words: str) -> list[psutil.Process]:
    """The descendants of a process whose command line holds one of `words`."""
    found = []
    for p in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(w in a for w in words for a in p.cmdline()) and p.status() != psutil.STATUS_ZOMBIE:
                found.append(p)
        except psutil.Error:
            continue
    return found


VICTIMS = {
    "the run": lambda process: [psutil.Process(process.pid)],
    "snakemake": lambda process: family(process, "Snakefile"),
    "a job": lambda process: family(process, "esa_notebooks.cli"),
    "a kernel": lambda process: family(process, "ipykernel_launcher"),
    "the warm runner": lambda process: [p for p in family(process, "warm_server") if p.ppid() == process.pid],
    "a fork of the warm runner": lambda process: [p for p in family(process, "warm_server") if p.ppid() != process.pid],
}


def test_a_failure_takes_along_what_stands_on_it_while_a_second_invocation_is_refused_and_a_third_waits(tmp_path):
    """Others finish; `run` and `plan` are turned away meanwhile, `status` may look on; the one that waited does what is left."""
    project = slow_study(tmp_path / "study", pause=0.1)
    notebook = project.root / "nbs/double.ipynb"
    whole = notebook.read_text()
    notebook.write_text(whole.replace("fail = False", "fail = rows[0] == '2'"))
    first = project.start("run")
    wait_for(lambda: writing(project), first)
    for command in ("run", "plan"):
        second = project.tool(command)
        assert second.code == 2 and f"The workflow is being run already, by process {first.pid} on" in second.err
        assert "--wait" in second.err and "Traceback" not in second.err and second.out == ""
    seen = project.tool("status")
    assert seen.code == 0 and "make" in seen.out and "Traceback" not in seen.err
    wait_for(lambda: any(r["stage"] == "double" and r["status"] == "failed" for r in project.records()), first)
    waiting = project.start("run", "--wait", "--cold")
    notebook.write_text(whole)
    broken = ended(first)
    assert broken.code == 1 and counts(broken) == {"succeeded": 3, "failed": 1, "skipped": 1}, broken.out + broken.err
    assert "ValueError: 2 is no good" in broken.err and "Traceback" not in broken.err
    (failed,) = [r for r in project.records() if r["status"] == "failed"]
    assert [p["value"] for p in failed["parameters"]][0] == "data/interim/2.txt" and (failed["folder"] / "report.html").is_file()
    assert failed["run_id"] in (project.root / "reports/index.html").read_text()
    last = ended(waiting)
    assert last.code == 0 and f"waiting for process {first.pid}" in last.err, last.err
    assert counts(last) == {"up to date": 2, "succeeded": 3}, "the mended notebook twice, and the sum"
    assert project.outputs() == EXPECTED and project.stale() == {} and project.left_over() == []


def kill(project: Project, process, victim: str, rng: random.Random, before: set = frozenset()) -> psutil.Process:
    """Kill one process outright; a kernel or a job is one that is writing an output."""
    wait_for(lambda: process.poll() is not None or VICTIMS[victim](process))
    assert process.poll() is None, "nobody there to be killed"
    target = rng.choice(VICTIMS[victim](process))
    target.kill()
    return target


def settled(project: Project, process):
    """The end of a run in which somebody was killed: nobody is left, nothing half-written is taken for done, nothing is a trace."""
    last = ended(process)
    assert project.left_over(within=20) == [], "somebody is left"
    assert "Traceback (most recent call last)" not in last.err, last.err
    nothing_half_written(project)
    return last


def completes(project: Project) -> None:
    """The next run goes on where it stopped, and everything is as it would have been."""
    done = {n for n, s in project.look().states.items() if s.state == "up to date"}
    last = project.run(warm=True)
    assert last.code == 0, last.out + last.err
    assert counts(last).get("up to date", 0) >= len(done)
    assert project.outputs() == EXPECTED, "the same as undisturbed, and no litter"
    successes = [str(r["parameters"]) for r in project.records() if r["status"] == "succeeded"]
    assert len(successes) == len(set(successes)) == JOBS, "what had succeeded was not done again"
    assert project.stale() == {} and project.left_over() == []


def test_whoever_is_killed_while_an_output_is_being_written_the_next_run_completes(tmp_path):
    """Cold, one job at a time: first a kernel and then Snakemake, then a job and then the run itself, each in mid-sentence."""
    project, rng = slow_study(tmp_path / "study", pause=0.1), random.Random(4)
    for victims, code in ((("a kernel", "snakemake"), 1), (("a job", "the run"), -signal.SIGKILL)):
        process = project.start("run", "--cold", "--cores", "1")
        for victim in victims:
            before = staging(project)
            wait_for(lambda before=before, process=process: writing(project, before), process)
            kill(project, process, victim, rng)
        last = settled(project, process)
        assert last.code == code, last.out + last.err
        assert {r["status"] for r in project.records()} <= {"killed", "cancelled"} and not EXPECTED.keys() & project.outputs().keys()
        assert code < 0 or counts(last) in ({"killed": 1, "cancelled": 1, "skipped": 3}, {"killed": 2, "skipped": 3}), last.out
    completes(project)


def test_with_a_warm_runner_the_same(tmp_path):
    project, rng = slow_study(tmp_path / "study", pause=0.1), random.Random(11)
    process = project.start("run")
    wait_for(lambda: writing(project), process)
    kill(project, process, rng.choice(["a fork of the warm runner", "a job"]), rng)
    time.sleep(rng.uniform(0, 1))
    kill(project, process, "the run", rng)
    assert settled(project, process).code == -signal.SIGKILL
    completes(project)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(8))
def test_a_campaign_of_kills(tmp_path, seed):
    """Anybody, at any moment, warm and cold, six times; then it completes."""
    project, rng = slow_study(tmp_path / "study"), random.Random(seed)
    for _ in range(6):
        warm = rng.random() < 0.5
        process = project.start("run", *(() if warm else ("--cold",)))
        moment = time.monotonic() + rng.uniform(0, 12)
        while process.poll() is None and time.monotonic() < moment:
            time.sleep(0.01)
        there = [v for v in VICTIMS if process.poll() is None and VICTIMS[v](process)]
        if there:
            try:
                kill(project, process, rng.choice(there), rng)
            except (psutil.NoSuchProcess, IndexError, AssertionError):
                pass   # it ended in that moment
        settled(project, process)
    completes(project)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_asked_to_stop_it_stops_and_says_cancelled(tmp_path, number):
    """Ctrl-C, with a warm runner and the run after it, is in test_sweep."""
    project = slow_study(tmp_path / "study", pause=0.1)
    process = project.start("run", "--cold")
    wait_for(lambda: writing(project), process)
    began = time.monotonic()
    os.killpg(process.pid, number)
    last = ended(process)
    assert last.code == 130 and time.monotonic() - began < 20 and "Traceback" not in last.err, last.out + last.err
    assert "cancelled" in counts(last) and set(counts(last)) <= {"cancelled", "skipped"}
    assert {r["status"] for r in project.records()} == {"cancelled"} and project.left_over() == []
    assert project.outputs() == {}, "a run that was asked to stop clears away"
    assert "make/1" in project.stale() and "cancelled" in project.stale()["make/1"]


def test_a_lock_outlives_nobody(tmp_path):
    """Whatever an earlier process wrote into it, the lock is free once that process is gone."""
    project = slow_study(tmp_path / "study", pause=0)
    project.file("reports/workflow/lock", "process 1 on elsewhere, started 2020-01-01T00:00:00Z")
    ended = project.tool("plan")
    assert ended.code == 0 and (project.root / "reports/workflow/lock").read_text() == ""


def test_an_orphaned_job_stops_by_itself(tmp_path):
    """A job whose Snakemake is gone before it looked is nobody's: it must not write while the next run writes."""
    project = slow_study(tmp_path / "study", pause=0)
    assert project.tool("plan").code == 0
    gone = 2**22 - 1   # no process has this number, so it cannot be the parent
    assert not psutil.pid_exists(gone)
    orphan = project.tool("execute", "--quiet", "reports/workflow/make/1.key", ESA_CONDUCTED=str(gone))
    assert orphan.code != 0 and project.records() == [] and project.outputs() == {}
