"""Windows over raw samples of every layout, and the networks that take them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import opssat, smap
from esa_notebooks.data.datasets import read_telemetry
from esa_notebooks.data.telemetry import CHANNELS, Config
from esa_notebooks.models.networks.autoencoder import Autoencoder
from esa_notebooks.models.networks.convolution import ConvolutionClassifier
from esa_notebooks.models.networks.dense import DenseClassifier
from esa_notebooks.models.networks.forecast import Forecaster
from esa_notebooks.models.networks.network import NetworkError
from esa_notebooks.models.networks.training import Recipe
from esa_notebooks.models.networks.windows import Scale, Series, cut, filled, lay_back, resampled, series_of

QUICK = Recipe(epochs=3, patience=3, batch=16, accelerator="cpu")


def series(n: int, channels: int = 1, channel: str = "a", seed: int = 0) -> Series:
    values = np.random.default_rng(seed).standard_normal((n, channels)).astype(np.float32)
    return Series(channel, values, np.zeros(n, int))


@pytest.mark.parametrize("n, length, step", [(10, 10, 10), (10, 4, 4), (11, 4, 3), (50, 7, 1), (23, 5, 5)])
def test_every_sample_is_covered_and_returns_to_its_place(n, length, step):
    one = series(n, 2)
    windows = cut([one], length, step)
    assert windows.X.shape[1:] == (2, length) and len(np.unique(windows.start)) == len(windows.start)
    for column in range(2):
        assert np.allclose(lay_back(windows.X[:, column], windows.start, length, n), one.values[:, column], atol=1e-6)


def test_windows_know_their_series_and_never_span_two():
    many = [series(20, seed=1), series(9, seed=2), series(31, seed=3)]
    windows = cut(many, 8, 5)
    for X, owner, start in zip(*windows[:3], strict=True):
        assert np.array_equal(X[0], many[owner].values[start : start + 8, 0])
    assert set(windows.owner) == {0, 1, 2}


def test_a_window_is_labelled_where_any_sample_is():
    one = replace(series(12), label=(np.arange(12) == 5).astype(int))
    windows = cut([one], 4, 1)
    assert windows.label.tolist() == [int(s <= 5 < s + 4) for s in windows.start]


def test_samples_under_no_window_have_no_score():
    assert np.isnan(lay_back(np.ones(1), np.array([2]), 3, 7)).tolist() == [True, True, False, False, False, True, True]


@pytest.mark.parametrize(
    "length, step, said", [(30, 1, "less than one window"), (5, 0, "step"), (5, 6, "step"), (0, 0, "step")]
)
def test_impossible_windows_are_refused(length, step, said):
    with pytest.raises(NetworkError, match=said):
        cut([series(20)], length, step)
    with pytest.raises(NetworkError, match="no series"):
        cut([], 3, 1)


def test_the_scale_comes_from_training_by_channel():
    a, b = series(100, channel="a"), replace(series(100, channel="b"), values=series(100).values * 50 + 7)
    still = replace(series(100, channel="still"), values=np.full((100, 1), 3.0, np.float32))
    scale = Scale.of([a, b, still])
    assert np.allclose([scale(a).values.std(), scale(b).values.std()], 1, atol=1e-4)
    moved = replace(still, values=still.values + 2)
    assert (scale(still).values == 0).all() and (scale(moved).values == 2).all(), "news keeps its size"
    stranger, pooled = replace(a, channel="never seen"), np.concatenate([s.values for s in (a, b, still)])
    assert np.allclose(scale(stranger).values, (a.values - pooled.mean()) / pooled.std(), atol=1e-4)
    for bad in ([], [series(5), series(5, 2)]):
        with pytest.raises(NetworkError, match="columns"):
            Scale.of(bad)


def test_holes_are_filled_by_lines_and_counted():
    values, share = filled(np.array([[np.nan, 1], [2, np.inf], [np.nan, np.nan], [4, 4]]), "x")
    assert values.tolist() == [[2, 1], [2, 2], [3, 3], [4, 4]] and share == 0.5
    with pytest.raises(NetworkError, match="x: column 0 has no finite value"):
        filled(np.full((3, 1), np.nan), "x")


def test_the_generated_spacecraft_is_one_series():
    df, meta = read_telemetry(Config(days=0.5, period_s=120, packet_loss=0.02))
    (whole,) = series_of(df, meta)
    assert whole.values.shape == (len(df), len(CHANNELS)) and np.isfinite(whole.values).all() and 0 < whole.filled < 0.2
    assert np.array_equal(whole.label, df.anomaly)


def test_smap_is_one_series_per_channel_and_part_with_its_commands():
    rng = np.random.default_rng(0)
    channels = [
        smap.Channel(
            name,
            *(
                f(n)
                for n in (30, 40)
                for f in (lambda n: rng.random(n).astype(np.float32), lambda n: rng.integers(0, 2, (n, 24)))
            ),
            rng.integers(0, 2, 40),
        )
        for name in ("P-1", "A-2")
    ]
    df = smap.as_table(channels)
    _, meta = smap._described(df, pd.DataFrame(columns=["chan_id", "sequence", "num_values", "line", "class"]), {})
    found = series_of(df, meta, commands=24)
    assert [(s.channel, s.part, s.values.shape) for s in found] == [
        ("P-1", "train", (30, 25)),
        ("P-1", "test", (40, 25)),
        ("A-2", "train", (30, 25)),
        ("A-2", "test", (40, 25)),
    ]
    assert np.array_equal(found[1].values[:, 1:], channels[0].test_commands) and np.array_equal(
        found[3].label, channels[1].label
    )
    assert series_of(df, meta)[0].values.shape == (30, 1)


def test_real_smap(require):
    from esa_notebooks.data.sources import NotObtained, obtain_configured

    try:
        files = obtain_configured("smap", progress=False).files
    except NotObtained as e:
        require("mirror", False, str(e))
    df, meta = smap.read(files["smap_packed.npz"], files["labeled_anomalies.csv"])
    found = series_of(df, meta)
    assert len(found) == 2 * df.channel.nunique() and sum(len(s.values) for s in found) == len(df)
    windows = cut([Scale.of(s for s in found if s.part == "train")(s) for s in found], 64, 64)
    assert np.isfinite(windows.X).all() and windows.label[[found[o].part == "train" for o in windows.owner]].sum() == 0


def test_segments_of_unequal_length_become_rows_of_one_shape(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        ("CADC0873", f"2022-02-06T07:{m:02d}:{s:02d}.000Z", rng.normal(), "x", 1, segment % 2, segment, segment % 3 > 0)
        for m, segment in enumerate((7, 8, 9, 10))
        for s in range(3 + 10 * m)
    ]
    df = pd.DataFrame(rows, columns=list(opssat.SAMPLES)).astype({"train": int})
    df.to_csv(tmp_path / "segments.csv", index=False)
    found = series_of(*opssat.read_samples(tmp_path / "segments.csv"))
    assert [(s.key, len(s.values), s.part) for s in found] == [
        (7, 3, "train"),
        (8, 13, "train"),
        (9, 23, "test"),
        (10, 33, "train"),
    ]
    windows = resampled(found, 16)
    assert windows.X.shape == (4, 2, 16) and windows.label.tolist() == [1, 0, 1, 0]
    assert np.allclose(windows.X[:, 0, 0], [s.values[0, 0] for s in found]) and np.allclose(
        10 ** windows.X[:, 1, 5], [3, 13, 23, 33]
    )


def test_a_table_of_features_has_no_windows():
    df = pd.DataFrame({"a": [1.0, 2.0]})
    _, meta = read_telemetry(Config(days=0.1, period_s=240))
    with pytest.raises(NetworkError, match="holds no samples in time"):
        series_of(df, replace(meta, columns=()))


def problem(n: int = 60):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    return (rng.standard_normal((n, 2, 24)) + 2 * y[:, None, None] * (np.arange(24) > 18)).astype(np.float32), y


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvolutionClassifier(seed=3, filters=4, recipe=QUICK),
        lambda: Autoencoder(seed=3, code=3, filters=4, recipe=QUICK),
    ],
)
def test_networks_on_windows_repeat_themselves_and_are_kept_whole(make):
    X, y = problem()
    given = (X, y) if isinstance(make(), ConvolutionClassifier) else (X,)
    one, other = make().fit(*given), make().fit(*given)
    assert one.to_bytes() == other.to_bytes() and one.score(X).shape == (60,)
    kept = type(one).from_bytes(one.to_bytes())
    assert np.array_equal(kept.score(X), one.score(X)) and kept.to_bytes() == one.to_bytes()
    for wrong in (X[:, :1], X[:, :, :9], X[0], np.where(X == X[0, 0, 0], np.nan, X)):
        with pytest.raises(NetworkError):
            kept.score(wrong)
    with pytest.raises(NetworkError, match="Read it as what it is"):
        DenseClassifier.from_bytes(one.to_bytes())


def test_scores_do_not_depend_on_the_company():
    X, y = problem()
    fitted = ConvolutionClassifier(seed=1, filters=4, recipe=QUICK).fit(X, y)
    assert np.allclose(fitted.score(X)[:3], fitted.score(X[:3]), atol=1e-6)


@pytest.mark.parametrize("length", [1, 3, 30, 31, 33])
def test_the_autoencoder_takes_windows_of_any_length(length):
    X = np.random.default_rng(0).standard_normal((20, 1, length))
    fitted = Autoencoder(code=2, filters=2, recipe=replace(QUICK, epochs=1)).fit(X)
    assert fitted.errors(X).shape == (20, length)
    assert np.allclose(fitted.errors(X).mean(axis=1), fitted.score(X), rtol=1e-4)


def test_the_autoencoder_refuses_what_it_cannot_be():
    with pytest.raises(NetworkError, match="odd width"):
        Autoencoder(kernel=4)
    with pytest.raises(NetworkError, match="windows"):
        Autoencoder().fit(np.zeros((10, 3)))
    with pytest.raises(NetworkError, match="too few"):
        Autoencoder().fit(np.zeros((10, 1, 8)), groups=np.zeros(10))


def test_the_forecaster_sees_no_future_repeats_itself_and_is_kept_whole():
    training = [series(400, 2, "a", seed=1), series(390, 2, "b", seed=2)]
    one, other = (Forecaster(seed=1, filters=3, depth=3, recipe=QUICK).fit(training) for _ in range(2))
    assert one.to_bytes() == other.to_bytes()
    asked = series(100, 2, seed=3)
    whole = one.errors(asked)
    assert whole.shape == (100,) and np.allclose(one.errors(asked, piece=17), whole, atol=1e-5)
    assert np.array_equal(Forecaster.from_bytes(one.to_bytes()).errors(asked), whole)
    changed = asked.values.copy()
    changed[60:] += 3
    assert np.allclose(one.errors(replace(asked, values=changed))[:60], whole[:60], atol=1e-6)


def test_the_forecaster_refuses_what_it_cannot_predict():
    with pytest.raises(NetworkError, match="Call fit first"):
        Forecaster().errors(series(10))
    with pytest.raises(NetworkError, match="less than one window of 28"):
        Forecaster(depth=3).fit([series(20)])
    fitted = Forecaster(filters=2, depth=2, recipe=QUICK).fit([series(400, 2)])
    with pytest.raises(NetworkError, match=r"rows of shape \(2,\)"):
        fitted.errors(series(50, 3))
    with pytest.raises(NetworkError, match="missing or infinite"):
        fitted.errors(replace(series(50, 2), values=np.full((50, 2), np.nan)))
