"""The telemetry generator at scale: time and memory of 10^7 sample instants, in chunks and in one piece, in one run.

    python benchmarks/data/generator.py            # writes benchmarks/data/generator.json, about five minutes
    python benchmarks/data/generator.py --quick    # a hundredth of it, on the screen only

A *sample instant* is one moment at which all channels are read together, one row of the table; a *sample* is one
reading of one channel at one instant. 10^7 sample instants of 12 channels are 1.2 × 10^8 samples.

Three ways, taking turns, five times each, every run in a process of its own:

chunks     10^7 sample instants in chunks of 100,000, each forgotten once it is counted, as by a pipeline;
samples    the smaller reading of the target: 10^7 samples, which is 833,334 instants, in chunks of the same size;
one-piece  10^7 sample instants as a single chunk, and so one DataFrame: what a generator without chunks would do.

Wall and process time are of the generating alone, after the imports; the peak of the resident memory (`getrusage`) is
of the whole process, imports included. That chunks do not change the values is shown and not timed: a digest over the
bits of every value is equal for three sizes of chunk, one of which divides nothing evenly.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

PERIOD_S, CHUNK, REPEATS = 30, 100_000, 5
TARGET_S, TARGET_MB = 60, 500
RESULT = Path(__file__).with_suffix(".json")
SAME = (100_000, 7_919, 1 << 40)   # sizes of chunk for the equality: the usual one, a prime, everything at once


def config(instants: int):
    """The configuration that covers exactly `instants` sample instants."""
    from esa_notebooks.data.telemetry import Config
    made = Config(days=instants * PERIOD_S / 86_400, period_s=PERIOD_S)
    if made.n_samples != instants:   # days is a float, and rounds down
        made = Config(days=(instants + 0.5) * PERIOD_S / 86_400, period_s=PERIOD_S)
    assert made.n_samples == instants
    return made


def measure(instants: int, chunk: int) -> dict:
    """Generate once, in this process."""
    from esa_notebooks.data.telemetry import CHANNELS, generate
    made, received, chunks = config(instants), 0, 0
    wall, process = time.perf_counter(), time.process_time()
    for frame in generate(made, chunk):
        received += len(frame)
        chunks += 1
        del frame
    return {"wall_s": time.perf_counter() - wall, "process_s": time.process_time() - process,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "instants": instants, "samples": instants * len(CHANNELS), "instants_received": received, "chunks": chunks,
            "seed": made.seed}


def digest(instants: int, chunk: int) -> dict:
    """A digest over all values of a generated series, whatever the chunks: one running hash for each column."""
    from esa_notebooks.data.telemetry import generate
    columns: dict = {}
    for frame in generate(config(instants), chunk):
        for name, values in frame.assign(time=frame["time"].astype("int64")).items():
            columns.setdefault(name, hashlib.sha256()).update(values.to_numpy().tobytes())
    return {"digest": hashlib.sha256("".join(f"{n}{h.hexdigest()}" for n, h in columns.items()).encode()).hexdigest()}


def apart(what: str, instants: int, chunk: int) -> dict:
    """The result of `what` from a process of its own, so that its peak of memory belongs to it alone."""
    done = subprocess.run([sys.executable, __file__, "--one", what, str(instants), str(chunk)], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)


def summary(runs: list[dict]) -> dict:
    """Medians, with the smallest and largest value of each measurement."""
    made = {k: runs[0][k] for k in ("instants", "samples", "instants_received", "chunks")}
    for name in ("wall_s", "process_s", "peak_mb"):
        values = sorted(r[name] for r in runs)
        made[name] = {"median": round(statistics.median(values), 2), "low": round(values[0], 2),
                      "high": round(values[-1], 2)}
    return made


def compare(instants: int, repeats: int) -> dict:
    """All measurements, the ways taking turns so that a slow minute of the machine hits each of them."""
    channels = apart("measure", 1000, CHUNK)["samples"] // 1000
    ways = {"chunks": (instants, CHUNK), "samples": (-(-instants // channels), CHUNK),
            "one-piece": (instants, instants)}
    runs: dict = {name: [] for name in ways}
    for turn in range(repeats):
        for name, (n, chunk) in ways.items():
            runs[name].append(apart("measure", n, chunk))
            print(f"{turn + 1}/{repeats} {name}: {runs[name][-1]['wall_s']:.1f} s, {runs[name][-1]['peak_mb']:.0f} MB",
                  file=sys.stderr)
    found = {name: summary(r) for name, r in runs.items()}
    same = {str(chunk): apart("digest", instants // 10, chunk)["digest"] for chunk in SAME}
    a, b = found["one-piece"], found["chunks"]
    ratios = {k: round(a[k]["median"] / b[k]["median"], 2) for k in ("wall_s", "process_s", "peak_mb")}
    return {"seed": runs["chunks"][0]["seed"], "channels": channels, "repeats": repeats, "chunk": CHUNK, "ways": found,
            "one_piece_to_chunks": ratios,
            "values_the_same": {"instants": instants // 10, "digest_by_chunk": same,
                                "equal": len(set(same.values())) == 1}}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--quick", action="store_true", help="a hundredth of the data, once, printed and not written")
    ask.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.one:
        what, instants, chunk = asked.one
        print(json.dumps({"measure": measure, "digest": digest}[what](int(instants), int(chunk))))
        return 0
    found = compare(100_000, 1) if asked.quick else compare(10_000_000, REPEATS)
    worst = found["ways"]["chunks"]
    found["targets"] = {"wall_s": TARGET_S, "peak_mb": TARGET_MB,
                        "met": worst["wall_s"]["high"] < TARGET_S and worst["peak_mb"]["high"] < TARGET_MB
                        and found["values_the_same"]["equal"]}
    found |= {"command": "python benchmarks/data/generator.py" + " --quick" * asked.quick,
              "machine": {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()},
              "versions": {"python": platform.python_version(),
                           **{p: version(p) for p in ("numpy", "pandas", "scipy")}}}
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    if asked.quick:
        print(text, end="")
    else:
        beside = RESULT.with_name(f".{RESULT.name}.partial")
        beside.write_text(text, encoding="utf-8")
        beside.replace(RESULT)
    return 0 if found["targets"]["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
