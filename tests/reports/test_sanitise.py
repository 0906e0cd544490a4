"""Attacks from published collections, each through the sanitiser and through a whole report; and what must survive."""

import base64
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from esa_notebooks.reports import sanitise
from esa_notebooks.reports.markdown import markdown
from esa_notebooks.reports.page import asset
from esa_notebooks.reports.render import render
from esa_notebooks.reports.site import build_site
from tests.reports.attacks import CELLS, HTML, MARKDOWN, PIXEL, RECORD, SVG
from tests.reports.conftest import code, display, make_run, md

FORBIDDEN = {
    "meta",
    "iframe",
    "object",
    "embed",
    "applet",
    "base",
    "form",
    "link",
    "svg",
    "foreignobject",
    "frame",
    "frameset",
    "input",
    "textarea",
    "select",
    "template",
    "noscript",
    "video",
    "audio",
    "source",
    "marquee",
    "portal",
    "dialog",
    "map",
    "area",
    "isindex",
    "annotation-xml",
    "maction",
    "mglyph",
    "malignmark",
    "esa-math",
    "xmp",
    "plaintext",
    "animate",
    "math-x",
}
OURS = {"status", "from", "wrong", "key", "n", "hidden", "skip"}
URLS = {
    "href",
    "src",
    "action",
    "formaction",
    "srcset",
    "xlink:href",
    "data",
    "poster",
    "background",
    "ping",
    "srcdoc",
    "codebase",
    "cite",
}
LINK = re.compile(r"https?://\S+|mailto:\S+|#\S*", re.I)
IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,([A-Za-z0-9+/]+={0,2})")


class Seen(HTMLParser):
    """Everything that a page holds: tags with attributes, scripts and style sheets."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.sheets, self.ids, self.inside = [], [], [], [], None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))
        self.ids += [v for n, v in attrs if n == "id"]
        self.inside = tag if tag in ("script", "style") else None
        if self.inside:
            (self.scripts if tag == "script" else self.sheets).append("")

    def handle_data(self, data):
        if self.inside:
            (self.scripts if self.inside == "script" else self.sheets)[-1] += data

    def handle_endtag(self, tag):
        self.inside = None


def dangers(page, scripts=(), own_sheets=(), allowed=(), also_links=()):
    """What is wrong with `page`: an empty list for a safe one."""
    seen, wrong = Seen(page), []
    wrong += ["a script that is not ours"] * (seen.scripts != list(scripts))
    for sheet in seen.sheets:
        if sheet in own_sheets:
            continue
        selectors = [s.strip() for rule in re.findall(r"([^{}]+)\{", sheet) for s in rule.split(",")]
        wrong += [f"style for {s}" for s in selectors if not s.startswith("#T_") or "~" in s or "+" in s]
        wrong += ["style that fetches"] * bool(re.search(r"url|@|expression|\\", sheet, re.I))
    for tag, attrs in seen.tags:
        if tag in FORBIDDEN - set(allowed):
            wrong.append(f"<{tag}>")
        for name, value in attrs:
            value = value or ""
            if not scripts and (name.startswith("popover") or name == "class" and OURS & set(value.split())):
                wrong.append(f"{tag} {name}={value}, which is for the page alone")
            if name.startswith("on"):
                wrong.append(f"{tag} {name}")
            if name == "style" and re.search(r"url|expression|position|behavior|binding|\\|@", value, re.I):
                wrong.append(f"{tag} style={value}")
            if name == "src":
                match = IMAGE.fullmatch(value)
                wrong += [f"{tag} src={value[:40]}"] * (not match or tag != "img")
                if match and match.group(1) == "svg+xml":
                    inside = base64.b64decode(match.group(2)).decode()
                    wrong += [
                        "in an SVG: " + m
                        for m in re.findall(
                            r"<script|<[^>]*\son\w+=|foreignObject|javascript:|https?://evil|<animate|@import", inside
                        )
                    ]
            elif name == "href":
                wrong += [f"{tag} href={value}"] * (not LINK.fullmatch(value) and value not in also_links)
            elif name in URLS:
                wrong.append(f"{tag} {name}={value}")
    wrong += [f"id {i} twice" for i in set(seen.ids) if seen.ids.count(i) > 1 and not i.startswith("T_")]
    return wrong


def page_dangers(page, script="page.js", also_links=("../../../index.html",)):
    """What is wrong with a whole page of ours."""
    allowed = {"meta", "input", "select"} if script == "index.js" else {"meta"}
    wrong = dangers(
        page, scripts=[asset(script)], own_sheets=Seen(page).sheets[:1], allowed=allowed, also_links=also_links
    )
    meta = [dict(a) for t, a in Seen(page).tags if t == "meta"]
    wrong += ["a meta of another hand"] * (len(meta) != 6)
    popovers = [dict(a) for _, a in Seen(page).tags if "popover" in dict(a)]
    wrong += ["a popover of another hand"] * any(set(p.get("class", "").split()) != {"from"} for p in popovers)
    return wrong


def attacked_cells(fragment):
    return [
        md("# Title"),
        md(fragment),
        code("x", display(data={"text/html": fragment}), display(data={"text/markdown": fragment})),
    ]


@pytest.mark.parametrize("name", HTML)
def test_html_attack(name, tmp_path):
    assert dangers(sanitise.clean(HTML[name])) == []
    assert dangers(markdown(HTML[name])) == []
    assert page_dangers(render(make_run(tmp_path, attacked_cells(HTML[name]))).read_text()) == []


@pytest.mark.parametrize("name", MARKDOWN)
def test_markdown_attack(name, tmp_path):
    assert dangers(markdown(MARKDOWN[name])) == []
    assert page_dangers(render(make_run(tmp_path, attacked_cells(MARKDOWN[name]))).read_text()) == []


@pytest.mark.parametrize("name", CELLS)
def test_cell_attack(name, tmp_path):
    run = make_run(tmp_path, [md("# Title"), *CELLS[name]])
    assert page_dangers(render(run).read_text()) == []
    assert page_dangers(build_site(tmp_path).read_text(), "index.js", site_links(tmp_path)) == []


@pytest.mark.parametrize("name", [n for n in RECORD if n != "record status"])
def test_record_attack(name, tmp_path):
    run = make_run(tmp_path, [md("# Title")], **RECORD[name])
    assert page_dangers(render(run).read_text()) == []
    assert page_dangers(build_site(tmp_path).read_text(), "index.js", site_links(tmp_path)) == []


def test_record_attack_status(tmp_path):
    make_run(tmp_path, [], **RECORD["record status"])
    assert page_dangers(build_site(tmp_path).read_text(), "index.js", site_links(tmp_path)) == []


def test_attack_through_the_names_of_folders(tmp_path):
    run = make_run(tmp_path, [], stage='x"><img src=x onerror=alert(1)>', run_id="y'><script>alert(1)<&")
    render(run)
    page = build_site(tmp_path).read_text()
    assert page_dangers(page, "index.js", site_links(tmp_path, page)) == [] and "%22%3E%3Cimg" in page


def test_attack_through_what_was_not_obtained(tmp_path):
    tmp_path.joinpath("not-obtained.json").write_text(
        '[{"what": "<script>alert(1)</script>", "why": "<img src=x onerror=alert(1)>", "do": "<b>", "when": "<i>"}]'
    )
    assert page_dangers(build_site(tmp_path).read_text(), "index.js") == []


def site_links(reports, page=""):
    """The links to reports that the index may hold: relative, into runs/."""
    return set(
        re.findall(r'href="(runs/[A-Za-z0-9%._/-]+/report\.html(?:#(?:result|measurement)-[a-z0-9_]+)?)"', page or (reports / "index.html").read_text())
    )


def test_there_are_at_least_forty_attacks():
    names = [*HTML, *MARKDOWN, *CELLS, *RECORD]
    assert len(names) == len(set(names)) >= 140
    assert len(HTML) >= 40


def test_the_check_itself_sees_danger():
    for bad in (
        "<script>1</script>",
        "<p onclick=x>",
        '<a href="javascript:x">',
        "<iframe>",
        "<style>p{}</style>",
        '<p style="position:fixed">',
        '<img src="https://x.example">',
        "<p id=a></p><p id=a></p>",
    ):
        assert dangers(bad), bad


# ---- what must survive ------------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"channel": ["bus", "wheel"], "missing": [0.25, 1.5]})


def shown(*outputs):
    return [md("# Title"), code("x", *outputs)]


def test_good_pandas_table(tmp_path):
    page = render(
        make_run(tmp_path, shown(display(data={"text/html": FRAME.to_html(), "text/plain": "x"})))
    ).read_text()
    assert "<td>bus</td>" in page and "<td>1.50</td>" in page and 'class="dataframe"' in page and page.count("<th") >= 5


def test_good_multiindex_table():
    table = pd.concat({"orbit 1": FRAME, "orbit 2": FRAME}, axis=1).set_axis(
        pd.MultiIndex.from_product([["a"], [1, 2]])
    )
    out = sanitise.clean(table.to_html())
    assert out.count("colspan") == 2 and out.count("rowspan") >= 1 and "missing" in out and "1.5" in out


def test_good_styler_with_colours_and_bars():
    html = (
        FRAME.style.background_gradient(cmap="cividis", subset=["missing"])
        .bar(subset=["missing"])
        .set_caption("Gaps")
        .to_html()
    )
    out = sanitise.clean(html)
    ids = set(re.findall(r"#(T_\w+)", out))
    assert ids and all(f'id="{i}"' in out for i in ids if "row" in i)
    assert "linear-gradient" in out and "Gaps</caption>" in out and "1.500000" in out


@pytest.mark.parametrize(
    "media,begin", [("image/png", PIXEL), ("image/gif", "R0lGODlhAQABAAAAACw="), ("image/jpeg", "/9j/4AAQSkZJRgABAQ==")]
)
def test_good_picture(media, begin, tmp_path):
    page = render(make_run(tmp_path, shown(display(data={media: begin + "\n"})))).read_text()
    assert f"data:{media};base64,{begin}" in page


def test_good_svg_as_an_image(tmp_path):
    drawing = '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x">'
    drawing += (
        f'<svg xmlns="{SVG}" viewBox="0 0 9 9"><defs><clipPath id="a"><rect width="9" height="9"/></clipPath></defs>'
    )
    drawing += '<g clip-path="url(#a)"><path d="M0 0L9 9" style="stroke: #1b2127"/></g></svg>'
    page = render(make_run(tmp_path, shown(display(data={"image/svg+xml": drawing})))).read_text()
    inside = base64.b64decode(re.search(r"svg\+xml;base64,([^\"]+)", page).group(1)).decode()
    assert "M0 0L9 9" in inside and 'clip-path="url(#a)"' in inside and "<clipPath" in inside


def test_good_svg_inside_html_output():
    out = sanitise.clean('<div><svg width="9" height="9"><circle r="3"></circle></svg> and text</div>')
    assert "image/svg+xml" in out and "and text" in out


def test_good_details():
    out = sanitise.clean("<details open><summary>More</summary><p>text</p></details>")
    assert out == '<details open=""><summary>More</summary><p>text</p></details>'


def test_good_mathematics():
    out = markdown("Inline $\\alpha_1^2 < \\frac{1}{2}$ and\n\n$$\\sum_{i=0}^n x_i$$\n\nand `$not$` maths, $5 or $6.")
    assert out.count("<math") == 2 and "<mfrac>" in out and "<munderover>" in out or "<msubsup>" in out
    assert "<code>$not$</code>" in out and "$5 or $6" in out


def test_good_mathematics_that_cannot_be_read_is_shown_as_code():
    out = markdown("so $\\nosuchthing{x}$ it is")
    assert "<code>\\nosuchthing{x}</code>" in out


def test_good_links():
    out = markdown("[a](https://example.org/x?a=1&b=2) <mailto:a@example.org> [here](#The-Data)\n\n# The Data")
    assert out.count('rel="noopener noreferrer"') == 3
    assert "https://example.org/x?a=1&amp;b=2" in out and "mailto:a@example.org" in out and 'href="#s-the-data"' in out


def test_good_code_and_nested_lists():
    out = markdown("- a\n  - b\n    1. c\n\n```python\nx = 1 < 2\n```\n\n~~gone~~")
    assert out.count("<ul>") == 2 and "<ol>" in out and "x = 1 &lt; 2" in out and "<del>gone</del>" in out


def test_good_unicode(tmp_path):
    words = "Größe, Привет, 日本語, 😀, ‮right to left‬, a\u0301, half \ud83d"
    page = render(
        make_run(tmp_path, [md(f"# Title\n\n{words}"), code("x", display(data={"text/plain": words}))])
    ).read_text()
    for word in ("Größe", "Привет", "日本語", "😀", "half \ufffd"):
        assert page.count(word) == 2, word


def test_good_attachment(tmp_path):
    page = render(
        make_run(tmp_path, [md("![a dot](attachment:dot.png)", attachments={"dot.png": {"image/png": PIXEL}})])
    ).read_text()
    assert f'src="data:image/png;base64,{PIXEL}" alt="a dot"' in page
