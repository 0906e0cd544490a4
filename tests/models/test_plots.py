"""Figures of detectors: they draw what they are given, say it in words, and stand odd tables."""

import warnings

import numpy as np
import pandas as pd
import pytest

from esa_notebooks import style
from esa_notebooks.models.evaluation.calibration import reliability
from esa_notebooks.models.evaluation.metrics import EvaluationError
from esa_notebooks.models.plots import places, ranking, scores
from esa_notebooks.stats import friedman

rng = np.random.default_rng(0)
Y = np.arange(300) % 4 == 0
SCORE = rng.standard_normal(300) + 2 * Y


def board(n=33):
    value = np.linspace(0.98, 0.3, n)
    table = pd.DataFrame(
        {
            "detector": [f"Detector {i}" for i in range(n)],
            "group": ["supervised", "unsupervised"] * (n // 2) + ["supervised"] * (n % 2),
            "value": value,
            "low": value - 0.03,
            "high": value + 0.015,
            "published": value + 0.01,
        }
    )
    table.loc[3, ["value", "low", "high"]] = np.nan
    table.loc[5, "published"] = np.nan
    return table


def figures(rows=33):
    rng = np.random.default_rng(1)
    many = friedman(rng.standard_normal((10, rows)) + np.arange(rows) / 5)
    profile = pd.DataFrame({"a": [0.1, -np.inf, 5.0], "b": [0.0, 1.5, -1.5]}, index=["x", "y", "z"])
    heat = pd.DataFrame(
        rng.random((rows, 9)), index=[f"d{i}" for i in range(rows)], columns=[f"CADC08{i}" for i in range(9)]
    )
    heat.iloc[2, 3] = np.nan
    other = rng.random(300)
    return {
        "leaderboard": lambda: ranking.leaderboard(board(rows), chance=0.2),
        "ranks": lambda: ranking.ranks([f"d{i}" for i in range(rows)], many, 10),
        "classes": lambda: scores.score_classes(Y, SCORE, 1.0),
        "curves": lambda: scores.pr_curves({"a": (Y, SCORE), "b": (Y, other)}),
        "reliability": lambda: scores.reliability_diagram(reliability(Y, 1 / (1 + np.exp(-SCORE)))),
        "heat": lambda: places.heat_map(heat),
        "profiles": lambda: places.profiles(profile),
        "segments": lambda: places.segments([places.Segment("s", np.arange(30.0), np.arange(30) > 20)] * 3),
    }


@pytest.mark.parametrize("name", sorted(figures()))
def test_figures_fit_their_page_and_come_out_the_same_twice(name):
    one, two = figures(8)[name](), figures(8)[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is only warned of
        assert style.to_svg(one) == style.to_svg(two)
    assert one.get_size_inches()[0] == style.WIDTH_IN


@pytest.mark.parametrize("name", ["leaderboard", "ranks", "heat"])
def test_thirty_three_names_do_not_overlap(name):
    fig = figures()[name]()
    fig.draw_without_rendering()
    boxes = [t.get_window_extent() for t in fig.axes[0].get_yticklabels() if t.get_text()]
    assert len(boxes) == 33
    boxes.sort(key=lambda b: b.y0)
    pairs = zip(boxes, boxes[1:], strict=False)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairs) and min(b.x0 for b in boxes) >= 0


def test_the_leaderboard_draws_every_figure_where_it_is():
    ax = ranking.leaderboard(board(), chance=0.2).axes[0]
    rings = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    filled = [
        line for line in ax.lines if line.get_marker() in ("o", "s") and line not in rings and len(line.get_xdata())
    ]
    assert len(rings) == 32 and len(filled) == 32
    assert sorted(float(line.get_xdata()[0]) for line in filled) == pytest.approx(sorted(board().value.dropna()))


def test_the_words_of_the_leaderboard_are_counted():
    told = ranking.leaderboard_alt(board())
    assert "Best supervised: Detector 0" in told and "31 of 31 lie within 0.03" in told and "1 were published" in told


def test_a_leaderboard_without_published_figures_or_intervals():
    table = board(6).assign(published=np.nan, low=np.nan, high=np.nan)
    table = table[table.value.notna()]
    ranking.leaderboard(table).draw_without_rendering()
    assert "published figure" not in ranking.leaderboard_alt(table) and "nan" not in ranking.leaderboard_alt(table)


def test_a_group_without_a_mark_is_refused():
    with pytest.raises(EvaluationError, match="Detector 0 is of the group 'semi'"):
        ranking.leaderboard(board(6).assign(group="semi"))


def test_digits_follow_the_interval():
    assert ranking.digits(0.90, 0.95) == 2 and ranking.digits(0.975, 0.985) == 3 and ranking.digits(np.nan, np.nan) == 3


def test_who_cannot_be_told_from_the_best():
    values = np.tile([3.0, 2.9, 1.0, 0.5], (12, 1)) + 0.1 * rng.standard_normal((12, 4))
    told = ranking.ranks_alt(["a", "b", "c", "d"], friedman(values), 12)
    assert "not to be told from it" in told and "d" not in told.split("not to be told from it:")[1]


def test_names_on_curves_stand_apart_and_on_no_line():
    fig = scores.pr_curves(
        {
            n: (Y, k * Y + rng.standard_normal(300))
            for n, k in {
                "Extremely random": 4,
                "Forest": 3.8,
                "Neighbours": 1.5,
                "Projection": 1,
                "Copula": 0.5,
            }.items()
        }
    )
    fig.draw_without_rendering()
    boxes = [t.get_window_extent() for t in fig.axes[0].texts if "by chance" not in t.get_text()]
    assert len(boxes) == 5 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    frame = fig.axes[0].get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 for b in boxes)


def test_six_curves_or_one_class_are_refused():
    with pytest.raises(EvaluationError, match="One to five"):
        scores.pr_curves({str(i): (Y, SCORE) for i in range(6)})
    with pytest.raises(EvaluationError, match="Forest: a curve needs"):
        scores.pr_curves({"Forest": (np.zeros(300), SCORE)})


def test_a_threshold_beyond_all_scores_is_still_shown():
    fig = scores.score_classes(Y, SCORE, 1e6)
    assert "beyond the axis" in fig.axes[0].texts[0].get_text()
    assert f"{int(Y.sum())} of {int(Y.sum())} anomalous rows" in scores.score_classes_alt(Y, SCORE, 1e6)


def test_scores_without_anomalies():
    scores.score_classes(np.zeros(300), SCORE, 1.0).draw_without_rendering()
    assert "there is no anomalous row" in scores.score_classes_alt(np.zeros(300), SCORE, 1.0)


def test_a_heat_map_writes_every_known_cell_and_hatches_the_others():
    values = pd.DataFrame([[0.999, 0.12], [np.nan, -0.05]], index=["a", "b"], columns=["x", "y"])
    ax = places.heat_map(values, "mcc").axes[0]
    assert [t.get_text() for t in ax.texts] == ["1", ".12", "−.05"]
    assert sum(bool(p.get_hatch()) for p in ax.patches) == 1 and "hatched" in ax.get_xlabel()
    assert "1 of 4 cells are hatched" in places.heat_map_alt(values, "mcc")
    assert "no column has rows enough" in places.heat_map_alt(values * np.nan)


def test_cells_keep_their_ink_on_a_dark_page():
    ax = places.heat_map(pd.DataFrame([[0.9, 0.1]])).axes[0]
    exchanged = {c.lower() for c in (*style.LIGHT.values(), *style.PALETTE)}
    assert not {t.get_color() for t in ax.texts} & exchanged


def test_missed_counts_only_anomalies_and_their_misses():
    told = places.missed([1, 0, 1], [[1, 1, 0], [1, 0, 0]], [7, 8, 9])
    assert told.to_dict("records") == [{"row": 2, "id": 9, "missed": 2, "of": 2}]
    with pytest.raises(EvaluationError, match="decisions"):
        places.missed([1, 0], [[1, 0, 1]], [1, 2])


def test_profiles_of_constant_features_and_of_few_rows():
    nominal = pd.DataFrame({"a": np.ones(30), "b": np.arange(30.0)})
    told = places.profile(pd.Series({"a": 1.0, "b": 1e3}), nominal, ["a", "b"])
    assert (
        told["a"] == 0
        and told["b"] > 3
        and places.profile(pd.Series({"a": 0.0, "b": 15}), nominal, ["a", "b"])["a"] == -np.inf
    )
    with pytest.raises(EvaluationError, match="too few"):
        places.profile(pd.Series({"a": 1.0}), nominal[:10], ["a"])
    with pytest.raises(EvaluationError, match="One to six"):
        places.profiles(pd.DataFrame(np.zeros((2, 7))))
