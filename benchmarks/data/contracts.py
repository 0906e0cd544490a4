"""What a contract costs: ten million samples read from Parquet, and read and checked.

    python benchmarks/data/contracts.py

Each way has a process of its own, in turn (read, read whole, check, read, …), which does it once uncounted, so that neither
imports, a cold disk nor the first touch of memory count, and gives the median of three times more. `read` streams the file in the batches that the check uses; `whole` is
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

SEED, CHANNELS, BATCH, RUNS, REPEATS = 20240101, 10, 1 << 20, 5, 3
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


def child(mode: str, path: Path) -> None:
    """The medians of REPEATS measurements after one that is not counted, as JSON on standard output."""
    samples, walls, cpus = once(mode, path), [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        once(mode, path)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    figures = {"samples": samples, "wall_s": statistics.median(walls), "cpu_s": statistics.median(cpus)}
    print(json.dumps(figures | {"peak_mb": peak_mb()}))


def measure(folder: Path, samples: int, form: str) -> dict:
    """Medians of RUNS processes of each mode, in turn, and the ratios process by process (smallest, median, largest)."""
    path = folder / f"{form}-{samples}.parquet"
    write(path, samples, form)
    modes = ("read", "whole", "check")
    taken = {m: [] for m in modes}
    for _ in range(RUNS):
        for mode in modes:
            said = subprocess.run([sys.executable, HERE, mode, path], capture_output=True, text=True, check=True)
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
    result = {"command": "python benchmarks/data/contracts.py", "seed": SEED, "runs": RUNS, "repeats": REPEATS, "batch": BATCH, "forms": FORMS,
              "cores": len(__import__("os").sched_getaffinity(0)), "python": platform.python_version(),
              "pandas": pd.__version__, "pyarrow": pa.__version__, "pandera": pandera.__version__, "figures": {}}
    with tempfile.TemporaryDirectory() as folder:
        for form, samples in [("long", 10_000_000), ("string", 10_000_000), ("shuffled", 10_000_000), ("long", 1_000_000),
                              ("long", 30_000_000)]:
            result["figures"][f"{form}, {samples:,} samples"] = measured = measure(Path(folder), samples, form)
            print(form, f"{samples:,}", json.dumps(measured, indent=1), flush=True)
    HERE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else child(sys.argv[1], Path(sys.argv[2]))
