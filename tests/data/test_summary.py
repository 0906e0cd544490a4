"""Summaries, sentences and figures, for tables of every shape, the empty and the odd ones included."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from esa_notebooks.data import describe, plots, shuttle, summary
from esa_notebooks.data.datasets import read_telemetry
from esa_notebooks.data.sources import obtain
from esa_notebooks.data.tables import Column, Meta
from esa_notebooks.data.telemetry import Config
from esa_notebooks.stats import bootstrap_interval, effective_sample_size, share, wilson


def meta_of(*columns, **more):
    given = {
        "dataset": "toy",
        "title": "Toy",
        "row": "row",
        "kind": "synthetic",
        "licence": "CC0",
        "citation": "none",
        "sources": {},
    }
    return Meta(**{**given, **more}, columns=columns)


@pytest.fixture(scope="module")
def flying():
    return read_telemetry(Config(days=7))


@pytest.fixture(scope="module")
def series():
    time = pd.date_range("2024-01-01", periods=100, freq="10s", tz="UTC").delete([5, 6, 7, 50])
    df = pd.DataFrame({"time": time, "x": np.arange(96.0), "y": (np.arange(96) > 90).astype(int)})
    df.loc[3, "x"] = np.nan
    return df, meta_of(Column("time", "time"), Column("x", "channel"), Column("y", "label"), period_s=10.0)


def test_gaps(series):
    found = summary.gaps(*series)
    assert found.lost.tolist() == [3, 1] and found.minutes.tolist() == pytest.approx([0.5, 1 / 6])
    assert summary.expected_rows(*series) == 100
    assert summary.completeness(*series).loc[0, ["present", "expected"]].tolist() == [95, 100]


def test_jitter_is_no_gap(series):
    df, meta = series
    jitter = pd.to_timedelta(np.random.default_rng(0).uniform(-2, 2, len(df)), unit="s")
    assert len(summary.gaps(df.assign(time=df.time + jitter), meta)) == 2


def test_without_time_there_are_no_gaps_and_nothing_is_expected(series):
    df, meta = series[0][["x", "y"]], meta_of(Column("x", "channel"), Column("y", "label"))
    assert summary.gaps(df, meta).empty and summary.expected_rows(df, meta) == 96


def test_separation_is_the_area_under_the_curve(flying):
    df, meta = flying
    for row in summary.separation(df, meta).itertuples():
        known = df[row.name].notna()
        assert row.auc == pytest.approx(roc_auc_score(df.anomaly[known], df[row.name][known]))
        assert row.separation == max(row.auc, 1 - row.auc)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_one_kind_of_label_separates_nothing(labels):
    df, meta = pd.DataFrame({"x": [1.0, 2, 3], "y": labels}), meta_of(Column("x", "feature"), Column("y", "label"))
    assert summary.separation(df, meta).empty
    facts = summary.overview(df, meta)
    assert facts.interval.low <= facts.anomalous <= facts.interval.high
    assert describe.explored_answer(facts, meta, summary.separation(df, meta), None).endswith(").")


def test_without_labels():
    df, meta = pd.DataFrame({"x": [1.0, 2, 3]}), meta_of(Column("x", "feature"))
    facts = summary.overview(df, meta)
    assert facts.anomalous is None and "not known" in describe.explored_answer(
        facts, meta, summary.separation(df, meta), None
    )
    assert "nothing can be said" in describe.interval_note(facts)


def test_inventory_lists_classes_that_do_not_occur(flying):
    df, meta = flying
    fewer = replace(meta, events=meta.events[:2])
    classes = summary.anomaly_classes(fewer)
    assert len(classes) == 8 and classes.events.sum() == 2 and (classes.events == 0).sum() >= 6
    assert summary.anomaly_classes(replace(meta, events=())).empty


def test_limits_find_the_global_events_only(flying):
    df, meta = flying
    found = summary.found_by_limits(df, meta)
    assert found == [e["id"] for e in meta.events if e["locality"] == "global"]
    assert summary.found_by_limits(df[["bus_load"]], meta_of(Column("bus_load", "channel"))) is None


def test_split_balance_counts_everything_once():
    rng = np.random.default_rng(1)
    df = pd.DataFrame(
        {"g": rng.choice(list("ab"), 400), "s": rng.choice(["train", "test"], 400), "y": rng.integers(0, 2, 400)}
    )
    meta = meta_of(Column("g", "group"), Column("s", "split"), Column("y", "label"))
    balance = summary.split_balance(df, meta)
    whole, parts = balance[balance.group == "all"], balance[balance.group != "all"]
    assert whole.rows.sum() == parts.rows.sum() == 400 and whole.anomalies.sum() == df.y.sum()
    assert ((balance.low <= balance.share) & (balance.share <= balance.high)).all()
    only = summary.split_balance(df[df.s == "train"], meta)
    assert set(only.split) == {"train"} and "train rows" in describe.splits_alt(only)
    assert isinstance(plots.splits(only), Figure)


def test_intervals_follow_what_a_row_is(flying):
    df, meta = flying
    assert "block" in summary.overview(df, meta).method
    assert (
        "Wilson"
        in summary.overview(
            df[["bus_load", "anomaly"]], meta_of(Column("bus_load", "channel"), Column("anomaly", "label"))
        ).method
    )
    assert summary.overview(df, meta, seed=1) == summary.overview(df, meta, seed=1)


@pytest.mark.parametrize("successes, n", [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses(successes, n):
    with pytest.raises(ValueError, match="proportion"):
        wilson(successes, n)


def test_statistics_at_the_edges():
    assert wilson(0, 10).low == 0 and wilson(10, 10).high == 1
    assert effective_sample_size(np.ones(50)) == 50
    assert share(np.zeros(10, dtype=bool), ordered=True)[1].low == 0
    with pytest.raises(ValueError, match="missing or infinite"):
        bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="block of 9"):
        bootstrap_interval(np.arange(5.0), block=9)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(np.arange(5.0), level=95)
    assert bootstrap_interval(np.arange(50.0), seed=3) == bootstrap_interval(np.arange(50.0), seed=3)


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.99996, "more than 99.9 %"),
        (0.0001, "less than 0.1 %"),
        (0.0715, "7.1 %"),
        (0.5, "50.0 %"),
    ],
)
def test_percent_never_rounds_to_all_or_nothing(value, text):
    assert describe.percent(value) == text


@pytest.mark.parametrize("minutes, text", [(0.5, "30 s"), (30, "30 min"), (180, "3 h"), (14_400, "10 days")])
def test_durations(minutes, text):
    assert describe.duration(minutes) == text


def test_numbers():
    assert describe.number(-6.75, "A") == "−6.75 A" and describe.number(12_345.6, "1/min") == "12,346 1/min"
    assert describe.number(3, "count") == "3" and describe.number(2.1e-11) == "2.1e−11"


def test_sentences_are_true_of_each_table(flying, tmp_path):
    df, meta = flying
    said = describe.prepared_answer(summary.overview(df, meta), meta)
    assert "Synthetic data" in said and "gaps in reception" in said and "every 30 s" in describe.introduction(df, meta)
    df, meta = shuttle.read(obtain("shuttle", cache=tmp_path, offline=True).files["shuttle.csv.gz"])
    facts = summary.overview(df, meta)
    said = describe.prepared_answer(facts, meta)
    assert "Real data: 49,097 readings of nine sensors with 9 channels each, and no value is missing" in said
    assert "gaps in reception could not be seen" in said and "every" not in describe.introduction(df, meta)
    assert "7.2 %" in describe.explored_answer(facts, meta, summary.separation(df, meta), None)
    assert "no time stamps" in describe.no_events(meta)


def test_a_span_without_gaps_or_events():
    df, meta = read_telemetry(Config(days=1, anomalies_per_week=0, gaps_per_day=0, packet_loss=0))
    found = summary.gaps(df, meta)
    assert "nothing is missing" in describe.calendar_alt(
        found, meta
    ) and "no value is missing" in describe.prepared_answer(summary.overview(df, meta), meta)
    assert "No channel leaves" in describe.signals_alt(df, meta)
    for fig in (plots.signals(df, meta), plots.calendar(found, df.time.iloc[0], df.time.iloc[-1])):
        assert isinstance(fig, Figure)


@pytest.mark.parametrize("days", [0.2, 1, 40, 400])
def test_calendar_of_any_span(days):
    first = pd.Timestamp("2024-01-01T06:00", tz="UTC")
    last = first + pd.Timedelta(days, unit="D")
    found = pd.DataFrame(
        {"start": [first + (last - first) / 3], "end": [first + (last - first) / 2], "minutes": [1.0], "lost": [1]}
    )
    fig = plots.calendar(found, first, last)
    fig.canvas.draw()
    assert len(fig.axes[0].get_lines()) >= 2 and fig.get_figheight() < 12


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(100),
        np.arange(100.0),
        np.geomspace(1e-9, 1, 500),
        np.r_[np.zeros(99), 1e6],
        np.random.default_rng(0).normal(size=1000),
        np.array([1.0, 1.0]),
    ],
)
def test_bins_hold_every_distribution(x):
    edges, _ = plots.bins_for(x)
    assert (np.diff(edges) > 0).all() and len(edges) <= 60


def test_figures_leave_the_callers_settings_alone(flying):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.gallery(*flying)
    assert dict(matplotlib.rcParams) == before


def test_figures_are_the_same_twice(flying):
    from esa_notebooks.style import to_svg

    df, meta = flying
    for draw in (
        lambda: plots.signals(df, meta),
        lambda: plots.gallery(df, meta),
        lambda: plots.distributions(df, meta, ["bus_load", "battery_voltage"]),
    ):
        assert to_svg(draw()) == to_svg(draw())


# Long tables and records


@pytest.fixture
def long():
    """Two channels with clocks of their own, in three segments, the period stated per row; samples are lacking in one."""

    def segment(channel, number, start, period, n, lost=()):
        time = pd.date_range(start, periods=n, freq=f"{period}s", tz="UTC").delete(list(lost))
        return pd.DataFrame(
            {
                "segment": number,
                "channel": channel,
                "time": time,
                "value": np.arange(len(time), dtype=float),
                "sampling": period,
                "anomaly": int(number == 2),
                "split": "test" if number == 3 else "train",
            }
        )

    df = pd.concat(
        [
            segment("A", 1, "2024-01-01", 5, 10, lost=(3, 4, 5)),
            segment("A", 2, "2024-01-05", 5, 10),
            segment("B", 3, "2024-01-01", 1, 20, lost=(7,)),
        ],
        ignore_index=True,
    )
    return df, meta_of(
        Column("segment", "segment"),
        Column("channel", "group"),
        Column("time", "time"),
        Column("value", "value", "V"),
        Column("sampling", "context", "s"),
        Column("anomaly", "label", title="Anomaly"),
        Column("split", "split"),
        row="sample of one channel",
    )


def test_gaps_of_a_long_table_lie_within_a_channel_and_segment(long):
    found = summary.gaps(*long)
    assert found.channel.tolist() == ["A", "B"] and found.lost.tolist() == [3, 1]
    assert summary.expected_rows(*long) == len(long[0]) + 4 == 40
    assert summary.completeness(*long).set_index("name")[["present", "expected"]].to_numpy().tolist() == [
        [17, 20],
        [19, 20],
    ]


def test_a_long_table_counts_channels(long):
    df, meta = long
    facts = summary.overview(df, meta, seed=1)
    assert facts.columns == 2 and facts.anomalies == 10 and facts.method == "bootstrap over 3 segments drawn as a whole"
    assert facts.interval.low <= facts.anomalous <= facts.interval.high and facts == summary.overview(df, meta, seed=1)
    assert "36 samples of 2 channels" in describe.prepared_answer(
        facts, meta
    ) and "4 samples" in describe.prepared_answer(facts, meta)
    assert summary.columns(df, meta).set_index("name").maximum.to_dict() == {"A": 9.0, "B": 18.0}
    assert "drawn as a whole" in describe.interval_note(facts) and "2 channels" in describe.introduction(df, meta)


def test_separation_is_within_channels_that_have_both_labels(long):
    df, meta = long
    [row] = summary.separation(df, meta).itertuples()
    part = df[df.channel == "A"]
    assert row.name == "A" and row.auc == pytest.approx(roc_auc_score(part.anomaly, part.value))
    said = describe.explored_answer(summary.overview(df, meta), meta, summary.separation(df, meta), None)
    assert "Of 1 channel" in said and "A is the easiest" in said
    assert isinstance(plots.distributions(df, meta, ["A"]), Figure) and "A: median" in describe.distributions_alt(
        df, meta, summary.separation(df, meta)
    )


def test_channels_are_drawn_the_most_anomalous_first(long):
    df, meta = long
    assert summary.telling(df, meta) == ["A", "B"] and summary.telling(df, meta, most=1) == ["A"]
    fig = plots.channels(df, meta, ["A", "B"])
    fig.canvas.draw()
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["A", "B"]
    assert "A between 0 and 9" in describe.channels_alt(df, meta, ["A", "B"])


def test_a_period_that_nobody_states_makes_no_gaps(long):
    df, meta = long
    silent = replace(meta, columns=tuple(replace(c, unit="") if c.name == "sampling" else c for c in meta.columns))
    assert (
        summary.period(df, silent) is None
        and summary.gaps(df, silent).empty
        and summary.expected_rows(df, silent) == len(df)
    )


def test_an_order_is_not_a_clock():
    df = pd.DataFrame({"channel": list("aabb"), "step": [0, 1, 0, 1], "value": [1.0, 2, 3, 4]})
    meta = meta_of(Column("channel", "group"), Column("step", "order"), Column("value", "value"))
    assert summary.gaps(df, meta).empty and "samples have an order" in describe.no_time(meta)
    assert isinstance(plots.channels(df, meta, ["a", "b"]), Figure)
    assert isinstance(plots.channels(df.iloc[:0], meta, ["a"]), Figure), "a channel without a sample"


@pytest.fixture
def records():
    df = pd.DataFrame(
        {
            "tag": ["x", "y", "z"],
            "day": pd.to_datetime(["2024-01-01", None, "2024-03-01"]),
            "kind": ["a", "a", None],
            "delay": [1.0, np.nan, 5.0],
            "failed": [0, 1, 0],
            "words": ["w" * 50, "v", "u"],
        }
    )
    return df, meta_of(
        Column("tag", "id"),
        Column("day", "date", title="Day"),
        Column("kind", "attribute"),
        Column("delay", "feature", "d"),
        Column("failed", "label", title="Failed"),
        Column("words", "text"),
        row="launch",
    )


def test_a_record_is_complete_in_all_but_its_identity(records):
    df, meta = records
    found = summary.completeness(df, meta).set_index("name")
    assert (
        found.present.to_dict() == {"day": 2, "kind": 2, "delay": 2, "failed": 3, "words": 3}
        and (found.expected == 3).all()
    )
    fields = summary.fields(df, meta).set_index("name")
    assert (
        fields.loc["day", ["first", "last"]].tolist() == ["2024-01-01", "2024-03-01"]
        and fields.loc["kind", "most frequent"] == "a"
    )
    assert (
        fields.loc["words", "last"].endswith("…")
        and "delay" not in fields.index
        and summary.columns(df, meta).name.tolist() == ["delay"]
    )


def test_sentences_about_records(records):
    df, meta = records
    facts = summary.overview(df, meta)
    assert "3 launches with 5 fields each" in describe.prepared_answer(
        facts, meta
    ) and "gaps" not in describe.prepared_answer(facts, meta)
    said = describe.explored_answer(facts, meta, summary.separation(df, meta), None)
    assert "33.3 % of 3 launches are marked as failed" in said
    unlabelled = replace(meta, columns=tuple(c for c in meta.columns if c.role != "label"))
    assert "delay lies between 2 d and 4 d" in describe.record_answer(
        df, unlabelled, summary.class_balance(df, unlabelled)
    )
    assert isinstance(plots.distributions(df, unlabelled, ["delay"]), Figure)
    assert (
        describe.distributions_alt(df, unlabelled, summary.columns(df, unlabelled)) == "Histograms. delay: median 3 d."
    )


def test_classes_are_counted_in_each_split():
    df = pd.DataFrame(
        {"text": list("abcd"), "role": ["p", "p", "q", "p"], "split": ["train", "train", "train", "test"]}
    )
    meta = meta_of(Column("text", "text"), Column("role", "class"), Column("split", "split"), row="sentence")
    balance = summary.class_balance(df, meta)
    assert balance.to_dict("list") == {
        "class": ["p", "q"],
        "rows": [3, 1],
        "share": [0.75, 0.25],
        "train": [pytest.approx(2 / 3), pytest.approx(1 / 3)],
        "test": [1.0, 0.0],
    }
    assert (
        describe.record_answer(df, meta, balance)
        == "4 sentences in 2 classes: p is the most frequent with 75.0 %, q the rarest with 25.0 %."
    )


def test_classes_of_a_publisher_are_no_taxonomy():
    meta = meta_of(
        events=(
            {"id": 1, "channels": "a", "first": 3, "last": 5, "class": "point"},
            {"id": 2, "channels": "a", "first": 9, "last": 9, "class": "contextual"},
        )
    )
    assert summary.anomaly_classes(meta).empty and plots.examples(meta).empty
    assert summary.sequences(meta)[["class", "events", "longest"]].to_numpy().tolist() == [
        ["contextual", 1, 1],
        ["point", 1, 3],
    ]
    assert summary.sequences(meta_of()).empty


def test_decades_fit_on_a_calendar():
    first, last = pd.Timestamp("1957-10-01", tz="UTC"), pd.Timestamp("2025-07-20", tz="UTC")
    found = pd.DataFrame(
        {
            "start": [first + pd.Timedelta(9, unit="D")],
            "end": [first + pd.Timedelta(99, unit="D")],
            "minutes": [1.0],
            "lost": [1],
        }
    )
    fig = plots.calendar(found, first, last)
    fig.canvas.draw()
    assert fig.get_figheight() < 20
