"""Disturbances on rows whose answer is known, and on the published table."""

import os

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import opssat
from esa_notebooks.data.features import segment_features
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.models.detectors.linear import LR
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.evaluation.metrics import EvaluationError, metrics
from esa_notebooks.models.experiment import Task, fitted, task_of
from esa_notebooks.models.protocols import Split
from esa_notebooks.models.robustness import (
    GROUPS,
    POWER,
    gravest,
    groups_of,
    noisy,
    readings_of,
    recalibrated,
    resamples_for,
    robustness,
    robustness_alt,
    spread_of,
    without,
)


def task_with(columns: dict, y: np.ndarray) -> Task:
    n = len(y)
    X = pd.DataFrame(columns).assign(channel=np.where(np.arange(n) % 2, "A", "B"))
    learn = np.arange(n) < n // 2
    split = Split("made up", *(np.flatnonzero(m) for m in (learn, learn, learn & (y == 0), ~learn)), "")
    return Task("mini", X, y, X.channel.to_numpy(), np.arange(n), np.arange(n) // 5, split)


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.3).astype(int)
    return task_with({"a": rng.standard_normal(400) + 2 * y, "count": rng.poisson(3, 400).astype(float), "rest": 7.0}, y)


def test_noise_has_the_size_that_is_stated_and_stays_possible(task):
    spread = spread_of(task)
    clean = task.X.iloc[task.split.test]
    draws = noisy(task, spread, 0.5, 40)
    apart = np.stack([d["a"].to_numpy() - clean["a"].to_numpy() for d in draws]) / spread.size[:, 0]
    assert abs(apart.std() - 0.5) < 0.02 and abs(apart.mean()) < 0.02
    assert all((d["count"] >= 0).all() and (d["rest"] == 7).all() for d in draws)
    again = noisy(task, spread, 0.5, 40)
    assert all(x.equals(z) for x, z in zip(draws, again)) and not noisy(task, spread, 0.5, 1, seed=1)[0].equals(draws[0])


def test_a_value_below_all_of_training_is_left_where_it_is(task):
    X = task.X.assign(count=task.X["count"].where(task.X.index != 399, -50.0))
    moved = noisy(task._replace(X=X), spread_of(task), 0.01, 1)[0]
    assert moved["count"].iloc[-1] == pytest.approx(-50, abs=1)


def test_a_gain_on_samples_is_a_gain_on_features():
    rng = np.random.default_rng(1)
    samples = pd.DataFrame({"segment": np.repeat(range(12), 50), "time": np.tile(np.arange(50.0), 12), "value": rng.standard_normal(600).cumsum()})
    features = [segment_features(samples.assign(value=g * samples.value + o), period_s=1.0) for g, o in ((1, 0), (1.05, 0))]
    task = task_with(dict(features[0].reset_index(drop=True)), np.array([0, 1] * 6))
    made = recalibrated(task, spread_of(task), 1.05)
    wanted = features[1].iloc[task.split.test]
    np.testing.assert_allclose(made[list(POWER)].to_numpy(), wanted[list(POWER)].to_numpy(dtype=float), rtol=1e-9)


def test_every_feature_of_a_segment_belongs_to_one_group():
    members = [c for group in GROUPS.values() for c in group]
    assert sorted(members) == sorted(opssat.FEATURES) and readings_of([*opssat.FEATURES, "channel", "f1"]) == ["f1"]
    assert groups_of(["f1", "mean"]) == {"level": ["mean"]}


def test_lost_features_hold_the_median_of_nominal_training_rows(task):
    made = without(task, spread_of(task), ["a"])
    assert (made["a"] == np.median(task.X["a"].iloc[task.split.reference])).all() and made["count"].equals(task.X["count"].iloc[task.split.test])


def test_the_drop_is_the_difference_of_two_areas_and_repeats_itself(task):
    detector = fitted(LR(0), task)
    told = robustness(detector, task, sizes=(0.1,), draws=2, n_resamples=200)
    X, y = task.X.iloc[task.split.test], task.y[task.split.test]
    area = lambda rows: metrics(y, s := detector.score(rows), s > 0.5)["auc_pr"]
    row = told.set_index("what").loc["without a"]
    assert row["drop"] == pytest.approx(area(X) - area(without(task, spread_of(task), ["a"]))) and row.low <= row["drop"] <= row.high
    assert row.left == pytest.approx(area(X) - row["drop"]) and row.left_low <= row.left
    assert told.equals(robustness(detector, task, sizes=(0.1,), draws=2, n_resamples=200))
    assert "without a" in robustness_alt(told)


def test_refusals(task):
    detector = fitted(LR(0), task)
    with pytest.raises(EvaluationError, match="one class"):
        robustness(detector, task._replace(y=np.zeros(400, int)), sizes=(0.1,), n_resamples=200)
    with pytest.raises(ValueError, match="was not tried"):
        gravest(robustness(detector, task, sizes=(0.3,), draws=1, n_resamples=200))
    assert (resamples_for(529), resamples_for(14_729), resamples_for(10**6)) == (1000, 271, 200)


def test_the_published_table(require):
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set")
    task = task_of(*opssat.read(obtain_configured("opssat").files["dataset.csv"]), "official")
    told = robustness(fitted(ExtraTrees(0, n_estimators=50), task), task, sizes=(0.1, 0.4), draws=2, n_resamples=200)
    noise = told[told.disturbance == "noise"]
    assert noise["drop"].iloc[1] > noise["drop"].iloc[0] and noise.low.iloc[1] > 0
    assert told.set_index("what")["drop"]["channel unknown"] == 0 and (told.low <= told.high).all()
    assert set(told.disturbance) == {"noise", "missing", "lost", "shift"}
