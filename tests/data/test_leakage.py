"""Leakage: every way in is found, nothing innocent is accused, and order or size of the table does not matter."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esa_notebooks.data import opssat
from esa_notebooks.data.leakage import copies_across, in_both_splits, leakage, leaking_features, neighbours, overlapping
from esa_notebooks.data.tables import Column, Meta

MIRROR = Path(os.environ.get("ESA_DATA_MIRROR", "nowhere"))


def meta(*columns: Column) -> Meta:
    return Meta("t", "A table", "row", "synthetic", columns, "CC0", "none", {})


def test_ids_missing_in_one_place_are_no_shared_identity():
    found = in_both_splits([None, np.nan, 1.0, 1.0, 2.0], ["train", "test", "train", "test", None])
    assert found.to_dict("records") == [{"id": 1.0, "train": 1, "test": 1}]
    assert in_both_splits([1, 2], ["train", "train"]).empty


def test_copies_are_exact_and_know_missing_values_and_negative_zero():
    df = pd.DataFrame(
        {"a": [0.0, -0.0, 1.0, 1.0 + 1e-15, np.nan, np.nan], "b": [2.0, 2.0, 3.0, 3.0, 5.0, 5.0], "c": 7.0},
        index=list("uvwxyz"),
    )
    assert list(copies_across(df, ["a", "b", "c"], ["train", "test"] * 3).index) == ["u", "v", "y", "z"]


def test_copies_within_a_split_and_rows_at_rest_are_no_leakage():
    df = pd.DataFrame({"a": [1.0, 1.0, 0.0, 0.0, np.nan, np.nan], "b": [2.0, 2.0, 0.0, 0.0, np.nan, np.nan]})
    assert copies_across(df, ["a", "b"], ["train", "train", "train", "test", "train", "test"]).empty


def test_copies_of_texts():
    df = pd.DataFrame({"text": ["to the Moon", "to Mars", "to the Moon", None, None]})
    assert list(copies_across(df, ["text"], ["train", "train", "test", "train", "test"]).index) == [0, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 12), st.booleans()), max_size=25),
    st.booleans(),
)
def test_overlaps_agree_with_comparing_every_pair(windows, across):
    frame = pd.DataFrame(windows, columns=["group", "start", "length", "test"])
    split = np.where(frame["test"], "test", "train")
    end = frame["start"] + frame["length"]
    found = overlapping(frame["group"], frame["start"], end, split if across else None)
    order = sorted(range(len(windows)), key=lambda i: (windows[i][0], windows[i][1], i))
    expected = {
        i
        for at, i in enumerate(order)
        for j in order[:at]
        if windows[i][0] == windows[j][0] and end[j] >= windows[i][1] and (not across or split[i] != split[j])
    }
    assert set(found["row"]) == expected
    for row, other in zip(found["row"], found["other"], strict=True):
        assert windows[row][0] == windows[other][0] and end[other] >= windows[row][1]
        assert not across or split[row] != split[other]


def test_overlaps_take_instants_and_leave_out_the_unknown():
    start = pd.to_datetime(["2024-01-01 00:00", "2024-01-01 00:05", None], utc=True)
    end = pd.to_datetime(["2024-01-01 00:10", "2024-01-01 00:15", "2024-01-01 01:00"], utc=True)
    assert list(overlapping(["x"] * 3, start, end, ["train", "test", "test"])["row"]) == [1]


def test_a_hundred_thousand_windows_take_under_two_seconds():
    rng = np.random.default_rng(0)
    start = rng.integers(0, 10_000, 100_000)  # some five billion overlapping pairs, if they were listed
    begun = time.process_time()
    found = overlapping(rng.integers(0, 3, 100_000), start, start + 5_000, rng.choice(["train", "test"], 100_000))
    assert len(found) > 99_000 and time.process_time() - begun < 2


def test_neighbours_do_not_reach_over_the_edge_of_a_group():
    n = neighbours(["a", "a", "b", "b"], [1, 2, 3, 4], ["train", "test", "train", "test"])
    assert (n.tested, n.between, n.beside) == (2, 0, 2)
    n = neighbours(["a"] * 3, [30, 10, 20], ["train", "train", "test"])  # put in order first
    assert n.between == 1 and list(n.rows["row"]) == [2]


def test_neighbours_survive_groups_of_one_and_missing_order():
    n = neighbours(["a", "b", "b"], [1.0, np.nan, 2.0], ["test", "train", "test"])
    assert (n.tested, n.between, n.random) == (2, 0, 0.0)


def test_a_feature_that_is_only_strong_is_not_named_and_chance_is_not_either():
    rng = np.random.default_rng(1)
    y = np.r_[np.zeros(300), np.ones(100)]
    strong = pd.DataFrame({"f": y * 2 + rng.standard_normal(400)})
    assert leaking_features(strong, ["f"], y).empty
    named = [
        len(leaking_features(pd.DataFrame(rng.standard_normal((10, 60))), range(60), np.r_[1, 1, np.zeros(8)], seed=i))
        for i in range(15)
    ]
    assert (
        sum(map(bool, named)) <= 1
    )  # sixty columns of noise often hold a perfect one; one in a hundred tables may be accused


def test_a_feature_that_ranks_the_wrong_way_round_is_named():
    y = np.r_[np.zeros(60), np.ones(20)]
    found = leaking_features(
        pd.DataFrame({"f": -y, "constant": 1.0, "nothing": np.nan}), ["f", "constant", "nothing"], y
    )
    assert found[["column", "by", "separation"]].to_numpy().tolist() == [["f", "values", 1.0]]


@pytest.mark.parametrize("label", [np.zeros(5), np.full(5, np.nan), np.full(5, 2.0)])
def test_without_two_classes_no_feature_is_named(label):
    assert leaking_features(pd.DataFrame({"f": range(5)}), ["f"], label).empty


def test_steps_that_start_anew_in_each_split_are_no_neighbours():
    df = pd.DataFrame(
        {
            "channel": "A",
            "split": ["train"] * 50 + ["test"] * 50,
            "step": [*range(50), *range(50)],
            "value": np.random.default_rng(0).random(100),
        }
    )
    found = leakage(
        df,
        meta(Column("channel", "group"), Column("split", "split"), Column("step", "order"), Column("value", "value")),
    )
    assert found.neighbours is None and found.compromised == 0 and found.test_rows == 50


def test_overlapping_segments_compromise_their_test_rows():
    time_ = pd.date_range("2024-01-01", periods=20, freq="s", tz="UTC")
    df = pd.concat(
        [
            pd.DataFrame({"segment": s, "channel": "A", "time": time_[a:b], "value": 1.0, "split": side})
            for s, a, b, side in ((1, 0, 8, "train"), (2, 6, 12, "test"), (3, 13, 20, "test"))
        ],
        ignore_index=True,
    )
    described = meta(
        Column("segment", "segment"),
        Column("channel", "group"),
        Column("time", "time"),
        Column("value", "value"),
        Column("split", "split"),
    )
    found = leakage(df, described)
    assert found.compromised == 6 and len(found.overlaps) == 1 and found.shared.empty


def test_a_table_without_splits_says_so():
    found = leakage(pd.DataFrame({"f": [1.0, 2.0]}), meta(Column("f", "feature")))
    assert "no split" in found.why and found.compromised == 0


def test_opssat_has_no_copies_and_a_random_split(require):
    file = MIRROR / "opssat-ad" / "dataset.csv"
    require("mirror", file.is_file(), "ESA_DATA_MIRROR has no opssat-ad/dataset.csv")
    df, described = opssat.read(file)
    found = leakage(df, described)
    assert found.compromised == 0 and found.test_rows == 529
    assert abs(found.neighbours.between / found.neighbours.random - 1) < 0.1 and found.neighbours.chronological == 0
    spoilt = df.copy()
    test, train = (df.index[df["split"] == s][:7] for s in ("test", "train"))
    spoilt.loc[test, described.names("feature")] = df.loc[train, described.names("feature")].to_numpy()
    assert leakage(spoilt, described).compromised == 7
    assert leaking_features(df.assign(len=df["anomaly"] * 3), ["len", "mean"], df["anomaly"])["column"].tolist() == [
        "len"
    ]
