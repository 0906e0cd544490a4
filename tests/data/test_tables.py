"""Tables with their descriptions: the same bytes for the same content, and errors that say what to add."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esa_notebooks.data.datasets import read, read_telemetry
from esa_notebooks.data.sources import obtain
from esa_notebooks.data.tables import Column, Meta, TableError, event_table, load_table, read_meta, save_table
from esa_notebooks.data.telemetry import Config


@pytest.fixture(scope="module")
def made():
    return read_telemetry(Config(days=1, anomalies_per_week=30, longest_minutes=60))


def test_round_trip(made, tmp_path):
    df, meta = made
    again, described = load_table(save_table(df, tmp_path / "telemetry.parquet", meta))
    pd.testing.assert_frame_equal(again, df, check_exact=True)
    assert described == meta and described.columns[1].unit == "A" and described.period_s == 30


def test_events_come_back_with_times(made, tmp_path):
    events = event_table(load_table(save_table(*(made[0], tmp_path / "telemetry.parquet", made[1])))[1])
    assert str(events.start.dt.tz) == "UTC" and len(events) == 4 and (events.end >= events.start).all()
    assert event_table(replace(made[1], events=())).empty


def test_equal_content_gives_equal_bytes_in_another_process(tmp_path):
    script = (
        "import sys, hashlib; from pathlib import Path; from esa_notebooks.data.datasets import read_telemetry;"
        "from esa_notebooks.data.tables import save_table; from esa_notebooks.data.telemetry import Config;"
        "df, meta = read_telemetry(Config(days=1));"
        "print(hashlib.sha256(save_table(df, Path(sys.argv[1]), meta).read_bytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / seed / "telemetry.parquet")],
            text=True,
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "path, says",
    [
        ("data/processed/shuttle.parquet", "Add -p prepared=data/processed/telemetry.parquet"),
        ("Telemetry.parquet", "Add -p prepared=telemetry.parquet"),
        ("telemetry.csv", "use telemetry.parquet"),
        ("telemetry", "use telemetry.parquet"),
    ],
)
def test_a_misnamed_file_is_refused_before_anything_is_written(made, tmp_path, monkeypatch, path, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TableError, match=says):
        save_table(*(made[0], path, made[1]))
    assert list(tmp_path.iterdir()) == []


def test_a_renamed_file_is_noticed_when_read(made, tmp_path):
    save_table(made[0], tmp_path / "telemetry.parquet", made[1]).rename(tmp_path / "shuttle.parquet")
    with pytest.raises(TableError, match="the data set is `telemetry`"):
        load_table(tmp_path / "shuttle.parquet")


def test_columns_and_description_must_agree(made, tmp_path):
    df, meta = made
    for wrong in (df.drop(columns="bus_load"), df.assign(extra=1), df[list(df.columns[::-1])]):
        with pytest.raises(TableError, match=r"bus_load|extra|\(order\)"):
            save_table(wrong, tmp_path / "telemetry.parquet", meta)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_table(made, tmp_path, monkeypatch):
    path = save_table(made[0], tmp_path / "telemetry.parquet", made[1])
    before = hashlib.sha256(path.read_bytes()).hexdigest()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        save_table(made[0], path, made[1])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before and len(list(tmp_path.iterdir())) == 1


def test_a_missing_table_says_how_to_make_it(tmp_path):
    with pytest.raises(TableError, match="-p dataset=opssat -p prepared="):
        load_table(tmp_path / "opssat.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"time,value\n1,2\n", b"PAR1" + os.urandom(500) + b"PAR1"])
def test_what_is_no_table(tmp_path, content):
    (tmp_path / "telemetry.parquet").write_bytes(content)
    with pytest.raises(TableError, match="not a Parquet file"):
        load_table(tmp_path / "telemetry.parquet")


def test_a_truncated_table(made, tmp_path):
    path = save_table(made[0], tmp_path / "telemetry.parquet", made[1])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(TableError, match="damaged"):
        load_table(path)


def test_a_foreign_parquet_file(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "telemetry.parquet")
    with pytest.raises(TableError, match="no description"):
        read_meta(tmp_path / "telemetry.parquet")


def test_roles_and_names_have_near_misses(made):
    with pytest.raises(TableError, match="Did you mean `channel`"):
        Column("x", "chanel")
    with pytest.raises(TableError, match="Did you mean `battery_voltage`"):
        made[1]["batery_voltage"]


def test_not_a_number_in_a_description_is_refused(made, tmp_path):
    with pytest.raises(ValueError):
        save_table(made[0], tmp_path / "telemetry.parquet", replace(made[1], period_s=float("nan")))


def test_text_and_missing_values_survive(tmp_path):
    df = pd.DataFrame({"name": ["Überlauf", "μ", ""], "x": [np.nan, 1.5, -0.0]})
    meta = Meta(
        "small",
        "Kleine Tabelle °C",
        "row",
        "synthetic",
        (Column("name", "group"), Column("x", "channel", "°C")),
        "CC0",
        "none",
        {},
    )
    again, described = load_table(save_table(df, tmp_path / "small.parquet", meta))
    assert list(again.name) == list(df.name) and described["x"].label == "x (°C)" and np.isnan(again.x[0])


def test_every_source_can_be_read_saved_and_loaded(tmp_path):
    for name in ("telemetry", "shuttle"):
        df, meta = read(obtain(name, cache=tmp_path / "raw", offline=True), days=1)
        again, described = load_table(save_table(df, tmp_path / f"{name}.parquet", meta))
        pd.testing.assert_frame_equal(again, df, check_exact=True)
        assert described.dataset == name and described.notes and described.licence and described.sensitivity == "open"


def test_the_message_names_the_place_and_not_the_unfinished_folder(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TableError, match="Add -p prepared=data/processed/telemetry.parquet$"):
        save_table(made[0], tmp_path / "data/processed/.20261124T124501Z-3fa9c1d2/shuttle.parquet", made[1])
