"""The measurement of costs: what is counted, where it comes from, and what happens when it cannot be had."""

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.models.cost import ESTIMATED, RAPL, Cost, cost, counters, joules
from esa_notebooks.models.detectors.linear import LR
from esa_notebooks.models.detectors.storing import DetectorError


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    rng = np.random.default_rng(0)
    y = (rng.random(100) < 0.3).astype(int)
    X = pd.DataFrame(rng.standard_normal((100, 3)) + y[:, None], columns=list("abc"))
    return LR(0).fit(X, y).save(tmp_path_factory.mktemp("cost") / "lr.zip"), X


def zone(folder, name, energy, span=9_999_999):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(str(energy))
    (folder / name / "max_energy_range_uj").write_text(str(span))


def test_counters_take_packages_and_skip_what_cannot_be_read(tmp_path):
    assert counters(tmp_path) == counters(tmp_path / "none") == {}
    zone(tmp_path, "intel-rapl:0", 5)
    zone(tmp_path, "intel-rapl:0:0", 3)
    zone(tmp_path, "intel-rapl:1", "no number")
    (tmp_path / "intel-rapl:2").mkdir()
    assert counters(tmp_path) == {"intel-rapl:0": (5, 9_999_999)}


def test_joules_over_an_overflow_and_with_a_package_that_went():
    assert joules({"a": (9_500_000, 9_999_999)}, {"a": (500_000, 9_999_999)}) == pytest.approx(1.0)
    assert joules({"a": (0, 10), "b": (0, 10)}, {"a": (4, 10)}) == pytest.approx(4e-6) and joules({"a": (0, 1)}, {}) is None


def test_a_counter_is_read_and_an_estimate_says_that_it_is_one(tmp_path, detector, monkeypatch):
    file, X = detector
    zone(tmp_path, "intel-rapl:0", 1000)
    with monkeypatch.context() as patched:   # a made counter stands still, so the process is made up as well
        told = dict(single_s=[0.1], batch_s=[0.2], cpu_s=1.0, joules=6.0, rows=100, peak_mb=9, libraries_mb=8, load_s=1)
        patched.setattr("esa_notebooks.models.cost._in_fresh_process", lambda asked, timeout_s: told)
        read = cost(file, X, calls=5, repeats=3, powercap=tmp_path)
    assert (read.method, read.watts_per_core, read.joules_per_1000) == (RAPL, None, pytest.approx(20))
    guessed = cost(file, X, calls=5, repeats=2, powercap=tmp_path / "none", watts_per_core=10)
    assert guessed.method == ESTIMATED and guessed.joules_per_1000 > 0 and len(guessed.single_ms) == 5 and guessed.rows == 100
    assert guessed.libraries_mb <= guessed.peak_mb < 2000


def test_what_cannot_be_measured_is_said(tmp_path, detector):
    file, X = detector
    with pytest.raises(ValueError, match="Name the watts"):
        cost(file, X, powercap=tmp_path)
    with pytest.raises(DetectorError, match="none.zip cannot be measured: .*does not exist"):
        cost(tmp_path / "none.zip", X, watts_per_core=1, powercap=tmp_path)
    with pytest.raises(DetectorError, match="within 0.05 s"):
        cost(file, X, watts_per_core=1, powercap=tmp_path, timeout_s=0.05)


def test_a_quantile_has_an_interval_that_holds_it():
    told = Cost(np.random.default_rng(0).exponential(1, 300), np.ones(3), 10, 1, 1, 1, 1, RAPL, None)
    value, low, high = told.percentile(95)
    assert low < value < high and value == np.percentile(told.single_ms, 95)
