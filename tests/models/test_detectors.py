"""Every detector keeps the protocol: fit, score, save, load; and what none of them accepts."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import opssat
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.models.detectors.detector import Detector, Scaler, seeded
from esa_notebooks.models.detectors.linear import LR
from esa_notebooks.models.detectors.neighbours import KNN
from esa_notebooks.models.detectors.registry import all_detectors, detector_named
from esa_notebooks.models.detectors.storing import (
    DetectorError,
    from_skops,
    read_archive,
    skops_bytes,
    write_archive,
)
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.protocols import split_of
from esa_notebooks.models.published import published
from esa_notebooks.models.served import stored as load_detector

QUICK = {
    "DIF": {"n_ensemble": 3, "max_samples": 64},
    "VAE": {"epoch_num": 2},
    "LUNAR": {"n_epochs": 5},
    "AnoGAN": {"epochs": 5},
    "ALAD": {"epochs": 5},
    "DeepSVDD": {"epochs": 2},
    "LMDD": {"n_iter": 2},
    "MO-GAAL": {"stop_epochs": 1},
    "SO-GAAL": {"stop_epochs": 1},
    "XGBOD": {"n_estimators": 5},
    "LightGBM": {"n_estimators": 5},
    "IForest": {"n_estimators": 10},
    "RF+ICCS": {"n_estimators": 10},
    "ExtraTrees": {"n_estimators": 10},
    "INNE": {"n_estimators": 10},
    "FCNN": {"hidden": [8]},
}
EVERY = pytest.mark.parametrize(  # XGBOD fits 41 detectors, and stores as many
    "kind",
    [pytest.param(k, marks=pytest.mark.slow) if k.name == "XGBOD" else k for k in all_detectors()],
    ids=lambda k: k.name,
)


def table(n: int = 120, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Five features, of which the first two say something about the anomalies, not all; and the labels."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 5 == 0).astype(int)
    values = rng.standard_normal((n, 5)) + 2.0 * y[:, None] * np.array([1, 1, 0, 0, 0])
    return pd.DataFrame(values, columns=["mean", "variance", "peaks", "skew", "length"]), y


def fitted(kind: type[Detector], seed: int = 1, **options) -> Detector:
    X, y = table()
    return kind(seed, **QUICK.get(kind.name, {}), **options).fit(X, y if kind.group == "supervised" else None, y == 0)


class Shelf(dict):
    """Each detector, fitted when it is first asked for, and the file it is stored in."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> tuple[Detector, Path]:
        detector = fitted(detector_named(name))
        self[name] = detector, detector.save(self.folder / f"{len(self)}.detector")
        return self[name]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@EVERY
def test_a_stored_detector_gives_identical_scores(shelf, kind):
    detector, path = shelf[kind.name]
    later, _ = table(60, seed=7)
    again = load_detector(path)
    assert type(again) is kind and again.threshold == detector.threshold and again.options == detector.options
    scores = detector.score(later)
    assert scores.shape == (60,) and scores.dtype == float and np.isfinite(scores).all()
    assert (again.score(later) == scores).all() and (again.decide(later) == (scores > detector.threshold)).all()


@EVERY
def test_the_same_seed_gives_the_same_bytes_and_the_same_scores(shelf, kind, tmp_path):
    detector, path = shelf[kind.name]
    np.random.seed(99)  # what ran before must not matter
    np.random.random(5)
    again = fitted(kind)
    later, _ = table(60, seed=7)
    assert (again.score(later) == detector.score(later)).all()
    assert again.save(tmp_path / "again.detector").read_bytes() == path.read_bytes()  # also after it has scored


@EVERY
def test_no_member_is_a_pickle(shelf, kind):
    with zipfile.ZipFile(shelf[kind.name][1]) as archive:
        names = archive.namelist()
        assert "detector.json" in names and {n.rpartition(".")[2] for n in names} <= {
            "json",
            "safetensors",
            "skops",
            "txt",
        }
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in names:
            assert b"\x80\x05\x95" not in archive.read(name)[:64] and b"csklearn" not in archive.read(name)


@EVERY
def test_whether_a_detector_is_random_is_said(kind):
    """A detector that says it is not gives the same scores for every seed."""
    if kind.stochastic:
        pytest.skip(f"random: {kind.name} says so itself")
    later, _ = table(60, seed=7)
    assert (fitted(kind, seed=1).score(later) == fitted(kind, seed=2).score(later)).all()


@pytest.mark.parametrize("name", ["IForest", "LODA", "INNE", "RF+ICCS", "ExtraTrees", "ALAD", "DeepSVDD", "SO-GAAL"])
def test_the_seed_matters_where_it_is_said_to(name):
    later, _ = table(60, seed=7)
    kind = detector_named(name)
    assert (fitted(kind, seed=1).score(later) != fitted(kind, seed=2).score(later)).any()


@EVERY
def test_what_is_transductive_is_said(shelf, kind):
    """Scores of a detector that learned from the training rows do not depend on the rows scored with them."""
    detector, later = shelf[kind.name][0], table(60, seed=7)[0]
    if kind.name == "VAE":
        pytest.skip("VAE: draws a latent point for each row, so that its scores depend on the position")
    same = np.allclose(detector.score(later)[:40], detector.score(later[:40]), rtol=1e-4, atol=1e-6)
    assert same != kind.transductive


@pytest.mark.parametrize("name", ["SOD", "COF"])
def test_too_little_company(shelf, name):
    with pytest.raises(DetectorError, match="could not score 2 rows.*scores rows against each other"):
        shelf[name][0].score(table(2)[0])


@EVERY
def test_the_threshold_comes_from_training_rows(shelf, kind):
    detector, _ = shelf[kind.name]
    if kind.group == "supervised":
        assert detector.threshold == kind.boundary
    else:
        X, y = table()
        strict = kind(1, **QUICK.get(kind.name, {}), contamination=0.05).fit(X, None, y == 0)
        assert strict.decide(X).sum() < detector.decide(X).sum()


def test_names_are_those_of_the_paper():
    assert {d.name for d in all_detectors()} == {*published().index, "ExtraTrees", "LightGBM"}
    assert all((d.group == published().group[d.name]) for d in all_detectors() if d.name in published().index)
    assert all(d.__doc__ and d.cost in ("cheap", "dear") for d in all_detectors())


# What no detector accepts.


@EVERY
def test_one_class_in_training(kind):
    X, y = table()
    if kind.group == "supervised":
        for labels in (np.zeros(120, int), np.ones(120, int), None):
            with pytest.raises(DetectorError, match="both classes"):
                kind().fit(X, labels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad):
    X, y = table()
    broken = X.copy()
    broken.loc[17, "peaks"] = bad
    with pytest.raises(DetectorError, match=r"KNN: column `peaks` is (nan|-?inf) in row 17"):
        KNN().fit(broken)
    with pytest.raises(DetectorError, match="in row 17"):
        KNN().fit(X).score(broken)


def test_a_missing_value_of_a_nullable_column():
    X, _ = table()
    X["count"] = pd.array([None, *range(119)], dtype="Int64")
    with pytest.raises(DetectorError, match="column `count` is nan in row 0"):
        KNN().fit(X)


@pytest.mark.parametrize("group", ["supervised", "unsupervised"])
def test_constant_columns_carry_nothing(group):
    """A column that is constant in training changes no score, also where it stops being constant later."""
    X, y = table()
    kind = LR if group == "supervised" else KNN
    plain, later = kind().fit(X, y), table(60, seed=7)[0]
    with_constant = kind().fit(X.assign(stuck=3.0), y)
    scores = with_constant.score(later.assign(stuck=np.linspace(-1e6, 1e6, 60)))
    np.testing.assert_allclose(scores, plain.score(later), rtol=1e-9, atol=1e-12)


def test_a_column_at_rest_in_the_reference_only_keeps_its_unit():
    values = np.c_[np.zeros(20), np.arange(20.0)]
    values[15:, 0] = 5.0
    scaled = Scaler.fit(values, np.arange(20) < 15)(values)
    assert scaled[15, 0] == 5.0 and np.isfinite(scaled).all()


def test_missing_columns_and_another_order():
    X, _ = table()
    detector = KNN().fit(X)
    with pytest.raises(DetectorError, match=r"column `variance` is missing .*Did you mean `variances`"):
        detector.score(X.rename(columns={"variance": "variances"}))
    assert (detector.score(X[X.columns[::-1]]) == detector.score(X)).all()
    assert (
        detector.score(X.assign(more="text")) == detector.score(X)
    ).all()  # what it was not fitted on is passed over


@EVERY
def test_a_label_that_leaks_into_the_features(kind):
    X, y = table()
    if kind.group == "supervised":
        for leak in (y, 3.5 - 2 * y, y + 0.1 * np.random.default_rng(0).random(120)):
            with pytest.raises(DetectorError, match="column `after` alone separates the labels"):
                kind().fit(X.assign(after=leak), y)


def test_who_has_looked_may_say_so():
    X, y = table()
    assert LR(leaks="allow").fit(X.assign(after=y), y).decide(X.assign(after=y)).sum() == y.sum()


def test_a_perfect_column_by_chance_is_no_leak():
    """One anomaly of ten is separated by some of twenty columns; that proves nothing."""
    rng = np.random.default_rng(3)
    X = pd.DataFrame(rng.standard_normal((10, 20)), columns=[f"c{i}" for i in range(20)])
    X.loc[0, "c4"] = 9.0
    ExtraTrees().fit(X, np.r_[1, np.zeros(9, int)])


def test_what_is_no_table_or_no_number():
    X, y = table()
    for wrong, words in (
        (X.to_numpy(), "a DataFrame"),
        (X.assign(mean="high"), "holds no numbers"),
        (X[[]], "0 features"),
        (X[:1], "1 rows"),
        (pd.concat([X, X[["mean"]]], axis=1), "occurs twice"),
    ):
        with pytest.raises(DetectorError, match=words):
            KNN().fit(wrong)
    for labels, words in (
        (y[:-1], "120 labels"),
        (y + 1, "0 or 1"),
        (y.astype(str), "0 or 1"),
        (y[:, None], "one each"),
    ):
        with pytest.raises(DetectorError, match=words):
            LR().fit(X, labels)
    for reference in (y == 2, np.ones(3, bool), y):
        with pytest.raises(DetectorError, match="a mask of 120 booleans"):
            KNN().fit(X, reference=reference)


def test_options_and_seeds():
    with pytest.raises(DetectorError, match="Did you mean `n_neighbors`"):
        KNN(n_neighbours=3)
    for options in (
        {"contamination": 0},
        {"contamination": 0.7},
        {"contamination": True},
        {"contamination": "auto"},
        {"scaling": "chanel"},
        {"leaks": "allow"},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": True},
        {"seed": 2**32},
    ):
        with pytest.raises(DetectorError):
            KNN(**options)
    with pytest.raises(DetectorError, match="Did you mean `LODA`"):
        detector_named("LODDA")


def test_before_fit():
    for act in (lambda d: d.score(table()[0]), lambda d: d.save(Path("never"))):
        with pytest.raises(DetectorError, match="was not fitted"):
            act(KNN())


def test_more_neighbours_than_rows():
    X, _ = table(4)
    with pytest.raises(DetectorError, match="KNN could not be fitted on 4 rows"):
        KNN(n_neighbors=5).fit(X)


def test_nothing_to_score():
    X, _ = table()
    assert KNN().fit(X).score(X[:0]).shape == (0,)


def test_a_channel_never_seen_in_training_is_scaled_like_all():
    X, y = table()
    X = X.assign(channel=np.repeat(["A", "B"], 60))
    X.loc[60:, ["mean", "variance", "peaks", "skew", "length"]] += 50
    detector = KNN(scaling="channel").fit(X)
    middle = pd.DataFrame([[25.0] * 5, [0.0] * 5, [0.0] * 5], columns=X.columns[:5])
    scores = detector.score(middle.assign(channel=["new", "A", "B"]))
    assert scores[0] < scores[2] and scores[1] < scores[2]  # 25 is the middle of all, 0 is far from B
    with pytest.raises(DetectorError, match="no column `channel`"):
        detector.score(middle)
    assert (KNN().fit(X).score(X) == KNN().fit(X.drop(columns="channel")).score(X)).all()  # others do not look at it


def test_a_channel_with_few_rows_is_scaled_like_all():
    X, _ = table(40)
    channel = np.array(["A"] * 35 + ["B"] * 5, dtype=object)
    scaler = Scaler.fit(X.to_numpy(), np.ones(40, bool), channel)
    assert scaler.channels == ["A"] and scaler.mean.shape == (2, 5)
    assert (scaler(X.to_numpy()[35:], channel[35:]) == (X.to_numpy()[35:] - scaler.mean[0]) / scaler.scale[0]).all()


def test_global_generators_are_left_as_they_were():
    np.random.seed(5)
    expected = np.random.RandomState(5).random(2)
    assert np.random.random() == expected[0]
    fitted(detector_named("LODA"))
    assert np.random.random() == expected[1]
    with pytest.raises(ZeroDivisionError), seeded(1, uses_torch=True):
        np.random.random()
        raise ZeroDivisionError
    np.random.seed(5)
    assert np.random.random() == expected[0]


# Files that are not what they should be.


def test_another_detector_in_the_file(shelf):
    with pytest.raises(DetectorError, match="holds a KNN detector, not LR"):
        LR.load(shelf["KNN"][1])


def rewritten(source: Path, target: Path, change) -> Path:
    """The archive at `source`, with its description and members after `change(described, members)`, coherent again."""
    described, members = read_archive(source)
    described = {k: v for k, v in described.items() if k not in ("form", "members")}
    change(described, members)
    return write_archive(target, described, members)


@pytest.mark.parametrize("name", ["DeepSVDD", "AnoGAN", "LUNAR", "VAE", "SO-GAAL", "DIF"])
def test_weights_of_another_architecture(shelf, tmp_path, name):
    other = {
        "DeepSVDD": {"hidden": [8, 4]},
        "AnoGAN": {"latent": 3},
        "LUNAR": {"n_neighbours": 7},
        "VAE": {"latent_dim": 3},
        "DIF": {"representation_dim": 5},
    }
    target = tmp_path / "other.detector"
    if name == "SO-GAAL":
        rewritten(
            shelf[name][1], target, lambda d, m: m.update({"shape.json": json.dumps({"width": 5, "rows": 9}).encode()})
        )
    else:
        rewritten(shelf[name][1], target, lambda d, m: d["options"].update(other[name]))
    with pytest.raises(DetectorError, match="another architecture"):
        load_detector(target)


def test_a_model_of_other_types(shelf, tmp_path):
    """A file whose description says KNN, with a forest inside, is not rebuilt at all."""
    forest = read_archive(shelf["ExtraTrees"][1])[1]["model.skops"]
    target = rewritten(shelf["KNN"][1], tmp_path / "x.detector", lambda d, m: m.update({"model.skops": forest}))
    with pytest.raises(DetectorError, match="not made of; it is not loaded"):
        load_detector(target)


def test_a_type_that_could_run_something_is_not_built():
    class Innocent:  # skops keeps the name of the type; only names on the list are rebuilt
        pass

    with pytest.raises(DetectorError):
        from_skops(skops_bytes(Innocent()), ("sklearn.tree._tree.Tree",))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda d, m: m.pop("model.skops"), "member 'model.skops' is missing"),
        (lambda d, m: d["options"].update(n_neighbor=3), "has no option `n_neighbor`"),
        (lambda d, m: d["columns"].pop(), "two detectors"),
        (lambda d, m: d["libraries"].update(pyod="0.1"), "pyod 0.1"),
        (lambda d, m: d.update(detector="Oracle"), "a detector 'Oracle'"),
        (lambda d, m: m.update({"model.skops": b"not an archive"}), "cannot be rebuilt"),
        (lambda d, m: m.update({"scaler.safetensors": b"\x00" * 9}), "cannot be read"),
    ],
)
def test_a_file_put_together_wrongly(shelf, tmp_path, change, words):
    target = rewritten(shelf["KNN"][1], tmp_path / "x.detector", change)
    with pytest.raises(DetectorError, match=words):
        load_detector(target)


def test_a_changed_byte_is_found_wherever_it_is(shelf, tmp_path):
    whole = shelf["PCA"][1].read_bytes()
    target, missed = tmp_path / "x.detector", []
    detector, later = load_detector(shelf["PCA"][1]), table(30, seed=7)[0]
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        target.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            if (load_detector(target).score(later) != detector.score(later)).any():
                missed.append(place)
        except DetectorError:
            pass
    assert missed == []  # either refused, or (a byte nobody reads) the same detector


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "x.detector"
    with pytest.raises(DetectorError, match="does not exist"):
        load_detector(path)
    path.write_bytes(b"")
    with pytest.raises(DetectorError, match="not a stored detector"):
        load_detector(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(DetectorError, match="without detector.json"):
        load_detector(path)


def test_a_save_that_fails_leaves_the_old_file(shelf, tmp_path, monkeypatch):
    detector, source = shelf["KNN"]
    path = Path(shutil.copy(source, tmp_path / "kept.detector"))
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        detector.save(path)
    assert path.read_bytes() == source.read_bytes() and list(tmp_path.iterdir()) == [path]


def test_another_process_writes_the_same_bytes(tmp_path):
    """Addresses in memory and the order of hashes differ between processes; the file does not."""
    code = (
        "import sys; import numpy as np; import pandas as pd; "
        "from esa_notebooks.models.detectors.trees import ExtraTrees; "
        "X = pd.DataFrame(np.random.default_rng(0).standard_normal((60, 3)), columns=list('abc')); "
        "ExtraTrees(n_estimators=5).fit(X, (X.a + X.b > 0.3).astype(int)).save(sys.argv[1])"
    )
    for name, salt in (("a", "1"), ("b", "2")):
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / name],
            cwd=Path(__file__).resolve().parents[2],
            check=True,
            capture_output=True,
            timeout=120,
            env={**os.environ, "PYTHONHASHSEED": salt},
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# The published rows that take no time.


@pytest.fixture
def official(require):
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set")
    df, meta = opssat.read(obtain_configured("opssat").files["dataset.csv"])
    return df, meta, split_of(df, meta, "official")


@pytest.mark.parametrize(
    "name", ["LR", "Linear+L2", "AdaBoost", "OCSVM", "KNN", "GMM", "PCA", "ECOD", "COPOD", "CBLOF"]
)
def test_published_rows_are_met(official, name):
    from sklearn.metrics import average_precision_score, roc_auc_score

    df, meta, split = official
    kind = detector_named(name)
    rows, X, y = split.rows(kind.group == "supervised"), df[meta.names("feature")], df["anomaly"].to_numpy()
    detector = kind(2137).fit(X.iloc[rows], y[rows], split.mask(kind.group == "supervised"))
    scores, row = detector.score(X.iloc[split.test]), published().loc[name]
    assert abs(average_precision_score(y[split.test], scores) - row.auc_pr) <= 0.03
    assert abs(roc_auc_score(y[split.test], scores) - row.auc_roc) <= 0.03
