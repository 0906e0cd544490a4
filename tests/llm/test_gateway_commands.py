"""`esa-notebooks llm key | audit | usage | front`, in a project of their own."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from esa_notebooks.commands import gateway as commands
from esa_notebooks.commands.app import Exit, llm_app
from esa_notebooks.llm.door import configured, gateway_of
from esa_notebooks.llm.policy import Refused
from esa_notebooks.settings import Settings, load
from tests.llm.endpoints import Endpoint
from tests.llm.gateway_world import POLICY, said

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    found = load(ROOT, env={})
    (tmp_path / "governance").mkdir()
    (tmp_path / "governance" / "policy.yaml").write_text(POLICY)
    made = Settings(tmp_path, found.values | {"llm.endpoint": None, "llm.key": None}, found.origins)
    monkeypatch.setattr(commands, "load", lambda: made)
    return made


def call(*words):
    told = CliRunner().invoke(llm_app, words)
    if told.exception and not isinstance(told.exception, (Exit, SystemExit)):
        raise told.exception
    return told


def test_a_key_from_its_making_to_its_end(settings):
    key = call("key", "new", "robotics", "--until", "9999-12-31").stdout.strip()
    assert gateway_of(settings).holder(key) == "robotics"
    listed = call("key", "list").output
    name = key.split("-")[1]
    assert name in listed and "robotics" in listed and key not in listed
    assert "refused since" in call("key", "revoke", name).output
    with pytest.raises(Refused, match="revoked"):
        gateway_of(settings).holder(key)
    assert "revoked" in call("key", "list").output


@pytest.mark.parametrize(
    "words, said",
    [
        (("key", "new", "robotic"), "Did you mean `robotics`?"),
        (("key", "new", "robotics", "--until", "2001-01-01"), "before today"),
        (("key", "new", "robotics", "--until", "soon"), "YYYY-MM-DD"),
        (("key", "revoke", "00000000"), "No key is called"),
    ],
)
def test_mistakes_are_named(settings, words, said):
    told = call(*words)
    assert isinstance(told.exception, Exit) and told.exception.code == 2 and said in str(told.exception)


def test_audit_and_usage(settings):
    assert "empty" in call("audit").output
    with Endpoint(lambda body: "Paris") as local:
        settings.values["llm.endpoint"] = local.url
        model = configured(
            settings, team="robotics", data_class="internal", purpose="assistance", model="small", max_tokens=8
        )
        assert model.invoke("Where?").content == "Paris"
        with pytest.raises(Refused):
            model.invoke("ESA RESTRICTED")
    shown = call("audit").output.splitlines()
    assert len(shown) == 3 and "local: answered" in shown[1] and "marking" in shown[2]
    assert len(call("audit", "--last", "1").output.splitlines()) == 1
    assert "3 entries, none altered" in call("audit", "--check").output
    told = call("usage").output
    assert "robotics" in told and f"{10**9 - 2:,} tokens left" in told
    log = settings.path("paths.registry") / "llm" / "audit.jsonl"
    log.write_text(log.read_text().replace('"internal"', '"public"', 1))
    told = call("audit", "--check")
    assert isinstance(told.exception, Exit) and told.exception.code == 1 and "line 1 was altered" in str(told.exception)
    assert "doubtful" in CliRunner().invoke(llm_app, ["audit"]).output


def test_the_key_in_the_settings_opens_the_door(settings, tmp_path):
    with Endpoint(lambda body: "Paris") as local:
        gateway = gateway_of(settings)
        (tmp_path / "key").write_text(call("key", "new", "robotics").stdout)
        settings.values["llm.key"] = str(tmp_path / "key")
        asked = dict(data_class="internal", purpose="assistance", model="small", max_tokens=8)
        model = configured(settings, **asked)
        with pytest.raises(ValueError, match="llm up"):
            model.invoke("Where?")
        settings.values["llm.endpoint"] = (
            local.url
        )  # now it is the key of the service elsewhere, and the team must be named
        with pytest.raises(Refused, match="no key"):
            configured(settings, **asked).invoke("Where?")
        assert configured(settings, team="robotics", **asked).invoke("Where?").content == "Paris"
    assert local.headers[0]["Authorization"] == "Bearer " + (tmp_path / "key").read_text().strip()
    assert (local.headers[0]["X-Data-Class"], local.headers[0]["X-Purpose"]) == ("internal", "assistance")
    assert gateway.keys.entries()[0].team == "robotics"
    settings.values.update({"llm.endpoint": None, "llm.key": str(tmp_path / "none")})
    with pytest.raises(Refused, match="cannot be read"):
        configured(settings, **asked)


def test_the_front_runs_and_ends_when_told(settings, tmp_path):
    """In a process of its own, as a person would run it; SIGINT while a request is in flight lets it finish."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport esa_notebooks.commands.gateway as g\n"
        "from pathlib import Path\nfrom esa_notebooks.commands.app import llm_app\n"
        "from esa_notebooks.settings import Settings, load\n"
        f"found = load({str(ROOT)!r}, env={{}})\n"
        "g.load = lambda: Settings(Path(sys.argv[1]), found.values | {'llm.endpoint': sys.argv[2]}, found.origins)\n"
        "llm_app(['front', '--port', '0'])"
    )
    key = call("key", "new", "robotics").stdout.strip()
    headers = {"Authorization": f"Bearer {key}", "X-Data-Class": "internal", "X-Purpose": "assistance"}
    body = {"model": "small", "messages": said("Where?"), "max_tokens": 8}
    with Endpoint(lambda body: "Paris", delay_s=0.7) as local:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), local.url], stdout=subprocess.PIPE, text=True
        )
        try:
            url = (
                next(word for word in process.stdout.readline().split() if word.startswith("http")).removesuffix("/v1.")
                + "/v1"
            )
            told = []
            asking = threading.Thread(
                target=lambda: told.append(
                    httpx.post(f"{url}/chat/completions", headers=headers, json=body, trust_env=False, timeout=60)
                )
            )
            asking.start()
            assert local.wait(lambda: local.seen != [], 30)
            os.kill(process.pid, signal.SIGINT)
            asking.join()
            assert told[0].json()["choices"][0]["message"]["content"] == "Paris"
            process.wait(20)
        finally:
            process.kill()
    assert (
        json.loads((settings.path("paths.registry") / "llm" / "audit.jsonl").read_text().splitlines()[-1])["event"]
        == "answered"
    )
