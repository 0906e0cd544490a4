"""What segment features cost: all segments at once against a loop over them, and from a thousand to a million segments.

    python benchmarks/data/features.py

The segments are invented and resemble OPSSAT-AD's: lengths are drawn from two log-normal distributions fitted to
the logarithm of `len` in its dataset.csv, one for each sampling period. Three ways of computing the 18 features are
timed in turn in one process: `segment_features` of a table of samples; a `loop` over `groupby` of the same table in
plain pandas and SciPy; and a `lean` loop over flat arrays with NumPy and SciPy only. Their results must be equal,
or the script stops. For the scaling each measurement is a process of its own; `added_mb` is the most memory it took
beyond its input.
"""
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from scipy import signal, stats

from esa_notebooks.data.features import features_of, segment_features
from esa_notebooks.data.wide_features import wide_features_of

SEED, RUNS, COMPARED = 20240101, 5, 1000
SIZES = {"features": (1_000, 10_000, 100_000, 1_000_000), "wide_features": (1_000, 10_000, 100_000)}
# share of segments, mean and standard deviation of ln(length), for periods of 1 s and 5 s; lengths within 8 and 1,040
LENGTHS = {1: (793 / 2123, 5.603, 0.425), 5: (1330 / 2123, 3.692, 0.665)}
HERE = Path(__file__).resolve()
COUNTS = ["len", "n_peaks", "smooth10_n_peaks", "smooth20_n_peaks", "diff_peaks", "diff2_peaks"]


def segments(n: int):
    """Values, seconds, starts and periods of `n` segments: noisy waves, quantised as telemetry is, filled in chunks."""
    rng = np.random.default_rng(SEED)
    period = np.where(rng.random(n) < LENGTHS[1][0], 1, 5)
    mean, deviation = (np.where(period == 1, LENGTHS[1][i], LENGTHS[5][i]) for i in (1, 2))
    lengths = np.exp(rng.normal(mean, deviation)).round().clip(8, 1040).astype(int)
    ends = np.cumsum(lengths)
    values, seconds = np.empty(ends[-1]), np.empty(ends[-1])
    for first in range(0, n, 10_000):
        part = slice(first, first + 10_000)
        each, to = lengths[part], ends[part][-1]
        start = ends[first] - lengths[first]
        step = np.arange(to - start) - np.repeat(ends[part] - each - start, each)
        pace, phase = (np.repeat(x, each) for x in (rng.uniform(5, 40, len(each)), rng.uniform(0, 6, len(each))))
        values[start:to] = (2e-5 * np.sin(step / pace + phase) + 1e-6 * rng.standard_normal(len(step))).round(10)
        seconds[start:to] = step * np.repeat(period[part], each)
    return values, seconds, ends - lengths, period.astype(float)


def peaks(x: np.ndarray) -> int:
    return len(signal.find_peaks(x, prominence=0.1 * (np.max(x) - np.min(x)))[0])


def described(x: np.ndarray, duration: float, gaps_squared: float, period: float) -> dict:
    change, change2, var = np.diff(x), np.diff(x, n=2), np.var(x)
    return {"duration": duration, "len": len(x), "mean": np.mean(x), "var": var, "std": np.std(x),
            "kurtosis": stats.kurtosis(x), "skew": stats.skew(x), "n_peaks": peaks(x),
            "smooth10_n_peaks": peaks(np.convolve(x, np.ones(10) / 10, mode="same")),
            "smooth20_n_peaks": peaks(np.convolve(x, np.ones(20) / 20, mode="same")),
            "diff_peaks": peaks(change), "diff2_peaks": peaks(change2), "diff_var": np.var(change),
            "diff2_var": np.var(change2), "gaps_squared": gaps_squared, "len_weighted": len(x) * period,
            "var_div_duration": var / duration, "var_div_len": var / len(x)}


def loop(samples: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for name, part in samples.groupby("segment", sort=False):
        step = part.time.diff().dt.total_seconds()
        duration = (part.time.iloc[-1] - part.time.iloc[0]).total_seconds()
        rows[name] = described(part.value.to_numpy(), duration, (step**2).sum(), part.period.iloc[0])
    return pd.DataFrame.from_dict(rows, orient="index")


def lean(values, seconds, starts, period) -> pd.DataFrame:
    rows = []
    for x, t, p in zip(np.split(values, starts[1:]), np.split(seconds, starts[1:]), period, strict=True):
        rows.append(described(x, t[-1] - t[0], np.sum(np.diff(t) ** 2), p))
    return pd.DataFrame(rows)


def compared() -> dict:
    """Medians of RUNS runs in turn; ratios are taken run by run, so that what else the machine does weighs on both."""
    arrays = values, seconds, starts, period = segments(COMPARED)
    lengths = np.diff(starts, append=len(values))
    samples = pd.DataFrame({"segment": np.repeat(np.arange(COMPARED), lengths), "value": values,
                            "time": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(seconds, unit="s"),
                            "period": np.repeat(period, lengths)})
    ways = {"at once": lambda: segment_features(samples, period_s="period"), "loop": lambda: loop(samples),
            "lean": lambda: lean(*arrays)}
    taken, found = {way: [] for way in ways}, {way: do() for way, do in ways.items()}   # once to warm up
    for way in ("loop", "lean"):
        assert (found[way][COUNTS].to_numpy() == found["at once"][COUNTS].to_numpy()).all(), way
        np.testing.assert_allclose(found[way], found["at once"][found[way].columns], rtol=1e-9, atol=1e-15)
    for _ in range(RUNS):
        for way, do in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            do()
            taken[way].append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
    result = {"segments": COMPARED, "samples": len(values)}
    for way in ways:
        result[f"{way}, us per segment"] = {c: round(statistics.median(t[c] for t in taken[way]) / COMPARED * 1e6, 1)
                                            for c in ("wall", "cpu")}
    for way in ("loop", "lean"):
        for clock in ("wall", "cpu"):
            ratios = [a[clock] / b[clock] for a, b in zip(taken[way], taken["at once"], strict=True)]
            result[f"{way} / at once, {clock}"] = [round(f(ratios), 1) for f in (min, statistics.median, max)]
    return result


def memory_mb(what: str) -> float:
    return int(re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def child(which: str, n: int) -> None:
    """One measurement, as JSON on standard output."""
    of = {"features": features_of, "wide_features": wide_features_of}[which]
    of(*segments(200))
    arrays = segments(n)
    Path("/proc/self/clear_refs").write_text("5")   # forget the peak so far: that of making the input
    before, wall, cpu = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    of(*arrays)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"samples": len(arrays[0]), "wall_us": wall / n * 1e6, "cpu_us": cpu / n * 1e6,
                      "input_mb": sum(a.nbytes for a in arrays) / 2**20, "added_mb": memory_mb("VmHWM") - before}))


def scaling(which: str) -> dict:
    taken = {n: [] for n in SIZES[which]}
    for _ in range(RUNS):
        for n in SIZES[which]:
            said = subprocess.run([sys.executable, HERE, which, str(n)], capture_output=True, text=True, check=True)
            taken[n].append(json.loads(said.stdout))
    result = {f"{n:,} segments": {k: round(statistics.median(t[k] for t in runs), 1) for k in runs[0]}
              for n, runs in taken.items()}
    first, last = taken[SIZES[which][0]], taken[SIZES[which][-1]]
    for clock in ("wall", "cpu"):
        ratios = [b[f"{clock}_us"] / a[f"{clock}_us"] for a, b in zip(first, last, strict=True)]
        result[f"time per segment, largest / smallest, {clock}"] = [round(f(ratios), 2)
                                                                   for f in (min, statistics.median, max)]
    return result


def main() -> None:
    warnings.simplefilter("ignore")   # SciPy's, of nearly constant segments
    result = {"command": "python benchmarks/data/features.py", "seed": SEED, "runs": RUNS,
              "lengths": {f"{s} s": dict(zip(("share", "mean_ln", "sd_ln"), np.round(p, 3).tolist(), strict=True))
                          for s, p in LENGTHS.items()},
              "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "numpy": np.__version__,
              "scipy": scipy.__version__, "pandas": pd.__version__, "ranges": "[smallest, median, largest] of the runs",
              "compared": compared()}
    print(json.dumps(result["compared"], indent=1), flush=True)
    for which in SIZES:
        result[f"scaling of {which}_of"] = scaling(which)
        print(which, json.dumps(result[f"scaling of {which}_of"], indent=1), flush=True)
    beside = HERE.with_suffix(".json.tmp")
    beside.write_text(json.dumps(result, indent=1) + "\n")
    beside.replace(HERE.with_suffix(".json"))


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else child(sys.argv[1], int(sys.argv[2]))
