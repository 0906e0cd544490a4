"""What a contract costs: ten million samples read from Parquet, and read and checked.

    python benchmarks/data/contracts.py

Each measurement is a process of its own, in turn (read, read whole, check, read, …), after a warm-up inside the process, so
that neither imports nor a cold disk are counted. `read` streams the file in the batches that the check uses; `whole` is
`pyarrow.parquet.read_table(path).to_pandas()`. Peak memory is the process's largest resident set, imports included.
"""
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SEED, CHANNELS, BATCH, RUNS = 20240101, 10, 1 << 20, 7
HERE = Path(__file__).resolve()
FORMS = {"long": "one row per reading, channel by channel", "string": "the same, channel stored as a string",
         "shuffled": "the same, channels alternating row by row"}


def contract():
    from esa_notebooks.data.contracts import parse_contract
    ranges = "\n".join(f"  c{i}: {{low: -1000, high: 1000}}" for i in range(CHANNELS))
    return parse_contract(f'dataset: bench\nversion: "1"\nowner: us\nclass: open\nclock: {{period_s: 1}}\nchannels:\n{ranges}')


def write(path: Path, samples: int, form: str) -> None:
    """A Parquet file of `samples` readings of ten channels at 1 Hz."""
    each, rng = samples // CHANNELS, np.random.default_rng(SEED)
    codes = np.tile(np.arange(CHANNELS), each) if form == "shuffled" else np.repeat(np.arange(CHANNELS), each)
    second = np.repeat(np.arange(each), CHANNELS) if form == "shuffled" else np.tile(np.arange(each), CHANNELS)
    names = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), [f"c{i}" for i in range(CHANNELS)])
    stamps = np.datetime64("2024-01-01", "us") + second * np.timedelta64(1, "s")
    values = np.round(rng.standard_normal(len(codes)), 3)
    table = pa.table({"channel": names.cast(pa.string()) if form == "string" else names,
                      "time": pa.array(stamps, pa.timestamp("us", "UTC")), "value": values})
    pq.write_table(table, path, compression="zstd", row_group_size=1 << 20)


def once(mode: str, path: Path) -> int:
    """Do it, and give back the number of samples."""
    if mode == "check":
        from esa_notebooks.data.samples import check_parquet
        report = check_parquet(path, contract(), BATCH)
        assert not report.broken, report.broken[0]
        return next(f.of for f in report.findings if f.rule == "in_range")
    if mode == "whole":
        return len(pq.read_table(path).to_pandas())
    file = pq.ParquetFile(path, read_dictionary=["channel"])
    return sum(len(piece.to_pandas()) for piece in file.iter_batches(BATCH))


def peak_mb() -> float:
    """Largest resident set of this process, MB; getrusage would count the parent's too, as it was when it forked."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def child(mode: str, path: Path, small: Path) -> None:
    """One measurement, as JSON on standard output."""
    once(mode, small)
    wall, cpu = time.perf_counter(), time.process_time()
    samples = once(mode, path)
    figures = {"samples": samples, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps(figures | {"peak_mb": peak_mb()}))


def measure(folder: Path, samples: int, form: str) -> dict:
    """Medians of RUNS runs of each mode, in turn, and the ratios run by run."""
    path, small = folder / f"{form}-{samples}.parquet", folder / f"{form}-small.parquet"
    write(path, samples, form)
    write(small, 100_000, form)
    modes = ("read", "whole", "check")
    taken = {m: [] for m in modes}
    for _ in range(RUNS):
        for mode in modes:
            said = subprocess.run([sys.executable, HERE, mode, path, small], capture_output=True, text=True, check=True)
            taken[mode].append(json.loads(said.stdout))
    result = {m: {k: round(statistics.median(t[k] for t in taken[m]), 4) for k in taken[m][0]} for m in modes}
    for other in ("read", "whole"):
        for clock in ("wall_s", "cpu_s"):
            ratios = [c[clock] / r[clock] for c, r in zip(taken["check"], taken[other])]
            result[f"check / {other}, {clock}"] = [round(f(ratios), 3) for f in (min, statistics.median, max)]
    path.unlink()
    return result


def main() -> None:
    import pandera
    result = {"command": "python benchmarks/data/contracts.py", "seed": SEED, "runs": RUNS, "batch": BATCH, "forms": FORMS,
              "cores": len(__import__("os").sched_getaffinity(0)), "python": platform.python_version(),
              "pandas": pd.__version__, "pyarrow": pa.__version__, "pandera": pandera.__version__, "figures": {}}
    with tempfile.TemporaryDirectory() as folder:
        for form, samples in [("long", 10_000_000), ("string", 10_000_000), ("shuffled", 10_000_000), ("long", 1_000_000),
                              ("long", 30_000_000)]:
            result["figures"][f"{form}, {samples:,} samples"] = measured = measure(Path(folder), samples, form)
            print(form, f"{samples:,}", json.dumps(measured, indent=1), flush=True)
    HERE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
