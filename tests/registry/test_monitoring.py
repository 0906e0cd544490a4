"""The watch: its promise about false alarms, what it finds, and what it refuses."""
import math

import numpy as np
import pandas as pd
import pytest
from scipy import signal, stats

from esa_notebooks.registry.monitoring import cbpe, drift, online, power, sensors
from esa_notebooks.registry.monitoring.drift import MonitoringError


def remembering(phi: float, rows: int, channels: int, seed: int) -> pd.DataFrame:
    noise = np.random.default_rng(seed).standard_normal((rows, channels)) * math.sqrt(1 - phi**2)
    noise[0] /= math.sqrt(1 - phi**2)
    return pd.DataFrame(signal.lfilter([1], [1, -phi], noise, axis=0)).rename(columns=lambda c: f"c{c}")


@pytest.fixture(scope="module")
def calm():
    return remembering(0.5, 2000, 3, 1)


@pytest.fixture(scope="module")
def watch(calm):
    return drift.calibrate(calm, list(calm), 100, 0.05)


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_false_alarms_stay_within_the_rate_on_200_clean_windows(phi):
    alarms = 0
    for r in range(10):
        x = remembering(phi, 3000 + 20 * 500, 6, 100 + r)
        watch = drift.calibrate(x[:3000], list(x), 200, 0.05, seed=r)
        alarms += sum(bool(drift.look(watch, x.iloc[s:s + 200]).drifted) for s in range(3300, 3300 + 20 * 480, 480))
    assert stats.binomtest(alarms, 200, 0.05, alternative="greater").pvalue > 0.01, alarms


def test_three_sizes_are_found_with_the_stated_power():
    x = remembering(0.8, 4000, 3, 5)
    sizes = {"offset": (0.5, 1.0, 2.0)}
    told = power.campaign(x, list(x), 200, 0.05, per_month=30, sizes=sizes)
    assert told.interval.low <= 0.05 and told.clean == 200
    new, rng = remembering(0.8, 200 * 220, 3, 6), np.random.default_rng(0)
    watch = drift.calibrate(x, list(x), 200, 0.05)
    for (_, row), size in zip(told.table.iterrows(), sizes["offset"]):
        found = 0
        for i in range(100):
            window, channel = new.iloc[440 * i:440 * i + 200].copy(), f"c{rng.integers(3)}"
            window[channel] += size * x[channel].std()
            found += channel in drift.look(watch, window).drifted
        # two estimates of one share: the campaign's from the reference, and this one from windows that are really new
        assert abs(found / 100 - row.share) <= 0.2, (size, found, row.share)
    assert told.table.share.iloc[-1] > 0.9


def test_the_same_seed_gives_the_same_watch(calm, watch):
    again = drift.calibrate(calm, list(calm), 100, 0.05)
    assert again.level == watch.level and (again.clean == watch.clean).all()
    assert drift.calibrate(calm, list(calm), 100, 0.05, seed=1).level != watch.level


def test_rows_of_an_unknown_group_have_no_standing_and_are_said():
    x = remembering(0, 1000, 2, 0).assign(kind=["a", "b"] * 500)
    watch = drift.calibrate(x, ["c0", "c1"], 50, 0.05, group="kind")
    told = drift.look(watch, x[:50].assign(kind="new"))
    assert told.unknown == ["c0", "c1"] and not told.drifted and "does not know" in told.table.why[0]


def test_a_constant_channel_that_moves_is_found():
    x = remembering(0, 1000, 2, 0).assign(c1=5.0)
    watch = drift.calibrate(x, list(x), 50, 0.05)
    assert drift.look(watch, x[:50]).drifted == []
    assert "c1" in drift.look(watch, x[:50].assign(c1=6.0)).drifted


def test_nan_and_infinite_readings_are_not_passed_over(calm, watch):
    window = calm[:100].copy()
    window.loc[:20, "c0"], window.loc[:20, "c1"] = np.nan, np.inf
    assert drift.look(watch, window).unknown == ["c0", "c1"]
    few = calm[:100].copy()
    few.loc[:4, "c0"] = np.nan
    assert drift.look(watch, few).unknown == [] and math.isfinite(drift.look(watch, few).table.distance[0])


def test_a_channel_missing_in_the_reference_is_left_out_by_name(calm):
    holed = calm.assign(c2=calm.c2.where(np.arange(len(calm)) % 2 == 0))
    watch = drift.calibrate(holed, list(holed), 100, 0.05)
    assert watch.channels == ("c0", "c1") and watch.left_out == {"c2": "missing in 50% of the reference"}


@pytest.mark.parametrize("change, said", [
    (lambda w, x: drift.look(w, x[:0]), "0 rows.*Nothing arrived"),
    (lambda w, x: drift.look(w, x[:99]), "99 rows; the watch was calibrated for 100"),
    (lambda w, x: drift.look(w, x[:100].drop(columns="c1")), "the column `c1` is missing .1 of 3 channels"),
    (lambda w, x: drift.look(w, x[:100].assign(c1="a")), "`c1` holds .*, not numbers"),
    (lambda w, x: list(drift.watched(w, x[:50])), "less than a window of 100"),
    (lambda w, x: list(drift.watched(w, x.assign(t=range(len(x), 0, -1)), "t")), "time order: row 1 "),
    (lambda w, x: drift.calibrate(x, list(x), 1, 0.05), "A window of 1 row shows no distribution"),
    (lambda w, x: drift.calibrate(x[:300], list(x), 100, 0.05), "fewer than four windows"),
    (lambda w, x: drift.calibrate(x, list(x), 100, 0.9), "above 0 and at most"),
    (lambda w, x: drift.calibrate(x, ["c0", "d1"], 100, 0.05), "`d1` is missing"),
    (lambda w, x: drift.calibrate(x, [], 100, 0.05), "no channel was named"),
    (lambda w, x: drift.calibrate(x, list(x), 100, 1e-6), "too rare to be calibrated"),
    (lambda w, x: drift.calibrate(x * np.nan, list(x), 100, 0.05), "no channel can be watched"),
    (lambda w, x: drift.alarm_share(20, 30), "every second window"),
    (lambda w, x: drift.alarm_share(1, 0), "must be above 0"),
    (lambda w, x: power.altered(x, "ofset", 1, ["c0"], x), "no alteration 'ofset'"),
    (lambda w, x: power.altered(x, "dropout", 1.5, ["c0"], x), "a share, 0 to 1"),
    (lambda w, x: online.alarms("ADVIN", 0.1, x.c0), "no online detector 'ADVIN'"),
    (lambda w, x: online.alarms("ADWIN", 0.1, [0.0, math.nan]), "1 values not finite"),
    (lambda w, x: online.set_on(x.c0[:50], "ADWIN", per_month=1, length=100), "a hundred or more"),
    (lambda w, x: sensors.reading_checks(x, x[:0], ["c0"]), "window is empty"),
    (lambda w, x: sensors.reading_checks(x, x.drop(columns="c0"), ["c0"]), "the window: the channel `c0` is missing"),
])
def test_bad_input_is_refused_with_its_reason(calm, watch, change, said):
    with pytest.raises(MonitoringError, match=said):
        change(watch, calm)


def test_benjamini_and_hochbergs_rule_against_scipy():
    p = np.random.default_rng(0).random(40) ** 3
    assert np.allclose(drift.adjusted(p), stats.false_discovery_control(p)) and np.isclose(drift.simes(p), min(drift.adjusted(p)))
    assert np.isnan(drift.adjusted(np.array([0.01, np.nan]))).tolist() == [False, True]


def test_online_detectors_keep_near_their_promise_and_find_a_shift():
    reference, streams = remembering(0.9, 4000, 1, 0).c0.to_numpy(), [remembering(0.9, 1000, 1, 50 + s).c0 for s in range(20)]
    for name in ("ADWIN", "Page–Hinkley"):
        chosen = online.set_on(reference, name, per_month=0.2, length=1000, stretches=40)
        false = sum(bool(online.alarms(name, chosen.setting, s)) for s in streams)
        found = sum(any(r >= 500 for r in online.alarms(name, chosen.setting, s + 2.5 * (np.arange(1000) >= 500))) for s in streams)
        assert chosen.false <= chosen.stretches * (1 - math.exp(-0.2)) and false <= 9 and found >= 15, (name, false, found)


def test_kswin_is_set_from_its_smallest_p_values():
    reference = remembering(0.9, 1000, 1, 3).c0.to_numpy()
    chosen = online.set_on(reference, "KSWIN", per_month=0.3, length=200, stretches=12)
    assert chosen.setting < 1e-4 and chosen.false <= 12 * (1 - math.exp(-0.3))


def _world(n: int, hard: float, rng) -> tuple[np.ndarray, np.ndarray]:
    score = np.where(rng.random(n) < hard, rng.normal(0, 0.4, n), rng.choice([-3.0, 3.0], n, p=[0.8, 0.2]))
    return (rng.random(n) < 1 / (1 + np.exp(-1.5 * score))).astype(int), score


def test_cbpe_covers_the_true_figures_under_covariate_shift():
    from sklearn.metrics import average_precision_score, f1_score
    rng, inside = np.random.default_rng(0), []
    for _ in range(16):
        y, score = _world(500, 0.2, rng)
        estimator = cbpe.Estimator.learn(cbpe.Held(y, score, np.arange(500) // 10), count=12)
        y, score = _world(300, 0.5, rng)
        told = cbpe.estimate(estimator, score, score > 0, np.arange(300))
        for metric, true in (("f1", f1_score(y, score > 0)), ("auc_pr", average_precision_score(y, score))):
            inside.append(told.low[metric] <= true <= told.high[metric])
    assert stats.binomtest(sum(inside), len(inside), 0.95, alternative="less").pvalue > 0.001, np.mean(inside)


def test_cbpe_says_what_it_cannot_know():
    y, score = _world(400, 0.3, np.random.default_rng(1))
    estimator = cbpe.Estimator.learn(cbpe.Held(y, score, np.arange(400)), count=10)
    told = cbpe.estimate(estimator, score, np.zeros(400, bool), np.arange(400))
    assert math.isnan(told.value.precision) and told.why.precision == "no alarm was raised"
    with pytest.raises(MonitoringError, match="The window is empty"):
        cbpe.estimate(estimator, score[:0], [], [])
    with pytest.raises(ValueError, match="NaN or infinite"):
        cbpe.estimate(estimator, np.array([math.nan, 1.0]), [0, 1], [0, 1])
    with pytest.raises(ValueError, match="rows of both classes"):
        cbpe.Estimator.learn(cbpe.Held(np.zeros(400), score, np.arange(400)))


def test_the_floor_lets_the_promised_share_of_clean_windows_fall_below():
    rng = np.random.default_rng(2)
    y, score = _world(3000, 0.3, rng)
    held = cbpe.Held(y, score, np.arange(3000))
    estimator = cbpe.Estimator.learn(held, count=10)
    low = cbpe.floor(estimator, held, 0.0, 100, 0.1)
    below = [cbpe.estimate(estimator, s, s > 0, np.arange(100), each=1).value.f1 < low
             for _, s in (_world(100, 0.3, rng) for _ in range(100))]
    assert 0.02 < np.mean(below) < 0.22


def test_freshness_and_gaps():
    times = pd.DataFrame({"t": pd.date_range("2024-01-01", periods=100, freq="60s", tz="UTC")})
    at = times.t.iloc[-1] + pd.Timedelta(minutes=10)
    lines = sensors.clock_checks(times, times.drop(index=range(40, 60)), "t", now=at, period_s=60)
    assert [(x["check"], x["value"], x["status"]) for x in lines] == [("freshness", 600.0, "beyond"), ("gap", 1260.0, "beyond")]
    assert sensors.clock_checks(times, times, "t")[0]["why"] == "it was not said what time it is"
    assert {x["status"] for x in sensors.clock_checks(times, times, None)} == {"not computable"}
    for window, now, said in ((times[::-1], at, "runs backwards"), (times[:0], at, "is empty"),
                              (times, times.t.iloc[0], "later than the time of looking")):
        with pytest.raises(MonitoringError, match=said):
            sensors.clock_checks(times, window, "t", now=now, period_s=60)


def test_a_standstill_is_broken_by_missing_readings_and_measured_against_the_reference():
    assert sensors.longest_run([1, 1, math.nan, 1, 1, 1]) == 3 and sensors.longest_run([math.nan] * 3) == 0
    x = remembering(0, 500, 1, 0)
    stuck = next(line for line in sensors.reading_checks(x, x[:100].assign(c0=1.0), ["c0"]) if line["check"] == "stuck")
    assert (stuck["value"], stuck["status"]) == (100.0, "beyond")
    empty = sensors.reading_checks(x, x[:100] * np.nan, ["c0"])
    assert [line["status"] for line in empty] == ["beyond", "not computable", "not computable"]
