"""The main job as a user has it: run, read, verify. On real data, with no network."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from esa_notebooks import style
from esa_notebooks.data.cards import check_card
from esa_notebooks.settings import load
from esa_notebooks.study import look
from tests.conftest import require
from tests.end_to_end.conftest import DATASETS, ROOT, SIGNALS, STUDIED, copy_project, counts, environment, records, tool


def test_the_study_runs_without_a_network(studied):
    require("unshare", bool(studied.alone), "this machine gives no network namespace")
    assert studied.ended.code == 0, studied.ended.err[-3000:]


def test_every_notebook_succeeded(studied):
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set, so some data sets are not obtained")
    runs = {(r["stage"], p["value"]): r["status"] for r in records(studied.project)
            for p in r["parameters"] if p["name"] == "prepared"}
    expected = {(stage, f"data/processed/{d}.parquet"): "succeeded" for d in STUDIED for stage in ("prepare", "explore", "quality")
                if stage != "explore" or d in SIGNALS}
    assert runs == expected and len(runs) == 11


def test_every_data_set_has_a_card_and_an_honest_score(studied):
    made = sorted((studied.project / "data" / "processed").glob("*.croissant.json"))
    assert len(made) == len(list((studied.project / "data" / "processed").glob("*.parquet"))) >= 2
    for path in made:
        assert check_card(path) is not None
        (table,) = [f for f in json.loads(path.read_text())["distribution"] if f["@id"] == "table"]
        assert hashlib.sha256((path.parent / table["contentUrl"]).read_bytes()).hexdigest() == table["sha256"]
    for r in (r for r in records(studied.project) if r["stage"] == "quality"):
        results = {d["name"]: d for d in r["declarations"] if d["kind"] == "result"}
        parts = [d["value"] for name, d in results.items() if name != "readiness" and d["value"] is not None]
        assert abs(sum(parts) / len(parts) - results["readiness"]["value"]) < 1.001 and len(results) == 10
        assert all(d["why"] for d in results.values() if d["value"] is None)


def test_a_broken_contract_stops_the_run_and_shows_the_rows(tmp_path):
    project = copy_project(tmp_path)
    contract = project / "data" / "contracts" / "telemetry.yaml"
    contract.write_text(contract.read_text().replace("bus_load: {unit: W, low: -20, high: 250", "bus_load: {unit: W, low: -20, high: 95"))
    ended = tool(project, "run", "telemetry")
    assert ended.code == 1 and counts(ended) == {"failed": 1, "skipped": 2} and "does not keep its contract" in ended.err
    (only,) = records(project)
    assert only["status"] == "failed" and "does not keep its contract" in only["reason"]["what"]
    assert not list((project / "data" / "processed").glob("*.parquet"))
    page = (only["folder"] / "report.html").read_text()
    table = next(d for d in only["declarations"] if d["kind"] == "table" and d["name"].endswith("in_range"))
    assert len(table["rows"]) == 20 and "The first 20 of" in table["caption"] and "The first 20 of" in page
    assert all(row[[c["name"] for c in table["columns"]].index("value")] > 95 for row in table["rows"])
    answer = next(d["text"] for d in only["declarations"] if d["kind"] == "answer")
    assert "breaks its contract in 1 of" in answer


def test_the_index_and_the_pages_are_there(studied):
    index = (studied.project / "reports" / "index.html").read_text()
    for r in records(studied.project):
        assert r["run_id"] in index
        page = (r["folder"] / "report.html").read_text()
        assert r["notebook"]["question"].split()[0] in page
        assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//(?!doi\.org|zenodo)', re.sub(r"<a [^>]*>", "", page))


def test_progress_is_one_line_an_event(studied):
    lines = studied.ended.err.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  \S", line) for line in lines), "each with its time, and nothing else"
    for run in records(studied.project):
        (line,) = [line for line in lines if run["run_id"] in line]
        assert re.search(rf"Z  succeeded +{run['stage']}/\S+ +\d+\.\d s  reports/runs/", line)
    assert sum("  started  " in line for line in lines) == len(records(studied.project)) == 11
    log = (studied.project / "reports" / "workflow" / "log.txt").read_text().splitlines()
    assert lines == log and "\x1b" not in studied.ended.err


def test_results_are_declared_and_explained(studied):
    for r in records(studied.project):
        kinds = [d["kind"] for d in r["declarations"]]
        assert kinds.count("answer") == 1 and kinds.count("result") >= 2, (r["stage"], kinds)
        assert r["notebook"]["question"] and r["notebook"]["audience"]
        for d in r["declarations"]:
            if d["kind"] == "figure":
                assert len(d["alt"]) > 40 and len(d["caption"]) > 20, d["name"]
            if d["kind"] == "table":
                assert len(d["caption"]) > 20, d["name"]


def test_verify_holds_without_executing(studied):
    ended = tool(studied.project, "verify")
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.count(": holds,") == len(records(studied.project)) and " different " not in ended.out


def test_verify_execute_is_equal_on_every_declared_result(studied):
    before = {p: p.read_bytes() for p in (studied.project / "data" / "processed").iterdir()}
    ended = tool(studied.project, "verify", "--execute", before=studied.alone)
    assert ended.code == 0, ended.out + ended.err
    declared = sum(d["kind"] in ("result", "figure", "table", "answer", "missing")
                   for r in records(studied.project) for d in r["declarations"])
    compared = len(re.findall(r"^  identical +(result|figure|table|answer|missing)", ended.out, re.M))
    assert compared == declared > 30
    assert before == {p: p.read_bytes() for p in (studied.project / "data" / "processed").iterdir()}


def test_a_moved_project_still_verifies(studied, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(studied.project, moved)
    ended = tool(moved, "verify")
    assert ended.code == 0, ended.out + ended.err


def test_a_changed_table_is_named(studied, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(studied.project, changed)
    with open(changed / "data" / "processed" / "shuttle.parquet", "ab") as f:
        f.write(b"\0")
    ended = tool(changed, "verify", "--quiet")
    assert ended.code == 1 and re.search(r"different +output data/processed/shuttle.parquet", ended.out)
    assert re.search(r"different +input data/processed/shuttle.parquet", ended.out)
    assert "telemetry.parquet" not in ended.out


def test_what_cannot_be_obtained_is_shown_and_replaced_by_nothing(tmp_path):
    project = copy_project(tmp_path)
    ended = tool(project, "run", "opssat", ESA_DATA_OFFLINE="true", ESA_DATA_MIRROR="")
    assert ended.code == 0 and "prepare/opssat  not obtained" in ended.err and counts(ended) == {"not obtained": 3}
    assert records(project) == [] and not (project / "data" / "processed").exists()
    index = (project / "reports" / "index.html").read_text()
    assert "not obtained" in index.lower() and "opssat" in index
    alone = tool(project, "execute", "nbs/pipeline/prepare.ipynb", "-p", "dataset=opssat",
                 "-p", "prepared=data/processed/opssat.parquet", "-p", "contract=data/contracts/opssat.yaml", ESA_DATA_OFFLINE="true", ESA_DATA_MIRROR="")
    assert alone.code == 3 and "not obtained" in alone.err and "Traceback" not in alone.err


def test_a_failed_notebook_skips_only_what_stands_on_it(tmp_path):
    project = copy_project(tmp_path)
    path = project / "nbs" / "pipeline" / "prepare.ipynb"
    text = path.read_text()
    path.write_text(text.replace('"%load_ext esa_notebooks.lab', '"%load_ext esa_notebooks.lab\\n1 / 0'))
    assert path.read_text() != text
    ended = tool(project, "run", "telemetry")
    assert ended.code == 1 and counts(ended) == {"failed": 1, "skipped": 2} and "ZeroDivisionError" in ended.err
    (only,) = records(project)
    assert only["status"] == "failed" and "ZeroDivisionError" in only["reason"]["what"]
    assert not (project / "data" / "processed" / "telemetry.parquet").exists()
    index = (project / "reports" / "index.html").read_text()
    assert "failed" in index.lower()


def everything(project) -> dict[str, bytes]:
    """Every file of the project but what only tells that somebody looked: the lock, the memory, Python's caches."""
    return {p.relative_to(project).as_posix(): p.read_bytes() for p in project.rglob("*") if p.is_file()
            and p.name not in ("lock", "seen.json") and "__pycache__" not in p.parts and ".snakemake" not in p.parts}


def test_a_second_run_executes_nothing_and_changes_no_file(studied):
    tool(studied.project, "run", *STUDIED, before=studied.alone)   # other tests may have deleted a page, which is rendered again
    before = everything(studied.project)
    ended = tool(studied.project, "run", *STUDIED, before=studied.alone)
    assert ended.code == 0 and counts(ended) == {"up to date": 11} and ended.err == "", ended.out + ended.err
    assert everything(studied.project) == before


def test_snakemake_is_told_the_same(studied):
    states = tool(studied.project, "plan", *STUDIED).out.splitlines()
    assert states[-1] == "11 up to date" and len(states) == 12
    why = tool(studied.project, "why", "prepare/shuttle")
    assert why.code == 0 and re.search(r"prepare/shuttle  up to date: \S+ has its key and its outputs still hash", why.out)
    status = tool(studied.project, "status", *STUDIED)
    assert status.code == 0 and status.out.count("up to date") >= 11


def test_a_change_in_prose_runs_nothing_and_one_in_code_what_it_touches(studied, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(studied.project, changed)
    path = changed / "nbs" / "pipeline" / "explore.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"].append({"cell_type": "markdown", "id": "new", "metadata": {}, "source": ["A remark."]})
    path.write_text(json.dumps(notebook))
    assert tool(changed, "plan", *STUDIED).out.splitlines()[-1] == "11 up to date"
    notebook["cells"].append({"cell_type": "code", "id": "newer", "metadata": {}, "source": ["1 + 1"], "outputs": [], "execution_count": None})
    path.write_text(json.dumps(notebook))
    said = tool(changed, "plan", *STUDIED).out
    assert said.splitlines()[-1] == "8 up to date, 3 to run" and said.count("code cells of the notebook changed") == 3


def test_the_picture_of_the_workflow_is_the_workflow(studied):
    """docs/workflow.svg, which the README shows, drawn again; `make docs` or whoever drew it draws it anew when this fails."""
    drawn = look(load(ROOT)).picture
    assert (ROOT / "docs" / "workflow.svg").read_text(encoding="utf-8") == style.svg_for_page(drawn)
    assert (studied.project / "reports" / "workflow.svg").read_text(encoding="utf-8") == drawn


@pytest.mark.parametrize("seed", ["1", "3"])   # the order of a set of texts differs between processes
def test_the_picture_is_the_same_in_every_process(seed):
    program = "from esa_notebooks.settings import load; from esa_notebooks.study import look; print(look(load()).picture, end='')"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment(PYTHONHASHSEED=seed), text=True,
                           capture_output=True, check=True)
    assert style.svg_for_page(ended.stdout) == (ROOT / "docs" / "workflow.svg").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_study_comes_out_the_same_twice(tmp_path):
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set, so most data sets are not obtained")
    project = copy_project(tmp_path)
    ended = tool(project, "run", timeout=900)
    assert ended.code == 0, ended.err[-3000:]
    assert len(records(project)) == sum(3 if d in SIGNALS else 2 for d in DATASETS)
    again = tool(project, "verify", "--execute", "--quiet", timeout=900)
    assert again.code == 0, again.out + again.err
