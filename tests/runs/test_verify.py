"""Keys, records and verify: what may change a result changes the key, and what was changed is named."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest

from esa_notebooks.files import sha256
from esa_notebooks.runs.again import rerun, rerun_all
from esa_notebooks.runs.declare import DeclarationError, result
from esa_notebooks.runs.declare import declared as all_declared
from esa_notebooks.runs.record import RecordError, alive, find_run, git_state, new_run, read_record, runner
from esa_notebooks.runs.retention import expendable, records
from esa_notebooks.runs.verdict import (
    APART,
    DIFFERENT,
    IDENTICAL,
    TOLERATED,
    UNKNOWN,
    Item,
    Verdict,
    compare,
    document,
    equal,
    total,
)
from esa_notebooks.runs.verify import Reviewer, look
from tests.runs.conftest import Study, code, prose

PARAMETERS = ('table: InputFile = Path("data/raw/t.csv")  # read\nn: int = 2  # a number\n'
              'out: OutputFile = Path("data/processed/t.txt")  # written')
CELLS = ("import lib.used\nfrom esa_notebooks.runs.declare import answer, measurement, result, table as show\n"
         "from esa_notebooks.settings import setting\nimport pandas as pd, time",
         "result('rows', len(table.read_text().splitlines()) * n * lib.used.A)\nname = setting('study.name')",
         "show(pd.DataFrame({'a': [1.5, None]}), caption='Two rows of a table.')\nout.write_text('made')",
         "measurement('took', time.perf_counter(), unit='s')\nanswer('It holds.')",
         "object()", "pd.DataFrame({'a': [1]}).style.highlight_max()")


def page(run) -> str:
    """A page as simple as can be; the real one is drawn in a test of its own."""
    record = json.loads((run / "record.json").read_text())
    return "<style>STYLE 1</style>" + "".join(f"<p>{d.get('name')} {d.get('value')}</p>" for d in record["declarations"]
                                              if isinstance(d, dict))


def fill(study: Study) -> Study:
    for path, text in {"lib/__init__.py": "", "lib/used.py": "A = 1\n", "lib/unused.py": "B = 1\n", "data/raw/t.csv": "a\nb\n",
                       "requirements/lock.txt": "numpy==1.0 \\\n    --hash=sha256:00\n", "requirements/torch.txt": "torch==2\n"}.items():
        (study.root / path).parent.mkdir(parents=True, exist_ok=True)
        (study.root / path).write_text(text)
    study.write("n", *CELLS, parameters=PARAMETERS)
    return study


def key(study: Study, given: dict | None = None, **settings: str) -> str:
    return study.plan(study.root / "nbs" / "n.ipynb", given, **settings).key


def edit(study: Study, path: str, before: str, after: str) -> None:
    text = (study.root / path).read_text()
    assert before in text
    (study.root / path).write_text(text.replace(before, after))


INGREDIENTS = {
    "a line of code": lambda s: edit(s, "nbs/n.ipynb", "* n *", "+ n *"),
    "the order of cells": lambda s: s.write("n", *CELLS[:4], *CELLS[:3:-1], parameters=PARAMETERS),
    "a cell more": lambda s: s.write("n", *CELLS, "1", parameters=PARAMETERS),
    "a default": lambda s: edit(s, "nbs/n.ipynb", "n: int = 2", "n: int = 3"),
    "a module behind an import": lambda s: edit(s, "lib/used.py", "A = 1", "A = 2"),
    "the package above it": lambda s: (s.root / "lib/__init__.py").write_text("X = 1"),
    "a byte of the input": lambda s: edit(s, "data/raw/t.csv", "b", "c"),
    "a version in the lock": lambda s: edit(s, "requirements/lock.txt", "1.0", "1.1"),
    "the version of torch": lambda s: edit(s, "requirements/torch.txt", "2", "3"),
    "a declared setting": lambda s: (s.root / "settings.ini").write_text("[study]\nname = other\n"),
    "the kernel": lambda s: edit(s, "nbs/n.ipynb", '"name": "python3"', '"name": "another"'),
}
OTHER = {
    "prose": lambda s: edit(s, "nbs/n.ipynb", "Does it hold?", "Does it really hold?"),
    "a prose cell more": lambda s: s.write("n", prose("More."), *CELLS, parameters=PARAMETERS),
    "a comment": lambda s: s.write("n", "# why\n" + CELLS[0], *CELLS[1:], parameters=PARAMETERS),
    "a comment in a module": lambda s: edit(s, "lib/used.py", "A = 1", "A = 1   # one"),
    "an unused module": lambda s: edit(s, "lib/unused.py", "B = 1", "B = 2"),
    "a touched file": lambda s: os.utime(s.root / "data/raw/t.csv", (1, 1)),
    "help of a parameter": lambda s: edit(s, "nbs/n.ipynb", "# a number", "# some number"),
    "another setting": lambda s: (s.root / "settings.ini").write_text("[data]\nmirror = /elsewhere\n"),
    "a hash in the lock": lambda s: edit(s, "requirements/lock.txt", "sha256:00", "sha256:11"),
    "outputs left in the source": lambda s: edit(s, "nbs/n.ipynb", '"outputs": []', '"outputs": [{"output_type": "stream"}]'),
}


@pytest.mark.parametrize("what", INGREDIENTS)
def test_an_ingredient_changes_the_key(study, what):
    before = key(fill(study))
    INGREDIENTS[what](study)
    assert key(study) != before


@pytest.mark.parametrize("what", OTHER)
def test_nothing_else_does(study, what):
    before = key(fill(study))
    OTHER[what](study)
    assert key(study) == before


def test_the_place_of_the_project_and_of_the_output_do_not_matter(study, tmp_path):
    before = key(fill(study))
    shutil.move(study.root, tmp_path / "moved")
    moved = Study(tmp_path / "moved")
    assert key(moved) == before == key(moved, {"out": "data/interim/elsewhere.txt"})
    assert key(moved, {"n": 2}) == before != key(moved, {"n": 5})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    study = fill(Study(tmp_path_factory.mktemp("original") / "study"))
    run = study.run(study.root / "nbs" / "n.ipynb")
    (run.folder / "report.html").write_text(page(run.folder))
    return study, run


@pytest.fixture
def made(original, tmp_path):
    """A copy of a project with one finished run: (study, folder of the run)."""
    study, run = original
    assert run.record["status"] == "succeeded", run.record["reason"]
    shutil.copytree(study.root, tmp_path / "copy", symlinks=True)
    copy = Study(tmp_path / "copy")
    return copy, copy.only_run("n")


def by_word(verdict) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = {"holds": verdict.holds, "sentence": verdict.sentence}
    for item in verdict.items:
        seen.setdefault(item.verdict, []).append(f"{item.what}: {item.detail}")
    return seen


def verdicts(study: Study, run, again: bool = False) -> dict[str, list[str]]:
    return by_word((rerun if again else look)(run, study.settings(), page=page))


def test_untouched_holds_and_runs_again_to_the_same(made):
    study, run = made
    looked = verdicts(study, run)
    assert looked["holds"] and "1 result, 1 table, 1 output" in looked["sentence"] and "not executed" in looked["sentence"]
    assert "page report.html: " in looked[IDENTICAL]
    output = (study.root / "data/processed/t.txt").stat().st_mtime_ns
    seen = verdicts(study, run, again=True)
    assert seen["holds"] and DIFFERENT not in seen, seen
    assert any(i.startswith("result rows") for i in seen[IDENTICAL])
    assert [i for i in seen[APART] if i.startswith("measurement took: then")]
    assert "1 of 1 result identical, 1 of 1 table identical, 1 of 1 output identical" in seen["sentence"]
    assert "1 measurement apart" in seen["sentence"] and "executed again" in seen["sentence"]
    assert (study.root / "data/processed/t.txt").stat().st_mtime_ns == output
    assert [p.name for p in (study.root / "reports/runs/n").iterdir()] == [run.name]


TAMPERED = {
    "input": ("data/raw/t.csv", "b", "c", "input data/raw/t.csv"),
    "output": ("data/processed/t.txt", "made", "mode", "output data/processed/t.txt"),
    "module": ("lib/used.py", "A = 1", "A = 7", "changed: lib.used"),
    "cell": ("nbs/n.ipynb", "* n *", "+ n *", "code of the notebook: the code cells of the notebook have changed: code cell 3"),
    "lock": ("requirements/lock.txt", "1.0", "1.1", "lock"),
    "default": ("nbs/n.ipynb", "n: int = 2", "n: int = 3", "parameters: n: recorded 2, now 3"),
    "setting": ("settings.ini", "", "[study]\nname = other\n", "settings: recorded"),
    "kernel": ("nbs/n.ipynb", '"name": "python3"', '"name": "another"', "kernel and Python"),
    "number in the record": ("RUN/record.json", '"value": 4', '"value": 5', "result rows in record.json, result rows in notebook"),
    "number in the notebook": ("RUN/notebook.ipynb", '"value": 4', '"value": 5', "file notebook.ipynb"),
    "output of a cell": ("RUN/notebook.ipynb", "It holds.", "It fails.", "file notebook.ipynb"),
    "code in the notebook": ("RUN/notebook.ipynb", "* n *", "+ n *", "the code cells of notebook.ipynb are not those"),
    "question in the record": ("RUN/record.json", "Does it hold?", "Is it true?", "tell the same question"),
    "a hash of the record": ("RUN/record.json", '"key": "', '"key": "0', "its ingredients do not give its key"),
    "command": ("RUN/record.json", "esa-notebooks execute", "esa-notebooks gc", "command"),
    "run id": ("RUN/record.json", '"run_id": "2', '"run_id": "3', "name of the folder"),
    "condition": ("RUN/record.json", '"TZ": "UTC"', '"TZ": "Asia/Tokyo"', "conditions: TZ recorded Asia/Tokyo, now UTC"),
    "number on the page": ("RUN/report.html", "rows 4", "rows 5", "page report.html: it is not the page of this record"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_is_named(made, what):
    study, run = made
    path, before, after, named = TAMPERED[what]
    path = path.replace("RUN", str(run.relative_to(study.root)))
    (study.root / path).write_text(after) if not before else edit(study, path, before, after)
    seen = verdicts(study, run)
    assert not seen["holds"] and any(named in item for item in seen[DIFFERENT]), seen


@pytest.mark.parametrize("gone,verdict", [("data/processed/t.txt", DIFFERENT), ("data/raw/t.csv", UNKNOWN), ("nbs/n.ipynb", UNKNOWN),
                                          ("RUN/notebook.ipynb", DIFFERENT), ("RUN/report.html", UNKNOWN), ("RUN/record.json", UNKNOWN)])
def test_what_is_gone_is_named(made, gone, verdict):
    study, run = made
    (study.root / gone.replace("RUN", str(run.relative_to(study.root)))).unlink()
    seen = verdicts(study, run)
    assert not seen["holds"] and any(gone.rsplit("/")[-1] in item for item in seen[verdict]), seen


def test_a_missing_input_does_not_hide_changed_code(made):
    study, run = made
    (study.root / "data/raw/t.csv").unlink()
    edit(study, "lib/used.py", "A = 1", "A = 7")
    assert any("lib.used" in i for i in verdicts(study, run)[DIFFERENT])


def test_other_code_is_not_executed_under_the_old_name(made):
    study, run = made
    edit(study, "lib/used.py", "A = 1", "A = 7\nopen('executed', 'w')")
    seen = verdicts(study, run, again=True)
    assert not seen["holds"] and any("not executed again" in i for i in seen[UNKNOWN]) and "not executed:" in seen["sentence"]
    assert not (study.root / "executed").exists()


def test_an_output_that_a_later_run_wrote_cannot_be_checked(made):
    study, run = made
    record = json.loads((run / "record.json").read_text())
    later = run.with_name(f"2{run.name[1:8]}T235959Z-00000000")
    later.mkdir()
    (study.root / "data/processed/t.txt").write_text("later")
    record["outputs"][0]["sha256"] = sha256(study.root / "data/processed/t.txt")
    (later / "record.json").write_text(json.dumps(record | {"run_id": later.name}))
    assert any(f"run {later.name} has written this file since" in i for i in verdicts(study, run)[UNKNOWN])


def test_the_same_number_with_other_bits(study):
    """One notebook with one of everything that does not come out the same, executed twice."""
    run = study.run(study.write(
        "n", "from esa_notebooks.runs.declare import answer, measurement, result, table as show\nimport time, pandas as pd",
        "t = time.time_ns()\nresult('now', t)\nresult('near', 1 + (t % 1000) / 1e9, tolerance=1e-3)\nresult('same', 1.5)",
        "result('far', t / 1e9, tolerance=1e-3)\nshow(pd.DataFrame({'a': [1, t]}), caption='Differs in row 2.')",
        "measurement('latency', 1 + t % 7)\nresult('wide', t, tolerance=abs(float(t)))", "print(t)", "answer(f'It is {t}')"))
    seen = verdicts(study, run.folder, again=True)
    assert not seen["holds"]
    assert [i.split(":")[0] for i in seen[TOLERATED]] == ["result near"] and "stated tolerance 0.001" in seen[TOLERATED][0]
    assert [i.split(":")[0] for i in seen[DIFFERENT]] == ["result now", "result far", "table table_1", "result wide", "answer",
                                                          "other outputs of the cells"]
    assert "tolerance: " in next(i for i in seen[DIFFERENT] if "wide" in i), "a tolerance that moves is no tolerance"
    assert "row 2" in next(i for i in seen[DIFFERENT] if "table" in i)
    assert "result same: " in seen[IDENTICAL] and any("measurement latency" in i for i in seen[APART])
    assert "1 of 5 results identical" in seen["sentence"] and "1 within tolerance" in seen["sentence"]


def test_nothing_compared_is_not_a_success(study):
    run = study.run(study.write("n", "x = 1"))
    looked, seen = verdicts(study, run.folder), verdicts(study, run.folder, again=True)
    assert "no result is declared" in looked["sentence"]
    assert not seen["holds"] and any("nothing to compare" in i for i in seen[UNKNOWN])


def test_the_sum_over_runs_hides_nothing():
    good = Verdict("a", (Item("result x", IDENTICAL, "", "result"),), executed=True, declared={"result": 1, "measurement": 1})
    bad = Verdict("b", (Item("results", UNKNOWN, "why", "execution"),), declared={"result": 9})
    sentence = total([good, bad]).sentence
    assert "does not hold, 1 of 2 executed again: 1 of 10 results identical" in sentence and "1 cannot be checked" in sentence
    assert "1 measurement apart" in sentence and total([good, good]).holds and not total([good, Verdict("c", ())]).holds
    assert not document([])["holds"] and not document([good, bad])["holds"]


def test_a_failed_run_claims_nothing(study):
    seen = verdicts(study, study.run(study.write("n", "1 / 0")).folder, again=True)
    assert not seen["holds"] and "claims nothing" in seen[UNKNOWN][0]


def declared(**fields) -> dict:
    return {"declarations": [{"kind": "result", "name": "x", "value": 0.5, "unit": "", "ci": None} | fields], "outputs": []}


@pytest.mark.parametrize("then,now,word", [
    ({}, {}, IDENTICAL),
    ({"value": 0.1 + 0.2}, {"value": 0.3}, DIFFERENT),
    ({"value": 1}, {"value": 1.0}, DIFFERENT),
    ({"value": 1}, {"value": True}, DIFFERENT),
    ({"value": 0.0}, {"value": -0.0}, DIFFERENT),
    ({"value": float("nan")}, {"value": float("nan")}, IDENTICAL),
    ({"value": None, "why": "no data"}, {"value": None, "why": "no data"}, IDENTICAL),
    ({"tolerance": 0.01}, {"tolerance": 0.01}, IDENTICAL),
    ({"tolerance": 0.01}, {"tolerance": 0.01, "value": 0.505}, TOLERATED),
    ({"tolerance": 0.01}, {"tolerance": 0.01, "value": 0.52}, DIFFERENT),
    ({"tolerance": 0.01}, {"tolerance": 0.1, "value": 0.52}, DIFFERENT),
    ({"tolerance": 0.01}, {"tolerance": 0.01, "value": float("nan")}, DIFFERENT),
    ({"tolerance": 0.01}, {"tolerance": 0.01, "value": "0.5"}, DIFFERENT),
    ({"tolerance": 0.01}, {"tolerance": 0.01, "value": None}, DIFFERENT),
    ({"tolerance": 0.01}, {"tolerance": 0.01, "value": 0.505, "unit": "%"}, DIFFERENT),
    ({"tolerance": 0.01, "ci": [0.4, 0.6]}, {"tolerance": 0.01, "ci": [0.405, 0.6]}, TOLERATED),
    ({"tolerance": 0.01, "ci": [0.4, 0.6]}, {"tolerance": 0.01, "ci": [0.4, 0.7]}, DIFFERENT),
    ({"tolerance": 0.01, "ci": [0.4, 0.6]}, {"tolerance": 0.01, "ci": None}, DIFFERENT),
    ({"tolerance": 0, "value": 0.0}, {"tolerance": 0, "value": -0.0}, TOLERATED),
    ({"tolerance": 1, "value": 10**400}, {"tolerance": 1, "value": 1.0}, DIFFERENT),
    ({}, {"tolerance": None}, IDENTICAL),
    ({}, {"name": "y"}, DIFFERENT),
    ({}, {"kind": "measurement"}, DIFFERENT)])
def test_equal_or_within_tolerance(then, now, word):
    words = {i.verdict for i in compare(declared(**then), declared(**now))}
    assert words == {word}


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), "0.1", True])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(DeclarationError, match="tolerance of `x`"):
        result("x", 0.5, tolerance=tolerance)
    assert "x" not in [d["name"] for d in all_declared()]


def test_a_text_has_no_tolerance():
    with pytest.raises(DeclarationError, match="has a tolerance"):
        result("x", "high", tolerance=0.1)


def test_pages(made):
    study, run = made
    settings, kept = study.settings(), (run / "report.html").read_text()
    record = json.loads((run / "record.json").read_text())

    def word(draw=page) -> str:
        (found,) = [i.verdict for i in look(run, settings, page=draw).items if i.what == "page report.html"]
        return found

    (run / "report.html").write_text(kept.replace("STYLE 1", "STYLE 0"))
    assert word() == UNKNOWN, "another version drew it"
    for made_by, expected in (("a", DIFFERENT), ("b", UNKNOWN)):
        (run / "report.html").write_text(f'<meta name="generator" content="{made_by}"><style>x</style>')
        assert word(lambda run: '<meta name="generator" content="a"><style>STYLE 1</style>') == expected
    assert word(lambda run: 1 / 0) == UNKNOWN
    record["files"]["report.html"] = sha256(run / "report.html")
    (run / "record.json").write_text(json.dumps(record))
    assert word() == IDENTICAL == word(None), "as it was first written"
    (run / "report.html").write_text(kept)
    assert word() == IDENTICAL and word(None) == DIFFERENT, "drawn anew since"


def test_the_real_page_is_drawn_the_same_again(made):
    from esa_notebooks.commands.review import _page
    study, run = made
    (run / "report.html").write_text(_page(run))
    assert by_word(look(run, study.settings(), page=_page))["holds"]
    edit(study, str((run / "report.html").relative_to(study.root)), "It holds.", "It fails.")
    seen = by_word(look(run, study.settings(), page=_page))
    assert any("not the page of this record" in i for i in seen[DIFFERENT]), seen


# What nobody can check afterwards, or what is implied by something that is checked (the size of a file by its hash).
TOLD_ONLY = {"started", "ended", "duration_s", "runner", "git", "cells", "peak_memory_bytes", "warnings", "reason"}
BELOW = {("parameters", "help"), ("inputs", "bytes"), ("inputs", "kind"), ("inputs", "made_by"), ("outputs", "bytes"),
         ("code", "id"), ("code", "index"), ("environment", "cpus"), ("environment", "platform"), ("environment", "machine"),
         ("environment", "kernel_start"), ("environment", "packages_sha256"), ("environment", "differs_from_lock")}
VALUES = (None, 7, -1.5, "x", "", [], {}, True, [[]], {"x": 1}, "\ud800", "a\0b", "../../../etc/passwd", "x" * 5000)


def places(value, at=()):
    """Every place in a record, of lists the first element."""
    entries = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, below in entries:
        yield (*at, key)
        yield from places(below, (*at, key))


def checked(at) -> bool:
    names = [n for n in at if isinstance(n, str)]
    return names[0] not in TOLD_ONLY and not any(names[0] == top and name in names[1:] for top, name in BELOW)


def test_a_record_edited_anywhere_is_an_item_and_never_a_trace(made):
    study, run = made
    reviewer, text = Reviewer(study.settings()), (run / "record.json").read_text()
    (run / "report.html").unlink()   # it would notice nearly everything, and the record has to be found out alone
    assert reviewer.look(run).holds, "as it was"
    for n, at in enumerate(places(json.loads(text))):
        for value in (..., *VALUES[n % 4::4]):   # each place meets some of them, each of them many places
            record = json.loads(text)
            *above, last = at
            inner = record
            for key in above:
                inner = inner[key]
            before = inner[last] if not isinstance(last, str) else inner.get(last)
            if value is ...:
                del inner[last]
            elif equal(before, value):
                continue
            else:
                inner[last] = value
            (run / "record.json").write_text(json.dumps(record))
            verdict = reviewer.look(run)
            assert verdict.items and all(isinstance(i.detail, str) for i in verdict.items)
            assert not (checked(at) and verdict.holds), f"{at} = {value!r:.60} was not noticed"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a":' * 50_000, "\x00\xff", '{"schema": "esa-notebooks/record/0"}',
                                  '{"schema": "esa-notebooks/record/1", "status": "succeeded"}'])
def test_a_damaged_record_is_one_line(made, text):
    study, run = made
    (run / "record.json").write_bytes(text.encode("latin-1"))
    verdict = look(run, study.settings(), page=page)
    assert [i.what for i in verdict.items] == ["record"] and verdict.code == 3 and "\n" not in verdict.items[0].detail


@pytest.mark.parametrize("text", ["", "{}", '{"nbformat": 4, "cells": 7}', '{"nbformat": 4, "cells": [7]}', "[" * 100_000,
                                  '{"nbformat": 4, "cells": [{"cell_type": "code", "source": 7, "outputs": 7}]}',
                                  '{"nbformat": 4, "cells": [{"cell_type": "code", "metadata": null, "outputs": [7, {"data": 7}]}]}'])
def test_a_damaged_executed_notebook_leaves_the_other_checks(made, text):
    study, run = made
    (run / "notebook.ipynb").write_text(text)
    seen = verdicts(study, run)
    assert not seen["holds"] and any("file notebook.ipynb" in i for i in seen[DIFFERENT])
    assert "code of the modules: " in seen[IDENTICAL] and "output data/processed/t.txt: " in seen[IDENTICAL]


def test_a_folder_in_place_of_a_file_and_a_pipe(made):
    study, run = made
    (run / "notebook.ipynb").unlink(), (run / "notebook.ipynb").mkdir()
    (study.root / "data/processed/t.txt").unlink(), os.mkfifo(study.root / "data/processed/t.txt")
    seen = verdicts(study, run)
    assert {"file notebook.ipynb", "output data/processed/t.txt"} <= {i.split(":")[0] for i in seen[DIFFERENT]}


def several(study: Study, seconds: float, count: int = 3) -> list:
    for n in range(count):
        study.write(f"n{n}", "from esa_notebooks.runs.declare import result\nimport os",
                    f"result('n', {n})\nresult('warm', any(k.startswith('ESA_WARM') for k in os.environ))",
                    f"import time; time.sleep({seconds} if os.path.exists('slow') else 0)", "open(f'pid-{os.getpid()}', 'w').close()")
    return [study.run(study.root / "nbs" / f"n{n}.ipynb").folder for n in range(count)]


def test_several_at_a_time_in_order_cold_and_an_interrupt_leaves_nothing(study, monkeypatch, tmp_path):
    runs = several(study, 60)
    monkeypatch.setenv("ESA_WARM", "/nowhere/socket")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said: list[str] = []
    found = list(rerun_all(runs[::-1], Reviewer(study.settings()), 3, said.append))
    assert [v.run_id for v in found] == [r.name for r in runs[::-1]] and all(v.holds for v in found), [by_word(v) for v in found]
    assert len([s for s in said if s.endswith("executing")]) == 3 and not list(tmp_path.glob("esa-verify-*"))
    (study.root / "slow").touch()
    pids = {p.name for p in study.root.glob("pid-*")}
    going = rerun_all(runs, Reviewer(study.settings()), 2)
    timer = threading.Timer(3, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(going)
    timer.join()
    assert time.monotonic() - began < 30 and not list(tmp_path.glob("esa-verify-*"))
    time.sleep(0.5)
    mine = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE and "ipykernel" in " ".join(p.cmdline())]
    assert mine == [] and {p.name for p in study.root.glob("pid-*")} == pids


def test_an_execution_that_dies_is_an_item(study):
    run = study.run(study.write("n", "from esa_notebooks.runs.declare import result; import os\nresult('x', 1)",
                                "os.path.exists('die') and os.kill(os.getppid(), 9)")).folder
    (study.root / "die").touch()
    verdict = rerun(run, study.settings())
    assert not verdict.holds and any("this time" in i.detail or "could not be executed" in i.detail for i in verdict.items), verdict


@pytest.fixture
def tool(monkeypatch, capsys):
    """The command line in this process, on a study: its exit code and what it said."""
    from esa_notebooks.cli import main
    before = signal.getsignal(signal.SIGTERM)

    def run(study: Study, *args: str) -> SimpleNamespace:
        monkeypatch.chdir(study.root)
        monkeypatch.setenv("ESA_PROJECT_ROOT", str(study.root))
        monkeypatch.setattr(sys, "argv", ["esa-notebooks", *args])
        code = 0
        try:
            main()
        except SystemExit as e:
            code = e.code or 0
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)
    yield run
    signal.signal(signal.SIGTERM, before)


def test_the_command_line(made, tool):
    study, run = made
    from esa_notebooks.commands.review import _page
    (run / "report.html").write_text(_page(run))
    ended = tool(study, "verify", "--json")
    told = json.loads(ended.out)
    assert ended.code == 0 and told["schema"] == "esa-notebooks/verdict/1" and told["holds"], ended.err
    (one,) = told["runs"]
    assert one["run"] == run.name and one["declared"]["result"] == 1 and one["counts"]["input"] == {"identical": 1}
    # Reports copied from elsewhere, and what cannot be read is not passed over.
    elsewhere = study.root.parent / "sent"
    shutil.copytree(study.root / "reports", elsewhere)
    (elsewhere / "runs/n/20200101T000000Z-00000000").mkdir()
    ended = tool(study, "verify", str(elsewhere), "--quiet")
    assert ended.code == 3 and "20200101T000000Z-00000000: does not hold" in ended.out and "1 of 2 runs" in ended.err
    edit(study, "lib/used.py", "A = 1", "A = 7")
    ended = tool(study, "verify", run.name[:9], "latest", "--quiet")
    assert ended.code == 1 and ended.out.count(run.name) == 1 and "changed: lib.used" in ended.out
    ended = tool(study, "reproduce", "latest")
    assert ended.code == 2 and "names no commit" in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize("target,code,text", [("2019", 2, "No run is called"), ("models:/x", 2, "no model version"),
                                              ("models:/x/1", 3, "no model registry"), ("models:/a/b/1", 2, "no model version")])
def test_what_names_no_run_is_refused(made, target, code, text):
    from esa_notebooks.commands.app import Exit
    from esa_notebooks.commands.review import chosen
    with pytest.raises((Exit, RecordError), match=text) as refused:
        chosen([target], made[0].settings())
    assert getattr(refused.value, "code", 2) == code and not (made[0].root / "mlflow.db").exists()


def test_hostile_text_reaches_no_terminal(made, tool):
    study, run = made
    record = json.loads((run / "record.json").read_text())
    record["outputs"][0]["path"] = "\x1b]0;owned\x07\ud800\nverified"
    (run / "record.json").write_text(json.dumps(record))
    ended = tool(study, "verify", run.name)
    assert ended.code in (1, 3) and "\x1b" not in ended.out + ended.err and "\nverified" not in ended.out
    assert "Traceback" not in ended.err


def test_a_model_leads_to_its_run(made, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    from esa_notebooks.commands.app import Exit
    from esa_notebooks.commands.review import TAG, chosen
    study, run = made
    store = f"sqlite:///{study.root / 'mlflow.db'}"
    client = mlflow.MlflowClient(store, store)
    experiment = client.create_experiment("e", artifact_location=str(study.root / "artifacts"))
    theirs = client.create_run(experiment, tags={TAG: run.name})
    client.create_registered_model("detector")
    versions = [client.create_model_version("detector", "file:///nowhere", run_id=r, tags=t).version for r, t in (
        (None, {TAG: run.name}), (theirs.info.run_id, {}), (None, {}), (None, {TAG: "20190101T000000Z-00000000"}))]
    client.set_registered_model_alias("detector", "champion", versions[1])
    settings = study.settings()
    assert settings.get("tracking.uri") == "sqlite:///mlflow.db"
    for target in (f"models:/detector/{versions[0]}", "models:/detector@champion"):
        assert chosen([target, run.name], settings) == [run]
    for target, code, text in (("models:/detecter/1", 2, "Did you mean `detector`?"), ("models:/detector/9", 2, "no version 9"),
                               ("models:/detector@champoin", 2, "Did you mean `champion`?"),
                               (f"models:/detector/{versions[2]}", 3, "does not say which run"),
                               (f"models:/detector/{versions[3]}", 3, "20190101T000000Z-00000000, which is not in")):
        with pytest.raises(Exit, match=re.escape(text)) as refused:
            chosen([target], settings)
        assert refused.value.code == code
    with pytest.raises(Exit) as refused:
        chosen(["models:/detector/1"], study.settings(tracking_uri="sqlite:///none.db"))
    assert refused.value.code == 3 and not (study.root / "none.db").exists()


def test_what_the_machine_is_takes_no_time():
    code = "import time; from esa_notebooks.runs.conditions import machine; t = time.perf_counter(); machine(); " \
           "print(time.perf_counter() - t); import sys; print('numpy' in sys.modules)"
    seconds, numpy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert float(seconds) < 0.1 and numpy == "False"


def test_runs_started_at_once_have_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: new_run(tmp_path, "n", "0" * 64), range(20)))
    assert len(set(made)) == 20


def test_four_runners_at_once(study):
    for n in range(4):
        study.write(f"n{n}", f"out.write_text('{n}' * 1000)", parameters=f'out: OutputFile = Path("data/processed/{n}.txt")  # x')
    started = [study.runner(study.root / "nbs" / f"n{n}.ipynb") for n in range(4)]
    assert [p.communicate(timeout=100)[1] or p.returncode for p in started] == [0] * 4
    assert [study.result(study.only_run(f"n{n}")).record["status"] for n in range(4)] == ["succeeded"] * 4
    assert {p.read_text() for p in (study.root / "data/processed").iterdir()} == {str(n) * 1000 for n in range(4)}


@pytest.mark.parametrize("text,said", [("", "cannot be read"), ("{", "cannot be read"), ("[]", "not a record"),
                                       ('{"schema": "esa-notebooks/record/0"}', "not a record of this version"),
                                       ('{"schema": "esa-notebooks/record/1", "status": "fine"}', "not a record")])
def test_a_broken_record_is_named(tmp_path, text, said):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=said):
        read_record(tmp_path)


def test_a_run_is_found_by_the_beginning_of_its_id(made):
    study, run = made
    reports = study.root / "reports"
    assert find_run(reports, run.name[:9]) == find_run(reports, "latest") == find_run(reports, str(run)) == run
    for name in ("2019", ""):
        with pytest.raises(RecordError, match="No run is called"):
            find_run(reports, name)


def test_a_runner_is_alive_only_as_itself():
    record = {"ended": None, "runner": runner()}
    assert alive(record) and not alive(record | {"ended": "x"})
    for other in ({"host": "elsewhere"}, {"boot_id": "another"}, {"pid": 2**22 + 1}):
        assert not alive({"ended": None, "runner": runner() | other})


def git(root, *args: str) -> str:
    return subprocess.run(["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org", *args], check=True,
                          capture_output=True, text=True).stdout.strip()


def test_git_states(study, monkeypatch):
    assert git_state(study.root) == {"commit": None, "dirty": None, "why": "not a git checkout with a commit"}
    git(study.root, "init", "-q")
    assert git_state(study.root)["commit"] is None, "a repository without a commit"
    git(study.root, "add", "."), git(study.root, "commit", "-qm", "first")
    head = git(study.root, "rev-parse", "HEAD")
    assert git_state(study.root) == {"commit": head, "dirty": False, "why": None}
    (study.root / "new").touch()
    assert git_state(study.root)["dirty"] is True
    nested = study.root / "nested"
    nested.mkdir()
    assert git_state(nested)["commit"] is None, "somebody else's repository around it"
    (nested / ".git-commit").write_text("$Format:%H$\n")
    assert git_state(nested)["commit"] is None
    (nested / ".git-commit").write_text(head + "\n")
    assert git_state(nested) == {"commit": head, "dirty": None, "why": "unpacked from an archive"}
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state(study.root)["why"] == "git is not installed"


def test_gc_leaves_what_cannot_be_read(made):
    study, run = made
    broken = run.parent / "20200101T000000Z-00000000"
    broken.mkdir()
    (broken / "record.json").write_text("{")
    assert [f for f, _ in records(study.root / "reports")] == [run]
    assert expendable(study.root / "reports", days=0, keep=0) == [] and broken.exists()


def test_an_interactive_run_is_not_the_latest_success(made):
    study, run = made
    record = json.loads((run / "record.json").read_text()) | {"interactive": True, "started": "2020-01-01T00:00:00Z"}
    (run / "record.json").write_text(json.dumps(record))
    assert expendable(study.root / "reports", days=1, keep=0) == [run]


def test_code_cells_are_shown_where_they_are(study):
    run = study.run(study.write("n", code("from esa_notebooks.runs.declare import result\nresult('x', 1)")))
    (declared,) = run.record["declarations"]
    assert declared["cell"] == 3 and declared["cell_id"] == "c3" and run.record["cells"][3]["id"] == "c3"
