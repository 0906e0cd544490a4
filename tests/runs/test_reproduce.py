"""Reproduce: from a record and a repository to the same numbers, and what is said when that cannot be."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from esa_notebooks.runs.record import RecordError, read_record
from esa_notebooks.runs.reproduce import reproduce
from esa_notebooks.runs.verdict import APART, DIFFERENT, IDENTICAL, UNKNOWN
from esa_notebooks.runs.worktree import NotReproducible, git
from tests.runs.conftest import Study

DECLARE = "from esa_notebooks.runs.declare import measurement, result\nfrom esa_notebooks.settings import setting\nimport time"
MAKE = 'source: InputFile = Path("data/raw/t.csv")  # read\ntable: OutputFile = Path("data/processed/t.txt")  # written'
USE = 'table: InputFile = Path("data/processed/t.txt")  # read\nn: int = 2  # a number'


def commit(study: Study, message: str = "change") -> str:
    git(study.root, "add", "--all")
    git(study.root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--allow-empty", "-m", message)
    return git(study.root, "rev-parse", "HEAD")


def write(study: Study, path: str, text: str) -> None:
    (study.root / path).parent.mkdir(parents=True, exist_ok=True)
    (study.root / path).write_text(text)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A chain of two runs, made at two commits; a third has changed everything since."""
    study = Study(tmp_path_factory.mktemp("original") / "study")
    for path, text in {"lib/__init__.py": "", "lib/used.py": "A = 1\n", "data/raw/t.csv": "a\nb\n", "data/processed/.keep": "",
                       ".gitignore": "data/raw\ndata/processed/*.txt\nreports\nsettings.local.ini\n__pycache__\n",
                       "settings.local.ini": "[study]\nname = mine\n"}.items():
        write(study, path, text)
    make = study.write("make", DECLARE, "import lib.used\nresult('rows', len(source.read_text().split()) * lib.used.A)",
                       "table.write_text('made of ' + source.read_text())", parameters=MAKE)
    use = study.write("use", DECLARE, "result('size', len(table.read_text()) * n)\nresult('name', setting('study.name'))",
                      "measurement('clock', time.perf_counter())", parameters=USE)
    git(study.root, "init", "--quiet")
    commits = [commit(study)]
    made = study.run(make)
    write(study, "README.md", "Other prose.")
    commits.append(commit(study))
    used = study.run(use, {"n": 3})
    for run in (made, used):
        assert run.record["status"] == "succeeded" and run.record["git"]["dirty"] is False, run.record
    write(study, "lib/used.py", "A = 7\n")
    study.write("use", "1 / 0", parameters=USE)
    commits.append(commit(study))
    (study.root / "settings.local.ini").unlink()
    return study, made.folder, used.folder, commits


@pytest.fixture
def chain(original, tmp_path, monkeypatch):
    """A copy to change: (study, run of make, run of use); afterwards, nothing may have been left behind."""
    study, made, used, _ = original
    shutil.copytree(study.root, tmp_path / "copy", symlinks=True)
    copy = Study(tmp_path / "copy")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield copy, copy.only_run("make"), copy.only_run("use")
    assert [p.name for p in temporary.glob("esa-reproduce-*")] == []
    if (copy.root / ".git").is_dir():
        assert len(git(copy.root, "worktree", "list").splitlines()) == 1 and not list((copy.root / ".git").glob("worktrees/*"))


def edit_record(run: Path, **changes) -> None:
    (run / "record.json").write_text(json.dumps(read_record(run) | changes))


def seen(verdict) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for i in verdict.items:
        found.setdefault(i.verdict, []).append(f"{i.what}: {i.detail}")
    return found


def test_a_chain_is_made_again_from_its_commits(chain):
    study, made, used = chain
    (study.root / "data/processed/t.txt").unlink()
    before, said = study.remains(), []
    first, second = reproduce(used, study.settings(), say=said.append)
    assert first.run_id == made.name and second.run_id == used.name
    assert first.holds and second.holds, (seen(first), seen(second))
    assert f"input data/processed/t.txt: made again by run {made.name}" in seen(second)[IDENTICAL]
    assert {"result size: ", "result name: ", "key: ", "settings: ", "code and lock of the commit: "} <= set(seen(second)[IDENTICAL])
    assert {"result rows: ", "output data/processed/t.txt, made again: "} <= set(seen(first)[IDENTICAL])
    assert any(i.startswith("measurement clock: then") for i in seen(second)[APART])
    assert "2 of 2 results identical" in second.sentence and "executed again" in second.sentence
    assert study.remains() == before and len([s for s in said if s.startswith("work tree")]) == 2


def test_inputs_can_be_taken_and_that_is_said(chain, monkeypatch):
    study, made, used = chain
    shutil.rmtree(made)
    kept = (study.root / "data/processed/t.txt").read_text()

    def executed(work, record, tree, python):
        assert (tree / "data/processed/t.txt").read_text() == kept
        return used
    monkeypatch.setattr("esa_notebooks.runs.reproduce._executed", executed)
    with pytest.raises(NotReproducible, match="made by no run that is here.*--take-inputs") as refused:
        reproduce(used, study.settings())
    assert refused.value.code == 3
    (verdict,) = reproduce(used, study.settings(), take=True)
    assert verdict.holds and any("copied from this project" in i for i in seen(verdict)[APART])


def test_other_results_are_named_and_another_input_stops_the_chain(chain):
    study, made, used = chain
    record = read_record(made)
    record["declarations"][0]["value"] += 1
    edit_record(made, declarations=record["declarations"])
    record = read_record(used)
    record["inputs"][0]["sha256"] = "0" * 64
    edit_record(used, inputs=record["inputs"])
    first, second = reproduce(used, study.settings())
    assert first.code == 1 and [i for i in seen(first)[DIFFERENT] if i.startswith("result rows: value: 3 → 2")], seen(first)
    assert not second.holds and not second.executed and second.code == 1
    assert any("did not make the recorded bytes" in i for i in seen(second)[DIFFERENT]) and "not executed" in seen(second)[UNKNOWN][0]


def test_raw_data_that_changed_are_refused(chain):
    study, made, used = chain
    write(study, "data/raw/t.csv", "a\nc\n")
    with pytest.raises(NotReproducible, match="data/raw/t.csv was made by no run") as refused:
        reproduce(made, study.settings(), take=True)
    assert refused.value.code == 3


@pytest.mark.parametrize("path,text,named", [("lib/used.py", "A = 2\n", "module lib.used"), ("README.md", "x", ""),
                                             ("requirements/lock.txt", "numpy==1.0\n", "the lock"),
                                             ("nbs/make.ipynb", None, "cell 5")])
def test_uncommitted_changes(chain, path, text, named, monkeypatch):
    study, made, used = chain
    git(study.root, "checkout", "--quiet", "HEAD~1")
    if text is None:
        text = (study.root / path).read_text().replace("* lib.used.A", "+ lib.used.A")
    write(study, path, text)
    run = study.run(study.root / "nbs/make.ipynb")
    assert run.record["git"]["dirty"] is True and run.record["status"] == "succeeded"
    if named:
        monkeypatch.setattr("esa_notebooks.runs.reproduce._executed", lambda *_: pytest.fail("executed"))
        with pytest.raises(NotReproducible, match=f"uncommitted changes when it ran.*{named}") as refused:
            reproduce(run.folder, study.settings())
        assert refused.value.code == 2
    else:
        monkeypatch.setattr("esa_notebooks.runs.reproduce._executed", lambda *_: run.folder)
        (verdict,) = reproduce(run.folder, study.settings())
        assert verdict.holds and any("none is in the code" in i for i in seen(verdict)[APART])


REFUSED = {
    "no commit": ({"git": {"commit": None, "dirty": None, "why": "not a git checkout with a commit"}}, 2, "names no commit .not a git"),
    "no word of git": ({"git": None}, 2, "names no commit"),
    "an option in place of a commit": ({"git": {"commit": "--upload-pack=x", "dirty": False}}, 2, "is no commit"),
    "a commit that is not here": ({"git": {"commit": "1" * 40, "dirty": False}}, 3, "not in this repository.*git fetch"),
    "another command": ({"command": "esa-notebooks gc --days 0"}, 2, "not one that repeats this run"),
    "a command with an option more": ({"command": "esa-notebooks execute nbs/make.ipynb --help"}, 2, "not one that repeats"),
    "a notebook outside": ({"notebook": {"path": "../x.ipynb"}, "command": "esa-notebooks execute ../x.ipynb"}, 2, "not inside the project"),
    "a notebook never committed": ({"notebook": {"path": "nbs/new.ipynb"}}, 2, "never committed"),
    "a failed run": ({"status": "failed"}, 2, "claims nothing"),
    "an older version": ({"schema": "esa-notebooks/record/0"}, 2, "not a record of this version"),
    "half a record": ({"code": {}}, 2, "`code.cells` is missing"),
    "code that is not the commit's": ({"code": {"cells": [], "modules": {}}}, 2, "The commit is not what ran, though"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_one_line(chain, what):
    study, made, used = chain
    changes, code, said = REFUSED[what]
    edit_record(made, **changes)
    with pytest.raises(ValueError, match=said) as refused:
        reproduce(made, study.settings())
    assert getattr(refused.value, "code", 2) == code and "\n" not in str(refused.value)


def test_without_a_repository(chain):
    study, made, used = chain
    shutil.rmtree(study.root / ".git")
    with pytest.raises(NotReproducible, match="not a git checkout") as refused:
        reproduce(made, study.settings())
    assert refused.value.code == 3


def test_a_shallow_clone_is_told_what_to_do(chain, tmp_path):
    study, made, used = chain
    git(study.root, "clone", "--quiet", "--depth", "1", f"file://{study.root}", str(tmp_path / "shallow"))
    shallow = Study(tmp_path / "shallow")
    shutil.copytree(study.root / "reports", shallow.root / "reports")
    with pytest.raises(NotReproducible, match="git fetch --unshallow"):
        reproduce(shallow.only_run("make"), shallow.settings())


def test_a_run_that_is_its_own_input(chain):
    study, made, used = chain
    record = read_record(made)
    record["inputs"][0] |= {"made_by": made.name, "sha256": "0" * 64}
    edit_record(made, inputs=record["inputs"])
    with pytest.raises(RecordError, match="an input of itself"):
        reproduce(made, study.settings())


def test_a_lock_that_cannot_be_installed(chain, monkeypatch):
    study, made, used = chain
    git(study.root, "checkout", "--quiet", "HEAD~1")
    write(study, "requirements/lock.txt", f"no-such-package-anywhere==1.0 --hash=sha256:{'0' * 64}\n")
    commit(study)
    run = study.run(study.root / "nbs/make.ipynb")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said: list[str] = []
    with pytest.raises(NotReproducible, match="cannot be made: requirements/lock.txt: .*no-such-package-anywhere") as refused:
        reproduce(run.folder, study.settings(), say=said.append)
    assert refused.value.code == 3 and "environment 2/3: requirements/lock.txt" in said


def test_what_the_commit_lacks_is_not_taken_from_today(chain):
    study, made, used = chain
    git(study.root, "checkout", "--quiet", "HEAD~1")
    write(study, "esa_notebooks/__init__.py", "")   # a library of that time, without most of today's
    commit(study)
    run = study.run(study.root / "nbs/make.ipynb")
    assert run.record["status"] == "succeeded" and "esa_notebooks" in run.record["code"]["modules"], run.record["reason"]
    with pytest.raises(NotReproducible, match="not executed: ModuleNotFoundError: No module named 'esa_notebooks.cli'"):
        reproduce(run.folder, study.settings())


def test_an_interrupt_cleans_up(chain):
    study, made, used = chain
    slow = study.write("slow", DECLARE, "import os\nif 'esa-reproduce' in os.getcwd(): time.sleep(60)", "result('x', 1)")
    commit(study)
    run = study.run(slow)
    timer = threading.Timer(6, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        reproduce(run.folder, study.settings())
    assert 5 < time.monotonic() - began < 40
    mine = ["pgrep", "-f", f"{tempfile.gettempdir()}/esa-reproduce-"]
    assert subprocess.run(mine, capture_output=True, text=True).stdout == ""


def test_data_settings_go_along_and_the_key_is_as_recorded(chain, monkeypatch):
    from esa_notebooks.runs.worktree import surroundings
    study, made, used = chain
    monkeypatch.setenv("ESA_WARM", "/nowhere")
    monkeypatch.setenv("ESA_SECRET_KEY", "s")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    tree = study.root.parent / "tree"
    env = surroundings(study.settings(data_mirror="/mirror", study_name="other", run_timeout_s="7"), tree, read_record(used))
    assert env["ESA_DATA_MIRROR"] == "/mirror" and env["ESA_STUDY_NAME"] == "mine" and env["ESA_RUN_TIMEOUT_S"] == "7"
    assert env["PYTHONPATH"] == env["ESA_PROJECT_ROOT"] == str(tree) and env["ESA_SECRET_KEY"] == "s" and "ESA_WARM" not in env
