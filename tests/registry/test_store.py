"""The way to MLflow: what is down, slow, deleted or badly named is said in time, and nothing is half-done."""

import socket
import sqlite3
import threading

import pytest

from esa_notebooks.registry import store as module
from esa_notebooks.registry.store import Store, StoreError, download, log_and_register, present, set_alias, sign_of_life
from tests.registry.registry_world import NAME, T0, table


def test_a_server_that_is_down():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{port} cannot be used: .*refused.*tracking\.uri"):
        Store(f"http://127.0.0.1:{port}")


def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(StoreError, match="said nothing for 1 s"):
            Store(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreError, match="timeout|said nothing|timed out"):
            Store(f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/none")


def test_something_else_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            call, _ = server.accept()
            call.recv(1000)
            call.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            call.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(StoreError, match="no MLflow server"):
            sign_of_life(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join(10)


def test_a_server_that_dies_in_the_middle(silent, monkeypatch):
    """Alive when it was asked, gone when it was needed: it is tried twice, and not for the minutes MLflow would try."""
    calls = []
    monkeypatch.setattr(module, "sign_of_life", lambda uri: None)
    with socket.create_server(("127.0.0.1", 0)) as dying:

        def hang_up():
            while True:
                call, _ = dying.accept()
                if not (said := call.recv(1000)):
                    return
                calls.append(said[:4])
                call.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(StoreError, match="could not list its models"):
            Store(f"http://127.0.0.1:{dying.getsockname()[1]}").names()
        socket.create_connection(dying.getsockname()).close()  # which says nothing: the end
        thread.join(60)
    assert calls == [b"GET "] * 2


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda p: None, "no such file"),
        (
            lambda p: p.write_text("not a database, and long enough to be read as the header of one" * 20),
            "not a database",
        ),
        (lambda p: sqlite3.connect(p).execute("create table x (y)").connection.close(), "no tables of MLflow"),
        (lambda p: p.mkdir(), "no such file"),
    ],
    ids=["missing", "text", "other", "folder"],
)
def test_files_that_are_no_store(tmp_path, make, said):
    make(tmp_path / "m.db")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(StoreError, match=said):
        Store(f"sqlite:///{tmp_path}/m.db")
    assert sorted(p.name for p in tmp_path.iterdir()) == before, "an empty registry was made of a typing error"


def test_no_password_is_repeated():
    with pytest.raises(StoreError) as told:
        Store("postgresql+psycopg://someone:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(told.value) and "127.0.0.1:1" in str(told.value)


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "a--b", "-a", "a" * 81, "a'; drop", None])
def test_names_that_are_none(world, name):
    store = Store(world.uri)
    with pytest.raises(StoreError, match="cannot be the name"):
        store.model(name)
    with pytest.raises(StoreError, match="cannot be the name"):
        log_and_register(store, name, world.detector(1), table()[0][:3], [], {})
    assert store.names() == []


@pytest.mark.parametrize(
    "path", ["../x", "artifacts/../../x", "/etc/passwd", "~/x", "", "a\\..\\b", "%2e%2e/x", "file:///x"]
)
def test_paths_that_lead_out(two, tmp_path, path):
    with pytest.raises(StoreError, match="not a path inside"):
        download(two.store, NAME, "1", path, tmp_path)


def test_a_version_whose_source_is_a_folder_of_this_machine(two, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("private")
    made = two.store.client.create_model_version(NAME, str(tmp_path / "secret"))
    with pytest.raises(StoreError, match="behind the gate's back"):
        download(two.store, NAME, str(made.version), "key", tmp_path)


def test_what_is_not_there_is_named(two):
    for ask, said in [
        (lambda: present(two.store, "thermal-anomaly", "1"), f"Did you mean `{NAME}`"),
        (lambda: set_alias(two.store, NAME, "champion", "7"), "no version 7 .* There are: 1, 2"),
        (lambda: log_and_register(two.store, NAME, two.folder / "none.zip", table()[0], [], {}), "no detector"),
    ]:
        with pytest.raises(StoreError, match=said):
            ask()
    assert two.audit() == []


def test_a_file_that_is_no_detector_leaves_no_version(two, again, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK, but not really")
    with pytest.raises(StoreError, match="could not register"):
        log_and_register(two.store, NAME, tmp_path / "x.zip", table()[0][:3], [], {})
    assert sorted(two.store.model(NAME).versions) == ["1", "2"]


def test_an_execution_that_may_leave_nothing_registers_nothing(two, again, monkeypatch):
    monkeypatch.setenv("ESA_RUN_PUBLISHES", "0")
    with pytest.raises(StoreError, match="ESA_RUN_PUBLISHES"):
        again.challenge(two, 3, "2", T0)
    monkeypatch.delenv("ESA_RUN_PUBLISHES")
    assert two.audit() == [] and two.entries()[-1].event == "settled"


def test_no_member_of_a_version_is_a_pickle(two, again):
    files = [p for p in (again.folder / "mlruns").rglob("*") if p.is_file()]
    assert len(files) > 10
    for path in files:
        assert path.suffix not in (".pkl", ".pickle", ".joblib", ".pt") and path.read_bytes()[:1] != b"\x80", path
    assert two.store.client.get_model_version(NAME, "1").tags["esa.run_id"] == "20260301-080000-abcd"
