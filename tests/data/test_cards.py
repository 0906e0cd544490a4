"""Data cards: that a stranger can load the table from one, that it says nothing it does not know, and asks nobody."""

import json
import os
import socket
from dataclasses import replace
from datetime import date
from pathlib import Path

import mlcroissant
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esa_notebooks.data import opssat, space_weather
from esa_notebooks.data.card_page import card_markdown
from esa_notebooks.data.cards import (
    CONFORMS_TO,
    CONTEXT,
    CardError,
    card,
    check_card,
    missing,
    read_card,
    spdx,
    write_card,
)
from esa_notebooks.data.contracts import Contract
from esa_notebooks.data.datasets import read_telemetry
from esa_notebooks.data.register import SOURCES
from esa_notebooks.data.tables import Column, Meta, save_table
from esa_notebooks.data.telemetry import Config
from esa_notebooks.files import sha256

MIRROR = Path(os.environ.get("ESA_DATA_MIRROR", "mirror-not-set"))
ODD = "Ω in µ/°C, a?b#c.d %20 {x} \"y\" | z\\"


def described(dataset: str, *columns: Column, **more) -> Meta:
    about = {"row": "row", "kind": "real", "licence": "CC BY 4.0", "citation": "Somebody: Something. 2024.",
             "sources": {"raw.csv": "ab" * 32}} | more
    return Meta(dataset, f"Table {dataset}", columns=columns, **about)


WIDE = (pd.DataFrame({"time": pd.date_range("2024-01-01", periods=250, freq="30s", tz="UTC"),
                      ODD: np.where(np.arange(250) % 7 == 0, np.nan, np.arange(250) / 3).astype("float32"),
                      "@id": np.arange(250), "index": np.arange(250)[::-1].copy(),
                      "anomaly": (np.arange(250) % 50 == 0).astype("int8")}),
        described("wide", Column("time", "time"),
                  Column(ODD, "channel", unit="°C", title="Température", low=-5, high=90),
                  Column("@id", "channel", unit="1"), Column("index", "context"), Column("anomaly", "label"),
                  period_s=30.0))
SEGMENTS = (pd.DataFrame({"segment": [1, 2, 3, 4], "channel": ["a", "b", "a", "b"], "mean": [0.5, -1.0, None, 2.0],
                          "anomaly": np.array([0, 1, 0, 1], "int8"), "split": ["train", "test", "train", "test"]}),
            described("segments", Column("segment", "id"), Column("channel", "group"), Column("mean", "feature"),
                      Column("anomaly", "label"), Column("split", "split"), row="segment"))
RECORDS = (pd.DataFrame({"tag": ["1957 α 1", "1957 β 1", None],
                         "when": pd.to_datetime(["1957-10-04", "1957-11-03", None]),
                         "category": pd.Categorical(["O", "O", "F"]),
                         "text": ["Sputnik «1»", "line\nbreak", "\"quoted\""],
                         "recovered": [True, False, True]}),
           described("records", Column("tag", "id"), Column("when", "date"), Column("category", "attribute"),
                     Column("text", "text"), Column("recovered", "class"), row="launch", licence="", citation="",
                     sources={}))
LONG = (pd.DataFrame({"channel": ["b", "b", "a", "a"], "order": [0, 1, 0, 1], "value": [1.0, 2.0, 3.0, 4.0]}),
        described("long", Column("channel", "group"), Column("order", "order"), Column("value", "value", unit="count")))
TABLES = {meta.dataset: (df, meta) for df, meta in (WIDE, SEGMENTS, RECORDS, LONG)}


def written(folder: Path, df: pd.DataFrame, meta: Meta, **more) -> tuple[dict, Path]:
    made = card(meta, save_table(df, folder / f"{meta.dataset}.parquet", meta), **more)
    return made, write_card(made, folder / f"{meta.dataset}.json")


def same(loaded, stored) -> bool:
    """A value as mlcroissant gives it and as the table holds it: text comes as UTF-8 bytes, a missing value as None."""
    if pd.isna(stored):
        return loaded is None
    return loaded == (stored.encode() if isinstance(stored, str) else stored)


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to resolve or reach a host raises, and is remembered even where the exception is swallowed."""
    tried = []

    def refuse(*args, **kwargs):
        tried.append(args[1:2] or args)
        raise OSError("blocked by the test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    yield tried
    assert tried == []


def test_the_guard_against_the_network_works(no_network):
    with pytest.raises(OSError, match="blocked"):
        socket.create_connection(("example.org", 443), timeout=1)
    assert no_network.pop() and no_network == []


@pytest.mark.parametrize("name", TABLES)
def test_a_stranger_loads_the_same_rows_from_the_card_without_a_network(name, tmp_path, no_network):
    df, meta = TABLES[name]
    made, path = written(tmp_path, df, meta, register_source=SOURCES["opssat"], version="1.0.0",
                         published=date(2024, 5, 1))
    loaded = mlcroissant.Dataset(jsonld=path)
    assert loaded.metadata.ctx.issues.errors == set()
    ids = {f["name"]: f["@id"] for f in made["recordSet"][-1]["field"]}
    rows = list(loaded.records("rows"))
    assert list(ids) == list(df.columns) and len(rows) == len(df)
    for i, row in enumerate(rows):
        assert set(row) == set(ids.values())
        assert [c for c in df.columns if not same(row[ids[c]], df[c].iloc[i])] == []


@pytest.mark.parametrize("name", TABLES)
def test_types_are_those_of_the_file(name, tmp_path):
    df, meta = TABLES[name]
    made, path = written(tmp_path, df, meta)
    first = next(iter(mlcroissant.Dataset(jsonld=path).records("rows")))
    kinds = pq.read_schema(tmp_path / f"{name}.parquet").types
    for column, kind in zip(made["recordSet"][-1]["field"], kinds, strict=True):
        value = first[column["@id"]]
        if value is not None and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            assert value.dtype == kind.to_pandas_dtype()


def test_warnings_are_only_about_what_is_missing(tmp_path, caplog):
    df, meta = WIDE
    _, full = written(tmp_path, df, meta, version="2.1.0", published=date(2024, 5, 1))
    assert check_card(full) == []
    _, bare = written(tmp_path, *RECORDS)
    warned = " ".join(check_card(bare))
    assert len(check_card(bare)) == 4
    assert all(word in warned for word in ("license", "citeAs", "version", "datePublished"))
    assert caplog.records == []   # returned, not printed


def test_the_context_is_the_standard_one_and_stands_in_the_card(tmp_path):
    from mlcroissant._src.core.context import Context
    from mlcroissant._src.core.rdf import make_context
    standard = make_context(Context(conforms_to=CONFORMS_TO[0]))
    assert {k: v for k, v in standard.items() if CONTEXT.get(k) != v} == {}
    made, _ = written(tmp_path, *WIDE)
    assert made["@context"] == CONTEXT and isinstance(made["@context"], dict)


def test_what_is_not_known_is_left_out_and_named(tmp_path):
    made, _ = written(tmp_path, *RECORDS)
    assert not {"license", "citeAs", "version", "creator", "prov:wasDerivedFrom", "rai:dataBiases"} & made.keys()
    assert {"license", "citeAs", "version", "creator", "prov:wasDerivedFrom", "rai:dataBiases",
            "rai:dataAnnotationProtocol"} <= missing(made).keys()
    assert None not in made.values() and [] not in made.values()
    unlabelled, _ = written(tmp_path, *LONG)
    assert "rai:dataAnnotationProtocol" not in missing(unlabelled) and "license" not in missing(unlabelled)


def test_everything_answered_leaves_nothing_open(tmp_path):
    open_fields = missing(written(tmp_path, *RECORDS)[0])
    answers = {name.removeprefix("rai:"): "Answered." for name in open_fields if name.startswith("rai:")}
    df, meta = WIDE
    made, path = written(tmp_path, df, meta, version="1.0.0", published=date(2024, 1, 2), creator="An agency",
                         url="https://example.org/wide", rai=answers)
    assert missing(made) == {} and check_card(path) == []
    assert "Not known" not in card_markdown(made)


def test_bytes_are_the_same_for_the_same_content_wherever_it_lies(tmp_path):
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(written(tmp_path / name, *WIDE, quality={"x": 1, "a": {"b": 2.5}})[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    text = paths[0].read_text()
    assert str(tmp_path) not in text and os.sep + "tmp" not in text and "Température" in text
    keys = [list(node) for node in (json.loads(text), json.loads(text)["recordSet"][0])]
    assert keys == [sorted(k) for k in keys]
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"wide.json", "wide.parquet"}   # nothing hidden left behind


def test_a_changed_table_no_longer_fits_its_card(tmp_path):
    df, meta = LONG
    _, path = written(tmp_path, df, meta)
    save_table(df.assign(value=df.value + 1), tmp_path / "long.parquet", meta)
    with pytest.raises(mlcroissant.GenerationError) as e:
        list(mlcroissant.Dataset(jsonld=path).records("rows"))
    assert "is not identical with the reference" in str(e.value.__cause__)


def test_the_file_object_is_the_file(tmp_path):
    made, _ = written(tmp_path, *WIDE)
    file, table = made["distribution"][0], tmp_path / "wide.parquet"
    assert (file["sha256"], file["contentSize"]) == (sha256(table), f"{table.stat().st_size} B")
    assert file["contentUrl"] == "wide.parquet" and "application/vnd.apache.parquet" in file["encodingFormat"]


def test_a_key_is_declared_only_where_the_data_keeps_it(tmp_path):
    def key(df, meta):
        found = written(tmp_path, df, meta)[0]["recordSet"][-1].get("key", [])
        return [k["@id"] for k in ([found] if isinstance(found, dict) else found)]

    assert key(*WIDE) == ["rows/time"] and key(*SEGMENTS) == ["rows/segment"]
    assert key(*LONG) == ["rows/channel", "rows/order"]
    assert key(*RECORDS) == []                                           # an identifier is missing
    assert key(LONG[0].assign(order=0), LONG[1]) == []                   # and here one repeats


def test_labels_splits_and_units_carry_the_annotations_of_the_format(tmp_path):
    made, path = written(tmp_path, *SEGMENTS)
    splits, rows = made["recordSet"]
    fields = {f["name"]: f for f in rows["field"]}
    assert fields["anomaly"]["dataType"] == ["cr:Int8", "cr:Label"]
    assert fields["split"]["references"] == {"field": {"@id": "splits/name"}} and splits["dataType"] == "cr:Split"
    assert [r["splits/url"] for r in mlcroissant.Dataset(jsonld=path).records("splits")]
    wide = {f["name"]: f for f in written(tmp_path, *WIDE)[0]["recordSet"][0]["field"]}
    assert wide[ODD]["annotation"]["value"] == "°C" and "Unit: °C" in wide[ODD]["description"]
    assert "between -5 and 90" in wide[ODD]["description"] and "annotation" not in wide["@id"]


def test_sources_are_named_with_hash_and_address_but_not_offered_for_download(tmp_path):
    df, meta = SEGMENTS
    source = SOURCES["opssat"]
    meta = replace(meta, sources={f.name: f.sha256 for f in source.files})
    made, _ = written(tmp_path, df, meta, register_source=source)
    assert {(o["name"], o["sha256"], o["contentUrl"]) for o in made["prov:wasDerivedFrom"]} == {
        (f.name, f.sha256, f.url) for f in source.files}
    assert f"https://doi.org/{source.doi}" in made["isBasedOn"] and len(made["distribution"]) == 1
    unregistered, _ = written(tmp_path, df, meta)
    assert all("contentUrl" not in o for o in unregistered["prov:wasDerivedFrom"]) and "isBasedOn" not in unregistered


def test_synthetic_data_has_an_activity_and_no_raw_files(tmp_path):
    made, path = written(tmp_path, *read_telemetry(Config(days=1, seed=1)), register_source=SOURCES["telemetry"])
    assert "prov:wasDerivedFrom" not in made and "telemetry" in made["prov:wasGeneratedBy"][0]["name"]
    assert "nothing was measured" in made["rai:dataCollection"] and "Synthetic" in made["description"]
    assert "put in by the generator" in made["rai:dataAnnotationProtocol"]
    check_card(path)
    quiet, _ = written(tmp_path, *read_telemetry(Config(days=1, seed=1, anomalies_per_week=0)))
    assert "rai:dataAnnotationProtocol" not in quiet and "rai:dataAnnotationProtocol" in missing(quiet)


def test_the_contract_gives_purpose_owner_and_class(tmp_path):
    contract = Contract("wide", "1", "An owner", "internal", "Testing cards.")
    made, _ = written(tmp_path, *WIDE, contract=contract)
    assert made["rai:dataUseCases"] == "Testing cards." and made["maintainer"]["name"] == "An owner"
    assert "internal" in made["conditionsOfAccess"] and "None is declared" in made["rai:personalSensitiveInformation"]
    personal, _ = written(tmp_path, *WIDE, contract=replace(contract, sensitivity="personal"))
    assert "class personal" in personal["rai:personalSensitiveInformation"]
    assert "rai:personalSensitiveInformation" in missing(written(tmp_path, *WIDE)[0])   # no contract, no claim


def test_missing_values_and_time_come_from_the_file(tmp_path):
    made, _ = written(tmp_path, *WIDE)
    lost = int(WIDE[0][ODD].isna().sum())
    assert made["rai:dataCollectionMissingData"].startswith(f"{lost} of 1,250 values are missing, in 1 of 5 columns")
    assert made["rai:dataCollectionTimeframe"] == "2024-01-01T00:00:00+00:00/2024-01-01T02:04:30+00:00"
    assert written(tmp_path, *LONG)[0]["rai:dataCollectionMissingData"] == "No value is missing."
    grouped = tmp_path / "grouped.parquet"
    pq.write_table(pa.Table.from_pandas(WIDE[0], preserve_index=False), grouped, row_group_size=40)
    again = card(WIDE[1], grouped)
    assert all(again[k] == made[k] for k in ("rai:dataCollectionMissingData", "rai:dataCollectionTimeframe"))


def test_without_statistics_the_file_is_silent_and_so_is_the_card(tmp_path):
    df, meta = WIDE
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.Table.from_pandas(df, preserve_index=False), path, write_statistics=False)
    assert not {"rai:dataCollectionMissingData", "rai:dataCollectionTimeframe"} & card(meta, path).keys()


def test_given_statements_win_and_limits_add_up(tmp_path):
    meta = replace(WIDE[1], notes=("A gap in May.",))
    made, path = written(tmp_path, WIDE[0], meta,
                         rai={"dataLimitations": ("One mission only.",), "dataBiases": "Sunlit.",
                              "dataCollectionMissingData": "As the provider says: none."})
    assert made["rai:dataLimitations"] == ["A gap in May.", "One mission only."] and made["rai:dataBiases"] == "Sunlit."
    assert made["rai:dataCollectionMissingData"] == "As the provider says: none."
    check_card(path)


@pytest.mark.parametrize("text, expected", [
    ("CC BY 4.0", "CC-BY-4.0"), ("CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0"), ("CC BY 3.0 IGO", "CC-BY-3.0-IGO"),
    ("CC0 1.0", "CC0-1.0"), ("mit", "MIT"), ("Apache-2.0 (made by this project)", "Apache-2.0"),
    ("Kp and ap: CC BY 4.0 (GFZ)", "CC-BY-4.0"), ("CC BY", None), ("No restriction (CelesTrak)", None), ("", None),
    ("proprietary", None), ("MIT and more words", None)])
def test_licences_are_addresses_only_where_they_are_known(text, expected):
    assert spdx(text) == expected


def test_a_licence_in_words_keeps_its_words(tmp_path):
    df, meta = LONG
    made, path = written(tmp_path, df, replace(meta, licence=SOURCES["space-weather"].licence))
    assert [(x["name"], x.get("url")) for x in made["license"]] == [
        ("No restriction (CelesTrak)", None),
        ("Kp and ap: CC BY 4.0 (GFZ)", "https://spdx.org/licenses/CC-BY-4.0.html")]
    check_card(path)


def test_quality_is_measured_named_and_never_zero_for_unknown(tmp_path):
    made, path = written(tmp_path, *LONG, quality={"score": 0.75, "parts": {"leakage": None, "ok": True, "grade": "B"}})
    found = {m["name"]: m.get("dqv:value", m.get("description")) for m in made["dqv:hasQualityMeasurement"]}
    assert found == {"score": 0.75, "parts: leakage": "Not computed.", "parts: ok": True, "parts: grade": "B"}
    assert "| parts: leakage | not computed |" in card_markdown(made)
    check_card(path)


@pytest.mark.parametrize("more, words", [
    ({"rai": {"dataBias": "x"}}, ["dataBias", "dataBiases"]), ({"rai": {"dataBiases": ""}}, ["dataBiases", "text"]),
    ({"rai": {"dataBiases": 3}}, ["dataBiases", "3"]), ({"rai": {"dataBiases": ["a", None]}}, ["dataBiases"]),
    ({"quality": {"a": {"b": float("nan")}}}, ["a: b", "nan"]), ({"quality": {"a": [1]}}, ["[1]"])])
def test_what_cannot_stand_in_a_card_is_refused(tmp_path, more, words):
    with pytest.raises(CardError) as e:
        written(tmp_path, *LONG, **more)
    assert all(w in str(e.value) for w in words)
    assert not (tmp_path / "long.json").exists()


def test_table_and_description_must_fit(tmp_path):
    df, meta = LONG
    path = save_table(df, tmp_path / "long.parquet", meta)
    with pytest.raises(CardError, match="order"):
        card(replace(meta, columns=tuple(c for c in meta.columns if c.name != "order")), path)
    with pytest.raises(CardError, match=r"\(order\)"):
        card(replace(meta, columns=meta.columns[::-1]), path)
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"x": [[1, 2]]}), nested)
    with pytest.raises(CardError, match="`x` has the type list"):
        card(described("nested", Column("x", "feature")), nested)
    nested.write_bytes(b"PAR1 no")
    with pytest.raises(CardError, match="nested.parquet") as e:
        card(described("nested", Column("x", "feature")), nested)
    assert str(tmp_path) not in str(e.value)
    with pytest.raises(CardError, match="nowhere.parquet") as e:
        card(meta, tmp_path / "nowhere.parquet")
    assert str(tmp_path) not in str(e.value)


def test_an_empty_table_has_a_card(tmp_path):
    df, meta = WIDE
    made, path = written(tmp_path, df.iloc[:0], meta)
    assert made["recordSet"][0]["annotation"]["value"] == 0 and "rai:dataCollectionTimeframe" not in made
    assert list(mlcroissant.Dataset(jsonld=path).records("rows")) == []


def test_a_card_is_never_half_written(tmp_path, monkeypatch):
    made, path = written(tmp_path, *LONG)
    before = path.read_bytes()
    with pytest.raises(CardError, match="long.json"):
        write_card(made, tmp_path / "long.txt")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"):
        write_card({**made, "version": "9.0.0"}, path)
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"long.json", "long.parquet"}


@pytest.mark.parametrize("context", ["https://evil.example/context.jsonld", ["https://evil.example/c"], None,
                                     {"@import": "https://evil.example/c"}])
def test_a_context_on_the_web_is_refused_before_anybody_looks_it_up(tmp_path, no_network, context):
    made, path = written(tmp_path, *LONG)
    path.write_text(json.dumps({**made, "@context": context}))
    with pytest.raises(CardError, match="web"):
        check_card(path)
    path.write_text(json.dumps({**made, "maintainer": {"@context": "https://evil.example/c", "name": "x"}}))
    with pytest.raises(CardError, match="web"):
        read_card(path)


@pytest.mark.parametrize("content, words", [("{", "cannot be read"), ("[]", "no @context"), ("{}", "no @context"),
                                            ("[" * 100_000, "cannot be read"), ("\x00", "cannot be read")])
def test_what_is_no_card_is_not_read(tmp_path, content, words):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CardError, match=words):
        read_card(tmp_path / "x.json")
    with pytest.raises(CardError, match="missing.json"):
        read_card(tmp_path / "missing.json")


def test_what_croissant_calls_an_error_is_one(tmp_path):
    made, path = written(tmp_path, *LONG)
    broken = json.loads(path.read_text())
    del broken["distribution"][0]["sha256"]
    path.write_text(json.dumps(broken))
    with pytest.raises(CardError, match="sha256"):
        check_card(path)


def test_the_page_is_made_of_text(tmp_path):
    evil = "<script>alert(1)</script> [x](javascript:1) | `code` *b*\n\n# Heading"
    columns = (replace(WIDE[1].columns[1], title=evil), *(c for c in WIDE[1].columns if c.name != ODD))
    df = WIDE[0][[c.name for c in columns]]
    made, _ = written(tmp_path, df, replace(WIDE[1], columns=columns, notes=(evil,), title=evil, citation=evil))
    page = card_markdown(made)
    bare = page.replace("\\<", "").replace("\\[", "").replace("\\#", "")
    assert "<" not in bare and "[" not in bare
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        f"## {t}" for t in ("What it is", "Purpose", "Who may use it", "Limits", "Missing values",
                            "Personal information", "Fields", "Provenance", "Not known")]
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {4} and len(table) == 2 + len(columns)


def test_the_page_says_what_is_unknown(tmp_path):
    made, _ = written(tmp_path, *RECORDS)
    page = card_markdown(made, level=3)
    for words in ("No licence is known", "How to cite it is not known", "### Not known",
                  "Where it came from is not recorded", "does not mean that there are none"):
        assert words in page


@pytest.mark.parametrize("name, read, file", [("opssat", opssat.read, "opssat-ad/dataset.csv"),
                                              ("space-weather", space_weather.read, "space-weather/SW-All.txt")])
def test_real_tables_have_valid_cards(tmp_path, require, name, read, file):
    require("mirror", (MIRROR / file).is_file(), f"ESA_DATA_MIRROR has no {file}")
    df, meta = read(MIRROR / file)
    made, path = written(tmp_path, df, meta, register_source=SOURCES[name], version="2.0.0",
                         published=date(2025, 3, 28))
    assert check_card(path) == []
    assert {o["sha256"] for o in made["prov:wasDerivedFrom"]} == set(meta.sources.values())
    first = next(iter(mlcroissant.Dataset(jsonld=path).records("rows")))
    fields = {f["name"]: f["@id"] for f in made["recordSet"][-1]["field"]}
    assert [c for c in df.columns if not same(first[fields[c]], df[c].iloc[0])] == []
