"""What scoring costs: each detector on 10^5, 10^6 and 10^7 sample instants of the generator, in pieces.

    python benchmarks/models/throughput.py             # writes benchmarks/models/throughput.json
    python benchmarks/models/throughput.py LR PCA      # these only
    python benchmarks/models/throughput.py --quick     # 10^5 only, on the screen only

A row is one sample instant of the twelve channels; rows with a lost sample are left out. Every detector is fitted on
the first FITTED rows, with labels that mean nothing: it is the time that counts here. Each measurement has a process
of its own, in which telemetry is made piece by piece, scored and forgotten; only the scoring is timed. Memory is the
largest resident set of that process, imports included. Detectors whose scores depend on the rows scored together cannot
be scored in pieces and are listed, not measured; one that needs more than LIMIT_S for a size is stopped and says so.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

SEED, FITTED, PIECE, PERIOD_S, LIMIT_S = 20240101, 2_000, 100_000, 30, 900
SIZES = (100_000, 1_000_000, 10_000_000)
HERE = Path(__file__).resolve()


def peak_mb() -> float:
    """Largest resident set of this process, MB."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def rows(instants: int):
    """Complete rows of the generator, in pieces."""
    from esa_notebooks.data.telemetry import Config, generate

    for piece in generate(Config(seed=SEED, days=(instants + 0.5) * PERIOD_S / 86_400, period_s=PERIOD_S), PIECE):
        yield piece.dropna().drop(columns=["time", "eclipse", "anomaly", "event"])


def child(name: str, instants: int) -> None:
    """Fit and score one detector; the figures as JSON on standard output."""
    from esa_notebooks.models.detectors.registry import detector_named

    X = next(rows(SIZES[0]))[:FITTED]
    y = (np.arange(FITTED) % 10 == 0).astype(int)  # labels in name only
    kind = detector_named(name)
    start = time.perf_counter()
    detector = kind(0).fit(X, y if kind.group == "supervised" else None)
    fit_s, scored, score_s, cpu_s, stopped = time.perf_counter() - start, 0, 0.0, 0.0, False
    base_mb = peak_mb()
    for piece in rows(instants):
        start, cpu = time.perf_counter(), time.process_time()
        detector.score(piece)
        score_s, cpu_s, scored = (
            score_s + time.perf_counter() - start,
            cpu_s + time.process_time() - cpu,
            scored + len(piece),
        )
        if stopped := score_s > LIMIT_S:
            break
    print(
        json.dumps(
            {
                "detector": name,
                "instants": instants,
                "scored": scored,
                "fit_s": round(fit_s, 2),
                "score_s": round(score_s, 3),
                "cpu_s": round(cpu_s, 3),
                "per_million_s": round(1e6 * score_s / scored, 2),
                "peak_mb": round(peak_mb()),
                "added_mb": round(peak_mb() - base_mb),
                "stopped": stopped,
            }
        )
    )


def measure(name: str, instants: int) -> dict:
    """One measurement in a process of its own; what went wrong, where it did."""
    done = subprocess.run([sys.executable, HERE, "--child", name, str(instants)], capture_output=True, text=True)
    if done.returncode:
        return {"detector": name, "instants": instants, "failed": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def show(found: dict) -> None:
    """One line on the screen."""
    if "failed" in found:
        print(f"{found['detector']:11} {found['instants']:>11,}  failed: {found['failed']}", flush=True)
        return
    more = "  stopped" if found["stopped"] else ""
    print(
        f"{found['detector']:11} {found['instants']:>11,}  {found['score_s']:9.2f} s  "
        f"{found['per_million_s']:9.2f} s per million  {found['peak_mb']:6,} MB{more}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10^5 only; nothing is written")
    parser.add_argument("--child", nargs=2, metavar=("DETECTOR", "INSTANTS"), help=argparse.SUPPRESS)
    parser.add_argument("detectors", nargs="*", help="only these")
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], int(asked.child[1]))
        return 0
    from esa_notebooks.models.detectors.registry import all_detectors, detector_named

    kinds = [detector_named(n) for n in asked.detectors] or all_detectors()
    together = [k.name for k in kinds if k.transductive]
    measured = []
    for name in (k.name for k in kinds if not k.transductive):
        for instants in islice(SIZES, 1 if asked.quick else None):
            measured.append(measure(name, instants))
            show(measured[-1])
            if measured[-1].get("stopped") or "failed" in measured[-1]:
                break  # a larger size would take longer still
    print("Not in pieces, since their scores depend on the rows scored together:", ", ".join(together))
    if asked.quick:
        return 0
    found = {
        "command": " ".join(["python benchmarks/models/throughput.py", *asked.detectors]),
        "seed": SEED,
        "fitted_rows": FITTED,
        "piece": PIECE,
        "limit_s": LIMIT_S,
        "not_in_pieces": together,
        "measured": measured,
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("numpy", "scikit-learn", "pyod", "torch", "lightgbm", "xgboost-cpu")},
        },
    }
    result = HERE.with_suffix(".json")
    beside = result.with_name(f".{result.name}.partial")
    beside.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
