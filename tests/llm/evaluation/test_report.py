"""Campaigns that do not belong together, verdicts at their borders, and answers that want to be more than text."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.llm.evaluation import report
from esa_notebooks.llm.evaluation.report import (
    ReportError,
    failures,
    outcome_table,
    recommended,
    scores,
    verdicts,
    visible,
)


def campaign(system, kind, right, task="t", digest="1", cached=False):
    n = len(right)
    frame = pd.DataFrame(
        {
            "item": [f"i{i:03}" for i in range(n)],
            "group": np.arange(n) // 2,
            "text": "x",
            "status": "ok",
            "scored": "answered",
            "correct": np.asarray(right, float),
            "reason": "",
            "error": "",
            "total_s": 1.0,
            "first_token_s": math.nan,
            "completion_tokens": 3.0,
            "cached": cached,
        }
    )
    frame.attrs = {
        "provenance": {
            "task": {"name": task, "version": "1", "digest": digest},
            "system": {"name": system, "kind": kind},
        }
    }
    return frame


def share(p, n=200, seed=0):
    return np.random.default_rng(seed).random(n) < p


MODEL, STRONG, WEAK = (
    campaign(*c)
    for c in (
        ("m", "llm", share(0.6)),
        ("strong", "baseline", share(0.9, seed=1)),
        ("weak", "baseline", share(0.2, seed=2)),
    )
)


def test_a_model_is_judged_against_every_baseline_and_the_worst_counts():
    assert verdicts([MODEL, WEAK])["verdict"].tolist() == ["may be used"]
    told = verdicts([MODEL, WEAK, STRONG]).iloc[0]
    assert (told["verdict"], told["against"]) == ("refused", "strong") and told["high"] < 0 and told["p_holm"] < 0.05
    assert recommended([MODEL, WEAK, STRONG])["t"][0] == "strong" and recommended([MODEL, WEAK])["t"][0] == "m"


def test_what_cannot_be_told_apart_is_not_recommended():
    like = campaign("like", "baseline", share(0.6, seed=5))
    told = verdicts([MODEL, like]).iloc[0]
    assert (
        told["verdict"] == "not shown to be better"
        and "80 % power" in told["said"]
        and recommended([MODEL, like])["t"][0] == "like"
    )
    same = verdicts([MODEL, campaign("same", "baseline", share(0.6))]).iloc[0]
    assert same["verdict"] == "not shown to be better" and "never differ" in same["said"]


def test_many_models_beside_a_baseline_do_not_make_one_of_them_good_by_chance():
    base = campaign("base", "baseline", share(0.5, 100, seed=99))
    found = 0
    for round_ in range(20):
        models = [campaign(f"m{i}", "llm", share(0.5, 100, seed=1000 + 10 * round_ + i)) for i in range(4)]
        found += (verdicts([base, *models])["verdict"] == "may be used").any()
    assert found <= 3  # at 5 % for the family, more than three of 20 has a probability below 2 %


def test_without_a_baseline_or_with_open_requests_there_is_no_verdict():
    assert verdicts([MODEL])["verdict"].tolist() == ["no verdict"] and recommended([MODEL])["t"][0] is None
    open_ = campaign("m", "llm", share(0.9))
    open_.loc[0, ["status", "scored", "reason", "correct"]] = ["failed", "failed", "timeout", math.nan]
    told = verdicts([open_, WEAK]).iloc[0]
    assert told["verdict"] == "no verdict" and "requests of m have no answer yet" in told["said"]
    assert recommended([open_, WEAK])["t"][0] is None and not scores([open_, WEAK])["complete"].all()
    open_.loc[0, "reason"] = "too long"  # which asking again would not change
    assert verdicts([open_, WEAK])["verdict"].tolist() == ["may be used"]


def test_campaigns_that_do_not_belong_together_are_refused():
    with pytest.raises(ReportError, match="twice for task 't'"):
        scores([MODEL, MODEL])
    with pytest.raises(ReportError, match="same items"):
        scores([MODEL, campaign("b", "baseline", share(0.5, 100))])
    with pytest.raises(ReportError, match="same items"):
        scores([MODEL, campaign("b", "baseline", share(0.5), digest="2")])
    with pytest.raises(ReportError, match="no campaign"):
        scores([])


def test_every_item_is_counted_once_in_the_table_of_outcomes():
    frame = campaign("m", "llm", [1, 0, 1, 0, 1, 0, 1, 0])
    frame["scored"] = ["answered", "answered", "invalid", "refused", "refused", "failed", "failed", "answered"]
    frame["reason"] = ["", "", "", "", "refused by policy", "too long", "timeout", ""]
    frame["correct"] = frame["correct"].where(frame["scored"] == "answered")
    row = outcome_table([frame]).iloc[0]
    assert [row[o] for o in report.OUTCOMES] == [1, 2, 1, 1, 1, 1, 1] and row["items"] == 8


def test_times_are_drawn_only_of_what_was_asked_in_this_run():
    with pytest.raises(ReportError, match="kept from an earlier run"):
        report.time_plot([campaign("m", "llm", share(0.5), cached=True), WEAK])
    assert (
        "200 requests" in report.time_plot_alt([MODEL, WEAK])
        and "first token" not in report.time_plot_alt([MODEL, WEAK]).split("requests", 1)[1]
    )


def test_answers_are_shown_as_text_whatever_they_hold():
    task = SimpleNamespace(
        head={"name": "t"},
        items=[SimpleNamespace(id=f"i{i:03}", input={"q": "ask", "k": ["a", 1]}, gold={"v": 1}) for i in range(8)],
    )
    frame = campaign("m", "llm", [0] * 8)
    hostile = [
        "<script>alert(1)</script>",
        "a\u202eb",
        "z\u200bw",
        "\x00\x1b[31m",
        "{}",
        "line\n\n  two",
        "x" * 1000,
        "{0}%s",
    ]
    frame["text"] = hostile
    shown = failures(task, frame, n=8).sort_values("item")["answer"].tolist()
    assert (
        shown[1:6] == ["a\\u202eb", "z\\u200bw", "\\u0000\\u001b[31m", "{}", "line two"]
        and "(1,000 letters)" in shown[6]
    )
    page = failures(task, frame, n=8).to_html()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert (
        visible("\ud800") == "\\ud800"
        and visible("a" * 300) == "a" * 300
        and failures(task, frame)["input"].iloc[0] == 'ask; ["a", 1]'
    )
    with pytest.raises(ReportError, match="no item 'i000'"):
        failures(SimpleNamespace(head={"name": "t"}, items=[]), frame)


def test_mistakes_are_drawn_by_the_seed_and_of_every_kind():
    task = SimpleNamespace(
        head={"name": "t"}, items=[SimpleNamespace(id=f"i{i:03}", input={"q": str(i)}, gold="g") for i in range(200)]
    )
    frame = MODEL.copy()
    frame.loc[frame.index[5], ["scored", "correct"]] = ["invalid", math.nan]
    frame.loc[frame.index[6], ["scored", "correct"]] = ["refused", math.nan]
    shown = failures(task, frame, n=3, seed=4)
    assert set(shown["outcome"]) == {"wrong", "invalid", "refused by the model"} and shown.equals(
        failures(task, frame, n=3, seed=4)
    )
    assert len(failures(task, campaign("m", "llm", [1] * 4))) == 0


def test_the_figures_draw_every_system_and_say_so():
    table = scores([MODEL, STRONG, WEAK, campaign("m", "llm", share(0.3), task="u")])
    fig = report.score_plot(table)
    assert [[label.get_text() for label in ax.get_yticklabels()] for ax in fig.axes] == [["strong", "m", "weak"], ["m"]]
    said = report.score_plot_alt(table)
    assert all(f"{row.value:.2f}" in said and row.system in said for row in table.itertuples())
