"""The index: every run with its status, the latest of each kind, what was not obtained, and damaged records."""

import json
import re
import shutil
import time

from esa_notebooks.reports.render import render
from esa_notebooks.reports.site import build_site
from esa_notebooks.runs.record import runner
from tests.reports.conftest import FAILED, failed_cells, good_cells, make_run
from tests.reports.test_render import text
from tests.reports.test_sanitise import Seen, page_dangers, site_links


def sections(page):
    """The words of the parts of an index, by the id of their heading."""
    parts = re.split(r'<section[^>]*aria-labelledby="(\w+)"', page)
    return dict(zip(parts[1::2], map(text, parts[2::2]), strict=False))


def run_at(reports, hour, **changes):
    folder = make_run(
        reports,
        good_cells(),
        run_id=f"20261124T{hour:02}0000Z-aaaaaaaa",
        started=f"2026-11-24T{hour:02}:00:00Z",
        **changes,
    )
    render(folder)
    return folder


def test_an_empty_index_says_what_to_do(tmp_path):
    page = build_site(tmp_path / "reports").read_text()
    assert "Nothing has been run yet." in page and "esa-notebooks run" in page and page_dangers(page, "index.js") == []


def test_the_latest_of_each_stage_and_parameters_comes_first(tmp_path):
    other = [{"name": "dataset", "value": "opssat", "origin": "given"}]
    for hour in (8, 9):
        run_at(tmp_path, hour)
    run_at(tmp_path, 7, parameters=other)
    run_at(tmp_path, 6, stage="prepare")
    page = build_site(tmp_path).read_text()
    said = sections(page)
    assert said["latest"].count("Succeeded") == 3 and said["all"].count("Succeeded") == 4 + 1  # and once in the filter
    assert "09:00" in said["latest"] and "08:00" not in said["latest"]
    assert "dataset = opssat" in said["latest"] and "window" not in said["latest"]
    assert "Yes: 7.2 % of 49,097 rows" in said["latest"] and "7.2 %" in said["latest"]
    assert text(page).index("Latest") < text(page).index("All runs")
    assert "4 runs of 2 stages; the latest of each succeeded." in text(page)


def test_a_failure_is_shown_as_one_and_leads_to_the_last_success(tmp_path):
    run_at(tmp_path, 8)
    failed = make_run(
        tmp_path, failed_cells(), run_id="20261124T100000Z-bbbbbbbb", started="2026-11-24T10:00:00Z", **FAILED
    )
    render(failed)
    page = build_site(tmp_path).read_text()
    said = sections(page)
    assert "Failed" in said["latest"] and "KeyError: 'bus voltage'" in said["latest"].replace("&#39;", "'")
    assert "The last success was 24 November 2026, 08:00 UTC" in said[
        "latest"
    ] and "0 of 1 latest runs succeeded" in text(page)
    assert page.count('class="status failed"') == 2 and "7.2" not in said["latest"]


def test_every_status_has_its_word_and_shape(tmp_path):
    reason = {"what": "It stopped.", "where": "", "do": ""}
    for i, status in enumerate(("succeeded", "failed", "timed_out", "killed", "cancelled")):
        make_run(tmp_path, [], stage=f"s{i}", status=status, reason=None if status == "succeeded" else reason)
    make_run(tmp_path, [], stage="s6", status="killed", ended=None, runner=runner())
    make_run(
        tmp_path, [], stage="s7", status="killed", ended=None, reason=None, runner={**runner(), "boot_id": "earlier"}
    )
    page = build_site(tmp_path).read_text()
    said = sections(page)["all"]
    for word, shape in (
        ("Succeeded", "●"),
        ("Failed", "✕"),
        ("Timed out", "◔"),
        ("Killed", "■"),
        ("Cancelled", "○"),
        ("In progress", "◐"),
    ):
        assert f"{shape} {word}" in said, word
    assert said.count("■ Killed") == 2 and "The runner ended without a word" in said


def test_damaged_and_older_records_are_lines_and_not_crashes(tmp_path):
    run_at(tmp_path, 8)
    older = {"schema": "esa-notebooks/record/0", "status": "succeeded"}
    for i, content in enumerate(
        (b"", b'{"schema": "esa-no', b"\xff\xfe", b"[]", b"null", json.dumps(older).encode(), b"[" * 100_000, None)
    ):
        folder = tmp_path / "runs" / "old" / f"run{i}"
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "record.json").write_bytes(content)
    odd = json.loads((tmp_path / "runs/explore/20261124T080000Z-aaaaaaaa/record.json").read_text())
    for i, value in enumerate((7, "x", [1], {"a": 1}, None)):
        for key in odd:
            if key not in ("schema",):
                folder = tmp_path / "runs" / "odd" / f"{key}-{i}"
                folder.mkdir(parents=True)
                (folder / "record.json").write_text(json.dumps({**odd, key: value}))
    page = build_site(tmp_path).read_text()
    assert sections(page)["all"].count("run") >= 8 and page.count('data-status="unreadable"') >= 8
    assert "of another version (esa-notebooks/record/0" in page and "The folder holds no record." in page
    assert page_dangers(page, "index.js", site_links(tmp_path, page)) == []


def test_a_run_without_a_report_has_no_link(tmp_path):
    folder = make_run(tmp_path, [])
    assert "report.html" not in build_site(tmp_path).read_text()
    render(folder)
    assert build_site(tmp_path).read_text().count('/report.html"') == 2


def test_what_was_not_obtained_has_its_place(tmp_path):
    listed = [
        {"what": "opssat", "why": "There is no network.", "do": "Set data.mirror.", "when": "2026-11-24T11:00:00Z"}
    ]
    (tmp_path / "not-obtained.json").write_text(json.dumps(listed))
    said = sections(build_site(tmp_path).read_text())["missing"]
    for part in ("opssat", "There is no network.", "Set data.mirror.", "24 November 2026, 11:00 UTC"):
        assert part in said
    (tmp_path / "not-obtained.json").write_text('[{"wh')
    assert "cannot be read" in build_site(tmp_path).read_text()
    for odd in ("3", '"x"', "[1, null]", '[{"what": 3}]'):
        (tmp_path / "not-obtained.json").write_text(odd)
        build_site(tmp_path)


def test_everything_is_there_without_a_script(tmp_path):
    run_at(tmp_path, 8)
    seen = Seen(build_site(tmp_path).read_text())
    assert [dict(a) for t, a in seen.tags if t == "tr" and "hidden" in dict(a)] == []
    assert any(dict(a).get("id") == "filter" and "hidden" in dict(a) for _, a in seen.tags)  # the script shows it


def test_a_thousand_records_take_seconds_not_minutes(tmp_path):
    first = make_run(tmp_path, good_cells())
    for i in range(999):
        folder = tmp_path / "runs" / f"stage{i % 5}" / f"20261124T{i:06}Z-cccccccc"
        folder.mkdir(parents=True)
        shutil.copy(first / "record.json", folder)
    build_site(tmp_path)
    start = time.process_time()   # of this process alone: others on the machine are not its fault
    build_site(tmp_path)
    taken = time.process_time() - start
    print(f"index of 1,000 records: {taken:.2f} s")
    assert taken < 10
