"""Parameters: what is refused before a kernel starts, and what survives the way into the kernel exactly."""
import datetime as dt
import json
import os
import re
import string
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esa_notebooks.runs.code import NotebookError
from esa_notebooks.runs.parameters import (
    Parameter,
    ParameterError,
    as_code,
    as_json,
    as_text,
    bind,
    from_text,
    read_schema,
)
from esa_notebooks.runs.record import command_of
from tests.runs.conftest import code, prose, text_of

ROOT = Path(__file__).resolve().parents[2]
CELL = '''dataset: str = "shuttle"  # which data
rows: int = 10
share: float = 0.5
strict: bool = False
day: date = date(2024, 1, 1)
moment: datetime = datetime(2024, 1, 1, 12)
place: Path = Path("data/x")
mode: Literal["fast", "exact"] = "fast"  # how
numbers: list[int] = [1]
table: dict[str, float] = {}
maybe: int | None = None
'''

# The cell fine, the value not: name → (given, as text?, pattern in the message)
VALUES = {
    "unknown-name-near-miss": ({"datasett": "x"}, False, r"no parameter `datasett`\. Did you mean `dataset`\?"),
    "unknown-name": ({"zzz": "x"}, True, r"no parameter `zzz`\. This notebook has: dataset, rows"),
    "name-with-dash": ({"a-b": 1}, False, "'a-b' is not a name"),
    "name-with-digit": ({"1a": 1}, False, "'1a' is not a name"),
    "name-keyword": ({"import": 1}, False, "'import' is not a name"),
    "name-empty": ({"": 1}, False, "'' is not a name"),
    "name-with-equals": ({"rows=1": 1}, False, "'rows=1' is not a name"),
    "name-with-code": ({"x; import os": 1}, False, "'x; import os' is not a name"),
    "name-with-newline": ({"rows\nimport os": 1}, False, "is not a name"),
    "name-with-dot": ({"os.path": 1}, False, "is not a name"),
    "str-int": ({"dataset": 3}, False, r"`dataset` is 3 \(int\); its type is str \(which data\)"),
    "int-text": ({"rows": "ten"}, True, r"`rows` is 'ten' \(str\); its type is int"),
    "int-bool": ({"rows": True}, False, r"`rows` is True \(bool\); its type is int"),
    "int-float": ({"rows": 1.0}, False, r"`rows` is 1\.0 \(float\)"),
    "int-float-text": ({"rows": "1.5"}, True, "`rows` is '1.5'"),
    "int-empty-text": ({"rows": ""}, True, "`rows` is ''"),
    "int-none": ({"rows": None}, False, r"`rows` is None"),
    "bool-int": ({"strict": 1}, False, r"`strict` is 1 \(int\); its type is bool"),
    "bool-text": ({"strict": "maybe"}, True, "`strict` is 'maybe'"),
    "bool-1": ({"strict": "1"}, True, "`strict` is '1'"),
    "float-text": ({"share": "half"}, True, "`share` is 'half'"),
    "float-nan": ({"share": float("nan")}, False, r"`share` is nan"),
    "float-nan-text": ({"share": "nan"}, True, r"`share` is nan"),
    "float-inf": ({"share": float("inf")}, False, r"`share` is inf"),
    "float-inf-text": ({"share": "1e999"}, True, r"`share` is inf"),
    "float-huge": ({"share": 10**400}, False, r"`share` is 1000"),
    "float-str": ({"share": "0.5"}, False, r"`share` is '0.5' \(str\)"),
    "float-bool": ({"share": True}, False, r"`share` is True"),
    "date-bad": ({"day": "2024-02-30"}, True, r"`day` is '2024-02-30'"),
    "date-words": ({"day": "yesterday"}, True, "`day` is 'yesterday'"),
    "date-datetime": ({"day": dt.datetime(2024, 1, 1)}, False, r"\(datetime\); its type is date"),
    "datetime-bad": ({"moment": "2024-01-01T25:00"}, True, "`moment` is"),
    "path-empty": ({"place": ""}, False, "`place` is ''"),
    "path-int": ({"place": 3}, False, "`place` is 3"),
    "path-nul": ({"place": "a\0b"}, True, "NUL"),
    "str-nul": ({"dataset": "a\0b"}, False, "NUL"),
    "dict-nul": ({"table": {"a\0": 1}}, False, "NUL"),
    "str-not-utf8": ({"dataset": os.fsdecode(b"\xff")}, True, "no text in UTF-8"),
    "literal-near-miss": ({"mode": "exct"}, True, r"`mode` is 'exct'.*Did you mean `exact`\?"),
    "literal-type": ({"mode": 1}, False, "`mode` is 1"),
    "list-element": ({"numbers": [1, "2"]}, False, r"`numbers` is \[1, '2'\]"),
    "list-element-bool": ({"numbers": [True]}, False, "`numbers` is"),
    "list-element-text": ({"numbers": "1,x"}, True, "`numbers` is '1,x'"),
    "list-json-broken": ({"numbers": "[1,"}, True, "`numbers` is"),
    "list-scalar": ({"numbers": 1}, False, "`numbers` is 1"),
    "list-as-dict": ({"numbers": '{"a": 1}'}, True, "`numbers` is"),
    "dict-key": ({"table": {1: 2.0}}, False, "`table` is"),
    "dict-value": ({"table": {"a": "x"}}, False, "`table` is"),
    "dict-text": ({"table": "a=1"}, True, "`table` is 'a=1'"),
    "union-neither": ({"maybe": "x"}, True, r"`maybe` is 'x' \(str\); its type is int \| None"),
    "set": ({"numbers": {1}}, False, "`numbers` is {1}"),
    "object": ({"dataset": object()}, False, r"\(object\)"),
}

# The cell itself wrong: name → (cell source, pattern)
CELLS = {
    "required-missing": ("rows: int  # how many", r"`rows` \(int, how many\) has no default and was not given\. Add -p rows="),
    "derived-name": ("a: int = 1\nb: int = a", "`b` has a derived default, `a`"),
    "derived-call": ("a: str = open('x').read()", "`a` has a derived default"),
    "derived-f-string": ("a: str = f'{1}'", "`a` has a derived default"),
    "derived-comprehension": ("a: list[int] = [n for n in range(3)]", "`a` has a derived default"),
    "derived-sum": ("a: int = 1 + 2", "`a` has a derived default"),
    "derived-path": ("a: Path = Path('x') / 'y'", "`a` has a derived default"),
    "derived-environment": ("import os\na: str = os.environ['HOME']", "`import os` is not a parameter"),
    "derived-unpacking": ("a: dict[str, int] = {**{}}", "derived default"),
    "statement-import": ("import os", "`import os` is not a parameter"),
    "statement-call": ("print('hello')", r"`print\('hello'\)` is not a parameter"),
    "statement-if": ("if True:\n    a = 1", "`if True:` is not a parameter"),
    "statement-two-targets": ("a = b = 1", "`a = b = 1` is not a parameter"),
    "statement-tuple": ("a, b = 1, 2", "is not a parameter"),
    "statement-attribute": ("a.b: int = 1", "is not a parameter"),
    "declared-twice": ("a: int = 1\na: int = 2", "`a` is declared twice"),
    "none-unannotated": ("a = None", "its type cannot be told from the default None"),
    "list-unannotated": ("a = []", "its type cannot be told"),
    "type-unknown": ("a: integer = 1", "the type `integer` is not one a parameter can have"),
    "type-near-miss": ("a: flot = 1.0", "Did you mean `float`?"),
    "type-tuple": ("a: tuple[int, int] = (1, 2)", "the type `tuple"),
    "type-dict-int": ("a: dict[int, int] = {}", r"dict\[int, int\]"),
    "type-quoted-broken": ("a: 'int |' = 1", "is not valid Python"),
    "type-literal-computed": ("a: Literal[MODES] = 'x'", r"Literal\[MODES\]"),
    "type-call": ("a: int() = 1", "is not one a parameter can have"),
    "default-wrong": ("a: int = 'x'", r"`a` is 'x' \(str\); its type is int"),
    "default-bool": ("a: int = True", r"`a` is True \(bool\)"),
    "default-not-in-literal": ("a: Literal['fast', 'exact'] = 'fastt'", "Did you mean `fast`?"),
    "default-nan": ("a: float = 1e999", "`a` is inf"),
    "default-no-such-day": ("a: date = date(2024, 2, 30)", r"`date\(2024, 2, 30\)` is no day that exists"),
    "default-bytes": ("a = b'x'", "not one a parameter can have"),
    "syntax": ("a: int = ", "not valid Python"),
    "nul-in-the-cell": ("a: str = '\0'", "not valid Python"),
    "open-bracket": ("a: list[int] = [1,", "not valid Python"),
    "secret-by-value": ("key: Secret = 'hunter2-hunter2'", "give its name, as secret://NAME, never its value"),
    "secret-missing": ("key: Secret = 'secret://NOT_THERE'", "The secret NOT_THERE is not set"),
    "secret-bad-name": ("key: Secret = 'secret://../x'", "names no secret"),
    "secret-list": ("keys: list[Secret] = []", "would hide a file, source, secret or module"),
    "output-list": ("outs: list[OutputFile] = []", "would hide a file, source, secret or module"),
    "input-in-a-dict": ("ins: dict[str, InputFile] = {}", "would hide a file, source, secret or module"),
    "input-or-text": ("a: InputFile | str = 'x'", "would hide a file, source, secret or module"),
    "source-unknown": ("data: DataSource = 'shutle'", "no data source 'shutle'"),
}

NOTEBOOKS = {
    "no-parameters-cell": ([], "exactly one code cell tagged `parameters`; this one has 0"),
    "two-parameters-cells": ([code("a = 1", "parameters"), code("b = 1", "parameters")], "this one has 2"),
    "tagged-markdown": ([prose("a = 1", "parameters")], "exactly one code cell tagged"),
}


@pytest.fixture
def no_kernel(monkeypatch):
    """Fails when a process is started; what is refused must be refused before."""
    def start(*args, **kwargs):
        raise AssertionError("a kernel was started")
    monkeypatch.setattr("esa_notebooks.runs.kernel.HonestClient.start", start)
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    yield
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def refused(study, path, given=None, *, error=ParameterError, **how):
    with pytest.raises(error) as e:
        study.run(path, given, **how)
    assert study.remains() == [] and not (study.root / "reports").exists(), "something was left behind"
    return str(e.value)


@pytest.mark.parametrize("case", list(VALUES))
def test_value_refused(study, no_kernel, case):
    values, text, pattern = VALUES[case]
    message = refused(study, study.write("n", parameters=CELL), values, text=text)
    assert re.search(pattern, message), message


@pytest.mark.parametrize("case", list(CELLS))
def test_cell_refused(study, no_kernel, case, monkeypatch):
    source, pattern = CELLS[case]
    message = refused(study, study.write("n", parameters=source))
    assert re.search(pattern, message), message
    assert "hunter2" not in message


@pytest.mark.parametrize("case", list(NOTEBOOKS))
def test_notebook_refused(study, no_kernel, case):
    cells, pattern = NOTEBOOKS[case]
    assert pattern in refused(study, study.write("n", *cells, parameters=None))


def test_at_least_thirty_bad_inputs():
    assert len(VALUES) + len(CELLS) + len(NOTEBOOKS) >= 30


def test_a_syntax_error_in_any_cell_is_found_before(study, no_kernel):
    message = refused(study, study.write("n", "def broken(:"), error=NotebookError)
    assert "cell 4 is not valid Python" in message


def test_a_computed_setting_is_refused(study, no_kernel):
    message = refused(study, study.write("n", "from esa_notebooks.settings import setting\nsetting('a' + 'b')"),
                      error=NotebookError)
    assert "computes the name of a setting" in message


# --- what must arrive exactly -----------------------------------------------------------------------------------------

NASTY = ["", "plain", "two words", "it's", 'say "hi"', "back\\slash", "{braces}", "{}", "{0} %s %d %%", "line\nbreak\r\ttab",
         "ünïcödé 漢字 🛰", "'''", '"""', "\\", "\\n", "$HOME `id` $(id) ; rm", "none", "true", "[1, 2]", "a=b", "# no comment",
         "\x1b[31m", "\u2028", "x" * 5000, "__import__('os')"]
GOOD = {
    "day: date": dt.date(2024, 2, 29),
    "moment: datetime": dt.datetime(2024, 2, 29, 23, 59, 59, 999999),
    "zoned: datetime": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "place: Path": Path("data/with {braces} and 'quotes'/ü.csv"),
    "ints: list[int]": [1, -2, 10**30],
    "texts: list[str]": NASTY,
    "days: list[date]": [dt.date(2024, 1, 1), dt.date(1, 1, 1)],
    "nested: list[list[float]]": [[1.0, 0.1], []],
    "table: dict[str, list[int]]": {"a {b} 'c' \"d\"\\": [1], "": []},
    "options: dict[str, int | str | None]": {"a": 1, "b": "x", "c": None},
    "anything: list": [1, "a", None, True, 2.5],
    "nothing: int | None": None,
    "something: Optional[int]": 7,
    "either: Union[int, str]": "seven",
    "choice: Literal['fast', 'exact']": "exact",
    "number: Literal[1, 2]": 2,
    "flag: Literal[True, None]": True,
    "quoted: 'list[int] | None'": [3],
    "tiny: float": 5e-324,
    "third: float": 1 / 3,
    "minus: float": -0.0,
    "whole: float": 3,
    "strict: bool": True,
    "day_or_moment: date | datetime": dt.datetime(2024, 1, 1),
}


def test_good_values_arrive_exactly(study):
    """One kernel for all of them: what it holds is what was given, by type and by repr."""
    cell = "\n".join(f"{declaration}  # help" for declaration in GOOD)
    cell += "\n" + "\n".join(f"text_{i}: str = ''" for i in range(len(NASTY)))
    values = {d.split(":")[0]: v for d, v in GOOD.items()} | {f"text_{i}": v for i, v in enumerate(NASTY)}
    path = study.write("n", "import json\nprint(json.dumps({n: repr(globals()[n]) for n in " + repr(list(values)) + "}))",
                       parameters=cell)
    run = study.run(path, values)
    assert run.record["status"] == "succeeded", run.record["reason"]
    arrived = json.loads(text_of(run))
    expected = {n: repr(float(v) if n == "whole" else v) for n, v in values.items()}
    assert arrived == expected
    assert all(p["origin"] == "given" for p in run.record["parameters"])


def schema_of(declarations: list[str]) -> dict[str, Parameter]:
    source = "\n".join(declarations)
    return read_schema({"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}]})


@pytest.mark.parametrize("declaration", list(GOOD))
def test_command_line_text_comes_back(declaration):
    (parameter,) = schema_of([declaration]).values()
    (value,) = (v.value for v in bind({parameter.name: parameter}, {parameter.name: GOOD[declaration]}).values())
    assert repr(from_text(parameter, as_text(value))) == repr(value)


@pytest.mark.parametrize("index", range(len(NASTY)))
def test_the_recorded_command_repeats_the_value(index):
    import shlex
    schema = schema_of(["a: str = 'default'"])
    bound = bind(schema, {"a": NASTY[index]})
    word = shlex.split(command_of("nbs/n.ipynb", bound))[-1]
    assert from_text(schema["a"], word.partition("=")[2]) == NASTY[index]


@pytest.mark.parametrize("text, value", [
    ("1,2,3", [1, 2, 3]), ("[1, 2]", [1, 2]), ("", []), (" 4 ", [4]), ("[]", []),
])
def test_lists_by_comma_and_as_json(text, value):
    assert from_text(schema_of(["a: list[int] = []"])["a"], text) == value


@pytest.mark.parametrize("type_, text, value", [
    ("bool", "TRUE", True), ("bool", "false", False), ("int | None", "none", None), ("int | None", "5", 5),
    ("date | None", "2024-01-01", dt.date(2024, 1, 1)), ("datetime", "2024-01-01", dt.datetime(2024, 1, 1)),
    ("float", "1e-3", 0.001), ("float", "2", 2.0), ("str", "5", "5"), ("int | str", "5", 5), ("int | str", "five", "five"),
    ("Literal['a', 1, None]", "none", None), ("Literal[True, False]", "false", False),
])
def test_text_is_read_by_type(type_, text, value):
    found = from_text(schema_of([f"a: {type_}"])["a"], text)
    assert found == value and type(found) is type(value)


def test_help_type_and_requirement_come_from_the_cell():
    schema = schema_of(["'''The parameters.'''", "rows: int  # how many rows", "name = 'x'  # a name, with a # in it",
                        "maybe: 'int | None' = None"])
    assert schema["rows"].required and schema["rows"].help == "how many rows" and schema["rows"].type == "int"
    assert schema["name"].type == "str" and schema["name"].help == "a name, with a # in it"
    assert not schema["maybe"].required


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
MOMENT = st.datetimes().map(lambda d: d.replace(fold=0))   # ISO 8601 knows no fold
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SCALAR = st.one_of(TEXT, st.integers(), NUMBER, st.booleans(), st.none(), st.dates(), MOMENT)
TREE = st.recursive(SCALAR, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
                    max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(TREE)
def test_as_code_evaluates_to_the_value(value):
    back = eval(as_code(value), {})   # noqa: S307
    assert back == value and repr(back) == repr(value)


@settings(max_examples=100, deadline=None)
@given(st.text(string.printable, min_size=1, max_size=30).filter(lambda t: "\0" not in t))
def test_as_code_of_a_path(text):
    assert eval(as_code(Path(text)), {}) == Path(text)   # noqa: S307


@pytest.mark.parametrize("type_, values", [
    ("str", TEXT), ("int", st.integers()), ("float", NUMBER), ("bool", st.booleans()), ("date", st.dates()),
    ("datetime", MOMENT), ("int | None", st.none() | st.integers()), ("list[str]", st.lists(TEXT)),
    ("list[float]", st.lists(NUMBER)), ("dict[str, int]", st.dictionaries(TEXT, st.integers())),
    ("list[list[int]]", st.lists(st.lists(st.integers()))), ("float | int", st.integers(-10**6, 10**6)),
])
def test_as_text_and_json_are_inverted(type_, values):
    (parameter,) = schema_of([f"a: {type_}"]).values()

    @settings(max_examples=60, deadline=None)
    @given(values)
    def turns(value):
        bound = bind({"a": parameter}, {"a": value})["a"].value
        assert repr(from_text(parameter, as_text(bound))) == repr(bound)
        assert repr(bind({"a": parameter}, {"a": as_json(bound)})["a"].value) == repr(bound)
        json.dumps(as_json(bound), allow_nan=False)
    turns()


# --- the project's own notebooks --------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", sorted((ROOT / "nbs" / "pipeline").glob("*.ipynb")), ids=lambda p: p.stem)
def test_pipeline_notebooks_have_a_readable_schema(path):
    notebook = json.loads(path.read_text())
    tagged = [i for i, c in enumerate(notebook["cells"]) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1 and tagged[0] < 5
    schema = read_schema(notebook)
    assert schema and all(p.help for p in schema.values())
