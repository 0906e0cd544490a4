"""vLLM against transformers: the same prompts, the same model, the same precision, side by side.

    python benchmarks/llm/engines.py             # writes benchmarks/llm/engines.json
    python benchmarks/llm/engines.py --quick     # one round of a third of the prompts, on the screen only

Both serve the embedded model in float32 on the same processor cores and answer greedily, at most 64 tokens a prompt.
vLLM is asked over HTTP by 16 clients at once, each taking the next prompt when it has its answer. transformers gets
the prompts in padded batches of 16 (`generate`), which is what a notebook without a server would do. Both are loaded
and warmed up first, which is not timed, and the threads of both sleep while they wait; then they take turns, and the
one that begins changes from round to round. Tokens are those of the answers, up to and including the end mark,
without padding. The ratio is taken within a round.

llama.cpp is not beside them: its Python binding has no wheel on PyPI, and building it is not part of this project.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))
ROUNDS, PROMPTS, AT_ONCE, TOKENS = 5, 48, 16, 64
SUBJECTS = ("a star tracker", "solar panels", "the orbit of the Moon", "a reaction wheel", "space debris", "telemetry")
FORMS = (
    "Explain {} to a child in three sentences.",
    "Is {} expensive? Answer yes or no.",
    "Write a list of five facts about {}.",
    "Translate into French: we looked at {} for a long time and found nothing unusual.",
    "Summarise in one sentence: engineers tested {} for two weeks. The first week went well. In the second week a "
    "cable broke, and the test was repeated. The report recommends a stronger cable and a second test in spring.",
    "What is the opposite of {}?",
    "Write a short poem about {}.",
    "Give me one word that goes with {}.",
)
BATCHES = """
import json, os, sys, time
os.environ.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1",
                  TRANSFORMERS_VERBOSITY="error")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, at_once, tokens, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
end = model.config.eos_token_id
for line in sys.stdin:
    prompts, began, written = json.loads(line), time.perf_counter(), 0
    for i in range(0, len(prompts), at_once):
        asked = tokenizer.apply_chat_template([[{"role": "user", "content": p}] for p in prompts[i:i + at_once]],
                                              add_generation_prompt=True, padding=True, return_tensors="pt",
                                              return_dict=True)
        with torch.inference_mode():
            out = model.generate(**asked, do_sample=False, max_new_tokens=tokens, pad_token_id=end)
        for row in out[:, asked["input_ids"].shape[1]:].tolist():
            written += row.index(end) + 1 if end in row else len(row)
    print(json.dumps({"tokens": written, "seconds": time.perf_counter() - began}), flush=True)
"""


def prompts(count: int) -> list[str]:
    """Short and long questions with short and long answers, mixed."""
    return [FORMS[i % len(FORMS)].format(SUBJECTS[i // len(FORMS) % len(SUBJECTS)]) for i in range(count)]


class Vllm:
    """Sixteen clients of a service."""

    def __init__(self, service):
        import httpx

        self.client = httpx.Client(timeout=600, trust_env=False, limits=httpx.Limits(max_connections=AT_ONCE))
        self.service = service

    def one(self, prompt: str) -> int:
        body = {"model": self.service.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS}
        reply = self.client.post(f"{self.service.url}/chat/completions", json=body | {"temperature": 0})
        reply.raise_for_status()
        return reply.json()["usage"]["completion_tokens"]

    def __call__(self, asked: list[str]) -> dict:
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            written = sum(pool.map(self.one, asked))
        return {"tokens": written, "seconds": time.perf_counter() - began}


class Transformers:
    """A process in the other environment that answers a line of prompts with a line of figures."""

    def __init__(self, python: Path, folder: Path):
        threads = str(len(os.sched_getaffinity(0)))
        self.process = subprocess.Popen(
            [python, "-I", "-c", BATCHES, folder, str(AT_ONCE), str(TOKENS), threads],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def __call__(self, asked: list[str]) -> dict:
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def measure(rounds: int, count: int) -> dict:
    """Serve both, warm them up, and let them take turns."""
    from esa_notebooks.llm import environment, model, service
    from esa_notebooks.settings import Settings, load
    from tests.llm.conftest import free_port

    project = load()
    made, weights = environment.make(project), model.embedded(project)
    with tempfile.TemporaryDirectory(prefix="esa-engines-") as interim:
        (Path(interim) / "llm").mkdir()
        (Path(interim) / "llm" / "models").symlink_to(weights.folder.parent)
        changed = {"paths.interim": interim, "llm.port": free_port(), "llm.endpoint": None, "llm.model": model.NAME}
        with service.served(Settings(project.root, project.values | changed, project.origins)) as it:
            engines = {"vllm": Vllm(it), "transformers": Transformers(made.python, weights.folder)}
            try:
                for engine in engines.values():
                    engine(prompts(AT_ONCE))
                taken = []
                for n in range(rounds):
                    load_before = os.getloadavg()[0]
                    order = list(engines) if n % 2 == 0 else list(engines)[::-1]
                    done = {name: engines[name](prompts(count)) for name in order}
                    rate = {name: d["tokens"] / d["seconds"] for name, d in done.items()}
                    taken.append({name: round(r, 1) for name, r in rate.items()} | {
                        "ratio": round(rate["vllm"] / rate["transformers"], 3), "first": order[0],
                        "tokens": {k: d["tokens"] for k, d in done.items()}, "load_before": round(load_before, 1)})
                    print(f"round {n + 1}: {taken[-1]}", flush=True)
            finally:
                engines["transformers"].process.terminate()
                engines["transformers"].process.wait()
            identity = it.identity()
    ratios = [t["ratio"] for t in taken]
    return {
        "service": identity, "transformers": json.loads((weights.folder / "model.json").read_text())["transformers"],
        "prompts": count, "at_once": AT_ONCE, "max_tokens": TOKENS, "rounds": taken,
        "tokens_per_s": {name: median(t[name] for t in taken) for name in ("vllm", "transformers")},
        "ratio": {"median": median(ratios), "least": min(ratios), "most": max(ratios)},
        "llama.cpp": "not measured: its Python binding has no wheel on PyPI",
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true")
    quick = options.parse_args().quick
    found = measure(1, AT_ONCE) if quick else measure(ROUNDS, PROMPTS)
    machine = {"machine": platform.machine(), "cores": len(os.sched_getaffinity(0))}
    found = {"command": "python benchmarks/llm/engines.py", **machine, "python": platform.python_version(),
             "httpx": version("httpx"), **found}
    print(json.dumps(found, indent=1))
    if not quick:
        HERE.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
