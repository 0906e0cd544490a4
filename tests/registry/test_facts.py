"""Findings about a detector: on small made-up data, and all of them on the published table."""

import os
import sys
from datetime import date, datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import opssat
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.data.tables import save_table
from esa_notebooks.gate.comparison import Terms
from esa_notebooks.gate.evidence import absent
from esa_notebooks.gate.policy import read_policy
from esa_notebooks.models.cost import Cost
from esa_notebooks.models.detectors.linear import LR
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.experiment import run, task_of
from esa_notebooks.models.scores import Scores, save_scores
from esa_notebooks.registry.declaration import Declaration, Monitoring
from esa_notebooks.registry.facts import running
from esa_notebooks.registry.facts.dependencies import dependencies
from esa_notebooks.registry.facts.detector import Subject, gather, gather_all
from esa_notebooks.registry.facts.figures import by_channel, calibration, comparison, paired, slices
from esa_notebooks.registry.facts.licences import _allows, closure, licences
from esa_notebooks.registry.facts.reexecution import executed_again, maker_of, reexecution

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 25, tzinfo=timezone.utc)
TERMS = Terms(margin=0.02, amount=0.01)
PLAN = Declaration("opssat-anomalies", "detector", "Anomalies", "Finds them", "ops", "operational", "public", "minimal", 4, "AUC-PR 0.9",
                   date(2027, 1, 1), ("opssat",), Monitoring(30, 1.0, "ops@example.org", "esa-notebooks run", ("CADC0872",)), "back", 365)


def scores(name="new", strength=2.0, seed=0, n=400, channels=("A", "B"), **about) -> Scores:
    rng, block = np.random.default_rng(seed), np.arange(n) // 5
    y = (np.random.default_rng(99).random(n // 5) < 0.3).astype(int)[block]
    channel = np.asarray(channels, dtype=object)[np.minimum(block * len(channels) // (n // 5), len(channels) - 1)]
    score = strength * y + rng.standard_normal(n)
    rows = pd.DataFrame({"part": "test", "seed": 0, "row": range(n), "segment": range(n), "channel": channel, "block": block, "y": y,
                         "score": score, "decision": score > 1})
    return Scores({"detector": name, "dataset": "mini", "protocol": "official", "seeds": [0]} | about, rows)


def test_two_versions_of_one_detector_can_be_compared():
    pair = paired(scores("ET", 3), scores("ET", 1, seed=1))
    assert pair.old != pair.new and set(pair.board.said) == {pair.old, pair.new}
    found = comparison(scores("ET", 3), scores("ET", 1, seed=1), TERMS)
    assert found.values["difference"] > 0 and found.values["low"] > 0 and "as it stands" in found.values["against"]


@pytest.mark.parametrize("old, words", [
    (scores(dataset="other"), "other"), (scores(protocol="blocked"), "protocol"), (scores("old", n=200), "other rows"), (None, "nothing to compare")])
def test_what_cannot_be_compared_is_absent_with_its_reason(old, words):
    for found in (comparison(scores(), old, TERMS), slices(scores(), old)):
        assert not found.found and words in found.said


def test_one_class_gives_no_number_and_no_exception():
    dull = scores()
    dull = dull._replace(rows=dull.rows.assign(y=0))
    found = comparison(dull, dull._replace(about=dull.about | {"detector": "old"}), TERMS)
    assert not found.found or not np.isfinite(found.values["difference"])
    assert slices(dull, dull).values["slices"] == 0 and not calibration(dull).found


def test_slices_are_wider_together_and_the_small_ones_are_counted():
    new, old = scores("new", 2.2, channels=("A", "B", "C")), scores("old", 2, seed=1, channels=("A", "B", "C"))
    three = by_channel(paired(new, old), n_resamples=800).set_index("slice")
    alone = [s._replace(rows=s.rows[s.rows.channel == "A"]) for s in (new, old)]
    one = by_channel(paired(*alone), n_resamples=800).set_index("slice")
    assert three.difference["A"] == one.difference["A"] and three.low["A"] < one.low["A"] and three.high["A"] > one.high["A"]
    few = [s._replace(rows=s.rows.assign(channel=np.where(s.rows.row < 30, "few", "many"))) for s in (new, old)]
    found = slices(*few, n_resamples=400).values
    assert (found["slices"], found["insufficient"], found["too_small"]) == (1, 1, ["few"])


def test_the_slice_that_is_surely_worse_is_not_hidden_by_a_vaguer_one():
    old = scores("old", 3, channels=("sure", "vague"))
    spoilt = np.where(old.rows.channel == "sure", -old.rows.score, old.rows.score)
    found = slices(old._replace(about=old.about | {"detector": "new"}, rows=old.rows.assign(score=spoilt)), old).values
    assert found["shown_worse"] == ["sure"] and found["worst_high"] < 0 and found["worst"] == "sure"


@pytest.mark.parametrize("expression, told", [("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True),
                                              ("(MIT OR X) AND (X OR Y)", False), ("MIT AND (X OR MIT)", True), ("X WITH Y", False)])
def test_expressions(expression, told):
    assert _allows(expression, {"MIT"}) is told


def test_packages_behind_and_packages_that_are_not_there():
    assert set(closure(["requests[socks]"])) > set(closure(["requests"])) and closure(["no-such-package-here"]) == {"no-such-package-here": None}
    assert licences(["no-such-package-here"], {"MIT"}).values["unknown"] == ["no-such-package-here"]
    assert not licences(["not a requirement ==="], {"MIT"}).found


def test_dependencies(tmp_path):
    (tmp_path / "lock.txt").write_text("pytorch-lightning==2.6.3 \\\n    --hash=sha256:0\ntorch==2.9.1+cpu\nPyTorch_Lightning-x==1\n")
    found = dependencies({"torch": "2.10"}, {"pytorch_lightning": ["2.6.3"]}, [tmp_path / "lock.txt"])
    assert found.values["below_floor"] == ["locked: torch 2.9.1+cpu, below 2.10"]
    assert found.values["denied"] == ["locked: pytorch-lightning 2.6.3"]
    assert not dependencies({"torch": "two"}, {}, [tmp_path / "lock.txt"]).found and not dependencies({}, {}, [tmp_path / "none"]).found


@pytest.mark.parametrize("program", ["import os; os._exit(9)", "print('{not json')", "print('[]')", ""])
def test_a_reexecution_that_does_not_answer(tmp_path, program):
    found = executed_again("run", tmp_path, timeout_s=60, command=[sys.executable, "-c", program])
    assert not found.found and "run" in found.said


def test_a_reexecution_is_not_told_that_a_run_is_going_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ESA_RUN_ID", "outer")
    monkeypatch.setenv("ESA_RUN_PUBLISHES", "0")
    program = "import os, json; print(json.dumps({'runs': [{'run': 'r', 'executed': True, 'items': [{'what': k, 'verdict': 'different', " \
              "'detail': ''} for k in os.environ if k.startswith('ESA_RUN')]}]}))"
    found = executed_again("r", tmp_path, timeout_s=60, command=[sys.executable, "-c", program])
    assert found.values["different"] == 0 and found.values["verdict"] != "identical"   # nothing was compared


def test_files_that_no_run_made(tmp_path):
    (tmp_path / "s.parquet").write_bytes(b"x")
    assert maker_of(tmp_path / "s.parquet", tmp_path, tmp_path / "reports") is None and maker_of(tmp_path / "t", tmp_path, tmp_path) is None
    assert maker_of(ROOT / "README.md", tmp_path, tmp_path) is None and not reexecution(tmp_path / "t", tmp_path, tmp_path).found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    if not os.environ.get("ESA_DATA_MIRROR"):
        return None
    folder = tmp_path_factory.mktemp("facts")
    df, meta = opssat.read(obtain_configured("opssat").files["dataset.csv"])
    save_table(df, folder / "opssat.parquet", meta)
    task = task_of(df, meta, "official")
    for kind, options in ((LR, {}), (ExtraTrees, {"n_estimators": 20})):
        outcome = run(task, kind, [0], options, folds=2, progress=iter)
        save_scores(outcome.scores, folder / f"{kind.name}.parquet")
        outcome.detector.save(folder / f"{kind.name}.zip")
    return folder


@pytest.fixture
def quick(monkeypatch):
    "The fresh process is tried in tests/models; here its answer is made up."
    told = Cost(np.linspace(1, 2, 200), np.array([20.0, 21]), 529, 400.0, 200.0, 1.0, 0.5, "estimated from processor time", 10.0)
    monkeypatch.setattr(running, "cost", lambda *args, **options: told)


def test_every_check_of_the_policy_gets_its_finding(made, quick, require):
    require("mirror", made, "ESA_DATA_MIRROR is not set")
    policy = read_policy(ROOT / "governance" / "gate.yaml", "detector")
    subject = Subject(made / "opssat.parquet", ROOT / "data" / "contracts" / "opssat.yaml", made / "ExtraTrees.parquet",
                      made / "ExtraTrees.zip", made / "LR.parquet", "baseline")
    found, drops = gather_all(subject, policy, PLAN, at=NOW, locks=[ROOT / "requirements" / "lock.txt"])
    assert list(found) == [check.name for check in policy.checks if check.name != "traceability"]   # the bundle's own business
    assert len(drops) > 8
    assert [name for name, one in found.items() if not one.found] == ["reexecution", "approval"]
    for check in [c for c in policy.checks if c.name in found and c.name != "reexecution"]:
        assert [need.measure for need in check.needs if need.measure not in found[check.name].values] == []
    value = {name: one.values for name, one in found.items()}
    assert value["comparison"]["difference"] > 0.02 and value["comparison"]["n"] == 529 and value["leakage"]["neighbours_share"] > 0.5
    assert value["leakage"]["copied_rows"] == value["contract"]["broken_rules"] == 0 and value["slices"]["insufficient"] > 0
    assert value["formats"]["refused"] == [] and value["dependencies"]["denied"] == [] and value["licences"]["packages"] > 100


def test_one_thing_missing_costs_no_other_finding(made, quick, require, tmp_path):
    require("mirror", made, "ESA_DATA_MIRROR is not set")
    policy = read_policy(ROOT / "governance" / "gate.yaml", "detector")
    subject = Subject(tmp_path / "opssat.parquet", tmp_path / "none.yaml", made / "ExtraTrees.parquet", made / "ExtraTrees.zip")
    found = gather(subject, policy, PLAN, at=NOW, reexecute=lambda: absent("reexecution", "left out"))
    gone = {name for name, one in found.items() if not one.found}
    assert {"contract", "leakage", "robustness", "comparison", "slices"} <= gone and {"calibration", "formats", "monitoring", "expiry"} & gone == set()
    assert "does not exist" in found["contract"].said
    other = gather(subject._replace(scores=tmp_path / "no.parquet"), policy, PLAN, at=NOW)
    assert not other["calibration"].found and other["formats"].found
