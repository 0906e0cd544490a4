"""Histories: every run accounted for, gaps that look like gaps, and a thousand runs that can still be read."""
import json
import re
import time
from pathlib import Path

import pytest

from esa_notebooks.reports.history import LISTED, PLACES, build_history
from esa_notebooks.runs.history import history
from esa_notebooks.runs.record import RecordError
from tests.reports.attacks import HTML
from tests.reports.test_browser import Watched
from tests.reports.test_diff_page import text
from tests.reports.test_sanitise import page_dangers


def add(reports: Path, n: int, value=None, *, stage="train", module="1", status="succeeded", parameters=None, **more) -> str:
    """One run: `value` of the result `score`, a result `rows` that never moves, and whatever else is given."""
    run_id = f"2026{n:04d}T000000Z-{n:08x}"
    folder = reports / "runs" / stage / run_id
    folder.mkdir(parents=True)
    declared = [] if value is None else [{"kind": "result", "name": "score", "value": value, "unit": "", "label": "score"},
                                         {"kind": "result", "name": "rows", "value": 900}]
    record = {"schema": "esa-notebooks/record/1", "status": status, "ended": "x", "notebook": {"path": f"nbs/{stage}.ipynb"},
              "started": f"2026-01-{n % 28 + 1:02}T10:00:00Z", "code": {"modules": {"study": module}},
              "parameters": [{"name": k, "value": v, "type": "int", "origin": "given"} for k, v in (parameters or {}).items()],
              "declarations": declared, "reason": None if status == "succeeded" else {"what": "out of memory"}, **more}
    (folder / "record.json").write_text(json.dumps(record))
    return run_id


def test_moves_and_reasons(tmp_path):
    ids = [add(tmp_path, 1, 0.71), add(tmp_path, 2, 0.71), add(tmp_path, 3, status="failed", module="2"),
           add(tmp_path, 4, 0.74, module="2"), add(tmp_path, 5, 0.74, module="2"),
           add(tmp_path, 6, 0.74, module="2", inputs=[{"name": "x", "path": "x", "sha256": "2"}])]
    (line,) = history(tmp_path, "train")["lines"]
    assert {r["name"]: r["moves"] for r in line["results"]} == {"score": [3], "rows": []}
    assert [r["changed"] for r in line["runs"]] == [[], [], [], ["code"], [], ["data"]]
    assert line["runs"][3]["before"] == ids[1]
    page = build_history(tmp_path, "train").read_text()
    assert "6 runs with 1 set of parameters; 1 of 2 results ever moved" in text(page)
    assert f"esa-notebooks diff {ids[1]} {ids[3]}" in page and "out of memory" in page
    assert re.search(r'class="line" d="M[^M]+M', page), "the line does not break at the failed run"
    assert page.count('class="moved"') == 1 and page.count('class="failed"') == 2   # in the chart and the legend
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page


def test_a_comparison_that_is_there_is_linked(tmp_path):
    a, b = add(tmp_path, 1, 0.71), add(tmp_path, 2, 0.74, module="2")
    (tmp_path / "diffs").mkdir()
    (tmp_path / "diffs" / f"{a}..{b}.html").touch()
    assert f'href="../diffs/{a}..{b}.html"' in build_history(tmp_path, "train").read_text()


def test_other_parameters_are_another_line(tmp_path):
    for n in range(6):
        add(tmp_path, n, 0.7 + n % 2 / 10, parameters={"days": 14 + n % 2 * 14, "seed": 1})
    add(tmp_path, 6, 0.9, parameters={"days": 56, "seed": 1})
    found = history(tmp_path, "train")
    assert [line["label"] for line in found["lines"]] == ["days = 56", "days = 28", "days = 14"]
    assert all(r["moves"] == [] for line in found["lines"] for r in line["results"])
    page = build_history(tmp_path, "train").read_text()
    assert "none of 6 results ever moved" in text(page) and page.count('class="chart"') == 0
    assert "Other sets of parameters" in page and "days = 56" in page


def test_a_result_that_changed_its_unit_or_is_no_number(tmp_path):
    for n, (value, unit) in enumerate([(0.07, ""), (7.0, "%"), (7.1, "%"), (None, "%")]):
        add(tmp_path, n + 1, declarations=[{"kind": "result", "name": "share", "value": value, "unit": unit},
                                           {"kind": "result", "name": "best", "value": f"channel {n}"}])
    page = build_history(tmp_path, "train").read_text()
    assert "from 7.0" in page and "Fewer than two runs have it as a number." in page and "channel 3" in page


@pytest.mark.parametrize("name", ["train", "nbs/train.ipynb", "./nbs/train.ipynb", "train.ipynb"])
def test_named_by_path_or_stage(tmp_path, name):
    add(tmp_path, 1, 0.7)
    assert build_history(tmp_path, name) == tmp_path / "history" / "train.html"


@pytest.mark.parametrize("name, said", [("trian", "Did you mean `train`"), ("nbs/other/train.ipynb", "There are runs of: train"),
                                        ("../../etc", "No run of")])
def test_no_such_notebook(tmp_path, name, said):
    add(tmp_path, 1, 0.7)
    add(tmp_path, 2, stage="train2", interactive=True)
    with pytest.raises(RecordError, match=said):
        build_history(tmp_path, name)
    assert not (tmp_path / "history").exists()


def test_a_thousand_runs(tmp_path, browser):
    for n in range(1000):
        add(tmp_path, n, 99.0 if n == 517 else 0.7 + n % 7 / 1000, module=str(n // 250),
            **({"status": "failed"} if n % 97 == 5 else {}))
    started = time.process_time()
    path = build_history(tmp_path, "train")
    assert time.process_time() - started < 3
    page = path.read_text()
    assert "There are too many to draw each" in page and "in which something changed are not listed" in page
    assert page.count('<rect class="dot"') <= PLACES and page.count("<tr id=") <= LISTED and "99.0" in re.search(r"<text.*?</svg>", page)[0]
    heights = [float(h) for h in re.findall(r'<rect class="dot"[^>]* height="([\d.]+)"', page)]
    assert max(heights) > 80 and sorted(heights)[-2] < 10   # the one odd run among its neighbours is still there
    assert len(page) < 400_000
    with Watched(browser, path.resolve().as_uri(), size="phone") as w:
        assert w.wrong() == []
        assert w.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_a_sweep_is_a_table_not_a_thousand_sections(tmp_path):
    for n in range(300):
        add(tmp_path, n, 0.7, parameters={"seed": n})
    page = build_history(tmp_path, "train").read_text()
    assert page.count("<section") == 1 and "180 more are not listed" in page


def test_attacks_reach_no_reader(tmp_path, browser):
    for i, f in enumerate(HTML.values()):
        for n in (0, 1):
            add(tmp_path, 2 * i + n, n + 0.5, reason={"what": f}, notebook={"path": "nbs/train.ipynb", "title": f, "question": f},
                parameters={f: i}, started=f, declarations=[
                    {"kind": "result", "name": f, "label": f, "unit": f, "value": n + 0.5, "why": f},
                    {"kind": "result", "name": "text", "label": f, "value": f * (n + 1)}])
    path = build_history(tmp_path, "train")
    with Watched(browser, path.resolve().as_uri()) as w:
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert w.wrong() == [] and w.page.evaluate("document.scripts.length") == 1
    drawings = re.sub(r"<svg viewBox.*?</svg>", "", path.read_text(), flags=re.S)   # ours, inline
    assert page_dangers(drawings, also_links=("../index.html",)) == []
