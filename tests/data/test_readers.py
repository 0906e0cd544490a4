"""Readers: what the real files hold, and what a broken one is told."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import ideas, launches, opssat, smap, space_weather
from esa_notebooks.data.datasets import READERS, read
from esa_notebooks.data.register import SOURCES
from esa_notebooks.data.sources import obtain
from esa_notebooks.data.tables import TableError, load_table, save_table


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


@pytest.fixture
def real(require, cache):
    """The table of a real source, through the mirror; skips by name without it."""
    folder = Path(os.environ.get("ESA_DATA_MIRROR") or "/nowhere")

    def get(name):
        source = SOURCES[name]
        there = all((folder / source.mirror / f.name).is_file() for f in source.needed)
        require("mirror", there, f"ESA_DATA_MIRROR has no {source.mirror}")
        return read(obtain(name, cache=cache, mirror=folder, offline=True))

    return get


SHAPES = {
    "smap": (573_830, 6),
    "space-weather": (24_765, 8),
    "launches": (5_726, 11),
    "launch-delay": (187, 6),
    "space-ideas": (1_733, 6),
    "opssat": (2_123, 23),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_real_source_is_read_described_and_comes_back_the_same(real, tmp_path, name):
    df, meta = real(name)
    assert df.shape == SHAPES[name] and list(df.columns) == [c.name for c in meta.columns]
    assert meta.dataset == name and meta.notes and meta.kind == "real"
    assert meta.sources == {f.name: f.sha256 for f in SOURCES[name].needed}
    again, described = load_table(save_table(df, tmp_path / f"{name}.parquet", meta))
    pd.testing.assert_frame_equal(again, df, check_exact=True)
    assert described == meta


def test_every_source_has_a_reader():
    assert set(SOURCES) - set(READERS) <= {"telemetry", "esa-ad"}


# SMAP


def test_smap_agrees_with_its_labels_but_for_the_channel_listed_twice(real):
    df, meta = real("smap")
    found = [n for n in meta.notes if n not in smap.NOTES]
    assert len(found) == 1 and found[0].startswith("Channel P-2 is listed 2 times")
    assert df.channel.nunique() == 54 and len(meta.events) == 69
    assert not df.duplicated(["channel", "split", "step"]).any() and df.anomaly[df.split == "train"].sum() == 0


def test_what_the_notes_on_smap_count_is_true(real):
    df, meta = real("smap")
    test, train = df[df.split == "test"], df[df.split == "train"]
    low, high = (train.groupby("channel").value.agg(f) for f in ("min", "max"))
    beyond = (test.value < test.channel.map(low)) | (test.value > test.channel.map(high))
    inside, outside = (beyond & (test.anomaly == y) for y in (1, 0))
    per = pd.DataFrame({"inside": inside.groupby(test.channel).any(), "outside": outside.groupby(test.channel).any()})
    shares = test.groupby("channel").anomaly.mean()
    length = test.groupby("channel").size()
    assert (per.inside & ~per.outside).sum() == 10 and (low == high).sum() == 11
    assert 0.12 < test.anomaly.mean() < 0.13 and (shares > 0.3).sum() == 11
    assert sum(e["last"] >= length[e["channels"]] - 2 for e in meta.events) == 10
    assert (test.groupby("channel").value.agg(["min", "max"]) == [-1, 1]).all().all()
    assert smap.command_matrix(df.commands).sum(axis=1).max() == 14


def channel(name="A-1", train=20, test=50, commands=24, seed=0):
    rng = np.random.default_rng(seed)
    label = np.zeros(test, dtype=np.uint8)
    label[10:15] = 1
    return smap.Channel(
        name,
        rng.uniform(-1, 1, train).astype("f4"),
        rng.integers(0, 2, (train, commands)),
        rng.uniform(-1, 1, test).astype("f4"),
        rng.integers(0, 2, (test, commands)),
        label,
    )


@pytest.mark.parametrize("commands", [1, 24, 32, 33, 54, 64])
@pytest.mark.parametrize("test", [1, 8, 49])
def test_any_set_of_channels_can_be_packed(tmp_path, commands, test):
    c = (
        channel("wheel/1", test=test, commands=commands)
        if test > 15
        else smap.Channel(
            "wheel/1",
            np.zeros(0, "f4"),
            np.zeros((0, commands)),
            np.ones(test, "f4"),
            np.ones((test, commands)),
            np.ones(test, "u1"),
        )
    )
    df = smap.read_packed(smap.write_packed(tmp_path / "own.npz", [c]))
    part = df[df.split == "test"]
    assert set(df.channel) == {"wheel/1"} and part.anomaly.tolist() == c.label.tolist()
    assert (smap.command_matrix(part.commands, commands) == c.test_commands).all()
    assert [p.name for p in tmp_path.iterdir()] == ["own.npz"]


def packed(tmp_path, change):
    arrays = dict(np.load(smap.write_packed(tmp_path / "good.npz", [channel()])))
    change(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    return tmp_path / "bad.npz"


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda a: a.pop("A-1/test/cmd"), "no A-1/test/cmd"),
        (lambda a: a.update({"A-1/validation/value": np.zeros(3)}), "unknown A-1/validation/value"),
        (lambda a: a.clear(), "it holds no channel"),
        (
            lambda a: a.update({"A-1/test/value": a["A-1/test/value"][:-9]}),
            r"A-1/test/cmd: packed bits .* for 41 samples",
        ),
        (lambda a: a.update({"A-1/label": np.zeros(9, "u1")}), r"A-1/label: packed bits .* for 50 samples"),
        (lambda a: a.update({"A-1/label": np.full(7, 255, "u1")}), "beyond the end of the test part, which has 50"),
        (lambda a: a.update({"A-1/label": np.zeros(50)}), "A-1/label: packed bits"),
        (
            lambda a: a.update({"A-1/train/value": np.full(20, np.nan, "f4")}),
            "A-1/train/value: 20 of 20 values are missing",
        ),
        (
            lambda a: a.update({"A-1/train/value": np.zeros((20, 2), "f4")}),
            "A-1/train/value: one floating-point number",
        ),
        (lambda a: a.update({"A-1/train/value": np.array(["x"] * 20)}), "one floating-point number per sample"),
        (lambda a: a.update({"A-1/train/value": np.array([{}] * 20, dtype=object)}), "something besides plain arrays"),
    ],
)
def test_a_broken_packing_is_named(tmp_path, change, says):
    with pytest.raises(TableError, match=says):
        smap.read_packed(packed(tmp_path, change))


def test_a_truncated_or_strange_npz(tmp_path):
    good = smap.write_packed(tmp_path / "good.npz", [channel()])
    for content in (good.read_bytes()[:-100], b"", b"not a zip", pickle.dumps({"A-1": 1})):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(TableError, match="damaged or no .npz"):
            smap.read_packed(tmp_path / "bad.npz")
    changed = bytearray(good.read_bytes())
    changed[200] ^= 255
    (tmp_path / "bad.npz").write_bytes(changed)
    with pytest.raises(TableError):
        smap.read_packed(tmp_path / "bad.npz")


def test_a_packing_that_would_fill_the_memory_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A-1/train/value.npy", bytes(50_000_000))
    with pytest.raises(TableError, match="would unpack to 50,000,000 bytes"):
        smap.read_packed(tmp_path / "bomb.npz", limit=10_000_000)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("was-executed",)


def test_nothing_pickled_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("evil.npz", **{"A-1/train/value": np.array([Evil()], dtype=object)})
    with pytest.raises(TableError, match="something besides plain arrays"):
        smap.read_packed(Path("evil.npz"))
    np.save("evil.npy", np.array([Evil()], dtype=object))
    with pytest.raises(TableError, match="not a plain array"):
        smap._load(Path("evil.npy"))
    assert not Path("was-executed").exists()


@pytest.fixture
def telemanom(tmp_path):
    """A miniature in the original layout: two channels of SMAP, one of another spacecraft."""
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    for i, name in enumerate(("A-1", "B-1", "M-1")):
        c = channel(name, seed=i)
        np.save(tmp_path / "train" / f"{name}.npy", np.column_stack([c.train, c.train_commands]).astype(float))
        np.save(tmp_path / "test" / f"{name}.npy", np.column_stack([c.test, c.test_commands]).astype(float))
    (tmp_path / "labeled_anomalies.csv").write_text(
        "chan_id,spacecraft,anomaly_sequences,class,num_values\n"
        'B-1,SMAP,"[[10, 14]]",[contextual],50\nA-1,SMAP,"[[10, 12], [12, 14]]","[point, contextual]",50\n'
        'M-1,MSL,"[[10, 14]]",[point],50\n'
    )
    return tmp_path


def test_both_layouts_give_the_same_table(telemanom, tmp_path):
    df, meta = smap.read_telemanom(telemanom)
    pd.testing.assert_frame_equal(
        df, smap.read_packed(smap.write_packed(tmp_path / "p.npz", [channel("B-1", seed=1), channel()]))
    )
    assert [(e["channels"], e["first"], e["last"], e["class"]) for e in meta.events] == [
        ("B-1", 10, 14, "contextual"),
        ("A-1", 10, 12, "point"),
        ("A-1", 12, 14, "contextual"),
    ]
    assert set(smap.read_telemanom(telemanom, "MSL")[0].channel) == {"M-1"}


@pytest.mark.parametrize(
    "line, says",
    [
        ('A-1,SMAP,"[[10, 14]]",[point],51', "has 50 test samples, but its label says 51"),
        ('A-1,SMAP,"[[10, 60]]",[point],50', "10 to 60 is not within its 50 samples"),
        ('A-1,SMAP,"[[14, 10]]",[point],50', "14 to 10 is not within"),
        ('A-1,SMAP,"[[10, 14]]",[point],50\nA-1,SMAP,"[[10, 14]]",[point],50', "A-1 is listed 2 times"),
        ('A-1,SMAP,"[[10, 13]]",[point],50', "1 test samples are marked in one"),
        ('C-1,SMAP,"[[10, 14]]",[point],50', "C-1 is labelled, but there is no data"),
        ('B-1,SMAP,"[[10, 14]]",[point],50', "A-1 has data, but no label"),
    ],
)
def test_disagreements_between_data_and_labels(tmp_path, line, says):
    (tmp_path / "labels.csv").write_text(f"chan_id,spacecraft,anomaly_sequences,class,num_values\n{line}\n")
    said = smap.disagreements(smap.as_table([channel()]), smap.read_labels(tmp_path / "labels.csv"))
    assert any(says in s for s in said), said


@pytest.mark.parametrize(
    "text, says",
    [
        ("a,b\n1,2\n", "has the columns a, b; expected chan_id"),
        ('chan_id,spacecraft,anomaly_sequences,class,num_values\nA-1,SMAP,"[[10, ",[point],5\n', r"line 2 \(A-1\)"),
        (
            'chan_id,spacecraft,anomaly_sequences,class,num_values\nA-1,SMAP,"[[1, 2], [3, 4]]",[point],5\n',
            "cannot be read",
        ),
        ("chan_id,spacecraft,anomaly_sequences,class,num_values\nA-1,SMAP,,,5\n", "cannot be read"),
        (
            "chan_id,spacecraft,anomaly_sequences,class,num_values\nA-1,SMAP,\"__import__('os')\",[point],5\n",
            "cannot be read",
        ),
    ],
)
def test_broken_labels(tmp_path, text, says):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(TableError, match=says):
        smap.read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda f: (f / "test/A-1.npy").unlink(), "test/A-1.npy is not there, but A-1 is labelled"),
        (lambda f: np.save(f / "test/A-1.npy", np.zeros((50, 25), dtype=int)), "floating-point array"),
        (lambda f: np.save(f / "test/A-1.npy", np.zeros(50)), "floating-point array"),
        (lambda f: np.save(f / "test/A-1.npy", np.full((50, 25), 0.5)), "at most 64 columns of 0 and 1"),
        (lambda f: np.save(f / "test/A-1.npy", np.full((50, 25), np.inf)), "missing or infinite"),
        (lambda f: (f / "test/A-1.npy").write_bytes((f / "test/A-1.npy").read_bytes()[:500]), "not a plain array"),
    ],
)
def test_a_broken_original(telemanom, change, says):
    change(telemanom)
    with pytest.raises(TableError, match=says):
        smap.read_telemanom(telemanom)


# Space weather


def test_space_weather_in_true_units(real):
    df, meta = real("space-weather")
    day = df.set_index("time").loc["2003-10-29"]
    assert (day.kp_max, day.ap_max) == (9.0, 400.0) and df.kp_sum.between(0, 72).all()
    assert np.allclose(df.kp_sum * 3, (df.kp_sum * 3).round(), atol=1e-9)
    assert df.time.iloc[-1] == pd.Timestamp("2025-07-20", tz="UTC") and df.f107_flag.value_counts().to_dict() == {
        0: 24_706,
        4: 59,
    }
    assert not [c for c in df.columns if "isn" in c or "spot" in c] and meta.period_s == 86_400
    ratio = df.f107_observed / df.f107_adjusted  # the distance of the Sun, squared: between 1/1.035 and 1.035
    assert ratio[df.f107_flag == 0].between(0.96, 1.04).all()


LINE = (
    "2003 11 04 2324  1  3  7 10 13 17 20 23 27 120   2   3   4   5   6   7   9  12   6 0.3 1  99 551.6 0"
    " 166.0 166.0 166.0 166.0 166.0"
)


def weather(tmp_path, lines, count=None, head=f"# {space_weather.FORMAT}", end="END OBSERVED", newline="\n"):
    path = tmp_path / "SW-All.txt"
    text = [head, f"NUM_OBSERVED_POINTS {len(lines) if count is None else count}", "BEGIN OBSERVED", *lines, end, ""]
    path.write_bytes(newline.join(text).encode("latin-1"))
    return path


def test_line_ends_do_not_matter(tmp_path):
    for newline in ("\n", "\r\n"):
        df, _ = space_weather.read(weather(tmp_path, [LINE, LINE.replace("11 04", "11 05")], newline=newline))
        assert df.kp_sum.round(9).tolist() == [12.0, 12.0] and df.f107_observed.tolist() == [166.0, 166.0]


def test_a_blank_is_missing_and_not_zero(tmp_path):
    df, _ = space_weather.read(weather(tmp_path, [LINE[: 12 + 6] + "   " + LINE[12 + 9 :]]))
    assert df[["kp_sum", "kp_max"]].isna().all().all() and df.ap_max[0] == 12


@pytest.mark.parametrize(
    "lines, more, says",
    [
        ([LINE], {"count": 2}, "announces 2 observed days and holds 1"),
        ([LINE], {"end": ""}, "truncated"),
        ([LINE], {"head": "# FORMAT(I4,I3)"}, "does not announce the layout"),
        ([LINE[:-1]], {}, "observed day 1: 129 characters instead of 130"),
        ([LINE, LINE], {}, "observed day 2 is not the day after"),
        ([LINE, LINE.replace("11 04", "11 06")], {}, "observed day 2 is not the day after"),
        ([LINE.replace("11 04", "11 31")], {}, "observed day 1 is not the day"),
        ([LINE.replace(" 551.6", " 5x1.6")], {}, "observed day 1: could not convert"),
        ([LINE.replace(" 10 13", " 11 13")], {}, None),
        ([LINE.replace(" 10 13", " 15 13")], {}, "a Kp is no multiple of a third"),
        ([LINE.replace("551.6", "55\xb16")], {}, "not plain text"),
    ],
)
def test_a_broken_space_weather_file(tmp_path, lines, more, says):
    if says is None:  # 11 is no Kp either: 3.3 thirds
        says = "a Kp is no multiple of a third"
    with pytest.raises(TableError, match=says):
        space_weather.read(weather(tmp_path, lines, **more))


# Launches


def test_launches_and_what_is_wrong_with_them(real):
    df, meta = real("launches")
    assert df.failed.sum() == 342 and df.tag.is_unique and df.launch_date.isna().sum() == 13
    assert (df.operator.notna() == df.agency.notna()).sum() < len(df)
    assert any("2918-10-11" in n for n in meta.notes) and any("2,332 name one of 15 codes" in n for n in meta.notes)
    assert df.loc[df.agency == "SPX", "operator"].unique().tolist() == ["SpaceX"]


def test_delays_are_the_difference_of_their_dates(real):
    df, _ = real("launch-delay")
    assert df.mission.nunique() == 20 and not df.duplicated(["report_date", "mission"]).any()
    assert (df.planned_launch + pd.to_timedelta(df.delay_days, unit="D") == df.actual_launch).all()
    assert df.lead_days.min() == 8 and df.delay_days.min() == -116


GOOD = ["1965-F08", "0", "1965-01-02", "1965", "Vostok", "", "Zenit", "", "SU", "F", "state"]


def launch_files(tmp_path, rows, agencies=(["SPX", *["-"] * 18],)):
    a, b = tmp_path / "launches.csv", tmp_path / "agencies.csv"
    pd.DataFrame(rows, columns=launches.LAUNCH_COLUMNS).to_csv(a, index=False)
    pd.DataFrame(list(agencies), columns=launches.AGENCY_COLUMNS).to_csv(b, index=False)
    return a, b


@pytest.mark.parametrize(
    "rows, says",
    [
        ([GOOD, GOOD], "launches.csv, line 3: 1965-F08 occurs twice"),
        ([["", *GOOD[1:]]], "line 2: tag must not be empty"),
        ([[*GOOD[:9], "X", "state"]], "category is 'X', neither O nor F"),
        ([[*GOOD[:2], "02/01/1965", *GOOD[3:]]], "launch_date is '02/01/1965', not a day"),
        ([[*GOOD[:2], "1965-02-30", *GOOD[3:]]], "launch_date is '1965-02-30', not a day"),
        ([[*GOOD[:3], "MCMLXV", *GOOD[4:]]], "launch_year is 'MCMLXV'"),
    ],
)
def test_broken_launches(tmp_path, rows, says):
    with pytest.raises(TableError, match=says):
        launches.read(*launch_files(tmp_path, rows))


def test_broken_tables_of_records(tmp_path):
    a, b = launch_files(tmp_path, [GOOD], agencies=(["SPX", *["-"] * 18], ["SPX", *["-"] * 18]))
    with pytest.raises(TableError, match="agencies.csv, line 3: SPX occurs twice"):
        launches.read(a, b)
    path = tmp_path / "plans.csv"
    for content, says in (
        (b"a,b\n1,2\n", "has the columns a, b"),
        (b"", "cannot be read as CSV"),
        (b"report_date,mission\n\xff\xfe,\n", "cannot be read as CSV in UTF-8"),
        (
            b"report_date,mission,planned_launch,actual_launch\n2012-11-13,NA,2013-03-01,soon\n",
            "actual_launch is 'soon'",
        ),
        (b"report_date;mission;planned_launch;actual_launch\n2012-11-13;A;2013-03-01;\n", "expected report_date"),
        (b"\xef\xbb\xbfreport,mission,planned_launch,actual_launch\n", "has the columns"),
    ):
        path.write_bytes(content)
        with pytest.raises(TableError, match=says):
            launches.read_delay(path)


def test_a_mission_called_na_is_a_name(tmp_path):
    path = tmp_path / "plans.csv"
    path.write_text("report_date,mission,planned_launch,actual_launch\n2012-11-13,NA,2013-03-01,\n")
    df, _ = launches.read_delay(path)
    assert df.mission[0] == "NA" and np.isnan(df.delay_days[0]) and df.lead_days[0] == 108


# Ideas


def test_ideas_are_split_by_document(real):
    df, _ = real("space-ideas")
    assert df.role.value_counts().to_dict() == {
        "Context": 565,
        "Steps": 556,
        "Solution": 240,
        "Challenge": 206,
        "Benefits": 166,
    }
    assert df.groupby("document").split.nunique().max() == 1 and df.groupby("split").document.nunique().to_dict() == {
        "train": 140,
        "test": 36,
    }
    assert df.split.value_counts().to_dict() == {"train": 1_382, "test": 351}
    assert not df.duplicated(["document", "sentence"]).any() and df.text.duplicated().sum() == 2


IDEA = {"doc_id": "a", "title": "T", "sentences": ["It is dark."], "labels": ["Challenge"]}


@pytest.mark.parametrize(
    "second, says",
    [
        ("{", "line 2: not a document"),
        ("[]", "line 2: not a document"),
        (json.dumps({**IDEA, "doc_id": "b", "labels": []}), "line 2: every sentence must be text and have one label"),
        (json.dumps({**IDEA, "doc_id": "b", "sentences": [" "]}), "line 2: every sentence must be text"),
        (json.dumps({**IDEA, "doc_id": "b", "sentences": [3]}), "line 2: every sentence must be text"),
        (json.dumps({**IDEA, "doc_id": "b", "labels": ["challenge"]}), "unknown role 'challenge'; known are Context"),
        (json.dumps({**IDEA, "doc_id": 3}), "line 2: every sentence"),
        (json.dumps(IDEA), "2 documents, but not each has an id of its own"),
    ],
)
def test_broken_ideas(tmp_path, second, says):
    (tmp_path / "ideas.jsonl").write_text(json.dumps(IDEA) + "\n" + second + "\n")
    with pytest.raises(TableError, match=says):
        ideas.read(tmp_path / "ideas.jsonl")


def test_ideas_in_another_encoding(tmp_path):
    (tmp_path / "ideas.jsonl").write_bytes(json.dumps(IDEA).encode("utf-16"))
    with pytest.raises(TableError, match="not text in UTF-8"):
        ideas.read(tmp_path / "ideas.jsonl")


# Samples of OPS-SAT


def test_one_real_segment_of_samples(require):
    path = Path(os.environ.get("ESA_DATA_MIRROR") or "/nowhere") / "opssat-ad/segment_1025_raw.csv"
    require("mirror", path.is_file(), "ESA_DATA_MIRROR has no opssat-ad/segment_1025_raw.csv")
    df, meta = opssat.read_samples(path)
    assert len(df) == 95 and set(df.channel) == {"CADC0873"} and set(df.split) == {"train"} and df.anomaly.all()
    assert (df.time.diff().dropna() >= pd.Timedelta(5, unit="s")).all() and str(df.time.dtype) == "datetime64[us, UTC]"


SAMPLE = {
    "channel": "CADC0873",
    "timestamp": "2022-02-06T07:43:28.000Z",
    "value": "-2.1e-05",
    "label": "anomaly",
    "sampling": "5",
    "anomaly": "1",
    "segment": "1025",
    "train": "1",
}


@pytest.mark.parametrize(
    "change, says",
    [
        ({"timestamp": "2022-02-06T07:43:28"}, "line 3: timestamp is '2022-02-06T07:43:28'; an instant with its zone"),
        ({"timestamp": "yesterday"}, "line 3: timestamp is 'yesterday'"),
        ({"timestamp": ""}, "line 3: timestamp is ''"),
        ({"value": "NaN"}, "line 3: value is 'NaN'; a number is needed"),
        ({"value": "1,5"}, "line 3: value is '1,5'"),
        ({"anomaly": "2"}, "line 3: anomaly is '2'; one of 0, 1 is needed"),
        ({"train": ""}, "line 3: train is ''; one of 0, 1"),
        ({"segment": "x"}, "line 3: segment is 'x'"),
    ],
)
def test_broken_samples(tmp_path, change, says):
    pd.DataFrame([SAMPLE, {**SAMPLE, **change}]).to_csv(tmp_path / "segments.csv", index=False)
    with pytest.raises(TableError, match=says):
        opssat.read_samples(tmp_path / "segments.csv")


def test_samples_of_another_zone_become_utc(tmp_path):
    pd.DataFrame([{**SAMPLE, "timestamp": "2022-02-06T09:43:28+02:00"}]).to_csv(tmp_path / "segments.csv", index=False)
    assert opssat.read_samples(tmp_path / "segments.csv")[0].time[0] == pd.Timestamp(SAMPLE["timestamp"])


def test_samples_with_other_columns(tmp_path):
    pd.DataFrame([SAMPLE]).drop(columns="train").to_csv(tmp_path / "segments.csv", index=False)
    with pytest.raises(TableError, match="they differ in train"):
        opssat.read_samples(tmp_path / "segments.csv")
