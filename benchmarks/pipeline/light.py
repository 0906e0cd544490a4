"""Eight light notebooks in three stages on two cores: `esa-notebooks run` against `xargs -P2 papermill`, and bare Snakemake.

    python benchmarks/pipeline/light.py [repeats]      # about seven minutes for five; writes light.json

Every notebook imports pandas, reads the tables of the stage before, and writes one of its own. Each way starts from nothing: no
records, no outputs, no running server; starting the warm runner counts. `xargs` runs the notebooks of one stage, then of the next, with
papermill's own command line: no records, no checks, no reports. `snakemake` is one shell rule over the same command line. The
ways take turns, five times each unless another number is given, after one round that is not counted.
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

from projects import environment, notebook, project, tool

REPEATS, CORES = int(sys.argv[1]) if sys.argv[1:] else 5, 2
BIN = Path(sys.executable).parent
STAGES = {"make": 4, "change": 3, "gather": 1}
READS = {"make": [], "change": ["make-0", "make-1"], "gather": ["change-0", "change-1", "change-2"]}
CODE = ("frames = [pd.read_csv(p) for p in tables] or [pd.DataFrame({'x': range(1000)})]\n"
        "whole = pd.concat(frames).assign(x=lambda d: d.x * factor)\nresult('rows', len(whole))\nwhole.to_csv(out, index=False)")


def lay(folder: Path) -> Path:
    """The project of the comparison."""
    stages = {s: {"notebook": f"nbs/{s}.ipynb", "for": {"factor": list(range(n))}, "parameters": {
        "factor": "{factor}", "out": f"data/{s}-{{factor}}.csv", "tables": [f"data/{r}.csv" for r in READS[s]]}}
        for s, n in STAGES.items()}
    made = project(folder, stages)
    for s in STAGES:
        notebook(made / f"nbs/{s}.ipynb", f"factor: int = 1\nout: OutputFile = 'data/{s}.csv'\ntables: list[InputFile] = []", CODE)
    (made / "data").mkdir()
    return made


def papermill(stage: str, factor: str = "{}") -> str:
    """papermill's command line for one notebook."""
    tables = json.dumps([f"data/{r}.csv" for r in READS[stage]])
    return (f"{BIN}/papermill nbs/{stage}.ipynb out-{stage}-{factor}.ipynb --no-progress-bar -p factor {factor} "
            f"-p out data/{stage}-{factor}.csv -y 'tables: {tables}' 2>/dev/null")


def ours(folder: Path) -> None:
    tool(folder, "run", "--cores", str(CORES))


def cold(folder: Path) -> None:
    tool(folder, "run", "--cold", "--cores", str(CORES))


def xargs(folder: Path) -> None:
    for stage, n in STAGES.items():
        names = "\\n".join(map(str, range(n)))
        subprocess.run(f"printf '{names}' | xargs -P{CORES} -I{{}} sh -c \"{papermill(stage)}\"", shell=True, cwd=folder,
                       env=environment(), check=True)


def snakemake(folder: Path) -> None:
    rules = []
    for s, n in STAGES.items():
        inputs = ", ".join(repr(f"data/{r}.csv") for r in READS[s])
        command = papermill(s, "{wildcards.f}").replace("{", "{{").replace("}", "}}").replace("{{wildcards.f}}", "{wildcards.f}")
        rules.append(f"rule {s}:\n    input: [{inputs}]\n    output: 'data/{s}-{{f}}.csv'\n    shell: {command!r}\n")
    wanted = [f"data/{s}-{f}.csv" for s, n in STAGES.items() for f in range(n)]
    (folder / "Bare").write_text(f"rule all:\n    input: {wanted!r}\n\n" + "\n".join(rules))
    subprocess.run([sys.executable, "-m", "snakemake", "-s", "Bare", "--cores", str(CORES), "--quiet", "all"], cwd=folder,
                   env=environment(), check=True, capture_output=True)


WAYS = {"esa-notebooks run": ours, "esa-notebooks run --cold": cold, "xargs -P2 papermill": xargs, "snakemake over papermill": snakemake}


def measure(way, base: Path) -> float:
    """Seconds from nothing to all outputs."""
    shutil.rmtree(base, ignore_errors=True)
    folder = lay(base)
    os.sync()
    started = time.perf_counter()
    way(folder)
    took = time.perf_counter() - started
    outputs = sorted(p.name for p in (folder / "data").glob("*.csv"))
    assert outputs == sorted(f"{s}-{f}.csv" for s, n in STAGES.items() for f in range(n)), outputs
    return took


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(REPEATS + 1):
            for name, way in WAYS.items():
                took = measure(way, Path(folder) / "project")
                print(f"{turn}  {name:<28} {took:.1f} s", file=sys.stderr, flush=True)
                times[name] += [took] * (turn > 0)
    base = statistics.median(times["xargs -P2 papermill"])
    found = {name: {"median_s": round(statistics.median(t), 2), "all_s": [round(x, 2) for x in t],
                    "ratio_to_xargs": round(statistics.median(t) / base, 3),
                    "paired_ratios": [round(a / b, 3) for a, b in zip(t, times["xargs -P2 papermill"])]} for name, t in times.items()}
    print(json.dumps(found, indent=1))
    Path(__file__).with_suffix(".json").write_text(json.dumps({
        "notebooks": sum(STAGES.values()), "stages": len(STAGES), "cores": CORES, "repeats": REPEATS, "python": platform.python_version(),
        "ways": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
