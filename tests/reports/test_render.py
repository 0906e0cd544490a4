"""Reports of every status, of notebooks that are absent, broken or huge, and what each page has to say."""

import json
import re
import time

import pytest

from esa_notebooks import style
from esa_notebooks.reports import page as page_module
from esa_notebooks.reports import words
from esa_notebooks.reports.render import render
from esa_notebooks.runs import declare
from esa_notebooks.runs.record import RecordError, runner
from tests.reports.conftest import RUN_ID, code, declared, display, good_cells, make_run, md, stream
from tests.reports.test_sanitise import Seen, page_dangers

REASON = {"what": "What went wrong.", "where": "Where it went wrong.", "do": "What to do about it."}


def text(page):
    """The words of a page, in order, without script and style."""
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_head_says_status_question_answer_numbers_and_origin_in_this_order(good_run):
    said = text(render(good_run).read_text())
    order = [
        "explore",
        "Succeeded",
        "Can the shuttle telemetry carry a detector of anomalies?",
        "Yes: 7.2 % of 49,097 rows",
        "the mission data board",
        "anomalous rows",
        "7.2 %",
        "interval 6.9 to 7.4 %",
        "49,097",
        f"Run {RUN_ID}",
        "24 November 2026, 12:45 UTC",
        "took 42 s",
        "commit ",
    ]
    at = -1
    for part in order:
        assert said.find(part, at + 1) > at, part
        at = said.find(part, at + 1)


def test_the_page_is_self_contained_and_its_policy_is_exact(good_run):
    page = render(good_run).read_text()
    assert page_dangers(page) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page).group(1).replace("&#39;", "'")
    assert re.fullmatch(
        r"default-src 'none'; script-src 'sha256-[A-Za-z0-9+/]{43}='; style-src 'unsafe-inline'; img-src data:; "
        r"base-uri 'none'; form-action 'none'",
        policy,
    )
    assert policy == page_module.policy(Seen(page).scripts[0])
    assert page.index("Content-Security-Policy") < page.index("<style>") and "http://" not in page.replace(
        "http://www.w3.org", ""
    )


def test_every_declared_number_opens_its_provenance(good_run):
    page = render(good_run).read_text()
    record = json.loads((good_run / "record.json").read_text())
    names = [d["name"] for d in record["declarations"] if d["kind"] in ("result", "measurement")]
    assert len(names) == 5
    for name in names:
        assert f'popovertarget="result-{name}"' in page and f'id="result-{name}"' in page
        drawer = page.split(f'id="result-{name}"')[1].split("</section>")[0]
        said = re.sub(r"<[^>]+>", "", drawer)
        for part in (
            record["inputs"][0]["sha256"],
            record["git"]["commit"],
            "dataset",
            "shuttle",
            "window",
            "given",
            "default",
            "esa-notebooks verify 20261124T124501Z-3fa9c1d2 --execute",
            record["command"],
        ):
            assert part in said, (name, part)
        cell = next(d for d in record["declarations"] if d["name"] == name)
        digest = next(c["sha256"] for c in record["code"]["cells"] if c["id"] == cell["cell_id"])
        assert (
            digest in said and f'href="#cell-{cell["cell"] + 1}"' in drawer and f'id="cell-{cell["cell"] + 1}"' in page
        )
    assert "7.15114" in page and "6.926 to 7.383" in page


def test_a_measurement_is_shown_with_spread_and_apart(good_run):
    said = text(render(good_run).read_text())
    assert "≈ 0.42 s ± 0.05 s; measured on this machine, outside equality" in said


@pytest.mark.parametrize("status", ["failed", "timed_out", "killed", "cancelled"])
def test_a_run_that_did_not_succeed_says_so_first(status, tmp_path):
    page = render(make_run(tmp_path, good_cells(), status=status, reason=REASON)).read_text()
    said = text(page)
    word = {"failed": "Failed", "timed_out": "Timed out", "killed": "Killed", "cancelled": "Cancelled"}[status]
    assert (
        said.index(word)
        < said.index(REASON["what"])
        < said.index(REASON["where"])
        < said.index(REASON["do"])
        < said.index("Yes: 7.2")
    )
    assert "Declared before the run stopped" in said and "Succeeded" not in said and f'class="status {status}"' in page


def test_a_failed_run_shows_its_traceback_at_the_top_and_cells_not_run(failed_run):
    page = render(failed_run).read_text()
    head, body = page.split("<main", 1)
    assert "<details open><summary>Traceback: KeyError" in head and 'class="ansi-red-fg"' in head and "----&gt;" in head
    assert (
        'href="#cell-7"' in head
        and "Code, cell 7, failed" in body
        and body.count("not run</summary>") == 4
        and "4 cells did not run." in body
    )


def test_dirty_interactive_and_drifted_are_said(tmp_path):
    record = {"interactive": True, "git": {"commit": "a" * 40, "dirty": True, "why": None}}
    page = text(render(make_run(tmp_path, [], **record)).read_text())
    assert "interactively" in page and "uncommitted changes" in page and "commit aaaaaaaaaa with changes" in page
    page = text(
        render(make_run(tmp_path, [], git={"commit": None, "dirty": None, "why": "not a git checkout"})).read_text()
    )
    assert "no commit" in page and "not a git checkout" in page


@pytest.mark.parametrize(
    "why,who",
    [
        ("in progress", runner()),
        ("killed", {"pid": 1, "host": "elsewhere", "boot_id": "x"}),
        ("killed", {**runner(), "pid": 2**22 + 1}),
        ("killed", {**runner(), "boot_id": "an earlier one"}),
        ("killed", None),
    ],
)
def test_a_run_without_an_end_is_in_progress_or_killed(why, who, tmp_path):
    page = text(
        render(
            make_run(tmp_path, [], status="killed", ended=None, duration_s=None, reason=None, runner=who)
        ).read_text()
    )
    assert ("In progress" in page) == (why == "in progress") and ("The runner ended without a word." in page) == (
        why == "killed"
    )


@pytest.mark.parametrize(
    "content,said",
    [
        (None, "is missing"),
        (b"", "cannot be read"),
        (b'{"cells": [{"cell_ty', "cannot be read"),
        (b"[1, 2]", "cannot be read"),
        (b'{"cells": 3}', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b'{"cells": [' + b"[" * 100_000, "cannot be read"),
        (b'{"cells": [1, null, "x", {}]}', ""),
        (b'{"cells": [{"cell_type": "code", "source": ["a", 1], "outputs": 7, "metadata": []}]}', ""),
        (
            b'{"cells": [{"cell_type": "code", "outputs": [{"output_type": "display_data", "data": 3}, '
            b'{"output_type": "error", "traceback": 5}, '
            b'{"output_type": "stream", "text": {"a": 1}}, {}]}]}',
            "",
        ),
    ],
)
def test_a_broken_notebook_does_not_break_the_page(content, said, tmp_path):
    run = make_run(tmp_path, [md("# Title")])
    (run / "notebook.ipynb").unlink()
    if content is not None:
        (run / "notebook.ipynb").write_bytes(content)
    page = render(run).read_text()
    assert said in text(page) and "Succeeded" in page and page_dangers(page) == []


def test_a_malformed_declaration_costs_one_output_and_not_the_page(tmp_path):
    odd = [
        code("x", display(data={declare.MIME: d}))
        for d in (
            {"kind": "table", "columns": 3, "rows": 5},
            {"kind": "table", "columns": [{"name": "a", "numeric": True}], "rows": [[{"x": 1}], ["b"]]},
            {"kind": "result"},
            {"kind": "result", "name": ["a"], "value": {"b": 1}, "ci": "x"},
            {"kind": None},
            {"kind": "figure", "alt": 3},
        )
    ]
    page = text(render(make_run(tmp_path, [md("# T"), *odd, md("## The end")])).read_text())
    assert "The end" in page


def test_a_record_with_odd_values_still_has_a_page(tmp_path):
    odd = {
        k: 7
        for k in (
            "parameters",
            "inputs",
            "outputs",
            "settings",
            "cells",
            "declarations",
            "warnings",
            "notebook",
            "reason",
            "peak_memory_bytes",
        )
    }
    page = render(make_run(tmp_path, [md("# Title\n\nText.")], **odd, duration_s="long", started=5)).read_text()
    assert "Text." in page
    for name in ("git", "code", "environment", "runner"):
        assert "Text." in render(make_run(tmp_path, [md("# Title\n\nText.")], **{name: [1]})).read_text(), name


def test_no_record_is_an_error_that_names_it(tmp_path):
    with pytest.raises(RecordError, match="record.json"):
        render(tmp_path)


def test_very_long_output_is_folded_and_cut(tmp_path):
    page = render(make_run(tmp_path, [code("x", stream("a line of output\n" * 400_000), stream("more\n"))])).read_text()
    assert "<summary>Printed output" in page and "characters more, in notebook.ipynb" in page and len(page) < 400_000
    page = render(make_run(tmp_path, [code("x", display(data={"text/html": "<b>x</b>" * 1_000_000}))])).read_text()
    assert "8,000,000 characters (text/html) is not shown" in page


def test_headings_are_in_order_and_the_contents_lead_to_them(good_run):
    page = render(good_run).read_text()
    levels = [int(t[1]) for t, _ in Seen(page.split("<section popover")[0]).tags if re.fullmatch("h[1-6]", t)]
    assert levels.count(1) == 1 and levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = Seen(page).ids
    assert all(
        a["href"][1:] in ids
        for t, a in ((t, dict(a)) for t, a in Seen(page).tags)
        if t == "a" and a["href"].startswith("#") and len(a["href"]) > 1
    )
    assert 'href="#s-completeness">Completeness</a>' in page and 'class="skip" href="#main"' in page


def test_tables_are_aligned_captioned_and_carry_units_in_the_header(good_run):
    page = render(good_run).read_text()
    assert "<b>Table 1.</b> Samples that never arrived, by channel." in page and 'aria-labelledby="caption-t1"' in page
    assert (
        '<th scope="col" class="num">missing <span class="unit">%</span></th>' in page
        and '<td class="num">12,406</td>' in page
    )
    assert '<th scope="row">bus voltage</th>' in page and '<td class="num">1.4</td>' in page


def test_figures_are_numbered_captioned_and_described(good_run):
    page = render(good_run).read_text()
    assert (
        "<b>Figure 1.</b> Bus voltage" in page
        and 'alt="Two lines over 300 minutes' in page
        and "image/svg+xml;base64" in page
    )


def test_an_expression_at_the_end_of_a_cell_is_shown(good_run):
    assert (
        '<table class="dataframe">' in render(good_run).read_text()
    )  # it is an execute_result: lost by templates that forget the block


def test_the_first_cell_does_not_repeat_the_head(good_run):
    body = render(good_run).read_text().split("<main", 1)[1].split('class="appendix"')[0]
    assert "Can the shuttle" not in body and "For: the mission" not in body and "The Space Shuttle data set has" in body


def test_rendering_twice_gives_the_same_bytes_and_leaves_nothing_beside(good_run):
    first = render(good_run).read_bytes()
    assert render(good_run).read_bytes() == first
    assert sorted(p.name for p in good_run.iterdir()) == ["notebook.ipynb", "record.json", "report.html"]


def test_a_warm_render_takes_well_under_a_second(good_run):
    render(good_run)
    start = time.process_time()
    render(good_run)
    assert time.process_time() - start < 0.5


def test_five_hundred_numbers(tmp_path):
    cells = [code("x", *(declared(declare.result, f"n{i}", i + 0.5) for i in range(500)))]
    page = render(make_run(tmp_path, cells)).read_text()
    assert page.count(" popover ") == 500 and page.count('class="value"') == 500 + 6


# ---- words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declared_,said",
    [
        ({"value": 0.0715, "ci": [0.0693, 0.0738]}, "0.071"),
        ({"value": 0.97142, "ci": [0.9701, 0.9727]}, "0.9714"),
        ({"value": 49_097, "ci": [47_900, 50_300]}, "49,100"),
        ({"value": 12.0, "ci": [3, 21]}, "12"),
        ({"value": 0.5123}, "0.512"),
        ({"value": 1234}, "1234"),
        ({"value": 12345}, "12,345"),
        ({"value": -0.25}, "−0.250"),
        ({"value": 1e-9}, "1e−09"),
        ({"value": 0.0}, "0"),
        ({"value": float("nan")}, "not a number"),
        ({"value": float("inf")}, "∞"),
        ({"value": True}, "yes"),
        ({"value": "text"}, "text"),
        ({"value": None}, "missing"),
        ({"value": 10**30}, f"{10**30:,}"),
        ({"value": 0.123456, "digits": 5}, "0.12346"),
        ({"value": 0.5, "ci": [0.5, 0.5]}, "0.500"),
        ({"value": 0.5, "ci": [float("nan"), 1]}, "0.500"),
        ({"value": 5, "unit": "K"}, "5\u202fK"),
    ],
)
def test_no_more_digits_than_the_interval_supports(declared_, said):
    assert words.shown(declared_) == said


def test_style_is_the_same_in_plots_and_pages(good_run):
    page = render(good_run).read_text()
    for value in (*style.LIGHT.values(), *style.DARK.values(), *style.PALETTE):
        assert value in page


MACHADO = {  # Machado, Oliveira and Fernandes (2009), severity 1.0
    "protanopia": [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
    "deuteranopia": [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
    "tritanopia": [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)],
}


@pytest.mark.parametrize("kind", MACHADO)
def test_the_palette_can_be_told_apart_without_full_colour_vision(kind):
    import itertools

    import numpy as np

    def lab(colour):
        c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.clip(
            np.array(MACHADO[kind]) @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), 0, 1
        )
        xyz = (
            np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
            @ linear
            / [0.9505, 1, 1.089]
        )
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    nearest = min(np.linalg.norm(lab(a) - lab(b)) for a, b in itertools.combinations(style.PALETTE, 2))
    assert nearest > 10  # CIE76; about 2.3 is just noticeable
