"""`esa-notebooks serve`, as a process over HTTP: what it answers, what it refuses to serve, and how it ends."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

import esa_notebooks.commands.serve  # noqa: F401  (hangs its command on the application)
from esa_notebooks.cli import main
from esa_notebooks.data.opssat import read as read_opssat
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.gate.people import read_people
from esa_notebooks.gate.signing import new_key, public_text
from esa_notebooks.models.describe import requirements
from esa_notebooks.models.detectors.champion import Champion
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.registry import journal
from esa_notebooks.registry.evidence import build, enrolment, trusted_keys, verify_bundle
from esa_notebooks.registry.scoring import application, as_served, assemble, loaded
from esa_notebooks.registry.serving import (
    Reference,
    ServingError,
    bound,
    chosen,
    judged,
    permitted,
    reference,
    running,
    tried,
)
from esa_notebooks.registry.store import Store, StoreError, log_and_register, set_alias
from esa_notebooks.runs.conditions import SILENCE
from tests.registry.registry_world import readings

ROOT = Path(__file__).resolve().parents[2]
WHO = "a.builder@example.org"
COMMAND = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'esa-notebooks'; import esa_notebooks.commands.serve; "
    "from esa_notebooks.cli import main; main()",
    "serve",
]


@pytest.fixture(scope="module", autouse=True)
def environment_put_back():
    """MLflow and its server set variables of the whole process; they are taken back."""
    before = dict(os.environ)
    os.environ.update(SILENCE)
    os.environ.pop("ESA_RUN_PUBLISHES", None)
    yield
    os.environ.clear()
    os.environ.update(before)


def promoted(world, seed: int) -> str:
    """A version that passed the gate: registered, its evidence bundled, and journalled as challenger."""
    X, y = readings(seed)
    file = ExtraTrees(seed, n_estimators=10).fit(X, y).save(world.folder / f"detector{seed}.zip")
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    decision = {
        "schema": "esa-notebooks/decision/1",
        "subject": {"name": "thermal", "sha256": sha},
        "verdict": "passed",
        "digest": f"{seed:064x}",
    }
    made = build(
        world.registry / "bundles",
        {"decision/decision.json": json.dumps(decision).encode(), "model/detector.zip": file},
        {"name": "thermal"},
        world.key,
    )
    version = log_and_register(world.store, "thermal", file, X[:3], requirements(ExtraTrees), {"esa.sha256": sha})
    journal.append(
        world.registry / journal.FILE,
        "challenger",
        WHO,
        model="thermal",
        version=version,
        bundle=made.address,
        decision=decision["digest"],
        details={"sha256": sha},
    )
    return version


@pytest.fixture(scope="module")
def world(template, tmp_path_factory):
    """A registry of its own: version 1 retired, 2 in production, 3 awaiting approval."""
    folder = tmp_path_factory.mktemp("serving")
    shutil.copy(template / "mlflow.db", folder / "mlflow.db")
    world = SimpleNamespace(
        folder=folder,
        registry=folder / "registry",
        governance=folder / "governance",
        uri=f"sqlite:///{folder}/mlflow.db",
    )
    (world.governance / "models").mkdir(parents=True)
    world.key, world.store = new_key(folder / "builder.key"), Store(world.uri)
    people = {
        "schema": "esa-notebooks/people/1",
        "owners": [{"id": "flight-dynamics-data", "title": "T", "contact": "t@example.org"}],
        "approvers": [],
    }
    (world.governance / "approvers.yaml").write_text(yaml.safe_dump(people))
    about = (
        (ROOT / "governance" / "models" / "opssat-anomalies.yaml")
        .read_text()
        .replace("name: opssat-anomalies", "name: thermal")
    )
    (world.governance / "models" / "thermal.yaml").write_text(about)
    world.journal = world.registry / journal.FILE
    journal.append(world.journal, "enrolled", WHO, details=enrolment(world.key))
    for seed in (1, 2, 3):
        assert promoted(world, seed) == str(seed)
        if seed < 3:
            journal.append(world.journal, "champion", WHO, model="thermal", version=str(seed))
    journal.append(world.journal, "retired", WHO, model="thermal", version="1")
    set_alias(world.store, "thermal", "champion", "2")
    set_alias(world.store, "thermal", "challenger", "3")
    world.X = readings(9)[0]
    world.offline = ExtraTrees.load(folder / "detector2.zip").score(world.X)
    world.env = {n: v for n, v in os.environ.items() if not n.startswith(("ESA_RUN", "MLFLOW_TRACKING"))} | {
        "ESA_TRACKING_URI": world.uri,
        "ESA_PATHS_REGISTRY": str(world.registry),
        "ESA_PATHS_GOVERNANCE": str(world.governance),
        "TMPDIR": str(folder),
    }
    return world


def started(world, *words) -> SimpleNamespace:
    """The command as a process, once it has said where it answers."""
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=ROOT, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ctrl-C"):
            return SimpleNamespace(process=process, lines=lines, address=lines[0].rpartition(" ")[2])
    pytest.fail(f"it ended with {process.wait()}: {process.stderr.read()[-3000:]}")


@pytest.fixture(scope="module")
def server(world):
    one = started(world, "thermal")
    yield one
    if one.process.poll() is None:
        one.process.terminate()
        one.process.wait(120)


def post(address: str, body: bytes, kind: str = "application/json") -> tuple[int, dict]:
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read())


def question(rows: pd.DataFrame, orient: str = "split") -> bytes:
    return json.dumps({f"dataframe_{orient}": rows.to_dict(orient=orient)}).encode()


def scores(answer: dict) -> np.ndarray:
    return np.array([p["score"] for p in answer["predictions"]])


@pytest.mark.parametrize("orient", ["split", "records"])
def test_scores_over_http_are_those_without_a_server(world, server, orient):
    status, answer = post(server.address, question(world.X, orient))
    assert status == 200 and np.abs(scores(answer) - world.offline).max() <= 1e-9


def test_what_it_prints_can_be_pasted(world, server):
    words = shlex.split(server.lines[2])
    assert (
        words[0] == "curl" and "version 2 (champion)" in server.lines[0] and "largest difference 0" in server.lines[1]
    )
    status, answer = post(words[-1].removesuffix("/invocations"), words[5].encode(), words[3].partition(": ")[2])
    assert status == 200 and len(answer["predictions"]) == 1


@pytest.mark.parametrize("name", ["missing column", "wrong type", "NaN", "empty", "10 MB", "not JSON", "CSV"])
def test_bad_input_is_refused_readably_and_the_server_stays_up(world, server, name):
    few, kind = world.X.head(3), "application/json"
    body = {
        "missing column": question(few.drop(columns="peaks")),
        "wrong type": question(few.assign(height="high")),
        "NaN": question(few.assign(height=np.nan)),
        "empty": question(few[:0]),
        "10 MB": b'{"dataframe_records": [' + b" " * 10_000_000,
        "not JSON": b"height,peaks\n1,2",
        "CSV": few.to_csv(index=False).encode(),
    }[name]
    told = {
        "missing column": "peaks",
        "wrong type": "height",
        "NaN": "NaN",
        "empty": "no rows",
        "10 MB": "8,388,608",
        "not JSON": "not JSON",
        "CSV": "application/json",
    }[name]
    status, answer = post(server.address, body, "text/csv" if name == "CSV" else kind)
    assert 400 <= status < 500 and told in answer["error"] and list(answer) == ["error"] and len(answer["error"]) < 700
    assert np.array_equal(scores(post(server.address, question(world.X))[1]), world.offline)


def test_many_at_once_are_answered_as_one_by_one(world, server):
    pieces = [world.X.sample(11, random_state=n) for n in range(32)]
    alone = [scores(post(server.address, question(p))[1]).tolist() for p in pieces]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda p: scores(post(server.address, question(p))[1]).tolist(), pieces))
    assert together == alone and alone[0] == world.offline[pieces[0].index].tolist()


def test_it_listens_on_loopback_only_and_calls_nobody(server):
    seen = psutil.Process(server.process.pid).net_connections(kind="inet")
    assert {c.laddr.ip for c in seen if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    assert all(c.raddr.ip == "127.0.0.1" for c in seen if c.raddr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_it_ends_cleanly_and_leaves_nothing(world, server, number):
    """The first signal ends the shared server; the second one that was started for it, on a port that was asked for."""
    one = (
        server
        if number == signal.SIGTERM
        else started(world, "thermal@challenger", "--port", str(free := bound().getsockname()[1]))
    )
    if number == signal.SIGINT:
        assert one.address.endswith(f":{free}") and "version 3 (challenger)" in one.lines[0]
        with pytest.raises(ServingError, match=f"Port {free} cannot be used"):
            bound(free)
    children = psutil.Process(one.process.pid).children(recursive=True)
    one.process.send_signal(number)
    assert one.process.wait(120) == 0 and children == []
    assert "Traceback" not in one.process.stderr.read()
    port = int(one.address.rpartition(":")[2])
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0
    assert not list(world.folder.glob("esa-serve-*"))


def called(world, monkeypatch, *words, **env) -> int:
    """The exit code of the command in this process, in the world's environment."""
    for name, value in {**world.env, **env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["esa-notebooks", "serve", *words])
    before = signal.getsignal(signal.SIGTERM)
    try:
        main()
        return 0
    except SystemExit as e:
        return e.code or 0
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["thermal", "--host", "0.0.0.0"], 1, "on 127.0.0.1 only, not on 0.0.0.0"),
        (["thermal/1"], 1, "was retired"),
        (["thermla"], 1, "Did you mean `thermal`?"),
        (["thermal", "--render", "out"], 2, "--base"),
    ],
)
def test_the_command_refuses(world, monkeypatch, capsys, words, code, told):
    assert called(world, monkeypatch, *words) == code
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said


def test_without_a_store_it_says_so(world, monkeypatch, capsys):
    assert called(world, monkeypatch, "thermal", ESA_TRACKING_URI="http://127.0.0.1:9") == 3
    assert "cannot be used" in capsys.readouterr().err


def test_the_command_renders(world, monkeypatch, capsys):
    base = "python@sha256:" + "1" * 64
    assert called(world, monkeypatch, "thermal", "--render", str(world.folder / "container"), "--base", base) == 0
    made = Path(capsys.readouterr().out.strip())
    sha = hashlib.sha256((world.folder / "detector2.zip").read_bytes()).hexdigest()
    assert f"FROM {base}" in (made / "Containerfile").read_text() and sha in (made / "model.sha256").read_text()
    assert f'esa-notebooks.decision="{2:064x}"' in (made / "Containerfile").read_text()


def taken(world, tmp_path, wanted: str = "thermal", store=None, entries=None):
    entries = journal.read(world.journal) if entries is None else entries
    trusted = trusted_keys(entries, read_people(world.governance / "approvers.yaml").builders)
    return chosen(
        store or world.store,
        world.registry / "bundles",
        entries,
        reference(wanted),
        tmp_path,
        lambda bundle: [f"{c.path} {c.what}" for c in verify_bundle(bundle, trusted)],
    )


def test_what_is_chosen_is_what_was_judged(world, tmp_path):
    served = taken(world, tmp_path)
    assert (served.version, served.alias, served.decision) == ("2", "champion", f"{2:064x}")
    assert served.detector.read_bytes() == (world.folder / "detector2.zip").read_bytes() and len(served.example) == 3


def test_an_alias_moved_behind_the_gates_back(world, tmp_path):
    set_alias(world.store, "thermal", "champion", "3")
    try:
        with pytest.raises(ServingError, match="points at version 3, but the journal says version 2.*--repair"):
            taken(world, tmp_path)
    finally:
        set_alias(world.store, "thermal", "champion", "2")
    assert taken(world, tmp_path / "again").version == "2"


def test_another_file_in_the_store(world, tmp_path):
    (stored,) = [p for p in world.folder.glob("mlruns/**/artifacts/detector2.zip")]
    right = stored.read_bytes()
    stored.write_bytes((world.folder / "detector3.zip").read_bytes())
    try:
        with pytest.raises(ServingError, match="gives out another file as version 2"):
            taken(world, tmp_path)
    finally:
        stored.write_bytes(right)


def test_foreign_code_in_the_store_is_not_executed(world, tmp_path):
    """MLflow would run this file when the model is loaded; the folder that is served is made anew."""
    for code in world.folder.glob("mlruns/**/detector_model.py"):
        code.write_text(f"open({str(world.folder / 'ran')!r}, 'w')\n" + code.read_text())
    served = taken(world, tmp_path)
    model = loaded(assemble(served.detector, served.example, ["mlflow"], tmp_path / "model"))
    assert (
        scores({"predictions": model.predict(as_served(world.X)).to_dict(orient="records")}).tolist()
        == world.offline.tolist()
    )
    assert not (world.folder / "ran").exists()


def test_evidence_that_is_damaged_or_gone(world, tmp_path):
    entries = journal.read(world.journal)
    entry = next(e for e in entries if e.event == "challenger" and e.version == "2")
    bundle = world.registry / "bundles" / entry.bundle
    decision = bundle / "decision" / "decision.json"
    right = decision.read_bytes()
    decision.write_bytes(right.replace(b"passed", b"Passed"))
    try:
        with pytest.raises(ServingError, match="damaged: decision/decision.json"):
            taken(world, tmp_path)
        with pytest.raises(ServingError, match="the journal does not know"):  # even where nobody checks signatures
            judged(world.registry / "bundles", entries, "thermal", "2")
    finally:
        decision.write_bytes(right)
    os.rename(bundle, bundle.with_name("away"))
    try:
        with pytest.raises(ServingError, match="evidence of version 2 of thermal is not there"):
            taken(world, tmp_path)
    finally:
        os.rename(bundle.with_name("away"), bundle)
    assert judged(world.registry / "bundles", entries, "thermal", "2")[1] == f"{2:064x}"
    unknown = public_text(new_key(tmp_path / "other.key"))
    with pytest.raises(ServingError, match="damaged"):  # signed, but by a machine that nobody enrolled
        chosen(
            world.store,
            world.registry / "bundles",
            entries,
            Reference("thermal"),
            tmp_path,
            lambda b: verify_bundle(b, trusted_keys([SimpleNamespace(event="enrolled", details={"key": unknown})])),
        )


def test_a_version_that_was_deleted(world, tmp_path):
    model = world.store.model("thermal")
    absent = SimpleNamespace(**{**vars(model), "versions": {"3": {}}})
    store = SimpleNamespace(uri=world.uri, model=lambda name: absent, names=lambda: ["thermal"])
    with pytest.raises(StoreError, match="has no version 2"):
        taken(world, tmp_path, store=store)


def entries(*life) -> list[journal.Entry]:
    made: list[journal.Entry] = []
    for event, version in (("began", None), *life):
        entry = journal.Entry(
            len(made) + 1,
            "2026-03-01T00:00:00Z",
            event,
            "thermal" if event != "began" else None,
            version,
            before=made[-1].hash if made else journal.NOTHING,
        )
        made.append(journal.Entry(**{**vars(entry), "hash": entry.computed()}))
    return made


@pytest.mark.parametrize(
    ("asked", "life", "told"),
    [
        ("thermal", [("challenger", "1")], "Version 1 awaits approval"),
        (
            "thermal",
            [("challenger", "1"), ("champion", "1"), ("rolled_back", None)],
            "No version of thermal is in production.",
        ),
        ("thermal", [], "knows no version"),
        ("thermal/2", [("challenger", "1")], "never passed the gate"),
        ("thermal@challenger", [("challenger", "1"), ("champion", "1")], "awaits approval as challenger"),
        ("thermal/1", [("challenger", "1"), ("retired", "1")], "was retired"),
        ("thermal/2", [("challenger", "1"), ("refused", "2")], "never passed"),
    ],
)
def test_what_the_journal_does_not_permit(asked, life, told):
    with pytest.raises(ServingError, match=told):
        permitted(entries(*life), reference(asked))


def test_an_altered_journal_permits_nothing():
    life = entries(("challenger", "1"), ("champion", "1"))
    assert permitted(life, reference("thermal")) == "1"
    life[2] = journal.Entry(**{**vars(life[2]), "version": "7"})
    with pytest.raises(ServingError, match="The journal was altered: entry 3"):
        permitted(life, reference("thermal"))


@pytest.mark.parametrize(
    "text",
    ["", "a b", "thermal@", "thermal/0", "thermal/latest", "thermal@champion/1", "../thermal", "thermal@champ", "A"],
)
def test_what_names_no_model(text):
    with pytest.raises((ServingError, StoreError)):
        reference(text)
    assert reference("thermal") == Reference("thermal", "champion") and reference("thermal/3") == Reference(
        "thermal", None, "3"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_no_other_host(host):
    with pytest.raises(ServingError, match="neither users nor encryption"):
        bound(0, host)


def test_opssat_over_http(require, tmp_path):
    """The champion on the official test rows: over HTTP the same figures as without a server."""
    require("mirror", os.environ.get("ESA_DATA_MIRROR"), "set ESA_DATA_MIRROR to the folder with copies of the sources")
    df, meta = read_opssat(obtain_configured("opssat").files["dataset.csv"])
    columns = [*meta.names("feature"), "channel"]
    train, test = df[df.split == "train"], df[df.split == "test"]
    detector = Champion(0, n_estimators=50).fit(train[columns], train.anomaly)
    offline = detector.score(test[columns])
    model = loaded(
        assemble(
            detector.save(tmp_path / "detector.zip"), train[columns].head(5), requirements(Champion), tmp_path / "model"
        )
    )
    with running(application(model), bound()) as (address, _):
        assert tried(address, as_served(test[columns]), offline) <= 1e-9
    assert len(offline) == 529


def test_an_approval_that_has_ended_permits_nothing():
    life = entries(("challenger", "1"), ("champion", "1"))
    last = journal.Entry(**{**vars(life[-1]), "details": {"until": "2027-03-01T23:59:59Z"}})
    life[-1] = journal.Entry(**{**vars(last), "hash": last.computed()})
    on = lambda text: datetime.fromisoformat(text)  # noqa: E731
    assert permitted(life, reference("thermal"), on("2027-03-01T12:00:00+00:00")) == "1"
    with pytest.raises(ServingError, match="approval of version 1 of thermal ended on 2027-03-01.*promote thermal"):
        permitted(life, reference("thermal"), on("2027-03-02T00:00:00+00:00"))
