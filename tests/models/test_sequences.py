"""Raw telemetry to alarms: a user's own channels, awkward tables, and the figures beside counting by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import smap
from esa_notebooks.data.datasets import read_telemetry
from esa_notebooks.data.tables import Column, Meta, load_table, save_table
from esa_notebooks.data.telemetry import Config
from esa_notebooks.models import sequences
from esa_notebooks.models.evaluation.definitions import Series, definitions
from esa_notebooks.models.evaluation.metrics import EvaluationError
from esa_notebooks.models.evaluation.telemanom import Rules, alarms, threshold
from esa_notebooks.models.forecast import channel_errors
from esa_notebooks.models.networks.forecast import Forecaster
from esa_notebooks.models.networks.network import NetworkError
from esa_notebooks.models.networks.training import Recipe
from esa_notebooks.models.plots import sequences as drawn
from esa_notebooks.models.sequence_scores import (
    DEFINITIONS,
    FIGURES,
    by_family,
    examples,
    ratios,
    sequences_answer,
    shown,
    tallies,
    with_intervals,
)
from esa_notebooks.models.sequences import Detection, Recording, alarm_table, detect, in_force, recordings

COLUMNS = (
    Column("channel", "group"),
    Column("split", "split"),
    Column("step", "order"),
    Column("value", "value"),
    Column("commands", "context"),
    Column("anomaly", "label"),
)
OWN = Meta("own", "Two channels of ours", "sample of one channel", "real", COLUMNS, "none", "none", {})
STEP = (1500, 1650)


def channel(name: str, seed: int, step=(0, 0), n: int = 2600, train: int = 1800, size: float = 1.0) -> smap.Channel:
    """A wave with noise, three commands that mean nothing, and a step up in the test part."""
    rng = np.random.default_rng(seed)

    def wave(m):
        return (size * (0.6 * np.sin(np.arange(m) / 30) + 0.02 * rng.standard_normal(m))).astype("f4")

    label, test = np.zeros(n, "u1"), wave(n)
    label[slice(*step)] = 1
    test[slice(*step)] += np.float32(0.35 * size)
    bits = [(rng.random((m, 3)) < 0.1).astype("u1") for m in (train, n)]
    return smap.Channel(name, wave(train), bits[0], test, bits[1], label)


def own(*channels: smap.Channel) -> list[Recording]:
    return recordings(smap.as_table(channels), OWN)


@pytest.fixture(scope="module")
def two() -> list[Recording]:
    return own(channel("X-1", 1), channel("Y-1", 2, STEP))


@pytest.fixture
def quick(monkeypatch):
    """Networks that learn for a few epochs."""
    brief = Recipe(epochs=3, patience=3, batch=32, learning_rate=3e-3, accelerator="cpu")
    monkeypatch.setattr(sequences, "Recipe", lambda **_: brief)
    monkeypatch.setattr(sequences, "Forecaster", lambda seed: Forecaster(seed, filters=8, depth=4, recipe=brief))


# a user's own channels


def test_own_channels_in_the_packed_layout_come_through_to_alarms(tmp_path):
    """npz → reader → prepared table → recordings → alarms, where the step was planted and nowhere else."""
    packed = smap.write_packed(tmp_path / "own.npz", [channel("X-1", 1), channel("Y-1", 2, STEP)])
    df, meta = load_table(save_table(smap.read_packed(packed), tmp_path / "own.parquet", OWN))
    many = recordings(df, meta)
    assert [(r.name, r.family, r.train.shape[0], r.test.shape[0]) for r in many] == [
        ("X-1", "X", 1800, 2600),
        ("Y-1", "Y", 1800, 2600),
    ]
    assert set(np.unique(many[0].test[:, 1:])) == {0, 1} and many[0].test.shape[1] == 4
    found = alarm_table(detect(many, "linear forecast"))
    assert found.channel.tolist() == ["Y-1"]
    assert found.start[0] < STEP[1] and found.end[0] > STEP[0] and found.score[0] > 0.05
    assert list(found.columns) == ["channel", "start", "end", "score", "seed"]


def test_the_linear_forecast_is_that_of_the_forecast_notebook(two):
    """The same errors to the last bit where there is one nominal stretch, and so the same alarms."""
    table = smap.as_table([channel("X-1", 1), channel("Y-1", 2, STEP)])
    for there, here in zip(channel_errors(table), detect(two, "linear forecast"), strict=True):
        assert np.array_equal(there.errors, here.errors) and here.offset == there.offset
        assert np.array_equal(here.alarms, alarms(there.errors, there.values[250:]) + 250)


@pytest.mark.parametrize("method", ["network forecast", "autoencoder"])
def test_the_same_seed_gives_the_same_alarms_and_another_seed_other_scores(two, quick, method):
    one, again, other = (detect(two, method, seed) for seed in (0, 0, 1))
    for a, b, c in zip(one, again, other, strict=True):
        assert np.array_equal(a.score, b.score, equal_nan=True) and np.array_equal(a.alarms, b.alarms)
        assert not np.array_equal(a.score, c.score, equal_nan=True)


@pytest.mark.parametrize("method", ["network forecast", "autoencoder"])
def test_the_planted_step_is_where_the_networks_are_most_surprised(two, quick, method):
    scored = detect(two, method)[1].score
    assert STEP[0] <= np.nanargmax(scored) <= STEP[1] + 100


@pytest.mark.parametrize("size", [200.0, 1e-3])
def test_channels_far_from_the_range_of_minus_one_to_one_are_brought_there(size):
    """Volts or millivolts: the step is found, though Telemanom takes errors below 0.05 for nothing."""
    small, large = own(channel("Y-1", 2, STEP)), own(channel("Y-1", 2, STEP, size=size))
    assert np.abs(large[0].train[:, 0]).max() == pytest.approx(1) and small[0].train[:, 0].max() < 0.7
    met = detect(large, "linear forecast")[0]
    assert len(met.alarms) == 1 and met.alarms[0, 0] < STEP[1] and met.alarms[0, 1] > STEP[0]
    assert np.array_equal(large[0].train[:, 1:], small[0].train[:, 1:]), "commands are not scaled"


# awkward tables


def test_a_channel_never_seen_in_training_is_refused_or_scored_as_stated(two, quick):
    """The linear forecast has nothing to learn it from and says so; a network of all channels scores it."""
    unseen = two[1]._replace(name="Z-9", train=two[1].train[:0], train_odd=two[1].train_odd[:0])
    with pytest.raises(EvaluationError, match=r"Z-9 was never seen in training .* one network for\s+all channels"):
        detect([*two, unseen], "linear forecast")
    scored = detect([*two, unseen], "network forecast")
    assert scored[2].name == "Z-9" and np.isfinite(scored[2].errors).all()


def test_a_channel_without_training_part_in_the_table_is_kept_with_nothing_to_learn_from():
    df = smap.as_table([channel("X-1", 1), channel("Z-9", 3)])
    many = recordings(df[(df.channel == "X-1") | (df.split == "test")], OWN)
    assert [len(r.train) for r in many] == [1800, 0]
    large = smap.as_table([channel("X-1", 1, size=9.0), channel("Z-9", 3)])
    with pytest.raises(EvaluationError, match="Z-9 has no nominal training sample, which would tell its scale"):
        recordings(large[(large.channel == "X-1") | (large.split == "test")], OWN)


def test_a_channel_without_test_part_is_named():
    df = smap.as_table([channel("X-1", 1), channel("Y-1", 2)])
    with pytest.raises(EvaluationError, match="Channel Y-1 has no test part"):
        recordings(df[(df.channel == "X-1") | (df.split == "train")], OWN)


def test_a_table_without_a_split_is_divided_in_time():
    df = smap.as_table([channel("X-1", 1, STEP)])
    bare = df[df.split == "test"].drop(columns="split")
    (one,) = recordings(bare, replace(OWN, columns=tuple(c for c in COLUMNS if c.name != "split")))
    assert (len(one.train), len(one.test)) == (1560, 1040) and one.train_odd.sum() == 60 and one.odd.sum() == 90
    assert [len(run) for run in sequences.nominal_stretches(one, 2)] == [1500]


def test_a_table_without_any_training_part_is_refused(two):
    bare = [r._replace(train=r.train[:0], train_odd=r.train_odd[:0]) for r in two]
    for method in sequences.METHODS:
        with pytest.raises(EvaluationError, match="There is no training part"):
            detect(bare, method)


@pytest.mark.parametrize("method", sequences.METHODS)
def test_a_channel_shorter_than_what_a_method_sees_is_named(two, quick, method):
    odd = two[0].train_odd.copy()
    odd[:40] = True
    short = two[1]._replace(test=two[1].test[:50], odd=two[1].odd[:50])
    with pytest.raises(EvaluationError, match="Channel Y-1: 50 .*samples are too few"):
        detect([two[0]._replace(train_odd=odd), short], method)


def test_a_channel_with_too_few_test_samples_for_the_threshold_is_named(two):
    short = two[1]._replace(test=two[1].test[:300], odd=two[1].odd[:300])
    with pytest.raises(EvaluationError, match="Channel Y-1: errors: .* 70 or more"):
        detect([short], "linear forecast")


def test_missing_readings_are_interpolated_and_counted():
    df = smap.as_table([channel("X-1", 1)])
    df.loc[(df.split == "test") & (df.step >= 100) & (df.step < 144), "value"] = np.nan
    (one,) = recordings(df, OWN)
    assert np.isfinite(one.test).all() and one.filled == pytest.approx(44 / 4400)
    df.loc[df.split == "test", "value"] = np.nan
    with pytest.raises(NetworkError, match="X-1 test: column 0 has no finite value"):
        recordings(df, OWN)


def test_tables_that_hold_no_sequences_are_refused():
    df = smap.as_table([channel("X-1", 1)])
    without = {c.name: replace(OWN, columns=tuple(k for k in COLUMNS if k.name != c.name)) for c in COLUMNS}
    with pytest.raises(EvaluationError, match="`own` has no labels"):
        recordings(df, without["anomaly"])
    with pytest.raises(EvaluationError, match="no samples in time"):
        recordings(df, without["step"])
    segments = replace(OWN, columns=(*COLUMNS, Column("segment", "segment")))
    with pytest.raises(EvaluationError, match=r"cut into segments .*experiment\.ipynb"):
        recordings(df.assign(segment=1), segments)


def test_the_convolution_wants_labels_and_methods_have_names(two):
    with pytest.raises(EvaluationError, match="No training sample is labelled anomalous"):
        detect(two, "convolution")
    with pytest.raises(EvaluationError, match="'linear forcast' is unknown.*linear forecast"):
        detect(two, "linear forcast")
    with pytest.raises(EvaluationError, match="no training part"):
        detect([], "linear forecast")


# the generated spacecraft


@pytest.fixture(scope="module")
def spacecraft():
    return read_telemetry(Config(seed=3, days=4, period_s=60, anomalies_per_week=20))


def test_labels_of_a_wide_table_belong_to_the_channels_of_the_event(spacecraft):
    df, meta = spacecraft
    many = {r.name: r for r in recordings(df, meta)}
    whole = {name: np.r_[r.train_odd, r.odd] for name, r in many.items()}
    assert np.array_equal(np.any(list(whole.values()), axis=0), df.anomaly.to_numpy() == 1)
    for event in meta.events:
        inside = ((df.time >= event["start"]) & (df.time <= event["end"])).to_numpy()
        assert all(whole[name][inside].all() for name in event["channels"].split(", "))
    assert sum(w.sum() for w in whole.values()) > df.anomaly.sum(), "some events have several channels"
    assert all(r.test.shape[1] == 2 for r in many.values()), "the reading and the eclipse"


def test_a_wide_table_whose_labels_name_no_channel_is_refused(spacecraft):
    df, meta = spacecraft
    with pytest.raises(EvaluationError, match="say when, but not in which channels"):
        recordings(df, replace(meta, events=()))


def test_the_convolution_learns_from_the_labels_of_the_first_part(spacecraft, quick):
    many = recordings(*spacecraft)
    one, again = detect(many, "convolution"), detect(many, "convolution")
    for a, b in zip(one, again, strict=True):
        assert np.array_equal(a.score, b.score) and ((0 <= a.score) & (a.score <= 1)).all() and a.errors is None
        assert np.array_equal(np.unique(in_force(a)), [0.5])


def test_nothing_of_the_test_part_changes_what_was_learned(two):
    """Other labels and other readings after a time leave the scores before it as they were."""
    other = two[1].test.copy()
    other[2000:, 0] += 3
    changed = two[1]._replace(test=other, odd=~two[1].odd)
    before, after = (detect([r], "linear forecast")[0].score[:2000] for r in (two[1], changed))
    assert np.array_equal(before, after, equal_nan=True)


# figures


def random_detections(rng, channels=9) -> list[Detection]:
    made = []
    for i in range(channels):
        truth, found = (np.sort(rng.choice(np.arange(0, 1000, 20), 2 * k, replace=False)).reshape(-1, 2)
                        for k in rng.integers(0, 4, 2))
        made.append(Detection(f"A-{i}", "A", np.zeros(1000), truth, found, np.zeros(1000)))
    return made


def test_sums_of_channels_give_the_figures_of_all_channels():
    rng = np.random.default_rng(0)
    for _ in range(10):
        many = random_detections(rng)
        whole = definitions([Series(d.truth, d.alarms, 1000) for d in many]).set_index("definition")
        ours = ratios(tallies(many).sum(axis=0))
        assert np.allclose(ours, whole.loc[list(DEFINITIONS), list(FIGURES)], equal_nan=True)


def test_figures_of_several_seeds_are_means_and_channels_must_agree():
    rng = np.random.default_rng(1)
    one, other = random_detections(rng), random_detections(rng)
    told, apart = with_intervals([one, other]), [with_intervals([d]) for d in (one, other)]
    assert np.allclose(told[list(FIGURES)], (apart[0] + apart[1])[list(FIGURES)] / 2)
    assert told.equals(with_intervals([one, other])), "the same draws each time"
    for wrong in ([one, other[:-1]], []):
        with pytest.raises(EvaluationError, match="different channels"):
            with_intervals(wrong)
    with pytest.raises(EvaluationError, match="no channel"):
        with_intervals([[]])


def test_without_anomalies_there_is_no_recall_and_every_alarm_is_false():
    silent = [d._replace(truth=np.empty((0, 2), int)) for d in random_detections(np.random.default_rng(2))]
    told, number = with_intervals([silent]), sum(len(d.alarms) for d in silent)
    assert told[["recall", "f05", "recall_low"]].isna().all(axis=None) and told.precision["Telemanom"] == 0
    answer = sequences_answer(silent, told, "autoencoder", "nine channels")
    assert answer.startswith("No anomaly is labelled") and f"{number} alarms" in answer
    assert by_family(silent).iloc[-1]["false"] == number and "undefined" in set(shown(told).recall)
    assert [e.kind for e in examples(silent)] == ["false alarm"]


def test_without_alarms_nothing_is_found_and_the_answer_says_so():
    quiet = [d._replace(alarms=np.empty((0, 2), int)) for d in random_detections(np.random.default_rng(3))]
    told = with_intervals([quiet])
    assert told.precision["Telemanom"] != told.precision["Telemanom"] and told.f05["Telemanom"] == 0
    assert "no alarm at all" in sequences_answer(quiet, told, "autoencoder", "nine channels")
    assert "undefined" in set(shown(told).precision) and len(alarm_table(quiet)) == 0


def test_an_interval_that_all_resamples_agree_on_is_not_given():
    right = [Detection(f"A-{i}", "A", np.zeros(99), np.array([[9, 20]]), np.array([[9, 15]]), np.zeros(99))
             for i in range(8)]
    told = with_intervals([right])
    assert told.precision["Telemanom"] == 1 and np.isnan(told.precision_low["Telemanom"])


def test_the_threshold_that_is_drawn_is_the_one_that_decided(two):
    """Where an alarm was raised, the smoothed error crossed the drawn line; and the first window's is its own."""
    found = detect(two, "linear forecast")[1]
    limit, (start, end) = in_force(found), found.alarms[0]
    assert (found.score[start:end] > limit[start:end]).any() and np.isnan(limit[:250]).all()
    smooth = pd.Series(found.errors).ewm(span=105).mean().to_numpy(copy=True)
    smooth[:250] = smooth[:500].mean()
    assert limit[300] == max(threshold(smooth[:2100]), Rules().smallest)


def test_pictures_say_in_words_what_they_show(two):
    found = detect(two, "linear forecast")
    assert drawn.strips_alt(found) == "2 channels. Anomalies: 1 found, 0 missed. False alarms: 0."
    some = examples(found)
    assert [e.detection.name for e in some] == ["Y-1"] and len(drawn.evidence(some).axes) == 2
    names = [label.get_text() for label in drawn.strips(
        [found[0]._replace(name=n) for n in ("E-10", "E-2", "E-1")]).axes[0].get_yticklabels()]
    assert names == ["E-1", "E-2", "E-10"]
