"""The life of an alarm, and what becomes one."""
import json
import threading
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.registry.monitoring import alarms, report
from esa_notebooks.registry.monitoring.alarms import Raised, close_alarm, open_alarm, read_alarms
from esa_notebooks.registry.monitoring.drift import Look, MonitoringError

AT = datetime(2024, 1, 1, 6, tzinfo=timezone.utc)
TOLD = {"model": "bus", "version": "3", "evidence": {"run_id": "r", "report": "report.html"}, "retrain": "esa-notebooks run x",
        "by": "watch"}
DRIFT = Raised("drift", ("a", "b"), "a and b drifted", figure="drift")


def test_opened_once_updated_closed_and_opened_anew(tmp_path):
    entries = []
    note = lambda event, **more: entries.append((event, more["details"]["alarm"]))  # noqa: E731
    first = open_alarm(tmp_path, DRIFT, at=AT, journal=note, **TOLD)
    again = open_alarm(tmp_path, Raised("drift", ("b", "a"), "worse"), at=AT + timedelta(days=1), journal=note, **TOLD)
    other = open_alarm(tmp_path, Raised("drift", ("a",), "a drifted"), at=AT, journal=note, **TOLD)
    assert (again.id, again.times, again.said, again.opened) == (first.id, 2, "worse", first.opened) and other.id != first.id
    closed = close_alarm(tmp_path, first.id, by="Ana", reason="sensor replaced", at=AT + timedelta(days=2), journal=note)
    new = open_alarm(tmp_path, DRIFT, at=AT + timedelta(days=3), journal=note, **TOLD)
    assert new.id != first.id and [a.id for a in read_alarms(tmp_path, open_only=True)] == [other.id, new.id]
    assert entries == [("alarm", first.id), ("alarm", other.id), ("alarm_closed", first.id), ("alarm", new.id)]
    kept = json.loads((tmp_path / f"{first.id}.json").read_text())
    assert kept["closed"] == closed.closed == "2024-01-03T06:00:00Z" and kept["reason"] == "sensor replaced"
    assert kept["retrain"] == "esa-notebooks run x" and read_alarms(tmp_path, "other") == []


def test_a_journal_that_cannot_be_written_opens_and_closes_nothing(tmp_path):
    def full(event, **more):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        open_alarm(tmp_path, DRIFT, at=AT, journal=full, **TOLD)
    assert read_alarms(tmp_path) == []
    alarm = open_alarm(tmp_path, DRIFT, at=AT, **TOLD)
    with pytest.raises(OSError, match="No space"):
        close_alarm(tmp_path, alarm.id, by="Ana", reason="done", at=AT, journal=full)
    assert read_alarms(tmp_path, open_only=True) == [alarm]


def test_many_at_once_open_one(tmp_path):
    opened = []
    threads = [threading.Thread(target=lambda: open_alarm(tmp_path, DRIFT, at=AT, journal=lambda *a, **k: opened.append(a), **TOLD))
               for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    (alarm,) = read_alarms(tmp_path)
    assert len(opened) == 1 and alarm.times == 12


@pytest.mark.parametrize("act, said", [
    (lambda f, i: close_alarm(f, i, by="Ana", reason=" ", at=AT), "for a reason"),
    (lambda f, i: close_alarm(f, i[:-1], by="Ana", reason="x", at=AT), "no alarm .*Did you mean"),
    (lambda f, i: close_alarm(f, i, by="Ana", reason="x", at=AT.replace(tzinfo=None)), "has no zone"),
    (lambda f, i: Raised("drft", (), "x"), "'drft' is unknown.*drift"),
    (lambda f, i: Raised("drift", (), " "), "sentence is empty"),
    (lambda f, i: [close_alarm(f, i, by="Ana", reason="x", at=AT) for _ in range(2)], "was closed at .* by Ana: x"),
    (lambda f, i: [(f / "odd.json").write_text("{}"), read_alarms(f)], "odd.json holds no alarm"),
    (lambda f, i: [(f / f"{i}.json").rename(f / "b.json"), read_alarms(f)], "not what its name says"),
])
def test_bad_requests_are_refused_with_their_reason(tmp_path, act, said):
    alarm = open_alarm(tmp_path, DRIFT, at=AT, **TOLD)
    with pytest.raises(MonitoringError, match=said):
        act(tmp_path, alarm.id)


def test_what_a_run_raises_is_the_same_bytes(tmp_path):
    for name in "ab":
        alarms.write_raised([DRIFT], tmp_path / name / "x.json", model="bus", about={"rows": 100})
    assert (tmp_path / "a" / "x.json").read_bytes() == (tmp_path / "b" / "x.json").read_bytes()
    assert json.loads((tmp_path / "a" / "x.json").read_text())["raised"][0]["channels"] == ["a", "b"]


def _look(drifted: bool) -> Look:
    return Look(0, 9, pd.DataFrame({"channel": ["a", "b"], "distance": [0.9 if drifted else 0.1, np.nan], "threshold": 0.4,
                                    "drifted": [drifted, False], "why": ["", "missing"]}))


def test_what_lies_back_and_has_not_returned_is_no_alarm():
    nothing = pd.DataFrame({"check": ["stuck"], "channel": ["a"], "status": ["within"]})
    kinds = lambda looks: [r.kind for r in report.raised(looks, None, None, nothing)]  # noqa: E731
    assert kinds([_look(True), _look(False)]) == [] and kinds([_look(False), _look(True)]) == ["drift"]
    assert kinds([_look(True), _look(True), _look(False)]) == ["drift"]


def test_performance_below_the_floor_and_sick_sensors_are_raised():
    told = pd.DataFrame({"value": [0.9, 0.4]})
    health = pd.DataFrame({"check": ["gap", "stuck", "stuck"], "channel": ["", "b", "a"], "status": ["beyond"] * 3})
    found = report.raised([_look(False)], told, 0.6, health)
    assert [(r.kind, r.channels) for r in found] == [("performance", ()), ("freshness", ()), ("sensor", ("a", "b"))]
    assert "below the floor of 0.60" in found[0].said


def test_the_budget_is_shared_and_an_impossible_one_refused():
    assert report.share_of_each(1, 10, 2) == 0.05
    with pytest.raises(MonitoringError, match="at most at 0.5"):
        report.share_of_each(10, 10, 1)
