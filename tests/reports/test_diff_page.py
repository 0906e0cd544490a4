"""The page of a comparison: harmless whatever it shows, readable on a phone, and honest about what it cannot say."""
import copy
import json
import re

import pytest

from esa_notebooks.reports.diff import build_diff, page_name, signed, two
from esa_notebooks.runs.parameters import ParameterError
from tests.reports.attacks import CELLS, HTML, RECORD
from tests.reports.conftest import code, declaration, good_cells, make_run, md
from tests.reports.test_browser import Watched
from tests.reports.test_sanitise import page_dangers
from tests.runs.test_diff import JUNK

LATER = "20261125T090000Z-0badcafe"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script><rect width="{}" height="9"/></svg>'


def text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", page, flags=re.S))


def later_cells():
    """The good notebook after some work: a number better, a figure and a table changed, a cell added, prose rewritten."""
    cells = copy.deepcopy(good_cells())
    known = next(k for c in cells for o in c.get("outputs", []) for k in o.get("data", {}) if "declaration" in k)
    for c in cells:
        for o in c.get("outputs", []):
            d = o.get("data", {}).get(known, {})
            if d.get("name") == "auc_pr":
                d.update(value=0.9301, ci=[0.91, 0.95])
            if d.get("kind") == "figure":
                o["data"]["image/svg+xml"] = o["data"]["image/svg+xml"].replace("<path", '<path data-later="1"', 1)
            if d.get("kind") == "table":
                d["rows"][1][1], d["sha256"] = 2.5, "0" * 64
    cells[3]["source"] += " This was said later."
    cells.insert(5, code("assert share < 1  # <b>new</b>"))
    return cells


@pytest.fixture
def pair(tmp_path):
    return tmp_path, make_run(tmp_path, good_cells()), make_run(tmp_path, later_cells(), run_id=LATER)


def test_the_page_says_what_differs(pair):
    reports, a, b = pair
    (a / "report.html").touch()
    path, found = build_diff(a, b, reports)
    page = path.read_text()
    assert path == reports / "diffs" / f"{a.name}..{LATER}.html"
    said = text(page)
    assert "1 cell of code differs; 1 of 4 results differs." in said
    assert "▲ better" in said and "+0.018" in said and "0.912" in said and "0.930" in said
    assert "One run each" in said or "one run each" in said
    assert 'href="../runs/explore/20261124T124501Z-3fa9c1d2/report.html#result-auc_pr"' in page
    assert f"{LATER}/report.html" not in page   # there is no such page
    assert "&lt;b&gt;new&lt;/b&gt;" in page and "Prose, comments and layout, 1 cell" in said
    assert "<del>1.4</del> <ins>2.5</ins>" in page and "1 row differs, paired by channel" in said
    assert page.count("<img") == 2 and found["figures"][0]["verdict"] == "changed"


def test_agreement_is_folded_away(tmp_path):
    a, b = make_run(tmp_path, good_cells()), make_run(tmp_path, good_cells(), run_id=LATER)
    page = build_diff(a, b, tmp_path)[0].read_text()
    said = text(page)
    assert "Same parameters, data, code and environment; all 4 results are the same." in said
    assert page.count("<img") == 1 and "the same in both" in said and "4 results are the same" in said and "▲" not in said


def test_numbers_that_differ_look_different():
    def d(value, **more):
        return {"value": value, "unit": "", "ci": None, "digits": None, **more}

    assert two(d(0.12345), d(0.12346))[:2] != ("0.123", "0.123")
    for a, b in ((1.0, 1.0 + 1e-15), (1e-300, 2e-300), (5, 5.0000001), (123456789.0, 123456789.5)):
        x, y, _ = two(d(a, digits=0), d(b, digits=0))
        assert x != y
    assert two(d(True), d(1))[:2] == ("yes", "1") and two(None, d("text"))[:2] == ("–", "text")
    assert signed(0.0, 2) == "0.00" and signed(1e-9, 2) != "+0.00"


def test_a_difference_of_percentages_is_in_points(tmp_path):
    a, b = (make_run(tmp_path, [code("x", declaration(kind="result", name="share", value=v, unit="%"))], run_id=r)
            for v, r in ((10.0, "a"), (12.5, "b")))
    said = text(build_diff(a, b, tmp_path)[0].read_text())
    assert "+2.5 points" in said and "+25" not in said


def test_nothing_is_written_for_a_bad_request(pair):
    reports, a, b = pair
    with pytest.raises(ParameterError, match="Did you mean `window`"):
        build_diff(a, b, reports, over=["windows"])
    assert not (reports / "diffs").exists()


def test_a_folder_name_is_no_path():
    assert page_name("a/../../x", "b" * 300) == "a_.._.._x.." + "b" * 80 + ".html"


@pytest.fixture(scope="session")
def attacked(tmp_path_factory):
    """A page over two runs in which every part of record and notebook is an attack."""
    reports = tmp_path_factory.mktemp("attacked")
    record = {k: v for name, fields in RECORD.items() if name != "record status" for k, v in fields.items()}
    found = []
    for n, run_id in enumerate(("20261124T150000Z-eeeeeeee", LATER)):
        fragments = [f + str(n) for f in HTML.values()]
        cells = [md("# T"), *(c for f in fragments for c in (md(f), code(f"x = {f!r}"))), *(c for cs in CELLS.values() for c in cs)]
        for i, f in enumerate(fragments):
            cells.append(code(f"shown({i})", *(declaration(kind=k, name=f"n{i}{k}", label=f, caption=f, alt=f, unit=f, why=f, text=f,
                         value=f, _svg=SVG.format(i + n) + f, columns=[{"name": f, "unit": f}], rows=[[f]], n_rows=1, sha256=f)
                         for k in ("result", "measurement", "table", "figure"))))
        cells.append(code("f", declaration(kind="figure", name="drawn", caption="c", alt="a", _svg=SVG.format(n))))
        cells.append(code("a", declaration(kind="answer", text=fragments[0])))
        more = {k: json.loads(json.dumps(v)) for k, v in record.items() if k != "declarations"}
        made = [{**o["data"][k], "cell": i} for i, c in enumerate(cells) for o in c.get("outputs", []) if isinstance(o, dict)
                for k in (o.get("data") or {}) if "declaration" in k and isinstance(o["data"][k], dict)]
        found.append(make_run(reports, cells, stage="attacked", run_id=run_id, declarations=made, **more))
    return build_diff(*found, reports)[0]


def test_attacks_reach_no_reader(attacked):
    assert page_dangers(attacked.read_text(), also_links=("../index.html",)) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_browser_finds_the_attacked_page_harmless(browser, attacked, scheme):
    with Watched(browser, attacked.resolve().as_uri(), scheme=scheme) as w:
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        w.page.wait_for_timeout(100)
        assert w.wrong() == []
        assert w.page.evaluate("document.scripts.length") == 1


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_side_by_side_or_below_and_never_sideways(browser, pair, size):
    reports, a, b = pair
    with Watched(browser, build_diff(a, b, reports)[0].resolve().as_uri(), size=size) as w:
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert w.wrong() == []
        assert w.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        (x, y) = w.page.evaluate("[...document.querySelectorAll('.pair img')].map(e => e.getBoundingClientRect().toJSON())")
        assert (x["top"] == y["top"] and x["right"] < y["left"]) if size == "desktop" else y["top"] > x["bottom"]
        assert all(w.page.evaluate("[...document.querySelectorAll('img')].map(e => !!e.alt)"))


def test_no_record_stops_the_page(tmp_path):
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    kinds = st.sampled_from(["result", "measurement", "figure", "table", "answer"])
    declared = st.fixed_dictionaries({"kind": kinds, "name": st.just("x")}, optional={k: JUNK for k in (
        "value", "ci", "spread", "unit", "label", "digits", "rows", "columns", "caption", "alt", "why", "n_rows", "cell", "text")})
    numbered = iter(range(10_000))

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.lists(declared, max_size=4), st.lists(declared, max_size=4), JUNK)
    def holds(first, then, part):
        n = next(numbered)
        a = make_run(tmp_path, [], run_id=f"a{n}", declarations=first, environment=part, started=part)
        page = build_diff(a, make_run(tmp_path, [], run_id=f"b{n}", declarations=then, inputs=part, git=part), tmp_path)[0]
        assert "</html>" in page.read_text()

    holds()
