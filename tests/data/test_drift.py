"""Drift: the test keeps its level on series that remember, has power, is quick, and says what it could not do."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import signal, stats

from esa_notebooks.data import opssat
from esa_notebooks.data.drift import LEAST_SHIFT, blocks, drift, permutation_test, shift
from esa_notebooks.data.tables import Column, Meta

MIRROR = Path(os.environ.get("ESA_DATA_MIRROR", "nowhere"))


def meta(*columns: Column, **more) -> Meta:
    return Meta("t", "A table", "row", "synthetic", columns, "CC0", "none", {}, **more)


def remembering(phi: float, shape: tuple[int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape) * np.sqrt(1 - phi**2)
    noise[:, 0] /= np.sqrt(1 - phi**2)
    return signal.lfilter([1], [1, -phi], noise, axis=1)


def p_value(x: np.ndarray, test: np.ndarray) -> float:
    bins = np.searchsorted(np.unique(np.quantile(x, np.arange(1, 64) / 64)), x)
    return permutation_test(bins, blocks(x, test)[0], test, permutations=399)[1]


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_the_level_is_kept_on_240_series_without_drift(phi):
    last = np.arange(2000) >= 1400
    rejected = sum(p_value(x, last) <= 0.05 for x in remembering(phi, (240, 2000), seed=int(100 * phi) + 7))
    low, high = stats.binom.interval(0.99, 240, 0.05)
    assert low <= rejected <= high


def test_power_grows_with_the_shift():
    last = np.arange(2000) >= 1400
    series = remembering(0.9, (60, 2000), seed=21)
    power = [np.mean([p_value(x + size * last, last) <= 0.05 for x in series]) for size in (0.5, 1.0, 1.5)]
    assert power[0] > 0.3 and power[1] > 0.85 and power[2] > 0.95 and power == sorted(power)


def test_whole_tables_without_drift_are_left_in_peace():
    """The false discovery rate over columns: of 30 tables of six remembering channels, hardly one names any."""
    described = meta(Column("time", "time"), *(Column(c, "channel") for c in "abcdef"))
    stamps = pd.date_range("2024-01-01", periods=1000, freq="30s", tz="UTC")
    named = 0
    for seed in range(30):
        df = pd.DataFrame(remembering(0.8, (6, 1000), seed).T, columns=list("abcdef")).assign(time=stamps)
        named += bool(drift(df, described, permutations=299).drifted)
    assert named <= stats.binom.ppf(0.995, 30, 0.05)


def test_the_effect_is_bounded_scale_free_and_zero_for_equals():
    rng = np.random.default_rng(0)
    a, b = rng.lognormal(0, 2, 3000), rng.lognormal(0.5, 2, 2000)
    assert shift(a, b) == pytest.approx(shift(1000 * a - 7, 1000 * b - 7), rel=1e-9)
    assert shift(a, a) == 0 == shift(np.ones(5), np.ones(9)) and shift(np.zeros(5), np.full(9, 1e-9)) == 2


def test_one_wild_value_decides_nothing():
    x = np.random.default_rng(0).standard_normal(1000)
    assert shift(x, np.where(np.arange(1000) == 5, 1e12, x)) < 0.01


def test_a_small_shift_in_many_rows_is_significant_and_no_drift():
    rng = np.random.default_rng(3)
    df = pd.DataFrame({"f": rng.standard_normal(3000), "split": np.repeat(["train", "test"], 1500)})
    df.loc[df["split"] == "test", "f"] += 0.6 * LEAST_SHIFT
    (row,) = drift(df, meta(Column("f", "feature"), Column("split", "split"))).table.itertuples()
    assert row.q < 0.05 and row.effect < LEAST_SHIFT and not row.drifted


def test_categories_and_labels_are_compared():
    rng = np.random.default_rng(4)
    split = np.repeat(["train", "test"], [700, 300])
    df = pd.DataFrame(
        {
            "kind": np.where((split == "test") & (rng.random(1000) < 0.4), "new", "old"),
            "anomaly": (rng.random(1000) < 0.1).astype(int),
            "name": [f"n{i}" for i in range(1000)],
            "split": split,
        }
    )
    found = drift(
        df,
        meta(
            Column("kind", "attribute"),
            Column("anomaly", "label"),
            Column("name", "attribute"),
            Column("split", "split"),
        ),
    )
    rows = found.table.set_index("name")
    assert found.drifted == ["kind"] and 0.3 < rows.effect["kind"] < 0.5
    assert "value of its own" in rows.why["name"] and np.isnan(rows.p["name"]) and found.tested == 2


def test_whole_segments_are_permuted_where_the_split_keeps_them_together():
    """Twenty segments, each with a level of its own: rows would show drift, segments show none."""
    rng = np.random.default_rng(5)
    segment = np.repeat(np.arange(20), 50)
    df = pd.DataFrame(
        {
            "segment": segment,
            "f": rng.standard_normal(20)[segment] + 0.1 * rng.standard_normal(1000),
            "split": np.where(segment < 14, "train", "test"),
        }
    )
    described = meta(Column("segment", "segment"), Column("f", "feature"), Column("split", "split"))
    whole = drift(df, described).table.iloc[0]
    rows = (
        drift(df, meta(Column("f", "feature"), Column("split", "split"), Column("segment", "context")))
        .table.set_index("name")
        .loc["f"]
    )
    assert "segment" in whole["units"] and whole["p"] > 0.05 > rows["p"]


def test_every_channel_of_a_long_table_is_a_column_with_its_own_clock():
    parts = []
    for i, x in enumerate(remembering(0.5, (3, 900), seed=6)):
        side = np.where(np.arange(900) < 600, "train", "test")
        parts.append(
            pd.DataFrame(
                {
                    "channel": f"C{i}",
                    "step": np.r_[np.arange(600), np.arange(300)],
                    "split": side,
                    "value": x + (2.0 * (side == "test") if i == 1 else 0),
                }
            )
        )
    df = pd.concat(parts).sample(frac=1, random_state=0)  # the order of the rows must not matter
    described = meta(
        Column("channel", "group"), Column("step", "order"), Column("split", "split"), Column("value", "value")
    )
    found = drift(df, described)
    assert found.drifted == ["C1"] and found.tested == 3 and found.splits
    again = drift(pd.concat(parts), described).table.set_index("name")
    pd.testing.assert_series_equal(
        found.table.set_index("name").p, again.p.reindex(found.table.name), check_names=False
    )


def test_halves_in_time_stand_in_for_a_missing_split():
    x = remembering(0.5, (1, 2000), seed=8)[0]
    df = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=2000, freq="30s", tz="UTC"), "f": x})
    df["g"] = df.f + 3 * (np.arange(2000) >= 1000)
    found = drift(df.iloc[::-1], meta(Column("time", "time"), Column("f", "channel"), Column("g", "channel")))
    assert found.drifted == ["g"] and "half" in found.compared and not found.splits and "First" in str(found)


@pytest.mark.parametrize(
    "df, columns, why",
    [
        (pd.DataFrame({"f": [1.0, 2.0]}), [Column("f", "feature")], "neither a split nor a clock"),
        (
            pd.DataFrame({"f": [1.0, 2.0], "s": ["train"] * 2}),
            [Column("f", "feature"), Column("s", "split")],
            "on one side",
        ),
        (
            pd.DataFrame({"t": ["a", "b"], "s": ["train", "test"]}),
            [Column("t", "text"), Column("s", "split")],
            "no column",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(df, columns, why):
    found = drift(df, meta(*columns))
    assert why in found.why and why in str(found) and found.tested == 0 and found.drifted == []


def test_columns_that_cannot_be_tested_are_listed_with_the_reason():
    x = np.cumsum(np.random.default_rng(9).standard_normal(60))
    side = np.repeat(["train", "test"], 30)
    df = pd.DataFrame(
        {
            "step": range(60),
            "walk": x,
            "gone": np.where(side == "train", x, np.nan),
            "infinite": np.inf,
            "switched": np.where(side == "train", 0.0, 1.0),
            "split": side,
        }
    )
    found = drift(
        df,
        meta(
            Column("step", "order"),
            *(Column(c, "channel") for c in ("walk", "gone", "infinite", "switched")),
            Column("split", "split"),
        ),
    ).table.set_index("name")
    assert found.p.isna().all() and not found.drifted.any()
    assert (
        "too few for a test" in found.why["walk"]
        and "fewer than 10 values" in found.why["gone"] == found.why["infinite"]
    )
    assert (
        "1 and 1 independent" in found.why["switched"] and found.effect["switched"] == 2
    )  # the effect is shown all the same


def test_a_sample_of_units_is_seeded_and_said():
    rng = np.random.default_rng(10)
    df = pd.DataFrame({"f": rng.standard_normal(9000), "split": rng.choice(["train", "test"], 9000)})
    described = meta(Column("f", "feature"), Column("split", "split"))
    one, two, other = (drift(df, described, seed=s, permutations=199) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one.table, two.table)
    assert "drawn with seed 1" in one.notes[0] and "of 9,000 single rows" in one.table.units[0]
    assert one.table.effect[0] == other.table.effect[0] and one.table.statistic[0] != other.table.statistic[0]


def test_speed():
    """2,123 rows of 18 features within 3 s of processor time; 40,000 instants of 12 channels within 8 s."""
    rng = np.random.default_rng(11)
    features = [f"f{i}" for i in range(18)]
    small = pd.DataFrame(rng.standard_normal((2123, 18)), columns=features).assign(
        split=rng.choice(["train", "test"], 2123)
    )
    begun = time.process_time()
    drift(small, meta(*(Column(f, "feature") for f in features), Column("split", "split")))
    assert time.process_time() - begun < 3
    large = pd.DataFrame(remembering(0.99, (12, 40_000), 12).T, columns=features[:12])
    large["time"] = pd.date_range("2024-01-01", periods=40_000, freq="30s", tz="UTC")
    begun = time.process_time()
    drift(large, meta(Column("time", "time"), *(Column(f, "channel") for f in features[:12])))
    assert time.process_time() - begun < 8


def test_opssat_has_not_drifted_until_it_is_moved(require):
    file = MIRROR / "opssat-ad" / "dataset.csv"
    require("mirror", file.is_file(), "ESA_DATA_MIRROR has no opssat-ad/dataset.csv")
    df, described = opssat.read(file)
    assert drift(df, described).drifted == []
    df.loc[df["split"] == "test", "mean"] += df["mean"].std()
    assert drift(df, described).drifted == ["mean"]
