"""The four protocols, and tables they cannot be asked of."""

import os

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import opssat
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.data.tables import Column, Meta
from esa_notebooks.models.detectors.linear import LR
from esa_notebooks.models.experiment import run, task_of
from esa_notebooks.models.protocols import PROTOCOLS, random_split, split_of
from esa_notebooks.models.splits import SplitError


def meta(*columns: Column) -> Meta:
    return Meta("mini", "A miniature", "segment", "synthetic", columns, "CC0", "none", {})


FULL = meta(Column("segment", "id"), Column("channel", "group"), Column("anomaly", "label"), Column("split", "split"))


def table(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "segment": rng.permutation(n),
            "channel": np.repeat(["A", "B"], n // 2),
            "anomaly": (rng.random(n) < 0.2).astype(int),
            "split": rng.permutation(["train"] * (3 * n // 4) + ["test"] * (n - 3 * n // 4)),
        }
    )


def test_official_and_nominal_only_differ_in_what_unsupervised_detectors_see():
    df = table()
    a, b = split_of(df, FULL, "official"), split_of(df, FULL, "nominal-only")
    assert (a.test == b.test).all() and (a.train == b.train).all() and (a.reference == b.reference).all()
    assert set(df.split.iloc[a.test]) == {"test"} and set(df.split.iloc[a.train]) == {"train"}
    assert (df.anomaly.iloc[b.fit] == 0).all() and (df.anomaly.iloc[a.fit] == 1).any()
    assert (a.fit == a.train).all() and (b.fit == b.reference).all()
    assert a.mask(False).sum() == b.mask(False).sum() == len(a.reference) and b.mask(False).all()
    assert len({a.sentence, b.sentence}) == 2 and "not label-free" in b.sentence


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size, guard", [(10, 1), (5, 2), (25, 3)])
def test_no_test_segment_has_a_neighbour_in_training(seed, size, guard):
    df = table()
    s = split_of(df, FULL, "blocked", seed=seed, size=size, guard=guard)
    assert len(np.intersect1d(s.train, s.test)) == 0
    official = df.channel[df.split == "test"].value_counts()
    for name, rows in df.groupby("channel"):
        place = rows.segment.rank().astype(int)
        side = pd.Series("neither", rows.index)
        side[rows.index.intersection(df.index[s.test])] = "test"
        side[rows.index.intersection(df.index[s.train])] = "train"
        tested, trained = place[side == "test"].to_numpy(), place[side == "train"].to_numpy()
        assert np.abs(tested[:, None] - trained[None]).min() > guard
        assert abs(len(tested) - official[name]) <= size / 2 + 1


def test_another_seed_draws_other_blocks_and_the_same_seed_the_same():
    df = table()
    a, b, c = (split_of(df, FULL, "blocked", seed=s) for s in (1, 1, 2))
    assert (a.test == b.test).all() and (len(a.test) != len(c.test) or (a.test != c.test).any())


def test_the_published_table_is_split_as_published(require):
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set")
    df, described = opssat.read(obtain_configured("opssat").files["dataset.csv"])
    s = split_of(df, described, "official")
    assert (len(s.train), len(s.test), int(df.anomaly.iloc[s.test].sum())) == (1594, 529, 113)
    b = split_of(df, described, "blocked")
    assert abs(len(b.test) - 529) < 30 and len(b.train) > 1200 and len(np.intersect1d(b.train, b.test)) == 0


@pytest.mark.parametrize("protocol, words", [("oficial", "Did you mean `official`"), ("", "there are official")])
def test_unknown_protocols(protocol, words):
    with pytest.raises(SplitError, match=words):
        split_of(table(), FULL, protocol)


@pytest.mark.parametrize(
    "columns, protocol, words",
    [
        (("segment", "channel", "anomaly"), "official", "no split"),
        (("segment", "channel", "split"), "official", "no label"),
        (("channel", "anomaly", "split"), "blocked", "no numbered segments"),
        (("segment", "anomaly", "split"), "blocked", "no numbered segments"),
    ],
)
def test_tables_that_lack_a_column(columns, protocol, words):
    kept = meta(*(c for c in FULL.columns if c.name in columns))
    with pytest.raises(SplitError, match=words):
        split_of(table()[list(columns)], kept, protocol)


def test_texts_for_segment_numbers_and_nothing_nominal():
    with pytest.raises(SplitError, match="numbered"):
        split_of(table().assign(segment=lambda d: "s" + d.segment.astype(str)), FULL, "blocked")
    for protocol in PROTOCOLS:
        with pytest.raises(SplitError, match="0 nominal"):
            split_of(table().assign(anomaly=1), FULL, protocol)
    with pytest.raises(SplitError, match="0 test rows"):
        split_of(table().assign(split="train"), FULL, "official")


BARE = meta(Column("a", "feature"), Column("b", "channel"), Column("anomaly", "label"))


def bare(n: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame({"a": rng.standard_normal(n), "b": rng.integers(0, 9, n), "anomaly": (rng.random(n) < 0.1).astype(int)})


@pytest.mark.parametrize("seed", range(3))
def test_a_random_split_keeps_the_classes_and_repeats_itself(seed):
    df = bare()
    s, again = (random_split(df, BARE, seed) for _ in range(2))
    assert (s.test == again.test).all() and len(s.train) + len(s.test) == len(df) and not set(s.train) & set(s.test)
    for kind, rows in df.groupby("anomaly"):
        assert abs(df.anomaly.iloc[s.test].eq(kind).sum() - 0.3 * len(rows)) <= 0.5
    assert (s.fit == s.train).all() and (df.anomaly.iloc[s.reference] == 0).all() and f"seed {seed}" in s.sentence
    assert (s.test[:9] != random_split(df, BARE, seed + 9).test[:9]).any()


def test_copies_stay_on_one_side_of_a_random_split():
    df = pd.concat([bare(), bare()], ignore_index=True)
    s = random_split(df, BARE)
    assert set(s.test) == {(i + 500) % 1000 for i in s.test}


@pytest.mark.parametrize("role", ["time", "order", "segment", "id"])
def test_a_random_split_is_refused_where_rows_have_an_order(role):
    with pytest.raises(SplitError, match="neighbours on both sides"):
        random_split(bare().assign(place=range(500)), meta(*BARE.columns, Column("place", role)))
    with pytest.raises(SplitError, match="split of its own"):
        random_split(table(), FULL)
    with pytest.raises(SplitError, match="no label"):
        random_split(bare()[["a", "b"]], meta(*BARE.columns[:2]))
    with pytest.raises(SplitError, match="has no split; official needs it"):
        split_of(bare(), BARE, "official")


def test_a_table_without_order_is_a_task_of_one_channel():
    task = task_of(bare(), BARE, "random")
    assert list(task.X.columns) == ["a", "b", "channel"] and set(task.channel) == {"all"} and len(set(task.block)) == 500
    outcome = run(task, LR, [0], folds=2, progress=iter)
    assert len(outcome.scores.rows) == 500 and outcome.scores.about["protocol"] == "random"
