"""Contracts: the file itself, and twenty-odd ways in which a table can break it, each with the message a user needs."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esa_notebooks.data.checks import check
from esa_notebooks.data.contracts import ContractError, contract_path, load_contract, parse_contract
from esa_notebooks.data.datasets import read_telemetry
from esa_notebooks.data.findings import RULES, Accepted, ContractBroken, enforce
from esa_notebooks.data.samples import check_parquet
from esa_notebooks.data.tables import Column, Meta, TableError, save_table
from esa_notebooks.data.telemetry import Config

CONTRACTS = Path(__file__).resolve().parents[2] / "data" / "contracts"
HEAD = 'dataset: wheels\nversion: "1"\nowner: us\nclass: open\n'

# --- the file -------------------------------------------------------------------------------------------------------

WRONG = {
    "not YAML": ("dataset: [", "not valid YAML"),
    "a list": ("- dataset", "must be a list of `key: value`"),
    "empty": ("", "must be a list of `key: value`"),
    "no owner": ('dataset: a\nversion: "1"\nclass: open', "`owner` must be a text, and it is missing"),
    "a version that is a number": ("dataset: a\nversion: 1.0\nowner: us\nclass: open", "in quotes; it is 1.0"),
    "an unknown class of data": ('dataset: a\nversion: "1"\nowner: us\nclass: opne', "Did you mean `open`?"),
    "a misspelt key": (HEAD + "colums: {}", "Did you mean `columns`?"),
    "a misspelt rule of a column": (HEAD + "columns: {x: {hihg: 3}}", "Did you mean `high`?"),
    "a text for a number": (HEAD + "columns: {x: {low: '3'}}", "columns.x: `low` is '3'; a number is needed"),
    "bounds the wrong way round": (HEAD + "columns: {x: {low: 3, high: 1}}", "`low` (3) is above `high` (1)"),
    "a share above one": (HEAD + "columns: {x: {missing: 5}}", "it is a share"),
    "one bound of two": (HEAD + "rows: [3]", "give [least, most]"),
    "an unknown accepted rule": (HEAD + "accept: [{rule: neigbours, why: so}]", "Did you mean `neighbours`?"),
    "accepted for no rows": (HEAD + "accept: [{rule: neighbours, why: so, most: 0}]", "it is a number of rows"),
    "accepted without a reason": (HEAD + "accept: [{rule: neighbours, why: ' '}]", "say why `neighbours` is accepted"),
    "a tag that would build an object": (HEAD + "columns: !!python/object/apply:os.system ['true']", "not valid YAML"),
}


@pytest.mark.parametrize("text, said", WRONG.values(), ids=WRONG)
def test_a_wrong_contract_says_what_is_wrong(text, said):
    with pytest.raises(ContractError) as e:
        parse_contract(text, "wheels.yaml")
    assert said in str(e.value)


def test_a_missing_contract_names_its_neighbour(tmp_path):
    (tmp_path / "telemetry.yaml").write_text("")
    with pytest.raises(ContractError, match="Did you mean `telemetry`"):
        load_contract(tmp_path / "telemetri.yaml")


def test_a_renamed_contract_is_refused(tmp_path):
    (tmp_path / "other.yaml").write_text(HEAD)
    with pytest.raises(ContractError, match="rename it to wheels.yaml"):
        load_contract(tmp_path / "other.yaml")


@pytest.mark.parametrize("path", sorted(CONTRACTS.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_committed_contracts_can_be_read(path):
    contract = load_contract(path)
    assert contract_path(contract.dataset).name == path.name and contract.purpose and contract.owner


# --- tables ---------------------------------------------------------------------------------------------------------

CONTRACT = load_contract(CONTRACTS / "telemetry.yaml")


@pytest.fixture(scope="module")
def good() -> tuple[pd.DataFrame, Meta]:
    return read_telemetry(Config(days=2))


def test_good_data_keeps_its_contract(good):
    report = enforce(check(*good, CONTRACT))
    assert len(report.findings) > 60 and all(f.count == 0 for f in report.findings)
    assert {f.part for f in report.findings} >= {"completeness", "validity", "consistency", "uniqueness", "labels"}


def at(df, row, column, value):
    df = df.copy()
    df[column] = df[column].astype(object) if isinstance(value, str) else df[column]
    df.loc[row, column] = value
    return df


def swapped(df):
    order = np.arange(len(df))
    order[[100, 101]] = order[[101, 100]]
    return df.iloc[order].reset_index(drop=True)


def moved(df, row, by):
    df = df.copy()
    df.loc[row:, "time"] = df.loc[row:, "time"] + pd.Timedelta(by)
    return df


BROKEN = {
    "infinite": (lambda d: at(d, 7, "bus_load", np.inf), "finite", 1, "infinite"),
    "minus infinity": (lambda d: at(d, [7, 9], "bus_load", -np.inf), "finite", 2, "infinite"),
    "too many missing": (lambda d: d.assign(bus_load=d.bus_load.where(d.index % 10 > 0)), "missing", None, "at most 1 % may be"),
    "a whole channel missing": (lambda d: d.assign(bus_load=np.nan), "missing", None, "values are missing"),
    "another unit": (lambda d: d.assign(battery_temperature=d.battery_temperature + 273.15), "in_range", None, "physically possible"),
    "one absurd value": (lambda d: at(d, 11, "panel_temperature", 1e9), "in_range", 1, "outside the range"),
    "a text among numbers": (lambda d: at(d, 5, "bus_load", "12 W"), "type", 1, "where numbers are needed"),
    "numbers as texts": (lambda d: d.assign(bus_load=d.bus_load.astype(str)), "type", None, "`bus_load` holds"),
    "a missing column": (lambda d: d.drop(columns="bus_load"), "columns", None, "`bus_load` is missing"),
    "a renamed column": (lambda d: d.rename(columns={"bus_load": "bus_laod"}), "columns", None, "Did you mean `bus_laod`?"),
    "an extra column": (lambda d: d.assign(secret=1), "columns", None, "`secret` is not in the contract"),
    "duplicate stamps": (lambda d: at(d, 50, "time", d.time[49]), "unique_stamp", 12, "repeat the one before"),
    "unsorted stamps": (swapped, "increasing", 12, "before the one that precedes them"),
    "a reversed table": (lambda d: d.iloc[::-1].reset_index(drop=True), "increasing", None, "precedes them"),
    "two halves the wrong way round": (lambda d: pd.concat([d[2000:], d[:2000]], ignore_index=True), "increasing", 12, "precedes"),
    "local time": (lambda d: d.assign(time=d.time.dt.tz_convert("Europe/Berlin")), "clock", None, "Europe/Berlin; UTC is needed"),
    "time without a zone": (lambda d: d.assign(time=d.time.dt.tz_localize(None)), "clock", None, "have no time zone"),
    "time as text": (lambda d: d.assign(time=d.time.astype(str)), "type", None, "where instants are needed"),
    "a clock that leaves its period": (lambda d: moved(d, 100, "7s"), "on_grid", 12, "no multiple of the declared period"),
    "a clock set back": (lambda d: moved(d, 100, "-1h"), "increasing", 12, "precedes them"),
    "a leap second repeated": (lambda d: moved(d, 100, "-30s"), "unique_stamp", 12, "repeat the one before"),
    "a label of 2": (lambda d: at(d, 3, "anomaly", 2), "label_value", 1, "neither 0 nor 1"),
    "inverted labels": (lambda d: d.assign(anomaly=1 - d.anomaly), "label_share", 1, "is plausible"),
    "an unknown code": (lambda d: at(d, 3, "eclipse", 7), "allowed_value", 1, "none of 0, 1"),
    "a cut-off table": (lambda d: d[:50], "rows", 1, "50 rows; the contract says 100"),
    "an empty table": (lambda d: d[:0], "rows", 1, "0 rows"),
}


@pytest.mark.parametrize("spoil, rule, count, said", BROKEN.values(), ids=BROKEN)
def test_broken_data_is_named(good, spoil, rule, count, said):
    df, meta = good
    with pytest.raises(ContractBroken) as e:
        enforce(check(spoil(df), meta, CONTRACT))
    found = [f for f in e.value.report.broken if f.rule == rule]
    assert found, [f.rule for f in e.value.report.broken]
    assert said in str(e.value) and RULES[rule].do in str(e.value)
    assert count is None or sum(f.count for f in found) == count


def test_at_least_twenty_five_kinds_of_broken_tables():
    assert len(BROKEN) >= 25


def test_the_first_twenty_rows_and_the_count_are_in_the_error(good):
    df, meta = good
    spoilt = df.copy()
    spoilt.loc[spoilt.index[::7], "bus_load"] = 5e4 + spoilt.index[::7]
    with pytest.raises(ContractBroken) as e:
        enforce(check(spoilt, meta, CONTRACT))
    n = len(spoilt.index[::7])
    (finding,) = e.value.report.broken
    assert finding.count == n > 20 and len(finding.rows) == 20
    assert f"The first 20 of {n:,}" in str(e.value) and str(5e4) in str(e.value)
    first = e.value.report.offending()
    assert list(first["value"]) == list(5e4 + spoilt.index[::7][:20]) and set(first["channel"]) == {"bus_load"}


@pytest.mark.parametrize("change, rule, said", [
    ({"sensitivity": "restricted"}, "data_class", "marked restricted; the contract says open"),
    ({"unit": "kW"}, "unit", "`bus_load` is in kW; the contract says W"),
])
def test_a_wrong_description_is_named(good, change, rule, said):
    df, meta = good
    if "unit" in change:
        change = {"columns": tuple(replace(c, **change) if c.name == "bus_load" else c for c in meta.columns)}
    broken = check(df, replace(meta, **change), CONTRACT).broken
    assert [f.rule for f in broken] == [rule] and said in broken[0].message


def test_a_label_outside_the_data_is_named(good):
    df, meta = good
    events = (*meta.events, {**meta.events[0], "id": 99, "start": "2030-01-01T00:00:00+00:00", "end": "2030-01-02T00:00:00+00:00"})
    broken = check(df, replace(meta, events=events), CONTRACT).broken
    assert {f.rule for f in broken} == {"label_inside"}


def test_a_label_for_an_unknown_channel_and_a_backward_window(good):
    df, meta = good
    odd = {**meta.events[0], "id": 98, "channels": "bus_laod"}
    back = {**meta.events[0], "id": 97, "start": meta.events[0]["end"], "end": "2024-01-01T00:00:00+00:00"}
    broken = check(df, replace(meta, events=(*meta.events, odd, back)), CONTRACT).broken
    assert {f.rule for f in broken} == {"known_channel", "window"}


# --- segments, features and splits ----------------------------------------------------------------------------------

SEGMENTS = parse_contract("""
dataset: segments
version: "1"
owner: us
class: open
columns: {mean: {low: -100, high: 100}, var: {low: 0}}
""")
META = Meta("segments", "Segments", "segment", "synthetic", (
    Column("segment", "id"), Column("channel", "group"), Column("mean", "feature"), Column("var", "feature"),
    Column("anomaly", "label"), Column("split", "split")), "Apache-2.0", "us", {})


def segments(n=200) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({"segment": np.arange(n), "channel": np.repeat(["a", "b"], n // 2), "mean": rng.normal(size=n),
                         "var": rng.gamma(2, size=n), "anomaly": (rng.random(n) < 0.2).astype(int),
                         "split": np.where(np.arange(n) % (n // 2) < n // 4, "train", "test")})


def test_good_segments():
    assert not check(segments(), META, SEGMENTS).broken


@pytest.mark.parametrize("spoil, rule", [
    (lambda d: pd.concat([d, d[:3]], ignore_index=True), "unique_key"),
    (lambda d: pd.concat([d, d[:3].assign(split="test")], ignore_index=True), "one_split"),
    (lambda d: pd.concat([d, d[:3].assign(split="test", segment=[900, 901, 902])], ignore_index=True), "copies_across"),
    (lambda d: d.assign(var=-d["var"]), "in_range"),
    (lambda d: d.assign(mean=d["mean"].where(d.index > 3)), "missing"),
], ids=["a segment twice", "a segment in both splits", "copies under other numbers", "a negative variance", "a missing feature"])
def test_broken_segments(spoil, rule):
    assert rule in {f.rule for f in check(spoil(segments()), META, SEGMENTS).broken}


def test_neighbours_across_a_random_split_are_reported_and_stop_nothing():
    df = segments(600)
    df["split"] = np.random.default_rng(3).choice(["train", "test"], len(df), p=[0.75, 0.25])
    report = check(df, META, SEGMENTS)
    (found,) = [f for f in report.findings if f.rule == "neighbours"]
    assert found.count > 50 and not report.broken and "chronological" in found.message
    chronological = [f for f in check(segments(), META, SEGMENTS).findings if f.rule == "neighbours"][0]
    assert chronological.count <= 2


def test_a_feature_that_is_the_label_is_reported():
    df = segments()
    df["mean"] = df.anomaly + df["var"] * 1e-3
    (found,) = [f for f in check(df, META, SEGMENTS).findings if f.rule == "leaking_feature"]
    assert found.count == 1 and not found.broken


def test_an_accepted_flaw_is_counted_and_stops_nothing():
    df = segments().assign(var=-1.0)
    accepted = replace(SEGMENTS, accept=(Accepted("in_range", "the source writes the sign of the slope there", "var", 200),))
    report = enforce(check(df, META, accepted))
    (found,) = [f for f in report.findings if f.rule == "in_range" and f.column == "var"]
    assert found.count == 200 and found.accepted.startswith("the source")
    fewer = replace(SEGMENTS, accept=(Accepted("in_range", "as above", "var", 199),))
    assert check(df, META, fewer).broken, "one row more than was accepted"


# --- in chunks ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("batch", [1, 997, 12_000, 1 << 20])
def test_chunks_find_what_the_whole_finds(good, tmp_path, batch):
    df, meta = good
    if batch == 1:
        df = df[:300]
    spoilt = moved(at(at(df, [5, 200], "bus_load", 1e6), 50, "time", df.time[49]), 120, "7s")
    path = save_table(spoilt, tmp_path / "telemetry.parquet", meta)
    whole = {(f.rule, f.column): f.count for f in check(spoilt, meta, CONTRACT).findings if f.table == "samples"}
    pieces = {(f.rule, f.column): f.count for f in check_parquet(path, CONTRACT, batch).findings}
    assert {k: v for k, v in pieces.items() if v} == {k: v for k, v in whole.items() if v} and any(pieces.values())


def test_a_plain_file_of_samples(tmp_path):
    n = 1000
    frame = pa.table({"channel": pa.array(["a"] * n + ["b"] * n), "value": np.r_[np.zeros(n), np.ones(n)],
                      "time": pa.array(np.tile(np.datetime64("2024-01-01", "ms") + np.arange(n) * 1000, 2), pa.timestamp("ms", "UTC"))})
    pq.write_table(frame, tmp_path / "samples.parquet")
    contract = parse_contract(HEAD + "clock: {period_s: 1}\nchannels: {a: {low: 0, high: 0.5}, b: {low: 0, high: 0.5}}")
    (found,) = [f for f in check_parquet(tmp_path / "samples.parquet", contract, 64).findings if f.count]
    assert (found.rule, found.count) == ("in_range", n) and list(found.rows.row[:2]) == [n, n + 1]


def test_an_unknown_channel_in_a_plain_file(tmp_path):
    stamps = pa.array(np.datetime64("2024-01-01", "s") + np.arange(3), pa.timestamp("s", "UTC"))
    pq.write_table(pa.table({"channel": ["a", "a", "z"], "time": stamps, "value": [1, 2, 3]}), tmp_path / "s.parquet")
    contract = parse_contract(HEAD + "channels: {a: {}}")
    assert [(f.rule, f.count) for f in check_parquet(tmp_path / "s.parquet", contract).findings if f.count] == [("known_channel", 1)]


def test_channels_that_alternate_keep_clocks_of_their_own(tmp_path):
    second = np.repeat(np.arange(500), 2)
    table = {"channel": ["a", "b"] * 500, "value": np.zeros(1000),
             "time": pa.array(np.datetime64("2024-01-01", "us") + second * np.timedelta64(1, "s"), pa.timestamp("us", "UTC"))}
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    contract = parse_contract(HEAD + "clock: {period_s: 1}\nchannels: {'*': {}, a: {}, b: {}}")
    assert not [f for f in check_parquet(tmp_path / "s.parquet", contract, 100).findings if f.count]


def test_a_missing_or_foreign_file(tmp_path):
    with pytest.raises(TableError, match="does not exist"):
        check_parquet(tmp_path / "telemetry.parquet", CONTRACT)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(TableError, match="no description"):
        check_parquet(tmp_path / "x.parquet", CONTRACT)
