"""One whole life on a real MLflow server, with its database in a real PostgreSQL, both on the loopback interface."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from esa_notebooks.registry.backup import backup, restore, verified
from esa_notebooks.registry.journal import check
from esa_notebooks.registry.store import digest, set_alias
from esa_notebooks.runs.conditions import SILENCE
from tests.registry.registry_world import ADA, BEN, NAME, T0, World, timedelta

DAY = timedelta(days=1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(p) for p in [shutil.which("initdb")] if p]
    return found[-1].parent if found else None


@pytest.fixture(scope="module")
def database():
    """The URL of a PostgreSQL server in a temporary folder, or None where there is no PostgreSQL."""
    if programs() is None:
        yield None
        return
    folder, user, more = Path(tempfile.mkdtemp(prefix="pg_")) / "cluster", pwd.getpwuid(os.getuid()).pw_name, {}
    if os.getuid() == 0:  # PostgreSQL does not run as root
        unprivileged = pwd.getpwnam("nobody")
        user, more = "nobody", {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}
        os.chown(folder.parent, unprivileged.pw_uid, unprivileged.pw_gid)
    port, run = free_port(), {"cwd": "/", "check": True, "capture_output": True, "timeout": 300, **more}
    subprocess.run([programs() / "initdb", "-D", folder, "-A", "trust", "-U", user, "--no-sync"], **run)
    command = [programs() / "postgres", "-D", folder, "-p", str(port), "-k", folder.parent, "-F"]
    command += ["-c", "listen_addresses=127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd="/", **quiet, **more)
    try:
        url = f"postgresql://{user}@127.0.0.1:{port}/postgres"
        until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        shutil.rmtree(folder.parent, ignore_errors=True)


def until_ready(url: str, process: subprocess.Popen) -> None:
    import psycopg

    for _ in range(1200):
        assert process.poll() is None, "the server ended"
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail("PostgreSQL did not come up within 120 s")


@pytest.fixture
def server(require, database, tmp_path):
    """`mlflow server` on that database: its address, with artifacts in a temporary folder."""
    require("postgresql", database, "initdb is needed")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database.replace("postgresql:", "postgresql+psycopg:")]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    env = {**os.environ, **SILENCE, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.2)
        else:
            pytest.fail("the server did not come up within 120 s: " + (tmp_path / "log").read_text()[-3000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the session it was started in: the server and its one worker
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_whole_life_on_a_server(silent, server, database, template, tmp_path):
    world = World(tmp_path, server, template)
    registry = world.registry()
    assert world.promote(registry, 1) == "1" and world.promote(registry, 2, "1", T0 + DAY) == "2"
    assert registry.audit() == [] and digest(registry.store, NAME, "2") == registry.entries()[-1].details["sha256"]
    set_alias(registry.store, NAME, "champion", "1")
    assert [d.kind for d in registry.audit()] == ["alias"]
    assert registry.repair(ADA)[1] == [] and registry.store.model(NAME).aliases == {"champion": "2"}
    assert registry.rollback(NAME, BEN, "false alarms at night", at=T0 + 2 * DAY) == "1"
    registry.retire(NAME, "2", BEN, "no good at all", at=T0 + 2 * DAY)
    assert registry.audit() == [] and check(registry.entries()) == []
    backup(tmp_path / "saved", registry.folder, server, database=database, artifacts=[tmp_path / "artifacts"])
    listed = [f["path"] for f in verified(tmp_path / "saved")["files"]]
    assert "database/mlflow.dump" in listed and any("artifacts" in p and p.endswith("2.zip") for p in listed)
    placed = back(database, tmp_path)
    assert len(placed) == 2 and list((tmp_path / "new" / "artifacts").rglob("2.zip"))


def back(database: str, tmp_path: Path) -> list[Path]:
    """Restore into an empty database of the same server, and look at what is in it."""
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create database restored")
    other = database.removesuffix("/postgres") + "/restored"
    placed = restore(tmp_path / "saved", tmp_path / "new", ADA, database=other)
    with psycopg.connect(other) as connection:
        found = connection.execute("select alias, version from registered_model_aliases").fetchall()
    assert [(a, str(v)) for a, v in found] == [("champion", "1")]
    return placed
