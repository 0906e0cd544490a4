"""Files from outside: each defect with the message a user needs, and each harmless deviation stated."""

import io
import os
import struct
import tracemalloc
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esa_notebooks.data import containers
from esa_notebooks.data.containers import check_parquet, open_member
from esa_notebooks.data.defects import SHOWN, IntakeError, Kind
from esa_notebooks.data.intake import iter_csv, read_csv
from esa_notebooks.data.tables import Column, Meta, save_table

KINDS = {
    "time": Kind("time"),
    "voltage": Kind("number", "V"),
    "mode": Kind("category", values=("NOMINAL", "SAFE")),
    "count": Kind("integer"),
    "remark": Kind("text", missing=("",)),
}
HEADER = "time,voltage,mode,count,remark"
ROW = "2024-03-01T00:00:0{}Z,28.{},NOMINAL,{},all well"
GOOD = [HEADER, *(ROW.format(i, i, i) for i in range(5))]


@pytest.fixture
def write(tmp_path):
    def make(content: str | bytes | list[str], end: str = "\n") -> Path:
        path = tmp_path / "export.csv"
        content = end.join(content) + end if isinstance(content, list) else content
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def refused(path: Path, *words: str, columns=KINDS, **options) -> IntakeError:
    """The file is refused, and the message holds all `words` and the name of the file."""
    with pytest.raises(IntakeError) as e:
        read_csv(path, columns, **options)
    text = str(e.value)
    assert text.startswith(f"{path} is refused.")
    missing = [w for w in words if w not in text]
    assert missing == [], text
    return e.value


def with_cell(column: str, *cells: str, row: int = 3) -> list[str]:
    """Good lines in which cells of one column, from line `row` on, are replaced."""
    rows = [line.split(",") for line in GOOD]
    for i, cell in enumerate(cells):
        rows[row - 1 + i][HEADER.split(",").index(column)] = '"' + cell.replace('"', '""') + '"'
    return [",".join(r) for r in rows]


# -- what is read ----------------------------------------------------------------------------------------------------


def test_a_good_file_is_read_without_notes(write):
    table, notes = read_csv(write(GOOD), KINDS)
    assert notes == () and list(table) == list(KINDS) and len(table) == 5
    assert table.voltage.tolist() == [28.0, 28.1, 28.2, 28.3, 28.4]
    assert [str(t) for t in table.dtypes] == ["datetime64[us, UTC]", "float64", "category", "int64", "str"]


def test_a_byte_order_mark_is_read_and_noted(write):
    table, notes = read_csv(write(b"\xef\xbb\xbf" + ("\n".join(GOOD) + "\n").encode()), KINDS)
    assert list(table) == list(KINDS) and notes == ("The file starts with a byte-order mark, which was passed over.",)


def test_windows_line_ends_are_read_and_noted(write):
    table, notes = read_csv(write(GOOD, "\r\n"), KINDS)
    assert table.remark[4] == "all well" and notes == ("All lines end as in Windows (CRLF).",)
    _, notes = read_csv(write("\n".join(GOOD[:3]) + "\r\n" + "\n".join(GOOD[3:]) + "\n"), KINDS)
    assert notes == ("1 of 6 lines end as in Windows (CRLF).",)


def test_columns_in_another_order_and_spaces_are_read_and_noted(write):
    table, notes = read_csv(
        write(["voltage , time", "28.1, 2024-03-01T00:00:00Z"]), {k: KINDS[k] for k in ("time", "voltage")}
    )
    assert list(table) == ["time", "voltage"] and table.voltage[0] == 28.1
    assert "another order than declared (voltage, time)" in " ".join(notes) and "spaces around them" in " ".join(notes)
    assert "`time`: Spaces around values were removed." in notes


def test_a_missing_last_line_end_and_empty_lines_are_noted(write):
    _, notes = read_csv(write("\n".join(GOOD[:3]) + "\n\n" + "\n".join(GOOD[3:])), KINDS)
    assert notes == ("Empty lines were passed over: 1 rows, lines 4.", "The last line has no line end.")


def test_an_extra_column_is_left_out_only_when_asked_for(write):
    lines = [GOOD[0] + ",note", *(line + ",x" for line in GOOD[1:])]
    refused(write(lines), "The column `note` was not declared", 'extra="ignore"')
    table, notes = read_csv(write(lines), KINDS, extra="ignore")
    assert list(table) == list(KINDS) and notes == ("The column `note` was not declared and is left out.",)


def test_declared_missing_values_are_missing_and_counted(write):
    kinds = {
        **KINDS,
        "voltage": Kind("number", missing=("", "NaN")),
        "count": Kind("integer", missing=("",)),
        "mode": Kind("category", values=("NOMINAL", "SAFE"), missing=("-",)),
        "time": Kind("time", missing=("",)),
    }
    lines = with_cell("voltage", "", "NaN", "")
    lines[4] = lines[4].replace("NOMINAL,3", "-,")
    lines[5] = ",".join(["", *lines[5].split(",")[1:]])
    table, notes = read_csv(write(lines), kinds)
    assert table.voltage.isna().tolist() == [False, True, True, True, False] and table["mode"].isna().sum() == 1
    assert (
        table["count"].tolist() == [0, 1, 2, pd.NA, 4]
        and str(table["count"].dtype) == "Int64"
        and table.time.isna().sum() == 1
    )
    assert "`voltage`: Cells without a value, written '': 2 rows, lines 3, 5." in notes
    assert "`voltage`: Cells without a value, written 'NaN': 1 rows, lines 4." in notes


def test_numbers_are_read_exactly_as_written(write):
    numbers = [
        "0.1",
        "+1.5",
        "-2",
        ".5",
        "5.",
        "1e-3",
        "-2.5E+10",
        "1.7976931348623157e308",
        "4.9e-324",
        "0.30000000000000004",
        "-0",
    ]
    table, _ = read_csv(write(["x", *numbers]), {"x": Kind("number")})
    assert table.x.tolist() == [float(n) for n in numbers]
    table, _ = read_csv(write(["x", "-7", "+8", "999999999999999999"]), {"x": Kind("integer")})
    assert table.x.tolist() == [-7, 8, 999999999999999999]


def test_text_is_left_alone_and_may_hold_commas_quotes_and_lines(write):
    table, _ = read_csv(
        write('a,b\n" x, ""y""\nz ",-3.5\n-,"- 5 V, then off"\nplain,#4 of 5\n'), {"a": Kind("text"), "b": Kind("text")}
    )
    assert table.a.tolist() == [' x, "y"\nz ', "-", "plain"] and table.b.tolist() == [
        "-3.5",
        "- 5 V, then off",
        "#4 of 5",
    ]


# -- times -----------------------------------------------------------------------------------------------------------


def times(write, *cells, kind=None):
    table, notes = read_csv(write(["time", *cells]), {"time": kind or Kind("time")})
    return [t.isoformat() for t in table.time], notes


def test_instants_in_utc(write):
    cells = (
        "2024-03-01T12:00:00Z",
        "2024-03-01 12:00:01.5Z",
        "2024-03-01T12:00:02.123456000Z",
        "2024-03-01T12:01Z",
        "2024-03-01T12:02:00+00:00",
    )
    read, notes = times(write, *cells)
    assert (
        read
        == [
            "2024-03-01T12:00:00+00:00",
            "2024-03-01T12:00:01.500000+00:00",
            "2024-03-01T12:00:02.123456+00:00",
            "2024-03-01T12:01:00+00:00",
            "2024-03-01T12:02:00+00:00",
        ]
        and notes == ()
    )


def test_a_time_without_zone_needs_a_declaration(write):
    refused(
        write(with_cell("time", "2024-03-01T00:00:01")),
        "`time`: a time without a zone",
        'zone="UTC"',
        "line 3, cell A3: '2024-03-01T00:00:01'",
    )
    read, notes = times(write, "2024-03-01T12:00:00", "2024-03-01 12:00:01", kind=Kind("time", zone="UTC"))
    assert read[1] == "2024-03-01T12:00:01+00:00" and notes == (
        "`time`: Times without a zone were read as UTC, as declared.",
    )
    read, _ = times(write, "2024-07-01T12:00:00", kind=Kind("time", zone="Europe/Berlin"))
    assert read == ["2024-07-01T10:00:00+00:00"]


def test_offsets_are_converted_only_when_declared_also_when_mixed(write):
    cells = "2024-03-01T12:00:00+01:00", "2024-03-01T11:00:01Z", "2024-03-01T13:00:02+02:00"
    e = refused(
        write(["time", *cells]),
        "an offset from UTC (2)",
        "offsets=True",
        "line 2, cell A2",
        columns={"time": Kind("time")},
    )
    assert e.defects[0].count == 2
    read, notes = times(write, *cells, kind=Kind("time", offsets=True))
    assert read == [f"2024-03-01T11:00:0{i}+00:00" for i in range(3)] and notes == (
        "`time`: Times with an offset were converted to UTC.",
    )


def test_the_hour_of_summer_time_is_refused(write):
    berlin = {"time": Kind("time", zone="Europe/Berlin")}
    refused(
        write(["time", "2024-10-27T01:30:00", "2024-10-27T02:30:00"]),
        "Europe/Berlin has twice or not at all",
        "line 3",
        columns=berlin,
    )
    refused(write(["time", "2024-03-31T02:30:00"]), "Europe/Berlin has twice or not at all", columns=berlin)


@pytest.mark.parametrize(
    "cell, words",
    [
        ("2016-12-31T23:59:60Z", "a leap second"),
        ("31/12/2024 10:00", "day and month can be mistaken"),
        ("3.1.2024", "day and month"),
        ("01/02/24 10:00", "a year of two digits"),
        ("1709294400", "seconds since 1970"),
        ("1709294400.5", "seconds since 1970"),
        ("1709294400000", "milliseconds since 1970"),
        ("1709294400000000", "micro- or nanoseconds"),
        ("45352.5", "serial number of a date"),
        ("2024-03-01", "a date without a time of day"),
        ("2023-02-29T00:00:00Z", "does not exist"),
        ("2024-13-01T00:00:00Z", "does not exist"),
        ("2024-03-01T25:00:00Z", "does not exist"),
        ("2024-03-01T00:00:00.1234567Z", "finer than a microsecond"),
        ("noon", "no time"),
        ("2024-03-01 12:00 CET", "a zone by name"),
        ("03:15 PM", "12 hours"),
        ("", "an empty cell"),
        ("NaT", "a word for a missing value"),
        ("=NOW()", "a formula"),
        ("#VALUE!", "an error of a spreadsheet"),
        ("٢٠٢٤-03-01T00:00:00Z", "no time"),
    ],
)
def test_what_is_no_time_is_called_by_its_name(write, cell, words):
    e = refused(write(with_cell("time", cell)), "`time`: ", words, f"line 3, cell A3: {cell!r}")
    assert len(e.defects) == 1 and e.defects[0].do


def test_seconds_and_milliseconds_mixed_are_both_named(write):
    refused(
        write(["time", "1709294400", "1709294401000", "1709294402"]),
        "seconds since 1970 (2)",
        "milliseconds since 1970",
        columns={"time": Kind("time")},
    )


def test_unset_clocks_repeated_and_unsorted_stamps_are_reported_with_their_lines(write):
    cells = (
        "1970-01-01T00:00:00Z",
        "2024-03-01T00:00:00Z",
        "2024-03-01T00:00:00Z",
        "2024-02-01T00:00:00Z",
        "2024-03-02T00:00:00Z",
    )
    expected = (
        "`time`: Stamps that an unset clock shows: 1 rows, lines 2.",
        "`time`: Stamps equal to the one before: 1 rows, lines 4.",
        "`time`: Stamps earlier than the one before: 1 rows, lines 5.",
    )
    assert times(write, *cells)[1] == expected
    for chunk_rows in (1, 2, 3):  # the last stamp is carried from chunk to chunk
        _, notes = read_csv(write(["time", *cells]), {"time": Kind("time")}, chunk_rows=chunk_rows)
        assert notes == expected


def test_each_channel_has_its_own_clock(write):
    lines = [
        "time,channel",
        "2024-03-01T00:00:05Z,a",
        "2024-03-01T00:00:01Z,b",
        "2024-03-01T00:00:06Z,a",
        "2024-03-01T00:00:01Z,b",
    ]
    columns = {"time": Kind("time"), "channel": Kind("text")}
    for chunk_rows in (1, 3, 10):
        _, notes = read_csv(write(lines), columns, group="channel", chunk_rows=chunk_rows)
        assert notes == ("`time`: Stamps equal to the one before: 1 rows, lines 5.",)


# -- cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, words",
    [
        ("3,14", "a decimal comma"),
        ("-3,1415", "a decimal comma"),
        ("1,234", "thousands or decimals"),
        ("1,234.5", "separated thousands"),
        ("1.234.567,8", "separated thousands"),
        ("1 234.5", "separated thousands"),
        ("1'234", "separated thousands"),
        ("", "an empty cell"),
        ("NaN", "a word for a missing value"),
        ("nan", "a word for"),
        ("N/A", "a word for"),
        ("-", "a word for"),
        ("null", "a word for"),
        ("inf", "infinity"),
        ("-Infinity", "infinity"),
        ("1e999", "a number too large"),
        ("12 mA", "with the unit mA"),
        ("21.5°C", "with the unit °C"),
        ("50%", "with the unit %"),
        ("−5", "typographic minus"),
        ("0x1F", "a hexadecimal number"),
        ("1_000", "no number"),
        ("true", "no number"),
        ("१२", "no number"),
        ("#REF!", "an error of a spreadsheet"),
        ("#DIV/0!", "an error of a spreadsheet"),
        ("#N/A", "an error of a spreadsheet"),
        ("=SUM(A1:A9)", "a formula"),
        ("+cmd|' /C calc'!A0", "a formula"),
        ("@SUM(A1)", "a formula"),
        ("-2+3", "a formula"),
        ("=1", "a formula"),
        ("1e", "unit e"),
        ("--5", "a formula"),
    ],
)
def test_what_is_no_number_is_called_by_its_name(write, cell, words):
    e = refused(write(with_cell("voltage", cell)), "`voltage`: ", words, f"line 3, cell B3: {cell!r}")
    assert len(e.defects) == 1 and e.defects[0].do


def test_mixed_units_are_named_one_below_the_other(write):
    refused(
        write(with_cell("voltage", "12 mV", "3 V", "4 V")),
        "with the unit mV",
        "with the unit V (2)",
        "the unit of this column is V",
    )


@pytest.mark.parametrize("cell", ["3.0", "1e3", "9223372036854775808", "3,0", "x"])
def test_what_is_no_whole_number(write, cell):
    refused(write(with_cell("count", cell)), "`count`: ", f"line 3, cell D3: {cell!r}")


@pytest.mark.parametrize("cell", ['=HYPERLINK("http://x")', "+cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "=A1", "#NAME?"])
def test_formulas_and_errors_are_refused_in_text_too(write, cell):
    refused(write(with_cell("remark", cell)), "`remark`: ", "cell E3")


@pytest.mark.parametrize("cell", ["-3.5", "+4", "-2e+3", "- 5 V", "#4 of 5", "@home", "a=b", "+49", "—"])
def test_ordinary_text_is_no_formula(write, cell):
    assert read_csv(write(with_cell("remark", cell)), KINDS)[0].remark[1] == cell


def test_a_category_that_is_none_is_named_with_its_neighbour(write):
    refused(
        write(with_cell("mode", "SAVE")),
        "`mode`: no declared category. Declared are NOMINAL, SAFE. Did you mean `SAFE`?",
        "cell C3",
    )
    refused(write(with_cell("mode", "")), "`mode`: no declared category", "cell C3: ''")


def test_undeclared_empty_text_is_refused(write):
    refused(write(["a,b", "x,"]), "`b`: an empty cell", columns={"a": Kind("text"), "b": Kind("text")})


def test_twenty_rows_are_shown_and_all_are_counted_over_chunks(write):
    e = refused(
        write(["x", *['"3,14"'] * 250, "2.5", *["x"] * 3]),
        "a decimal comma (250)",
        "and 230 more",
        "no number (3)",
        columns={"x": Kind("number")},
        chunk_rows=40,
    )
    assert [d.count for d in e.defects] == [250, 3] and len(e.defects[0].rows) == SHOWN == 20
    assert e.defects[0].rows[0] == (2, "A2", "3,14") and e.defects[1].rows[0][0] == 253


# -- rows and headers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign, words", [(";", "semicolons"), ("\t", "tabulators"), ("|", "vertical bars")])
def test_another_separator_is_named(write, sign, words):
    refused(write([line.replace(",", sign) for line in GOOD]), f"separated by {words}", "with a comma between fields")


def test_a_row_with_too_many_or_too_few_fields(write):
    refused(write([*GOOD[:3], GOOD[3] + ",x", GOOD[4]]), "a row of 6 fields where the header has 5", "line 4")
    refused(
        write([*GOOD[:3], "2024-03-01T00:00:02Z,28,1", GOOD[4]]),
        "a row of 3 fields where the header has 5",
        "line 4: '2024-03-01T00:00:02Z,28,1'",
    )


def test_a_file_cut_in_the_middle_of_a_line(write):
    refused(write("\n".join(GOOD)[:-20]), "ends in the middle of line 6: it is truncated")
    table, notes = read_csv(
        write("\n".join(GOOD)[:-3]), KINDS
    )  # cut inside the last field: nobody can see it, so it is noted
    assert "The last line has no line end." in notes


def test_the_declared_size_is_compared(write):
    path = write(GOOD)
    size = path.stat().st_size
    assert read_csv(path, KINDS, size=size)[1] == ()
    refused(path, f"The file has {size:,} bytes and is shorter than the {size + 1:,} declared", size=size + 1)
    refused(path, "is longer than", size=size - 1)


@pytest.mark.parametrize(
    "line", ['2024-03-01T00:00:02Z,28.2,NOMINAL,2,"open', '2024-03-01T00:00:02Z,28.2,NOMINAL,2,"in"side"']
)
def test_unbalanced_quotes_are_named_with_their_line(write, line):
    refused(write([*GOOD[:3], line, *GOOD[4:]]), "The quotes do not balance in the row of line", " 4")


def test_an_empty_file_and_one_with_only_a_header(write):
    for content in ("", "\n\n", " "):
        refused(write(content), "The file is empty")
    refused(write([HEADER]), "a header and no rows")
    refused(write(HEADER), "a header and no rows")


def test_a_missing_file(tmp_path):
    refused(tmp_path / "none.csv", "no such file")


def test_missing_and_repeated_columns(write):
    refused(
        write([HEADER.replace("voltage", "volatge"), *GOOD[1:]]),
        "The column `voltage` is missing. Did you mean `volatge`?",
        "The column `volatge` was not declared",
    )
    refused(write([HEADER.replace("remark", "voltage"), *GOOD[1:]]), "`voltage` occurs 2 times", "`remark` is missing")
    refused(write([HEADER + ",", *(line + "," for line in GOOD[1:])]), "The column `` was not declared", extra="ignore")


# -- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_with_the_way_to_convert_it(write, encoding):
    refused(write("\n".join(GOOD).encode(encoding)), "UTF-16", "iconv")


def test_latin_1_is_refused_with_the_byte(write):
    content = "\n".join(GOOD).replace("28.2,NOMINAL,2,all well", "28.2,NOMINAL,2,21 °C").encode("latin-1")
    at = content.index(b"\xb0")
    refused(write(content), f"Byte {at:,} (0xb0, line 4) is not UTF-8", "'°'", "iconv -f LATIN1")


@pytest.mark.parametrize(
    "start, words",
    [
        (b"PK\x03\x04", "zip archive or a spreadsheet"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PAR1", "Parquet"),
        (b"\xd0\xcf\x11\xe0", ".xls"),
        (b"\x80\x04", "pickle"),
        (b"%PDF", "PDF"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\n<HTML>", "web page"),
        (b'{"a": 1}', "JSON"),
    ],
)
def test_what_is_no_csv_is_called_by_its_name(write, start, words):
    refused(write(start + b"x" * 100), "The file is", words)


def test_control_characters_and_old_line_ends(write):
    refused(write("\n".join(GOOD).replace("28.2", "28\0")), "Line 4 holds a byte 0")
    refused(write(GOOD, "\r"), "carriage return alone")


def test_a_line_without_end_is_not_swallowed(write, monkeypatch):
    refused(write(HEADER + "\n" + "x" * (2 << 20)), "Line 2 has more than 1,048,576 bytes")
    refused(write(HEADER + "\n" + "\n".join(['"' + "x" * 1000] + ["y" * 1000] * 200)), "quotes do not balance")


# -- streams ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_in_constant_memory(write):
    lines = [
        HEADER,
        *(
            f"2024-03-01T{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}Z,28.{i},NOMINAL,{i},all well"
            for i in range(20_000)
        ),
    ]
    path, seen, notes = write(lines), 0, []
    tracemalloc.start()
    for table in iter_csv(path, KINDS, chunk_rows=500, notes=notes):
        assert len(table) == 500 and table.index[0] == 0
        seen += len(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 20_000 and notes == [] and peak < path.stat().st_size / 2


def test_nothing_more_is_handed_out_after_a_defect(write):
    lines, handed = ["x", *["1"] * 30, "bad", *["1"] * 30, "worse"], []
    with pytest.raises(IntakeError) as e:
        for table in iter_csv(write(lines), {"x": Kind("number")}, chunk_rows=10):
            handed.append(len(table))
    assert handed == [10, 10, 10] and e.value.defects[0].count == 2


def test_declarations_are_checked():
    for wrong in (
        {"kind": "numbr"},
        {"kind": "category"},
        {"kind": "text", "values": ("a",)},
        {"kind": "number", "missing": "NaN"},
    ):
        with pytest.raises(ValueError):
            Kind(**wrong)
    with pytest.raises(Exception, match="Europe/Berln"):
        Kind("time", zone="Europe/Berln")
    with pytest.raises(ValueError, match="No column `modes` is declared to group by. Did you mean `mode`?"):
        next(iter_csv("a.csv", KINDS, group="modes"))


def test_what_the_project_reads_comes_back(write, tmp_path):
    """A table written with pandas and read with its declaration is the same table."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "time": pd.date_range("2024-03-01", periods=500, freq="37s", tz="UTC").as_unit("us"),
            "value": rng.normal(size=500),
        }
    )
    table.to_csv(tmp_path / "a.csv", index=False, date_format="%Y-%m-%dT%H:%M:%S.%fZ")
    again, notes = read_csv(tmp_path / "a.csv", {"time": Kind("time"), "value": Kind("number")})
    pd.testing.assert_frame_equal(again, table, check_freq=False)
    assert notes == ()


# -- zip archives ----------------------------------------------------------------------------------------------------


def archive(path: Path, members: dict | list, **options) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as z:
        for name, content in members.items() if isinstance(members, dict) else members:
            z.writestr(name, content)
    return path


def denied(path: Path, *words: str, **options) -> None:
    with pytest.raises(IntakeError) as e:
        open_member(path, **options)
    assert [w for w in words if w not in str(e.value)] == [], str(e.value)


def test_a_member_is_read_by_name_or_because_it_is_the_only_one(tmp_path):
    path = archive(tmp_path / "a.zip", {"folder/": b"", "folder/a.csv": b"1,2", "__MACOSX/._a.csv": b"x"})
    assert open_member(path) == open_member(path, "folder/a.csv") == b"1,2"
    denied(path, "has no member 'folder/b.csv'. Did you mean `folder/a.csv`?", name="folder/b.csv")
    denied(archive(tmp_path / "b.zip", {"a": b"1", "b": b"2"}), "has 2 members where one is expected", "a, b")
    denied(archive(tmp_path / "c.zip", {}), "has 0 members")
    denied(tmp_path / "none.zip", "no such file")


@pytest.mark.parametrize(
    "name", ["../../x", "a/../../x", "/etc/x", "C:/x", "C:x", "..\\x", "a\\b", "a/..", "\\\\host\\x"]
)
def test_names_that_leave_the_folder_condemn_the_archive(tmp_path, name):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # as other programs write it; zipfile itself would correct some of these
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("good.csv", "1")
        z.writestr(info, "x")
    denied(path, "leads out of the folder", name="good.csv")


def test_links_duplicates_and_archives_inside_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    denied(archive(tmp_path / "a.zip", [(link, "/etc/passwd")]), "symbolic link")
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path / "b.zip", [("a.csv", "1"), ("a.csv", "2")])
    denied(path, "'a.csv' occurs twice", name="a.csv")
    inner = io.BytesIO()
    archive(inner, {"a.csv": b"1"})
    denied(archive(tmp_path / "c.zip", {"a.csv": inner.getvalue()}), "is an archive itself")
    denied(archive(tmp_path / "d.zip", {"a.zip": b"anything"}), "is an archive itself")


def test_an_encrypted_member_is_refused(tmp_path):
    data = bytearray(archive(tmp_path / "a.zip", {"a.csv": b"1"}).read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    denied(tmp_path / "a.zip", "is encrypted")


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "_MEMBERS", 5)
    denied(archive(tmp_path / "a.zip", {str(i): b"" for i in range(6)}), "has 6 members")


def test_a_bomb_is_put_down_early(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z, z.open("bomb", "w") as f:
        for _ in range(200):
            f.write(bytes(1 << 20))
    tracemalloc.start()
    denied(path, "zip bomb")
    denied(path, "more than 5,000,000 bytes", max_bytes=5_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20
    assert (
        len(open_member(archive(tmp_path / "zeros.zip", {"a": bytes(1 << 20)}))) == 1 << 20
    )  # small and repetitive is no bomb


def test_sizes_in_the_directory_are_not_believed(tmp_path):
    path = archive(tmp_path / "a.zip", {"a": os.urandom(5000)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    for size in (10, 1 << 31):
        data[at + 24 : at + 28] = struct.pack("<I", size)
        path.write_bytes(data)
        denied(path, "a.zip is refused", max_bytes=1 << 20)


def test_damage_and_truncation(tmp_path):
    path = archive(tmp_path / "a.zip", {"a": bytes(range(256)) * 40})
    data = path.read_bytes()
    for cut in (10, len(data) // 2, len(data) - 5):
        path.write_bytes(data[:cut])
        denied(path, "damaged, truncated or no zip")
    stored = tmp_path / "b.zip"
    with zipfile.ZipFile(stored, "w") as z:
        z.writestr("a", b"voltage 28.1")
    stored.write_bytes(stored.read_bytes().replace(b"28.1", b"29.1"))
    denied(stored, "Bad CRC-32", "Transfer it again")
    path.write_bytes(b"not a zip")
    denied(path, "no zip")


# -- Parquet ---------------------------------------------------------------------------------------------------------

STAMPS = pd.date_range("2024-03-01", periods=3, freq="1h", tz="UTC")
PARTNER = {"time": Kind("time"), "value": Kind("number")}


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def rejected(path: Path, *words: str, columns=PARTNER) -> None:
    with pytest.raises(IntakeError) as e:
        check_parquet(path, columns)
    assert [w for w in words if w not in str(e.value)] == [], str(e.value)


def own(tmp_path) -> Path:
    meta = Meta(
        "demo", "Demo", "sample", "synthetic", (Column("time", "time"), Column("value", "value")), "none", "none", {}
    )
    return save_table(
        pd.DataFrame({"time": STAMPS.as_unit("us"), "value": [1.0, 2, 3]}), tmp_path / "demo.parquet", meta
    )


def test_a_prepared_table_and_a_declared_one_pass_without_notes(tmp_path):
    assert check_parquet(own(tmp_path)) == ()
    assert check_parquet(parquet(tmp_path / "p.parquet", time=STAMPS.as_unit("us"), value=[1.0, 2, 3]), PARTNER) == ()


def test_other_units_zones_and_dictionaries_are_noted(tmp_path):
    time = pa.array(STAMPS.tz_convert("Europe/Paris").as_unit("ms"))
    notes = check_parquet(
        parquet(tmp_path / "p.parquet", time=time, value=[1, 2, 3], mode=pa.array(["a", "b", "a"]).dictionary_encode()),
        {**PARTNER, "mode": Kind("category", values=("a", "b"))},
    )
    assert notes == (
        "`time`: times in units of ms, not us; the same instants.",
        "`time`: instants shown in Europe/Paris; they are the same in UTC.",
        "`mode`: a dictionary of string, read as a category.",
    )


@pytest.mark.parametrize(
    "values, words",
    [
        (pa.array([Decimal("1.5")] * 3), "decimal numbers"),
        (pa.array([b"\x80\x04N."] * 3), "pickled objects"),
        (pa.nulls(3), "nothing at all"),
        (pa.array([[1], [2], [3]]), "nested"),
        (pa.array([{"a": 1}] * 3), "nested"),
        (pa.array(["1", "2", "3"]), "string where number was declared"),
        (pa.array(pd.date_range("2024", periods=3)), "times without a zone"),
        (pa.array([1, 2, 3], pa.time64("us")), "time64"),
        (pa.array([b"a"] * 3).dictionary_encode(), "pickled objects"),
    ],
)
def test_types_that_tables_do_not_have_are_refused(tmp_path, values, words):
    rejected(parquet(tmp_path / "p.parquet", time=STAMPS, value=values), "`value`", words)


def test_objects_that_pandas_would_pickle_never_reach_the_file_unseen(tmp_path):
    frame = pd.DataFrame({"time": STAMPS, "value": pd.Series([b"\x80\x04K\x01.", b"x", b"y"], dtype=object)})
    frame.to_parquet(tmp_path / "p.parquet", index=False)
    rejected(tmp_path / "p.parquet", "bytes, in which pickled objects may hide")


def test_an_index_is_no_column(tmp_path):
    frame = pd.DataFrame({"value": [1.0, 2, 3]}, index=STAMPS.rename("time"))
    frame.to_parquet(tmp_path / "named.parquet")
    rejected(
        tmp_path / "named.parquet", "`time`: the index of a DataFrame was written as the column `time`", "reset_index()"
    )
    frame.rename_axis(None).to_parquet(tmp_path / "unnamed.parquet")
    rejected(tmp_path / "unnamed.parquet", "__index_level_0__")
    frame.reset_index().to_parquet(tmp_path / "range.parquet")
    assert check_parquet(tmp_path / "range.parquet", PARTNER) == ()


def test_missing_undeclared_and_repeated_columns(tmp_path):
    rejected(
        parquet(tmp_path / "p.parquet", time=STAMPS, valeu=[1.0, 2, 3]),
        "`value`: The column is missing. Did you mean `valeu`?",
        "`valeu`: The column was not declared",
    )
    pq.write_table(
        pa.Table.from_arrays(
            [pa.array(STAMPS), pa.array([1.0]), pa.array([1.0])][:1] + [pa.array([1.0, 2, 3])] * 2,
            ["time", "value", "value"],
        ),
        tmp_path / "q.parquet",
    )
    rejected(tmp_path / "q.parquet", "`value`: The column occurs twice")


def test_a_truncated_or_foreign_file(tmp_path):
    path = own(tmp_path)
    data = path.read_bytes()
    for content in (
        data[:-1],
        data[: len(data) // 2],
        data[:4],
        b"",
        b"PAR1",
        b"time,value\n1,2\n",
        b"PAR1" + b"\xff" * 100 + b"PAR1",
    ):
        path.write_bytes(content)
        rejected(path, "truncated, damaged or no Parquet", columns=None)
    rejected(tmp_path / "none.parquet", "no such file")


def test_the_description_must_be_there_and_fit(tmp_path):
    rejected(
        parquet(tmp_path / "p.parquet", time=STAMPS, value=[1.0, 2, 3]),
        "has no description of its columns",
        columns=None,
    )
    path = own(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["time", "voltage"]).replace_schema_metadata(table.schema.metadata), path)
    rejected(path, "does not fit the columns: value, voltage", columns=None)
    pq.write_table(table.select(["value", "time"]), path)
    rejected(path, "does not fit the columns: their order", columns=None)
    key = next(iter(table.schema.metadata))
    for broken in (b"", b"{", b"[]", b'{"columns": 3}', b'{"dataset": "x"}', b"\xff", b"null"):
        pq.write_table(table.replace_schema_metadata({key: broken}), path)
        rejected(path, "description inside is damaged", columns=None)
