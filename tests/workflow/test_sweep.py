"""Sweeps: one parameter of one stage takes many values, the rest stays as it is; interrupted, it goes on; and one leaderboard."""
import json
import os
import re
import signal
import time

import pytest

from esa_notebooks.runs.sweep import spread_out
from esa_notebooks.runs.workflow import WorkflowError
from tests.workflow.conftest import Project, counts, ended


def test_a_sweep_end_to_end(copied):
    """Two values of a parameter upstream; what the study made itself stays as it is, and a wider sweep runs only what is new."""
    before, own = copied.outputs(), set(copied.look().jobs)
    swept = copied.run("experiment/a-mylib.forest-0", "--set", "prepare.factor=7,14", "--by", "values", warm=True)
    assert swept.code == 2 and "Did you mean" in swept.err, "the jobs of a sweep bear the value in their names"
    names = ("experiment/a-mylib.forest-0-7", "experiment/a-mylib.forest-0-14")
    swept = copied.run(*names, "--set", "prepare.factor=7,14", warm=True)
    assert swept.code == 0 and counts(swept) == {"succeeded": 4}, swept.out + swept.err
    made = copied.outputs()
    assert {p: c for p, c in made.items() if p in before} == before
    assert set(made) - set(before) == {f"data/{stem}-factor={v}.{end}" for v in (7, 14) for stem, end in
                                       (("processed/a", "csv"), ("interim/a-mylib.forest-0", "json"))}
    assert made["data/processed/a-factor=14.csv"] == b"14.0,28.0,42.0"
    assert copied.stale() == {} and set(copied.look().jobs) == own, "the study is as it was, and as fresh"
    rows = [json.loads(c) for p, c in made.items() if "forest-0-factor=" in p]
    assert sorted(score for *_, score in rows) == [2 * 6 * f / 3 for f in (7, 14)]


def test_a_sweep_of_a_seed_ends_in_a_leaderboard(copied):
    first = copied.run("a", "--set", "experiment.seed=0..2", "--by", "score", warm=True)
    assert first.code == 0, first.out + first.err
    assert counts(first) == {"succeeded": 2, "up to date": 5}, "seeds 0 and 1 are the study's own, and so is the table"
    lines = first.out.splitlines()
    page = next(line for line in lines if line.endswith(".html"))
    assert "leaderboard" in page and (copied.root / page).is_file() or (copied.root / "reports").joinpath(page).is_file()
    text = first.out[first.out.index("\n"):first.out.index(page)]
    best, worst = text.index("mylib.threshold"), text.index("mylib.forest")
    assert best < worst and re.search(r"\b19\b", text) and re.search(r"\b13\b", text), "18, 19, 20 against 12, 13, 14"
    unknown = copied.run("a", "--set", "experiment.seed=0..2", "--by", "scor")
    assert unknown.code == 2 and "Did you mean `score`?" in unknown.err and "Traceback" not in unknown.err


def slow_sweep(root) -> Project:
    project = Project(root)
    project.study("""
        stages:
          square: {notebook: nbs/square.ipynb}
          after: {notebook: nbs/after.ipynb, for: {n: [1, 2]}, parameters: {squared: data/interim/s.txt, n: "{n}", out: "data/interim/{n}.txt"}}
    """)
    project.notebook("square", "x: int = 1\nrate: float = 0.5\nsquared: OutputFile = Path('data/interim/s.txt')\nmode: str = 'a'\n"
                               "raw: InputFile = Path('raw/x.txt')\npause: float = 0.5",
                     "result('square', x * x, better='lower')\ntime.sleep(pause)\nsquared.write_text(str(x * x))")
    project.notebook("after", "n: int = 1\nsquared: InputFile = Path('data/interim/s.txt')\nout: OutputFile = Path('data/interim/1.txt')",
                     "out.write_text(squared.read_text() * n)")
    project.file("raw/x.txt", "x")
    return project


def test_an_interrupted_sweep_goes_on(tmp_path):
    project = slow_sweep(tmp_path / "study")
    process = project.start("run", "square", "--set", "square.x=1..4")
    until = time.monotonic() + 120
    while not [r for r in project.records() if r["status"] == "succeeded"]:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)   # as a terminal does
    stopped = ended(process)
    assert stopped.code == 130 and "Traceback" not in stopped.err and project.left_over() == []
    assert {r["status"] for r in project.records()} <= {"succeeded", "cancelled"} and "cancelled" in counts(stopped)
    done = sum(r["status"] == "succeeded" for r in project.records())
    assert 1 <= done < 4
    whole = project.run("square", "--set", "square.x=1..4", warm=True)
    assert whole.code == 0 and counts(whole) == {"up to date": done, "succeeded": 4 - done}, whole.out + whole.err
    assert {p: c for p, c in project.outputs().items()} == {f"data/interim/s-x={x}.txt": str(x * x).encode() for x in range(1, 5)}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return slow_sweep(tmp_path_factory.mktemp("sweep") / "study")


REFUSED = {
    "no value": ("square.x", "write it as stage.parameter=values"),
    "an empty value": ("square.x=", "write it as stage.parameter=values"),
    "no stage": ("x=1", "write it as stage.parameter=values"),
    "an unknown stage": ("sqare.x=1", "Did you mean `square`?"),
    "an unknown parameter": ("square.y=1", "has no parameter `y`"),
    "an unknown parameter, near miss": ("square.rat=1", "Did you mean `rate`?"),
    "a value of another type": ("square.x=1,two", "its type is int"),
    "half a whole number": ("square.x=0..1..0.5", "its type is int"),
    "an output": ("square.squared=a,b", "`squared` is a file"),
    "an input": ("square.raw=a,b", "`raw` is a file"),
    "a hole": ("square.x=1,,2", "holds an empty value"),
    "a range that goes down": ("square.x=9..0", "it must go up"),
    "a range that stands still": ("square.x=0..9..0", "its step must be above zero"),
    "a range without end": ("square.x=0..", "is no range of numbers"),
    "a range beyond reason": ("square.x=0..999999999", "holds more than 10,000 values"),
    "a range of letters": ("square.mode=a..z", "is no range of numbers"),
    "values whose names collide": ("square.mode=a/b,a?b", "Two jobs"),
    "a value that climbs": ("square.mode=../../../x", "is no range of numbers"),
    "no number": ("square.rate=nan", "its type is float"),
    "a number beyond all": ("square.rate=1e999", "its type is float"),
}


@pytest.mark.parametrize("given,said", REFUSED.values(), ids=REFUSED)
def test_a_sweep_that_makes_no_sense_is_refused_in_one_line(project, given, said):
    with pytest.raises(WorkflowError) as refused:
        project.look(sets=(given,))
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (project.root / "reports").exists()


def test_a_parameter_varied_twice(project):
    with pytest.raises(WorkflowError, match="`x` is varied twice"):
        project.look(sets=("square.x=1", "square.x=2"))


CHAIN = """
    stages:
      square: {{notebook: nbs/square.ipynb{square}}}
      after: {{notebook: nbs/after.ipynb{after}}}
      last: {{notebook: nbs/last.ipynb, parameters: {{tables: [data/interim/1.txt, raw/x.txt]}}}}
"""


def chain(root, square: str, after: str) -> Project:
    project = slow_sweep(root)
    project.notebook("last", "tables: list[InputFile] = []\nout: OutputFile = Path('data/processed/last.txt')", "out.write_text('x')")
    project.study(CHAIN.format(square=square, after=after))
    return project


def test_whoever_reads_is_widened_too_be_it_by_default_or_in_a_list(tmp_path):
    """`after` reads by its notebook's default, `last` names the file in a list; both must follow, or they would mix sweep and study."""
    jobs = chain(tmp_path, "", "").look(sets=("square.x=1,2",)).jobs
    assert set(jobs) == {f"{stage}/{x}" for stage in ("square", "after", "last") for x in (1, 2)}
    assert jobs["last/2"].given["tables"] == ["data/interim/1-x=2.txt", "raw/x.txt"] and jobs["last/2"].needs == ("after/2",)
    assert jobs["after/2"].needs == ("square/2",)


def test_a_later_stage_that_shares_the_variable_follows_and_one_with_its_own_is_refused(tmp_path):
    shared = chain(tmp_path / "shared", ', for: {x: [1]}, parameters: {x: "{x}", squared: "data/interim/s{x}.txt"}',
                   ', for: {x: [1]}, parameters: {squared: "data/interim/s{x}.txt", out: "data/interim/{x}.txt"}')
    jobs = shared.look("after", sets=("square.x=1..3",)).jobs
    assert set(jobs) == {f"{stage}/{x}" for stage in ("square", "after") for x in (1, 2, 3)}
    assert all(jobs[f"after/{x}"].needs == (f"square/{x}",) for x in (1, 2, 3))
    own = chain(tmp_path / "own", "", ', for: {x: [8, 9]}, parameters: {squared: data/interim/s.txt, out: "data/interim/{x}.txt"}')
    with pytest.raises(WorkflowError, match="stage after, which reads data/interim/s.txt, fans out over a `x` of its own"):
        own.look(sets=("square.x=1,2",))


def test_the_command_line_refuses_a_sweep_with_2(project):
    refused = project.tool("run", "--set", "sqare.x=1")
    assert refused.code == 2 and "Did you mean `square`?" in refused.err and refused.out == "" and "Traceback" not in refused.err


@pytest.mark.parametrize("text,values", [("0..3", ["0", "1", "2", "3"]), ("-2..0", ["-2", "-1", "0"]), ("0..0.3..0.1", ["0", "0.1", "0.2", "0.3"]),
                                         ("3", ["3"]), ("a, b,a", ["a", "b"]), ("1.5..3", ["1.5", "2.5"]), ("7..7", ["7"])])
def test_values_are_spread_out_in_decimal(text, values):
    assert [float(v) if v[0] in "-0123456789" else v for v in spread_out(text)] == [float(v) if v[0] in "-0123456789" else v for v in values]
    assert len(spread_out("0..1..0.1")) == 11
