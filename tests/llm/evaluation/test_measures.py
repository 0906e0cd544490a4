"""What is measured, on what, and what is not."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esa_notebooks.llm.evaluation.measures import MeasureError, Prices, busy_s, measures

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), min_size=1, max_size=25)


def campaign(n=100, correct=0.5, seconds=1.0, at_once=4, joules=None):
    starts = np.arange(n) // at_once * seconds
    frame = pd.DataFrame(
        {
            "status": "ok",
            "reason": "",
            "correct": (np.arange(n) < correct * n).astype(float),
            "total_s": seconds,
            "first_token_s": seconds / 10,
            "begun_s": starts,
            "ended_s": starts + seconds,
            "prompt_tokens": 100.0,
            "completion_tokens": 20.0,
            "cached": False,
        }
    )
    frame.attrs = {"measured": {"joules": joules}}
    return frame


@given(SPANS)
@settings(max_examples=200, deadline=None)
def test_busy_time_is_the_length_of_the_union(spans):
    covered = {second for begun, length in spans for second in range(begun, begun + length)}
    begun, length = np.array(spans, float).T
    assert busy_s(begun, begun + length) == len(covered)


def test_the_rates_of_a_regular_campaign_are_exact():
    table = measures(campaign(), watts=50, prices=Prices(hour=3.6, prompt_million=10, completion_million=100))
    value = table["value"]
    assert value["requests in flight"] == 4
    assert value["generated tokens"] == pytest.approx(80)  # 4 at a time, 20 tokens a second each
    assert value["latency, p50"] == value["latency, p95"] == 1 and value["time to first token, p50"] == 0.1
    assert value["energy of a correct answer"] == pytest.approx(50 * 25 / 50)
    assert value["energy of 1,000 generated tokens"] == pytest.approx(50 * 25 / 2000 * 1000)
    assert value["cost of a correct answer"] == pytest.approx(
        (3.6 * 25 / 3600 + 100 * (100 * 10 + 20 * 100) / 1e6) / 50
    )
    assert (table["n"] == 100).all()


def test_cached_answers_and_refusals_enter_nothing():
    plain = measures(campaign(), watts=50)
    kept = campaign(200, correct=0.25)
    kept.loc[100:, ["cached", "total_s", "first_token_s", "begun_s", "ended_s"]] = [
        True,
        99.0,
        99.0,
        math.nan,
        math.nan,
    ]
    assert measures(kept, watts=50).equals(plain)
    refused = campaign(200, correct=0.25)
    refused.loc[100:, ["reason", "total_s", "begun_s", "ended_s"]] = ["refused by policy", math.nan, 500.0, 500.001]
    assert measures(refused, watts=50).equals(plain)
    assert measures(kept[100:], watts=50).empty


def test_failed_requests_cost_energy_and_have_no_latency():
    half = campaign()
    half.loc[::2, ["status", "reason", "correct", "total_s", "completion_tokens"]] = [
        "failed",
        "timeout",
        math.nan,
        math.nan,
        math.nan,
    ]
    table = measures(half, watts=50)
    assert table.loc["latency, p50", "n"] == 50 and table.loc["energy of a correct answer", "n"] == 100
    assert table.loc["energy of a correct answer", "value"] == pytest.approx(50 * 25 / 25)
    assert table.loc["generated tokens", "value"] == pytest.approx(40)


def test_the_counter_comes_before_an_estimate_and_without_either_there_is_no_energy():
    assert not any("energy" in name for name in measures(campaign()).index)
    metered = measures(campaign(joules=77.0), watts=50).loc["energy of a correct answer"]
    assert metered["value"] == pytest.approx(77 / 50) and "rapl" in metered["method"]
    assert "estimated: 50 W" in measures(campaign(), watts=50).loc["energy of a correct answer", "method"]


def test_without_a_correct_answer_there_is_no_row_for_one_and_no_bound_where_a_resample_may_hold_none():
    table = measures(campaign(correct=0), watts=50, prices=Prices(hour=1))
    assert not any("correct" in name for name in table.index)
    assert (
        table.loc["energy of a request", "value"] == pytest.approx(50 * 25 / 100) and "cost of a request" in table.index
    )
    rare = measures(campaign(correct=0.02), watts=50).loc["energy of a correct answer"]
    assert rare["value"] == pytest.approx(50 * 25 / 2) and math.isnan(rare["low"]) and math.isnan(rare["high"])
    often = measures(campaign(correct=0.5), watts=50).loc["energy of a correct answer"]
    assert often["low"] < often["value"] < often["high"] and "50 correct" in often["method"]


def test_several_campaigns_are_laid_one_after_the_other_and_stacked_ones_are_refused():
    first, second = campaign(joules=10.0), campaign(joules=30.0)
    table = measures([first, second])
    assert table.loc["requests in flight", "value"] == 4 and table.loc["generated tokens", "value"] == pytest.approx(80)
    assert (
        table.loc["energy of a correct answer", "value"] == pytest.approx(40 / 100)
        and table.loc["latency, p50", "n"] == 200
    )
    kept = campaign(joules=999.0)
    kept["cached"] = True  # asked nothing: its energy is nobody's
    assert measures([first, kept, second]).equals(table)
    assert not any("energy" in name for name in measures([first, campaign()]).index)  # one does not tell it
    with pytest.raises(MeasureError, match="as a list"):
        measures(pd.concat([first, second]))
    assert measures([]).empty and measures([kept]).empty


@pytest.mark.parametrize(("n", "told"), [(4, []), (5, [50]), (39, [50]), (40, [50, 95])])
def test_a_quantile_is_told_only_from_enough_requests(n, told):
    assert [q for q in (50, 95) if f"latency, p{q}" in measures(campaign(n, at_once=1)).index] == told


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    covered, rounds = 0, 200
    for seed in range(rounds):
        frame = campaign(80, at_once=1)
        frame["total_s"] = np.random.default_rng(seed).lognormal(0, 0.5, 80)
        row = measures(frame, n_resamples=200, seed=seed).loc["latency, p50"]
        covered += row["low"] <= 1.0 <= row["high"]
    assert 0.90 <= covered / rounds <= 0.99  # 95 % plus and minus three standard errors of 200 rounds


@pytest.mark.parametrize("bad", [dict(), dict(hour=-1), dict(hour=math.nan), dict(prompt_million=math.inf)])
def test_prices_that_are_none_are_refused(bad):
    with pytest.raises(MeasureError, match="Prices are numbers from 0"):
        Prices(**bad)


@pytest.mark.parametrize("watts", [0, -5, math.nan, math.inf])
def test_a_power_that_is_none_is_refused(watts):
    with pytest.raises(MeasureError, match="above 0 W"):
        measures(campaign(), watts=watts)


def test_the_same_seed_gives_the_same_table():
    assert measures(campaign(), watts=9, seed=3).equals(measures(campaign(), watts=9, seed=3))
