"""What the tests of campaigns share: a made-up task, a chat model over a scripted endpoint, a campaign as a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
from langchain_core.runnables import RunnableLambda

from esa_notebooks.llm.evaluation.systems import System, language_model
from esa_notebooks.llm.tasks.files import Item, Task

LABELS = ["odd", "even"]
ENGINE = {"model": "test-model", "digest": "0" * 64, "build": "cpu", "version": "1", "flags": ["--dtype", "float32"]}


def made(n: int = 40, name: str = "parity", text: str = "Is {} {{odd}} or %s even?") -> Task:
    """Numbers that are odd or even, five to a group."""
    items = tuple(
        Item(
            id=f"n{i:05}",
            group=f"g{i // 5:04}",
            input={"question": text.format(i)},
            options=None,
            gold=LABELS[i % 2 == 0],
            split="test",
        )
        for i in range(n)
    )
    head = {
        "schema": "esa-notebooks/task/1",
        "name": name,
        "version": "1",
        "kind": "classification",
        "title": "Parity",
        "labels": LABELS,
        "instructions": "Answer odd or even.",
        "licence": "CC0-1.0",
        "source": "made up",
        "canary": "",
        "made_by": "a test",
        "items": n,
    }
    return Task(head=head, items=items, digest="1" * 64)


def number(body: dict) -> int:
    """The number that a request asks about."""
    words = " ".join(str(m["content"]) for m in body["messages"]).split("Is ")[-1].split()
    return int(words[0])


def honest(body: dict) -> str:
    return LABELS[number(body) % 2 == 0]


def chat(url: str, **more):
    """LangChain's own client, imported only where it is used: it takes seconds."""
    from langchain_openai import ChatOpenAI

    given = {"temperature": 0.0, "seed": 0, "max_tokens": 16, "max_retries": 0, "timeout": 20} | more
    return ChatOpenAI(base_url=url, api_key="none", model="test-model", **given)


def system(url: str, name: str = "tested", **more) -> System:
    return language_model(name, chat(url, **more), ENGINE)


def plain(url: str) -> System:
    """A client of ten lines, for programs that have to start quickly."""
    client = httpx.Client(trust_env=False, timeout=20)

    def ask(messages):
        answer = client.post(f"{url}/chat/completions", json={"model": "test-model", "messages": messages})
        return answer.raise_for_status().json()["choices"][0]["message"]["content"]

    return System("plain", "llm", RunnableLambda(ask), {"engine": ENGINE})


PROGRAM = """
import json, sys
from esa_notebooks.llm.evaluation.cache import Cache
from esa_notebooks.llm.evaluation.campaign import evaluate
from tests.llm.evaluation.campaign_world import made, plain
url, path, n, concurrency = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
task, tested = made(n), plain(url)
print("ready", flush=True)
sys.stdin.readline()
frame = evaluate(task, tested, Cache(path), concurrency=concurrency, say=lambda line: None)
told = {"answered": (frame["status"] == "ok").sum(), "right": frame["correct"].sum(), "cached": frame["cached"].sum()}
print(json.dumps({name: int(n) for name, n in told.items()}))
"""


def program(url: str, cache: Path, n: int, concurrency: int = 8) -> subprocess.Popen:
    """A campaign in a process of its own, that has imported everything and waits for a line."""
    root = Path(__file__).resolve().parents[3]
    path = ":".join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, str(cache), str(n), str(concurrency)],
        cwd=root,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "ESA_RUN_ID": "test", "PYTHONPATH": path},
    )
    return started


def ready(*started: subprocess.Popen) -> None:
    """Wait until all of them have imported what they need."""
    for one in started:
        assert one.stdout.readline().strip() == "ready"


def go(started: subprocess.Popen) -> None:
    started.stdin.write("go\n")
    started.stdin.flush()


def told(started: subprocess.Popen) -> dict:
    return json.loads(started.communicate(timeout=60)[0].strip().splitlines()[-1])
