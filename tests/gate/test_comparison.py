"""Better, not worse, worse, or nobody could tell."""

import numpy as np
import pytest

from esa_notebooks.gate.comparison import ComparisonError, Terms, compared, detectable, judged, outcome, power_at

TERMS = Terms(margin=0.02, amount=0.01)
NORMAL = np.random.default_rng(0).standard_normal(4000)
NORMAL = (NORMAL - NORMAL.mean()) / NORMAL.std(ddof=1)


def values(difference: float, error: float, blocks: int = 100, terms: Terms = TERMS) -> dict:
    return compared(
        difference, difference + error * NORMAL, metric="AUC-PR", against="champion", n=500, blocks=blocks, terms=terms
    )


def statuses(found: dict, terms: Terms = TERMS) -> dict:
    return {part.measure: part.status for part in judged(found, terms)}


@pytest.mark.parametrize(
    "difference, error, word, failed",
    [
        (0.03, 0.005, "better", set()),
        (0.011, 0.004, "better", set()),
        (0.009, 0.004, "not worse", {"difference"}),  # significant, and too small to be worth a change
        (0.012, 0.007, "not worse", {"difference"}),  # large enough, and not certain
        (0.0, 0.005, "not worse", {"difference"}),
        (-0.05, 0.005, "worse", {"difference", "low"}),
        (-0.05, 0.04, "inconclusive", {"difference", "low", "margin_detectable"}),
        (0.0, 0.04, "inconclusive", {"difference", "low", "margin_detectable"}),
        (0.06, 0.02, "better", set()),  # could not have seen a small loss, and saw a large gain
        (
            0.05,
            0.022,
            "inconclusive",
            {"margin_detectable"},
        ),  # above zero, but with an interval that reaches into the trivial
    ],
)
def test_outcomes(difference, error, word, failed):
    found = values(difference, error)
    assert outcome(found, TERMS) == word
    assert {name for name, status in statuses(found).items() if status != "passed"} == failed


def test_few_blocks_prove_nothing():
    assert (
        outcome(values(0.05, 0.005, blocks=29), TERMS)
        == "inconclusive"
        == outcome(values(-0.05, 0.005, blocks=29), TERMS)
    )
    assert statuses(values(0.05, 0.005, blocks=29))["blocks"] == "failed"


def test_a_replacement_that_only_must_not_be_worse():
    terms = Terms(margin=0.02, amount=0)
    assert set(statuses(values(-0.004, 0.005, terms=terms), terms).values()) == {"passed"}
    assert statuses(values(-0.004, 0.04, terms=terms), terms)["margin_detectable"] == "failed"


def test_two_copies_of_one_model_are_not_a_gain():
    found = compared(0.0, np.zeros(1000), metric="AUC-PR", against="itself", n=10, blocks=100, terms=TERMS)
    assert (found["low"], found["high"], found["standard_error"], found["p"]) == (0, 0, 0, 1)
    assert statuses(found)["difference"] == "failed" and outcome(found, TERMS) == "not worse"


def test_power_follows_the_normal_theory():
    assert detectable(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    assert power_at(detectable(0.3, 0.9, 0.99), 0.3, 0.99) == pytest.approx(0.9)
    assert power_at(0, 1) == pytest.approx(0.025) and power_at(-1, 0.1) == power_at(1, 0.1)
    assert (power_at(0, 0), power_at(0.1, 0)) == (0.0, 1.0)
    assert values(0.0, 0.01)["margin_detectable"] == pytest.approx(0.02801585, rel=1e-5)


def test_resamples_without_an_answer():
    drawn = 0.03 + 0.005 * NORMAL
    few, many = drawn.copy(), drawn.copy()
    few[:200], many[:201] = np.nan, np.inf  # of 4,000: five per cent, and one more
    options = {"metric": "AUC-PR", "against": "c", "n": 9, "blocks": 99, "terms": TERMS}
    assert compared(0.03, few, **options)["low"] > 0
    lost = compared(0.03, many, **options)
    assert np.isnan(lost["low"]) and outcome(lost, TERMS) == "inconclusive"
    assert any("NaN" in part.said for part in judged(lost, TERMS)) and "failed" in statuses(lost).values()
    with pytest.raises(ComparisonError, match="too few"):
        compared(0.03, drawn[:199], **options)


@pytest.mark.parametrize("name", ["difference", "low", "margin_detectable", "blocks"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), True, "0.5"])
def test_no_number_never_passes(name, value):
    found = {**values(0.03, 0.005), name: value}
    assert statuses(found)[name] in ("failed", "missing") and outcome(found, TERMS) == "inconclusive"


@pytest.mark.parametrize(
    "terms",
    [
        {"margin": 0},
        {"margin": -0.1},
        {"amount": -1},
        {"power": 1},
        {"power": 0.4},
        {"level": 95},
        {"blocks": 1},
        {"margin": float("nan")},
    ],
)
def test_terms_that_are_none(terms):
    with pytest.raises(ComparisonError, match="are no terms"):
        Terms(**{"margin": 0.02, "amount": 0.01, **terms})
