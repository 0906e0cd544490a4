"""Segment features: equal to a loop over segments, exact on hard numbers, invariant as promised, strict about input."""

import itertools
import os
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from esa_notebooks.data import features, wide_features
from esa_notebooks.data.features import Ragged, SegmentError, features_of, peak_counts, segment_features, smoothed
from esa_notebooks.data.opssat import FEATURES
from esa_notebooks.data.wide_features import GAPS, MEMORY, SHAPE, SLOPES, SPECTRUM, WIDE, wide_features_of
from esa_notebooks.stats import autocorrelation

COUNTS = ["len", "n_peaks", "smooth10_n_peaks", "smooth20_n_peaks", "diff_peaks", "diff2_peaks"]
EPS = np.finfo(float).eps
few = settings(deadline=None, max_examples=60, derandomize=True)
# Telemetry is quantised: small integers make ties, plateaus and constant segments common.
quantised = st.lists(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=45), min_size=1, max_size=8)


def ragged(series) -> Ragged:
    return Ragged(np.concatenate([np.asarray(x, float) for x in series]), np.array([len(x) for x in series]))


def flat(series, period=1.0):
    """Arguments of `features_of` for series sampled without gaps."""
    r = ragged(series)
    return r.values, np.concatenate([np.arange(n) * period for n in r.lengths]), r.starts, period


def n_peaks(x) -> int:
    return len(signal.find_peaks(x, prominence=0.1 * (np.max(x) - np.min(x)))[0]) if len(x) else 0


def by_the_loop(x: np.ndarray, seconds: np.ndarray, period: float) -> dict:
    """One segment, by the definitions of the paper, with nothing but pandas and SciPy."""
    change, change2 = np.diff(x), np.diff(x, n=2)
    time = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s"))
    duration = (time.iloc[-1] - time.iloc[0]).total_seconds()
    return {
        "duration": duration, "len": len(x), "mean": np.mean(x), "var": np.var(x), "std": np.std(x),
        "kurtosis": stats.kurtosis(x), "skew": stats.skew(x), "n_peaks": n_peaks(x),
        "smooth10_n_peaks": n_peaks(np.convolve(x, np.ones(10) / 10, mode="same")),
        "smooth20_n_peaks": n_peaks(np.convolve(x, np.ones(20) / 20, mode="same")),
        "diff_peaks": n_peaks(change), "diff2_peaks": n_peaks(change2),
        "diff_var": np.var(change) if len(change) else np.nan, "diff2_var": np.var(change2) if len(change2) else np.nan,
        "gaps_squared": (time.diff().dt.total_seconds() ** 2).sum(), "len_weighted": len(x) * period,
        "var_div_duration": np.var(x) / duration if duration else np.nan, "var_div_len": np.var(x) / len(x),
    }


def kinds(n: int, rng) -> dict[str, np.ndarray]:
    noise = rng.standard_normal(n)
    return {
        "noise": noise,
        "tiny": 2e-5 * np.sin(np.arange(n) / 7) + 1e-6 * noise,
        "quantised": np.round(noise, 1),
        "steps": np.round(np.cumsum(noise)),
        "plateaus": 0.1 * np.repeat(np.round(rng.standard_normal(n)), 3)[:n],
        "periodic": np.round(np.sin(np.arange(n) / 3), 2) + 10,
    }


def test_the_real_segment_has_its_official_row(require):
    folder = Path(os.environ.get("ESA_DATA_MIRROR", "/nowhere")) / "opssat-ad"
    require("mirror", folder.is_dir(), "ESA_DATA_MIRROR has no opssat-ad")
    samples = pd.read_csv(folder / "segment_1025_raw.csv", parse_dates=["timestamp"])
    official = pd.read_csv(folder / "dataset.csv", index_col="segment").loc[[1025]]
    ours = segment_features(samples, time="timestamp", period_s="sampling")
    assert len(samples) == 95 and list(ours.columns) == list(FEATURES) and ours.index.tolist() == [1025]
    assert ours[COUNTS].to_numpy().tolist() == official[COUNTS].to_numpy().tolist()
    np.testing.assert_allclose(ours, official[list(FEATURES)].astype(float), rtol=1e-9, atol=0)


def test_equal_to_the_loop_over_segments():
    """Counts are equal. Other numbers agree within 1e-9 or, where the true number is about zero (a mean of opposite
    values, the skewness of a symmetric segment), within the rounding of the values it is made from."""
    rng = np.random.default_rng(0)
    lengths = [1, 2, 3, 4, 5, 9, 10, 11, 12, 16, 19, 20, 21, 22] * 5 + rng.integers(1, 150, 75).tolist()
    series, seconds = [], []
    for n in lengths:
        for x in kinds(n, rng).values():
            series.append(x)
            seconds.append(np.cumsum(rng.choice([1.0, 1.0, 1.0, 7.0], n)))   # with gaps
    r = ragged(series)
    ours = pd.DataFrame(features_of(r.values, np.concatenate(seconds), r.starts, 1.0))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")   # SciPy warns of nearly constant segments
        loop = pd.DataFrame([by_the_loop(x, s, 1.0) for x, s in zip(series, seconds, strict=True)])
    constant = np.array([np.ptp(x) == 0 for x in series])
    assert len(series) > 800 and 20 < constant.sum() < len(series) / 4
    for name in COUNTS:
        assert (ours[name] != loop[name]).sum() == 0, name
    scale = np.array([np.abs(x).max() for x in series])
    rounding = {"mean": 4 * EPS * scale, "skew": 1e-12, "kurtosis": 1e-12, "std": 4 * EPS * scale}
    for name in [n for n in FEATURES if n not in COUNTS]:
        a, b = ours[name].to_numpy(), loop[name].to_numpy()
        used = ~constant if name in ("kurtosis", "skew") else np.full(len(a), True)
        near = np.abs(a - b) <= 1e-9 * np.abs(b) + rounding.get(name, (4 * EPS * scale) ** 2)
        assert (near | (np.isnan(a) & np.isnan(b)))[used].all(), name


@few
@given(quantised)
def test_peaks_and_smoothing_are_equal_on_quantised_series(series):
    r = ragged(series)
    assert peak_counts(r).tolist() == [n_peaks(np.array(x)) for x in series]
    for width in (2, 3, 10, 20):
        s = smoothed(Ragged(r.values / 10, r.lengths), width)
        each = [np.convolve(np.array(x) / 10, np.ones(width) / width, mode="same") for x in series]
        assert s.lengths.tolist() == [len(x) for x in each]
        assert s.values.tobytes() == np.concatenate(each).tobytes()   # to the bit


@few
@given(st.lists(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30), min_size=1, max_size=6))
def test_peaks_are_equal_on_any_finite_series(series):
    with np.errstate(over="ignore"):
        assert peak_counts(ragged(series)).tolist() == [n_peaks(np.array(x)) for x in series]


def test_prominences_are_measured_of_peaks_only(monkeypatch):
    """A wall among them would walk over the whole array, and a million segments would never end."""
    seen, measure = [], signal.peak_prominences

    def watched(x, peaks):
        seen.append(x[peaks])
        return measure(x, peaks)

    monkeypatch.setattr(features.signal, "peak_prominences", watched)
    assert peak_counts(ragged([[0, 1, 0], [5], [0, 2, 0, 2, 0]])).tolist() == [1, 0, 2]
    assert seen[0].tolist() == [1, 2, 2]


@pytest.mark.parametrize("offset, scale", [(0, 1e-6), (1e9, 1.0), (-1e6, 1e-3), (3e-5, 1e-6), (0, 1e90)])
def test_moments_agree_with_exact_arithmetic(offset, scale):
    x = offset + scale * np.random.default_rng(3).standard_normal(60)
    exact = [Fraction(float(v)) for v in x]
    mean = sum(exact) / len(x)
    m2, m3, m4 = (sum((v - mean) ** k for v in exact) / len(x) for k in (2, 3, 4))
    found = {k: v[1] for k, v in features.moments(ragged([[0.0, 1.0], x])).items()}
    assert found["mean"] == pytest.approx(float(mean), rel=1e-13)
    assert found["var"] == pytest.approx(float(m2), rel=1e-11)
    assert found["kurtosis"] == pytest.approx(float(m4 / m2**2) - 3, rel=1e-9)
    assert found["skew"] == pytest.approx(float(m3**2 / m2**3) ** 0.5 * (1 if m3 > 0 else -1), rel=1e-9)


@pytest.mark.parametrize("of, rtol", [(features_of, 0), (wide_features_of, 1e-11)], ids=["opssat", "wide"])
def test_neither_blocks_nor_neighbours_change_a_number(of, rtol):
    """Not even the last bit of the 18; in the wider set, rows of one Fourier transform may differ by it from one."""
    rng = np.random.default_rng(4)
    series = [x for n in (1, 2, 7, 30, 3, 64, 12) for x in kinds(n, rng).values()]
    values, seconds, starts, _ = flat(series)
    period = np.where(np.arange(len(series)) % 2, 1.0, 1.0 + 1e-4)
    whole = of(values, seconds, starts, period)
    for block in (1, 50, 200):
        for name, number in of(values, seconds, starts, period, block=block).items():
            np.testing.assert_allclose(number, whole[name], rtol=rtol, atol=rtol, err_msg=f"{name}, block {block}")
    back = of(*flat(series[::-1])[:3], period[::-1])
    for name in whole:
        np.testing.assert_allclose(back[name][::-1], whole[name], rtol=rtol, atol=rtol, err_msg=name)


def test_time_is_elapsed_time():
    """Where the published generator's `Timedelta.seconds` differs: whole days and fractions of a second."""
    times = pd.to_datetime(["2024-01-01 00:00:00.000", "2024-01-01 00:00:00.500", "2024-01-02 00:00:01.500"])
    row = segment_features(pd.DataFrame({"segment": 1, "time": times, "value": [1.0, 2, 1]}), period_s=0.5).loc[1]
    assert row.duration == 86401.5 and row.gaps_squared == 0.25 + 86401.0**2 and row["len_weighted"] == 1.5
    assert (times[2] - times[0]).seconds == 1


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_time_stamps_of_any_unit_and_zone(unit, zone):
    times = pd.date_range("2024-10-27 00:30", periods=4, freq="30min", tz="UTC").tz_convert(zone).as_unit(unit)
    table = pd.DataFrame({"segment": "a", "time": times, "value": [1.0, 2, 1, 3]})
    assert segment_features(table, period_s=1800).duration["a"] == 5400   # over the end of summer time


def test_nanoseconds_are_not_lost():
    start = pd.Timestamp("2024-01-01").as_unit("ns")
    times = [start, start + pd.Timedelta(3, "ns"), start + pd.Timedelta(7, "ns")]
    row = segment_features(pd.DataFrame({"segment": 1, "time": times, "value": [1.0, 2, 1]}), period_s=1e-9).loc[1]
    assert row.duration == pytest.approx(7e-9, rel=1e-12)


def table(**changes) -> pd.DataFrame:
    return pd.DataFrame({"segment": ["b"] * 4 + ["a"] * 4, "time": [0.0, 1, 2, 3] * 2,
                         "value": [1.0, 3, 2, 5, 0, 1, 0, 1]} | changes)


def test_a_table_is_read_in_order_of_appearance_and_gathered():
    whole = segment_features(table(), period_s=1)
    assert whole.index.tolist() == ["b", "a"] and whole.index.name == "segment"
    assert [str(whole[n].dtype) for n in COUNTS] == ["int64"] * 6 and whole["mean"].tolist() == [2.75, 0.5]
    mixed = table().iloc[[0, 4, 1, 5, 2, 6, 3, 7]]
    pd.testing.assert_frame_equal(segment_features(mixed, period_s=1), whole)
    named = table().rename(columns={"segment": "s", "time": "t", "value": "v"}).assign(p=[1.0] * 4 + [2.0] * 4)
    named["s"] = pd.Categorical(named.s, categories=["a", "b", "unused"])
    ours = segment_features(named, segment="s", time="t", value="v", period_s="p")
    assert ours.index.tolist() == ["b", "a"] and ours["len_weighted"].tolist() == [4.0, 8.0]


@pytest.mark.parametrize("of, names", [(features_of, FEATURES), (wide_features_of, WIDE)], ids=["opssat", "wide"])
def test_no_segments_no_rows(of, names):
    found = segment_features(table().iloc[:0], period_s=1, features=of)
    assert list(found.columns) == list(names) and len(found) == 0


BOTH = pytest.mark.parametrize("of", [features_of, wide_features_of], ids=["opssat", "wide"])


@BOTH
@pytest.mark.parametrize("changes, period, message", [
    ({"value": [1, np.nan, 2, 5, 0, 1, 0, 1]}, 1, r"Segment b: a value is missing or infinite\. Drop"),
    ({"value": [1, 3, 2, 5, 0, 1, 0, -np.inf]}, 1, r"Segment a: a value is missing or infinite"),
    ({"time": [0, 1, np.nan, 3] * 2}, 1, r"Segment b, a: a time is missing or infinite"),
    ({"time": [pd.NaT, *pd.date_range("2024", periods=7)]}, 1, r"Segment b: a time is missing"),
    ({"time": [0, 2, 1, 3, 0, 1, 2, 3]}, 1, r"Segment b: times do not strictly increase\. Sort"),
    ({"time": [0, 1, 2, 3, 0, 1, 1, 3]}, 1, r"Segment a: times do not strictly increase"),
    ({"time": ["2024-01-01"] * 8}, 1, r"Column `time` holds .*to_datetime"),
    ({"value": ["1.0"] * 8}, 1, r"Column `value` holds .*numbers are needed"),
    ({"segment": ["b"] * 4 + [None] * 4}, 1, r"4 samples have no name in column `segment`"),
    ({}, 0, r"Segment b, a: the sampling period is not a positive"),
    ({}, np.nan, r"the sampling period is not a positive"),
    ({"p": [1.0] * 7 + [2.0]}, "p", r"Segment a: more than one sampling period"),
    ({}, "perid", r"There is no column `perid`"),
    ({"segment": list(range(8)), "value": np.full(8, np.inf)}, 1, r"Segment 0, 1, 2 and 5 more: a value"),
])
def test_what_is_not_a_segment_is_refused_by_name(of, changes, period, message):
    with pytest.raises(SegmentError, match=message):
        segment_features(table(**changes), period_s=period, features=of)


def test_a_missing_column_is_named_with_the_one_that_was_meant():
    with pytest.raises(SegmentError, match=r"no column `value`.*Did you mean `values`"):
        segment_features(table().rename(columns={"value": "values"}), period_s=1)


@pytest.mark.parametrize("starts, message", [
    ([0, 2, 2], "Segment 1: no samples"), ([0, 4], "Segment 1: no samples"), ([1, 2], "begins with 0"),
    ([], "begins with 0"), ([0, 3, 2], "begins with 0"), ([0, 5], "begins with 0"), ([[0]], "flat"),
])
def test_starts_that_do_not_fit_are_refused(starts, message):
    with pytest.raises(SegmentError, match=message):
        features_of(np.arange(4.0), np.arange(4.0), np.array(starts, int), 1.0)


def test_short_and_constant_segments_as_stated():
    found = pd.DataFrame(features_of(*flat([[5.0], [5.0, 6.0], [0.1] * 30])))
    one, two, flat_ = (found.loc[i] for i in range(3))
    nothing = ["kurtosis", "skew", "diff_var", "diff2_var", "var_div_duration"]
    assert one[one.isna()].index.tolist() == nothing
    assert (one["duration"], one["gaps_squared"], one["var"], one["diff_peaks"]) == (0, 0, 0, 0)
    assert two[two.isna()].index.tolist() == ["diff2_var"] and two["diff_var"] == 0 and two["var"] == 0.25
    assert flat_[flat_.isna()].index.tolist() == ["kurtosis", "skew"]
    assert flat_["var"] == flat_["std"] == flat_["diff_var"] == flat_["n_peaks"] == 0


# The wider set


def run(flags) -> int:
    return max((len(list(group)) for value, group in itertools.groupby(flags) if value), default=0)


def wide_by_the_loop(x: np.ndarray, period: float) -> dict:
    """One complete, regular segment of more than ten samples that is not constant."""
    n, z, change = len(x), (x - x.mean()) / x.std(), np.diff(x)
    slopes = np.quantile(change / period, [0.05, 0.5, 0.95])
    found = dict(zip(("slope_q05", "slope_q50", "slope_q95"), slopes, strict=True))
    sign = np.sign(change)
    found["turning_share"] = np.mean(sign[1:] * sign[:-1] == -1)
    above = z > 1e-9
    found["crossing_share"] = np.mean(above[1:] != above[:-1])
    found["longest_flat"] = run(change == 0) + 1
    for bins in (5, 10):
        edges, width = np.linspace(z.min(), z.max(), bins + 1), np.ptp(z) / bins
        counts = np.bincount([sum(v + 1e-9 * width >= edge for edge in edges[1:-1]) for v in z], minlength=bins)
        found[f"mode_{bins}"] = np.mean([edges[i] + width / 2 for i in np.flatnonzero(counts == counts.max())])
    found["longest_above"], found["longest_fall"] = run(above), run(change < 0)
    found["large_steps"], found["reversibility"] = np.mean(np.abs(np.diff(z)) > 0.04), np.mean(np.diff(z) ** 3)
    found["forecast_error"] = np.std([z[i] - z[i - 3:i].mean() for i in range(3, n)])
    letters = [sum(v > q + 1e-12 for q in np.quantile(z, [1 / 3, 2 / 3])) for v in z]
    words = pd.Series(list(itertools.pairwise(letters))).value_counts(normalize=True)
    found["motif_entropy"] = -(words * np.log(words)).sum()
    f, power = (a[1:] for a in signal.periodogram(x, 1 / period, detrend="constant"))
    p = power / power.sum()
    low, high = np.round(f * period, 9) <= 0.1, np.round(f * period, 9) > 0.25
    found |= {"power_low": p[low].sum(), "power_high": p[high].sum(), "power_middle": p[~low & ~high].sum(),
              "dominant_frequency": f[p.argmax()], "spectral_centroid": p @ f,
              "spectral_entropy": stats.entropy(p) / np.log(len(p))}
    acf = autocorrelation(x)
    found |= {f"acf_{lag}": acf[lag] for lag in (1, 2, 5, 10)}
    after = np.flatnonzero(acf < np.exp(-1))[0]
    found["decay_time"] = period * np.interp(-np.exp(-1), [-acf[after - 1], -acf[after]], [after - 1, after])
    return found | {"gap_count": 0, "longest_step": period, "missing_share": 0, "step_variation": 0}


def test_the_wider_set_agrees_with_a_plain_loop():
    rng = np.random.default_rng(6)
    series = [x for n in rng.integers(11, 200, 25).tolist() + [12, 20, 40] for x in kinds(n, rng).values() if np.ptp(x)]
    ours = pd.DataFrame(wide_features_of(*flat(series, 5.0)))
    loop = pd.DataFrame([wide_by_the_loop(x, 5.0) for x in series])[list(WIDE)]
    assert len(series) > 100
    np.testing.assert_allclose(ours, loop, rtol=1e-8, atol=1e-9)


@few
@given(quantised, st.integers(-1000, 1000), st.integers(-8, 8))
def test_shift_changes_nothing_and_scale_what_it_says(series, shift, power):
    """Integers and powers of two, so that shift and scale are exact and every difference is one of the features."""
    values, *rest = flat(series)
    before, after = wide_features_of(values, *rest), wide_features_of((values + shift) * 2.0**power, *rest)
    for name, feature in WIDE.items():
        expected = before[name] * 2.0 ** (power * feature.scale)
        np.testing.assert_allclose(after[name], expected, rtol=1e-7, atol=1e-9, err_msg=name)


@few
@given(st.floats(1e-9, 1e9), st.integers(0, 2**32 - 1))
def test_any_positive_factor(factor, seed):
    rng = np.random.default_rng(seed)
    series = [rng.standard_normal(n).cumsum() for n in (5, 40, 90)]
    values, *rest = flat(series)
    before, after = wide_features_of(values, *rest), wide_features_of(values * factor, *rest)
    for name, feature in WIDE.items():
        by = factor**feature.scale
        np.testing.assert_allclose(after[name], before[name] * by, rtol=1e-6, atol=1e-9 * by, err_msg=name)


@few
@given(quantised, st.sampled_from([(0.1, 0.0), (1.8, 32.0), (1 / 3, -7.3)]))
def test_quantised_values_in_another_unit(series, unit):
    """Values that are the mean, a quantile or the edge of a bin stay so, though rounding moves them by a bit."""
    values, *rest = flat(series)
    before, after = wide_features_of(values, *rest), wide_features_of(values * unit[0] + unit[1], *rest)
    for name in ("mode_5", "mode_10", "longest_above", "crossing_share", "motif_entropy", "turning_share"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-7, atol=1e-9, err_msg=name)


def test_the_18_features_follow_shift_and_scale():
    rng = np.random.default_rng(8)
    values, *rest = flat([x for n in (30, 77) for x in kinds(n, rng).values()])
    before, after = features_of(values, *rest), features_of(8 * values, *rest)
    squared = ["var", "diff_var", "diff2_var", "var_div_duration", "var_div_len"]
    power = {"mean": 1, "std": 1} | dict.fromkeys(squared, 2)
    for name in FEATURES:
        np.testing.assert_array_equal(after[name], before[name] * 8.0 ** power.get(name, 0), err_msg=name)


def test_frequencies_and_times_follow_the_clock():
    wave = [np.sin(np.arange(200) / 5)]
    slow, fast = wide_features_of(*flat(wave, 4.0)), wide_features_of(*flat(wave, 1.0))
    for name in ("dominant_frequency", "spectral_centroid", "slope_q95"):
        assert 4 * slow[name][0] == pytest.approx(fast[name][0])
    assert slow["decay_time"][0] == pytest.approx(4 * fast["decay_time"][0])
    assert {n for n in SPECTRUM if WIDE[n].unit == "Hz"} == {"dominant_frequency", "spectral_centroid"}


def test_gaps_are_counted_and_a_spectrum_of_many_gaps_is_not_given():
    x, t = np.sin(np.arange(100) / 5), np.arange(100.0)
    some, many = np.r_[0:40, 45:100], np.r_[0:40, 60:100]
    r = ragged([x[some], x[many]])
    found = pd.DataFrame(wide_features_of(r.values, np.r_[t[some], t[many]], r.starts, 1.0))
    assert found["gap_count"].tolist() == [1, 1] and found["longest_step"].tolist() == [6, 21]
    assert found["missing_share"].tolist() == pytest.approx([0.05, 0.2])
    asked = [*SPECTRUM, *MEMORY]
    assert found.loc[0, asked].notna().all() and found.loc[1, asked].isna().all()
    whole = pd.DataFrame(wide_features_of(*flat([x])))
    assert found.dominant_frequency[0] == whole.dominant_frequency[0]
    pushed = pd.DataFrame(wide_features_of(*flat([x[some]])))
    gap = (found - whole).acf_10.iloc[0], (pushed - whole).acf_10.iloc[0]
    assert abs(gap[0]) < abs(gap[1])   # the grid is nearer to the truth than pushing the ends together


def test_a_period_that_the_samples_contradict_gives_no_spectrum():
    values, seconds, starts, _ = flat([np.sin(np.arange(100) / 5)])
    for period, known in ((1.0, True), (1.05, True), (2.0, False), (0.5, False), (1e9, False), (1e-300, False)):
        found = wide_features_of(values, seconds, starts, period)
        assert np.isfinite(found["spectral_entropy"][0]) == np.isfinite(found["acf_5"][0]) == known, period


def test_what_is_undefined_is_nan():
    found = pd.DataFrame(wide_features_of(*flat([[7.0], [7.0] * 20, [1.0, 2.0], [0.0, 1, 0, 2, 0]])))
    undefined = [set(row[row.isna()].index) for _, row in found.iterrows()]
    shape = {"mode_5", "mode_10", "large_steps", "reversibility", "forecast_error"}
    assert undefined[1] == shape | {*SPECTRUM, *MEMORY}
    more = {"slope_q50", "motif_entropy", "longest_step", "step_variation", "crossing_share"}
    assert undefined[0] >= undefined[1] | more
    assert undefined[2] == {"forecast_error", "turning_share", "spectral_entropy", "acf_2", "acf_5", "acf_10"}
    assert undefined[3] == {"acf_5", "acf_10"}
    assert found["longest_flat"].tolist() == [1, 20, 1, 1]


def test_the_register_describes_every_feature_once():
    groups = (SLOPES, SHAPE, SPECTRUM, MEMORY, GAPS)
    assert sum(map(len, groups)) == len(WIDE) == len({f.title for f in WIDE.values()}) and not set(WIDE) & set(FEATURES)
    assert all(f.title and f.definition and f.scale in (0, 1) and (f.unit or f.scale) for f in WIDE.values())
    catalogue = wide_features.catalogue()
    assert catalogue.loc["acf_5", "title"] == "Autocorrelation, lag 5"
    assert catalogue.source.str.contains("Lubba").sum() >= 8
