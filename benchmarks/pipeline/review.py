"""What a reviewer waits for: 100 runs verified without execution, and one page on what differs between two runs.

    python benchmarks/pipeline/review.py           # about three minutes; writes review.json

Three real runs on the Shuttle telemetry (prepare, explore, quality) are made first, in a copy of the project, and then copied under new
ids until there are 100. Every copy is checked like any other run: its key from today's code, data and lock, the sha256 of its
notebook and page, and of the files it read and wrote, byte by byte. Measured is the whole command from the shell, five times each.
"""
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from projects import ROOT, environment

REPEATS, RUNS = 5, 100
TOOL = str(Path(sys.executable).parent / "esa-notebooks")


def lay(folder: Path) -> tuple[Path, list[str]]:
    """A copy of the project in which the study of the Shuttle telemetry has run, and the ids of 100 runs."""
    for part in ("nbs", "esa_notebooks", "requirements", "data/contracts", "workflow"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / part, folder / part)
    subprocess.run([TOOL, "run", "shuttle"], cwd=folder, env=environment(), check=True, capture_output=True)
    real = sorted(p for p in (folder / "reports/runs").glob("*/*") if p.is_dir())
    names = [p.name for p in real]
    for n in range(RUNS - len(real)):
        source = real[n % len(real)]
        copy = source.with_name(f"20260101T{n // 60:02d}{n % 60:02d}00Z-{source.name.split('-')[1]}")
        shutil.copytree(source, copy)
        record = json.loads((copy / "record.json").read_text())
        (copy / "record.json").write_text(json.dumps({**record, "run_id": copy.name}, indent=1, ensure_ascii=False))
        names.append(copy.name)
    return folder, names


def seconds(folder: Path, *words: str) -> float:
    started = time.perf_counter()
    ended = subprocess.run([TOOL, *words], cwd=folder, env=environment(), capture_output=True, text=True)
    took = time.perf_counter() - started
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return took


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder, names = lay(Path(base) / "project")
        quality, copied = (sorted((folder / "reports/runs/quality").glob("2*"))[i].name for i in (-1, 0))
        (explore,) = (p.name for p in (folder / "reports/runs/explore").glob("2*") if not p.name.startswith("20260101"))
        ways = {"verify, 100 runs": ("verify", "--quiet", *names), "diff, two runs of one notebook": ("diff", copied, quality),
                "diff, two notebooks": ("diff", explore, quality)}
        times = {name: [] for name in ways}
        for turn in range(REPEATS + 1):
            for name, words in ways.items():
                took = seconds(folder, *words)
                print(f"{turn}  {name:<32} {took:.2f} s", file=sys.stderr, flush=True)
                times[name] += [took] * (turn > 0)
    found = {name: {"median_s": round(statistics.median(t), 2), "all_s": [round(x, 2) for x in t]} for name, t in times.items()}
    print(json.dumps(found, indent=1))
    Path(__file__).with_suffix(".json").write_text(json.dumps({"repeats": REPEATS, "runs": RUNS, "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(), "ways": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
