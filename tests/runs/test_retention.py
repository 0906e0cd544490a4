"""Retention: what gc may take, and what it never takes."""
import json
from datetime import UTC, datetime, timedelta

import pytest

from esa_notebooks.runs.record import SCHEMA, runner
from esa_notebooks.runs.retention import expendable, kept, remove

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def shelf(tmp_path):
    """Puts a run on a shelf: `run(days old, status, …)` → its folder."""
    def put(age: float, status: str = "succeeded", *, x: int = 1, stage: str = "n", **more):
        at = NOW - timedelta(days=age)
        folder = tmp_path / "runs" / stage / f"{at:%Y%m%dT%H%M%SZ}-{len(list(tmp_path.rglob('record.json'))):08x}"
        folder.mkdir(parents=True)
        record = {"schema": SCHEMA, "status": status, "stage": stage, "started": f"{at:%Y-%m-%dT%H:%M:%SZ}", "ended": "then",
                  "interactive": False, "notebook": {"path": f"nbs/{stage}.ipynb"}, "parameters": [{"name": "x", "value": x}],
                  "key": "0" * 64, "outputs": [], "duration_s": 1.0}
        (folder / "record.json").write_text(json.dumps(record | more))
        return folder
    put.reports = tmp_path
    put.names = lambda days, keep: [p.name for p in expendable(tmp_path, days, keep, NOW)]
    return put


def test_the_latest_success_of_each_identity_stays(shelf):
    old, first = shelf(300), shelf(200)
    other = shelf(250, x=2)
    shelf(100, "failed")
    assert set(kept(shelf.reports)) == {first, other}
    assert old.name in shelf.names(30, 0) and first.name not in shelf.names(30, 0) and other.name not in shelf.names(30, 0)


def test_a_later_failure_does_not_take_the_success_with_it(shelf):
    good, bad = shelf(200), shelf(100, "killed")
    assert shelf.names(30, 0) == [bad.name] and good.exists()


def test_promoted_and_running_stay(shelf):
    promoted, running, dead = shelf(300), shelf(290, "killed", ended=None, runner=runner()), shelf(
        280, "killed", ended=None, runner=runner() | {"boot_id": "an earlier one"})
    (promoted / "promoted").touch()
    shelf(1)
    assert kept(shelf.reports)[promoted] == "promoted" and kept(shelf.reports)[running] == "still running"
    assert shelf.names(30, 0) == [dead.name]


@pytest.mark.parametrize("days, keep, gone", [(30, 0, 4), (30, 2, 3), (30, 20, 0), (1000, 0, 0), (45, 0, 3)])
def test_age_and_count_are_both_needed(shelf, days, keep, gone):
    for age in (70, 60, 50, 40, 1):
        shelf(age, "failed")
    assert len(shelf.names(days, keep)) == gone


def test_the_count_is_by_stage(shelf):
    for stage in ("a", "b"):
        for age in (60, 50):
            shelf(age, "failed", stage=stage)
    assert len(shelf.names(30, 1)) == 2


def test_removing_leaves_nothing_that_looks_like_a_run(shelf):
    folder = shelf(60, "failed")
    remove([folder])
    assert list(folder.parent.iterdir()) == [] and list(kept(shelf.reports)) == []
