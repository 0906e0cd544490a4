"""Figures of a campaign: coverage by simulation, what is refused, and what a comparison may say."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from esa_notebooks.gate.comparison import Terms
from esa_notebooks.llm.evaluation.figures import (
    FiguresError,
    accuracy,
    checked,
    difference,
    items_for,
    macro_difference,
    macro_f1,
    macro_f1_of,
    outcomes,
    pairs,
    verdict,
)
from esa_notebooks.llm.tasks.files import Item, write_task
from esa_notebooks.llm.tasks.scoring import score
from esa_notebooks.stats import clustered, clustered_share, effective_rows, wilson


def frame(correct, groups=None, scored="answered", status="ok", **more) -> pd.DataFrame:
    correct = np.asarray(correct, float)
    groups = np.arange(len(correct)) // 5 if groups is None else groups
    return pd.DataFrame(
        {
            "item": [f"q{i:04}" for i in range(len(correct))],
            "group": groups,
            "status": status,
            "scored": scored,
            "correct": correct,
            **more,
        }
    )


def drawn(rng, share, groups=40, each=5, alike=1.0):
    "Scores and groups; items of a group are alike: beta-binomial with intra-group correlation 1 / (1 + alike)."
    p = np.repeat(rng.beta(share * alike, (1 - share) * alike, groups), each)
    return (rng.random(groups * each) < p).astype(float), np.repeat(np.arange(groups), each)


# ---- stats


def test_independent_rows_give_the_textbook_error():
    x = np.random.default_rng(0).standard_normal(50)
    told = clustered(x, np.arange(50))
    assert told.error == pytest.approx(x.std(ddof=1) / math.sqrt(50))
    assert told.clusters == told.n == 50 and told.value == pytest.approx(x.mean())


def test_repeating_every_row_adds_nothing():
    x = np.random.default_rng(1).standard_normal(30)
    once, ten = clustered(x, np.arange(30)), clustered(np.repeat(x, 10), np.repeat(np.arange(30), 10))
    assert ten.error == pytest.approx(once.error) and ten.interval == pytest.approx(once.interval)
    assert effective_rows((x > 0).repeat(10).astype(float), np.repeat(np.arange(30), 10)) == pytest.approx(30, rel=0.05)


def test_a_ratio_is_that_of_the_sums():
    rng = np.random.default_rng(2)
    of = rng.integers(1, 9, 60).astype(float)
    told = clustered(0.3 * of, np.arange(60) // 3, of)
    assert told.value == pytest.approx(0.3) and told.interval is None and told.p is None  # no residual varies


@pytest.mark.parametrize(
    "x, clusters, of",
    [
        ([1, 2], ["a", "a"], None),
        ([1, 2], ["a"], None),
        ([1, np.nan], ["a", "b"], None),
        ([1, 2], ["a", "b"], [0, 0]),
        ([1, 2], ["a", "b"], [1, 1, 1]),
    ],
)
def test_what_has_no_error_is_refused(x, clusters, of):
    with pytest.raises(ValueError):
        clustered(np.array(x, float), np.array(clusters), None if of is None else np.array(of, float))


def test_a_share_at_the_edge_has_an_interval():
    low, high = clustered_share(np.ones(40), np.arange(40) // 4)
    assert high == 1 and 0.6 < low < wilson(40, 40).low  # ten groups, not forty rows
    with pytest.raises(ValueError, match="between 0 and 1"):
        clustered_share(np.array([0.0, 1.5]), np.array([0, 1]))


@pytest.mark.parametrize(
    "share, groups, each, alike",
    [(0.5, 40, 5, 0.5), (0.9, 40, 5, 1.0), (0.95, 60, 4, 2.0), (0.7, 12, 10, 1.0), (0.3, 200, 1, 1.0)],
)
def test_coverage_of_the_clustered_interval(share, groups, each, alike):
    """1,000 simulations a setting; few and unequal groups included. A 95 % interval may cover 92.5 % to 98 %."""
    rng, inside = np.random.default_rng([3, groups, each]), []
    for _ in range(1000):
        low, high = clustered_share(*drawn(rng, share, groups, each, alike))
        inside.append(low <= share <= high)
    assert 0.925 <= np.mean(inside) <= 0.98


# ---- frames


def test_micro_f1_is_accuracy_with_unreadable_answers_as_a_label_of_their_own():
    rng = np.random.default_rng(4)
    gold = rng.choice(["a", "b", "c"], 60)
    given = np.where(rng.random(60) < 0.2, "unreadable", rng.choice(["a", "b", "c"], 60))
    kinds = np.where(given == "unreadable", "invalid", "answered")
    told = accuracy(frame(np.where(kinds == "answered", given == gold, np.nan), scored=kinds))
    assert told.value == pytest.approx(f1_score(gold, given, average="micro"))


@pytest.mark.parametrize("share_unreadable", [0.0, 0.3])
def test_macro_f1_is_that_of_scikit_learn(share_unreadable):
    rng = np.random.default_rng(5)
    gold = rng.choice(["a", "b", "c"], 90, p=[0.7, 0.2, 0.1]).tolist()
    given = [None if rng.random() < share_unreadable else one for one in rng.choice(["a", "b", "c", "d"], 90)]
    told = macro_f1(gold, given, np.arange(90) // 3)
    assert told.value == pytest.approx(
        f1_score(gold, [one or "?" for one in given], average="macro", labels=["a", "b", "c", "d"])
    )
    assert told.interval.low < told.value < told.interval.high
    assert told == macro_f1(gold, given, np.arange(90) // 3)  # the same to the last bit


def test_macro_f1_reads_answers_as_the_task_does(tmp_path):
    labels = ["drift", "nominal", "spike"]
    items = [Item(f"q{i}", f"d{i // 2}", {"text": f"row {i}"}, None, labels[i % 3], "test") for i in range(12)]
    items += [Item("t0", "other", {"text": "row"}, None, "drift", "train")]
    head = {
        "name": "rows",
        "version": "1",
        "kind": "classification",
        "title": "Rows",
        "licence": "CC0-1.0",
        "source": "test",
    }
    head |= {"instructions": "Name the kind of the row.", "labels": labels, "made_by": "test"}
    task = write_task(tmp_path / "rows.jsonl", head, items)
    texts = ["drift", "Nominal.", "no such label", "spike"] + ["nominal"] * 8
    told = [score(task, item, text) for item, text in zip(task.items, texts, strict=False)]
    frame_ = pd.DataFrame(
        {"item": [i.id for i in items[:12]], "group": [i.group for i in items[:12]], "status": "ok", "text": texts}
    )
    frame_ = frame_.assign(
        scored=[t.status for t in told], correct=[np.nan if t.correct is None else t.correct for t in told]
    )
    assert told[2].status == "invalid"
    given = ["drift", "nominal", "?", "spike"] + ["nominal"] * 8
    expected = f1_score([i.gold for i in items[:12]], given, average="macro", labels=labels)
    assert macro_f1_of(task, frame_.sample(frac=1, random_state=0)).value == pytest.approx(expected)
    with pytest.raises(FiguresError, match="Task 'rows' has no item 'x'"):
        macro_f1_of(task, frame_.assign(item=["x"] + frame_["item"].tolist()[1:]))


def test_coverage_of_macro_f1():
    """300 simulations: 60 groups of 4 items, three labels of unequal frequency; the truth from 200,000 items."""

    def made(rng, groups):
        hard = np.repeat(rng.random(groups), 4)
        gold = rng.choice(3, 4 * groups, p=[0.6, 0.25, 0.15])
        return (
            gold,
            np.where(rng.random(4 * groups) < hard, gold, rng.choice(3, 4 * groups)),
            np.repeat(np.arange(groups), 4),
        )

    gold, given, _ = made(np.random.default_rng(6), 50_000)
    truth, rng, inside = f1_score(gold, given, average="macro"), np.random.default_rng(7), 0
    for _ in range(300):
        told = macro_f1(*(one.tolist() for one in made(rng, 60)), n_resamples=200)
        inside += told.interval.low <= truth <= told.interval.high
    assert 0.915 <= inside / 300 <= 0.985


def test_all_right_is_not_proven_perfect():
    told = macro_f1(["a", "b"] * 10, ["a", "b"] * 10, np.arange(20) // 2)
    assert told.value == 1 and told.interval.high == 1 and told.interval.low < 0.8


def test_macro_difference_has_the_sign_of_the_better():
    gold = ["a", "b", "c"] * 20
    gain, (low, high) = macro_difference(gold, ["a"] * 60, gold, np.arange(60) // 3)
    assert gain == pytest.approx(1 - f1_score(gold, ["a"] * 60, average="macro")) and low <= gain <= high


def test_what_is_no_answer_is_wrong_and_apart():
    kinds = ["answered"] * 14 + ["invalid"] * 3 + ["refused"] * 2 + ["failed"]
    told = frame(np.r_[np.ones(14), np.full(6, np.nan)], scored=kinds, status=["ok"] * 19 + ["failed"])
    table = outcomes(told)
    assert table["n"].to_dict() == {"answered": 14, "invalid": 3, "refused": 2, "failed": 1}
    assert (table["low"] <= table["share"]).all() and (table["share"] <= table["high"]).all()
    score = accuracy(told)
    assert score.value == 0.7 and score.failed == 1 and "1 requests failed" in score.said()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f.drop(columns="group"), "lacks the columns"),
        (lambda f: f.iloc[:0], "0 rows"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "item 'q0000' twice"),
        (lambda f: f.assign(scored="right"), "outcomes \\['right'\\]"),
        (lambda f: f.assign(correct=2.0), "no score between 0 and 1 for the answered item 'q0000'"),
        (lambda f: f.assign(correct=np.nan), "no score between 0 and 1"),
        (lambda f: f.assign(group=None), "no group for item"),
    ],
)
def test_a_frame_that_is_none_is_named(change, words):
    with pytest.raises(FiguresError, match=words):
        checked(change(frame(np.ones(10))))


def test_one_group_is_refused_and_order_does_not_matter():
    with pytest.raises(FiguresError, match="one group"):
        accuracy(frame(np.ones(5), groups=["a"] * 5))
    one = frame(np.arange(20) % 3 == 0)
    assert accuracy(one) == accuracy(one.sample(frac=1, random_state=1))


# ---- comparisons


def test_a_difference_needs_the_same_items_and_groups():
    one = frame(np.ones(10))
    with pytest.raises(FiguresError, match="not have the same items: 1 are in one only, such as 'q0009'"):
        difference(one, one.iloc[:9])
    with pytest.raises(FiguresError, match="different groups"):
        difference(one, one.assign(group=7))


def test_identical_systems_have_no_p_value_and_no_power_claim():
    one = frame(np.arange(20) % 2)
    told = difference(one, one)
    assert told["difference"] == 0 and math.isnan(told["p"]) and math.isnan(told["detectable"])
    with pytest.raises(FiguresError, match="never differ"):
        items_for(0.1, told)
    table = pairs({"a": one, "b": one})
    assert table["p_holm"].isna().all()


def test_false_alarms_of_a_paired_comparison():
    """1,000 pairs of equally good systems over 40 groups: a test at 5 % finds a difference in about 5 %."""
    rng, alarms = np.random.default_rng(8), 0
    for _ in range(1000):
        base = np.repeat(rng.beta(1, 1, 40), 5)
        group, a, b = np.repeat(np.arange(40), 5), rng.random(200) < base, rng.random(200) < base
        told = clustered(b.astype(float) - a, group)
        alarms += told.p is not None and told.p < 0.05
    assert 0.035 <= alarms / 1000 <= 0.067


def test_the_detectable_difference_is_found_as_often_as_said():
    """400 campaigns with a true gain of just what is said to be detectable with 80 % power; 74 % to 86 % find it."""
    rng, group, found = np.random.default_rng(9), np.repeat(np.arange(100), 4), 0

    def campaign(gain):
        base = np.repeat(rng.uniform(0.2, 0.6, 100), 4)
        return (rng.random(400) < base).astype(float), (rng.random(400) < base + gain).astype(float)

    gain = np.mean([difference(*(frame(x, group) for x in campaign(0.09)))["detectable"] for _ in range(10)])
    for _ in range(400):
        a, b = campaign(gain)
        told = clustered(b - a, group)
        found += told.p < 0.05 and told.value > 0
    assert 0.74 <= found / 400 <= 0.86


def test_pairs_are_corrected_together_and_best_comes_first():
    rng = np.random.default_rng(10)
    frames = {name: frame(rng.random(200) < share) for name, share in {"weak": 0.3, "good": 0.8, "fair": 0.5}.items()}
    table = pairs(frames)
    assert table[["a", "b"]].values.tolist() == [["fair", "good"], ["weak", "good"], ["weak", "fair"]]
    assert (table["p_holm"] >= table["p"]).all() and (table["difference"] > 0).all() and len(table) == 3
    with pytest.raises(FiguresError, match="two systems"):
        pairs({"good": frames["good"]})


TERMS = Terms(margin=0.05, amount=0.1)


@pytest.mark.parametrize(
    "gains, losses, word", [(40, 0, "better"), (6, 2, "not worse"), (0, 40, "worse"), (30, 30, "inconclusive")]
)
def test_verdicts_are_those_of_the_gate(gains, losses, word):
    rng = np.random.default_rng(11)
    champion = np.r_[np.zeros(100), np.ones(100)][rng.permutation(200)]
    challenger = champion.copy()
    challenger[rng.permutation(np.flatnonzero(champion == 0))[:gains]] = 1
    challenger[rng.permutation(np.flatnonzero(champion == 1))[:losses]] = 0
    found = verdict(frame(challenger), frame(champion), TERMS)
    assert found["outcome"] == word and found["difference"] == pytest.approx((gains - losses) / 200)
    assert found == verdict(frame(challenger), frame(champion), TERMS)


def test_a_comparison_with_open_requests_is_inconclusive_until_they_are_asked_again():
    champion, better = frame(np.arange(200) % 2), frame(np.ones(200))
    assert verdict(better, champion, TERMS)["outcome"] == "better"
    lost = better.assign(status=["failed"] + ["ok"] * 199, reason=["timeout"] + [""] * 199)
    found = verdict(lost, champion, TERMS)
    assert found["outcome"] == "inconclusive" and found["failed"] == 1 and "1 of 200 items" in found["said"][-1]
    too_long = lost.assign(
        reason=["too long"] + [""] * 199
    )  # as wrong tomorrow as today: it counts, and nothing is open
    assert verdict(too_long, champion, TERMS)["outcome"] == "better"
