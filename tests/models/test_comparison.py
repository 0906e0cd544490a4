"""Comparisons over re-splits, clusters and ranks (esa_notebooks.stats)."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from esa_notebooks.stats import alike, cluster_weights, corrected_resampled, critical_difference, friedman, paired


def test_the_correction_widens_by_the_ratio_of_test_to_training_rows():
    d = np.random.default_rng(0).normal(0.01, 0.02, 50)
    plain, corrected = paired(np.zeros(50), d), corrected_resampled(d, 0.25)
    assert corrected.mean == pytest.approx(plain.difference) and corrected.p > plain.p
    widths = [i.high - i.low for i in (plain.interval, corrected.interval)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt((1 / 50 + 1 / 3) * 50))


def test_more_repetitions_do_not_make_the_interval_vanish():
    d = np.random.default_rng(0).normal(0, 0.02, 10_000)
    told = corrected_resampled(d, 0.25)
    assert told.interval.high - told.interval.low > 2 * 1.9 * 0.02 * math.sqrt(1 / 3)


def test_equal_differences_are_no_evidence():
    assert corrected_resampled([0.0, 0.0, 0.0], 0.2)[1:] == (None, None)


@pytest.mark.parametrize(
    "d, share, says",
    [
        ([0.1], 0.2, "two values or more"),
        ([0.1, np.nan], 0.2, "missing"),
        ([0.1, 0.2], 0, "between 0 and 1"),
        ([0.1, 0.2], 1.0, "between 0 and 1"),
    ],
)
def test_bad_resplits_are_refused(d, share, says):
    with pytest.raises(ValueError, match=says):
        corrected_resampled(d, share)


def test_weights_draw_whole_clusters_as_often_as_there_are_clusters():
    clusters = np.array(["a", "a", "b", "c", "c", "c"])
    w = np.concatenate(list(cluster_weights(clusters, 500, seed=1)))
    assert w.shape == (500, 6) and (w[:, 0] == w[:, 1]).all() and (w[:, 3] == w[:, 5]).all()
    assert (w[:, 0] + w[:, 2] + w[:, 3] == 3).all() and w[:, 0].mean() == pytest.approx(1, abs=0.15)


def test_weights_come_in_batches_of_bounded_size():
    batches = list(cluster_weights(np.arange(50_000), 200))
    assert len(batches) == 3 and sum(len(b) for b in batches) == 200 and max(b.size for b in batches) <= 4_000_000


def test_one_cluster_is_no_bootstrap():
    with pytest.raises(ValueError, match="two of them"):
        next(cluster_weights(["a", "a"]))


def test_friedman_agrees_with_scipy_and_ranks_high_first():
    values = np.random.default_rng(0).standard_normal((9, 5)) + np.arange(5)
    told = friedman(values)
    assert told.p == scipy_stats.friedmanchisquare(*values.T).pvalue
    assert np.argmin(told.ranks) == 4 and told.ranks.sum() == pytest.approx(15)


def test_ties_share_their_rank():
    assert friedman([[1, 1, 0], [1, 1, 0]]).ranks.tolist() == [1.5, 1.5, 3]


@pytest.mark.parametrize("values", [[[1, 2, 3]], [[1, 2], [2, 1]], [[1, 2, np.nan], [1, 2, 3]], [[1, 1, 1], [2, 2, 2]]])
def test_what_cannot_be_ranked_is_refused(values):
    with pytest.raises(ValueError):
        friedman(values)


@pytest.mark.parametrize("k, q", [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_values_of_demsar_table_5a(k, q):
    assert critical_difference(k, 6) == pytest.approx(q * math.sqrt(k * (k + 1) / 36), abs=0.002 * k)


def test_runs_of_like_methods_are_the_longest_ones():
    assert alike(np.array([1.0, 1.5, 2.2, 5.0]), 1.0) == [(0, 1), (1, 2)]
    assert alike(np.array([5.0, 1.0, 1.5, 2.2]), 9.0) == [(0, 3)] and alike(np.array([1.0, 3.0]), 1.0) == []
