"""The real vLLM with the embedded model: what it answers, whom it talks to, and what happens when its engine dies."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from esa_notebooks.llm import environment, model, service
from esa_notebooks.llm.supervisor import completes

TOKENS = 24
PROMPTS = [
    "What is the capital of France?",
    "Name the planets of the solar system.",
    "Écris « bonjour » en anglais.",
    "Count from one to ten.",
    "Summarise: the battery voltage of the spacecraft fell to 27.1 V during eclipse, then recovered.",
    'Return JSON with the keys "a" and "b".',
    "Why is the sky blue?",
    "x " * 300 + "What was repeated?",
]
pytestmark = pytest.mark.timeout(600)


def ask(vllm, prompt: str, tokens: int = TOKENS) -> dict:
    body = {"model": vllm.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens,
            "temperature": 0, "return_token_ids": True}
    reply = httpx.post(f"{vllm.url}/chat/completions", json=body, timeout=300, trust_env=False)
    reply.raise_for_status()
    choice = reply.json()["choices"][0]
    return {"ids": choice["token_ids"], "text": choice["message"]["content"]}


def ours(vllm) -> psutil.Process:
    """Its supervisor; the tests of processes are skipped for an endpoint elsewhere."""
    if vllm.pid is None:
        pytest.skip("vllm: llm.endpoint is set, and its processes are not ours")
    return psutil.Process(vllm.pid)


@pytest.fixture(scope="module")
def one_by_one(vllm) -> list[dict]:
    return [ask(vllm, p) for p in PROMPTS]


def test_sixteen_at_once_are_answered_as_one_by_one(vllm, one_by_one):
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda p: ask(vllm, p), PROMPTS * 2))
    assert together == one_by_one * 2
    assert len({a["text"] for a in one_by_one}) == len(PROMPTS)  # and not all the same


def test_transformers_gives_the_same_tokens(vllm, vllm_settings, one_by_one):
    ours(vllm)
    python = environment.whole(vllm_settings.root, vllm.build).python
    folder = model.embedded(vllm_settings).folder
    done = subprocess.run([python, "-I", Path(__file__).with_name("reference.py"), folder, str(TOKENS)], text=True,
                          input=json.dumps(PROMPTS), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    reference = json.loads(done.stdout)
    assert [a["ids"] for a in reference] == [a["ids"] for a in one_by_one]
    assert [a["text"] for a in reference] == [a["text"] for a in one_by_one]


def test_it_opens_no_socket_but_on_loopback(vllm):
    family = [ours(vllm), *ours(vllm).children(recursive=True)]
    assert len(family) >= 3  # the supervisor, the server, the engine
    sockets = [(p.pid, c.laddr, c.raddr) for p in family for c in p.net_connections("inet")]
    assert any(a.port == int(vllm.url.split(":")[2].split("/")[0]) for _, a, _ in sockets)
    here = ("127.0.0.1", "::1")
    assert [s for s in sockets if s[1].ip not in here or (s[2] and s[2].ip not in here)] == []


def test_it_says_what_it_is(vllm, vllm_settings):
    ours(vllm)
    told = service.status(vllm_settings, 0.1)
    assert told["status"] == "ready" and told["memory"] > 1 << 30 and told["digest"] == vllm.digest
    assert vllm.identity() == {"model": model.NAME, "digest": model.embedded(vllm_settings).digest, "build": vllm.build,
                               "version": "0.32.0", "flags": list(service.flags(vllm.build))}
    assert not any(str(n) in json.dumps(vllm.identity()) for n in (vllm.pid, vllm.url, vllm.started))


def test_its_log_repeats_no_prompt(vllm, vllm_settings):
    ours(vllm)
    assert ask(vllm, "a prompt that nobody else would write: quasar-4711", 1)
    log = vllm_settings.path("paths.interim") / "llm" / "service.log"
    assert "vLLM" in log.read_text(errors="replace") and "quasar-4711" not in log.read_text(errors="replace")


def test_an_over_long_or_unknown_request_is_refused_and_the_service_lives(vllm):
    for body, status in (({"model": vllm.model, "messages": [{"role": "user", "content": "x " * 3000}]}, 400),
                         ({"model": "another", "messages": [{"role": "user", "content": "x"}]}, 404),
                         ({"model": vllm.model, "messages": "x"}, 400)):
        assert httpx.post(f"{vllm.url}/chat/completions", json=body, timeout=60, trust_env=False).status_code == status
    assert completes(vllm.url, vllm.model) is None


def test_when_the_engine_is_killed_requests_fail_aloud_and_the_service_comes_back(vllm, vllm_settings, one_by_one):
    restarts = service.status(vllm_settings, 0)["restarts"] if ours(vllm) else 0
    with ThreadPoolExecutor(3) as pool:
        lost = [pool.submit(ask, vllm, f"Write a long story about moon number {n}.", 1500) for n in range(3)]
        for _ in range(300):   # until they are in flight
            time.sleep(0.2)
            if service.status(vllm_settings, 0).get("running") == 3:
                break
        core = [p for p in ours(vllm).children(recursive=True) if p.cmdline()[:1] == ["VLLM::EngineCore"]]
        core[0].kill()
        assert all(isinstance(f.exception(60), httpx.HTTPError) for f in lost), "a lost request looked like an answer"
    until = time.monotonic() + 400
    told = {}
    while not (told.get("status") == "ready" and told["restarts"] == restarts + 1) and time.monotonic() < until:
        time.sleep(0.5)
        told = service.status(vllm_settings, 0)
    assert (told["status"], told["restarts"], told["lost"]) == ("ready", restarts + 1, 3), told
    assert service.running(vllm_settings) == vllm
    assert [ask(vllm, p) for p in PROMPTS[:2]] == one_by_one[:2]
