"""What re-runs and what does not: every ingredient of a key is changed once, and every thing that is none."""
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time

import pytest

from esa_notebooks.runs.workflow import WorkflowError
from tests.workflow.conftest import ALL, EXPERIMENTS, PREPARES, Project, counts

FOREST = {e for e in EXPERIMENTS if "forest" in e}


def with_what_stands_on(direct: set[str]) -> set[str]:
    """By the study as it was written down: experiments stand on the table of their data set, the ranking on all experiments."""
    found = set(direct) | {e for e in EXPERIMENTS if f"prepare/{e[11]}" in direct}
    return found | ({"leaderboard/all"} if found & EXPERIMENTS else set())


def replace(path: str, old: str, new: str):
    def change(project: Project) -> None:
        text = (project.root / path).read_text()
        assert old in text, "the mutation would change nothing"
        project.file(path, text.replace(old, new))
    return change


def edit_json(path: str, edit):
    def change(project: Project) -> None:
        content = json.loads((project.root / path).read_text())
        before = json.dumps(content)
        edit(content)
        assert json.dumps(content) != before, "the mutation would change nothing"
        project.file(path, json.dumps(content, indent=2))
    return change


def edit_record(stage: str, edit):
    def change(project: Project) -> None:
        record = next(r for r in project.records() if r["stage"] == stage)
        edit_json((record["folder"] / "record.json").relative_to(project.root).as_posix(), edit)(project)
    return change


def job_of(project: Project, stage: str) -> str:
    """The job whose record `edit_record` edits."""
    record = next(r for r in project.records() if r["stage"] == stage)
    return f"{stage}/{re.search('/([ab])[.]csv', str(record['parameters']))[1]}"


def flip(path: str, at: int = 0):
    def change(project: Project) -> None:
        full = project.root / path
        content = bytearray(full.read_bytes())
        content[at] ^= 1
        full.chmod(0o644)
        full.write_bytes(content)
    return change


def later_cell(notebook: dict) -> None:
    notebook["cells"].append({"cell_type": "code", "id": "new", "metadata": {}, "source": "1 + 1", "outputs": [], "execution_count": None})


def other_kernel(notebook: dict) -> None:
    notebook["metadata"]["kernelspec"]["name"] = "python3-gpu"


ENTRY = "    resources: {cpu: 1, memory_gib: 1, minutes: 5}\n"
FIRST = {"prepare/a", "prepare/b", "listen/all"}   # what stands on nothing
INGREDIENTS = {
    "a code cell": (replace("nbs/prepare.ipynb", "str(factor * v)", "str(factor * v * SCALE)"), PREPARES, "code cell 2 of the notebook changed"),
    "a code cell more": (edit_json("nbs/prepare.ipynb", later_cell), PREPARES, "code cells of the notebook changed; it has 1 more"),
    "a parameter's default": (replace("nbs/prepare.ipynb", "factor: int = 3", "factor: int = 4"), PREPARES,
                              "parameter factor changed: 3 → 4"),
    "a parameter more": (replace("nbs/prepare.ipynb", "factor: int = 3", "offset: int = 0\\nfactor: int = 3"), PREPARES,
                         "parameter offset is new"),
    "a parameter in the workflow": (replace("workflow/study.yaml", "raw: \"raw/{dataset}.csv\"", "factor: 5, raw: \"raw/{dataset}.csv\""),
                                    PREPARES, "parameter factor changed: 3 → 5"),
    "an input byte": (flip("raw/a.csv"), {"prepare/a"}, "input raw/a.csv changed"),
    "a byte of a source": (flip("data/raw/shuttle/shuttle.csv.gz", 1000), {"listen/all"}, "input data/raw/shuttle/shuttle.csv.gz changed"),
    "one detector": (replace("mylib/forest.py", "/ DEPTH", "* DEPTH"), FOREST, "module mylib.forest changed"),
    "a helper of one detector": (replace("mylib/trees.py", "3", "4"), FOREST, "module mylib.trees changed"),
    "a helper that is new": (replace("mylib/forest.py", "from mylib.trees", "import mylib.unrelated\nfrom mylib.trees"), FOREST,
                             "modules mylib.forest, mylib.unrelated changed"),
    "a shared module": (replace("mylib/common.py", "SCALE = 2", "SCALE = 3"), PREPARES, "module mylib.common changed"),
    "the package itself": (lambda p: p.file("mylib/__init__.py", "NAME = 1"), PREPARES, "module mylib changed"),
    "a docstring, which code can read": (replace("mylib/trees.py", "DEPTH", '"""Trees."""\nDEPTH'), FOREST, "module mylib.trees changed"),
    "the lock": (replace("requirements/lock.txt", "pandas==3.1.0", "pandas==3.1.1"), FIRST, "the lock changed"),
    "a second lock": (lambda p: p.file("requirements/torch.txt", "torch==2.13.0\n"), FIRST, "the lock changed"),
    "the kernel": (edit_json("nbs/experiment.ipynb", other_kernel), EXPERIMENTS, "the kernel changed: python3 → python3-gpu"),
    "a setting that a cell names": (lambda p: p.file("settings.ini", "[study]\nname = ours\n"), {"listen/all"},
                                    "setting study.name changed: esa_notebooks → ours"),
    "the same setting on this machine": (lambda p: p.file("settings.local.ini", "[study]\nname = mine\n"), {"listen/all"},
                                         "setting study.name changed: esa_notebooks → mine"),
    "an output deleted": (lambda p: (p.root / "data/processed/a.csv").unlink(), {"prepare/a"}, "output data/processed/a.csv is gone"),
    "an output edited": (flip("data/processed/a.csv"), {"prepare/a"}, "output data/processed/a.csv is not what the run wrote"),
    "a result in the middle deleted": (lambda p: (p.root / "data/interim/a-mylib.forest-0.json").unlink(), {"experiment/a-mylib.forest-0"},
                                       "output data/interim/a-mylib.forest-0.json is gone"),
    "the last output deleted": (lambda p: (p.root / "data/processed/ranking.txt").unlink(), {"leaderboard/all"},
                                "output data/processed/ranking.txt is gone"),
    "an output's place": (replace("workflow/study.yaml", "processed/ranking.txt", "processed/order.txt"), {"leaderboard/all"}, "never run"),
}


@pytest.mark.parametrize("change,direct,why", INGREDIENTS.values(), ids=INGREDIENTS)
def test_an_ingredient_re_runs_what_it_touches_and_says_why(copied, change, direct, why):
    assert copied.stale() == {}
    change(copied)
    stale = copied.stale()
    assert set(stale) == with_what_stands_on(direct)
    for job in direct:
        assert why in stale[job] and stale[job].count("; ") == why.count("; "), stale[job]
    assert all("it stands on" in stale[job] for job in set(stale) - direct)


def test_the_first_run_succeeded(finished):
    assert finished.first.code == 0, finished.first.err[-3000:]
    assert finished.first.out.startswith("10 succeeded") and len(finished.records()) == 10 and set(finished.look().jobs) == ALL
    assert finished.left_over() == []


def test_another_python_re_runs_everything(copied, monkeypatch):
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    stale = copied.stale()
    assert set(stale) == ALL and all(stale[j].endswith("→ 3.99.0") and stale[j].startswith("Python changed: 3.") for j in FIRST)


def test_an_output_that_is_a_folder_now_is_refused(copied):
    (copied.root / "data/processed/ranking.txt").unlink()
    (copied.root / "data/processed/ranking.txt").mkdir()
    with pytest.raises(WorkflowError, match="data/processed/ranking.txt, which is a folder"):
        copied.look()


def test_a_setting_from_the_environment_counts_like_one_from_the_file(copied):
    assert copied.stale(study_name="theirs") == {"listen/all": "setting study.name changed: esa_notebooks → theirs"}
    assert copied.stale(run_timeout_s="77") == {}


RECORDS = {
    "removed": (lambda p: next(r for r in p.records() if r["stage"] == "prepare")["folder"].joinpath("record.json").unlink(), "never run"),
    "failed after all": (edit_record("prepare", lambda r: r.update(status="failed")), "the last attempt failed"),
    "killed after all": (edit_record("prepare", lambda r: r.update(status="killed")), "the last attempt was killed"),
    "of a later version": (edit_record("prepare", lambda r: r.update(schema="esa-notebooks/record/9")), "never run"),
    "of an older version": (edit_record("prepare", lambda r: r.update(schema="esa-notebooks/record/0")), "never run"),
    "no object": (lambda p: next(r for r in p.records() if r["stage"] == "prepare")["folder"].joinpath("record.json").write_text("[]"), "never run"),
    "cut off": (lambda p: next(r for r in p.records() if r["stage"] == "prepare")["folder"].joinpath("record.json").write_text('{"schema'),
                "never run"),
    "deeply nested": (lambda p: next(r for r in p.records() if r["stage"] == "prepare")["folder"].joinpath("record.json").write_text("[" * 10**5),
                      "never run"),
    "empty": (lambda p: next(r for r in p.records() if r["stage"] == "prepare")["folder"].joinpath("record.json").write_text(""), "never run"),
    "a folder": (lambda p: (next(r for r in p.records() if r["stage"] == "prepare")["folder"].joinpath("record.json").unlink(),
                            next(iter(sorted((p.root / "reports/runs/prepare").iterdir()))).joinpath("record.json").mkdir()), "never run"),
    "with other outputs": (edit_record("prepare", lambda r: r["outputs"][0].update(sha256="0" * 64)), "is not what the run wrote"),
    "with outputs outside": (edit_record("prepare", lambda r: r["outputs"][0].update(path="../../etc/passwd")), "key is not that of"),
    "without outputs": (edit_record("prepare", lambda r: r.update(outputs=[])), "key is not that of"),
    "with outputs that are none": (edit_record("prepare", lambda r: r.update(outputs=7)), ""),
    "with another key": (edit_record("prepare", lambda r: r.update(key="0" * 64)), "key is not that of"),
    "with a key that is none": (edit_record("prepare", lambda r: r.update(key=None)), ""),
    "interactive": (edit_record("prepare", lambda r: r.update(interactive=True)), "never run"),
    "with names for parameters": (edit_record("prepare", lambda r: r.update(parameters="abc")), "never run"),
}


@pytest.mark.parametrize("change,why", RECORDS.values(), ids=RECORDS)
def test_a_record_that_does_not_answer_is_never_up_to_date(copied, change, why):
    job = job_of(copied, "prepare")
    change(copied)
    stale = copied.stale()
    assert set(stale) == with_what_stands_on({job}) and why in stale[job], stale[job]


def test_failed_edited_to_succeeded_does_not_stand_without_its_outputs(copied):
    """A failed run has no outputs in its record; whoever turns its status has to invent them, hash and all."""
    record = next(r for r in copied.records() if r["stage"] == "prepare")
    job, path = job_of(copied, "prepare"), record["folder"] / "record.json"
    for outputs in ([], [{**record["outputs"][0], "sha256": "f" * 64}], [{**record["outputs"][0], "path": "data/processed/../processed/a.csv"}]):
        path.write_text(json.dumps({k: v for k, v in record.items() if k != "folder"} | {"status": "failed", "outputs": []}))
        assert job in copied.stale()
        path.write_text(json.dumps({k: v for k, v in record.items() if k != "folder"} | {"outputs": outputs}))
        assert job in copied.stale()


def touch_everything(project: Project) -> None:
    for path in project.root.rglob("*"):
        os.utime(path)


def saved_in_jupyter(notebook: dict) -> None:
    for n, cell in enumerate(notebook["cells"]):
        cell["id"] = f"other{n}"
        if cell["cell_type"] == "code":
            cell.update(execution_count=n, outputs=[{"output_type": "stream", "name": "stdout", "text": "seen"}])
    notebook["metadata"]["kernelspec"]["display_name"] = "My Python"
    notebook["metadata"]["language_info"] = {"name": "python", "version": "3.13"}


def commit(project: Project) -> None:
    for args in (["init", "-q"], ["add", "mylib", "nbs"], ["-c", "user.name=n", "-c", "user.email=n@example.org", "commit", "-qm", "one"]):
        subprocess.run(["git", *args], cwd=project.root, check=True, capture_output=True)


def in_workflow_folder(pattern: str, do):
    def change(project: Project) -> None:
        found = sorted((project.root / "reports" / "workflow").glob(pattern))
        assert found
        for path in found:
            do(path)
    return change


def a_folder_instead(path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


NO_INGREDIENTS = {
    "touched": touch_everything,
    "a comment in a module": replace("mylib/common.py", "# what every module multiplies by", "# another remark\n\n# and one more"),
    "a comment in a cell": replace("nbs/prepare.ipynb", "values = [", "# floats\\n\\nvalues = ["),
    "layout of a cell": replace("nbs/prepare.ipynb", "str(factor * v)", "str( factor*v )"),
    "prose": replace("nbs/prepare.ipynb", "What is written.", "What is written, and why."),
    "title and question": replace("nbs/prepare.ipynb", "> Does it hold?", "> Does it still hold?"),
    "help of a parameter": replace("nbs/prepare.ipynb", "# what every value is multiplied by", "# factor"),
    "saved by Jupyter with outputs": edit_json("nbs/prepare.ipynb", saved_in_jupyter),
    "a comment in the lock": replace("requirements/lock.txt", "pandas==", "# via evidence\n\n   \npandas=="),
    "hashes in the lock": replace("requirements/lock.txt", "sha256:00", "sha256:11"),
    "order of the lock": lambda p: p.file("requirements/lock.txt", "pandas==3.1.0\nnumpy==2.4.6\n"),
    "a module nobody imports": replace("mylib/unrelated.py", "this", "that"),
    "a setting nobody names": lambda p: p.file("settings.ini", "[run]\ntimeout_s = 1234\n[tracking]\nuri = sqlite:///other.db\n"),
    "a commit": commit,
    "files added": lambda p: [p.file(n, "new") for n in ("raw/c.csv", "mylib/new.py", "data/processed/c.csv", "nbs/x.txt", "README.md")],
    "resources": replace("workflow/study.yaml", "minutes: 5", "minutes: 6"),
    "what a stage is about": replace("workflow/study.yaml", "raw numbers become a table", "numbers become tables"),
    "the title": replace("workflow/study.yaml", "Two detectors", "A pair of detectors"),
    "comments and anchors of the workflow": replace("workflow/study.yaml", "*datasets, detector", "[a, b], detector"),
    "a default said in the workflow": replace("workflow/study.yaml", 'raw: "raw', 'factor: 3, raw: "raw'),
    "order of the fan-out's values": replace("workflow/study.yaml", "seed: [0, 1]", "seed: [1, 0]"),
    "key files deleted": in_workflow_folder("*/*.key", lambda p: p.unlink()),
    "key files damaged": in_workflow_folder("*/*.key", lambda p: p.write_text("{")),
    "receipts deleted": in_workflow_folder("*/*.done", lambda p: p.unlink()),
    "receipts damaged": in_workflow_folder("*/*.done", lambda p: p.write_bytes(b"\xff\x00")),
    "state files damaged": in_workflow_folder("*/*.state", lambda p: p.write_text("[[[")),
    "plan.json deleted": in_workflow_folder("plan.json", lambda p: p.unlink()),
    "plan.json damaged": in_workflow_folder("plan.json", lambda p: p.write_text("][")),
    "the memory deleted": in_workflow_folder("seen.json", lambda p: p.unlink()),
    "the memory damaged": in_workflow_folder("seen.json", lambda p: p.write_text('{"spine x": 7, "a": [[], []]}')),
    "the folder of keys deleted": lambda p: shutil.rmtree(p.root / "reports/workflow"),
    "pages deleted": lambda p: [f.unlink() for f in (p.root / "reports").rglob("*.html")],
    "stray things among the runs": lambda p: [p.file(f"reports/runs/{n}", "x") for n in ("stray", "prepare/stray", "prepare/.hidden/record.json")],
}


@pytest.mark.parametrize("change", NO_INGREDIENTS.values(), ids=NO_INGREDIENTS)
def test_what_is_no_ingredient_re_runs_nothing(copied, change):
    change(copied)
    assert copied.stale() == {}


def test_all_of_it_at_once_and_run(copied):
    """The same, as a user: nothing is executed, keys and receipts are mended, pages are back."""
    for name, change in NO_INGREDIENTS.items():
        if not name.endswith("damaged") and name not in ("the folder of keys deleted", "plan.json deleted", "order of the lock"):
            change(copied)
    for folder in ("prepare/a.done", "experiment/b-mylib.forest-0.key"):
        copied.file(f"reports/workflow/{folder}", "{")
    before = copied.run_ids()
    ended = copied.run()
    assert ended.code == 0 and counts(ended) == {"up to date": 10} and copied.run_ids() == before, ended.out + ended.err
    assert all((r["folder"] / "report.html").is_file() for r in copied.records())
    assert {p.name for p in (copied.root / "reports/workflow/prepare").glob("*.[kd]*")} == {"a.key", "a.done", "b.key", "b.done"}


def test_an_edit_that_hides_its_date_and_size_is_seen(copied):
    """What is remembered of a file is worth nothing once the file's entry has changed, whatever date it bears."""
    time.sleep(2.1)
    study = copied.look()
    study.memory.save()
    path = copied.root / "data/processed/a.csv"
    assert any(str(path) in name for name in json.loads((study.folder / "seen.json").read_text())), "it was not remembered"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b"3", b"4"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert set(copied.stale()) == with_what_stands_on({"prepare/a"})


# The same, executed

def test_what_was_said_is_what_is_executed_and_a_chain_is_cut_off_early(copied):
    """One detector changes, and upstream a code cell that changes no byte. Everything stands on the cell; nearly all is up to date
    when its turn comes, within the same invocation."""
    replace("nbs/prepare.ipynb", "str(factor * v)", "str(v * factor)")(copied)
    assert set(copied.stale()) == with_what_stands_on(PREPARES)
    replace("mylib/forest.py", "/ DEPTH", "* DEPTH")(copied)
    before = copied.run_ids()
    ended = copied.run(warm=True)
    assert ended.code == 0 and counts(ended) == {"succeeded": 6, "up to date": 4}, ended.out + ended.err
    new = [r for r in copied.records() if r["run_id"] not in before]
    assert sorted(r["stage"] for r in new) == ["experiment"] * 3 + ["leaderboard"] + ["prepare"] * 2
    assert all("mylib.forest" in str(r["parameters"]) for r in new if r["stage"] == "experiment")
    assert copied.stale() == {}


# Snakemake is told, and does not guess

def snakemake(project: Project, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "snakemake", "-s", "workflow/Snakefile", "--cores", "2", *args], cwd=project.root,
                          env=project.environment(), capture_output=True, text=True, timeout=120)


def wants(project: Project) -> set[str]:
    """The jobs that a bare Snakemake would run."""
    dry = snakemake(project, "-n")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    return set(re.findall(r"^\s*output: reports/workflow/(\S+)\.done$", dry.stdout + dry.stderr, re.M))


def test_snakemake_wants_what_plan_says(copied):
    before = copied.outputs()
    touch_everything(copied)
    assert copied.tool("plan").out.splitlines()[-1] == "10 up to date" and wants(copied) == set()
    replace("mylib/trees.py", "3", "4")(copied)
    planned = copied.tool("plan")
    assert wants(copied) == with_what_stands_on(FOREST) and planned.out.splitlines()[-1] == "6 up to date, 4 to run"
    replace("mylib/trees.py", "4", "3")(copied)
    (copied.root / "data/processed/ranking.txt").unlink()
    flip("data/interim/b-mylib.threshold-0.json")(copied)
    assert copied.tool("plan").code == 0 and wants(copied) == {"leaderboard/all", "experiment/b-mylib.threshold-0"}
    ran = snakemake(copied)
    assert ran.returncode == 0 and copied.outputs() == before, "what was deleted or edited is made again byte for byte" + ran.stderr
    assert wants(copied) == set() and copied.stale() == {} and len(copied.records()) == 12


def test_snakemake_without_a_plan_says_who_makes_one(tmp_path):
    project = Project(tmp_path)
    ended = snakemake(project, "-n")
    assert ended.returncode != 0 and "`esa-notebooks plan` writes it" in ended.stderr


def test_a_new_study_is_wanted_whole(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "new", ignore=shutil.ignore_patterns("reports", "interim", "processed"))
    project = Project(tmp_path / "new")
    assert project.tool("plan").code == 0 and wants(project) == ALL
