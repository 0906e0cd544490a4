# ruff: noqa: E501  (JavaScript)
"""Reports in a real browser: nothing runs but our script, nothing is fetched, and everybody can use the page."""

import importlib.util
from pathlib import Path

import pytest

from esa_notebooks.reports.render import render
from esa_notebooks.reports.site import build_site
from tests.conftest import require
from tests.reports.attacks import CELLS, HTML, MARKDOWN, RECORD
from tests.reports.conftest import FAILED, code, display, failed_cells, good_cells, make_run, md

SIZES = {"desktop": (1280, 900), "phone": (360, 740)}


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The addresses of a good, a failed and an attacked report and of the index over them."""
    reports = tmp_path_factory.mktemp("reports")
    good = render(make_run(reports, good_cells()))
    failed = render(
        make_run(
            reports, failed_cells(), run_id="20261124T140000Z-ffffffff", stage="prepare", interactive=True, **FAILED
        )
    )
    fragments = [*HTML.values(), *MARKDOWN.values()]
    cells = [
        md("# Title"),
        *(
            c
            for f in fragments
            for c in (md(f), code("x", display(data={"text/html": f}), display(data={"text/markdown": f})))
        ),
        *(c for cs in CELLS.values() for c in cs),
    ]
    record = {k: v for name, fields in RECORD.items() if name != "record status" for k, v in fields.items()}
    attacked = render(make_run(reports, cells, run_id="20261124T150000Z-eeeeeeee", stage="attacked", **record))
    (reports / "not-obtained.json").write_text(
        '[{"what": "<script>alert(1)</script>", "why": "<img src=x onerror=alert(1)>"}]'
    )
    found = {"good": good, "failed": failed, "attacked": attacked, "index": build_site(reports)}
    return {name: path.resolve().as_uri() for name, path in found.items()}


class Watched:
    """A page that remembers dialogs, requests, console messages and broken policies."""

    def __init__(self, browser, url, size="desktop", scheme="light", **more):
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        self.page, self.dialogs, self.requests, self.console, self.errors = self.context.new_page(), [], [], [], []
        self.page.on("dialog", lambda d: (self.dialogs.append(d.message), d.dismiss()))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("console", lambda m: self.console.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.add_init_script(
            "window.broken = []; document.addEventListener('securitypolicyviolation', "
            "e => window.broken.push(e.violatedDirective + ' ' + e.blockedURI))"
        )
        self.url = url
        self.page.goto(url)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def wrong(self):
        """What happened that should not have."""
        away = [r for r in self.requests if not r.startswith("data:") and r.split("#")[0] != self.url.split("#")[0]]
        return self.dialogs + away + self.console + self.errors + self.page.evaluate("window.broken")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["good", "failed", "attacked", "index"])
def test_no_dialog_no_request_no_message_no_broken_policy(browser, pages, name, scheme):
    with Watched(browser, pages[name], scheme=scheme) as w:
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        w.page.mouse.move(300, 300)
        w.page.wait_for_timeout(150)
        assert w.wrong() == []


def test_what_the_browser_built_of_the_attacks_is_harmless(browser, pages):
    with Watched(browser, pages["attacked"]) as w:
        found = w.page.evaluate("""() => [...document.querySelectorAll('*')].flatMap(e => [
            ...[...e.attributes].filter(a => /^on/i.test(a.name) || /javascript:/i.test(a.value) && ['href','src','action','data'].includes(a.name))
                .map(a => e.tagName + ' ' + a.name),
            ...(/^(iframe|object|embed|form|base|link|frame|frameset|portal|applet|svg|foreignobject|annotation-xml|template|noscript)$/i
                .test(e.localName) ? [e.localName] : [])])""")
        assert found == []
        assert w.page.evaluate("document.scripts.length") == 1
        ids = w.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id).filter(i => !i.startsWith('T_'))")
        assert len(ids) == len(set(ids))
        assert w.page.evaluate("getComputedStyle(document.body).display") == "block"
        assert w.page.evaluate("getComputedStyle(document.querySelector('.status')).visibility") == "visible"


def test_a_script_that_is_not_ours_is_refused_by_the_policy(browser, pages, tmp_path):
    changed = tmp_path / "changed.html"
    changed.write_text(
        Path(pages["good"].removeprefix("file://")).read_text().replace("</main>", "<script>alert(1)</script></main>")
    )
    with Watched(browser, changed.as_uri()) as w:
        w.page.wait_for_timeout(100)
        assert w.dialogs == [] and any("script-src" in b for b in w.page.evaluate("window.broken"))


@pytest.mark.parametrize("name", ["good", "failed", "attacked", "index"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_never_scrolls_sideways(browser, pages, name, size):
    with Watched(browser, pages[name], size=size) as w:
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        wide = w.page.evaluate("""() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
            [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, pre, .math'))
                .slice(0, 5).map(e => e.outerHTML.slice(0, 120))""")
        assert wide == []
        assert w.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["good", "failed", "index"])
def test_axe_finds_nothing_serious(browser, pages, name, size, scheme):
    require("axe", importlib.util.find_spec("axe_playwright_python"), "axe-playwright-python is not installed")
    import axe_playwright_python

    axe = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text()
    with Watched(
        browser, pages[name], size=size, scheme=scheme, bypass_csp=True
    ) as w:  # only so that axe itself may run
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        w.page.evaluate(axe + "; null")
        if name == "good":
            w.page.evaluate("document.querySelector('.from').showPopover()")
        assert w.page.evaluate("async () => (await axe.run()).passes.length") > 20  # axe did look
        found = w.page.evaluate(
            "async () => (await axe.run()).violations.filter(v => ['serious', 'critical'].includes(v.impact))"
            ".map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 150) + ' ' + n.failureSummary).join(' | '))"
        )
        assert found == []


def test_a_number_opens_by_keyboard_and_escape_closes_it(browser, pages):
    with Watched(browser, pages["good"]) as w:
        w.page.focus(".key .n")
        w.page.keyboard.press("Enter")
        assert w.page.locator("#result-anomalous_share").is_visible()
        assert "7.15114" in w.page.inner_text("#result-anomalous_share")
        assert w.page.evaluate("document.activeElement.closest('[popover]')?.id") == "result-anomalous_share"
        w.page.keyboard.press("Escape")
        assert not w.page.locator("#result-anomalous_share").is_visible()
        assert w.page.evaluate("document.activeElement.className") == "n"


@pytest.mark.parametrize("script", [True, False])
def test_the_address_of_a_number_shows_its_provenance(browser, pages, script):
    with Watched(browser, pages["good"] + "#result-rows", java_script_enabled=script) as w:
        assert w.page.locator("#result-rows").is_visible()
        assert not w.page.locator("#result-auc_pr").is_visible()


def test_without_a_script_numbers_still_open(browser, pages):
    with Watched(browser, pages["good"], java_script_enabled=False) as w:
        w.page.click(".key .n")
        assert w.page.locator("#result-anomalous_share").is_visible()
        assert not w.page.locator("#all-code").is_visible()


def test_tab_reaches_the_skip_link_the_numbers_and_the_wide_tables(browser, pages):
    with Watched(browser, pages["good"]) as w:
        reached = []
        for _ in range(40):
            w.page.keyboard.press("Tab")
            reached.append(w.page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        assert reached[0] == "skip" and "n" in reached and "scroll" in reached and "SUMMARY" in reached


def test_all_code_opens_and_a_link_to_a_cell_opens_that_cell(browser, pages):
    with Watched(browser, pages["good"]) as w:
        assert not w.page.locator("#cell-5 pre").is_visible()
        w.page.click(".key .n")
        w.page.click("#result-anomalous_share a[href='#cell-5']")
        assert w.page.locator("#cell-5 pre").is_visible() and not w.page.locator("#result-anomalous_share").is_visible()
        w.page.click("#all-code")
        assert w.page.locator("#cell-9 pre").is_visible()


def test_figures_are_dark_on_a_dark_page_and_light_on_a_light_one(browser, pages):
    import io

    from PIL import Image

    darkest = {}
    for scheme in ("light", "dark"):
        with Watched(browser, pages["good"], scheme=scheme) as w:
            shot = Image.open(io.BytesIO(w.page.locator("figure.picture img").screenshot())).convert("L")
            darkest[scheme] = shot.getpixel((2, 2)), *shot.getextrema()
    assert darkest["light"][0] > 240 and darkest["light"][1] < 90  # white paper, dark ink
    assert darkest["dark"][0] < 40 and darkest["dark"][2] > 150  # dark paper, light ink


def test_print_is_light_and_shows_where_the_numbers_come_from(browser, pages):
    with Watched(browser, pages["good"], scheme="dark") as w:
        w.page.emulate_media(media="print", color_scheme="dark")
        assert w.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert w.page.locator(".declared").is_visible() and not w.page.locator("nav.contents").is_visible()
        assert w.page.locator(".appendix .hash").first.is_visible()
        assert w.page.pdf(format="A4")[:5] == b"%PDF-"


def test_the_filter_of_the_index(browser, pages):
    with Watched(browser, pages["index"]) as w:
        rows = w.page.locator("#runs tbody tr")
        assert rows.count() == 3 and w.page.inner_text("#count") == "3 runs"
        w.page.select_option("#status", "failed")
        assert rows.locator("visible=true").count() == w.page.locator("#runs tbody tr[data-status=failed]").count() == 2
        w.page.fill("#words", "bus voltage")
        assert w.page.inner_text("#count") == "1 of 3 runs"
        w.page.fill("#words", "nowhere to be found")
        assert w.page.inner_text("#count") == "0 of 3 runs"
        assert w.wrong() == []


def test_without_a_script_the_index_shows_everything(browser, pages):
    with Watched(browser, pages["index"], java_script_enabled=False) as w:
        assert w.page.locator("#runs tbody tr").locator("visible=true").count() == 3
        assert not w.page.locator("#filter").is_visible()
