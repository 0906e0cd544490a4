"""Metrics, thresholds, intervals, calibration and slices: what has no answer, what is refused, what must agree."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from esa_notebooks.models.evaluation.calibration import brier, calibration_error, probability_map, reliability
from esa_notebooks.models.evaluation.intervals import compare, compare_all, intervals, resampled, weighted_metrics
from esa_notebooks.models.evaluation.metrics import METRICS, EvaluationError, by_chance, metrics, undefined
from esa_notebooks.models.evaluation.slices import by_slice, insufficient
from esa_notebooks.models.evaluation.thresholds import alarm_rate_threshold, best_f1_threshold, contamination_threshold
from esa_notebooks.stats import cluster_weights

rng = np.random.default_rng(0)
Y = np.arange(200) % 4 == 0
SCORE = np.round(rng.standard_normal(200) + 1.5 * Y, 1)  # with ties
BLOCKS = np.arange(200) // 8


def test_metrics_are_those_of_scikit_learn():
    told = metrics(Y, SCORE, SCORE > 1)
    assert list(told) == list(METRICS)
    assert told["mcc"] == sk.matthews_corrcoef(Y, SCORE > 1) and told["auc_pr"] == sk.average_precision_score(Y, SCORE)
    assert told["f1"] == pytest.approx(2 * told["precision"] * told["recall"] / (told["precision"] + told["recall"]))


@pytest.mark.parametrize(
    "y, decision, none",
    [
        ([0, 0, 0], [0, 1, 0], {"recall", "mcc", "auc_pr", "auc_roc"}),
        ([0, 0, 0], [0, 0, 0], {"precision", "recall", "f1", "mcc", "auc_pr", "auc_roc"}),
        ([1, 1, 1], [1, 0, 1], {"mcc", "auc_pr", "auc_roc"}),
        ([1, 0, 1], [0, 0, 0], {"precision", "mcc"}),
        ([1, 0, 1], [1, 1, 1], {"mcc"}),
        ([1, 0, 1], [1, 0, 0], set()),
    ],
)
def test_what_has_no_answer_is_none_with_a_reason(y, decision, none):
    told = metrics(y, [0.1, 0.2, 0.3], decision)
    assert {name for name, value in told.items() if value is None} == none == set(undefined(y, decision))
    assert all(undefined(y, decision).values())


def test_a_detector_that_finds_nothing_has_an_f1_of_zero_and_no_precision():
    told = metrics([1, 0, 1], [0.1, 0.2, 0.3], [0, 0, 0])
    assert told["f1"] == 0 == told["recall"] and told["precision"] is None


@pytest.mark.parametrize(
    "y, score, decision, says",
    [
        ([0, 1], [np.nan, 1], [0, 1], "1 of 2 are NaN or infinite, the first in row 0"),
        ([0, 1], [0, np.inf], [0, 1], "the first in row 1"),
        ([0, 2], [0, 1], [0, 1], "only 0 and 1"),
        ([0, 1], [0, 1], [0, 0.5], "decisions: only 0 and 1"),
        ([0, 1], [0, 1, 2], [0, 1], "shape"),
        ([], [], [], "at least one row"),
        ([0, np.nan], [0, 1], [0, 1], "only 0 and 1"),
    ],
)
def test_bad_input_is_refused_by_name(y, score, decision, says):
    with pytest.raises(EvaluationError, match=says):
        metrics(y, score, decision)


def test_chance_of_a_set_without_anomalies_is_zero():
    assert by_chance([0, 0]) == {"f1": 0.0, "auc_pr": 0.0, "auc_roc": 0.5}


# thresholds


def test_equal_scores_raise_no_alarm_at_their_quantile():
    assert not (np.ones(50) > contamination_threshold(np.ones(50))).any()


def test_contamination_is_the_share_of_training_alarms():
    score = rng.permutation(1000).astype(float)
    assert (score > contamination_threshold(score, 0.2)).sum() == 200


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        contamination_threshold(SCORE, share)
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        alarm_rate_threshold(SCORE, share)


def test_an_alarm_rate_needs_scores_enough():
    with pytest.raises(EvaluationError, match="at least 99 are needed"):
        alarm_rate_threshold(np.arange(98.0), 0.01)
    assert alarm_rate_threshold(np.arange(99.0), 0.01) == 98


def test_best_f1_is_the_best_of_all_thresholds_and_the_highest_of_equals():
    found = best_f1_threshold(Y, SCORE)

    def f1(t):
        return sk.f1_score(Y, SCORE > t)

    assert f1(found) == max(f1(t) for t in np.unique(SCORE)[:-1])
    assert best_f1_threshold([1, 0, 0, 1], [4.0, 3.0, 2.0, 1.0]) > 3  # F1 is 2/3 both at 3.5 and at 0.5
    above = np.nextafter(1.0, 2)
    assert (np.array([1.0, above]) > best_f1_threshold([0, 1], [1.0, above])).tolist() == [False, True]


@pytest.mark.parametrize("y, score, says", [([0, 0], [1, 2], "there is none"), ([0, 1], [1, 1], "equal")])
def test_best_f1_refuses_what_has_no_best(y, score, says):
    with pytest.raises(EvaluationError, match=says):
        best_f1_threshold(y, score)


# intervals


def test_weighted_figures_agree_with_scikit_learn_on_every_resample():
    weights = next(cluster_weights(BLOCKS, 25, seed=3))
    told = weighted_metrics(Y, SCORE, SCORE > 1, weights)
    for i, w in enumerate(weights):
        assert told["auc_roc"][i] == pytest.approx(sk.roc_auc_score(Y, SCORE, sample_weight=w), abs=1e-12)
        assert told["auc_pr"][i] == pytest.approx(sk.average_precision_score(Y, SCORE, sample_weight=w), abs=1e-12)
        assert told["mcc"][i] == pytest.approx(sk.matthews_corrcoef(Y, SCORE > 1, sample_weight=w), abs=1e-12)
        assert told["f1"][i] == pytest.approx(sk.f1_score(Y, SCORE > 1, sample_weight=w), abs=1e-12)


def test_intervals_are_the_same_twice_and_contain_the_value():
    one, two = (intervals(Y, SCORE, SCORE > 1, BLOCKS, n_resamples=200, seed=5) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert ((one.low <= one.value) & (one.value <= one.high)).all()
    assert not one.equals(intervals(Y, SCORE, SCORE > 1, BLOCKS, n_resamples=200, seed=6))


def test_seeds_that_disagree_widen_the_interval():
    steady = np.tile(SCORE, (4, 1))
    restless = steady + 1.5 * rng.standard_normal((4, 1)) * rng.standard_normal((4, 200))
    wide, narrow = (intervals(Y, s, s > 1, BLOCKS, n_resamples=300).loc["auc_roc"] for s in (restless, steady))
    assert wide.high - wide.low > narrow.high - narrow.low
    assert narrow.value == pytest.approx(metrics(Y, SCORE, SCORE > 1)["auc_roc"])


def test_too_many_undefined_resamples_give_no_interval():
    y = np.zeros(200, dtype=bool)
    y[:3] = True  # all anomalies in one block: a third of the resamples has none
    told = intervals(y, SCORE, SCORE > 1, BLOCKS)
    assert told.undefined["recall"] > 0.2 and np.isnan(told.low["recall"]) and not np.isnan(told.value["recall"])
    assert not np.isnan(told.low["accuracy"])


def test_no_anomaly_at_all_gives_no_value():
    told = intervals(np.zeros(200), SCORE, SCORE > 1, BLOCKS, n_resamples=50)
    assert np.isnan(told.value["auc_pr"]) and told.value["accuracy"] > 0.5


def test_a_detector_does_not_differ_from_itself():
    told = compare(Y, (SCORE, SCORE > 1), (SCORE, SCORE > 1), BLOCKS, n_resamples=100)
    assert (told.difference == 0).all() and (told.p == 1).all()


def test_comparison_turns_its_sign_with_its_order():
    other = SCORE + rng.standard_normal(200)
    a, b = (SCORE, SCORE > 1), (other, other > 1)
    one, two = compare(Y, a, b, BLOCKS, n_resamples=200), compare(Y, b, a, BLOCKS, n_resamples=200)
    assert (
        np.allclose(one.difference, -two.difference) and np.allclose(one.low, -two.high) and np.allclose(one.p, two.p)
    )


def test_comparisons_are_adjusted_within_each_figure():
    others = {str(k): (s, s > 1) for k in range(4) for s in [SCORE + (0.2 + k) * rng.standard_normal(200)]}
    told = compare_all(Y, (SCORE, SCORE > 1), others, BLOCKS, n_resamples=200)
    assert len(told) == 4 * len(METRICS) and (told.p_holm >= told.p).all()
    area = told[told.metric == "auc_roc"]
    assert area.p_holm.max() > area.p.min() and area.p_holm.min() == pytest.approx(min(1, 4 * area.p.min()))


def test_level_of_the_paired_comparison():
    """Two detectors that differ by chance alone: at 5 %, few of sixty comparisons may claim a difference."""
    claims = 0
    for repeat in range(60):
        r = np.random.default_rng(repeat)
        a, b = Y + r.standard_normal((2, 200)) + np.repeat(r.standard_normal((2, 25)), 8, axis=1)
        claims += compare(Y, (a, a > 1), (b, b > 1), BLOCKS, n_resamples=200).p["auc_roc"] < 0.05
    assert claims <= 9


def test_seeds_and_decisions_must_fit():
    with pytest.raises(EvaluationError, match="one row per seed"):
        resampled(Y, np.tile(SCORE, (2, 1)), SCORE > 1, BLOCKS)
    with pytest.raises(ValueError, match="two of them or more"):
        intervals(Y, SCORE, SCORE > 1, np.zeros(200))


# calibration


def test_a_map_keeps_the_order_and_stays_within_zero_and_one():
    for kind in ("logistic", "isotonic"):
        p = probability_map(Y, SCORE, kind)(np.sort(np.r_[SCORE, -99, 99]))
        assert (np.diff(p) >= 0).all() and p.min() >= 0 and p.max() <= 1


def test_separated_scores_give_a_finite_map():
    p = probability_map([0, 0, 0, 1, 1], [0.0, 0.1, 0.2, 5.0, 6.0])([0.1, 5.5])
    assert 0 < p[0] < 0.5 < p[1] < 1


def test_the_logistic_map_does_not_depend_on_the_unit_of_scores():
    p = [probability_map(Y, SCORE * unit)(SCORE * unit) for unit in (1.0, 1e-9, 1e9)]
    assert np.allclose(p[0], p[1], atol=1e-5) and np.allclose(p[0], p[2], atol=1e-5)


@pytest.mark.parametrize(
    "y, score, kind, says",
    [
        (Y, -SCORE, "logistic", "lower scores"),
        (np.ones(200), SCORE, "logistic", "both classes"),
        (Y, np.ones(200), "isotonic", "differ"),
        (Y, SCORE, "logistical", "Did you mean `logistic`"),
    ],
)
def test_maps_that_make_no_sense_are_refused(y, score, kind, says):
    with pytest.raises(EvaluationError, match=says):
        probability_map(y, score, kind)


def test_reliability_keeps_equal_probabilities_together_and_every_row():
    p = np.repeat([0.0, 0.25, 1.0], [100, 60, 40])
    told = reliability(rng.random(200) < p, p)
    assert told.rows.tolist() == [100, 60, 40] and told.predicted.tolist() == [0.0, 0.25, 1.0]


def test_perfect_and_useless_probabilities():
    assert brier(Y, Y.astype(float))[0] == 0
    assert brier(Y, np.full(200, Y.mean())) == pytest.approx((Y.mean() * (1 - Y.mean()),) * 2)
    told = calibration_error(Y, np.full(200, 0.9), BLOCKS, n_resamples=50)
    assert told.value == pytest.approx(0.9 - Y.mean()) and told.if_perfect_high < told.value


def test_scores_are_not_taken_for_probabilities():
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        reliability(Y, SCORE)


# slices


def test_small_slices_are_insufficient_and_say_why():
    assert insufficient(np.zeros(10)) == "insufficient: 10 rows, 30 needed; 0 anomalies, 5 needed"
    assert insufficient(Y) == "" and "nominal" in insufficient(np.ones(50))


def test_slices_add_up_and_match_the_figures_of_their_rows():
    names = np.where(np.arange(200) < 120, "a", "b")
    told = by_slice(Y, SCORE, SCORE > 1, names).set_index("slice")
    assert told.rows.sum() == 200 and told.anomalies.sum() == Y.sum()
    assert told.f1["a"] == metrics(Y[:120], SCORE[:120], SCORE[:120] > 1)["f1"]


def test_slices_average_over_seeds_and_refuse_nameless_rows():
    two = np.stack([SCORE, SCORE + rng.standard_normal(200)])
    told = by_slice(Y, two, two > 1, np.zeros(200, dtype=int))
    assert told.auc_roc[0] == pytest.approx(np.mean([sk.roc_auc_score(Y, s) for s in two]))
    with pytest.raises(EvaluationError, match="row 3 belongs to none"):
        by_slice(Y, SCORE, SCORE > 1, pd.Series(["a"] * 3 + [None] + ["a"] * 196))
