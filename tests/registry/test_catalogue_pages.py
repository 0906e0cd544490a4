"""The pages of the catalogue in a real browser: search, filters, order; hostile texts; phones, paper, the dark."""

import importlib.util
import json
import re
import shutil
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from esa_notebooks.registry.catalogue import catalogue_of
from esa_notebooks.registry.catalogue_pages import build_catalogue
from esa_notebooks.registry.catalogue_sources import Amiss, Material
from esa_notebooks.registry.catalogue_words import slug, sound
from tests.conftest import require
from tests.registry.catalogue_world import AT, World, declaration, showcase, world
from tests.reports.attacks import HTML
from tests.reports.test_browser import SIZES, Watched


def built(agency, **more):
    material = agency.gathered(**more)
    return build_catalogue(catalogue_of(material, AT), agency.reports, material.hrefs)


def attacked(folder: Path) -> World:
    """An agency of which every text is an attack: declarations, journal, alarms, names in the tracking store."""
    made, evil = showcase(folder), list(HTML.values())
    path = made.models / "star-tracker.yaml"
    text = declaration("star-tracker", "T", "llm", "technical", "procurement", "high", "telemetry", AT.date())
    told = {"title": evil[0], "purpose": " ".join(evil), "kpi": evil[7], "rollback": evil[20], "energy": evil[3]}
    held = {**yaml.safe_load(text), **told}
    held["consumers"][0]["contact"] = "javascript:alert(1)//@example.org"
    path.write_text(yaml.safe_dump(held))
    for n, text in enumerate(evil):
        made.alarm(f"evil-{n}", text if n < 12 else "star-tracker", said=text, kind=text, retrain=text, channels=[text])
    who = {"model": "star-tracker", "by": evil[0], "reason": evil[1], "version": evil[2], "at": AT - timedelta(days=1)}
    made.told += [{**who, "event": e} for e in ("challenger", "champion", "rolled_back", "retired", "refused")]
    return made.done()


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """The front pages of three agencies: one as it should be, one of attacks, one with seventy models."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("good", "attacked", "many")}
    evil = list(HTML.values())
    return {
        "good": built(showcase(folders["good"]), registered=["somebodys-test"]),
        "attacked": built(attacked(folders["attacked"]), registered=evil, amiss=[Amiss(e, e) for e in evil]),
        "many": built(world(folders["many"], 70)),
    }


@pytest.fixture(scope="module")
def pages(sites):
    """Addresses by name."""
    found = {name: page for name, page in sites.items()}
    found["model"] = sites["good"].parent / "models/opssat-anomalies.html"
    found["undeclared"] = sites["good"].parent / "models/night-reader.html"
    found["data"] = sites["good"].parent / "data/opssat.html"
    found["attacked model"] = sites["attacked"].parent / "models/star-tracker.html"
    return {name: page.resolve().as_uri() for name, page in found.items()}


class Links(HTMLParser):
    """The addresses a page links to, and its ids."""

    def __init__(self, page: Path):
        super().__init__()
        self.hrefs, self.ids = [], []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        held = dict(attrs)
        self.hrefs += [held.get("href")] * ("href" in held)
        self.ids += [held.get("id")] * ("id" in held)


@pytest.mark.parametrize("name", ["good", "attacked", "many"])
def test_every_link_leads_somewhere_and_every_id_is_there_once(sites, name):
    reports = sites[name].parents[1]
    pages = [*sites[name].parent.rglob("*.html")]
    assert len(pages) > 20
    (reports / "index.html").touch()  # the index of reports, which another command writes
    for page in pages:
        links = Links(page)
        assert len(links.ids) == len(set(links.ids)), page
        for href in links.hrefs:
            target = urlsplit(href)
            if target.scheme:
                assert re.fullmatch(r"mailto:[\w.+-]+@[\w.-]+", href), (page, href)
            elif target.path:
                assert (page.parent / unquote(target.path)).resolve().is_relative_to(reports.resolve())
                assert (page.parent / unquote(target.path)).is_file(), (page, href)
            else:
                assert target.fragment in links.ids, (page, href)


@pytest.mark.parametrize("name", ["good", "model", "data", "undeclared", "attacked", "attacked model"])
def test_nothing_runs_but_our_script_and_nothing_is_fetched(browser, pages, name):  # noqa: F811
    with Watched(browser, pages[name]) as w:
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        w.page.mouse.move(300, 300)
        w.page.wait_for_timeout(100)
        assert w.wrong() == []
        assert w.page.evaluate("document.scripts.length") == 1


def test_what_the_browser_built_of_the_attacks_is_text(browser, sites, pages):  # noqa: F811
    every = sorted(sites["attacked"].parent.rglob("*.html"))
    named = [p for p in every if p.name.startswith("name-")]
    assert len(named) > 50  # one for each attack that is a model's name
    for page in [sites["attacked"], *named[::20], sites["attacked"].parent / "models/star-tracker.html"]:
        with Watched(browser, page.resolve().as_uri()) as w:
            found = w.page.evaluate("""() => [...document.querySelectorAll('*')].flatMap(e => [
                ...[...e.attributes].filter(a => /^on/i.test(a.name) || ['href', 'src', 'action'].includes(a.name)
                    && /^(?!mailto:)[^/]*script/i.test(a.value)).map(a => e.tagName + a.name),
                ...(/^(img|iframe|object|embed|form|base|link|svg|math|template|video|audio|marquee)$/i
                    .test(e.localName) ? [e.localName] : [])])""")
            assert found == [] and w.wrong() == [], page
    with Watched(browser, pages["attacked model"]) as w:
        assert "<script>alert(1)</script>" in w.page.inner_text("h1")


@pytest.mark.parametrize("name", ["good", "model", "data", "undeclared", "attacked", "attacked model"])
def test_the_page_never_scrolls_sideways(browser, pages, name):  # noqa: F811
    with Watched(browser, pages[name]) as w:
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for size, (width, height) in SIZES.items():
            w.page.set_viewport_size({"width": width, "height": height})
            wide = w.page.evaluate("""() => {
                const page = document.documentElement
                return page.scrollWidth <= page.clientWidth ? [] :
                [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre')
                    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))}""")
            assert wide == [], size


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
@pytest.mark.parametrize("name", ["good", "model", "data"])
def test_axe_finds_nothing_serious(browser, pages, name, size, scheme):  # noqa: F811
    require("axe", importlib.util.find_spec("axe_playwright_python"), "axe-playwright-python is not installed")
    import axe_playwright_python

    axe = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text()
    with Watched(browser, pages[name], size=size, scheme=scheme, bypass_csp=True) as w:  # only so that axe may run
        w.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        w.page.evaluate(axe + "; null")
        assert w.page.evaluate("async () => (await axe.run()).passes.length") > 15  # axe did look
        found = w.page.evaluate(
            "async () => (await axe.run()).violations.filter(v => ['serious', 'critical'].includes(v.impact))"
            ".map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 150) + n.failureSummary).join(' | '))"
        )
        assert found == []


def seen(w):
    return w.page.locator("#models tbody tr").locator("visible=true").locator("th a").all_inner_texts()


def test_the_search_finds_what_it_should_and_nothing_else(browser, pages):  # noqa: F811
    with Watched(browser, pages["good"]) as w:
        assert len(seen(w)) == 12 and w.page.inner_text("#count") == "12 models"
        w.page.fill("#words", "TENDERS summaries")  # words in any order and case
        assert (
            seen(w) == ["Summaries of tenders for the evaluation board"]
            and w.page.inner_text("#count") == "1 of 12 models"
        )
        w.page.fill("#words", "flight dynamics")  # an owner
        assert len(seen(w)) == 4
        w.page.fill("#words", "no such model")
        assert seen(w) == [] and w.page.is_visible("#nobody")
        w.page.click("#reset")
        assert len(seen(w)) == 12 and not w.page.is_visible("#nobody") and w.wrong() == []


def test_filters_add_up_and_a_filtered_view_has_an_address(browser, pages):  # noqa: F811
    with Watched(browser, pages["good"]) as w:
        w.page.select_option("#domain", "operational")
        w.page.select_option("#state", "awaiting")
        assert seen(w) == ["Anomalous segments of OPS-SAT telemetry"]
        address = w.page.evaluate("location.href")
        assert "#state=awaiting&domain=operational" in address
    with Watched(browser, address) as w:
        assert seen(w) == ["Anomalous segments of OPS-SAT telemetry"] and w.page.input_value("#domain") == "operational"
    with Watched(browser, pages["good"] + "#state=%3Cscript%3E&words=%") as w:  # an address somebody made up
        assert len(seen(w)) == 12 and w.wrong() == []


def test_a_number_on_top_leads_to_the_rows_it_counts(browser, pages):  # noqa: F811
    with Watched(browser, pages["good"]) as w:
        for label in ("in production", "await approval", "open alarms", "without a declaration"):
            link = w.page.locator(".key a", has_text=label)
            count = int(link.locator(".value").inner_text())
            link.click()
            assert len(seen(w)) == count > 0, label


def test_columns_sort_both_ways_and_what_is_not_known_stands_last(browser, pages):  # noqa: F811
    with Watched(browser, pages["good"]) as w:
        w.page.click("#models thead th:nth-child(3) button")
        figures = w.page.locator("#models tbody td:nth-child(3)").evaluate_all("all => all.map(c => c.dataset.sort)")
        known = [float(f) for f in figures if f]
        assert known == sorted(known) and figures[len(known) :] == [""] * (12 - len(known))
        assert w.page.get_attribute("#models thead th:nth-child(3)", "aria-sort") == "ascending"
        w.page.focus("#models thead th:nth-child(3) button")
        w.page.keyboard.press("Enter")
        figures = w.page.locator("#models tbody td:nth-child(3)").evaluate_all("all => all.map(c => c.dataset.sort)")
        assert [float(f) for f in figures if f] == sorted(known, reverse=True) and figures[-1] == ""
        w.page.select_option("#risk", "high")  # a filter keeps working on sorted rows
        assert len(seen(w)) == 2


def test_without_a_script_everything_is_there(browser, pages):  # noqa: F811
    with Watched(browser, pages["many"], java_script_enabled=False) as w:
        assert w.page.locator("#models tbody tr").locator("visible=true").count() == 70
        assert not w.page.is_visible("#filter") and w.page.locator(".sort").count() == 0
        assert w.page.locator("summary", has_text="more").count() == 1  # of what waits, the rest is folded away


def test_print_is_light_and_has_no_controls(browser, pages):  # noqa: F811
    with Watched(browser, pages["good"], scheme="dark") as w:
        w.page.emulate_media(media="print", color_scheme="dark")
        assert w.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert not w.page.is_visible("#filter") and w.page.is_visible("#models")
        assert w.page.pdf(format="A4")[:5] == b"%PDF-"


def test_a_page_of_a_model_that_is_gone_goes_too_and_json_is_beside(tmp_path):
    agency = showcase(tmp_path)
    front = built(agency)
    assert (front.parent / "models/invoice-words.html").is_file() and (front.parent / "data/invoices.html").is_file()
    (agency.models / "invoice-words.yaml").unlink()
    built(agency)
    assert (
        not (front.parent / "models/invoice-words.html").exists() and not (front.parent / "data/invoices.html").exists()
    )
    told = json.loads((front.parent / "catalogue.json").read_text())
    assert [m["name"] for m in told["models"]] == sorted(p.stem for p in (front.parent / "models").iterdir())


def test_the_same_files_give_the_same_pages(tmp_path):
    agency = showcase(tmp_path)
    first = {p: p.read_bytes() for p in built(agency).parent.rglob("*") if p.is_file()}
    shutil.rmtree(agency.reports / "catalogue")
    assert {p: p.read_bytes() for p in built(agency).parent.rglob("*") if p.is_file()} == first


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "", "a/b", "con\x00", "x" * 300, "\ud800", "a b", ".hidden", "ä"]
)
def test_a_name_that_is_no_file_name_becomes_one(tmp_path, name):
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", slug(name)) and slug(name) not in (".", "..")
    front = build_catalogue(catalogue_of(Material(registered=frozenset({name})), AT), tmp_path)
    assert len(list((front.parent / "models").iterdir())) == 1


def test_marks_that_turn_the_direction_of_writing_are_taken_out():
    assert sound("opssat\u202egnp.exe\u2066\x07") == "opssatgnp.exe\ufffd"


def test_of_many_rows_the_first_are_laid_out_and_all_of_them_searched_sorted_and_printed(browser, pages):  # noqa: F811
    with Watched(browser, pages["many"]) as w:
        assert len(seen(w)) == 40 and w.page.inner_text("#count") == "70 models"
        w.page.click("#models thead th:nth-child(1) button")
        w.page.click("#models thead th:nth-child(1) button")
        assert seen(w)[0].startswith("Unusual states")  # the last of all, not of those that were laid out
        w.page.fill("#words", "anomalous variant")
        assert w.page.inner_text("#count") == "7 of 70 models" and len(seen(w)) == 7
        w.page.fill("#words", "")
        w.page.click("#more")
        assert len(seen(w)) == 70 and not w.page.is_visible("#more")
        w.page.fill("#words", "e")
        assert len(seen(w)) == 40
        w.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert len(seen(w)) == 70
