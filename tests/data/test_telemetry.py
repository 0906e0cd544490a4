"""The generator: physics, anomalies, losses, and that chunks and seeds do what they promise."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import spacecraft as sc
from esa_notebooks.data.anomalies import CLASSES, Channel, plan
from esa_notebooks.data.telemetry import (
    BATTERY,
    BY_NAME,
    CHANNELS,
    FAULTY,
    Config,
    Simulator,
    generate,
    geometry,
    planned_anomalies,
    planned_gaps,
    telemetry,
)

NAMES = list(BY_NAME)
QUIET = {"anomalies_per_week": 0, "gaps_per_day": 0, "packet_loss": 0}


@pytest.fixture(scope="module")
def default():
    return telemetry()


@pytest.fixture(scope="module")
def clean():
    return telemetry(Config(**QUIET))[0]


@pytest.mark.parametrize("altitude", [350, 515, 800, 1200])
@pytest.mark.parametrize("beta", [0, 20, 45, 60, 70, 89])
def test_eclipse_fraction_against_the_closed_form(altitude, beta):
    angle = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    sampled = sc.in_umbra(np.cos(np.deg2rad(beta)) * np.cos(angle), altitude).mean()
    assert sampled == pytest.approx(sc.eclipse_fraction(altitude, np.deg2rad(beta)), abs=1e-4)


def test_no_eclipse_above_the_critical_beta():
    critical = np.arcsin(sc.EARTH_RADIUS_KM / (sc.EARTH_RADIUS_KM + 515))
    assert sc.eclipse_fraction(515, critical + 1e-3) == 0 < sc.eclipse_fraction(515, critical - 1e-3)


@pytest.mark.parametrize("hour, beta", [(12.0, 0.0), (6.0, 90.0), (18.0, -90.0)])
def test_node_at_noon_lies_in_the_plane_of_the_sun(hour, beta):
    """At an equinox a polar orbit with its node at local noon contains the Sun; at six o'clock it faces it."""
    config = Config(start=date(2024, 3, 20), inclination_deg=90, node_local_time_h=hour)
    found = np.rad2deg(geometry(config, np.array([0.0])).beta[0])
    assert abs(abs(found) - abs(beta)) < 2


def test_a_sun_synchronous_orbit_keeps_its_beta_angle():
    config = Config(days=365)
    beta = np.rad2deg(geometry(config, np.arange(0, 365 * 86_400, 86_400.0)).beta)
    assert np.ptp(beta) < 12 and -30 < beta.mean() < -10


def test_the_sun_is_where_the_almanac_has_it():
    """Solstice of 2024-06-20 20:51 UTC: longitude 90 degrees."""
    days = (pd.Timestamp("2024-06-20T20:51") - pd.Timestamp("2000-01-01T12:00")) / pd.Timedelta(1, unit="D")
    assert np.rad2deg(sc.sun_longitude(days)) % 360 == pytest.approx(90, abs=0.03)


def test_eclipse_of_the_telemetry(clean):
    g = geometry(Config(), np.arange(0, 14 * 86_400, 30.0))
    expected = np.mean([sc.eclipse_fraction(515, b) for b in g.beta[::500]])
    assert clean.eclipse.mean() == pytest.approx(expected, abs=0.003)


def test_the_array_is_dark_in_eclipse_and_follows_the_cosine(clean):
    dark = clean[clean.eclipse == 1].array_current
    assert dark.abs().max() < 0.06
    low = telemetry(Config(days=2, node_local_time_h=12, **QUIET))[0]
    high = telemetry(Config(days=2, node_local_time_h=9, **QUIET))[0]
    ratio = high.array_current[high.eclipse == 0].median() / low.array_current[low.eclipse == 0].median()
    betas = [abs(geometry(Config(node_local_time_h=h), np.array([86_400.0])).beta[0]) for h in (9, 12)]
    assert ratio == pytest.approx(np.cos(betas[0]) / np.cos(betas[1]), abs=0.06)


def test_energy_is_conserved_exactly():
    sim = Simulator(Config(days=3))
    values, _ = sim.advance(np.arange(3 * 2880))
    power = values["battery_current"] * values["battery_voltage"]
    stored = np.where(power > 0, BATTERY.efficiency * power, power).sum() * 30 / 3600
    assert stored == pytest.approx((values["battery_charge"][-1] / 100 - 0.9) * BATTERY.capacity_wh, abs=1e-6)
    offered = values["array_current"] * 30.0 - values["bus_load"]
    assert (power <= np.maximum(offered, 0) + 1e-9).all()  # the battery never takes more than is offered
    assert np.allclose(power[offered < 0], offered[offered < 0])


def test_the_battery_reaches_full_every_orbit_and_never_empties(clean):
    assert clean.battery_charge.max() < 100.5 and clean.battery_charge.min() > 60
    orbit = (clean.index * 30 // sc.orbital_period(515)).astype(int)
    assert clean.battery_charge.groupby(orbit).max().iloc[1:-1].min() > 99


def test_voltage_falls_under_load(clean):
    lit, night = clean[(clean.eclipse == 0) & (clean.battery_charge > 99)], clean[clean.eclipse == 1]
    assert lit.battery_voltage.mean() > night.battery_voltage.mean() + 0.5


def test_temperature_lags_behind_sunlight(clean):
    """The first-order lag puts the warmest moment near the end of sunlight, and its decay has the time constant."""
    entry = np.flatnonzero(np.diff(clean.eclipse) == 1)[20]
    fall = clean.panel_temperature.to_numpy()[entry + 1 : entry + 60]
    slope = np.polyfit(np.arange(59) * 30, np.log(fall + 85), 1)[0]
    assert -1 / slope == pytest.approx(850, rel=0.03)
    assert clean.panel_temperature.std() > 20 * clean.battery_temperature.std()


def test_lag_is_the_exact_solution():
    target = np.random.default_rng(0).normal(size=500)
    response, last = sc.first_order_lag(target, 10, 60, 3.0)
    value, keep = 3.0, np.exp(-10 / 60)
    for i, x in enumerate(target):
        value = keep * value + (1 - keep) * x
        assert response[i] == pytest.approx(value)
    assert last == response[-1]


def test_wheels_fill_and_unload(clean):
    jumps = clean.wheel_y_speed.diff(20) < -1000
    assert 5 < (jumps & ~jumps.shift(fill_value=False)).sum() < 40
    assert clean.wheel_y_speed.between(1800, 5300).all()


def test_commands_come_only_in_contact(clean):
    hot = clean.telecommands > 0
    assert 0.02 < hot.mean() < 0.12
    assert clean.bus_load[hot].min() > clean.bus_load[~hot].median() + 15


def test_timestamps(default):
    df, _ = default
    assert str(df.time.dt.tz) == "UTC" and df.time.is_monotonic_increasing and df.time.is_unique
    offset = (df.time - pd.Timestamp("2024-01-01", tz="UTC")).dt.total_seconds()
    assert (offset % 30 == 0).all()


def test_period_below_a_second():
    df = pd.concat(generate(Config(days=0.02, period_s=0.1, **QUIET)))
    assert df.time.diff().dropna().eq(pd.Timedelta(100, unit="ms")).all() and len(df) == 17_280


def test_values_stand_on_the_grid_of_the_converter(default):
    df, _ = default
    for c in CHANNELS:
        if c.step:
            part = df[c.name].dropna() / c.step
            assert np.allclose(part, part.round(), atol=1e-6), c.name


def test_noise_is_as_declared(clean):
    sim = Simulator(Config())
    sim.advance(np.arange(-7200, 0))
    truth, _ = sim.advance(np.arange(len(clean)))
    for c in FAULTY:
        spread = (clean[c.name] - truth[c.name]).std()
        assert spread == pytest.approx(np.hypot(c.noise, c.step / np.sqrt(12)), rel=0.05), c.name


def test_anomalies_stand_inside_their_windows_and_nowhere_else(default, clean):
    df, events = default
    twin = clean.set_index("time").loc[df.time].reset_index()
    for event in events.itertuples():
        window = df.time.between(event.start, event.end)
        assert window.sum() == event.samples and (df.event[window] == event.id).all()
        for name in NAMES:
            differs = df[name][window].ne(twin[name][window])
            assert differs.mean() > 0.5 if name in event.channels.split(", ") else not differs.any(), (event, name)
    outside = df.anomaly == 0
    different = df.loc[outside, NAMES].ne(twin.loc[outside, NAMES]) & df.loc[outside, NAMES].notna()
    assert not different.any(axis=None)


def test_global_ones_leave_the_limits_and_local_ones_never(default):
    df, events = default
    for event in events.itertuples():
        rows = df[df.event == event.id]
        for name in event.channels.split(", "):
            inside = rows[name].between(BY_NAME[name].low, BY_NAME[name].high)
            assert (not inside.all()) if event.locality == "global" else inside.all(), (event, name)


@pytest.mark.parametrize("start", [date(2024, 4, 10), date(2025, 6, 21), date(2025, 12, 1)])
@pytest.mark.parametrize("seed", [1, 2])
def test_normal_operation_stays_within_limits(start, seed):
    df, _ = telemetry(Config(seed=seed, start=start, days=5, **QUIET))
    for c in CHANNELS:
        assert df[c.name].between(c.low, c.high).all(), c.name


def test_every_class_occurs(default):
    _, events = default
    assert {tuple(r) for r in events[["length", "dimensionality", "locality"]].to_numpy()} == set(CLASSES)
    assert (events.samples[events.length == "point"] <= 3).all()
    assert (events.channels.str.count(",") > 0).eq(events.dimensionality == "multivariate").all()
    for channels in events.channels:
        assert len({BY_NAME[c].group for c in channels.split(", ")}) == 1


@pytest.mark.parametrize("chunk", [1, 7, 1000, 2881, 10**9])
def test_chunks_change_nothing(chunk):
    config = Config(
        days=0.4 if chunk > 1 else 0.05,
        anomalies_per_week=250,
        shortest_minutes=2,
        longest_minutes=4,
        gaps_per_day=20,
        gap_minutes=3,
        packet_loss=0.05,
    )
    whole, parts = pd.concat(generate(config), ignore_index=True), pd.concat(generate(config, chunk), ignore_index=True)
    pd.testing.assert_frame_equal(whole, parts, check_exact=True)


def test_the_seed_decides_and_nothing_else():
    short = Config(days=1)
    a, b, c = (telemetry(s)[0] for s in (short, replace(short), replace(short, seed=5)))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert not a.array_current.equals(c.array_current)


def test_anomalies_do_not_move_when_the_noise_is_drawn_differently():
    assert planned_anomalies(Config()) == planned_anomalies(replace(Config(), packet_loss=0.3, gaps_per_day=9))


def test_gaps_and_losses():
    config = Config(days=7, gaps_per_day=5, packet_loss=0.01)
    df, _ = telemetry(config)
    lost = config.n_samples - len(df)
    inside = {k for a, b in planned_gaps(config, planned_anomalies(config)) for k in range(a, min(b, config.n_samples))}
    assert lost == len(inside) > 100
    assert df.loc[df.anomaly == 1, NAMES].notna().all(axis=None)
    share = df.loc[df.anomaly == 0, "array_current"].isna().mean()
    assert share == pytest.approx(0.01, rel=0.3)
    assert (df.array_current.isna() == df.bus_load.isna()).all() and not df.array_current.isna().equals(
        df.wheel_x_speed.isna()
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"days": 0},
        {"days": float("nan")},
        {"days": -1},
        {"period_s": 0},
        {"period_s": 600},
        {"altitude_km": 100},
        {"altitude_km": 36_000},
        {"inclination_deg": 181},
        {"node_local_time_h": 25},
        {"packet_loss": 1.5},
        {"anomalies_per_week": -1},
        {"gaps_per_day": -0.1},
        {"seed": -1},
        {"station_latitude_deg": 91},
        {"shortest_minutes": 300},
        {"longest_minutes": 0},
    ],
)
def test_configurations_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        Config(**wrong)


def test_too_many_anomalies_say_how_many_would_fit():
    with pytest.raises(ValueError, match="at most 6"):
        next(generate(Config(days=2, anomalies_per_week=300)))
    with pytest.raises(ValueError, match="chunk"):
        next(generate(chunk=0))


def test_no_anomalies_at_all():
    df, events = telemetry(Config(days=0.5, anomalies_per_week=0))
    assert events.empty and list(events.columns)[:3] == ["id", "start", "end"] and not df.anomaly.any()


def test_multivariate_needs_two_channels_of_one_group():
    alone = [Channel("a", "A", "V", "one", 0, 1), Channel("b", "B", "V", "two", 0, 1)]
    with pytest.raises(ValueError, match="at least two channels"):
        plan(10_000, 8, alone, np.random.default_rng(0), 10, 100)


def test_memory_is_bounded_by_the_chunk():
    sizes = [len(part) for part in generate(Config(days=30, gaps_per_day=0), chunk=5000)]
    assert max(sizes) == 5000 and sum(sizes) == 86_400
