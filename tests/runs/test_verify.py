"""Keys, records and verify: what may change a result changes the key, and what was changed is named."""
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from esa_notebooks.runs.record import RecordError, alive, find_run, git_state, new_run, read_record, runner
from esa_notebooks.runs.retention import expendable, records
from esa_notebooks.runs.verify import APART, DIFFERENT, IDENTICAL, UNKNOWN, look, rerun
from tests.runs.conftest import Study, code, prose

PARAMETERS = ('table: InputFile = Path("data/raw/t.csv")  # read\nn: int = 2  # a number\n'
              'out: OutputFile = Path("data/processed/t.txt")  # written')
CELLS = ("import lib.used\nfrom esa_notebooks.runs.declare import answer, measurement, result, table as show\n"
         "from esa_notebooks.settings import setting\nimport pandas as pd, time",
         "result('rows', len(table.read_text().splitlines()) * n * lib.used.A)\nname = setting('study.name')",
         "show(pd.DataFrame({'a': [1.5, None]}), caption='Two rows of a table.')\nout.write_text('made')",
         "measurement('took', time.perf_counter(), unit='s')\nanswer('It holds.')",
         "object()", "pd.DataFrame({'a': [1]}).style.highlight_max()")


def fill(study: Study) -> Study:
    for path, text in {"lib/__init__.py": "", "lib/used.py": "A = 1\n", "lib/unused.py": "B = 1\n", "data/raw/t.csv": "a\nb\n",
                       "requirements/lock.txt": "numpy==1.0 \\\n    --hash=sha256:00\n", "requirements/torch.txt": "torch==2\n"}.items():
        (study.root / path).parent.mkdir(parents=True, exist_ok=True)
        (study.root / path).write_text(text)
    study.write("n", *CELLS, parameters=PARAMETERS)
    return study


def key(study: Study, given: dict | None = None, **settings: str) -> str:
    return study.plan(study.root / "nbs" / "n.ipynb", given, **settings).key


def edit(study: Study, path: str, before: str, after: str) -> None:
    text = (study.root / path).read_text()
    assert before in text
    (study.root / path).write_text(text.replace(before, after))


INGREDIENTS = {
    "a line of code": lambda s: edit(s, "nbs/n.ipynb", "* n *", "+ n *"),
    "the order of cells": lambda s: s.write("n", *CELLS[:4], *CELLS[:3:-1], parameters=PARAMETERS),
    "a cell more": lambda s: s.write("n", *CELLS, "1", parameters=PARAMETERS),
    "a default": lambda s: edit(s, "nbs/n.ipynb", "n: int = 2", "n: int = 3"),
    "a module behind an import": lambda s: edit(s, "lib/used.py", "A = 1", "A = 2"),
    "the package above it": lambda s: (s.root / "lib/__init__.py").write_text("X = 1"),
    "a byte of the input": lambda s: edit(s, "data/raw/t.csv", "b", "c"),
    "a version in the lock": lambda s: edit(s, "requirements/lock.txt", "1.0", "1.1"),
    "the version of torch": lambda s: edit(s, "requirements/torch.txt", "2", "3"),
    "a declared setting": lambda s: (s.root / "settings.ini").write_text("[study]\nname = other\n"),
    "the kernel": lambda s: edit(s, "nbs/n.ipynb", '"name": "python3"', '"name": "another"'),
}
OTHER = {
    "prose": lambda s: edit(s, "nbs/n.ipynb", "Does it hold?", "Does it really hold?"),
    "a prose cell more": lambda s: s.write("n", prose("More."), *CELLS, parameters=PARAMETERS),
    "a comment": lambda s: s.write("n", "# why\n" + CELLS[0], *CELLS[1:], parameters=PARAMETERS),
    "a comment in a module": lambda s: edit(s, "lib/used.py", "A = 1", "A = 1   # one"),
    "an unused module": lambda s: edit(s, "lib/unused.py", "B = 1", "B = 2"),
    "a touched file": lambda s: os.utime(s.root / "data/raw/t.csv", (1, 1)),
    "help of a parameter": lambda s: edit(s, "nbs/n.ipynb", "# a number", "# some number"),
    "another setting": lambda s: (s.root / "settings.ini").write_text("[data]\nmirror = /elsewhere\n"),
    "a hash in the lock": lambda s: edit(s, "requirements/lock.txt", "sha256:00", "sha256:11"),
    "outputs left in the source": lambda s: edit(s, "nbs/n.ipynb", '"outputs": []', '"outputs": [{"output_type": "stream"}]'),
}


@pytest.mark.parametrize("what", INGREDIENTS)
def test_an_ingredient_changes_the_key(study, what):
    before = key(fill(study))
    INGREDIENTS[what](study)
    assert key(study) != before


@pytest.mark.parametrize("what", OTHER)
def test_nothing_else_does(study, what):
    before = key(fill(study))
    OTHER[what](study)
    assert key(study) == before


def test_the_place_of_the_project_and_of_the_output_do_not_matter(study, tmp_path):
    before = key(fill(study))
    shutil.move(study.root, tmp_path / "moved")
    moved = Study(tmp_path / "moved")
    assert key(moved) == before == key(moved, {"out": "data/interim/elsewhere.txt"})
    assert key(moved, {"n": 2}) == before != key(moved, {"n": 5})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    study = fill(Study(tmp_path_factory.mktemp("original") / "study"))
    return study, study.run(study.root / "nbs" / "n.ipynb")


@pytest.fixture
def made(original, tmp_path):
    """A copy of a project with one finished run: (study, folder of the run)."""
    study, run = original
    assert run.record["status"] == "succeeded", run.record["reason"]
    shutil.copytree(study.root, tmp_path / "copy", symlinks=True)
    copy = Study(tmp_path / "copy")
    return copy, copy.only_run("n")


def verdicts(study: Study, run, again: bool = False) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = {}
    result = rerun(run, study.settings(), quiet=True) if again else look(run, study.settings())
    for item in result.items:
        seen.setdefault(item.verdict, []).append(f"{item.what}: {item.detail}")
    return seen | {"holds": result.holds}


def test_untouched_holds_and_runs_again_to_the_same_twice(made):
    study, run = made
    assert verdicts(study, run)["holds"]
    output = (study.root / "data/processed/t.txt").stat().st_mtime_ns
    for _ in range(2):
        seen = verdicts(study, run, again=True)
        assert seen["holds"] and DIFFERENT not in seen, seen
        assert any(i.startswith("result rows") for i in seen[IDENTICAL])
        assert [i for i in seen[APART] if i.startswith("measurement took: then")]
    assert (study.root / "data/processed/t.txt").stat().st_mtime_ns == output
    assert [p.name for p in (study.root / "reports/runs/n").iterdir()] == [run.name]


TAMPERED = {
    "input": ("data/raw/t.csv", "b", "c", "input data/raw/t.csv"),
    "output": ("data/processed/t.txt", "made", "mode", "output data/processed/t.txt"),
    "module": ("lib/used.py", "A = 1", "A = 7", "changed: lib.used"),
    "cell": ("nbs/n.ipynb", "* n *", "+ n *", "code of the notebook"),
    "lock": ("requirements/lock.txt", "1.0", "1.1", "lock"),
    "default": ("nbs/n.ipynb", "n: int = 2", "n: int = 3", "parameters"),
    "number in the record": ("RUN/record.json", '"value": 4', '"value": 5', "record and notebook tell the same"),
    "number in the notebook": ("RUN/notebook.ipynb", '"value": 4', '"value": 5', "file notebook.ipynb"),
    "hash in the record": ("RUN/record.json", '"key": "', '"key": "0', "key"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_is_named(made, what):
    study, run = made
    path, before, after, named = TAMPERED[what]
    edit(study, path.replace("RUN", str(run.relative_to(study.root))), before, after)
    seen = verdicts(study, run)
    assert not seen["holds"] and any(named in item for item in seen[DIFFERENT]), seen


@pytest.mark.parametrize("gone,verdict", [("data/processed/t.txt", DIFFERENT), ("data/raw/t.csv", UNKNOWN), ("nbs/n.ipynb", UNKNOWN)])
def test_what_is_gone_is_named(made, gone, verdict):
    study, run = made
    (study.root / gone).unlink()
    seen = verdicts(study, run)
    assert not seen["holds"] and any(gone.rsplit("/")[-1] in item for item in seen[verdict]), seen


def test_other_code_is_not_executed_under_the_old_name(made):
    study, run = made
    edit(study, "lib/used.py", "A = 1", "A = 7\nopen('executed', 'w')")
    seen = verdicts(study, run, again=True)
    assert not seen["holds"] and any("not executed again" in i for i in seen[UNKNOWN])
    assert not (study.root / "executed").exists()


@pytest.mark.parametrize("cell,named", [
    ("import time; result('now', time.time())", "result now"),
    ("import random; result('x', random.random())", "result x"),
    ("import time; print(time.time_ns())", "other outputs"),
    ("import os; answer(f'pid {os.getpid()}')", "answer")])
def test_what_does_not_reproduce_is_different(study, cell, named):
    run = study.run(study.write("n", "from esa_notebooks.runs.declare import answer, result", cell))
    seen = verdicts(study, run.folder, again=True)
    assert not seen["holds"] and any(named in item for item in seen[DIFFERENT]), seen


def test_a_failed_run_claims_nothing(study):
    seen = verdicts(study, study.run(study.write("n", "1 / 0")).folder, again=True)
    assert not seen["holds"] and "claims nothing" in seen[UNKNOWN][0]


def test_runs_started_at_once_have_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: new_run(tmp_path, "n", "0" * 64), range(20)))
    assert len(set(made)) == 20


def test_four_runners_at_once(study):
    for n in range(4):
        study.write(f"n{n}", f"out.write_text('{n}' * 1000)", parameters=f'out: OutputFile = Path("data/processed/{n}.txt")  # x')
    started = [study.runner(study.root / "nbs" / f"n{n}.ipynb") for n in range(4)]
    assert [p.communicate(timeout=100)[1] or p.returncode for p in started] == [0] * 4
    assert [study.result(study.only_run(f"n{n}")).record["status"] for n in range(4)] == ["succeeded"] * 4
    assert {p.read_text() for p in (study.root / "data/processed").iterdir()} == {str(n) * 1000 for n in range(4)}


@pytest.mark.parametrize("text,said", [("", "cannot be read"), ("{", "cannot be read"), ("[]", "not a record"),
                                       ('{"schema": "esa-notebooks/record/0"}', "not a record of this version"),
                                       ('{"schema": "esa-notebooks/record/1", "status": "fine"}', "not a record")])
def test_a_broken_record_is_named(tmp_path, text, said):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=said):
        read_record(tmp_path)


def test_a_run_is_found_by_the_beginning_of_its_id(made):
    study, run = made
    reports = study.root / "reports"
    assert find_run(reports, run.name[:9]) == find_run(reports, "latest") == find_run(reports, str(run)) == run
    for name in ("2019", ""):
        with pytest.raises(RecordError, match="No run is called"):
            find_run(reports, name)


def test_a_runner_is_alive_only_as_itself():
    record = {"ended": None, "runner": runner()}
    assert alive(record) and not alive(record | {"ended": "x"})
    for other in ({"host": "elsewhere"}, {"boot_id": "another"}, {"pid": 2**22 + 1}):
        assert not alive({"ended": None, "runner": runner() | other})


def git(root, *args: str) -> str:
    return subprocess.run(["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org", *args], check=True,
                          capture_output=True, text=True).stdout.strip()


def test_git_states(study, monkeypatch):
    assert git_state(study.root) == {"commit": None, "dirty": None, "why": "not a git checkout with a commit"}
    git(study.root, "init", "-q")
    assert git_state(study.root)["commit"] is None, "a repository without a commit"
    git(study.root, "add", "."), git(study.root, "commit", "-qm", "first")
    head = git(study.root, "rev-parse", "HEAD")
    assert git_state(study.root) == {"commit": head, "dirty": False, "why": None}
    (study.root / "new").touch()
    assert git_state(study.root)["dirty"] is True
    nested = study.root / "nested"
    nested.mkdir()
    assert git_state(nested)["commit"] is None, "somebody else's repository around it"
    (nested / ".git-commit").write_text("$Format:%H$\n")
    assert git_state(nested)["commit"] is None
    (nested / ".git-commit").write_text(head + "\n")
    assert git_state(nested) == {"commit": head, "dirty": None, "why": "unpacked from an archive"}
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state(study.root)["why"] == "git is not installed"


def test_gc_leaves_what_cannot_be_read(made):
    study, run = made
    broken = run.parent / "20200101T000000Z-00000000"
    broken.mkdir()
    (broken / "record.json").write_text("{")
    assert [f for f, _ in records(study.root / "reports")] == [run]
    assert expendable(study.root / "reports", days=0, keep=0) == [] and broken.exists()


def test_an_interactive_run_is_not_the_latest_success(made):
    study, run = made
    record = json.loads((run / "record.json").read_text()) | {"interactive": True, "started": "2020-01-01T00:00:00Z"}
    (run / "record.json").write_text(json.dumps(record))
    assert expendable(study.root / "reports", days=1, keep=0) == [run]


def test_code_cells_are_shown_where_they_are(study):
    run = study.run(study.write("n", code("from esa_notebooks.runs.declare import result\nresult('x', 1)")))
    (declared,) = run.record["declarations"]
    assert declared["cell"] == 3 and declared["cell_id"] == "c3" and run.record["cells"][3]["id"] == "c3"
