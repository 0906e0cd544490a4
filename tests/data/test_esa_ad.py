"""The ESA Anomalies Dataset, on a miniature in its layout; and everything hostile that an archive may hold."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from esa_notebooks.data import esa_ad
from esa_notebooks.data.containers import check_parquet
from esa_notebooks.data.defects import IntakeError
from esa_notebooks.data.esa_ad import iter_channels, label, open_mission, read, read_channel, write_mission
from esa_notebooks.data.tables import TableError, load_table, save_table
from esa_notebooks.data.unpickle import UnpickleError

N = 400
MISSION = "ESA-Mission1"
TEXTS = {
    "channels.csv": [
        "Channel,Subsystem,Physical Unit,Group,Target,Categorical",
        "channel_1,subsystem_1,physical_unit_1,1,YES,NO",
        "channel_2,subsystem_1,physical_unit_1,1,YES,NO",
        "channel_3,subsystem_5,,8,NO,YES",
    ],
    "labels.csv": [
        "ID,Channel,StartTime,EndTime",
        "id_1,channel_1,2000-01-01T00:10:00.429Z,2000-01-01T00:20:00.429Z",
        "id_1,channel_2,2000-01-01T00:10:30.000Z,2000-01-01T00:12:00.000Z",
        "id_2,channel_1,2000-01-01T00:19:00.000Z,2000-01-01T00:40:00.000Z",
        "id_3,channel_1,2000-01-01T01:00:00.000Z,2000-01-01T01:00:00.000Z",
        "id_1,channel_1,2000-01-01T02:00:00.000Z,2000-01-01T02:01:00.000Z",
        "id_3,channel_2,2010-01-01T00:00:00.000Z,2010-01-02T00:00:00.000Z",
    ],
    "anomaly_types.csv": [
        "ID,Class,Subclass,Category,Dimensionality,Locality,Length",
        "id_1,class_1,subclass_1,Anomaly,Multivariate,Global,Subsequence",
        "id_2,class_2,,Rare Event,Univariate,Local,Subsequence",
        "id_3,class_3,,Communication Gap,,,",
        "id_4,class_1,,Anomaly,Univariate,Local,Point",
    ],
    "telecommands.csv": ["Telecommand,Priority", "telecommand_1,3", "telecommand_2,0"],
}


def clock(n: int, seed: int, unit: str = "ns") -> pd.DatetimeIndex:
    """About thirty seconds a step, irregular, without a zone, as in the published channels."""
    steps = np.random.default_rng(seed).integers(29_000, 31_000, n).cumsum()
    return pd.DatetimeIndex(
        np.datetime64("2000-01-01T00:00:16.353", "ms") + steps.astype("m8[ms]"), name="datetime"
    ).as_unit(unit)


def write_miniature(folder: Path, mission: str = MISSION) -> Path:
    """One mission as the publisher lays it out: four texts, and pandas pickles in zip archives."""
    place = folder / mission
    for part in ("channels", "telecommands"):
        (place / part).mkdir(parents=True)
    for name, lines in TEXTS.items():
        (place / name).write_text("\n".join(lines) + "\n")
    rng = np.random.default_rng(1)
    readings = {
        "channel_1": rng.normal(size=N).astype(np.float32),
        "channel_2": rng.normal(size=N).astype(np.float32),
        "channel_3": np.array([f"value_{i}" for i in rng.integers(0, 3, N)], dtype=object),
    }
    for i, (name, values) in enumerate(readings.items()):
        frame = pd.DataFrame({name: pd.Series(values, dtype=values.dtype)})
        frame.index = clock(N, i)
        frame.to_pickle(place / "channels" / f"{name}.zip", compression="zip")
    commands = pd.DataFrame(
        {"telecommand_1": np.ones(3, np.uint8)}, index=pd.Index([str(t) for t in clock(3, 9)], dtype=object)
    )
    commands.to_pickle(place / "telecommands" / "telecommand_1.zip", compression="zip")
    return place


@pytest.fixture
def place(tmp_path) -> Path:
    return write_miniature(tmp_path)


def put(place: Path, name: str, *changes: tuple[str, str]) -> None:
    text = (place / name).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (place / name).write_text(text)


def refused(call, *words: str, error=IntakeError) -> None:
    with pytest.raises(error) as e:
        call()
    assert [w for w in words if w not in str(e.value)] == [], str(e.value)


def test_a_mission_becomes_one_long_table(place):
    table, meta = read(place.parent)
    assert list(table) == [c.name for c in meta.columns] == ["channel", "time", "value", "anomaly", "category", "event"]
    assert len(table) == 3 * N and table.channel.value_counts().tolist() == [N] * 3
    assert [(c.name, c.role) for c in meta.columns] == [
        ("channel", "group"),
        ("time", "time"),
        ("value", "value"),
        ("anomaly", "label"),
        ("category", "class"),
        ("event", "event"),
    ]
    assert str(table.time.dtype) == "datetime64[us, UTC]" and table.value.dtype == np.float32
    for i, name in enumerate(("channel_1", "channel_2")):
        one = table[table.channel == name]
        assert one.time.tolist() == list(clock(N, i).tz_localize("UTC")) and one.time.is_monotonic_increasing
    original = pickle.loads(zipfile.ZipFile(place / "channels" / "channel_1.zip").read("channel_1"))
    assert table.value[:N].tolist() == original.channel_1.tolist()
    assert meta.kind == "real" and meta.dataset == "esa-ad" and MISSION in meta.title


def test_labels_mark_their_samples_and_nothing_else(place):
    table, _ = read(place.parent, channels=["channel_1"])

    def between(a, b):
        return table.time.between(pd.Timestamp(a, tz="UTC"), pd.Timestamp(b, tz="UTC"))

    anomaly = between("2000-01-01T00:10:00.429", "2000-01-01T00:20:00.429") | between(
        "2000-01-01T02:00", "2000-01-01T02:01"
    )
    rare = between("2000-01-01T00:19", "2000-01-01T00:40") & ~anomaly
    assert anomaly.sum() > 20 and rare.sum() > 30 and (table.anomaly == anomaly).all()
    assert (table.category == "Anomaly").equals(anomaly) and (table.category == "Rare Event").equals(rare)
    assert set(table.event[anomaly]) == {"id_1"} and set(table.event[rare]) == {"id_2"}
    assert table.event[~anomaly & ~rare].isna().all() and set(table.category[~anomaly & ~rare]) == {"Nominal"}


def test_both_ends_of_an_interval_belong_to_it():
    series = pd.Series(
        np.arange(5.0), pd.date_range("2000", periods=5, freq="1s", tz="UTC").as_unit("us"), name="channel_1"
    )
    labels = pd.DataFrame(
        {"ID": ["id_1"], "StartTime": [series.index[1]], "EndTime": [series.index[3]], "Category": ["Anomaly"]}
    )
    assert label(series, labels).anomaly.tolist() == [0, 1, 1, 1, 0]
    shuffled = label(series.iloc[[3, 0, 4, 1, 2]], labels)
    assert shuffled.value.tolist() == [0, 1, 2, 3, 4] and shuffled.anomaly.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("order", [("Anomaly", "Rare Event"), ("Rare Event", "Anomaly")])
def test_where_labels_overlap_the_anomaly_wins(order):
    series = pd.Series(np.arange(3.0), pd.date_range("2000", periods=3, freq="1s", tz="UTC").as_unit("us"), name="c")
    labels = pd.DataFrame(
        {"ID": list(order), "StartTime": [series.index[0]] * 2, "EndTime": [series.index[2]] * 2, "Category": order}
    )
    table = label(series, labels)
    assert set(table.category) == {"Anomaly"} and set(table.event) == {"Anomaly"} and table.anomaly.sum() == 3


def test_channels_and_a_period_are_selected(place):
    table, meta = read(
        place.parent, channels=["channel_2"], start="2000-01-01T00:30:00", end="2000-01-01T01:00:00+00:00"
    )
    assert set(table.channel) == {"channel_2"} and 50 < len(table) < 70
    assert table.time.min() >= pd.Timestamp("2000-01-01T00:30", tz="UTC") and table.time.max() < pd.Timestamp(
        "2000-01-01T01:00", tz="UTC"
    )
    assert {e["channel"] for e in meta.events} == {"channel_2"}
    refused(
        lambda: read(place.parent, channels=["chanel_2"]),
        "no channel `chanel_2`. Did you mean `channel_2`?",
        error=TableError,
    )
    refused(
        lambda: read(place.parent, start="2030-01-01"), "no reading between 2030-01-01 and its end", error=TableError
    )


def test_channels_that_were_not_asked_for_are_not_opened(place):
    (place / "channels" / "channel_1.zip").unlink()
    assert len(read(place.parent, channels=["channel_2"])[0]) == N
    refused(lambda: read(place.parent), "channel_1.zip is refused", "no such file")


def test_events_notes_and_the_round_trip_through_a_prepared_table(place, tmp_path):
    table, meta = read(place, channels=["channel_1", "channel_2"])  # the folder of the mission itself will do
    assert len(meta.events) == 6 and meta.events[1] == {
        "event": "id_1",
        "channel": "channel_2",
        "start": "2000-01-01T00:10:30+00:00",
        "end": "2000-01-01T00:12:00+00:00",
        "kind": "Anomaly",
        "class": "class_1",
    }
    notes = " ".join(meta.notes)
    assert (
        "no zone and are read as UTC" in notes and "1 of 2 labels of channel_2 lie outside its readings: id_3" in notes
    )
    assert "1 of 4 events have no label: id_4" in notes
    again, described = load_table(save_table(table, tmp_path / "esa-ad.parquet", meta))
    assert (
        described == meta
        and again.value.tolist() == table.value.tolist()
        and again.category.tolist() == table.category.tolist()
    )


def test_states_are_numbered_as_they_are_called(place):
    table, meta = read(place.parent, channels=["channel_3"])
    frame = pickle.loads(zipfile.ZipFile(place / "channels" / "channel_3.zip").read("channel_3"))
    assert table.value.tolist() == [float(v.removeprefix("value_")) for v in frame.channel_3]
    assert not any("alphabetical" in n for n in meta.notes)


def replace_channel(place: Path, values, index=None, name="channel_1", columns=None) -> None:
    frame = pd.DataFrame({c: values for c in columns or [name]})
    frame.index = clock(len(frame), 0) if index is None else index
    frame.to_pickle(place / "channels" / f"{name}.zip", compression="zip")


def test_other_words_are_numbered_and_the_note_says_so(place):
    replace_channel(place, pd.Series(["ON", "OFF", None, "ON"], dtype=object))
    table, meta = read(place, channels=["channel_1"])
    assert table.value.tolist()[:2] == [1, 0] and np.isnan(table.value[2])
    assert "channel_1: states are numbered in alphabetical order from 0: OFF, ON." in meta.notes


def test_kinds_of_numbers_missing_readings_and_repeated_times(place):
    for values in (
        np.array([1, 2, 3, 4], np.uint8),
        np.array([True, False, True, False]),
        pd.Series([1, 2.5, None, 3], dtype=object),
    ):
        replace_channel(place, values)
        assert read(place, channels=["channel_1"])[0].value.tolist()[:2] == [float(values[0]), float(values[1])]
    replace_channel(place, np.float32([1, np.nan, 3]), clock(3, 0)[[0, 0, 2]])
    table, _ = read(place, channels=["channel_1"])
    assert table.value.isna().tolist() == [False, True, False] and table.time[0] == table.time[1]


def test_a_telecommand_is_read_though_its_times_are_text(place):
    series = read_channel(open_mission(place), "telecommand_1", "telecommands")
    assert series.tolist() == [1, 1, 1] and list(series.index) == list(clock(3, 9).tz_localize("UTC"))


def test_a_mission_without_telecommands_is_read_and_the_lack_noted(place):
    (place / "telecommands.csv").unlink()
    assert f"{MISSION} has no telecommands.csv." in read(place, channels=["channel_1"])[1].notes


def test_the_older_release_has_no_column_for_categorical_channels(place):
    text = (place / "channels.csv").read_text().splitlines()
    (place / "channels.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in text) + "\n")
    assert len(open_mission(place).channels) == 3


@pytest.mark.parametrize("name", ["channels.csv", "labels.csv", "anomaly_types.csv"])
def test_a_missing_text_is_named(place, name):
    (place / name).unlink()
    refused(lambda: read(place), name, "no such file")


def test_a_missing_mission_is_named_with_those_that_are_there(place):
    refused(
        lambda: read(place.parent, "ESA-Mision1"),
        "no such mission. Did you mean `ESA-Mission1`?",
        "Found: ESA-Mission1",
    )
    refused(lambda: read(place.parent / "nowhere"), "Found: none. Unpack ESA-Mission1.zip there.")


@pytest.mark.parametrize(
    "name, change, words",
    [
        (
            "labels.csv",
            ("id_2,channel_1", "id_9,channel_1"),
            (
                "labels.csv is refused",
                "`ID`: a label of an event that anomaly_types.csv does not have",
                "line 4: 'id_9'",
            ),
        ),
        (
            "labels.csv",
            ("id_2,channel_1", "id_2,channel_9"),
            ("a label for a channel that channels.csv does not have", "line 4: 'channel_9'"),
        ),
        (
            "labels.csv",
            ("2000-01-01T00:40:00.000Z", "2000-01-01T00:18:00.000Z"),
            ("`EndTime`: an end before its start", "line 4: '2000-01-01 00:18:00+00:00'"),
        ),
        ("labels.csv", ("2000-01-01T00:40:00.000Z", "soon"), ("`EndTime`: no time", "line 4, cell D4: 'soon'")),
        ("labels.csv", ("StartTime", "Start"), ("The column `StartTime` is missing. Did you mean `Start`?",)),
        (
            "channels.csv",
            ("channel_2,", "channel_1,"),
            ("channels.csv is refused", "`Channel`: a Channel that occurs before", "line 3"),
        ),
        ("channels.csv", ("channel_2,", "../../x,"), ("a name that is none of a file", "line 3: '../../x'")),
        (
            "anomaly_types.csv",
            ("id_2,", "id_1,"),
            ("anomaly_types.csv is refused", "a ID that occurs before", "line 3"),
        ),
        ("anomaly_types.csv", ("Rare Event", ""), ("`Category`: an empty cell", "line 3")),
    ],
)
def test_what_refers_to_nothing_is_refused_with_its_line(place, name, change, words):
    put(place, name, change)
    refused(lambda: open_mission(place), *words)


def test_a_category_the_paper_does_not_name_is_kept_and_noted(place):
    put(place, "anomaly_types.csv", ("Rare Event", "Test Activity"))
    table, meta = read(place, channels=["channel_1", "channel_2"])
    assert (table.category == "Test Activity").sum() > 30 and (
        table.anomaly[table.category == "Test Activity"] == 0
    ).all()
    assert "Categories that the paper does not name: Test Activity." in meta.notes
    assert list(table.category.cat.categories) == ["Nominal", "Test Activity", *esa_ad.CATEGORIES]


# -- hostile archives ------------------------------------------------------------------------------------------------


class Gadget:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def archive(place: Path, content: bytes, name="channel_1") -> Path:
    path = place / "channels" / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(name, content)
    return path


def test_a_hostile_pickle_in_a_channel_is_refused_and_not_executed(place, tmp_path):
    target = tmp_path / "made by a pickle"
    for content in (
        pickle.dumps(Gadget(str(target))),
        pickle.dumps(pd.DataFrame({"channel_1": pd.Series([Gadget(str(target))], dtype=object)})),
    ):
        path = archive(place, content)
        refused(lambda: read(place), "mkdir", "not called", error=UnpickleError)
        assert not target.exists()
    pickle.loads(zipfile.ZipFile(path).read("channel_1"))  # the gadget works; it was the reader that did not run it
    assert target.exists()


def test_a_bomb_in_a_channel_is_put_down(place):
    archive(place, bytes(64 << 20))
    refused(lambda: read(place), "channel_1.zip is refused", "zip bomb")


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "truncated"),
        (lambda p: p.write_bytes(b""), "no zip"),
        (lambda p: shutil.copy(p.with_name("channel_2.zip"), p), "has the columns channel_2"),
    ],
)
def test_a_damaged_or_mistaken_archive_is_refused(place, damage, words):
    damage(place / "channels" / "channel_1.zip")
    refused(lambda: read(place), "channel_1.zip is refused", words)


@pytest.mark.parametrize(
    "index, words",
    [
        (pd.RangeIndex(3), "The index is no time"),
        (pd.Index(["a", "b", "c"]), "The index is no time"),
        (pd.DatetimeIndex(["2000-01-01", None, "2000-01-03"]), "1 readings have no time"),
        (pd.DatetimeIndex(["2000-01-01", "2000-01-02", "2000-01-03 00:00:00.000000001"]), "finer than a microsecond"),
    ],
)
def test_an_index_that_is_no_clock_is_refused(place, index, words):
    replace_channel(place, np.float32([1, 2, 3]), index)
    refused(lambda: read(place), "channel_1", words)


def test_an_empty_channel_is_refused(place):
    replace_channel(place, np.float32([]))
    refused(lambda: read(place), "channel `channel_1` has no reading", error=TableError)


# -- larger than memory ----------------------------------------------------------------------------------------------


def test_a_mission_is_written_channel_by_channel_as_the_same_table(place, tmp_path):
    path = write_mission(place, tmp_path / "out" / "esa-ad.parquet")
    expected, meta = read(place)
    table, described = load_table(path)
    assert described == meta and check_parquet(path) == ()
    assert pq.ParquetFile(path).num_row_groups == 3
    for name in expected:
        kind = {"value": "float64", "time": expected.time.dtype, "anomaly": "int8"}.get(name, "str")
        pd.testing.assert_series_equal(table[name], expected[name].astype(kind))
    assert [p.name for p in path.parent.iterdir()] == ["esa-ad.parquet"]


def test_nothing_is_left_behind_when_a_channel_is_refused(place, tmp_path):
    archive(place, b"no pickle", "channel_3")
    refused(lambda: write_mission(place, tmp_path / "out" / "esa-ad.parquet"), "not read", error=UnpickleError)
    assert list((tmp_path / "out").iterdir()) == []
    refused(lambda: write_mission(place, tmp_path / "out" / "mission.parquet"), "esa-ad", error=TableError)


def test_one_channel_at_a_time(place, monkeypatch):
    opened = []
    plain = esa_ad.read_channel
    monkeypatch.setattr(esa_ad, "read_channel", lambda m, n: opened.append(n) or plain(m, n))
    channels = iter_channels(open_mission(place))
    assert next(channels).channel[0] == "channel_1" and opened == ["channel_1"]
    assert [t.channel[0] for t in channels] == ["channel_2", "channel_3"]


def test_a_mission_keeps_its_contract_and_gets_a_score(tmp_path):
    from esa_notebooks.data.checks import check
    from esa_notebooks.data.contracts import contract_path, load_contract
    from esa_notebooks.data.drift import drift
    from esa_notebooks.data.readiness import readiness

    write_miniature(tmp_path)
    df, meta = read(tmp_path)
    report = check(df, meta, load_contract(contract_path("esa-ad")))
    assert not report.broken, str(report.broken[0])
    assert [f.rule for f in report.findings if f.accepted] == ["label_inside"], "the miniature has one label outside its data"
    ready = readiness(df, meta, report.findings, drift=drift(df, meta, permutations=99), labels=None, leakage=None, owner="us")
    assert ready.score and ready["labels"].score is None
