"""How full an evaluation keeps the engine, beside a bare concurrent client; and how long a repeat from the cache takes.

    .venv/bin/python benchmarks/llm/evaluation.py [--url http://127.0.0.1:8001/v1] [--rounds 5] [--requests 48]

In each round both ask as many prompts of equal length, one after the other, in alternating order. No prompt is asked
twice, so neither profits from the engine's prefix cache. The evaluation goes all the way: cache, door, policy, quota,
audit log. Writes evaluation.json beside itself.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from esa_notebooks.llm.door import chat
from esa_notebooks.llm.evaluation.cache import Cache
from esa_notebooks.llm.evaluation.campaign import evaluate
from esa_notebooks.llm.evaluation.systems import language_model
from esa_notebooks.llm.gateway import Gateway
from esa_notebooks.llm.policy import read_policy
from esa_notebooks.llm.tasks.files import Item, Task
from esa_notebooks.llm.tasks.prompts import messages

HERE, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[2]
MODEL, TOKENS = "smollm2-135m-instruct", 16
WORDS = ("thermal", "power", "attitude", "payload", "orbit", "telemetry", "antenna", "thruster")


def fresh(first: int, n: int) -> Task:
    """`n` items nobody was asked before: the number stands at the beginning, so that no prompt shares a prefix."""
    head = {
        "schema": "esa-notebooks/task/1",
        "name": "load",
        "version": "1",
        "kind": "classification",
        "title": "Load",
        "labels": list(WORDS),
        "instructions": "Name the subsystem.",
        "licence": "CC0-1.0",
        "source": "made up",
        "canary": "",
        "made_by": "benchmark",
    }
    items = tuple(
        Item(
            id=f"{i:06}",
            group=f"{i:06}",
            options=None,
            gold=WORDS[i % 8],
            split="test",
            input={"text": f"Report {i:06}. The {WORDS[i % 8]} subsystem was checked by team {i:06}, nominal."},
        )
        for i in range(first, first + n)
    )
    return Task(head=head, items=items, digest="0" * 64)


async def bare(url: str, task: Task, concurrency: int) -> tuple[int, float]:
    """Tokens and seconds of a client that does nothing but ask."""
    gate, tokens = asyncio.Semaphore(concurrency), 0
    async with httpx.AsyncClient(
        timeout=300, trust_env=False, limits=httpx.Limits(max_connections=concurrency)
    ) as client:

        async def ask(item: Item) -> int:
            body = {"model": MODEL, "messages": messages(task, item), "max_tokens": TOKENS, "temperature": 0, "seed": 0}
            async with gate:
                answer = await client.post(f"{url}/chat/completions", json=body)
            return answer.raise_for_status().json()["usage"]["completion_tokens"]

        began = time.perf_counter()
        tokens = sum(await asyncio.gather(*map(ask, task.items)))
        return tokens, time.perf_counter() - began


def evaluated(model, task: Task, cache: Cache, concurrency: int) -> tuple[int, float]:
    began = time.perf_counter()
    frame = evaluate(task, model, cache, concurrency=concurrency, say=lambda line: None)
    seconds = time.perf_counter() - began
    assert (frame["status"] == "ok").all() and not frame["cached"].any(), frame["error"].max()
    return int(frame["completion_tokens"].sum()), seconds


def side_by_side(url: str, rounds: int, requests: int, concurrency: int, folder: Path) -> dict:
    gateway = Gateway(read_policy(ROOT / "governance" / "policy.yaml"), folder, service_url=url)
    asked = {"team": "data-ai-unit", "data_class": "public", "purpose": "evaluation", "model": MODEL}
    model = language_model("load", chat(gateway, max_tokens=TOKENS, **asked), {"benchmark": 1})
    rows, number = [], int(time.time()) % 900 * 1000  # other prompts than those of an earlier run
    with Cache(folder / "cache.sqlite") as cache:
        asyncio.run(bare(url, fresh(number := number + 100, 4), 4))  # both once, before anything is timed
        evaluated(model, fresh(number := number + 100, 4), cache, 4)
        for r in range(rounds):
            told = {}
            for who in ("bare", "evaluation") if r % 2 == 0 else ("evaluation", "bare"):
                task, before = fresh(number := number + requests, requests), time.process_time()
                if who == "bare":
                    tokens, seconds = asyncio.run(bare(url, task, concurrency))
                else:
                    tokens, seconds = evaluated(model, task, cache, concurrency)
                own = 1000 * (time.process_time() - before) / requests
                told[who] = {
                    "tokens": tokens,
                    "seconds": round(seconds, 2),
                    "tokens_per_s": round(tokens / seconds, 2),
                    "client_ms_per_request": round(own, 1),
                }
            rows.append(told | {"ratio": round(told["evaluation"]["tokens_per_s"] / told["bare"]["tokens_per_s"], 3)})
            print(rows[-1], flush=True)
    ratios = [row["ratio"] for row in rows]
    whole = {
        who: sum(r[who]["tokens"] for r in rows) / sum(r[who]["seconds"] for r in rows)
        for who in ("bare", "evaluation")
    }
    return {
        "rounds": rows,
        "ratio": {
            "of_all_rounds": round(whole["evaluation"] / whole["bare"], 3),
            "median": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
        },
        "target": 0.9,
    }


def repeated(folder: Path, n: int = 1000) -> dict:
    """Seconds for `n` items that are all in the cache."""
    from langchain_core.runnables import RunnableLambda

    from esa_notebooks.llm.evaluation.systems import System

    calls = []
    model = System("kept", "llm", RunnableLambda(lambda given: calls.append(1) or "power"), {"v": 1})
    with Cache(folder / "kept.sqlite") as cache:
        task, seconds = fresh(0, n), []
        for _ in range(4):
            began = time.perf_counter()
            evaluate(task, model, cache, say=lambda line: None)
            seconds.append(round(time.perf_counter() - began, 3))
    assert len(calls) == n
    return {"items": n, "first_s": seconds[0], "repeats_s": seconds[1:], "target_s": 2}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8001/v1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--concurrency", type=int, default=16)
    given = parser.parse_args()
    os.environ["ESA_RUN_ID"] = "benchmark"  # no progress bar
    with tempfile.TemporaryDirectory() as folder:
        found = {"cache": repeated(Path(folder))}
        print(found["cache"], flush=True)
        load = os.getloadavg()[0]
        found |= side_by_side(given.url, given.rounds, given.requests, given.concurrency, Path(folder))
    found |= {
        "command": "benchmarks/llm/evaluation.py",
        "requests": given.requests,
        "concurrency": given.concurrency,
        "max_tokens": TOKENS,
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    (HERE / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["ratio"]))
