"""What leaves, and what arrives, when endpoints misbehave: every combination, through the door and through the front.

    python benchmarks/llm/faults.py             # 624 cases; writes benchmarks/llm/faults.json
    python benchmarks/llm/faults.py --quick     # 60 of them, on the screen only

Two real HTTP servers on loopback stand for the service on the premises and for a provider in the cloud
(tests/llm/endpoints.py); the policy is that of tests/llm/gateway_world.py. A case is a data class, a purpose, a fault
of the first server, whether the second works, whether a stream is wanted, and the way in. Each case has a prompt of its
own, so what an endpoint saw is known from the endpoint itself and not from the gateway's word.

What ought to happen is written down here a second time (`expected`), without the gateway's code:

- a restricted prompt is never seen by the cloud, and no prompt whose class and purpose may not leave;
- a prompt is delivered wherever a permitted endpoint lives, but for two kinds of case that stand by rule: the endpoint
  on the premises judged the request itself (400), or text had been passed on before a stream broke;
- the audit log says of each case exactly what the two endpoints saw, and how it ended.
"""

import argparse
import itertools
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import httpx

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))
from esa_notebooks.llm.audit import check, fingerprint  # noqa: E402
from esa_notebooks.llm.course import NotDelivered  # noqa: E402
from esa_notebooks.llm.door import chat  # noqa: E402
from esa_notebooks.llm.front import application, serving  # noqa: E402
from tests.llm.endpoints import Endpoint  # noqa: E402
from tests.llm.gateway_world import CLASSES, CLOUD, KEY, KEY_ENV, PURPOSES, audited, gateway_of  # noqa: E402

SEED = 7
WITHIN_S = 1.0
FAULTS = (
    None,
    400,
    429,
    500,
    "hang",
    "refused",
    "cut",
    "cut early",
    "wrong json",
    "wrong type",
    "redirect",
    "slow headers",
    "empty",
)
UNSEEN = {"connection", "no key", "not running"}  # outcomes of attempts in which no byte of the prompt arrived


@dataclass(frozen=True)
class Case:
    number: int
    data_class: str
    purpose: str
    fault: object
    cloud_lives: bool
    stream: bool
    way: str

    @property
    def text(self) -> str:
        marked = "ESA RESTRICTED " if self.data_class == "restricted" else ""
        return f"{marked}case {self.number} {{0}} {{user}} %s of {self.data_class} data"

    @property
    def messages(self) -> list[dict]:
        return [{"role": "user", "content": self.text}]


def cases(sample: int | None = None, seed: int = SEED) -> list[Case]:
    """All combinations in an order of chance; or `sample` of them, with every fault among them equally often."""
    every = itertools.product(CLASSES, PURPOSES, FAULTS, (True, False), (True, False), ("door", "front"))
    made = [Case(i, *parts) for i, parts in enumerate(every)]
    random.Random(seed).shuffle(made)
    if sample is None:
        return made
    by_fault = [[c for c in made if c.fault == fault] for fault in FAULTS]
    return [c for c in itertools.chain(*itertools.zip_longest(*by_fault)) if c][:sample]


def expected(case: Case) -> tuple[str, tuple[str, ...]]:
    """How the case ends (answered, failed or cut), and the endpoints that see its prompt, in order."""
    local = () if case.fault == "refused" else ("local",)
    if case.fault is None:
        return "answered", local
    if case.fault == 400:
        return "failed", local
    if case.fault == "cut" and case.stream:
        return "cut", local
    if (case.data_class, case.purpose) not in CLOUD:
        return "failed", local
    return "answered" if case.cloud_lives else "failed", (*local, "cloud")


def through_the_door(case: Case, gateway) -> tuple[str, str]:
    model = chat(
        gateway, team="robotics", data_class=case.data_class, purpose=case.purpose, model="small", max_tokens=64
    )
    text = ""
    try:
        if not case.stream:
            return "answered", model.invoke(case.text).content
        for chunk in model.stream(case.text):
            text += chunk.content
        return "answered", text
    except NotDelivered as error:
        return "cut" if error.cut else "failed", text


def through_the_front(case: Case, client: httpx.Client, key: str) -> tuple[str, str]:
    headers = {"Authorization": f"Bearer {key}", "X-Data-Class": case.data_class, "X-Purpose": case.purpose}
    body = {"model": "small", "messages": case.messages, "max_tokens": 64, "stream": case.stream}
    told = client.post("/v1/chat/completions", headers=headers, json=body)
    if told.status_code != 200:
        return "failed", ""
    if not case.stream:
        return "answered", told.json()["choices"][0]["message"]["content"]
    lines = [line[6:] for line in told.text.split("\n") if line.startswith("data: ")]
    parts = [json.loads(line) for line in lines if line != "[DONE]"]
    text = "".join(c["delta"].get("content") or "" for p in parts if "error" not in p for c in p["choices"])
    return ("answered" if lines[-1] == "[DONE]" else "cut" if "error" in parts[-1] else "lost"), text


def echo(where: str):
    return lambda body: f"{where} answers: {body['messages'][-1]['content']}"


def group(chosen: list[Case], folder: Path) -> list[dict]:
    """The cases of one fault and one state of the cloud, eight at a time, over one pair of endpoints; a row each."""
    fault, lives = chosen[0].fault, chosen[0].cloud_lives
    with ExitStack() as stack:
        cloud = stack.enter_context(Endpoint(echo("cloud"), fault=None if lives else 500))
        local = stack.enter_context(Endpoint(echo("local"), fault=fault, elsewhere=cloud.url))
        gateway = gateway_of(folder, local, cloud, within_s=WITHIN_S if fault in ("hang", "slow headers") else 20)
        key = gateway.keys.issue("robotics", date(9999, 12, 31))
        url = stack.enter_context(serving(application(gateway)))
        client = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=60))

        def done(case: Case) -> tuple[str, str]:
            return through_the_door(case, gateway) if case.way == "door" else through_the_front(case, client, key)

        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(done, chosen))
    entries = audited(folder)
    assert check(folder / "audit.jsonl") == []
    return [row(case, *outcome, local, cloud, entries) for case, outcome in zip(chosen, told, strict=True)]


def row(case: Case, outcome: str, text: str, local: Endpoint, cloud: Endpoint, entries: list[dict]) -> dict:
    """What was expected of a case, what the client got, what the endpoints saw, and what the log says."""
    saw = [
        name
        for name, it in (("local", local), ("cloud", cloud))
        for b in it.seen
        if b["messages"][-1]["content"] == case.text
    ]
    sha, _ = fingerprint(case.messages)
    admitted = [e["request"] for e in entries if e["event"] == "admitted" and e["prompt_sha256"] == sha]
    ended = [e for e in entries if e["event"] != "admitted" and e["request"] in admitted]
    logged = [a["endpoint"] for e in ended for a in e["attempts"] if a["outcome"] not in UNSEEN]
    ends, sees = expected(case)
    whole = f"{saw[-1] if saw else ''} answers: {case.text}"
    right_text = text == whole if outcome == "answered" else whole.startswith(text) and (outcome != "cut" or text != "")
    return {
        "case": case,
        "outcome": outcome,
        "saw": saw,
        "as expected": (outcome, tuple(saw)) == (ends, sees) and right_text,
        "log agrees": len(admitted) == len(ended) == 1 and ended[0]["event"] == outcome and logged == saw,
        "left": "cloud" in saw,
        "may leave": (case.data_class, case.purpose) in CLOUD,
    }


def campaign(chosen: list[Case], folder: Path) -> list[dict]:
    """A row for each case. The groups run one after the other, the cases of a group eight at a time."""
    groups: dict[tuple, list[Case]] = {}
    for case in chosen:
        groups.setdefault((str(case.fault), case.cloud_lives), []).append(case)
    before = os.environ.get(KEY_ENV)
    os.environ[KEY_ENV] = KEY
    try:
        return [r for i, those in enumerate(groups.values()) for r in group(those, folder / str(i))]
    finally:
        os.environ.pop(KEY_ENV) if before is None else os.environ.update({KEY_ENV: before})


def summary(rows: list[dict]) -> dict:
    """The counts that the promise is about."""
    ends = {id(r): expected(r["case"])[0] for r in rows}
    deliverable = [r for r in rows if ends[id(r)] == "answered"]
    restricted = [r for r in rows if r["case"].data_class == "restricted"]
    kept = [r for r in rows if not r["may leave"]]
    stands = [r for r in rows if r["may leave"] and r["case"].cloud_lives and ends[id(r)] != "answered"]
    return {
        "cases": len(rows),
        "restricted_prompts": len(restricted),
        "restricted_prompts_seen_by_the_cloud": sum(r["left"] for r in restricted),
        "prompts_that_may_not_leave": len(kept),
        "of_these_seen_by_the_cloud": sum(r["left"] for r in kept),
        "deliverable": len(deliverable),
        "delivered": sum(r["outcome"] == "answered" and r["as expected"] for r in deliverable),
        "stand_by_rule": dict(Counter(str(r["case"].fault) for r in stands)),
        "as_expected": sum(r["as expected"] for r in rows),
        "audit_log_agrees": sum(r["log agrees"] for r in rows),
        "by_fault": {
            str(fault): dict(sorted(Counter(r["outcome"] for r in rows if r["case"].fault == fault).items()))
            for fault in FAULTS
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 cases, on the screen only")
    quick = parser.parse_args().quick
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = campaign(cases(60 if quick else None), Path(folder))
    told = {"command": "python benchmarks/llm/faults.py", "seed": SEED, **summary(rows)}
    told |= {
        "seconds": round(time.perf_counter() - began, 1),
        "python": platform.python_version(),
        "httpx": version("httpx"),
    }
    print(json.dumps(told, indent=1))
    for r in rows:
        if not r["as expected"] or not r["log agrees"]:
            print("not as expected:", r)
    if not quick:
        (HERE.parent / "faults.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
