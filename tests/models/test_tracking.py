"""What a run leaves in MLflow, asked of a real server on the loopback interface, and what is said without one."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.models import describe, tracking
from esa_notebooks.models.detectors.neighbours import KNN
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.tracking import TrackingError, tracked
from esa_notebooks.runs.conditions import SILENCE
from esa_notebooks.settings import load

CHANGED = ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_RUN_ID")
SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'
SHA = "0123456789abcdef" * 4


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """MLflow keeps to itself, and what it changes in the environment of this process is put back."""
    for name in CHANGED:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in SILENCE.items():
        monkeypatch.setenv(name, value)
    for name in ("ESA_RUN_PUBLISHES", "ESA_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`mlflow server` on a free port, with its database and artifacts in a temporary folder."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    env = {**os.environ, **SILENCE, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                time.sleep(0.2)
        else:
            pytest.fail((folder / "log").read_text()[-3000:])
        yield SimpleNamespace(uri=uri, folder=folder)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the session it was started in: the server and its one worker
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def table(n: int = 150) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    y = (np.arange(n) % 5 == 0).astype(int)
    return pd.DataFrame({"height": rng.normal(2.0 * y), "width": rng.normal(size=n), "channel": "A"}), y


@pytest.fixture(scope="module")
def left(server, tmp_path_factory):
    """What one whole run of two seeds left on the server, as the notebook leaves it."""
    X, y = table()
    detector = ExtraTrees(7, n_estimators=10).fit(X, y)
    file = detector.save(tmp_path_factory.mktemp("model") / "detector.zip")
    with pytest.MonkeyPatch.context() as patched:
        for name in CHANGED:
            patched.setenv(name, "")
            patched.delenv(name)
        for name, value in {**SILENCE, "ESA_RUN_ID": "20261125-1234"}.items():
            patched.setenv(name, value)
        patched.delenv("ESA_RUN_PUBLISHES", raising=False)
        with tracked(
            "mini · official", "ExtraTrees", {"n_estimators": 10, "seeds": [7, 8]}, {"group": "supervised"}, server.uri
        ) as mlflow:
            tracking.log_seeds(
                mlflow,
                {7: {"auc_pr": 0.9, "recall": None}, 8: {"auc_pr": 0.7, "recall": 0.5}},
                {"auc_pr": 0.8, "recall": None},
            )
            tracking.log_data(
                mlflow,
                X.assign(anomaly=y),
                name="mini",
                source="data/processed/mini.parquet",
                sha256=SHA,
                label="anomaly",
            )
            tracking.log_figure(mlflow, SVG, "precision_recall")
            uri = tracking.log_detector(mlflow, file, X[:5], describe.requirements(ExtraTrees))
            parent = mlflow.active_run().info.run_id
        client = mlflow.MlflowClient(server.uri)
        experiment = client.get_experiment_by_name("mini · official")
        runs = client.search_runs([experiment.experiment_id])
        loaded = mlflow.pyfunc.load_model(uri, model_config=None)
        yield SimpleNamespace(
            mlflow=mlflow,
            client=client,
            parent=client.get_run(parent),
            uri=uri,
            detector=detector,
            loaded=loaded,
            children=sorted((r for r in runs if r.info.run_id != parent), key=lambda r: r.data.params["seed"]),
        )


def test_a_run_with_a_nested_run_for_each_seed(left):
    parent, (seven, eight) = left.parent, left.children
    assert parent.info.status == "FINISHED" and parent.info.run_name == "ExtraTrees"
    assert parent.data.params == {"n_estimators": "10", "seeds": "[7, 8]"} and parent.data.metrics == {"auc_pr": 0.8}
    assert parent.data.tags["esa.run_id"] == "20261125-1234" and parent.data.tags["group"] == "supervised"
    for child, seed, metrics in ((seven, "7", {"auc_pr": 0.9}), (eight, "8", {"auc_pr": 0.7, "recall": 0.5})):
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id and child.info.status == "FINISHED"
        assert child.data.params == {"seed": seed} and child.data.metrics == metrics


def test_the_data_by_digest_and_the_figure(left):
    (given,) = left.parent.inputs.dataset_inputs
    assert (
        given.dataset.name == "mini"
        and given.dataset.digest == SHA[:16]
        and "data/processed/mini.parquet" in given.dataset.source
    )
    assert left.parent.data.tags["esa.data_sha256"] == SHA and '"height"' in given.dataset.schema
    path = left.mlflow.artifacts.download_artifacts(
        run_id=left.parent.info.run_id, artifact_path="figures/precision_recall.svg"
    )
    assert Path(path).read_text() == SVG


def test_the_model_has_a_signature_and_says_what_the_detector_says(left):
    X, _ = table()
    signature = left.loaded.metadata.signature
    assert signature.inputs.input_names() == ["height", "width", "channel"]
    assert signature.outputs.input_names() == ["score", "anomalous"]
    told = left.loaded.predict(X)
    assert (told.score.to_numpy() == left.detector.score(X)).all() and (
        told.anomalous.to_numpy() == left.detector.decide(X)
    ).all()
    with pytest.raises(left.mlflow.MlflowException, match="width"):
        left.loaded.predict(X.drop(columns="width"))


def test_no_member_of_the_model_is_a_pickle(left, server):
    folder = Path(left.mlflow.artifacts.download_artifacts(left.uri))
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert (folder / "artifacts/detector.zip").is_file() and len(files) > 4
    everything = files + [p for p in (server.folder / "artifacts").rglob("*") if p.is_file()]
    assert len(everything) > len(files), "the artifacts lie on the server's side"
    for path in everything:
        assert path.suffix not in (".pkl", ".pickle", ".joblib", ".pt", ".pth"), path
        assert path.read_bytes()[:2] not in (b"\x80\x04", b"\x80\x05"), f"{path} begins like a pickle"
    needed = (folder / "requirements.txt").read_text()
    assert {"scikit-learn", "skops", "mlflow"} <= {line.partition("==")[0] for line in needed.splitlines()}


def test_a_run_that_fails_is_said_to_have_failed(server):
    with pytest.raises(ZeroDivisionError), tracked("failing", "one", {"long": "x" * 2000}, {}, server.uri) as mlflow:
        raise ZeroDivisionError
    client = mlflow.MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("failing").experiment_id])
    assert run.info.status == "FAILED" and run.data.params["long"] == "x" * 500 and mlflow.active_run() is None
    assert run.data.tags["esa.run_id"] == "interactive"


def test_a_server_that_is_not_there():
    """The message comes soon, names the address and the setting, and repeats no password."""
    port, began = free_port(), time.monotonic()
    with pytest.raises(
        TrackingError, match=rf"MLflow at 127.0.0.1:{port} does not answer.*tracking\.uri.*ESA_TRACKING_URI"
    ) as told:
        with tracked("mini", "one", {}, {}, f"http://someone:hunter2@127.0.0.1:{port}"):
            raise AssertionError("the block was entered without a run")
    assert time.monotonic() - began < 60 and "hunter2" not in str(told.value)


def test_a_store_that_cannot_be_one():
    with (
        pytest.raises(TrackingError, match="MLflow at ftp://127.0.0.1/x does not answer"),
        tracked("m", "o", {}, {}, "ftp://127.0.0.1/x"),
    ):
        pass


def test_what_must_leave_nothing_leaves_nothing(tmp_path, monkeypatch):
    """A comparison run (verify, diff) computes everything, and no store hears of it."""
    monkeypatch.setenv("ESA_RUN_PUBLISHES", "0")
    monkeypatch.chdir(tmp_path)
    X, y = table()
    file = KNN().fit(X).save(tmp_path / "detector.zip")
    before = sorted(tmp_path.rglob("*"))
    with tracked("mini", "one", {"a": 1}, {}, f"sqlite:///{tmp_path}/mlflow.db") as mlflow:
        assert mlflow is None
        tracking.log_seeds(mlflow, {0: {"auc_pr": 0.9}}, {"auc_pr": 0.9})
        tracking.log_data(mlflow, X, name="mini", source="x", sha256=SHA, label="anomaly")
        tracking.log_figure(mlflow, SVG, "a")
        assert tracking.log_detector(mlflow, file, X[:5], []) == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_relative_database_lies_in_the_project_wherever_the_notebook_runs(tmp_path, monkeypatch):
    for name in ("pyproject.toml", "settings.ini"):
        (tmp_path / name).write_text((Path(__file__).parents[2] / name).read_text())
    (tmp_path / "nbs").mkdir()
    monkeypatch.setenv("ESA_PROJECT_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path / "nbs")
    assert tracking.store_uri(load(), "sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking.store_uri(load(), "sqlite:////elsewhere/mlflow.db") == "sqlite:////elsewhere/mlflow.db"
    assert tracking.store_uri(load(), "http://127.0.0.1:5000") == "http://127.0.0.1:5000"
