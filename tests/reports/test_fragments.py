# ruff: noqa: E501  (JavaScript)
"""Every number, figure and table has an address of its own that a browser follows, with and without a script."""

import json
import re

import pytest

from esa_notebooks.reports.render import render
from esa_notebooks.reports.site import build_site
from esa_notebooks.runs import declare
from esa_notebooks.runs.address import addresses
from tests.reports.conftest import code, declaration, declared, drawn, good_cells, make_run, md
from tests.reports.test_browser import Watched
from tests.reports.test_sanitise import Seen, page_dangers, site_links


def cells():
    """The good notebook, and in it a result and a measurement of one name, a named figure and a tolerance."""
    result = declared(declare.result, "rows_left", 1200, unit="rows")
    result["data"][declare.MIME]["tolerance"] = 0.5
    same = declared(declare.measurement, "rows_left", 3.5, spread=0.5, unit="s")
    figure = declared(declare.figure, drawn(), "A named figure.", "Two lines.", name="voltage")
    filler = [md("## Between\n\n" + "Much was said here.\n\n" * 60)]
    return [*good_cells(), *filler, code("r", result, same), code("f", figure), *filler]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return render(make_run(tmp_path_factory.mktemp("reports"), cells()))


def expected(report):
    return addresses(json.loads((report.parent / "record.json").read_text())["declarations"])


def test_every_declared_thing_has_exactly_one_place(report):
    ids, known = Seen(report.read_text()).ids, expected(report)
    assert {"result-rows_left", "measurement-rows_left", "figure-voltage", "figure-1", "table-1"} <= set(known.values())
    assert [ids.count(a) for a in known.values()] == [1] * len(known) and len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z]+-[a-z0-9_]+", a) for a in known.values())
    assert page_dangers(report.read_text()) == []


def test_a_measurement_that_shares_its_name_opens_its_own_provenance(report):
    page = report.read_text()
    assert page.count('popovertarget="measurement-rows_left"') == 3  # in the text, in the appendix, and to close it
    drawer = page.split('id="measurement-rows_left"')[1].split("</section>")[0]
    assert "measured on this machine" in drawer and "1,200" not in drawer


def test_the_drawer_shows_the_tolerance_and_only_where_there_is_one(report):
    page = report.read_text()
    assert "<dt>Tolerance</dt><dd><code>± 0.5\u202frows</code></dd>" in page.split('id="result-rows_left"')[1].split("</section>")[0]
    assert page.count("<dt>Tolerance</dt>") == 1


def test_declarations_that_only_an_editor_can_make_get_no_second_address(tmp_path):
    twice = [declaration(kind="table", name="gaps", caption="a", columns=[], rows=[]) for _ in range(2)]
    forged = [declaration(kind="figure", name=n, caption="x", alt="y", _svg="") for n in ("figure_1", "x y", "1", ["a"], None, "main")]
    same = [declaration(kind="result", name="x", value=v) for v in (1, 2)]
    page = render(make_run(tmp_path, [md("# T"), code("x", *twice, *forged, *same), code("y", *forged)])).read_text()
    ids = Seen(page).ids
    assert len(ids) == len(set(ids)) and ids.count("table-gaps") == ids.count("result-x") == ids.count("figure-main") == 1
    assert page_dangers(page) == []


VISIBLE = """id => { const r = document.querySelector('main [popovertarget="' + id + '"]').getBoundingClientRect();
    return r.top >= 0 && r.bottom <= innerHeight }"""


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("address", ["result-rows_left", "measurement-rows_left", "result-auc_pr"])
def test_the_address_opens_the_page_at_the_number_with_its_provenance_open(browser, report, address, size):
    with Watched(browser, f"{report.as_uri()}#{address}", size=size) as w:
        w.page.wait_for_timeout(200)
        assert w.page.locator(f"#{address}").is_visible() and w.page.evaluate("document.querySelectorAll(':popover-open').length") == 1
        assert w.page.evaluate(VISIBLE, address) and w.page.evaluate("document.querySelectorAll('.here').length") == 1
        w.page.keyboard.press("Escape")
        assert not w.page.locator(f"#{address}").is_visible()  # it is not left behind at the foot of the page
        assert w.page.evaluate(VISIBLE, address) and w.wrong() == []


def test_going_to_another_number_closes_the_first(browser, report):
    with Watched(browser, f"{report.as_uri()}#result-rows") as w:
        w.page.evaluate("location.hash = 'result-auc_pr'")
        w.page.wait_for_timeout(150)
        assert w.page.locator("#result-auc_pr").is_visible() and not w.page.locator("#result-rows").is_visible()
        assert w.page.evaluate(VISIBLE, "result-auc_pr")


def test_without_a_script_the_browser_still_goes_there(browser, report):
    for address in ("measurement-rows_left", "figure-voltage", "table-1"):
        with Watched(browser, f"{report.as_uri()}#{address}", java_script_enabled=False) as w:
            assert w.page.locator(f"#{address}").is_visible()
            box = w.page.locator(f"#{address}").bounding_box()
            assert box["y"] < 900 and box["y"] + box["height"] > 0, address


@pytest.mark.parametrize("address", ["figure-voltage", "figure-1", "table-1"])
def test_figures_and_tables_are_gone_to_by_name(browser, report, address):
    with Watched(browser, f"{report.as_uri()}#{address}") as w:
        box = w.page.locator(f"#{address}").bounding_box()
        assert -5 <= box["y"] < 800 and w.page.evaluate("document.querySelectorAll(':popover-open').length") == 0


def test_the_mark_is_reached_by_keyboard_named_and_shown_when_it_is(browser, report):
    with Watched(browser, report.as_uri()) as w:
        mark = w.page.locator('a.mark[href="#result-rows_left"]')
        opacity = "e => getComputedStyle(e).opacity"
        assert mark.evaluate(opacity) == "0" and mark.get_attribute("aria-label") == "Link to rows left"
        w.page.locator('.numbers [popovertarget="result-rows_left"]').focus()
        w.page.keyboard.press("Shift+Tab")
        assert w.page.evaluate("document.activeElement.getAttribute('href')") == "#result-rows_left" and mark.evaluate(opacity) == "1"
        for _ in range(2):  # the second time the address is there already
            w.page.keyboard.press("Enter")
            w.page.wait_for_timeout(100)
            assert w.page.evaluate("location.hash") == "#result-rows_left" and w.page.locator("#result-rows_left").is_visible()
            w.page.keyboard.press("Escape")
            mark.focus()
        assert w.wrong() == []


def test_every_number_figure_and_table_has_a_mark(report):
    page = report.read_text()
    assert set(re.findall(r'<a class="mark" href="#([^"]+)"', page)) == set(expected(report).values())


def test_the_drawer_gives_the_link_away(browser, report):
    with Watched(browser, f"{report.as_uri()}#result-auc_pr") as w:
        w.page.evaluate("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve() }")
        w.page.click("#result-auc_pr [data-link]")
        assert w.page.evaluate("window.copied") == f"{report.as_uri()}#result-auc_pr"
        assert w.page.get_attribute("#result-auc_pr .address a", "href") == "#result-auc_pr"
    with Watched(browser, f"{report.as_uri()}#result-auc_pr", java_script_enabled=False) as w:
        assert w.page.locator("#result-auc_pr .address a").is_visible() and not w.page.locator("#result-auc_pr [data-link]").is_visible()


@pytest.mark.parametrize("hash_", ["%", "%E0%A4%A", "result-", "result-nothing", "main", "\"]</script>", "cell-5"])
def test_an_odd_address_does_no_harm(browser, report, hash_):
    with Watched(browser, f"{report.as_uri()}#{hash_}") as w:
        w.page.wait_for_timeout(50)
        said = [m for m in w.wrong() if "Autofocus processing was blocked" not in m]  # Chromium notes that it stays with the address
        assert said == [] and w.page.evaluate("document.querySelectorAll(':popover-open').length") == 0


def test_the_numbers_of_the_index_lead_to_the_numbers(browser, tmp_path):
    report = render(make_run(tmp_path, cells()))
    index = build_site(tmp_path)
    links = re.findall(r'href="(runs/[^"]+report\.html#[^"]+)"', index.read_text())
    assert links[0].endswith("report.html#result-anomalous_share") and len(links) == 4
    assert page_dangers(index.read_text(), "index.js", site_links(tmp_path)) == []
    with Watched(browser, index.as_uri()) as w:
        w.page.click(".inline a >> nth=2")
        assert w.page.url == f"{report.as_uri()}#result-auc_pr" and w.page.locator("#result-auc_pr").is_visible()


# --- the index: what else it shows, and that what it keeps is never old ----------------------------------------------


def test_the_index_links_to_other_pages_and_shows_the_workflow(tmp_path):
    make_run(tmp_path, good_cells())
    assert "Side by side" not in build_site(tmp_path).read_text() and "Workflow" not in build_site(tmp_path).read_text()
    for i in range(15):
        (tmp_path / "diffs").mkdir(exist_ok=True)
        (tmp_path / f"diffs/{i:02}.html").write_text(f"<title>Diff {i} &lt;script&gt;alert(1)&lt;/script&gt;</title>")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / 'sweeps/x" onload="1.html').write_text("no title")
    (tmp_path / "workflow.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><desc>prepare, then "quality"</desc>'
                                           "<script>alert(1)</script><rect onload='x' width='3' height='3'/></svg>")
    page = build_site(tmp_path).read_text()
    links = {f"diffs/{i:02}.html" for i in range(3, 15)} | {"sweeps/x%22%20onload%3D%221.html"}
    assert page_dangers(page, "index.js", site_links(tmp_path, page) | links) == []
    assert {h for h in re.findall(r'href="((?:diffs|sweeps)/[^"]+)"', page)} == links and "and 3 more in diffs/" in page
    assert "prepare, then &quot;quality&quot;" in page and page.count("Workflow</h2>") == 1
    (tmp_path / "workflow.svg").write_text("<svg")
    assert "Workflow</h2>" not in build_site(tmp_path).read_text()


def test_a_kept_line_is_never_an_old_one(tmp_path, monkeypatch):
    import esa_notebooks.files as files

    monkeypatch.setattr(files, "_TICK_NS", -(10**18))  # keep at once, as after two seconds
    folder = make_run(tmp_path, good_cells())
    other = make_run(tmp_path, good_cells(), stage="prepare")
    said = lambda: build_site(tmp_path).read_text()  # noqa: E731
    assert "report.html" not in said() and (tmp_path / "workflow/lines.json").is_file()
    assert said().count('data-status="succeeded"') == 2
    (folder / "report.html").write_text("<p>")
    assert "explore/20261124T124501Z-3fa9c1d2/report.html" in said()
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "status": "failed", "reason": {"what": "It broke."}}))
    assert "It broke." in said()
    (other / "record.json").write_text("{")
    assert 'data-status="unreadable"' in said()
    (other / "record.json").unlink()
    assert "The folder holds no record." in said()
    import shutil

    shutil.rmtree(other)
    assert said().count("data-status=") == 1 and "prepare" not in (tmp_path / "workflow/lines.json").read_text()


def test_a_running_record_is_never_kept(tmp_path, monkeypatch):
    import esa_notebooks.files as files
    from esa_notebooks.runs.record import runner

    monkeypatch.setattr(files, "_TICK_NS", -(10**18))
    make_run(tmp_path, [], status="killed", ended=None, runner=runner())
    assert 'data-status="running"' in build_site(tmp_path).read_text()
    monkeypatch.setattr("esa_notebooks.reports.words.alive", lambda record: False)
    assert 'data-status="killed"' in build_site(tmp_path).read_text()


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"x": 3}', None])
def test_a_damaged_memory_costs_time_only(tmp_path, damage):
    make_run(tmp_path, good_cells())
    before = build_site(tmp_path).read_text().split("Written")[0]
    store = tmp_path / "workflow/lines.json"
    if damage is None:
        known = {k: [v[0], {"status": 7}] for k, v in json.loads(store.read_text() if store.is_file() else "{}").items()}
        damage = json.dumps(known)
    store.parent.mkdir(exist_ok=True)
    store.write_text(damage)
    assert build_site(tmp_path).read_text().split("Written")[0] == before
