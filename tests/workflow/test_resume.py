"""Failure and resume: what fails takes along what stands on it and nothing else, and whoever is killed, the next run completes."""
import json
import os
import random
import signal
import time

import psutil
import pytest

from tests.workflow.conftest import Project, counts, ended

N = 3
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


def test_a_failure_takes_along_what_stands_on_it_and_the_next_run_does_the_rest(tmp_path):
    project = slow_study(tmp_path / "study", pause=0)
    notebook = project.root / "nbs/double.ipynb"
    whole = notebook.read_text()
    notebook.write_text(whole.replace("fail = False", "fail = rows[0] == '2'"))
    broken = project.run(warm=True)
    assert broken.code == 1 and counts(broken) == {"succeeded": 5, "failed": 1, "skipped": 1}, broken.out + broken.err
    assert "ValueError: 2 is no good" in broken.err and "Traceback" not in broken.err
    (failed,) = [r for r in project.records() if r["status"] != "succeeded"]
    assert failed["status"] == "failed" and [p["value"] for p in failed["parameters"]][0] == "data/interim/2.txt"
    assert project.stale() == {"double/2": "the last attempt failed", "sum/all": "it stands on double/2"}
    assert (failed["folder"] / "report.html").is_file() and failed["run_id"] in (project.root / "reports/index.html").read_text()
    again = project.run()
    assert again.code == 1 and counts(again) == {"up to date": 5, "failed": 1, "skipped": 1}, "a failure is tried again, nothing else"
    notebook.write_text(whole)
    before = project.run_ids()
    mended = project.run(warm=True)
    assert mended.code == 0 and project.outputs() == EXPECTED
    new = [r for r in project.records() if r["run_id"] not in before]
    assert sorted(r["stage"] for r in new) == ["double"] * 3 + ["sum"], "the mended notebook, and what stands on it"
    assert project.left_over() == []


def harm(project: Project, victim: str, *, warm: bool, when, rng: random.Random, number=signal.SIGKILL):
    """Start a run, kill one victim at a moment, and see that nobody is left and nothing half-written is taken for done."""
    before = staging(project)
    process = project.start("run", *(() if warm else ("--cold",)))
    wait_for(lambda: (project.root / "reports/workflow/lock").is_file(), process)
    when(project, process, rng, before)
    wait_for(lambda: process.poll() is not None or VICTIMS[victim](process))
    if process.poll() is None:
        target = rng.choice(VICTIMS[victim](process))
        try:
            target.send_signal(number)
        except psutil.NoSuchProcess:
            pass
    last = ended(process)
    assert project.left_over(within=20) == [], "somebody is left"
    assert "Traceback (most recent call last)" not in last.err, last.err
    nothing_half_written(project)
    return last


def while_writing(project: Project, process, rng: random.Random, before: set) -> None:
    wait_for(lambda: writing(project, before), process)


def any_time(project: Project, process, rng: random.Random, before: set) -> None:
    time.sleep(rng.uniform(0, 6))


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
    """One study, killed five times over, cold: first the run itself, then Snakemake, a kernel, a job."""
    project, rng = slow_study(tmp_path / "study"), random.Random(4)
    killed = harm(project, "the run", warm=False, when=while_writing, rng=rng)
    assert killed.code == -signal.SIGKILL
    engine = harm(project, "snakemake", warm=False, when=while_writing, rng=rng)
    assert engine.code == 1, engine.out + engine.err
    kernel = harm(project, "a kernel", warm=False, when=while_writing, rng=rng)
    assert kernel.code == 1 and counts(kernel).get("killed") == 1, kernel.out + kernel.err
    for path in (project.root / "reports" / "runs" / "make").glob("*/record.json"):
        assert json.loads(path.read_text())["status"] in ("killed", "cancelled", "succeeded")
    (project.root / "data/interim/1.txt").unlink(missing_ok=True)   # so that something is still to be written
    job = harm(project, "a job", warm=False, when=while_writing, rng=rng)
    assert job.code == 1 and "killed" in counts(job), job.out + job.err
    last = project.run(warm=True)
    assert last.code == 0 and project.outputs() == EXPECTED and project.stale() == {}


def test_killed_at_any_time_with_a_warm_runner(tmp_path):
    project, rng = slow_study(tmp_path / "study"), random.Random(11)
    harm(project, "the run", warm=True, when=while_writing, rng=rng)
    harm(project, "a fork of the warm runner", warm=True, when=any_time, rng=rng)
    completes(project)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(6))
def test_a_campaign_of_kills(tmp_path, seed):
    project, rng = slow_study(tmp_path / "study"), random.Random(seed)
    for _ in range(6):
        if project.stale():
            warm = rng.random() < 0.5 and len(project.stale()) > 2
            victims = [v for v in VICTIMS if warm or "warm" not in v]
            harm(project, rng.choice([v for v in victims if not (warm and v == "a kernel")]), warm=warm,
                 when=rng.choice([while_writing, any_time]) if any("make" in n for n in project.stale()) else any_time, rng=rng)
    completes(project)


@pytest.mark.parametrize("number,warm", [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["Ctrl-C, warm", "SIGTERM, cold"])
def test_asked_to_stop_it_stops_says_cancelled_and_goes_on_later(tmp_path, number, warm):
    project = slow_study(tmp_path / "study", pause=0.1)
    process = project.start("run", *(() if warm else ("--cold",)))
    wait_for(lambda: writing(project), process)
    began = time.monotonic()
    os.killpg(process.pid, number)   # a terminal sends Ctrl-C to the whole foreground group
    last = ended(process)
    assert last.code == 130 and time.monotonic() - began < 20 and "Traceback" not in last.err, last.out + last.err
    assert "cancelled" in counts(last) and set(counts(last)) <= {"cancelled", "succeeded", "skipped", "killed"}
    assert {r["status"] for r in project.records()} - {"succeeded"} == {"cancelled"}
    assert project.left_over() == []
    nothing_half_written(project)
    assert not [p for p in project.outputs() if "/." in p], "a run that was asked to stop clears away"
    completes(project)


def test_the_same_workflow_started_twice(tmp_path):
    """The second is refused, `plan` too; one that waits finds everything done; `status` may look on."""
    project = slow_study(tmp_path / "study", pause=0.1)
    first = project.start("run")
    wait_for(lambda: writing(project), first)
    waiting = project.start("run", "--wait")
    for command in ("run", "plan"):
        second = project.tool(command)
        assert second.code == 2 and f"The workflow is being run already, by process {first.pid} on" in second.err
        assert "--wait" in second.err and "Traceback" not in second.err and second.out == ""
    seen = project.tool("status")
    assert seen.code == 0 and "make" in seen.out and "Traceback" not in seen.err
    assert ended(first).code == 0
    last = ended(waiting)
    assert last.code == 0 and f"waiting for process {first.pid}" in last.err and counts(last) == {"up to date": JOBS}
    assert len(project.records()) == JOBS and project.outputs() == EXPECTED and project.left_over() == []


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
