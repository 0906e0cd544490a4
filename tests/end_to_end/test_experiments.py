"""Two experiments and their comparison, through the notebooks, in a copy of the project; what is refused before."""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from esa_notebooks.data import opssat
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.data.tables import save_table
from esa_notebooks.models.published import published

from .conftest import ROOT, copy_project, records, tool

EXPERIMENT, FAMILIES = "nbs/pipeline/experiment.ipynb", "esa_notebooks.models.detectors"
METRICS = ("accuracy", "precision", "recall", "f1", "mcc", "auc_pr", "auc_roc")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return copy_project(tmp_path_factory.mktemp("experiments") / "project")


def of(name: str, **parameters: str) -> list[str]:
    """Arguments that give the notebook a detector and places for what it writes."""
    given = {
        "detector": f"{FAMILIES}.{name}",
        "seeds": "[2137]",
        "scores": f"data/interim/scores/{name}.parquet",
        "model": f"data/interim/models/{name}.zip",
    } | parameters
    return [part for key, value in given.items() for part in ("-p", f"{key}={value}")]


@pytest.fixture(scope="module")
def told(project) -> SimpleNamespace:
    """The records of two experiments, with a model kept of the first, and of their comparison."""
    df, meta = opssat.read(obtain_configured("opssat").files["dataset.csv"])
    save_table(df, project / "data/processed/opssat.parquet", meta)
    ended = [
        tool(project, "execute", EXPERIMENT, *of("linear.LR", folds="3", keep_model="true")),
        tool(project, "execute", EXPERIMENT, *of("neighbours.KNN")),
        tool(
            project,
            "execute",
            "nbs/pipeline/compare.ipynb",
            "-p",
            'scores=["data/interim/scores/linear.LR.parquet", "data/interim/scores/neighbours.KNN.parquet"]',
        ),
    ]
    for one in ended:
        assert one.code == 0, one.err
    assert [r["status"] for r in records(project)] == ["succeeded"] * 3
    return SimpleNamespace(**dict(zip(("lr", "knn", "compared"), records(project), strict=True)))


@pytest.fixture
def mirrored(require, request) -> SimpleNamespace:
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set")
    return request.getfixturevalue("told")


def results(record: dict) -> dict[str, dict]:
    return {d["name"]: d for d in record["declarations"] if d["kind"] == "result"}


def test_an_experiment_declares_its_figures_with_intervals(mirrored):
    for record, name in ((mirrored.lr, "LR"), (mirrored.knn, "KNN")):
        told, paper = results(record), published().loc[name]
        assert set(METRICS) <= told.keys()
        for metric in METRICS:
            low, high = told[metric]["ci"]
            assert low <= told[metric]["value"] <= high and low < high
        assert (
            abs(told["auc_pr"]["value"] - paper.auc_pr) <= 0.03
            and abs(told["auc_roc"]["value"] - paper.auc_roc) <= 0.03
        )
        page = (record["folder"] / "report.html").read_text()
        assert (
            f"{name} ranks the 529 test segments, 113 of them anomalous" in page
            and f"the paper reports {paper.auc_pr:.3f}" in page
        )
    assert "calibration_error" in results(mirrored.lr) and "calibration_error" not in results(mirrored.knn)
    assert "the training rows were not folded in this run" in (mirrored.knn["folder"] / "report.html").read_text()


def test_what_the_experiment_read_and_made_is_on_record(mirrored, project):
    told = pd.read_parquet(project / "data/interim/scores/linear.LR.parquet")
    assert told.part.value_counts().to_dict() == {"train": 1594, "test": 529}
    names = {i["path"] for i in mirrored.knn["inputs"]}
    assert {"data/processed/opssat.parquet", "esa_notebooks/models/assets/published_opssat.csv"} <= names
    assert {o["path"] for o in mirrored.knn["outputs"]} == {
        "data/interim/scores/neighbours.KNN.parquet",
        "data/interim/models/neighbours.KNN.zip",
    }
    assert f"{FAMILIES}.neighbours" in mirrored.knn["code"]["modules"], "a named detector belongs to the key"


def test_mlflow_has_the_runs_and_the_one_model(mirrored, project):
    with closing(sqlite3.connect(project / "mlflow.db")) as db:
        runs = sorted(db.execute("select name, status from runs"))
        tags = {v for (v,) in db.execute("select value from tags where key = 'esa.run_id'")}
        digests = {v for (v,) in db.execute("select digest from datasets")}
        (models,) = db.execute("select count(*) from logged_models").fetchone()
    assert runs == [(name, "FINISHED") for name in ("KNN", "LR", "seed 2137", "seed 2137")] and models == 1
    assert tags >= {mirrored.lr["folder"].name, mirrored.knn["folder"].name}
    (sha,) = {i["sha256"] for i in mirrored.lr["inputs"] if i["path"] == "data/processed/opssat.parquet"}
    assert digests == {sha[:16]}


def test_the_comparison_puts_both_beside_the_paper(mirrored):
    told, page = results(mirrored.compared), (mirrored.compared["folder"] / "report.html").read_text()
    best = max((mirrored.lr, mirrored.knn), key=lambda r: results(r)["auc_pr"]["value"])
    assert told["auc_pr"]["value"] == results(best)["auc_pr"]["value"] and "LR" in told["auc_pr"]["label"]
    assert told["unsupervised_auc_pr"]["value"] == results(mirrored.knn)["auc_pr"]["value"]
    assert told["rows_met_either"]["value"] == told["rows_met_mean"]["value"] == told["rows_met_seed"]["value"] == 2
    assert "LR has the highest AUC-PR of 2 detectors" in page and "not executed" in page
    frozen = json.loads((ROOT / "esa_notebooks/models/assets/champion.json").read_text())["frozen_commit"][:12]
    assert frozen in page, "the report shows the commit of the freeze"
    assert {d["name"] for d in mirrored.compared["declarations"] if d["kind"] == "figure"} >= {
        "leaderboard",
        "channels",
        "precision_recall",
        "calibration",
    }


@pytest.mark.slow
def test_no_anomaly_in_the_test_rows_reaches_the_report_as_such(mirrored, project):
    """Figures without an answer are missing, with the reason; a table of one's own is not held against the paper."""
    df, meta = opssat.read(obtain_configured("opssat").files["dataset.csv"])
    df.loc[df.split == "test", "anomaly"] = 0
    save_table(df, project / "data/processed/calm.parquet", replace(meta, dataset="calm"))
    ended = tool(
        project,
        "execute",
        EXPERIMENT,
        *of(
            "linear.LR",
            prepared="data/processed/calm.parquet",
            folds="3",
            scores="data/interim/scores/calm.parquet",
            model="data/interim/models/calm.zip",
        ),
    )
    assert ended.code == 0, ended.err
    told = results(records(project)[-1])
    assert (
        all(told[name]["value"] is None for name in ("recall", "mcc", "auc_pr", "auc_roc"))
        and told["precision"]["value"] == 0
    )
    page = (records(project)[-1]["folder"] / "report.html").read_text()
    assert (
        "there is no anomaly" in page
        and "the test rows are all of one class" in page
        and "the paper reports" not in page
    )


# What is refused before a kernel starts.


@pytest.mark.parametrize("arguments, words", [
    (of("linear.LSV"), ("The module esa_notebooks.models.detectors.linear defines no 'LSV'", "Did you mean `LSVC`")),
    (of("lineal.LR"), ("The project has no module", "lineal.LR", "Did you mean")),
    (of("linear.LR", protocol="oficial"), ("`protocol` is 'oficial'", "Did you mean `official`")),
    (of("linear.LR", seeds="[1, x]"), ("`seeds`", "list[int]")),
    (of("linear.LR", prepared="data/processed/none.parquet"), ("data/processed/none.parquet",)),
    (of("linear.LR") + ["-p", "buget=3"], ("no parameter `buget`", "Did you mean `budget`")),
])  # fmt: skip
def test_a_misspelt_parameter_is_refused_before_anything_starts(project, arguments, words):
    (project / "data/processed").mkdir(parents=True, exist_ok=True)
    stand_in = project / "data/processed/opssat.parquet"
    if not stand_in.exists():
        stand_in.write_bytes(b"nobody reads it")
    before = len(records(project))
    ended = tool(project, "execute", EXPERIMENT, *arguments)
    assert ended.code != 0 and "Traceback" not in ended.err
    for word in words:
        assert word in ended.err, ended.err
    assert len(records(project)) == before, "nothing was executed"
