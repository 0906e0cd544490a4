"""What differs between two runs: nothing missed, nothing invented, and no record that can stop the comparison."""
import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import stats

from esa_notebooks.runs.diff import diff, previous
from esa_notebooks.runs.diff_code import align
from esa_notebooks.runs.parameters import ParameterError
from esa_notebooks.runs.record import RecordError, canonical
from tests.runs.conftest import prose

DECLARE = "from esa_notebooks.runs.declare import result, measurement, figure, table"
DAYS = "days: int = 14   # days\nseed: int = 0   # seed"


class Runs:
    """Records, and where asked executed notebooks, written by hand into a reports folder."""

    def __init__(self, reports: Path):
        self.reports, self.n = reports, 0

    def add(self, *results: dict, cells: list | None = None, stage: str = "train", parameters: dict | None = None,
            types: dict | None = None, **more) -> Path:
        self.n += 1
        folder = self.reports / "runs" / stage / f"20261124T{self.n:06d}Z-{self.n:08x}"
        folder.mkdir(parents=True)
        listed = [{"name": n, "value": v, "type": (types or {}).get(n, "int"), "origin": "given"}
                  for n, v in (parameters or {}).items()]
        record = {"schema": "esa-notebooks/record/1", "run_id": folder.name, "stage": stage, "status": "succeeded",
                  "notebook": {"path": f"nbs/{stage}.ipynb"}, "parameters": listed,
                  "declarations": [{"kind": "result", **r} for r in results], **more}
        (folder / "record.json").write_text(json.dumps(record))
        if cells is not None:
            made = [{"metadata": {}, "outputs": [], "id": f"i{k}", **c} for k, c in enumerate(cells)]
            (folder / "notebook.ipynb").write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4}))
        return folder


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path / "reports")


def code(source: str, **more) -> dict:
    return {"cell_type": "code", "source": source, **more}


def results(found: dict) -> dict:
    return {r["name"]: r for r in found["results"]}


# executed runs ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def executed(shared):
    """One notebook run four times: twice alike, with another parameter, and after editing."""
    body = [DECLARE, "# the score\nscore = 0.5 + days / 100", 'result("score", score, better="higher")\nresult("channels", 9)',
            prose("## What it means"), "print(score)"]
    notebook = shared.write("train", *body, parameters=DAYS)
    first, again, other = (shared.run(notebook, given).folder for given in ({}, {}, {"days": 28}))
    body[1] = "score = 0.5 + days / 100   # the score"
    body[2], body[3] = body[2].replace("9", "10"), prose("## What it really means")
    body.insert(4, "assert score > 0")
    return {"first": first, "again": again, "other": other,
            "edited": shared.run(shared.write("train", *body, parameters=DAYS)).folder}


def test_a_repetition_differs_in_nothing(executed):
    found = diff(executed["first"], executed["again"])
    assert found["sentence"] == "Same parameters, data, code and environment; all 2 results are the same."
    assert found["code"]["cells"] == [] and found["others"] == [] and found["packages"] == []
    assert {r["verdict"] for r in found["environment"]} == {"same"}


def test_another_parameter_is_the_one_reason(executed):
    found = diff(executed["first"], executed["other"])
    assert found["sentence"] == "Same data, code and environment; parameter days 14 → 28; 1 of 2 results differs."
    assert results(found)["score"]["difference"] == pytest.approx(0.14) and results(found)["score"]["direction"] == "better"
    assert len(found["others"]) == 1   # print(score)
    assert found["code"]["cells"] == []   # the injected values are parameters, not code


def test_a_comment_is_not_code_and_an_edit_is(executed):
    found = diff(executed["first"], executed["edited"])
    cells = found["code"]["cells"]
    assert sorted((c["kind"], c["verdict"]) for c in cells) == [
        ("code", "changed"), ("code", "layout"), ("code", "only in B"), ("prose", "changed")]
    (changed,) = [c for c in cells if (c["kind"], c["verdict"]) == ("code", "changed")]
    assert ["-", 'result("channels", 9)'] in changed["lines"] and ["+", 'result("channels", 10)'] in changed["lines"]
    assert found["sentence"] == "Same parameters, data and environment; 2 cells of code differ; 1 of 2 results differs."


def test_every_comparison_is_json_and_turns_round(executed):
    for a in executed.values():
        for b in executed.values():
            there, back = diff(a, b), diff(b, a)
            assert json.loads(json.dumps(there, allow_nan=False)) == there
            for name, r in results(there).items():
                assert r["difference"] is None or r["difference"] == -results(back)[name]["difference"]


def test_the_success_before(executed, runs):
    assert previous(executed["again"]).name == executed["first"].name
    alone = runs.add(parameters={"days": 14})
    later = runs.add(parameters={"days": 28})
    with pytest.raises(RecordError, match=f"with other parameters, is {alone.name}. Name the other run"):
        previous(later)
    runs.add(parameters={"days": 28}, status="failed")
    assert previous(runs.add(parameters={"days": 28})).name == later.name


# results ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("a, b, verdict, difference, note", [
    ({"value": 1}, {"value": 1}, "same", None, ""),
    ({"value": 1}, {"value": True}, "changed", None, "a number in one run only"),
    ({"value": 0.1 + 0.2}, {"value": 0.3}, "changed", 0.3 - (0.1 + 0.2), ""),
    ({"value": 2.0, "unit": "s"}, {"value": 2000.0, "unit": "ms"}, "changed", None, "the unit changed from s to ms"),
    ({"value": None, "why": "no labels"}, {"value": 3}, "changed", None, "missing in A"),
    ({"value": None, "why": "x"}, {"value": None, "why": "y"}, "same", None, ""),
    ({"value": 1.0, "ci": [0.5, 1.5]}, {"value": 1.0, "ci": [0.6, 1.4]}, "changed", 0.0, "only the interval differs"),
    ({"value": "2026-11-24"}, {"value": "2026-11-25"}, "changed", None, ""),
    ({"value": float("nan")}, {"value": 1.0}, "changed", None, "a number in one run only"),
    ({"value": 10 ** 400}, {"value": 1}, "changed", None, "a number in one run only"),
    ({"value": [1, {"x": 2}]}, {"value": [1, {"x": 2}]}, "same", None, ""),
    ({"value": 5.0, "tolerance": 0.1}, {"value": 5.05, "tolerance": 0.1}, "changed", 5.05 - 5.0, "within the tolerance that A states"),
])
def test_two_values(runs, a, b, verdict, difference, note):
    found = diff(runs.add({"name": "x", **a}), runs.add({"name": "x", **b}))
    row = results(found)["x"]
    assert (row["verdict"], row["note"]) == (verdict, note)
    assert row["difference"] is None if difference is None else row["difference"] == pytest.approx(difference)
    json.dumps(found, allow_nan=False)


def test_better_is_what_both_runs_call_better(runs):
    for better, said in ((("higher", "higher"), "better"), (("lower", "lower"), "worse"), (("higher", "lower"), None),
                         (("higher", None), None), (("sideways", "sideways"), None)):
        a, b = (runs.add({"name": "x", "value": v, "better": w}) for v, w in zip((1.0, 2.0), better))
        assert results(diff(a, b))["x"]["direction"] == said


def test_measurements_take_no_part(runs):
    a, b = (runs.add({"name": "x", "value": 1}, {"kind": "measurement", "name": "t", "value": v}) for v in (0.1, 9.0))
    found = diff(a, b)
    assert found["sentence"].endswith("the one result is the same.") and found["measurements"][0]["difference"] == 8.9


def test_one_run_only_and_failures_are_said(runs):
    found = diff(runs.add({"name": "x", "value": 1}, {"name": "y", "value": 2}), runs.add({"name": "x", "value": 1}))
    assert found["sentence"].endswith("the one result is the same, 1 more is declared in one run only.")
    failed = runs.add(status="failed", reason={"what": "out of memory"})
    assert diff(runs.add({"name": "x", "value": 1}), failed)["sentence"].startswith("B failed; ")
    other = diff(runs.add(stage="prepare"), runs.add(stage="train"))["sentence"]
    assert other.startswith("Two different notebooks, nbs/prepare.ipynb and nbs/train.ipynb; ")


# repeats ------------------------------------------------------------------------------------------------------------

def sweep(runs: Runs, days: int, values, seeds=None, **more) -> list[Path]:
    seeds = range(len(values)) if seeds is None else seeds
    return [runs.add({"name": "score", "value": float(v), "better": "higher"}, {"name": "rows", "value": days * 10},
                     parameters={"days": days, "seed": s}, **more) for s, v in zip(seeds, values)]


def test_pairs_are_tested_as_the_textbook_tests_them(runs):
    rng = np.random.default_rng(4)
    x = rng.normal(0.7, 0.1, 8)
    y = x + rng.normal(0.03, 0.01, 8)
    a, b = sweep(runs, 14, x), sweep(runs, 28, y)
    found = diff(a[3], b[3])
    test, told = found["repeats"]["tests"]["score"], stats.ttest_rel(y, x)
    assert test["n"] == 8 and test["p"] == pytest.approx(told.pvalue)
    assert test["interval"] == pytest.approx(list(told.confidence_interval()))
    assert test["difference"] == pytest.approx((y - x).mean()) and test["significant"]
    assert test["adjusted"] == test["p"]   # rows do not vary, so only one p-value was looked at
    assert found["repeats"]["tests"]["rows"]["p"] is None
    assert found["sentence"].endswith("2 of 2 results differ; 1 beyond chance over 8 pairs of repeats.")


def test_many_results_are_corrected_together(runs):
    rng = np.random.default_rng(2)
    for days, shift in ((14, 0.0), (28, 1.1)):
        for seed in range(6):
            runs.add(*({"name": f"r{k}", "value": rng.normal() + shift * (k == 0)} for k in range(10)),
                     parameters={"days": days, "seed": seed})
    first, second = (sorted((runs.reports / "runs" / "train").iterdir())[k] for k in (0, 6))
    tests = diff(first, second)["repeats"]["tests"]
    assert len(tests) == 10 and all(t["adjusted"] >= t["p"] for t in tests.values())
    assert min(t["adjusted"] for t in tests.values()) == pytest.approx(min(1, 10 * min(t["p"] for t in tests.values())))


def test_pairs_are_by_seed_and_the_latest_of_a_seed_counts(runs):
    a = sweep(runs, 14, [0.1, 0.2, 0.3, 0.4], seeds=[3, 1, 4, 7])
    b = sweep(runs, 28, [0.35, 0.5, 0.15, 0.9], seeds=[4, 1, 3, 9])
    b += sweep(runs, 28, [0.25], seeds=[1])
    found = diff(a[0], b[0])["repeats"]
    assert found["pairs"] == ["seed 3", "seed 1", "seed 4"]
    assert found["tests"]["score"]["difference"] == pytest.approx(0.05) and found["tests"]["score"]["n"] == 3
    assert diff(a[0], b[1])["repeats"]["tests"]["score"]["difference"] != pytest.approx(0.05)   # asked about, so it stays


@pytest.mark.parametrize("other", [
    {"code": {"modules": {"study.features": "2" * 64}}}, {"code": {"cells": [{"sha256": "2"}]}}, {"status": "failed"},
    {"environment": {"lock_sha256": "2"}}, {"inputs": [{"name": "x", "path": "x", "sha256": "2"}]}, {"interactive": True},
    {"settings": {"llm.endpoint": "x"}}], ids=lambda o: next(iter(o)))
def test_what_is_not_a_repeat_is_not_counted(runs, other):
    a, b = sweep(runs, 14, [0.1, 0.2, 0.3]), sweep(runs, 28, [0.2, 0.3])
    sweep(runs, 28, [0.5], seeds=[2], **other)
    found = diff(a[0], b[0])["repeats"]
    assert not found["tests"] and found["why"].startswith("2 pairs of runs: no significance can be stated")
    sweep(runs, 28, [0.5], seeds=[2])
    assert diff(a[0], b[0])["repeats"]["tests"]["score"]["n"] == 3


def test_without_repeats_nothing_is_claimed(runs):
    a, b = sweep(runs, 14, [0.1]), sweep(runs, 28, [0.2])
    assert diff(a[0], b[0])["repeats"]["why"].startswith("one run each: no significance can be stated")
    c, d = runs.add(parameters={"days": 1}), runs.add(parameters={"days": 2})
    assert diff(c, d)["repeats"]["why"] == "one run each: no significance can be stated"
    e = sweep(runs, 14, [0.1, 0.2, 0.4])
    assert "repeats of one another" in diff(e[0], e[1])["repeats"]["why"]


def test_repeats_over_a_named_parameter(runs):
    types = {"model": "InputFile", "scores": "OutputFile"}
    for days in (14, 28):
        for fold in range(4):
            runs.add({"name": "score", "value": 0.5 + 0.01 * days * (1 + 0.1 * fold)}, types=types, parameters={
                "days": days, "fold": fold, "model": f"models/{days}-{fold}.pt", "scores": f"data/processed/{days}-{fold}.csv"},
                inputs=[{"name": "model", "path": f"models/{days}-{fold}.pt", "sha256": f"{days}{fold}"}])
    a, b = (sorted((runs.reports / "runs" / "train").iterdir())[k] for k in (0, 4))
    assert not diff(a, b)["repeats"]["tests"]
    found = diff(a, b, over=["fold", "model"])["repeats"]
    assert found["pairs"] == [f"fold {k}" for k in range(4)] and found["tests"]["score"]["n"] == 4
    with pytest.raises(ParameterError, match="Did you mean `fold`"):
        diff(a, b, over=["folds"])


# data, figures, tables ----------------------------------------------------------------------------------------------

def test_files(runs):
    def reads(*files):
        return runs.add(inputs=[dict(zip(("name", "path", "sha256", "made_by"), f)) for f in files])

    found = diff(reads(("x", "a.csv", "1", "r1"), ("y", "b.csv", "2"), ("z", "c.csv", "3"), ("old", "o.csv", "4")),
                 reads(("x", "a.csv", "1", "r2"), ("y", "b.csv", "9"), ("z", "d.csv", "3"), ("new", "n.csv", "5")))
    assert {r["name"]: r["verdict"] for r in found["inputs"]} == {
        "x": "same", "y": "changed", "z": "moved", "old": "only in A", "new": "only in B"}
    assert "3 of 5 inputs differ" in found["sentence"] and found["inputs"][0]["b"]["made_by"] == "r2"
    many = diff(reads(("s", "1", "a"), ("s", "2", "b")), reads(("s", "1", "a"), ("s", "3", "b")))   # a source's files
    assert [r["verdict"] for r in many["inputs"]] == ["same", "only in A", "only in B"]


def shown(kind: str, name: str, svg: str = "", **d) -> dict:
    from esa_notebooks.runs.declare import MIME
    declared = {"kind": kind, "name": name, "caption": f"{name} caption", **d}
    return code(f"{kind}({name!r})", outputs=[{"output_type": "display_data", "metadata": {}, "data": {
        MIME: declared, **({"image/svg+xml": svg} if svg else {})}}])


def with_outputs(runs: Runs, *cells: dict) -> Path:
    from esa_notebooks.runs.declare import MIME
    folder = runs.add(cells=list(cells))
    record = json.loads((folder / "record.json").read_text())
    record["declarations"] = [o["data"][MIME] for c in cells for o in c.get("outputs", [])]
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_figure_is_compared_by_what_it_draws(runs):
    svg = "<svg xmlns='http://www.w3.org/2000/svg'>{}</svg>"
    a = with_outputs(runs, shown("figure", "gaps", svg.format("1"), sha256="x"), shown("figure", "lied", svg.format("1"), sha256="s"))
    b = with_outputs(runs, shown("figure", "gaps", svg.format("1"), sha256="y"), shown("figure", "lied", svg.format("2"), sha256="s"))
    assert [f["verdict"] for f in diff(a, b)["figures"]] == ["same", "changed"]


def test_tables(runs):
    columns = [{"name": "channel"}, {"name": "missing", "unit": "%", "numeric": True}]

    def table(*rows, columns=columns, n=None):
        return with_outputs(runs, shown("table", "gaps", columns=columns, rows=[list(r) for r in rows], n_rows=n or len(rows),
                                        sha256=str(rows)))

    base = table(("bus", 1.0), ("wheel", 2.0))
    (t,) = diff(base, table(("wheel", 2.5), ("bus", 1.0), ("panel", None)))["tables"]
    assert (t["by"], t["changed"]) == ("channel", 2)
    assert [[c["difference"] for c in r["cells"]] for r in t["rows"]] == [[None, 0.5], [None, None]]
    (t,) = diff(table(("bus", 1.0), ("bus", 2.0)), table(("bus", 1.0), ("bus", 3.0)))["tables"]
    assert (t["by"], t["changed"]) == ("place", 1)
    (t,) = diff(table(("bus", 1.0), ("bus", 2.0)), table(("bus", 1.0)))["tables"]
    assert t["note"] == "2 rows in A, 1 in B, with no column that names them."
    (t,) = diff(base, table(("bus", 1.0), ("wheel", 2.0), columns=[columns[0], {**columns[1], "unit": "s"}]))["tables"]
    assert t["note"] == "Other columns: without missing (%) and with missing (s)."
    (t,) = diff(table(("bus", 1.0), n=900), table(("bus", 1.1), n=901))["tables"]
    assert "rows that were kept of 900 and 901" in t["note"]


# code by commit, packages by lock -----------------------------------------------------------------------------------

@pytest.fixture
def repository(tmp_path):
    """A git repository with two commits of one module and one lock, and their hashes."""
    root = tmp_path / "project"
    (root / "study").mkdir(parents=True)
    (root / "requirements").mkdir()

    def commit(module: str, lock: str) -> str:
        (root / "study" / "features.py").write_text(module)
        (root / "requirements" / "lock.txt").write_text(lock)
        mine = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
        for args in (("init", "-q"), ("add", "."), (*mine, "commit", "-qm", "x")):
            subprocess.run(["git", "-C", root, *args], check=True, capture_output=True,
                           env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
        return subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()

    return root, commit("WINDOW = 14\n", "numpy==2.3.0\nscipy==1.16.0\n"), commit("WINDOW = 28\n", "numpy==2.3.1\nscipy==1.16.0\n")


def at(runs: Runs, commit: str, numpy: str, digest: str, **git) -> Path:
    lock = canonical([sorted({"numpy": numpy, "scipy": "1.16.0"}.items())])
    return runs.add(git={"commit": commit, "dirty": False, **git}, environment={"lock_sha256": lock, "differs_from_lock": []},
                    code={"modules": {"study.features": digest, "study": "0"}})


def test_modules_and_packages_between_commits(runs, repository):
    root, old, new = repository
    found = diff(at(runs, old, "2.3.0", "1"), at(runs, new, "2.3.1", "2"), root)
    (module,) = found["code"]["modules"]
    assert module["lines"] == [["-", "WINDOW = 14"], ["+", "WINDOW = 28"]] and found["code"]["modules_why"] == ""
    assert found["packages"] == [{"name": "numpy", "a": "2.3.0", "b": "2.3.1", "verdict": "changed"}]
    assert "lock and 1 package differ" in found["sentence"]
    dirty = diff(at(runs, old, "2.3.0", "1"), at(runs, old, "2.3.0", "2", dirty=True), root)
    assert dirty["code"]["modules"][0]["lines"] == [] and dirty["code"]["modules_why"].startswith("B had changes")


@pytest.mark.parametrize("commit, why", [("0" * 40, "commit 0000000000 of B is not in this repository"),
                                         ("--output=stolen", "the record of B names no commit"), (None, "names no commit")])
def test_a_commit_that_is_no_commit(runs, repository, commit, why):
    root, old, _ = repository
    found = diff(at(runs, old, "2.3.0", "1"), at(runs, commit, "9", "2"), root)
    assert why in found["code"]["modules_why"] and why in found["packages_why"] and found["packages"] == []
    assert not list(root.glob("**/stolen*")) and not Path("stolen").exists()


def test_a_lock_is_believed_only_with_its_digest(runs, repository):
    root, old, new = repository
    found = diff(at(runs, old, "2.3.0", "1"), at(runs, new, "tampered", "1"), root)
    assert found["packages"] == [] and "is not the one the run recorded" in found["packages_why"]


def test_git_runs_no_program_of_the_repository(runs, repository, tmp_path):
    root, old, new = repository
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for key in ("diff.external", "diff.x.textconv", "core.pager"):
        subprocess.run(["git", "-C", root, "config", key, str(trap)], check=True)
    (root / ".git" / "info").mkdir(exist_ok=True)
    (root / ".git" / "info" / "attributes").write_text("*.py diff=x\n")
    assert diff(at(runs, old, "2.3.0", "1"), at(runs, new, "2.3.1", "2"), root)["code"]["modules"][0]["lines"]
    assert not (tmp_path / "sprung").exists()


# what may be wrong --------------------------------------------------------------------------------------------------

def test_no_notebook_to_compare(runs):
    a, b = runs.add(code={"cells": [{"sha256": "1"}]}, cells=[code("x = 1")]), runs.add(code={"cells": [{"sha256": "2"}]})
    found = diff(a, b)
    assert found["code"]["why"] == "of B: the run left no executed notebook" and found["code"]["cells_differ"]
    assert "the cells of code differ" in found["sentence"]
    (b / "notebook.ipynb").write_text('{"cells": [{"cell_type": "code", "source": 5}], "nbformat": 4}')
    assert "cannot be read" in diff(a, b)["code"]["why"]


def test_a_record_of_another_version_is_refused(runs):
    a, b = runs.add(), runs.add(schema="esa-notebooks/record/0")
    with pytest.raises(RecordError, match="not a record of this version"):
        diff(a, b)


def test_two_long_notebooks_with_nothing_in_common(runs):
    a, b = (runs.add(cells=[code("\n".join(f"{w}{n}_{k} = {w}({n})" for k in range(12))) for n in range(150)]) for w in ("f", "g"))
    started = time.process_time()
    found = diff(a, b)
    assert len(found["code"]["cells"]) >= 150 and time.process_time() - started < 12


def test_too_many_cells_are_still_aligned():
    cells = [{"cell_type": "code", "source": f"x{n} = {n}", "id": f"c{n}", "number": n} for n in range(450)]
    later = [c for c in cells if c["number"] != 200]
    pairs = align(cells, later)
    assert [x["number"] for x, y in pairs if y is None] == [200] and len(pairs) == 450


JUNK = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["name", "kind", "value", "path", "sha256", "cells", "modules", "rows", "columns", "x"]), inner, max_size=4),
                    max_leaves=12)
KINDS = st.sampled_from(["result", "measurement", "figure", "table", "answer", "missing"])
DECLARED = st.lists(st.fixed_dictionaries({"kind": KINDS, "name": JUNK | st.just("x"), "value": JUNK, "ci": JUNK, "unit": JUNK,
                                           "rows": JUNK, "columns": JUNK, "sha256": JUNK, "cell": JUNK, "better": JUNK}), max_size=3)
RECORDS = st.fixed_dictionaries({}, optional={"declarations": DECLARED | JUNK, **dict.fromkeys(
    ("notebook", "parameters", "inputs", "outputs", "code", "git", "environment", "settings", "reason", "started"), JUNK)})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(RECORDS, RECORDS)
def test_no_record_stops_a_comparison(tmp_path_factory, first, then):
    folder = tmp_path_factory.mktemp("junk")
    for name, record in (("a", first), ("b", then)):
        (folder / name).mkdir()
        whole = {"schema": "esa-notebooks/record/1", "status": "succeeded", **record}
        (folder / name / "record.json").write_text(json.dumps(whole))
    found = diff(folder / "a", folder / "b")
    json.dumps(found, allow_nan=False)
    assert found["sentence"].endswith(".")
