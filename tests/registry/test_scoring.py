"""The scorer's doorkeeper: what is refused, with which words, and that a refusal changes nothing."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from esa_notebooks.models import served as models_served
from esa_notebooks.models.detectors.detector import Detector
from esa_notebooks.models.detectors.storing import DetectorError
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.served import DetectorModel, stored, verdicts
from esa_notebooks.registry.scoring import LIMIT, application, as_served, assemble, check_question, loaded, plain
from tests.registry.registry_world import readings


@pytest.fixture(scope="module", autouse=True)
def environment_put_back():
    """MLflow's server marks the whole process as one; what it and we set is taken back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring")
    X, y = readings()
    detector = ExtraTrees(0, n_estimators=20).fit(X, y)
    file = detector.save(folder / "detector.zip")
    model = loaded(assemble(file, X[:3], ["mlflow"], folder / "model"))
    with TestClient(application(model, limit=200_000), "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield SimpleNamespace(
            X=X, detector=detector, file=file, folder=folder, model=model, client=client, offline=detector.score(X)
        )


def asked(served, body, **headers) -> tuple[int, str]:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = served.client.post("/invocations", content=body, headers={"content-type": "application/json", **headers})
    return answer.status_code, answer.json().get("error", "") if answer.status_code != 200 else ""


def split(table) -> dict:
    return {"dataframe_split": table.to_dict(orient="split")}


@pytest.mark.parametrize("orient", ["split", "records"])
def test_scores_are_those_without_a_server(served, orient):
    answer = served.client.post("/invocations", json={f"dataframe_{orient}": served.X.to_dict(orient=orient)}).json()[
        "predictions"
    ]
    assert np.abs(np.array([p["score"] for p in answer]) - served.offline).max() <= 1e-9
    assert [p["anomalous"] for p in answer] == (served.offline > served.detector.threshold).tolist()


def test_columns_are_found_by_name_and_others_passed_over(served):
    shuffled = served.X[["channel", "peaks", "height"]].assign(other="x").iloc[::-1]
    answer = served.client.post("/invocations", json={"dataframe_records": shuffled.to_dict(orient="records")}).json()[
        "predictions"
    ]
    assert [p["score"] for p in answer] == served.offline[::-1].tolist()


ROW = {"height": 1.0, "peaks": 2, "channel": "A"}
COLUMNS = {"columns": ["height", "peaks", "channel"]}


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "The question is empty"),
        (b"{hello", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'"\xc3("', 400, "cannot be read"),
        (b"[1, 2]", 400, "not a list"),
        (b"null", 400, "not a NoneType"),
        (b"{}", 400, "no table"),
        (b"[" * 50_000, 400, "RecursionError"),
        (b'{"dataframe_records": [{"height": ' + b"1" * 5000 + b"}]}", 400, "cannot be read"),
        ({"dataframe_record": [ROW]}, 400, "Did you mean `dataframe_records`?"),
        ({"instances": [ROW]}, 400, "not understood"),
        ({"dataframe_records": [ROW], "params": {"a": 1}}, 400, "`params`"),
        ({"messages": [{"role": "user", "content": "x"}]}, 400, "`messages`"),
        ({"dataframe_records": [ROW], "dataframe_split": {}}, 400, "two tables"),
        ({"dataframe_records": []}, 400, "no rows"),
        ({"dataframe_records": {"height": 1}}, 400, "a list of rows"),
        ({"dataframe_records": [1, 2]}, 400, "missing inputs"),
        ({"dataframe_split": {**COLUMNS, "data": []}}, 400, "no rows"),
        ({"dataframe_split": [1]}, 400, "columns and data"),
        ({"dataframe_split": {**COLUMNS, "data": [[1.0, 2, "A"]], "index": [0, 1]}}, 400, "its index does not fit"),
        (
            {"dataframe_split": {"columns": ["height", "height", "peaks", "channel"], "data": [[1, 2, 3, "A"]]}},
            400,
            "`height` twice",
        ),
        ({"dataframe_split": {**COLUMNS, "data": [[1.0, 2]]}}, 400, "columns"),
        ({"dataframe_records": [{"height": 1.0, "channel": "A"}]}, 400, "missing inputs ['peaks']"),
        ({"dataframe_records": [ROW, {"height": 1.0, "channel": "A"}]}, 400, "`peaks` is nan in row 1"),
        ({"dataframe_records": [{**ROW, "height": None}]}, 400, "`height` is nan in row 0"),
        ({"dataframe_records": [{**ROW, "height": float("nan")}]}, 400, "NaN is not a number"),
        ({"dataframe_records": [{**ROW, "height": float("-inf")}]}, 400, "-Infinity is not a number"),
        (b'{"dataframe_records": [{"height": 1e999, "peaks": 2, "channel": "A"}]}', 400, "`height` is inf"),
        ({"dataframe_records": [{**ROW, "height": "high"}]}, 400, "could not convert string to float"),
        ({"dataframe_records": [{**ROW, "height": [1]}]}, 400, "height"),
        ({"dataframe_records": [{**ROW, "height": {"a": 1}}]}, 400, "height"),
        (b'{"dataframe_records": [' + b" " * 200_000 + b"]}", 413, "at most 200,000 are read"),
    ],
    ids=lambda v: str(v)[:40] if not isinstance(v, int) else None,
)
def test_a_bad_question_hears_what_was_wrong_and_changes_nothing(served, body, status, told):
    code, said = asked(served, body)
    assert (code, told in said) == (status, True), (code, said)
    assert (
        len(said) <= 700 and "Traceback" not in said and "site-packages" not in said and str(served.folder) not in said
    )
    assert served.client.get("/ping").status_code == 200
    again = served.client.post("/invocations", json=split(served.X.head(5))).json()["predictions"]
    assert [p["score"] for p in again] == served.offline[:5].tolist()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/csv", 415),
        ("application/vnd.apache.parquet", 415),
        ("text/plain", 415),
        ("application/json; charset=latin-1", 415),
        ("", 415),
        ("application/json; charset=utf-8", 200),
        ("application/json;charset=utf-8", 200),
    ],
)
def test_only_json_is_read(served, kind, status):
    assert asked(served, split(served.X.head(2)), **{"content-type": kind})[0] == status


def test_a_question_says_how_long_it_is(served):
    def pieces():
        yield json.dumps(split(served.X.head(2))).encode()

    answer = served.client.post("/invocations", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 411 and "Content-Length" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/redoc", 404),
        ("GET", "/", 404),
        ("POST", "/ping", 405),
        ("GET", "/invocations", 405),
        ("DELETE", "/invocations", 405),
        ("GET", "/health", 200),
        ("GET", "/version", 200),
    ],
)
def test_there_is_nothing_else(served, method, path, status):
    assert served.client.request(method, path).status_code == status


def test_a_page_under_another_name_does_not_reach_it(served):
    assert served.client.get("/ping", headers={"host": "rebound.example"}).status_code == 400
    assert served.client.get("/ping", headers={"host": "localhost:8080"}).status_code == 200


def test_a_fraction_is_not_cut_off(served):
    half = served.X.assign(peaks=served.X.peaks + 0.5)
    answer = served.client.post("/invocations", json=split(half)).json()["predictions"]
    assert [p["score"] for p in answer] == served.detector.score(half).tolist() != served.offline.tolist()
    assert as_served(served.X).dtypes.astype(str).tolist()[:2] == ["float64", "float64"] and as_served(
        served.X
    ).channel.equals(served.X.channel)


def test_what_the_question_check_lets_through_is_read_once():
    check_question(b'{"dataframe_records": [{"a": 1}]}')
    assert LIMIT == 8 * 2**20


def test_a_refusal_loses_the_trace_and_the_repetition(caplog):
    told = {
        "message": "Failed to predict data '  a\n0 1'. \nError: Failed to enforce schema of data '' with schema '[a]'. "
        "Error: Model is missing inputs ['b'].",
        "stack_trace": "File /somewhere/secret.py",
    }
    assert plain(json.dumps(told).encode(), 400) == {"error": "Model is missing inputs ['b']."}
    assert "secret.py" in caplog.text
    assert plain(b"Request processing time exceeded limit", 504) == {"error": "Request processing time exceeded limit"}
    assert plain(b"", 500)["error"] and len(plain(json.dumps({"message": "x" * 9999}).encode(), 400)["error"]) < 700


def test_many_at_once_hear_what_each_would_have_heard_alone(served):
    """Each request has rows of its own, so an answer that went to another one would show."""
    pieces = [served.X.sample(7, random_state=n) for n in range(24)]
    alone = [served.detector.score(piece).tolist() for piece in pieces]

    def ask(piece):
        return [p["score"] for p in served.client.post("/invocations", json=split(piece)).json()["predictions"]]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, pieces)) == alone


class Drawing(Detector):
    "Scores drawn by chance from the seed, slowly: two at once would draw each other's."

    name = "Drawing"

    def _score(self, values):
        drawn = []
        for _ in range(len(values)):
            drawn.append(np.random.random())
            time.sleep(0.002)
        return np.array(drawn)


def test_a_detector_that_draws_by_chance_answers_one_at_a_time(served, monkeypatch):
    drawing = Drawing(3)
    drawing.columns, drawing.threshold = ["height"], 0.5
    drawing.scaler, drawing._channel = (lambda values, channel: values), (lambda X: None)
    model = DetectorModel()
    model.load_context(SimpleNamespace(artifacts={"detector": str(served.file)}))
    model.detector = drawing
    alone = model.predict(None, served.X.head(9)).score.tolist()
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda _: model.predict(None, served.X.head(9)).score.tolist(), range(6)))
    assert together == [alone] * 6 and len(set(alone)) == 9


def test_a_file_that_changed_after_it_was_loaded_is_not_answered_from(served, tmp_path):
    file = tmp_path / "detector.zip"
    file.write_bytes(served.file.read_bytes())
    model = loaded(assemble(file, served.X[:3], ["mlflow"], tmp_path / "model"))
    client = TestClient(application(model), "http://127.0.0.1")
    assert client.post("/invocations", json=split(served.X.head(2))).status_code == 200
    inside = next((tmp_path / "model").rglob("detector.zip"))
    inside.write_bytes(inside.read_bytes())  # the same bytes: it is no longer the file that was looked at
    answer = client.post("/invocations", json=split(served.X.head(2)))
    assert (
        answer.status_code == 500
        and "Start the server again" in answer.json()["error"]
        and client.get("/ping").status_code == 200
    )
    inside.unlink()
    assert client.post("/invocations", json=split(served.X.head(2))).status_code == 500


def test_the_detector_is_read_once(served, monkeypatch):
    model, read, real = DetectorModel(), [], models_served.read_archive
    monkeypatch.setattr(models_served, "read_archive", lambda path: read.append(path) or real(path))
    model.load_context(SimpleNamespace(artifacts={"detector": str(served.file)}))
    once = len(read)
    for _ in range(3):
        model.predict(None, served.X.head(2))
    assert len(read) == once >= 1
    assert verdicts(stored(served.file), served.X).equals(verdicts(served.file, served.X))


def test_a_damaged_detector_is_not_loaded(served, tmp_path):
    file = tmp_path / "detector.zip"
    file.write_bytes(served.file.read_bytes()[:-40])
    with pytest.raises(DetectorError):
        assemble(file, served.X[:3], ["mlflow"], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_pickled_model_is_not_loaded(tmp_path):
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import PythonModel

    class Evil(PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input

    mlflow.pyfunc.save_model(str(tmp_path / "evil"), python_model=Evil(), pip_requirements=["mlflow"])
    with pytest.raises(MlflowException, match="(?i)pickle"):
        loaded(tmp_path / "evil")
