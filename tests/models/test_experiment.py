"""One experiment: what it is given, what it refuses, and that it says the same twice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from esa_notebooks.data.tables import Column, Meta
from esa_notebooks.models import experiment
from esa_notebooks.models.detectors.champion import Champion
from esa_notebooks.models.detectors.linear import LR
from esa_notebooks.models.detectors.neighbours import KNN
from esa_notebooks.models.detectors.storing import DetectorError
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.evaluation.intervals import intervals, mean_metrics
from esa_notebooks.models.evaluation.metrics import undefined
from esa_notebooks.models.resplits import resplit, superiority
from esa_notebooks.models.scores import COLUMNS, Scores, ScoresError, by_seed, load_scores, save_scores, side_by_side
from esa_notebooks.models.splits import SplitError
from esa_notebooks.models.studies import TuningError, storage_of, study_of
from esa_notebooks.models.tuning import digest_of

META = Meta(
    "mini",
    "A miniature",
    "segment",
    "synthetic",
    (
        Column("segment", "id"),
        Column("channel", "group"),
        Column("height", "feature"),
        Column("width", "feature"),
        Column("anomaly", "label"),
        Column("split", "split"),
    ),
    "CC0",
    "none",
    {},
)


def table(n: int = 200, seed: int = 0) -> pd.DataFrame:
    """Segments of two channels, three in four of them to learn from; `height` says something about the anomalies."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.25).astype(int)
    return pd.DataFrame(
        {
            "segment": np.arange(n),
            "channel": np.repeat(["A", "B"], n // 2),
            "height": rng.normal(2.0 * y),
            "width": rng.normal(size=n),
            "anomaly": y,
            "split": np.where(np.arange(n) % 4, "train", "test"),
        }
    )


def task(protocol: str = "official", **changed) -> experiment.Task:
    return experiment.task_of(table().assign(**changed), META, protocol)


QUICK = {"n_estimators": 10}


# What comes out.


def test_the_same_experiment_gives_the_same_file(tmp_path):
    for name in ("a", "b"):
        outcome = experiment.run(task(), ExtraTrees, [5, 2], QUICK, folds=3)
        save_scores(outcome.scores, tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    again = load_scores(tmp_path / "a.parquet")
    assert again.about == outcome.scores.about and again.about["seeds"] == [5, 2]
    pd.testing.assert_frame_equal(again.rows, outcome.scores.rows[list(COLUMNS)], check_exact=True)
    save_scores(experiment.run(task(), ExtraTrees, [5, 3], QUICK, folds=3).scores, tmp_path / "c.parquet")
    assert (tmp_path / "c.parquet").read_bytes() != (tmp_path / "a.parquet").read_bytes()


@pytest.mark.parametrize("protocol", ["official", "nominal-only", "blocked"])
def test_each_part_holds_its_rows_once_a_seed(protocol):
    given = task(protocol)
    rows = experiment.run(given, ExtraTrees, [5, 2], QUICK, folds=3).scores.rows
    test, train = rows[rows.part == "test"], rows[rows.part == "train"]
    assert [*test.row[test.seed == 5]] == [*test.row[test.seed == 2]] == [*given.split.test]
    assert sorted(train.row) == sorted(given.split.train) and set(train.seed) == {5}, (
        "the first seed scores the training rows"
    )
    assert (rows.y == given.y[rows.row]).all() and (rows.segment == given.segment[rows.row]).all()


def test_scores_are_in_the_order_of_the_seeds_asked_for():
    """The notebooks give row i of the scores to seed i of `about`."""
    given = task()
    outcome = experiment.run(given, ExtraTrees, [9, 2, 5], QUICK)
    _, score, _ = by_seed(outcome.scores)
    for seed, told in zip(outcome.scores.about["seeds"], score, strict=True):
        alone = experiment.fitted(ExtraTrees(seed, **QUICK), given).score(given.X.iloc[given.split.test])
        assert (told == alone).all(), seed


def test_held_out_rows_were_not_learned_from():
    """A forest knows by heart what it has seen: its own training rows come out perfect, held out ones do not."""
    given = task()
    rows = experiment.run(given, ExtraTrees, [0], QUICK, folds=5).scores.rows
    held = rows[rows.part == "train"]
    detector = experiment.fitted(ExtraTrees(0, **QUICK), given)
    by_heart = average_precision_score(given.y[given.split.train], detector.score(given.X.iloc[given.split.train]))
    assert by_heart == 1 > average_precision_score(held.y, held.score)


def test_a_detector_without_chance_is_fitted_once():
    outcome = experiment.run(task(), KNN, [7, 8, 9])
    assert (
        outcome.scores.about["seeds"] == [7]
        and set(outcome.scores.rows.seed) == {7}
        and outcome.seconds.shape == (1, 2)
    )


def test_unsupervised_detectors_are_given_no_label(monkeypatch):
    given, fit = [], KNN.fit
    monkeypatch.setattr(
        KNN, "fit", lambda self, X, y=None, reference=None: given.append((y, len(X))) or fit(self, X, y, reference)
    )
    for protocol in ("official", "nominal-only"):
        experiment.run(task(protocol), KNN, [0], folds=3)
    assert all(y is None for y, _ in given) and len(given) == 8
    assert given[0][1] == 150 and given[4][1] == 150 - table()[table().split == "train"].anomaly.sum()


# What is refused.


@pytest.mark.parametrize("seeds", [[], [1, 1], [2137, 0, 2137]])
def test_seeds_that_are_none_or_twice(seeds):
    with pytest.raises(DetectorError, match="Seeds are one or more different whole numbers"):
        experiment.run(task(), ExtraTrees, seeds)


def test_seeds_and_options_that_do_not_exist():
    with pytest.raises(DetectorError, match="a seed is a whole number"):
        experiment.run(task(), ExtraTrees, [-1])
    with pytest.raises(DetectorError, match="Did you mean `n_estimators`"):
        experiment.run(task(), ExtraTrees, [0], {"n_estimator": 3})


@pytest.mark.parametrize(
    "lacking, words",
    [
        ("split", "has no split"),
        ("label", "has no label"),
        ("feature", "needs segments with features"),
        ("group", "needs segments with features"),
    ],
)
def test_a_table_that_poses_no_task(lacking, words):
    other = replace(META, columns=tuple(c for c in META.columns if c.role != lacking))
    with pytest.raises((SplitError, DetectorError), match=f"`mini`.*{words}"):
        experiment.task_of(table(), other, "official")


def test_a_protocol_that_does_not_exist():
    with pytest.raises(SplitError, match="no protocol 'oficial'.*Did you mean `official`"):
        task("oficial")


def test_one_class_in_training():
    y = table().anomaly.where(table().split == "test", 0)
    with pytest.raises(DetectorError, match="LR is supervised and needs rows of both classes.*all 150 labels are 0"):
        experiment.run(task(anomaly=y), LR, [0])
    with pytest.raises(SplitError, match="All rows have one label"):
        experiment.run(task(anomaly=y), KNN, [0], folds=3)
    assert len(experiment.run(task(anomaly=y), KNN, [0]).scores.rows) == 50  # which needs no anomaly
    with pytest.raises(SplitError, match="0 nominal training rows"):
        task(anomaly=1)


def test_no_anomaly_in_the_test_rows_is_said_and_is_not_zero():
    given = task(anomaly=table().anomaly.where(table().split == "train", 0))
    rows, score, decision = by_seed(experiment.run(given, ExtraTrees, [0, 1], QUICK).scores)
    told, why = mean_metrics(rows.y, score, decision), undefined(rows.y, decision[0])
    assert decision.any(), "there are false alarms, so that a precision of 0 is one"
    for name in ("recall", "auc_pr", "auc_roc", "mcc"):
        assert told[name] is None and why[name] == "there is no anomaly"
    table_of = intervals(rows.y, score, decision, rows.block, n_resamples=50)
    assert table_of.loc[["recall", "auc_pr", "auc_roc", "mcc"], ["value", "low", "high"]].isna().all().all()


def test_a_label_that_leaked_into_the_features():
    leaking = task(width=3 - 2.0 * table().anomaly)
    for kind in (LR, ExtraTrees):
        with pytest.raises(DetectorError, match="column `width` alone separates the labels"):
            experiment.run(leaking, kind, [0])
    with pytest.raises(DetectorError, match="column `width` alone"):
        resplit(leaking, [LR], n=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(bad):
    for row in (0, 1):  # to test on, and to learn from
        broken = table().height.where(table().segment != row, bad)
        with pytest.raises(DetectorError, match=f"column `height` is {bad} in row {row}"):
            experiment.run(task(height=broken), KNN, [0])


# Tuning.


def test_a_budget_for_a_detector_without_a_space(tmp_path):
    with pytest.raises(DetectorError, match="no search space for KNN; there is one for .*ExtraTrees"):
        experiment.tuned(task(), KNN, 3, storage=f"journal:///{tmp_path}/a.journal")
    with pytest.raises(TuningError, match="budget of -1"):
        experiment.tuned(task(), ExtraTrees, -1, storage=f"journal:///{tmp_path}/a.journal")


def test_every_space_is_made_of_options_that_exist():
    from esa_notebooks.models.detectors.boosting import GradientBoosting
    from esa_notebooks.models.detectors.trees import RandomForest

    kinds = {k.name: k for k in (ExtraTrees, RandomForest, GradientBoosting, Champion)}
    assert kinds.keys() == experiment.SPACES.keys()
    for name, space in experiment.SPACES.items():
        assert space.keys() <= kinds[name].defaults.keys()


def test_tuning_twice_finds_the_same_and_reads_no_test_row(tmp_path):
    def found(name: str, given: experiment.Task):
        return experiment.tuned(given, ExtraTrees, 2, 1, storage=f"journal:///{tmp_path}/{name}.journal", k=3)

    given = task()
    first = found("a", given)
    assert first.finished == 2 and first.parameters.keys() == experiment.SPACES["ExtraTrees"].keys()
    other = given._replace(X=given.X.copy(), y=given.y.copy())
    other.X.loc[given.split.test, ["height", "width"]], other.y[given.split.test] = np.nan, 1
    again = found("b", other)
    assert again.parameters == first.parameters and again.value == first.value
    pd.testing.assert_frame_equal(again.trials, first.trials, check_exact=True)
    more = found("a", given)
    assert len(more.trials) == len(first.trials), "a study that has its trials is not searched again"


def test_a_study_of_something_else_is_not_continued(tmp_path):
    given, url = task(), f"journal:///{tmp_path}/a.journal"
    train = given.split.train
    seen = digest_of(given.X.iloc[train], given.y[train], given.block[train])
    study_of(f"mini-official-ExtraTrees-0-{seen}", storage_of(url), 0, "maximize", {"detector": "Oracle"})
    with pytest.raises(TuningError):
        experiment.tuned(given, ExtraTrees, 2, 0, storage=url)


# Files of scores, and re-splits.


def test_files_that_hold_no_scores(tmp_path):
    table().to_parquet(tmp_path / "table.parquet")
    (tmp_path / "text.parquet").write_text("score")
    for name in ("table", "text", "missing"):
        with pytest.raises(ScoresError, match=f"{name}.parquet holds no scores"):
            load_scores(tmp_path / f"{name}.parquet")
    with pytest.raises(ScoresError, match="need the column `score`"):
        save_scores(Scores({}, pd.DataFrame(columns=[c for c in COLUMNS if c != "score"])), tmp_path / "x.parquet")


def test_scores_that_do_not_belong_together():
    here, there = (experiment.run(task(p), LR, [0]).scores for p in ("official", "blocked"))
    with pytest.raises(ScoresError, match="LR .mini, blocked. and LR .mini, official. judge other rows"):
        side_by_side([here, there])
    with pytest.raises(ScoresError, match="two files of scores of LR"):
        side_by_side([here, here])
    with pytest.raises(ScoresError, match="no scores to compare"):
        side_by_side([])
    other = experiment.run(task(anomaly=1 - table().anomaly), KNN, [0]).scores
    with pytest.raises(ScoresError, match="judge other rows"):
        side_by_side([here, other])


def test_resplits_pair_the_detectors_on_the_same_rows():
    figures = resplit(task(), [LR, KNN], n=4)
    assert figures.groupby("detector").size().to_dict() == {"LR": 4, "KNN": 4}
    pd.testing.assert_frame_equal(figures, resplit(task(), [LR, KNN], n=4), check_exact=True)
    told = superiority(figures, "LR", 0.25).set_index(["metric", "against"])
    wide = figures.pivot(index="split", columns="detector", values="auc_pr")
    assert told.loc[("auc_pr", "KNN"), "mean"] == pytest.approx((wide.LR - wide.KNN).mean())
    known = told[told.p.notna()]
    assert (known.p_holm >= known.p).all() and (known.low <= known["mean"]).all()


def test_a_figure_undefined_on_some_re_split_is_not_compared():
    figures = resplit(task(), [LR, KNN], n=4)
    figures.loc[(figures.split == 2) & (figures.detector == "KNN"), "precision"] = None
    told = superiority(figures, "LR", 0.25).set_index("metric")
    assert told.loc["precision", ["mean", "low", "high", "p", "p_holm"]].isna().all()
    assert told.loc["recall", ["mean", "p"]].notna().all()
