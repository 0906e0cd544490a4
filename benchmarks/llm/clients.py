"""Sixty-four clients for two minutes against the front: is every answer there, is it the right one, is memory flat.

    python benchmarks/llm/clients.py                          # 64 clients, some 6 minutes; writes clients.json
    python benchmarks/llm/clients.py --warm 100 --seconds 20  # shorter, on the screen only
    python benchmarks/llm/clients.py --service URL --model M  # over a real service, whose answers differ; screen only

The front runs in a process of its own, as `esa-notebooks llm front` runs it: keys, policy, quota and audit log on the
disk, one entry before and one after each request. Behind it, in this process, a scripted endpoint answers at once with
the text it was given. Each request carries a word that occurs once in the whole run, and the answer must be that word;
every second request is a stream. A request without an answer is *lost*, one with another's word *swapped*.

Memory is the resident set of the front, read twice a second for the two minutes, with the number of requests answered
by then. Before that, the same clients run until WARM requests are answered, and for MINUTE_S at least: the quota looks
back over a minute and has more to read until one has passed, and the allocator of C (glibc) keeps what each of its
arenas, one for each thread of the front, needed at the most. Growth is the increase over the requests, in bytes a
request, with a 95 % interval: blocks of 10 s are the clusters of `stats.clustered`, for successive readings depend on
one another. "Flat" means that the upper end of the interval lies below 85 bytes, the size of one request's id as a
Python text: so a server that kept no more than the ids would fail. Less than that would pass, and an interval too wide
to exclude it fails.

The rule was written before the first run, whose warm-up was of 6,000 requests: 59.6 bytes a request, -15.6 to 134.8,
not flat. A run on its own showed the resident set still reach new heights until then, when many requests were in flight
at once, and add 12 KiB over the next 4,000 requests. So the warm-up became longer; the rule stayed.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
import psutil

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))
CLIENTS, SECONDS, WARM, MINUTE_S, PERIOD_S, BLOCK_S = 64, 120, 10_000, 60, 0.5, 10
ONE_ID = sys.getsizeof("req-" + "0" * 32)  # bytes
FRONT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from esa_notebooks.llm.front import application, bound, server
from esa_notebooks.llm.gateway import Gateway
from esa_notebooks.llm.policy import read_policy
folder = Path({folder!r})
gateway = Gateway(read_policy(folder / "policy.yaml"), folder, service_url={service!r})
listener = bound(0)
print(listener.getsockname()[1], flush=True)
server(application(gateway)).run(sockets=[listener])
"""
POLICY = """
schema: esa-notebooks/llm-policy/1
classes: {{internal: not published, restricted: marked}}
purposes: {{evaluation: measuring a model}}
premises: []
endpoints: {{local: {{where: on-premises, url: service, models: {{small: {model}}}, timeout_s: 300, max_tokens: 64}}}}
allow: {{internal: {{local: [evaluation]}}, restricted: {{local: [evaluation]}}}}
teams: {{load: {{classes: [internal], purposes: [evaluation],
                quotas: {{tokens_per_day: 1000000000, requests_per_minute: 1000000}}}}}}
content: {{max_bytes: 65536, markings: {{restricted: [ESA RESTRICTED]}}, personal_data: {{}}}}
audit: {{prompts: false}}
"""


async def client(number: int, http: httpx.AsyncClient, over: asyncio.Event, told: list) -> None:
    """One client: it asks and waits until the time is over. A row each: word, text, seconds, request id, error."""
    count = 0
    while not over.is_set():
        word, stream, began = f"word-{number:02}-{count:06}", count % 2 == 1, time.perf_counter()
        body = {"model": "small", "messages": [{"role": "user", "content": word}], "max_tokens": 16, "stream": stream}
        text, request, wrong = "", None, None
        try:
            answer = await http.post("/v1/chat/completions", json=body)
            request = answer.headers.get("x-request-id")
            if answer.status_code != 200:
                wrong = f"{answer.status_code} {answer.text[:200]}"
            elif stream:
                lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
                parts = [json.loads(line) for line in lines if line != "[DONE]"]
                text = "".join(c["delta"].get("content") or "" for p in parts for c in p.get("choices", ()))
                wrong = None if lines[-1] == "[DONE]" else "no end"
            else:
                text = answer.json()["choices"][0]["message"]["content"]
        except httpx.HTTPError as error:
            wrong = f"{type(error).__name__}: {error}"
        told.append((word, text, time.perf_counter() - began, request, wrong))
        count += 1


async def drive(url: str, key: str, front: psutil.Process, clients: int, seconds: float, warm: int) -> tuple:
    """All clients at once; their rows, and the readings of memory: seconds, requests answered so far, bytes."""
    told, memory, over = [], [], asyncio.Event()
    headers = {"Authorization": f"Bearer {key}", "X-Data-Class": "internal", "X-Purpose": "evaluation"}
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=300, limits=limits) as http:
        asking = [asyncio.create_task(client(n, http, over, told)) for n in range(clients)]
        began = time.monotonic()
        while len(told) < warm or time.monotonic() < began + MINUTE_S:
            await asyncio.sleep(PERIOD_S)
        began = time.monotonic()
        while (at := time.monotonic() - began) < seconds + PERIOD_S:
            memory.append((at, len(told), front.memory_info().rss))
            await asyncio.sleep(PERIOD_S)
        over.set()
        await asyncio.gather(*asking)
    return told, memory


def growth(memory: list) -> dict:
    """What the resident set grew by, in bytes a request."""
    from esa_notebooks.stats import clustered

    at, requests, rss = np.array(memory).T
    found = clustered(np.diff(rss), at[:-1] // BLOCK_S, of=np.diff(requests))
    low, high = found.interval or (found.value, found.value)  # None: it grew by the same in every block
    return {
        "warm_up_requests": int(requests[0]),
        "requests": int(requests[-1] - requests[0]),
        "seconds": round(float(at[-1]), 1),
        "first_mib": round(float(rss[0]) / 2**20, 2),
        "last_mib": round(float(rss[-1]) / 2**20, 2),
        "highest_mib": round(float(rss.max()) / 2**20, 2),
        "bytes_a_request": round(found.value, 1),
        "interval_95": [round(float(low), 1), round(float(high), 1)],
        "blocks": found.clusters,
        "flat_below": ONE_ID,
        "flat": bool(high < ONE_ID),
    }


def measure(service: str, model: str, clients: int, seconds: float, warm: int, folder: Path) -> tuple[list, list, list]:
    """The rows of the clients, the readings of memory, and the entries of the audit log."""
    from esa_notebooks.llm.audit import check
    from esa_notebooks.llm.keys import Keys

    (folder / "policy.yaml").write_text(POLICY.format(model=model))
    key = Keys(folder).issue("load", date(9999, 12, 31))
    program = FRONT.format(root=str(HERE.parents[2]), folder=str(folder), service=service)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                httpx.get(f"{url}/health", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        told, memory = asyncio.run(drive(url, key, psutil.Process(process.pid), clients, seconds, warm))
    finally:
        process.terminate()
        process.wait(60)
    assert check(folder / "audit.jsonl") == []
    return told, memory, [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def summary(told: list, memory: list, entries: list, scripted: bool) -> dict:
    """The counts that the promise is about."""
    taken = np.array([row[2] for row in told])
    answered = [e["request"] for e in entries if e["event"] == "answered"]
    grown = growth(memory)
    return {
        "requests": len(told),
        "lost": sum(row[4] is not None for row in told),
        "swapped": sum(row[4] is None and row[0] != row[1] for row in told) if scripted else None,
        "ids_given_twice": len(told) - len({row[3] for row in told}),
        "answered_in_the_audit_log": len(answered),
        "log_and_clients_agree": sorted(answered) == sorted(row[3] for row in told if row[4] is None),
        "requests_per_s": round(grown["requests"] / grown["seconds"], 1),
        "seconds_p50_p95_max": [round(float(v), 3) for v in (*np.quantile(taken, [0.5, 0.95]), taken.max())],
        "memory": grown,
        "errors": sorted({row[4] for row in told if row[4]})[:5],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--warm", type=int, default=WARM, help="requests before memory is watched")
    parser.add_argument("--service", help="the address of a real service, ending in /v1")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the model's name at that service")
    given = parser.parse_args()
    from tests.llm.endpoints import Endpoint

    with tempfile.TemporaryDirectory() as folder, Endpoint(lambda body: body["messages"][-1]["content"]) as it:
        service, model = (given.service, given.model) if given.service else (it.url, "echo")
        rows = measure(service, model, given.clients, given.seconds, given.warm, Path(folder))
    told = {
        "command": " ".join(["python benchmarks/llm/clients.py", *sys.argv[1:]]),
        "clients": given.clients,
        "seconds": given.seconds,
    }
    told |= summary(*rows, given.service is None)
    told |= {
        "load_average": [round(v, 1) for v in os.getloadavg()],
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }
    told |= {"uvicorn": version("uvicorn"), "httpx": version("httpx")}
    print(json.dumps(told, indent=1))
    if (given.clients, given.seconds, given.warm, given.service) == (CLIENTS, SECONDS, WARM, None):
        (HERE.parent / "clients.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
