"""From measured figures to people: the queue against known answers and a simulation, memory, and what is refused."""

import math
import threading

import numpy as np
import pandas as pd
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from esa_notebooks.llm.capacity import (
    GIB,
    CapacityError,
    drive,
    energy,
    in_flight,
    levels,
    load,
    memory,
    people,
    price_per_1000,
    scaled,
    served,
    simulate,
)


def said(tokens=3):
    return AIMessage("yes", usage_metadata={"input_tokens": 1, "output_tokens": tokens, "total_tokens": tokens + 1})


def measured(*rows):
    return pd.DataFrame(rows, columns=["concurrency", "requests_per_s", "p95_s"])


def test_one_server_is_the_machine_repair_model_of_the_textbook():
    """M/M/1//N has a closed form: p0 = 1 / Σ N!/(N−n)! (λ/μ)^n (Gross et al. 2008, section 2.8)."""
    users, think, rate = 6, 5.0, 0.8
    terms = [math.factorial(users) / math.factorial(users - n) * (1 / think / rate) ** n for n in range(users + 1)]
    assert np.allclose(in_flight({1: rate}, users, think), np.array(terms) / sum(terms))


def test_many_servers_leave_everybody_alone():
    """With X(n) = n μ nobody waits for anybody: n is binomial, and the latency is 1/μ."""
    from scipy.stats import binom

    users, think, rate = 20, 9.0, 1.0
    p = in_flight({n: n * rate for n in range(1, 21)}, users, think)
    assert np.allclose(p, binom.pmf(range(users + 1), users, 1 / (1 + think * rate)))
    assert load({n: n * rate for n in range(1, 21)}, users, think, 20).latency_s == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_queue_and_simulation_agree_on_random_curves(seed):
    rng = np.random.default_rng(seed)
    at = sorted(rng.choice(np.arange(2, 30), 3, replace=False).tolist())
    curve = dict(zip([1, *at], np.cumsum(rng.uniform(0.3, 1.0, 4)).tolist(), strict=True))
    users, think = int(rng.integers(5, 60)), float(rng.uniform(5, 30))
    told, (latency, rate) = load(curve, users, think, 5), simulate(curve, users, think, requests=20_000, seed=seed)
    assert latency == pytest.approx(told.latency_s, rel=0.05) and rate == pytest.approx(told.requests_per_s, rel=0.05)
    assert people(told.requests_per_s, told.latency_s, think) == pytest.approx(users)


def test_two_thousand_users_do_not_overflow():
    p = in_flight({1: 0.1, 16: 0.9}, 2000, 60.0)
    assert np.isfinite(p).all() and p.sum() == pytest.approx(1)
    assert load({1: 0.1, 16: 0.9}, 2000, 60.0, 16).requests_per_s == pytest.approx(0.9, rel=1e-6)


def test_served_is_the_last_number_of_users_at_which_the_share_holds():
    given = measured((1, 0.5, 2.2), (4, 1.4, 3.5), (16, 2.0, 9.0))
    curve = {1: 0.5, 4: 1.4, 16: 2.0}
    told = served(given, aim_s=4.0, think_s=30.0)
    assert told.share >= 0.95 > load(curve, told.users + 1, 30.0, 4).share
    assert served(given, aim_s=10.0, think_s=30.0).users > told.users
    assert served(given, aim_s=10.0, think_s=60.0).users > served(given, aim_s=10.0, think_s=30.0).users
    assert served(given, aim_s=2.0, think_s=30.0) is None
    assert served(given.iloc[::-1], aim_s=4.0, think_s=30.0) == told


def test_a_level_above_one_that_fails_the_aim_does_not_count():
    """Level 4 misses the aim and level 16 meets it by chance: nobody is promised 16."""
    told = served(measured((1, 0.5, 2.0), (4, 1.4, 9.0), (16, 2.0, 3.0)), aim_s=4.0, think_s=30.0)
    assert told.users == served(measured((1, 0.5, 2.0), (4, 1.4, 9.0), (16, 2.0, 9.0)), aim_s=4.0, think_s=30.0).users


@pytest.mark.parametrize("curve", [{}, {0: 1.0}, {1: 0.0}, {1: -1.0}, {1: math.nan}, {1: math.inf}])
def test_a_curve_without_rates_is_refused(curve):
    with pytest.raises(CapacityError):
        in_flight(curve, 3, 1.0)


@pytest.mark.parametrize("users, think", [(0, 1.0), (3, 0.0), (3, -1.0)])
def test_no_users_and_no_thinking_are_refused(users, think):
    with pytest.raises(CapacityError):
        in_flight({1: 1.0}, users, think)


def test_requests_that_fail_are_counted_and_their_time_is_no_latency():
    calls = iter(range(100))

    def half(prompt):
        if next(calls) % 2:
            raise TimeoutError("too late")
        return said()

    rows = drive(RunnableLambda(half), ["?"] * 6, 1, 2)
    told = levels(rows).iloc[0]
    assert told.failed == 6 and rows.tokens.sum() == 18 and (rows.error == "TimeoutError: too late").sum() == 6
    with pytest.raises(CapacityError, match="No request of 3 succeeded at 2 at a time: KeyError"):
        drive(RunnableLambda(lambda prompt: {}["x"]), ["?"] * 3, 2, 1)


def test_so_many_are_in_flight_and_no_more():
    barrier = threading.Barrier(3)

    def together(prompt):
        barrier.wait(timeout=10)  # passes only when three are there at the same time
        return said()

    assert drive(RunnableLambda(together), ["?"] * 6, 3, 1).ok.all()
    now, most, lock = [0], [0], threading.Lock()

    def counted(prompt):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.005)
        with lock:
            now[0] -= 1
        return said()

    drive(RunnableLambda(counted), ["?"] * 12, 3, 1)
    assert most[0] <= 3


def test_the_interval_is_students_over_rounds():
    rows = [
        {"concurrency": 2, "round": r, "tokens": n, "ok": True, "total_s": 1.0, "wall_s": 2.0}
        for r, n in enumerate((10, 20, 30))
    ]
    told = levels(pd.DataFrame(rows)).iloc[0]
    wide = 4.302652729749 * 5 / math.sqrt(3)  # t(0.975; 2), standard deviation of 5, 10 and 15 tokens/s
    assert told.tokens_per_s == 10 and told.high == pytest.approx(10 + wide) and told.low == 0
    assert math.isnan(levels(pd.DataFrame(rows[:1])).iloc[0].high)


def test_memory_by_hand():
    """Llama 2 7B in 16 bits: 32 layers, 32 heads of 128: half a mebibyte a token, as its authors' figures give."""
    need = memory(
        parameters=6_738_415_616, layers=32, kv_heads=32, head_dim=128, dtype="float16", working=GIB, available=24 * GIB
    )
    assert need.per_token == 512 * 1024 and need.sequences(4096) == (24 * GIB - GIB - 2 * 6_738_415_616) // (2 * GIB)
    assert (
        memory(
            parameters=10**12, layers=1, kv_heads=1, head_dim=1, dtype="float32", working=0, available=GIB
        ).sequences(1)
        < 0
    )


def test_energy_and_price_refuse_what_makes_no_sense():
    assert (
        energy(500, 10.0, None, 50.0).joules_per_1000 == 1000 and energy(500, 10.0, 250.0, None).joules_per_1000 == 500
    )
    for wrong in ((0, 1.0, 5.0, None), (10, 1.0, None, None), (10, 1.0, None, 0)):
        with pytest.raises(CapacityError):
            energy(*wrong)
    for wrong in ((1.0, 0.0, 1.0), (1.0, 5.0, 0.0), (1.0, 5.0, 1.5), (-1.0, 5.0, 1.0), (1.0, math.nan, 1.0)):
        with pytest.raises(CapacityError):
            price_per_1000(*wrong)


def test_scaling_keeps_the_rate_of_tokens_and_the_ends_of_the_interval():
    given = pd.DataFrame(
        {"concurrency": [1], "answer_tokens": [10.0], "tokens_per_s": [20.0], "low": [10.0], "high": [40.0]}
    )
    given = given.assign(requests_per_s=2.0, p50_s=0.5, p95_s=0.6)
    for rate, factor in (("tokens_per_s", 1), ("low", 0.5), ("high", 2)):
        told = scaled(given, 100, rate).iloc[0]
        assert told.requests_per_s == pytest.approx(0.2 * factor) and told.p95_s == pytest.approx(6 / factor)
    assert served(scaled(given.assign(low=0.0), 100, "low"), aim_s=60.0, think_s=10.0) is None
