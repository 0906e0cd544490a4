"""Pickles: real tables come through unchanged, hostile ones are refused, and nothing of them runs."""

import builtins
import codecs
import copyreg
import importlib
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esa_notebooks.data import inert
from esa_notebooks.data.inert import ALLOWED
from esa_notebooks.data.unpickle import UnpickleError, read_frame

STAMPS = pd.date_range("2000-01-01", periods=3, freq="90s", name="datetime")
INDEXES = {
    "ns": STAMPS.as_unit("ns"),
    "us": STAMPS.as_unit("us"),
    "ms": STAMPS.as_unit("ms"),
    "s": STAMPS.as_unit("s"),
    "UTC": STAMPS.tz_localize("UTC"),
    "irregular": STAMPS[[0, 2, 1]],
    "range": pd.RangeIndex(5, 11, 2, name="n"),
    "integers": pd.Index([3, 1, 2], dtype="int32"),
    "numbers": pd.Index([0.5, np.nan, 2]),
    "text": pd.Index(list("abc")),
    "objects": pd.Index(["a", None, "c"], dtype=object),
    "durations": pd.to_timedelta([1, 2, 3], unit="s"),
    "named by a number": pd.Index([1, 2, 3], name=7),
    "named by a time": pd.Index([1, 2, 3], name=pd.Timestamp("2020", tz="UTC")),
}
COLUMNS = {
    "float32": np.float32([1, 2.5, np.nan]),
    "float64": np.array([1, -np.inf, np.nan]),
    "float16": np.float16([1, 2, 3]),
    "complex": np.array([1j, 2, 3]),
    "big-endian": np.array([1, 2, 3], ">f4"),
    "int64": np.array([1, 2, 2**62]),
    "uint8": np.uint8([0, 1, 255]),
    "bool": np.array([True, False, True]),
    "text": ["a", None, "ä"],
    "objects": pd.Series(["a", None, "c"], dtype=object),
    "mixed": pd.Series([1, "b", 2.5], dtype=object),
    "dates": STAMPS,
    "seconds": STAMPS.as_unit("s"),
    "dates with NaT": pd.DatetimeIndex(["2000-01-01", None, "2001-02-03"]),
    "UTC": STAMPS.tz_localize("UTC"),
    "durations": pd.to_timedelta([1, None, 3], unit="s"),
    "times as objects": pd.Series([pd.Timestamp("2020", tz="UTC"), pd.Timestamp("2021"), pd.NaT], dtype=object),
    "scalars as objects": pd.Series([np.float32(1.5), np.int8(3), True], dtype=object),
    "categories": pd.Categorical(["x", None, "x"]),
    "ordered": pd.Categorical([3, 1, 3], ordered=True),
    "Int64": pd.array([1, None, 3], dtype="Int64"),
    "UInt8": pd.array([1, None, 3], dtype="UInt8"),
    "Float32": pd.array([1, None, 3], dtype="Float32"),
    "boolean": pd.array([True, None, False], dtype="boolean"),
    "string, python": pd.array(["a", None, "c"], dtype=pd.StringDtype("python")),
    "string, python, nan": pd.array(["a", None, "c"], dtype=pd.StringDtype("python", na_value=np.nan)),
    "string, arrow": pd.array(["a", None, "c"], dtype=pd.StringDtype("pyarrow")),
}
PROTOCOLS = (2, 3, 4, 5)


def same(table: pd.DataFrame, protocol: int) -> None:
    pd.testing.assert_frame_equal(read_frame(pickle.dumps(table, protocol)), table, check_freq=False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", INDEXES)
def test_every_index_comes_through(name, protocol):
    same(pd.DataFrame({"channel_1": np.float32([1, 2, 3])}, index=INDEXES[name]), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_comes_through(name, protocol):
    same(pd.DataFrame({"c": COLUMNS[name]}), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_columns_together_in_any_order_and_without_rows_or_columns(protocol):
    wide = pd.DataFrame({name: pd.Series(values).reset_index(drop=True) for name, values in COLUMNS.items()})
    same(wide, protocol)
    same(wide[sorted(wide.columns, key=lambda n: n[::-1])], protocol)
    same(wide.iloc[:0], protocol)
    same(pd.DataFrame(index=STAMPS), protocol)
    same(pd.DataFrame({i: np.arange(4.0) for i in range(300)}), protocol)
    same(pd.DataFrame(np.asfortranarray(np.arange(12.0).reshape(3, 4))), protocol)
    same(pd.DataFrame(np.arange(12.0).reshape(3, 4))[[3, 1]], protocol)


def test_a_series_becomes_a_column_and_the_result_can_be_changed():
    series = pd.Series(np.float32([1, 2, 3]), STAMPS, name="channel_7")
    pd.testing.assert_frame_equal(read_frame(pickle.dumps(series)), series.to_frame(), check_freq=False)
    table = read_frame(pickle.dumps(pd.DataFrame({"a": [1.0, 2.0]})))
    table.iloc[0, 0] = 5
    assert table.a.tolist() == [5, 2]


def test_a_path_and_an_open_file_are_read(tmp_path):
    table = pd.DataFrame({"a": [1.0]})
    table.to_pickle(tmp_path / "a.pkl")
    for file in (tmp_path / "a.pkl", str(tmp_path / "a.pkl"), open(tmp_path / "a.pkl", "rb")):
        pd.testing.assert_frame_equal(read_frame(file), table)
    (tmp_path / "bad.pkl").write_bytes(b"no pickle")
    with pytest.raises(UnpickleError, match=r"bad\.pkl is not read"):
        read_frame(tmp_path / "bad.pkl")


# -- pickles as older pandas wrote them, by hand ---------------------------------------------------------------------


class Named:
    """Pickles as the name `module.name`, whether or not it exists on this machine."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Made:
    """Pickles as a call of a name, with a state."""

    def __init__(self, func, args, state=None, new=False):
        self.func, self.args, self.state, self.new = func, args, state, new


class Writer(pickle._Pickler):
    def save(self, x, save_persistent_id=True):
        if type(x) is Named:
            if self.proto >= 4:
                self.save(x.module), self.save(x.name)
                return self.write(pickle.STACK_GLOBAL)
            return self.write(b"c" + f"{x.module}\n{x.name}\n".encode())
        if type(x) is Made:
            self.save(x.func), self.save(x.args)
            self.write(pickle.NEWOBJ if x.new else pickle.REDUCE)
            if x.state is not None:
                self.save(x.state)
                self.write(pickle.BUILD)
            return None
        return super().save(x, save_persistent_id)


def write(x, protocol=4) -> bytes:
    out = io.BytesIO()
    Writer(out, protocol).dump(x)
    return out.getvalue()


CORE = "numpy.core.multiarray"


def dtype(code, state=None):
    return Made(Named("numpy", "dtype"), (code, 0, 1), state or (3, "<", None, None, None, -1, -1, 0))


M8 = dtype("M8", (4, "<", None, None, None, -1, -1, 0, ({}, (b"ns", 1, 1, 1))))
OBJECT = dtype("O8", (3, "|", None, None, None, -1, -1, 63))


def array(data, code, shape):
    return Made(Named(CORE, "_reconstruct"), (Named("numpy", "ndarray"), (0,), b"b"), (1, shape, code, False, data))


def old_frame(style: str):
    """A table of two columns as pandas 1.2 ("1.2": states of four parts) or 1.5 ("1.5") wrote it."""
    values = array(np.float32([1, 2, 3, 4]).tobytes(), dtype("f4"), (2, 2))
    where = array(np.int64([0, 1]).tobytes(), dtype("i8"), (2,))
    stamps = np.array(["2000-01-01", "2000-01-02"], "M8[ns]")
    days = array(stamps.tobytes(), M8, (2,))
    dates = Named("pandas.core.arrays.datetimes", "DatetimeArray")
    if style == "1.2":
        days = Made(dates, (), {"_data": days, "_dtype": M8, "_freq": None}, new=True)
    else:
        days = Made(
            Named("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"), (dates, 75169436, None), (M8, days, {})
        )
    names = Made(
        Named("pandas.core.indexes.base", "_new_Index"),
        (
            Named("pandas.core.indexes.base", "Index"),
            {"data": array(["channel_1", "channel_2"], OBJECT, (2,)), "name": None},
        ),
    )
    index = Made(
        Named("pandas.core.indexes.datetimes", "_new_DatetimeIndex"),
        (Named("pandas.core.indexes.datetimes", "DatetimeIndex"), {"data": days, "name": "datetime", "freq": None}),
    )
    manager = Named("pandas.core.internals.managers", "BlockManager")
    if style == "1.2":
        state = (
            [names, index],
            [values],
            [names],
            {"0.14.1": {"axes": [names, index], "blocks": [{"values": values, "mgr_locs": where}]}},
        )
        manager = Made(manager, (), state, new=True)
    else:
        block = Made(
            Named("pandas._libs.internals", "_unpickle_block"), (values, Made(Named("builtins", "slice"), (0, 2, 1)), 2)
        )
        manager = Made(manager, ((block,), [names, index]))
    frame = {
        "_mgr": manager,
        "_typ": "dataframe",
        "_metadata": [],
        "attrs": {},
        "_flags": {"allows_duplicate_labels": True},
    }
    return Made(Named("pandas.core.frame", "DataFrame"), (), frame, new=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("style", ["1.2", "1.5"])
def test_tables_of_older_pandas_come_through(style, protocol):
    expected = pd.DataFrame(
        {"channel_1": np.float32([1, 2]), "channel_2": np.float32([3, 4])},
        index=pd.DatetimeIndex(np.array(["2000-01-01", "2000-01-02"], "M8[ns]"), name="datetime"),
    )
    expected.columns = expected.columns.astype(object)
    pd.testing.assert_frame_equal(read_frame(write(old_frame(style), protocol)), expected)


# -- hostile pickles -------------------------------------------------------------------------------------------------

GADGETS = {
    "os.system": ("os", "system"),
    "posix.system": ("posix", "system"),
    "nt.system": ("nt", "system"),
    "subprocess.Popen": ("subprocess", "Popen"),
    "subprocess.check_output": ("subprocess", "check_output"),
    "eval": ("builtins", "eval"),
    "exec": ("builtins", "exec"),
    "getattr": ("builtins", "getattr"),
    "open": ("builtins", "open"),
    "import": ("builtins", "__import__"),
    "compile": ("builtins", "compile"),
    "py2 eval": ("__builtin__", "eval"),
    "breakpoint": ("builtins", "breakpoint"),
    "apply": ("operator", "methodcaller"),
    "attrgetter": ("operator", "attrgetter"),
    "partial": ("functools", "partial"),
    "runpy": ("runpy", "run_path"),
    "pty": ("pty", "spawn"),
    "socket": ("socket", "socket"),
    "import_module": ("importlib", "import_module"),
    "pickle.loads": ("pickle", "loads"),
    "marshal": ("marshal", "loads"),
    "webbrowser": ("webbrowser", "open"),
    "shutil": ("shutil", "rmtree"),
    "code": ("code", "interact"),
    "pdb": ("pdb", "run"),
    "ctypes": ("ctypes", "CDLL"),
    "reconstructor": ("copyreg", "_reconstructor"),
    "newobj": ("copyreg", "__newobj__"),
    "numpy fromfile": ("numpy", "fromfile"),
    "numpy memmap": ("numpy", "memmap"),
    "numpy load": ("numpy", "load"),
    "numpy runstring": ("numpy.testing._private.utils", "runstring"),
    "numpy run_module_suite": ("numpy.testing", "run_module_suite"),
    "numpy load_library": ("numpy.ctypeslib", "load_library"),
    "f2py": ("numpy.f2py", "compile"),
    "f2py crackfortran": ("numpy.f2py.crackfortran", "myeval"),
    "distutils": ("numpy.distutils.exec_command", "exec_command"),
    "pandas read_pickle": ("pandas", "read_pickle"),
    "pandas io": ("pandas.io.pickle", "read_pickle"),
    "pandas eval": ("pandas", "eval"),
    "pandas get_handle": ("pandas.io.common", "get_handle"),
    "pandas query": ("pandas.core.computation.eval", "eval"),
    "pandas HDF": ("pandas.io.pytables", "HDFStore"),
    "an ordinary class": ("decimal", "Decimal"),
    "a subclass": ("collections", "OrderedDict"),
    "pyarrow memory_map": ("pyarrow.lib", "memory_map"),
    "pyarrow extension": ("pyarrow.lib", "PyExtensionType"),
    "dotted": ("pandas.io.common", "os.system"),
    "dotted through a permitted class": ("pandas", "DataFrame.eval"),
    "dotted through numpy": ("numpy", "dtype.__class__"),
    "dunder": ("pandas", "__builtins__"),
    "io": ("pandas", "io.common.os.system"),
    "empty name": ("numpy", ""),
    "empty module": ("", "system"),
    "the project's own": ("esa_notebooks.data.unpickle", "read_frame"),
}


@pytest.fixture
def trap(monkeypatch):
    """Fails the test when anything is imported, run, opened for writing or evaluated while a pickle is read."""
    sprung = []
    for module, name in ((os, "system"), (subprocess, "Popen"), (importlib, "import_module"), (os, "mkdir")):
        monkeypatch.setattr(module, name, lambda *a, n=name, **k: sprung.append(n))
    return sprung


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", GADGETS)
def test_gadgets_are_refused_by_name_and_nothing_runs(name, protocol, trap):
    module, function = GADGETS[name]
    before = set(sys.modules)
    with pytest.raises(UnpickleError) as e:
        read_frame(write(Made(Named(module, function), ("echo broken",)), protocol))
    assert f"`{module}.{function}`" in str(e.value) and "not called" in str(e.value)
    assert trap == [] and set(sys.modules) == before


def test_nothing_that_the_list_names_is_dangerous_by_its_module():
    assert not [
        m
        for m, _ in ALLOWED
        if m.split(".")[0]
        not in ("pandas", "numpy", "pyarrow", "_codecs", "builtins", "__builtin__", "datetime", "pytz")
    ]
    assert {n for m, n in ALLOWED if m in ("builtins", "__builtin__")} == {"slice", "bytes", "bytearray"}
    assert not [n for _, n in ALLOWED if "." in n]


def hidden(x) -> Made:
    """A table whose only cell is `x`."""
    frame = old_frame("1.5")
    frame.state["_mgr"].args[0][0].args = (
        array([x, 1, 2, 3], OBJECT, (2, 2)),
        *frame.state["_mgr"].args[0][0].args[1:],
    )
    return frame


def changed(part: str, x) -> Made:
    """A table of which one part is `x`."""
    frame = old_frame("1.5")
    block, index = frame.state["_mgr"].args[0][0], frame.state["_mgr"].args[1][1]
    if part == "values":
        block.args = (x, *block.args[1:])
    elif part == "positions":
        block.args = (block.args[0], x, 2)
    elif part == "index":
        frame.state["_mgr"].args[1][1] = x
    elif part == "name":
        index.args[1]["name"] = x
    return frame


def nested(levels: int) -> tuple:
    x = ()
    for _ in range(levels):
        x = (x, x)
    return x


LIED = dtype("O8", (3, "|", None, None, None, -1, -1, 0))  # an object dtype that says it holds none
FORGED = {
    "foreign object in a cell": (hidden(Made(Named("os", "system"), ("x",))), "os.system"),
    "list in a cell": (hidden([1]), "needed"),
    "tuple in a cell": (hidden((1,)), "needed"),
    "bytes in a cell": (hidden(b"x"), "needed"),
    "table in a cell": (hidden(old_frame("1.5")), "needed"),
    "addresses as objects": (changed("values", array(struct.pack("<4Q", *range(4)), LIED, (2, 2))), "objects"),
    "fields": (
        changed("values", array(b"x" * 16, dtype("V4", (3, "|", None, ("a",), {"a": 1}, 4, 1, 16)), (2, 2))),
        "fields",
    ),
    "void": (changed("values", array(b"x" * 16, dtype("V4"), (2, 2))), "V4"),
    "few bytes": (changed("values", array(b"abc", dtype("f4"), (2, 2))), "3 bytes"),
    "huge shape": (changed("values", array(b"abc", dtype("f8"), (2, 1 << 50))), "unpacks to more"),
    "negative shape": (changed("values", array(b"", dtype("f8"), (-2, 2))), "negative"),
    "three dimensions": (changed("values", array(b"x" * 64, dtype("f8"), (2, 2, 2))), "dimensions"),
    "shape of text": (changed("values", array(b"x" * 64, dtype("f8"), ("2", 2))), "length"),
    "other length": (changed("values", array(b"x" * 24, dtype("f4"), (2, 3))), "fit together"),
    "truth of two": (changed("values", array(b"\x02" * 4, dtype("b1"), (2, 2))), "truth"),
    "column twice": (changed("positions", array(np.int64([0, 0]).tobytes(), dtype("i8"), (2,))), "every column once"),
    "column far away": (changed("positions", Made(Named("builtins", "slice"), (0, 1 << 40, 1))), "unpacks to more"),
    "endless range": (
        changed(
            "index",
            Made(
                Named("pandas.core.indexes.base", "_new_Index"),
                (
                    Named("pandas.core.indexes.range", "RangeIndex"),
                    {"start": 0, "stop": 1 << 45, "step": 1, "name": None},
                ),
            ),
        ),
        "unpacks to more",
    ),
    "name that takes for ever to hash": (changed("name", nested(200)), "needed"),
    "shape that takes for ever to print": (changed("values", array(b"", dtype("f8"), nested(200))), "length"),
    "no table": ({"a": 1}, "DataFrame or Series"),
    "text": ("abc", "DataFrame or Series"),
    "none": (None, "DataFrame or Series"),
    "a dtype alone": (dtype("f8"), "it has dtype"),
    "a name alone": (Named("pandas", "DataFrame"), "it has DataFrame"),
    "key that is no text": ({(1, 2): 3}, "key"),
    "call of a record": (Made(dtype("f8"), ()), "called"),
    "call of text": (Made("f", ()), "called"),
    "arguments as list": (Made(Named("numpy", "dtype"), ["f8"]), "arguments"),
    "an empty dtype": (changed("values", array(b"", Made(Named("numpy", "dtype"), ()), (2, 0))), "fit"),
    "table without state": (Made(Named("pandas", "DataFrame"), (), new=True), "state"),
    "zone": (changed("index", pd.date_range("2000", periods=2, tz="Europe/Paris")), "getattr"),
    "offset": (changed("index", STAMPS[:2].tz_localize("+02:00")), "zone other than UTC"),
    "several levels": (changed("index", pd.MultiIndex.from_tuples([(1, 2), (3, 4)])), "MultiIndex"),
    "period": (changed("index", pd.period_range("2000", periods=2)), "Period"),
    "sparse": (changed("values", pd.arrays.SparseArray([0, 1])), "[Ss]parse"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_tables_are_refused(name, trap):
    forged, words = FORGED[name]
    started = time.process_time()
    with pytest.raises(UnpickleError, match=words):
        read_frame(write(forged))
    assert trap == [] and time.process_time() - started < 5


def arrow(offsets: bytes, text: bytes, length: int, kind="large_string") -> Made:
    lib = "pyarrow.lib"
    buffers = [None, Made(Named(lib, "py_buffer"), (offsets,)), Made(Named(lib, "py_buffer"), (text,))]
    parts = (Made(Named(lib, "type_for_alias"), (kind,)), length, 0, 0, buffers, [], None)
    state = {
        "_pa_array": Made(Named(lib, "_restore_array"), (parts,)),
        "_cache": {},
        "_dtype": Made(Named("pandas", "StringDtype"), ("pyarrow", float("nan"))),
    }
    return Made(
        Named("pandas.core.indexes.base", "_new_Index"),
        (
            Named("pandas", "Index"),
            {"data": Made(Named("pandas.arrays", "ArrowStringArray"), (), state, new=True), "name": None},
        ),
    )


def test_text_of_arrow_may_not_point_outside_its_memory():
    assert list(read_frame(write(changed("index", arrow(struct.pack("<3q", 0, 1, 3), b"abc", 2)))).index) == ["a", "bc"]
    for offsets, length, kind in (
        (struct.pack("<3q", 0, 1, 1 << 40), 2, "large_string"),
        (struct.pack("<3q", 0, 5, 3), 2, "large_string"),
        (struct.pack("<3q", -9, 1, 3), 2, "large_string"),
        (struct.pack("<2q", 0, 1), 1 << 40, "large_string"),
        (struct.pack("<3q", 0, 1, 3), 2, "int64"),
        (struct.pack("<3q", 0, 1, 3), -2, "large_string"),
    ):
        with pytest.raises(UnpickleError):
            read_frame(write(changed("index", arrow(offsets, b"abc", length, kind))))
    with pytest.raises(UnpickleError, match="fit together"):  # no valid UTF-8
        read_frame(write(changed("index", arrow(struct.pack("<3q", 0, 1, 3), b"\xff\xfe\xfd", 2))))


def test_small_files_do_not_become_large_tables():
    values = array(np.zeros((1, 200_000)).tobytes(), dtype("f8"), (1, 200_000))
    block = [
        Made(
            Named("pandas._libs.internals", "_unpickle_block"),
            (values, Made(Named("builtins", "slice"), (i, i + 1, 1)), 2),
        )
        for i in range(3)
    ]
    frame = old_frame("1.5")
    frame.state["_mgr"].args = (tuple(block * 2000), frame.state["_mgr"].args[1])
    data = write(frame)
    assert len(data) < 12_000_000
    with pytest.raises(UnpickleError, match="unpacks to more than 20,000,000 bytes"):
        read_frame(data, max_bytes=20_000_000)
    with pytest.raises(UnpickleError, match="larger than 1,000 bytes"):
        read_frame(data, max_bytes=1000)


def test_categories_of_categories_end(monkeypatch):
    """Empty arrays cost nothing; nested in both rows of a block they would be built 2^25 times."""
    index = Made(
        Named("pandas.core.indexes.base", "_new_Index"),
        (Named("pandas", "Index"), {"data": array([], OBJECT, (0,)), "name": None}),
    )
    for _ in range(25):
        kind = Made(Named("pandas", "CategoricalDtype"), (), {"categories": index, "ordered": False}, new=True)
        data = Made(
            Named("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
            (Named("pandas", "Categorical"), 1, None),
            (kind, array(b"", dtype("i1"), (2, 0))),
        )
        index = Made(
            Named("pandas.core.indexes.base", "_new_Index"), (Named("pandas", "Index"), {"data": data, "name": None})
        )
    started = time.process_time()
    with pytest.raises(UnpickleError):
        read_frame(write(changed("index", index)))
    assert time.process_time() - started < 10


RAW = {
    "persistent id, text": b"Pos.system\n.",
    "persistent id": b"\x80\x02U\x01aQ.",
    "extension 1": b"\x80\x02\x82\x01)R.",
    "extension 2": b"\x80\x02\x83\x01\x00)R.",
    "extension 4": b"\x80\x02\x84\x01\x00\x00\x00)R.",
    "protocol 0": b"cos\nsystem\n(S'echo'\ntR.",
    "INST": b"(S'echo'\nios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00ao.",
    "NEWOBJ_EX": b"\x80\x04cpandas\nDataFrame\n)}\x92.",
    "DUP": b"\x80\x02N2.",
    "POP": b"\x80\x02NN0.",
    "sets": b"\x80\x04\x8f(K\x01\x90.",
    "frozen set": b"\x80\x04(K\x01\x91.",
    "buffer from outside": b"\x80\x05\x97.",
    "text dictionary": b"(d.",
    "text list": b"(l.",
    "string of Python 2": b"\x80\x02U\x01a.",
    "long as text": b"L99L\n.",
    "unknown instruction": b"\x80\x02\xff.",
    "protocol 9": b"\x80\x09N.",
    "empty": b"",
    "only a header": b"\x80\x04",
    "nothing on the stack": b"\x80\x02.",
    "no mark": b"\x80\x02t.",
    "unknown memory": b"\x80\x02h\x05.",
    "bytes after the end": b"\x80\x02N.cos\nsystem\n",
    "long of negative size": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "bytes that are not there": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f" + b".",
    "array that is not there": b"\x80\x05\x96" + b"\xff" * 6 + b"\x00\x00.",
    "frame that is not there": b"\x80\x04\x95" + b"\xff" * 7 + b"\x00N.",
    "far memory": b"\x80\x02Nr\xff\xff\xff\x7f0.",
    "not text": b"\x80\x04\x8c\x02\xff\xfe.",
    "name from numbers": b"\x80\x04K\x01K\x02\x93.",
    "zip": b"PK\x03\x04",
    "parquet": b"PAR1",
    "state for a name": b"\x80\x02cpandas\nDataFrame\n}b.",
    "state for a list": b"\x80\x02]}b.",
    "items for a list": b"\x80\x02]X\x01\x00\x00\x00aNs.",
    "append to a dictionary": b"\x80\x02}Na.",
    "state twice": b"\x80\x02cpandas\nDataFrame\n)\x81}b}b.",
}


@pytest.mark.parametrize("name", RAW)
def test_raw_instructions_are_refused(name, trap):
    tracemalloc.start()
    with pytest.raises(UnpickleError):
        read_frame(RAW[name])
    assert tracemalloc.get_traced_memory()[1] < 10_000_000 and trap == []
    tracemalloc.stop()


def test_the_extension_registry_is_not_asked(monkeypatch):
    """Python's unpickler takes a registered extension from its cache without asking `find_class`."""
    called = []
    monkeypatch.setitem(copyreg._inverted_registry, 7, ("os", "system"))
    monkeypatch.setitem(copyreg._extension_cache, 7, called.append)
    with pytest.raises(UnpickleError, match="EXT1"):
        read_frame(b"\x80\x02\x82\x07U\x01aR.")
    assert called == []


@pytest.mark.parametrize("bomb", [b"(", b"]", b")", b"}", b"N\x94", b"]\x94"])
def test_one_byte_instructions_do_not_fill_the_memory(bomb, monkeypatch):
    monkeypatch.setattr(inert, "_FEW", 1000)
    with pytest.raises(UnpickleError, match="more objects than"):
        read_frame(b"\x80\x04" + bomb * 20_000 + b".")


def test_deep_nesting_neither_crashes_nor_hangs():
    assert os.system is not None
    for data in (
        b"\x80\x02)" + b"\x85" * 200_000 + b".",
        b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    ):
        with pytest.raises(UnpickleError):
            read_frame(data)
    ring = []
    ring.append(ring)
    with pytest.raises(UnpickleError):
        read_frame(pickle.dumps(ring))


def test_a_pickle_cut_anywhere_is_refused():
    data = pickle.dumps(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}, index=STAMPS[:2]))
    for cut in range(0, len(data), 7):
        with pytest.raises(UnpickleError):
            read_frame(data[:cut])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_yields_a_table_or_a_refusal(data):
    good = pickle.dumps(
        pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}, index=STAMPS[:2]), data.draw(st.sampled_from(PROTOCOLS))
    )
    at, byte = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    try:
        assert isinstance(read_frame(good[:at] + bytes([byte]) + good[at + 1 :]), pd.DataFrame)
    except UnpickleError:
        pass


def test_the_module_itself_never_unpickles_in_the_ordinary_way(monkeypatch):
    data = pickle.dumps(pd.DataFrame({"a": [1.0]}, index=STAMPS[:1]))
    for module, name in (
        (pickle, "loads"),
        (pickle, "load"),
        (pd, "read_pickle"),
        (builtins, "eval"),
        (codecs, "encode"),
    ):
        monkeypatch.setattr(module, name, None)
    assert read_frame(data).a.tolist() == [1.0]


def test_names_are_the_ones_pandas_writes_today():
    """The list is exact, so that a new pandas which moves a class is noticed here."""
    used = set()
    for protocol in PROTOCOLS:
        for values in COLUMNS.values():
            text = []
            for op, arg, _ in pickletools.genops(pickle.dumps(pd.DataFrame({"c": values}), protocol)):
                if op.name == "GLOBAL":
                    used.add(tuple(arg.split(" ")))
                text.append(arg)
    assert used <= ALLOWED and ("pandas", "DataFrame") in used
