"""The champion and the two beside it: what they keep, what they refuse, and that nothing moved after the freeze."""

import ast
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import opssat
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.models import experiment
from esa_notebooks.models.candidates import Candidate, chosen, in_folds
from esa_notebooks.models.detectors.champion import Champion
from esa_notebooks.models.detectors.neighbours import KNN
from esa_notebooks.models.detectors.storing import DetectorError, read_archive, write_archive
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.detectors.unaided import ChannelABOD, TrimmedKNN
from esa_notebooks.models.evaluation.intervals import mean_metrics
from esa_notebooks.models.protocols import Split
from esa_notebooks.models.scores import by_seed
from esa_notebooks.models.served import stored, verdicts

ROOT = Path(__file__).resolve().parents[2]
FROZEN = json.loads((ROOT / "esa_notebooks/models/assets/champion.json").read_text())
SMALL = {Champion: {"n_estimators": 10}, TrimmedKNN: {}, ChannelABOD: {}}
EACH = pytest.mark.parametrize("kind", list(SMALL), ids=lambda k: k.name)


def segments(n: int = 160, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Segments of two channels with the 18 features, a sixth of them larger than is usual on their channel."""
    rng = np.random.default_rng(seed)
    X, y = pd.DataFrame({name: rng.lognormal(size=n) for name in opssat.FEATURES}), (rng.random(n) < 1 / 6).astype(int)
    X["channel"] = np.where(np.arange(n) % 2, "a", "b")
    for name in ("var", "diff_var", "n_peaks"):
        X[name] *= np.where(y, 5, 1) * np.where(X.channel == "a", 1, 1000)
    return X, y


def fitted(kind, **options):
    X, y = segments()
    return kind(3, **SMALL[kind], **options).fit(X, y if kind.group == "supervised" else None, y == 0)


def rewritten(source: Path, target: Path, change) -> Path:
    """The archive at `source` after `change(described, members)`, with digests that fit again."""
    described, members = read_archive(source)
    described = {k: v for k, v in described.items() if k not in ("form", "members")}
    change(described, members)
    return write_archive(target, described, members)


def kept_of(path: Path) -> dict[str, bytes]:
    """The members of a file but the estimator, whose objects skops numbers otherwise once they were loaded."""
    return {name: content for name, content in read_archive(path)[1].items() if name != "model.skops"}


# What is kept.


@EACH
def test_a_stored_detector_says_the_same_and_is_the_same(kind, tmp_path):
    detector, later = fitted(kind), segments(90, seed=5)[0]
    first = detector.save(tmp_path / "first.zip")
    for again in (kind.load(first), stored(first)):
        assert type(again) is kind and again.threshold == detector.threshold and again.options == detector.options
        assert (again.score(later) == detector.score(later)).all()
        assert kept_of(again.save(tmp_path / "again.zip")) == kept_of(first)
    assert detector.save(tmp_path / "twice.zip").read_bytes() == first.read_bytes()  # after it has scored
    assert fitted(kind).save(tmp_path / "other.zip").read_bytes() == first.read_bytes()
    told = verdicts(first, later.set_index(later.index + 100))
    assert (told.anomalous.to_numpy() == detector.decide(later)).all() and told.index[0] == 100


@EACH
def test_channels_too_small_for_standards_of_their_own_are_stored_as_well(kind, tmp_path):
    X, y = segments()
    X["channel"] = [f"c{i // 5}" for i in range(len(X))]
    detector = kind(**SMALL[kind]).fit(X, y if kind.group == "supervised" else None, y == 0)
    first = detector.save(tmp_path / "first.zip")
    again = kind.load(first)
    assert again.view.channels == [] and again.view.columns == detector.view.columns
    assert (again.score(X) == detector.score(X)).all()
    assert kept_of(again.save(tmp_path / "again.zip")) == kept_of(first)


@EACH
def test_a_channel_never_seen_is_measured_against_all(kind):
    """The policy: its name does not matter, and what counts as usual are the segments of all channels together."""
    detector, later = fitted(kind), segments(30, seed=5)[0]
    new, other = (detector.score(later.assign(channel=name)) for name in ("new", "other"))
    assert np.isfinite(new).all() and (new == other).all() and (new != detector.score(later)).any()
    X, y = segments()
    pooled = kind(3, **SMALL[kind])
    pooled.fit(X.assign(channel="all"), y if kind.group == "supervised" else None, y == 0)
    seen = detector._seen(later.assign(channel="new"))
    pd.testing.assert_frame_equal(seen, pooled._seen(later.assign(channel="all")))


@EACH
def test_order_of_columns_other_columns_and_no_rows(kind):
    detector, later = fitted(kind), segments(30, seed=5)[0]
    assert (detector.score(later[later.columns[::-1]].assign(more="text")) == detector.score(later)).all()
    assert detector.score(later[:0]).shape == (0,) and detector.decide(later[:0]).shape == (0,)


def test_trimmed_neighbours_look_at_no_label():
    """Not at `y`, and not at the mask of nominal rows, which is made of labels too."""
    X, y = segments()
    plain = TrimmedKNN().fit(X)
    for labels, mask in ((y, y == 0), (1 - y, y == 1), (None, np.arange(len(X)) < 20)):
        other = TrimmedKNN().fit(X, labels, mask)
        assert other.threshold == plain.threshold and (other.score(X) == plain.score(X)).all()
    told = ChannelABOD().fit(X, None, y == 0)
    assert (told.score(X) != ChannelABOD().fit(X).score(X)).any()  # which this one does look at


# What is refused.


@EACH
def test_rows_that_cannot_be_judged(kind):
    detector, (X, y) = fitted(kind), segments()
    labels = y if kind.group == "supervised" else None
    for act in (detector.score, lambda broken: kind(**SMALL[kind]).fit(broken, labels, y == 0)):
        with pytest.raises(DetectorError, match="column `kurtosis` is missing.*Did you mean `curtosis`"):
            act(X.rename(columns={"kurtosis": "curtosis"}))
        with pytest.raises(DetectorError, match="no column `channel`"):
            act(X.drop(columns="channel"))
        with pytest.raises(DetectorError, match="column `skew` occurs twice"):
            act(pd.concat([X, X[["skew"]]], axis=1))
        with pytest.raises(DetectorError, match="a DataFrame"):
            act(X.to_numpy())
        for bad in (np.nan, np.inf):
            broken = X.copy()
            broken.loc[17, "skew"] = bad
            with pytest.raises(DetectorError, match=f"column `skew` is {bad} in row 17"):
                act(broken)
    with pytest.raises(DetectorError, match="was not fitted"):
        kind().score(X)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_segment_without_samples_has_no_ratios():
    X, _ = segments()
    with pytest.raises(DetectorError, match="column `period` is inf in row 4 "):
        fitted(Champion).score(X.assign(len=np.where(X.index == 4, 0, X["len"])))


@EACH
def test_options_that_do_not_exist(kind):
    with pytest.raises(DetectorError, match=f"{kind.name} has no option `aspect`.*Did you mean `aspects`"):
        kind(aspect=["far"])
    with pytest.raises(DetectorError, match="no aspect 'fat'.*Did you mean `far`"):
        kind(aspects=["far", "fat"])
    for none in ([], None, "far"):
        with pytest.raises(DetectorError, match="aspects is a list"):
            kind(aspects=none)


def test_options_that_one_of_them_cannot_use():
    X, y = segments()
    for kind in (TrimmedKNN, ChannelABOD):
        with pytest.raises(DetectorError, match="sees distances alone"):
            kind(aspects=["plain"])
    for trim in (1.0, -0.1, 0.97):
        with pytest.raises(DetectorError, match=f"share {trim} are too few for 5 neighbours"):
            TrimmedKNN(trim=trim).fit(X)
    for mask in (y == 2, np.ones(3, bool)):
        with pytest.raises(DetectorError, match="reference is a mask of 160 booleans"):
            Champion().fit(X, y, mask)


def test_what_supervision_needs():
    X, y = segments()
    for labels in (None, np.zeros(160, int)):
        with pytest.raises(DetectorError, match="both classes"):
            Champion(n_estimators=5).fit(X, labels)
    with pytest.raises(DetectorError, match="column `mean` alone separates the labels"):
        Champion(n_estimators=5).fit(X.assign(mean=y + 0.5), y)


@EACH
def test_files_that_are_not_what_they_should_be(kind, tmp_path):
    source, target = fitted(kind).save(tmp_path / "a.zip"), tmp_path / "b.zip"
    with pytest.raises(DetectorError, match=f"holds a {kind.name} detector, not KNN"):
        KNN.load(source)
    for change, words in (
        (lambda d, m: m.pop("view.safetensors"), "'view.safetensors' is missing"),
        (lambda d, m: m.update({"view.txt": m["view.txt"] + b"\nc"}), "put together from two detectors"),
        (lambda d, m: m.update({"view.txt": b"mean\n\na\nb"}), "put together from two detectors"),
        (lambda d, m: d["options"].update(aspects=["fat"]), "no aspect 'fat'"),
    ):
        rewritten(source, target, change)
        with pytest.raises(DetectorError, match=words):
            stored(target)
    whole = bytearray(source.read_bytes())
    whole[len(whole) // 2] ^= 0x41
    target.write_bytes(whole)
    with pytest.raises(DetectorError):
        stored(target)


@pytest.mark.parametrize("family, words", [
    ("os", "is not loaded"), ("esa_notebooks.models.tuning", "is not loaded"),
    ("esa_notebooks.models.detectors", "is not loaded"), ("esa_notebooks.models.detectors..os", "is not loaded"),
    ("esa_notebooks.models.detectors.champion.os", "is not loaded"),
    ("esa_notebooks.models.detectorsX.champion", "is not loaded"), (None, "is not loaded"),
    ("esa_notebooks.models.detectors.oracle", "does not have"),
    ("esa_notebooks.models.detectors.trees", "does not define"),
    ("esa_notebooks.models.detectors.unaided", "does not define"),   # which only imports something of the champion's
])  # fmt: skip
def test_a_file_decides_on_no_module_to_import(tmp_path, family, words):
    source = fitted(Champion).save(tmp_path / "a.zip")
    target = rewritten(source, tmp_path / "b.zip", lambda d, m: d.update(family=family))
    with pytest.raises(DetectorError, match=words):
        stored(target)


# The freeze.


def git(*args: str) -> str | None:
    """What git says in the work tree, or None where it cannot."""
    try:
        ended = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return ended.stdout if ended.returncode == 0 else None


@pytest.fixture
def commit(require):
    """The commit that froze the champion."""
    known = git("cat-file", "-t", FROZEN["frozen_commit"])
    require(
        "history", known == "commit\n", "the commit of the freeze is not in this clone; git fetch --unshallow gets it"
    )
    return FROZEN["frozen_commit"]


DECIDES = {  # what a score of the champion is made of
    "detectors/champion.py": ["Champion", "Viewing._seen"],
    "views.py": [
        "TINY",
        "FEWEST",
        "FAR",
        "ASPECTS",
        "with_ratios",
        "View",
        "channel_of",
        "_standard",
        "_ranks",
        "seen",
    ],
    "detectors/trees.py": ["Forest", "ExtraTrees"],
    "detectors/detector.py": ["Scaler", "seeded"],
    "protocols.py": ["split_of"],
}


def parts(source: str) -> dict[str, str]:
    """Every definition of a module and of its classes, by name, as a tree without its docstrings."""

    def told(node):
        for inner in ast.walk(node):
            if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner) is not None:
                inner.body = inner.body[1:]
        return ast.dump(node)

    found = {}
    for node in ast.parse(source).body:
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, ast.FunctionDef):
                found[f"{node.name}.{inner.name}"] = told(inner)
        names = (
            [node.name]
            if hasattr(node, "name")
            else [t.id for target in getattr(node, "targets", []) for t in ast.walk(target) if isinstance(t, ast.Name)]
        )
        found |= dict.fromkeys(names, told(node))
    return found


def test_the_freeze_is_part_of_the_history(commit):
    assert git("merge-base", "--is-ancestor", commit, "HEAD") is not None
    added = git("log", "--format=%H", "--diff-filter=A", "--", "esa_notebooks/models/assets/champion.json").split()
    assert git("merge-base", "--is-ancestor", commit, added[-1]) is not None and commit != added[-1]
    assert git("show", f"{commit}:esa_notebooks/models/assets/published_opssat.csv"), "the table was there before"


@pytest.mark.parametrize("path", DECIDES)
def test_nothing_that_decides_a_score_changed_after_the_freeze(commit, path):
    place = f"esa_notebooks/models/{path}"
    then, now = parts(git("show", f"{commit}:{place}")), parts((ROOT / place).read_text())
    changed = [name for name in DECIDES[path] if then[name] != now[name]]
    assert changed == []


def official(require, kind, protocol: str, seeds: list[int]) -> dict[str, float]:
    """The figures of a detector on the official test rows, means over `seeds`."""
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set")
    df, meta = opssat.read(obtain_configured("opssat").files["dataset.csv"])
    outcome = experiment.run(experiment.task_of(df, meta, protocol), kind, seeds)
    rows, score, decision = by_seed(outcome.scores)
    return mean_metrics(rows.y, score, decision)


@pytest.mark.slow  # half a minute
def test_the_frozen_figures_come_out_again(require):
    figures = official(require, Champion, "official", [2137, *range(FROZEN["seeds"] - 1)])
    assert {name: round(value, 4) for name, value in figures.items()} == FROZEN["scored"]


@pytest.mark.parametrize("kind", [TrimmedKNN, ChannelABOD], ids=lambda k: k.name)
def test_the_figures_of_the_two_without_chance_come_out_again(require, kind):
    told = FROZEN["also"][f"{kind.__module__}.{kind.__name__}"]
    figures = official(require, kind, told["protocol"], [2137])
    assert {name: round(figures[name], 4) for name in ("auc_pr", "auc_roc")} == {
        k: told[k] for k in ("auc_pr", "auc_roc")
    }


# How it was chosen.


def task_of(test_seed: int = 1) -> experiment.Task:
    """160 rows to learn from in blocks of four, and 60 to test on that depend on `test_seed`."""
    (X, y), (more, odd) = segments(), segments(60, seed=test_seed)
    n = np.arange(220)
    X, y = pd.concat([X, more], ignore_index=True), np.r_[y, odd]
    train = n[:160]
    split = Split("official", train, train, train[y[:160] == 0], n[160:], "made up")
    return experiment.Task("made", X, y, X.channel.to_numpy(dtype=object), n, n // 4, split)


PAIR = (
    Candidate("trees", ExtraTrees, {"n_estimators": 10}, 1),
    Candidate("neighbours", TrimmedKNN, {}, 1),
    Candidate("ranks", Champion, {"n_estimators": 10, "aspects": ["rank"]}, 2),
)


def test_the_choice_reads_no_test_row():
    task = task_of()
    figures = in_folds(task, PAIR, repeats=1, k=3)
    assert figures.shape == (3, 3) and figures.nunique().gt(1).all()
    X, y, test = task.X.copy(), task.y.copy(), task.split.test
    X.loc[test, list(opssat.FEATURES)] = np.nan  # which is refused wherever it is read
    X.loc[test, "channel"], y[test] = "elsewhere", 1 - y[test]
    again = in_folds(task._replace(X=X, y=y, block=np.where(np.arange(220) < 160, task.block, 0)), PAIR, repeats=1, k=3)
    pd.testing.assert_frame_equal(again, figures, check_exact=True)
    with pytest.raises(DetectorError, match="column `duration` is nan"):
        experiment.run(task._replace(X=X, y=y), ExtraTrees, [0], {"n_estimators": 5})


def test_the_rule_takes_the_simplest_within_one_error_of_the_best():
    index = pd.MultiIndex.from_product([range(2), range(2)])
    figures = pd.DataFrame(
        {"trees": [0.90, 0.90, 0.90, 0.90], "neighbours": [0.93, 0.97, 0.96, 0.98], "ranks": [0.95, 0.96, 0.97, 0.98]},
        index,
    )
    name, told = chosen(figures, PAIR)
    assert name == "neighbours" and list(told.candidate) == ["ranks", "neighbours", "trees"]
    assert list(told.stays) == [True, True, False] and told.behind[0] == 0
    far = figures.assign(neighbours=0.91)
    assert chosen(far, PAIR)[0] == "ranks"
