"""Tuning: the same search gives the same answer, after kills and with several workers; foreign and lost studies."""

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
from optuna.trial import TrialState

from esa_notebooks.models.splits import SplitError
from esa_notebooks.models.studies import RepeatableSampler, TuningError, bury, quiet, storage_of, study_of
from esa_notebooks.models.tuning import cross_validated, digest_of, distributions, tune

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"x": {"low": -2.0, "high": 2.0}, "n": {"low": 1, "high": 4}, "layers": {"choices": [[8], [8, 8], "none"]}}


def objective(parameters, report):
    """Best at x = 0.5, n = 3, two layers; the first steps tell much of it."""
    value = -((parameters["x"] - 0.5) ** 2) - abs(parameters["n"] - 3) + (parameters["layers"] == [8, 8])
    for step in range(4):
        report(step, value - 0.1 * (3 - step))
    return value


def journal(folder: Path) -> str:
    return f"journal:///{folder}/studies.journal"


def search(url: str, budget: int = 16, seed: int = 3, **more):
    return tune(
        objective, SPACE, budget, name="search", storage=url, seed=seed, **{"ingredients": {"data": "a"}, **more}
    )


def worker(
    url: str, budget: int, die_at: int | None = None, sleep: float = 0.0, start: Path | None = None
) -> subprocess.Popen:
    """A worker in a process of its own, which kills itself in the middle of its trial number `die_at`, or waits for a
    second one in the folder `start`."""
    program = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_tuning as t
whole, calls = t.objective, [0]
def objective(parameters, report):
    calls[0] += 1
    time.sleep({sleep})
    if calls[0] == {die_at}:
        report(0, 0.0)
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(parameters, report)
t.objective = objective
if {str(start or "")!r}:
    open(os.path.join({str(start or "")!r}, f"ready.{{os.getpid()}}"), "w").close()
    while sum(n.startswith("ready") for n in os.listdir({str(start or "")!r})) < 2:
        time.sleep(0.02)
print(t.search({url!r}, {budget}).value)
"""
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def killed(url: str, die_at: int, budget: int = 16) -> None:
    process = worker(url, budget, die_at)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors


def proposals(found) -> list:
    alive = found.trials[found.trials.state != "fail"]
    return [tuple(row) for row in alive[["x", "n", "layers", "value", "state", "steps"]].itertuples(index=False)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return search(journal(tmp_path_factory.mktemp("whole")))


def test_the_same_search_twice(whole, tmp_path):
    again = search(journal(tmp_path))
    assert again.trials.equals(whole.trials) and again.parameters == whole.parameters
    assert whole.finished == 16 and whole.failed == 0 and whole.pruned > 0
    assert whole.parameters["layers"] in ([8], [8, 8], "none") and isinstance(whole.parameters["n"], int)


def test_another_seed_searches_elsewhere(whole, tmp_path):
    assert search(journal(tmp_path), seed=4).trials.x.tolist() != whole.trials.x.tolist()


def test_a_finished_search_is_not_searched_again(tmp_path, monkeypatch):
    first = search(journal(tmp_path), 6)
    monkeypatch.setattr(sys.modules[__name__], "objective", lambda *_: pytest.fail("called"))
    assert search(journal(tmp_path), 6).trials.equals(first.trials)


def test_a_larger_budget_goes_on(whole, tmp_path):
    search(journal(tmp_path), 9)
    assert search(journal(tmp_path), 16).trials.equals(whole.trials)


def test_a_killed_worker_is_replaced_and_the_answer_is_the_same(whole, tmp_path):
    killed(journal(tmp_path), die_at=12)
    with open(tmp_path / "studies.journal", "a") as f:
        f.write('{"op_code":5,"worker')  # as if it had been killed in the middle of a line
    resumed = search(journal(tmp_path))
    assert resumed.failed == 1 and resumed.finished == 16
    assert proposals(resumed) == proposals(whole) and resumed.parameters == whole.parameters


def test_two_workers_share_a_budget_and_an_answer(tmp_path):
    url = journal(tmp_path)
    study_of("search", url, 3, ingredients={"space": SPACE, "data": "a"})
    first, second = (worker(url, 10, sleep=0.1, start=tmp_path) for _ in range(2))
    said = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    trials = study_of("search", url, 3, ingredients={"space": SPACE, "data": "a"}).trials
    assert len({t.user_attrs["worker"][1] for t in trials}) == 2, "both worked"
    assert 10 <= sum(t.state.is_finished() for t in trials) <= 11 and not any(
        t.state == TrialState.RUNNING for t in trials
    )
    assert said[0][0] == said[1][0] != ""


def test_a_living_worker_is_left_alone_and_an_old_stranger_is_not(tmp_path, monkeypatch):
    study = study_of("s", journal(tmp_path))
    for host in (socket.gethostname(), "elsewhere"):
        study.ask().set_user_attr("worker", [host, os.getpid(), psutil.Process().create_time()])
    study.ask()  # its worker was killed before it could sign
    assert bury(study, limit_s=1000) == 0
    monkeypatch.setattr("esa_notebooks.models.studies.UNSIGNED_S", -1.0)
    assert bury(study, limit_s=1000) == 1 and [t.state.name for t in study.trials] == ["RUNNING", "RUNNING", "FAIL"]
    assert bury(study, limit_s=-1) == 1 and [t.state.name for t in study.trials] == ["RUNNING", "FAIL", "FAIL"]


def test_a_process_number_used_again_is_another_worker(tmp_path):
    study = study_of("s", journal(tmp_path))
    study.ask().set_user_attr("worker", [socket.gethostname(), os.getpid(), psutil.Process().create_time() - 5])
    assert bury(study) == 1


@pytest.mark.parametrize(
    "change, named",
    [
        ({"ingredients": {"data": "b"}}, "data is a, not b"),
        ({"direction": "minimize"}, "direction is maximize, not minimize"),
        ({"seed": 9}, "seed is 3, not 9"),
        ({"ingredients": {"data": "a", "objective": "f"}}, "objective is absent, not f"),
    ],
)
def test_a_foreign_study_is_refused(tmp_path, change, named):
    search(journal(tmp_path), 2)
    before = (tmp_path / "studies.journal").read_bytes()
    with pytest.raises(TuningError, match=named):
        search(journal(tmp_path), 2, **change)
    assert (tmp_path / "studies.journal").read_bytes().startswith(before)


def test_another_space_is_another_search(tmp_path):
    search(journal(tmp_path), 2)
    with pytest.raises(TuningError, match="space is .* not "):
        tune(
            objective,
            {**SPACE, "x": {"low": 0, "high": 1}},
            2,
            name="search",
            storage=journal(tmp_path),
            seed=3,
            ingredients={"data": "a"},
        )


def test_a_study_of_somebody_else_is_refused(tmp_path):
    with quiet():
        optuna.create_study(storage=storage_of(journal(tmp_path)), study_name="s").optimize(lambda t: 1.0, 1)
    with pytest.raises(TuningError, match="does not say of what"):
        study_of("s", journal(tmp_path), direction="minimize")


def test_sqlite_works_and_a_locked_one_is_refused_in_time(tmp_path, whole):
    url = f"sqlite:///{tmp_path}/new/studies.db"
    assert proposals(search(url, 12)) == proposals(whole)[:12]
    holder = sqlite3.connect(tmp_path / "new" / "studies.db")
    holder.execute("begin exclusive")
    began = time.monotonic()
    with pytest.raises(TuningError, match="database is locked.*Another program holds it"):
        study_of("search", storage_of(url, wait_s=1), 3)
    assert time.monotonic() - began < 20
    holder.close()


def test_a_lock_left_on_the_journal_is_taken_away(tmp_path):
    search(journal(tmp_path), 2)
    os.symlink(tmp_path / "studies.journal", tmp_path / "studies.journal.lock")
    began = time.monotonic()
    study_of("other", storage_of(journal(tmp_path), wait_s=3))
    assert 2 < time.monotonic() - began < 20


def test_a_damaged_journal_is_refused(tmp_path):
    (tmp_path / "studies.journal").write_text("nothing of the kind\n\n\n")
    with pytest.raises(TuningError, match="whole"):
        search(journal(tmp_path))


def test_a_silent_server_is_refused_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(TuningError, match="cannot be used"):
            storage_of(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none", wait_s=2)
        assert time.monotonic() - began < 15


def test_no_server_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(TuningError, match="refused"):
        storage_of(f"postgresql://nobody@127.0.0.1:{port}/none", wait_s=2)


@pytest.mark.parametrize(
    "url, hint",
    [("postgres://h/d", "postgresql"), ("jurnal:///a", "journal"), ("sqlite://", "needed"), ("nothing", "needed")],
)
def test_an_unknown_storage_is_refused(url, hint):
    with pytest.raises(TuningError, match=hint):
        storage_of(url)


def _server_folder() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(p) for p in [shutil.which("initdb")] if p]
    return found[-1].parent if found else None


@pytest.fixture
def server(require, cluster):
    """The URL of a PostgreSQL server of our own; skipped by name where PostgreSQL is not installed."""
    require("postgresql", cluster, "initdb is needed")
    return cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A PostgreSQL server on loopback in a temporary folder: its URL, or None."""
    programs = _server_folder()
    if programs is None:
        yield None
        return
    folder, user, more = tmp_path_factory.mktemp("pg") / "cluster", pwd.getpwuid(os.getuid()).pw_name, {}
    if os.getuid() == 0:  # PostgreSQL does not run as root
        unprivileged = pwd.getpwnam("nobody")
        user, more = "nobody", {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}
        folder = Path(tempfile.mkdtemp(prefix="pg_")) / "cluster"
        os.chown(folder.parent, unprivileged.pw_uid, unprivileged.pw_gid)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = {"cwd": "/", "check": True, "capture_output": True, "timeout": 60, **more}
    subprocess.run([programs / "initdb", "-D", folder, "-A", "trust", "-U", user, "--no-sync"], **run)
    process = subprocess.Popen(
        [
            programs / "postgres",
            "-D",
            folder,
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
            "-k",
            folder.parent,
            "-F",
        ],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **more,
    )
    try:
        url = f"postgresql://{user}@127.0.0.1:{port}/postgres"
        _until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder.parent, ignore_errors=True)


def _until_ready(url: str, process: subprocess.Popen) -> None:
    import psycopg

    for _ in range(150):
        assert process.poll() is None, "the server ended"
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail("PostgreSQL did not come up within 15 s")


def test_postgresql_gives_the_same_search_also_after_a_kill(server, whole):
    killed(server, die_at=6, budget=12)
    found = search(server)
    assert found.failed == 1 and proposals(found) == proposals(whole) and found.parameters == whole.parameters


def test_a_locked_postgresql_table_is_refused_in_time(server):
    import psycopg

    study_of("held", server)
    with psycopg.connect(server) as holder:
        holder.execute("lock table studies in access exclusive mode")
        began = time.monotonic()
        with pytest.raises(TuningError, match="lock timeout.*Another program"):
            study_of("held", storage_of(server, wait_s=1))
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "space, said",
    [
        ({}, "nothing to search"),
        ({"a": {"low": 1}}, "a: either choices, or low and high"),
        ({"a": {"low": 3, "high": 1}}, "no range"),
        ({"a": {"low": 0.0, "high": 1.0, "log": True}}, "no range"),
        ({"a": {"lo": 1, "high": 2}}, "Did you mean `low`"),
        ({"a": {"choices": []}}, "no range"),
        ({"a": {"choices": [1], "low": 0, "high": 1}}, "either"),
        ({"a": {"low": "x", "high": 2}}, "no range"),
    ],
)
def test_a_space_that_cannot_be_understood(space, said):
    with pytest.raises(TuningError, match=said):
        distributions(space)


def test_an_objective_that_is_no_number_ends_the_search(tmp_path):
    with pytest.raises(TuningError, match="The objective is nan for {'x'"):
        tune(lambda p, r: float("nan"), {"x": {"low": 0, "high": 1}}, 3, name="s", storage=journal(tmp_path))
    with pytest.raises(ZeroDivisionError):
        tune(lambda p, r: 1 / 0, {"x": {"low": 0, "high": 1}}, 3, name="s", storage=journal(tmp_path))
    found = tune(lambda p, r: p["x"], {"x": {"low": 0, "high": 1}}, 3, name="s", storage=journal(tmp_path))
    assert found.failed == 2 and found.finished == 3
    with pytest.raises(TuningError, match="budget of 0"):
        search(journal(tmp_path), 0)


class Recorder:
    """A detector that notes which rows it was fitted on."""

    seen: list = []

    def fit(self, X, y, reference=None):
        Recorder.seen.append((list(X.index), reference))
        return self

    def score(self, X):
        return X["a"].to_numpy()


def table(n: int = 60):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.random(n)}), rng.integers(0, 2, n), np.repeat(np.arange(n // 4), 4)


def test_cross_validation_keeps_blocks_whole_and_scales_by_nominal_rows():
    X, y, blocks = table()
    Recorder.seen, reported = [], []
    value = cross_validated(lambda p: Recorder(), X, y, blocks, k=3)({}, lambda step, v: reported.append((step, v)))
    assert len(Recorder.seen) == 3 and [s for s, _ in reported] == [0, 1] and 0 < value < 1
    for rows, reference in Recorder.seen:
        assert not set(blocks[rows]) & set(np.delete(blocks, rows)) and (reference == (y[rows] == 0)).all()
    Recorder.seen = []
    cross_validated(lambda p: Recorder(), X, y, blocks, k=3, reference="all")({}, lambda *_: None)
    assert all(reference.all() for _, reference in Recorder.seen)
    with pytest.raises(TuningError, match="Did you mean `nominal`"):
        cross_validated(lambda p: Recorder(), X, y, blocks, reference="nominel")
    with pytest.raises(SplitError):
        cross_validated(lambda p: Recorder(), X, y, np.zeros(60))


@pytest.mark.parametrize("name", ["LR", "PCA"])
def test_real_detectors_can_be_searched(tmp_path, name):
    from esa_notebooks.models.detectors.registry import all_detectors, detector_named

    X, y, blocks = table(120)
    X = X.assign(b=y + np.random.default_rng(1).normal(0, 0.7, len(y)))
    assert name in {d.name for d in all_detectors()}
    objective = cross_validated(lambda p: detector_named(name)(**p), X, y, blocks, k=3)
    found = tune(objective, {"seed": {"low": 0, "high": 3}}, 2, name=name, storage=journal(tmp_path))
    assert found.finished == 2 and 0 < found.value < 1


def test_the_digest_sees_every_part():
    X, y, blocks = table()
    other = X.copy()
    other.iloc[5, 0] += 1e-12
    digests = [
        digest_of(*t)
        for t in (
            (X, y, blocks),
            (other, y, blocks),
            (X, 1 - y, blocks),
            (X, y, blocks[::-1]),
            (X.rename(columns={"a": "b"}), y, blocks),
        )
    ]
    assert len(set(digests)) == 5 and digest_of(X.copy(), y, blocks) == digests[0]


def test_pruning_needs_its_metric():
    from esa_notebooks.models.pruning import PruneOnReport  # here, so that the workers need not import Lightning

    class Trainer:
        sanity_checking, current_epoch, callback_metrics = False, 0, {"other": 1.0}

    with pytest.raises(ValueError, match="logs other, but not 'watched_loss'"):
        PruneOnReport(lambda *_: None).on_validation_end(Trainer(), None)
    Trainer.sanity_checking = True
    PruneOnReport(lambda *_: pytest.fail("reported")).on_validation_end(Trainer(), None)


def test_the_sampler_does_not_repeat_itself(tmp_path):
    study = optuna.create_study(sampler=RepeatableSampler(0))
    with quiet():
        study.optimize(lambda t: t.suggest_float("x", 0, 1), 20)
    assert len({t.params["x"] for t in study.trials}) == 20
