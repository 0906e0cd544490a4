"""JupyterLab: a real server, a real session, a notebook run from top to bottom with its defaults."""
import json
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import requests
import websocket

from tests.end_to_end.conftest import copy_project, environment, records

TOKEN = uuid.uuid4().hex


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server on loopback, serving a copy of the project: (address, project)."""
    project = copy_project(tmp_path_factory.mktemp("lab"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen(
        [Path(sys.executable).parent / "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
         "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={project}"],
        cwd=project, env=environment(JUPYTER_CONFIG_DIR=str(project / ".jupyter")), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    address = f"127.0.0.1:{port}"
    for _ in range(120):
        try:
            if requests.get(f"http://{address}/api", timeout=1).ok:
                break
        except requests.ConnectionError:
            time.sleep(0.25)
    else:
        server.kill()
        pytest.fail("JupyterLab did not start")
    yield address, project
    server.terminate()
    server.wait(20)


class Session:
    """A notebook opened in JupyterLab: its kernel, and `run(source)`."""

    def __init__(self, address: str, path: str):
        body = {"path": path, "name": Path(path).name, "type": "notebook", "kernel": {"name": "python3"}}
        made = requests.post(f"http://{address}/api/sessions", json=body, headers={"Authorization": f"token {TOKEN}"}, timeout=60)
        made.raise_for_status()
        self.wire = websocket.create_connection(f"ws://{address}/api/kernels/{made.json()['kernel']['id']}/channels?token={TOKEN}",
                                                timeout=120)

    def run(self, source: str) -> tuple[str, str]:
        """Status and text of one cell, executed as JupyterLab executes it."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": "s", "version": "5.3"}
        content = {"code": source, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        self.wire.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}))
        status, idle, text = "", False, ""
        while not (status and idle):
            message = json.loads(self.wire.recv())
            if message["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            status = content["status"] if kind == "execute_reply" else status
            idle = idle or kind == "status" and content["execution_state"] == "idle"
            text += content.get("text", "") if kind == "stream" else ""
        return status, text


def code(project: Path, path: str) -> list[str]:
    cells = json.loads((project / path).read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]


def test_the_projects_kernel_is_this_environment(lab):
    address, project = lab
    session = Session(address, "nbs/settings.ipynb")   # another kernel than the tests below: theirs must be fresh
    status, text = session.run("import sys, esa_notebooks; print(sys.prefix)")
    assert status == "ok" and text.strip() == sys.prefix


@pytest.mark.parametrize("stage", ["prepare", "explore"])   # in this order: explore reads what prepare wrote
def test_runs_top_to_bottom_with_its_defaults_and_says_it_was_interactive(lab, stage):
    address, project = lab
    path = f"nbs/pipeline/{stage}.ipynb"
    session = Session(address, path)
    said = [session.run(source) for source in code(project, path)]
    assert [s for s, _ in said] == ["ok"] * len(said), said
    mine = [r for r in records(project) if r["stage"] == stage]
    assert len(mine) == 1 and mine[0]["interactive"] is True and mine[0]["status"] == "succeeded", mine
    assert any(d["kind"] == "answer" for d in mine[0]["declarations"]) and mine[0]["key"]
    assert "interactive" in (project / "reports" / "index.html").read_text().lower()


def test_out_of_order_is_not_a_success(lab):
    address, project = lab
    session = Session(address, "nbs/pipeline/explore.ipynb")
    cells = code(project, "nbs/pipeline/explore.ipynb")
    for source in (cells[0], cells[1], cells[2], cells[1]):
        session.run(source)
    last = [r for r in records(project) if r["stage"] == "explore"][-1]
    assert last["status"] == "cancelled" and last["interactive"] and "code cells have run" in last["reason"]["what"]
