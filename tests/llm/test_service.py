"""The service under supervision: crashes, hangs, kills and double starts, with a scripted engine in vLLM's place."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from esa_notebooks.commands.app import Exit
from esa_notebooks.commands.llm import llm_app
from esa_notebooks.llm import service
from esa_notebooks.llm.environment import Environment
from esa_notebooks.llm.model import Model
from esa_notebooks.llm.service import ServiceError, down, running, served, status, up
from esa_notebooks.llm.supervisor import Order, alive
from esa_notebooks.settings import KEYS, Settings
from tests.llm.conftest import free_port
from tests.llm.endpoints import Endpoint

ENGINE = Path(__file__).with_name("engine.py")
quiet = lambda line: None  # noqa: E731


class World:
    """A project in a temporary folder whose engine follows a plan."""

    def __init__(self, root: Path):
        self.root, self.home = root, root / "data" / "interim" / "llm"
        self.home.mkdir(parents=True)
        self.values = {k: v.default for k, v in KEYS.items()} | {"llm.port": free_port()}

    def settings(self, **changes) -> Settings:
        return Settings(self.root, self.values | changes, dict.fromkeys(KEYS, "settings.ini"))

    def plan(self, *words: str) -> None:
        (self.home / "plan.json").write_text(json.dumps(words))

    def starts(self) -> int:
        return len((self.home / "starts").read_text())

    def gone(self, pid: int) -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"

    def processes(self) -> list[int]:
        """The engines and workers that were started and still live."""
        pids = (self.home / "pids").read_text().split() if (self.home / "pids").exists() else []
        return [int(p) for p in pids if not self.gone(int(p))]


def eventually(condition, patience_s: float = 20.0) -> bool:
    until = time.monotonic() + patience_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(condition())


def ask(url: str, text: str, timeout: float = 30.0) -> str:
    body = {"model": "scripted", "messages": [{"role": "user", "content": text}]}
    reply = httpx.post(f"{url}/chat/completions", json=body, timeout=timeout, trust_env=False)
    return reply.json()["choices"][0]["message"]["content"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    it = World(tmp_path)
    it.plan("good")
    monkeypatch.setattr(service, "make", lambda *_: Environment(Path(sys.executable), "cpu", "0", 0, 0.0, "scripted"))
    monkeypatch.setattr(service, "chosen", lambda s, _: Model(s.get("llm.model"), tmp_path, "d" * 64, {}))
    monkeypatch.setattr(service, "command", lambda _e, _m, port: [sys.executable, str(ENGINE), str(port), str(it.home)])
    it.order = partial(Order, poll_s=0.05, pause_s=0.05, stall_s=1.5, start_s=20.0, most=2)
    monkeypatch.setattr(service, "Order", lambda *a, **k: it.order(*a, **k))
    yield it
    down(it.settings(), quiet)
    assert eventually(lambda: not it.processes(), 5), "processes were left behind"


def test_up_twice_is_one_service_and_down_twice_is_none(world):
    first = up(world.settings(), quiet)
    assert up(world.settings(), quiet) == first == running(world.settings()) and world.starts() == 1
    assert ask(first.url, "hello") == "hello"
    told = status(world.settings(), 0.1)
    assert told["status"] == "ready" and told["memory"] > 1e6
    assert told["restarts"] == told["lost"] == told["running"] == 0
    engine, worker = world.processes()
    assert os.getsid(engine) == os.getsid(worker) == first.pid != os.getsid(0)  # its own session: no terminal ends it
    assert down(world.settings(), quiet) and world.gone(first.pid)
    assert world.processes() == [] and not down(world.settings(), quiet) and running(world.settings()) is None


def test_two_commands_at_once_start_one_service(world):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: up(world.settings(), quiet), range(4)))
    assert len(set(found)) == 1 and world.starts() == 1


def test_a_crash_fails_what_was_in_flight_and_the_service_comes_back(world):
    before = up(world.settings(), quiet)
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(ask, before.url, "slow") for _ in range(2)]
        time.sleep(0.5)
        fatal = pool.submit(ask, before.url, "die")
        assert all(isinstance(f.exception(), httpx.TransportError) for f in (*slow, fatal)), "a silent loss"
    assert eventually(lambda: status(world.settings(), 0)["status"] == "ready" and world.starts() == 2)
    told = status(world.settings(), 0)
    assert told["restarts"] == 1 and told["lost"] == 3 and "code -9; 3 request(s)" in told["why"]
    assert running(world.settings()) == before and ask(before.url, "again") == "again"
    assert len(world.processes()) == 2  # the worker of the dead engine is gone too


def test_an_engine_that_keeps_crashing_is_given_up_aloud(world):
    it = up(world.settings(), quiet)
    for expected in (2, 3):
        pytest.raises(httpx.TransportError, ask, it.url, "die")
        assert eventually(lambda n=expected: world.starts() == n and status(world.settings(), 0)["status"] == "ready")
    pytest.raises(httpx.TransportError, ask, it.url, "die")
    assert eventually(lambda: status(world.settings(), 0)["status"] == "failed")
    told = status(world.settings(), 0)
    assert "3 crashes within 600 s are too many" in told["why"] and world.starts() == 3
    assert running(world.settings()) is None and eventually(lambda: world.gone(it.pid))
    assert up(world.settings(), quiet).pid != it.pid  # and may be started anew


@pytest.mark.parametrize("word, why", [
    ("exits", "ended with code 3 before it answered. It said: ValueError: no such model"),
    ("mute", "not ready after 2 s: it answers with status 503")])
def test_an_engine_that_never_gets_ready_is_started_once(world, word, why):
    world.plan(word)
    world.order = partial(world.order, start_s=2.0)
    with pytest.raises(ServiceError) as e:
        up(world.settings(), quiet)
    assert why in str(e.value) and "service.log" in str(e.value) and world.starts() == 1 and world.processes() == []


def test_an_engine_that_hangs_is_restarted(world):
    world.plan("hangs", "good")
    it = up(world.settings(), quiet)
    pytest.raises(httpx.TransportError, ask, it.url, "forever")
    assert eventually(lambda: status(world.settings(), 0)["status"] == "ready" and world.starts() == 2)
    assert "produced no token for 2 s; 1 request(s)" in status(world.settings(), 0)["why"]


def test_a_busy_engine_is_not_taken_for_a_hanging_one(world):
    world.order = partial(world.order, stall_s=1.0)
    it, end = up(world.settings(), quiet), time.monotonic() + 3
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, it.url, "slow")]   # takes longer than stall_s, while others are answered
        while time.monotonic() < end:
            ask(it.url, "quick")
            time.sleep(0.1)
        assert waiting[0].result() == "slow"
    assert world.starts() == 1


def test_a_killed_supervisor_takes_the_engine_with_it(world):
    it = up(world.settings(), quiet)
    os.kill(it.pid, signal.SIGKILL)
    assert eventually(lambda: running(world.settings()) is None)
    assert eventually(lambda: len(world.processes()) <= 1), "the engine outlived its supervisor"
    assert status(world.settings(), 0) == {"status": "failed", "why": "its supervisor was killed"}
    again = up(world.settings(), quiet)  # ends the orphaned worker, too
    assert again.pid != it.pid and len(world.processes()) == 2


def test_a_recycled_process_number_is_never_signalled(world):
    it = up(world.settings(), quiet)
    state = world.home / "service.json"
    told = json.loads(state.read_text())
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        state.write_text(json.dumps(told | {"pid": bystander.pid}))
        assert running(world.settings()) is None and not down(world.settings(), quiet)
        assert bystander.poll() is None and alive(it.pid, told["pid_started"])
    finally:
        bystander.kill()
        bystander.wait()
        state.write_text(json.dumps(told))


def test_interrupted_while_it_waits_it_ends_what_it_began(world, monkeypatch):
    world.plan("mute")

    def impatient(*_):
        assert eventually(lambda: world.processes())
        raise KeyboardInterrupt

    monkeypatch.setattr(service, "_await", impatient)
    with pytest.raises(KeyboardInterrupt):
        up(world.settings(), quiet)
    assert world.processes() == []


def test_served_ends_only_what_it_started(world):
    with served(world.settings(), quiet) as it:
        assert ask(it.url, "a") == "a"
    assert running(world.settings()) is None
    before = up(world.settings(), quiet)
    with served(world.settings(), quiet) as it:
        assert it == before
    assert running(world.settings()) == before


def test_the_wrong_port_or_model_is_named(world):
    with Endpoint() as other:
        taken = int(other.url.split(":")[2].split("/")[0])
        with pytest.raises(ServiceError, match=rf"Port {taken} .* taken .*llm\.port"):
            up(world.settings(**{"llm.port": taken}), quiet)
    with pytest.raises(ServiceError, match="between 1024 and 65535"):
        up(world.settings(**{"llm.port": 80}), quiet)
    up(world.settings(), quiet)
    with pytest.raises(ServiceError, match="running with the model smollm2.*larger.*llm down"):
        up(world.settings(**{"llm.model": "larger"}), quiet)


def test_an_endpoint_elsewhere_is_asked_and_left_alone(world, tmp_path):
    key = tmp_path / "key"
    key.write_text("esa-secret\n")
    with Endpoint() as other:
        there = world.settings(**{"llm.endpoint": f"{other.url}/", "llm.key": str(key)})
        it = up(there, quiet)
        assert it.url == other.url and it.pid is None and other.url in str(it.identity())
        assert other.headers[0]["Authorization"] == "Bearer esa-secret" and other.seen[0]["max_tokens"] == 1
        assert status(there)["status"] == "elsewhere" and not down(there, quiet) and running(there) == it
        other.fault = 401
        assert running(there) is None and status(there)["answers"] is False
        for fault, why in ((401, "status 401"), ("wrong json", "not that of an OpenAI"), ("empty", "not that of")):
            other.fault = fault
            with pytest.raises(ServiceError, match=why) as e:
                up(there, quiet)
            assert "settings.ini" in str(e.value) and "esa-secret" not in str(e.value)
    with pytest.raises(ServiceError, match="no connection"):
        up(there, quiet)
    with pytest.raises(ServiceError, match="llm.key"):
        up(world.settings(**{"llm.endpoint": other.url, "llm.key": str(tmp_path / "none")}), quiet)
    assert not (world.home / "starts").exists()


def test_a_torn_state_is_no_service(world):
    for text in ("", "{", "[]", '{"schema": "esa-notebooks/llm-service/1"}', "null"):
        (world.home / "service.json").write_text(text)
        assert running(world.settings()) is None
    assert up(world.settings(), quiet).pid


def test_a_stop_while_it_starts(world):
    """`down` from another terminal waits for `up` and then ends the service."""
    starting = threading.Thread(target=up, args=(world.settings(), quiet))
    starting.start()
    assert eventually(lambda: (world.home / "service.json").exists())
    assert down(world.settings(), quiet)
    starting.join()
    assert running(world.settings()) is None


def test_the_commands(world, monkeypatch):
    (world.root / "settings.ini").write_text(f"[llm]\nport = {world.values['llm.port']}\n")
    (world.root / "pyproject.toml").touch()
    monkeypatch.setenv("ESA_PROJECT_ROOT", str(world.root))
    run = partial(CliRunner().invoke, llm_app)
    assert run(["status"]).exit_code == 1 and "llm up" in run(["status"]).output
    world.plan("exits")
    failed = run(["up"])
    assert isinstance(failed.exception, Exit) and failed.exception.code == 1 and "code 3" in str(failed.exception)
    assert "The service failed" in run(["status"]).output
    world.plan("good")
    assert f"http://127.0.0.1:{world.values['llm.port']}/v1" in run(["up"]).output
    told = run(["status", "--json"])
    assert told.exit_code == 0 and json.loads(told.output)["status"] == "ready"
    assert "ended" in run(["down"]).output and "No service" in run(["down"]).output
