"""The main job as a user has it: run, read, verify. On real data, with no network."""
import os
import re
import shutil

import pytest

from tests.conftest import require
from tests.end_to_end.conftest import copy_project, records, tool


def test_the_study_runs_without_a_network(studied):
    require("unshare", bool(studied.alone), "this machine gives no network namespace")
    assert studied.ended.code == 0, studied.ended.err[-3000:]


def test_every_notebook_of_every_data_set_succeeded(studied):
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set, so opssat is not obtained")
    runs = {(r["stage"], p["value"]): r["status"] for r in records(studied.project)
            for p in r["parameters"] if p["name"] == "prepared"}
    datasets = ("telemetry", "shuttle", "opssat")
    assert runs == {(s, f"data/processed/{d}.parquet"): "succeeded" for s in ("prepare", "explore") for d in datasets}


def test_the_index_and_the_pages_are_there(studied):
    index = (studied.project / "reports" / "index.html").read_text()
    for r in records(studied.project):
        assert r["run_id"] in index
        page = (r["folder"] / "report.html").read_text()
        assert r["notebook"]["question"].split()[0] in page
        assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//(?!doi\.org|zenodo)', re.sub(r"<a [^>]*>", "", page))


def test_progress_is_one_line_an_event(studied):
    lines = [line for line in studied.ended.err.splitlines() if re.search(r"cell \d+/\d+", line)]
    assert len(lines) > 20 and all(re.search(r"completed  \d+\.\d\d s", line) for line in lines)


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
    assert ended.code == 0 and "opssat  not obtained" in ended.err and "1 not obtained" in ended.out
    assert records(project) == [] and not (project / "data" / "processed").exists()
    index = (project / "reports" / "index.html").read_text()
    assert "not obtained" in index.lower() and "opssat" in index
    alone = tool(project, "execute", "nbs/pipeline/prepare.ipynb", "-p", "dataset=opssat",
                 "-p", "prepared=data/processed/opssat.parquet", ESA_DATA_OFFLINE="true", ESA_DATA_MIRROR="")
    assert alone.code == 3 and "not obtained" in alone.err and "Traceback" not in alone.err


def test_a_failed_notebook_skips_only_what_stands_on_it(tmp_path):
    project = copy_project(tmp_path)
    path = project / "nbs" / "pipeline" / "prepare.ipynb"
    text = path.read_text()
    path.write_text(text.replace('"%load_ext esa_notebooks.lab', '"%load_ext esa_notebooks.lab\\n1 / 0'))
    assert path.read_text() != text
    ended = tool(project, "run", "telemetry")
    assert ended.code == 1 and "explore telemetry  skipped" in ended.err
    (only,) = records(project)
    assert only["status"] == "failed" and "ZeroDivisionError" in only["reason"]["what"]
    assert not (project / "data" / "processed" / "telemetry.parquet").exists()
    index = (project / "reports" / "index.html").read_text()
    assert "failed" in index.lower()
