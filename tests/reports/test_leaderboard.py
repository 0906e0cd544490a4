"""Leaderboards: the right order, honest spreads, and nothing that failed left out."""

import json
import math
import re
import statistics

import pytest

from esa_notebooks.reports.leaderboard import answer, as_text, build_leaderboard, leaderboard, summary
from esa_notebooks.runs.record import RecordError
from tests.reports.conftest import make_run
from tests.reports.test_browser import Watched
from tests.reports.test_render import text
from tests.reports.test_sanitise import page_dangers

FAILED = {"status": "failed", "reason": {"what": "MemoryError: no memory was left", "where": "cell 7", "do": "x"}}


class Sweep:
    """Runs of one sweep in a reports folder."""

    def __init__(self, reports):
        self.reports, self.runs = reports, []

    def run(self, parameters, results, better="higher", unit="", **changes):
        """One run with `parameters`; `results` is a number for AUC-PR, None for a failed run, or declarations."""
        declared = results if isinstance(results, list) else [] if results is None else [
            {"kind": "result", "name": "auc_pr", "label": "AUC-PR", "value": results, "better": better, "unit": unit}]
        types = {"scores": "OutputFile", "table": "InputFile"}
        given = [{"name": n, "value": v, "type": types.get(n, "str"), "origin": "given"} for n, v in parameters.items()]
        more = FAILED if results is None else {}
        i = len(self.runs)
        self.runs.append(make_run(self.reports, [], stage="experiment", run_id=f"20261124T{i // 60:02}{i % 60:02}00Z-{i:08x}",
                                  parameters=given, declarations=declared, **{**more, **changes}))
        return self.runs[-1]


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


VALUES = {"forest": (0.90, 0.95, 0.85), "knn": (0.70, 0.72, 0.71), "pca": (0.5, None, 0.52)}


@pytest.fixture
def detectors(sweep):
    for detector, values in VALUES.items():
        for seed, value in enumerate(values):
            sweep.run({"detector": detector, "seed": seed, "scores": f"data/interim/{detector}-{seed}.parquet"}, value)
    return sweep


def test_means_spreads_and_intervals_are_the_textbook_ones():
    found = summary([0.9, 0.95, 0.85], 3)
    assert found.mean == pytest.approx(0.9) and found.sd == pytest.approx(statistics.stdev([0.9, 0.95, 0.85]))
    half = 4.302652729911275 * found.sd / math.sqrt(3)  # Student's t for 2 degrees of freedom, from a table
    assert found.ci == pytest.approx((0.9 - half, 0.9 + half))
    assert summary([0.9], 1).ci is None and summary([], 3).mean is None and summary([math.nan, 1.0], 2).n == 1
    assert summary([0.1] * 10, 10).mean == 0.1  # no digit of rounding


def test_rows_are_ordered_and_failures_counted(detectors):
    board = leaderboard(detectors.runs)
    assert [r.values["detector"] for r in board.rows] == ["forest", "knn", "pca"] and board.settings == ["detector"]
    pca = board.rows[2].summary("result", "auc_pr")
    assert (pca.n, pca.of) == (2, 3) and pca.mean == pytest.approx(0.51)
    assert "2 of 3" in as_text(board).splitlines()[5] and "1 of 9 runs did not succeed." in answer(board)
    assert answer(board).startswith("The highest AUC-PR, 0.90 over 3 seeds (95 % interval 0.78 to 1.02): forest.")


def test_lower_is_better_when_the_result_says_so(sweep):
    for detector, value in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        sweep.run({"detector": detector}, value, better="lower")
    assert [r.values["detector"] for r in leaderboard(sweep.runs).rows] == ["b", "c", "a"]
    assert answer(leaderboard(sweep.runs)) == "The lowest AUC-PR, 1: b."


def test_equal_means_share_a_rank_and_it_is_said(sweep):
    for detector, value in (("a", 0.5), ("b", 0.9), ("c", 0.9)):
        sweep.run({"detector": detector}, value)
    board = leaderboard(sweep.runs)
    assert [(r.rank, r.tied) for r in board.rows] == [(1, True), (1, True), (3, False)]
    assert "b and c together" in answer(board) and as_text(board).count("1=") == 2


def test_a_lead_smaller_than_the_seeds_is_no_lead(sweep):
    for seed, (a, b, c) in enumerate([(0.90, 0.89, 0.80), (0.80, 0.83, 0.70), (0.85, 0.82, 0.75)]):
        for detector, value in (("a", a), ("b", b), ("c", c)):
            sweep.run({"detector": detector, "seed": seed}, value)
    board = leaderboard(sweep.runs)
    assert [(r.values["detector"], r.close) for r in board.rows] == [("a", False), ("b", True), ("c", False)]
    assert "Not told apart from it: b." in answer(board) and "2" in as_text(board) and " ~" in as_text(board)


def test_when_only_the_seed_varies_there_is_one_row_and_every_seed_is_shown(sweep):
    for seed, value in enumerate((0.7, 0.8, None, 0.75)):
        sweep.run({"seed": seed, "scores": f"s{seed}", "table": f"t{seed}"}, value)
    board = leaderboard(sweep.runs)
    assert board.settings == [] and len(board.rows) == 1
    assert answer(board).startswith("AUC-PR is 0.75 over 3 of 4 seeds, between 0.70 and 0.80 (95 % interval ")
    said = text(build_leaderboard(sweep.reports, "seed", sweep.runs).read_text())
    for part in ("0.700", "0.800", "0.750", "MemoryError: no memory was left", "3 of 4"):
        assert part in said, part


def test_a_file_that_is_a_setting_is_one_and_one_that_follows_is_not(sweep):
    for table in ("smap", "opssat"):
        for seed in (0, 1):
            sweep.run({"table": table, "seed": seed, "scores": f"{table}-{seed}"}, 0.5)
    assert leaderboard(sweep.runs).settings == ["table"]


def test_repeats_may_be_any_parameters(sweep):
    for fold in (0, 1):
        for window in (10, 9, 100):
            sweep.run({"window": window, "fold": fold}, 0.5)
    board = leaderboard(sweep.runs, over=("seed", "fold"))
    assert [r.values["window"] for r in board.rows] == ["9", "10", "100"] and board.over == ["fold"]


def test_by_and_its_near_miss(detectors):
    assert leaderboard(detectors.runs, by="auc_pr").by["name"] == "auc_pr"
    with pytest.raises(RecordError, match="no|No.*`auc_rp`.*auc_pr"):
        leaderboard(detectors.runs, by="auc_rp")


def test_without_a_direction_nothing_is_ranked(sweep):
    for detector, value in (("b", 0.9), ("a", 0.1)):
        sweep.run({"detector": detector}, value, better=None)
    board = leaderboard(sweep.runs)
    assert board.by is None and [r.rank for r in board.rows] == [None, None]
    assert "says in which direction" in answer(board) and "Not ranked" in build_leaderboard(sweep.reports, "x", sweep.runs).read_text()
    assert "not ranked" in answer(leaderboard(sweep.runs, by="auc_pr"))


def test_nothing_is_dropped_silently(detectors):
    detectors.run({"detector": "new", "seed": 0}, 0.6)  # seeds 1 and 2 were never run
    broken = detectors.run({"detector": "knn", "seed": 9}, 0.6)
    (broken / "record.json").write_text("{")
    gone = detectors.reports / "runs" / "experiment" / "20261125T000000Z-ffffffff"
    again = detectors.run({"detector": "pca", "seed": 1, "scores": "data/interim/pca-1.parquet"}, 0.53)
    board = leaderboard([*detectors.runs, gone])
    assert board.counts() == (10, 2, 2) and board.earlier == 1 and len(board.unreadable) == 2
    assert board.rows[-1].runs[("1",)].run_id == again.name
    said = text(build_leaderboard(detectors.reports, "all", [*detectors.runs, gone]).read_text())
    for part in ("missing: never run", "cannot be read", broken.name, gone.name, "1 earlier attempts not counted", "2 never run"):
        assert part in said, part


def test_all_failed_and_nothing_declared(sweep):
    for seed in range(2):
        sweep.run({"seed": seed}, None)
    assert answer(leaderboard(sweep.runs)) == "No run of this sweep has succeeded. 2 of 2 runs did not succeed."
    assert "MemoryError" in build_leaderboard(sweep.reports, "x", sweep.runs).read_text()
    sweep.runs.clear()
    sweep.run({"seed": 5}, [])
    build_leaderboard(sweep.reports, "y", sweep.runs)


@pytest.mark.parametrize("odd", [None, "x", True, [1], {"a": 1}, 1e999])
def test_a_value_that_is_no_number_counts_as_missing(sweep, odd):
    sweep.run({"seed": 0}, 0.5)
    sweep.run({"seed": 1}, [{"kind": "result", "name": "auc_pr", "label": "AUC-PR", "value": odd, "better": "higher", "unit": ""}])
    found = leaderboard(sweep.runs).rows[0].summary("result", "auc_pr")
    assert (found.n, found.of, found.mean) == (1, 2, 0.5)
    build_leaderboard(sweep.reports, "x", sweep.runs)


def test_what_is_no_sweep_is_refused(sweep):
    with pytest.raises(RecordError, match="there are none"):
        leaderboard([])
    with pytest.raises(RecordError, match="none of these can be read"):
        leaderboard([sweep.reports / "nowhere"])
    sweep.run({"seed": 0}, 0.5)
    sweep.run({"seed": 1}, 50.0, unit="%")
    with pytest.raises(RecordError, match="is in no unit in one run and in %"):
        leaderboard(sweep.runs)
    sweep.run({"seed": 2}, 0.5, notebook={"path": "nbs/other.ipynb"})
    with pytest.raises(RecordError, match="of one notebook; these runs are of 2"):
        leaderboard(sweep.runs)
    for name in ("", "../x", "a/b", ".hidden", "x" * 200):
        with pytest.raises(RecordError, match="no name for a sweep"):
            build_leaderboard(sweep.reports, name, sweep.runs[:1])
    assert not (sweep.reports / "sweeps").exists()


def test_every_number_leads_to_its_place_in_its_report(detectors):
    page = build_leaderboard(detectors.reports, "d", detectors.runs)
    for run, value in zip(detectors.runs, [v for vs in VALUES.values() for v in vs], strict=True):
        link = f"../runs/experiment/{run.name}/report.html"
        assert (f'href="{link}#result-auc_pr"' in page.read_text()) == (value is not None) and f'href="{link}"' in page.read_text()
        assert (page.parent / link).parent.resolve() == run.resolve()


def test_measurements_stand_apart(sweep):
    for seed in range(3):
        sweep.run({"seed": seed}, [{"kind": "measurement", "name": "fit", "label": "Fitting", "value": 2.0 + seed, "unit": "s"},
                                   {"kind": "result", "name": "auc_pr", "label": "AUC-PR", "value": 0.5, "better": "higher"}])
    page = build_leaderboard(sweep.reports, "m", sweep.runs).read_text()
    assert page.index("Measured on the machine") < page.index("Fitting") and page.count("Fitting") == 1
    with pytest.raises(RecordError):
        leaderboard(sweep.runs, by="fit")


def test_hostile_records_are_text(sweep):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    for i in range(2):
        sweep.run({"detector": evil + str(i), "seed": i, evil: i}, [
            {"kind": "result", "name": "auc_pr", "label": evil, "value": 0.5 + i, "better": "higher", "unit": evil},
            {"kind": "result", "name": evil, "value": 1}], notebook={"path": evil, "question": evil})
    page = build_leaderboard(sweep.reports, "evil", sweep.runs).read_text()
    links = set(re.findall(r'href="(\.\./runs/[\w./-]+report\.html(?:#result-auc_pr)?)"', page)) | {"../index.html"}
    assert page_dangers(page, "index.js", links) == [] and "alert(1)" in page


def test_a_thousand_runs_take_seconds(sweep):
    import time

    first = sweep.run({"detector": "d0", "seed": 0}, 0.5)
    record = json.loads((first / "record.json").read_text())
    runs = []
    for i in range(1000):
        folder = sweep.reports / "runs" / "many" / f"20261124T{i:06}Z-{i:08x}"
        folder.mkdir(parents=True)
        record["parameters"] = [{"name": "detector", "value": f"d{i // 10}", "type": "str"}, {"name": "seed", "value": i % 10, "type": "int"}]
        record["declarations"][0]["value"] = (i * 7919 % 1000) / 1000
        (folder / "record.json").write_text(json.dumps(record))
        runs.append(folder)
    start = time.perf_counter()
    build_leaderboard(sweep.reports, "many", runs)
    taken = time.perf_counter() - start
    print(f"leaderboard of 1,000 runs: {taken:.2f} s")
    assert taken < 8


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser, detectors, size, scheme):
    page = build_leaderboard(detectors.reports, "d", detectors.runs)
    with Watched(browser, page.as_uri(), size=size, scheme=scheme) as w:
        assert w.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        assert w.page.locator("figure.picture img").is_visible() and w.wrong() == []
