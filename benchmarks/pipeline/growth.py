"""What it costs to find out that nothing is to be done: 10 to 10,000 runs that are up to date.

    python benchmarks/pipeline/growth.py           # about four minutes; writes growth.json

A workflow of n jobs of one notebook, each with an output; every job has a record as a succeeded run leaves it and an output with the
recorded sha256 (written by this script: executing 10,000 notebooks would take a day; the sizes of a real record are kept). Measured is the
whole command `esa-notebooks run`, from the shell: once with an empty memory of what files held, every byte read, and then as it
is used, five times. `snakemake` is Snakemake alone, started on the same workflow through its Snakefile, with nothing to do either.
"""
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from projects import environment, notebook, project, tool

SIZES, REPEATS = (10, 100, 1_000, 10_000), 5


def lay(folder: Path, n: int) -> Path:
    """A project with `n` jobs, all of them up to date."""
    stages = {"make": {"notebook": "nbs/make.ipynb", "for": {"seed": list(range(n))},
                       "parameters": {"seed": "{seed}", "out": "data/out-{seed}.csv"}}}
    made = project(folder, stages)
    notebook(made / "nbs/make.ipynb", "seed: int = 0\nout: OutputFile = 'data/out.csv'", "result('seed', seed)\nout.write_text(str(seed))")
    (made / "data").mkdir()
    from esa_notebooks.runs.conditions import CONDITIONS
    from esa_notebooks.runs.planning import Desk, planned
    from esa_notebooks.runs.record import born
    from esa_notebooks.settings import load
    settings = load(made, {})
    desk, record = Desk(settings), None
    for seed in range(n):
        plan = planned(desk, "nbs/make.ipynb", {"seed": seed, "out": f"data/out-{seed}.csv"})
        run = made / "reports/runs/make" / f"20260101T{seed // 3600:02d}{seed // 60 % 60:02d}{seed % 60:02d}Z-{plan.key[:8]}"
        run.mkdir(parents=True)
        text = str(seed).encode()
        (made / f"data/out-{seed}.csv").write_bytes(text)
        if record is None:   # the parts that cost time and are the same for all
            record = born(run, plan.path, plan.notebook, plan.bound, plan.parts, [], made, CONDITIONS)
        from esa_notebooks.runs.parameters import as_json
        values = [{"name": k, "value": as_json(v.value), "type": v.parameter.type, "origin": v.origin, "help": ""} for k, v in plan.bound.items()]
        (run / "record.json").write_text(json.dumps({**record, "run_id": run.name, "key": plan.key, "status": "succeeded", "reason": None,
            "ended": "2026-01-01T01:00:00Z", "duration_s": 3.0, "parameters": values, "cells": [], "outputs": [
                {"name": "out", "path": f"data/out-{seed}.csv", "sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}],
            "declarations": [], "files": {}}, indent=1))
        (run / "report.html").write_text("<!doctype html>")
    return made


def seconds(do) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def main() -> None:
    found = []
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            made = lay(Path(folder) / "project", n)
            time.sleep(2.5)   # what changed a moment ago is not remembered
            said = []
            first = seconds(lambda: said.append(tool(made, "run").stdout))
            assert f"{n} up to date" in said[0], said[0]
            rounds = [(seconds(lambda: tool(made, "run")), seconds(lambda: subprocess.run(
                [sys.executable, "-m", "snakemake", "-s", "workflow/Snakefile", "--cores", "2", "--quiet", "all"], cwd=made,
                env=environment(), check=True, capture_output=True)) if n <= 1_000 else None) for _ in range(REPEATS)]
            ours, theirs = [r[0] for r in rounds], [r[1] for r in rounds if r[1] is not None]
            size = statistics.mean(p.stat().st_size for p in list(made.glob("reports/runs/*/*/record.json"))[:20])
            row = {"runs": n, "first_s": round(first, 2), "median_s": round(statistics.median(ours), 2),
                   "all_s": [round(x, 2) for x in ours], "record_bytes": round(size),
                   "snakemake_alone_s": round(statistics.median(theirs), 2) if theirs else None}
        print(json.dumps(row), flush=True)
        found.append(row)
    Path(__file__).with_suffix(".json").write_text(json.dumps({"repeats": REPEATS, "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)), "growth": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
