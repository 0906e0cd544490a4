"""The comparison: hand-made boards whose answers can be counted on fingers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.models.evaluation.metrics import METRICS, metrics
from esa_notebooks.models.league import (
    BOUND,
    SEED,
    behind,
    by_channel,
    counts,
    drawn,
    frozen,
    league,
    league_answer,
    met,
)
from esa_notebooks.models.published import published
from esa_notebooks.models.scores import Board

ROOT = Path(__file__).resolve().parents[2]
N = 240
Y = (np.arange(N) % 4 == 0).astype(int)
BLOCK = np.arange(N) // 6


def board(said: dict[str, np.ndarray], seeds: dict[str, list[int]] | None = None, y: np.ndarray = Y) -> Board:
    """A board of scores, shape (n,) or (seeds, n), that call a row anomalous above 0.5."""
    told = {name: np.atleast_2d(np.asarray(score, float)) for name, score in said.items()}
    about = {
        name: {
            "group": "supervised",
            "seeds": (seeds or {}).get(name, list(range(len(s)))),
            "differs": f"why {name} differs",
        }
        for name, s in told.items()
    }
    channel = np.where(np.arange(N) < N // 2, "A", "B").astype(object)
    return Board(y, BLOCK, channel, np.arange(N), {name: (s, s > 0.5) for name, s in told.items()}, about)


def noisy(amount: float, seed: int = 0) -> np.ndarray:
    return np.clip(0.25 + 0.5 * Y + np.random.default_rng(seed).normal(0, amount, N), 0, 1)


def paper_of(**rows: tuple[float, float]) -> pd.DataFrame:
    """A published table with both areas of each row."""
    told = {
        name: {"group": "supervised", **dict.fromkeys(METRICS, 0.5), "auc_pr": pr, "auc_roc": roc}
        for name, (pr, roc) in rows.items()
    }
    return pd.DataFrame.from_dict(told, orient="index", columns=["group", *METRICS])


def areas(score: np.ndarray) -> tuple[float, float]:
    told = metrics(Y, score, score > 0.5)
    return told["auc_pr"], told["auc_roc"]


def test_the_best_comes_first_with_the_published_figure_beside_it():
    one = board({"worse": noisy(0.6), "best": Y, "middle": noisy(0.3)})
    table = league(one, paper_of(middle=(0.9, 0.8), elsewhere=(1, 1)), n_resamples=100)
    assert [*table.detector] == ["best", "middle", "worse"]
    assert table.auc_pr[0] == table.f1[0] == table.auc_pr_low[0] == 1
    assert [*table.auc_pr_published.fillna(-1)] == [-1, 0.9, -1]
    for metric in METRICS:
        assert (table[f"{metric}_low"] <= table[metric]).all() and (table[metric] <= table[f"{metric}_high"]).all()
    shown = drawn(table, "auc_roc")
    assert [*shown.value] == [*table.auc_roc] and [*shown.columns] == [
        "detector",
        "group",
        "value",
        "low",
        "high",
        "published",
    ]


def test_figures_are_means_over_seeds():
    score = np.stack([noisy(0.3, s) for s in (1, 2, 3)])
    table = league(board({"one": score}), paper_of(), n_resamples=20)
    assert table.seeds[0] == 3 and table.auc_pr[0] == pytest.approx(np.mean([areas(s)[0] for s in score]))


def test_undefined_figures_stay_missing():
    table = league(board({"silent": noisy(0.3) / 4}), paper_of(), n_resamples=20)
    assert table.loc[0, ["precision", "mcc"]].isna().all() and table.recall[0] == 0 and table.auc_pr[0] > 0.5
    nothing = league(board({"any": noisy(0.3)}, y=np.zeros(N, int)), paper_of(), n_resamples=20)
    assert nothing.loc[0, ["recall", "mcc", "auc_pr", "auc_roc"]].isna().all()


def test_published_rows_inside_the_bound_are_counted_apart_by_mean_and_by_seed():
    good, bad = noisy(0.2, 1), noisy(0.9, 2)
    (pr, roc), half = areas(good), np.stack([good, bad])
    mean_of_half = tuple(np.mean([areas(s) for s in half], axis=0))
    assert pr - mean_of_half[0] > BOUND < roc - mean_of_half[1], "or the seeds could not be told apart"
    one = board(
        {"both": good, "by_mean": half, "by_seed": half, "neither": bad, "one_area": good, "no_seed": half},
        {
            "both": [SEED],
            "by_mean": [0, SEED],
            "by_seed": [SEED, 0],
            "neither": [SEED],
            "one_area": [SEED],
            "no_seed": [0, 1],
        },
    )
    paper = paper_of(
        both=(pr - 0.029, roc + 0.029),
        by_mean=mean_of_half,
        by_seed=(pr, roc),
        neither=(pr, roc),
        one_area=(pr, roc - 0.031),
        no_seed=(pr, roc),
        absent=(pr, roc),
    )
    rows = met(league(one, paper, n_resamples=20), one, paper).set_index("detector")
    said = {name: (rows["mean"][name], rows.seed[name]) for name in paper.index}
    assert said == {
        "both": ("yes", "yes"),
        "by_mean": ("yes", "no"),
        "by_seed": ("no", "yes"),
        "neither": ("no", "no"),
        "one_area": ("no", "no"),
        "no_seed": ("no", "no"),
        "absent": ("not executed", "not executed"),
    }
    assert (
        rows.note["neither"] == "why neither differs" and rows.note["both"] == "" and "run-full" in rows.note["absent"]
    )
    assert counts(rows.reset_index()) == {"executed": 6, "mean": 2, "seed": 2, "either": 3}


def test_an_empty_comparison_with_the_paper_counts_nothing():
    one = board({"ours": noisy(0.2)})
    paper = paper_of(theirs=(0.9, 0.9))
    assert counts(met(league(one, paper, 20), one, paper)) == {"executed": 0, "mean": 0, "seed": 0, "either": 0}


def test_an_undefined_area_is_not_inside_the_bound():
    one = board({"any": noisy(0.3)}, {"any": [SEED]}, y=np.zeros(N, int))
    paper = paper_of(any=(0.5, 0.5))
    rows = met(league(one, paper, 20), one, paper)
    assert [*rows["mean"]] == ["no"] and [*rows.seed] == ["no"]


def test_every_other_detector_against_the_leader():
    one = board({"best": Y, "same": Y, "close": noisy(0.25, 1), "far": noisy(1.5, 2)})
    told = behind(one, "best", n_resamples=400).set_index("detector")
    assert [*told.index] == ["same", "close", "far"], "the nearest first"
    assert told.difference["same"] == 0 and told.p["same"] == told.p_holm["same"] == 1
    assert told.difference["far"] == pytest.approx(areas(one.said["far"][0][0])[0] - 1)
    assert told.high["far"] < 0 and told.p["far"] == pytest.approx(2 / 401)
    # Holm by hand: the smallest p times three, the next times two, and never falling
    p = told.p.sort_values()
    by_hand = np.minimum(1, np.maximum.accumulate(p.to_numpy() * np.array([3, 2, 1])))
    assert told.p_holm[p.index].to_numpy() == pytest.approx(by_hand)


def test_a_leader_without_company():
    one = board({"alone": noisy(0.2)})
    told = behind(one, "alone", n_resamples=20)
    assert len(told) == 0 and [*told.columns] == ["detector", "difference", "low", "high", "p", "p_holm"]


def test_channels_of_each_detector():
    told = by_channel(board({"best": Y, "far": noisy(1.5)}), ["best", "far"])
    assert [*told[["detector", "slice"]].itertuples(index=False, name=None)] == [
        ("best", "A"),
        ("best", "B"),
        ("far", "A"),
        ("far", "B"),
    ]
    assert (told.auc_pr[:2] == 1).all() and (told.rows == N // 2).all()


def test_the_answer_says_who_cannot_be_told_from_the_first_and_counts_under_their_protocol_only():
    one = board({"best": Y, "same": Y, "close": Y, "far": noisy(1.5)}, {"best": [SEED]})
    paper = paper_of(best=(1.0, 1.0), far=(0.7, 0.7), other=(0.7, 0.7))
    table = league(one, paper, 20)
    rows, against = met(table, one, paper), behind(one, "best", n_resamples=100)
    official = league_answer(table, against, rows, paper, "official")
    assert official.startswith(
        "best has the highest AUC-PR of 4 detectors, 1.000 [1.000, 1.000], and same and close cannot be told"
    )
    assert (
        "Of 2 published rows executed again, 1 have both areas" in official
        and "published best is 1.000 (best)" in official
    )
    assert league_answer(table, against, rows, paper, "blocked").endswith("under the protocol blocked.")
    alone = board({"best": Y})
    answer = league_answer(league(alone, paper, 20), behind(alone, "best"), rows, paper, "blocked")
    assert answer == "best has the highest AUC-PR of 1 detectors, 1.000 [1.000, 1.000], under the protocol blocked."


def test_the_record_of_the_freeze_is_told_as_it_is():
    record = json.loads((ROOT / "esa_notebooks/models/assets/champion.json").read_text())
    told = frozen(record)
    for part in (
        record["frozen_commit"][:12],
        record["frozen_on"],
        record["scored_on"],
        f"{record['scored']['auc_pr']:.3f}",
    ):
        assert part in told
    best = published()["auc_pr"].idxmax()
    assert best == "FCNN" and len(published()) == 30
