"""A small study of its own: two data sets, two detectors, two seeds, a ranking; and ways to run it, look at it and do it harm."""
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from esa_notebooks.runs.freshness import FRESH
from esa_notebooks.settings import load
from esa_notebooks.study import Study, in_sight, look

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(sys.executable).parent / "esa-notebooks"
IMPORTS = "import time\nfrom pathlib import Path\nfrom esa_notebooks.runs.declare import result\n" \
          "from esa_notebooks.runs.parameters import DataSource, InputFile, Module, OutputFile"

STUDY = """
title: Two detectors on two data sets
lists:
  datasets: &datasets [a, b]
stages:
  prepare:
    notebook: nbs/prepare.ipynb
    about: raw numbers become a table
    for: {dataset: *datasets}
    parameters: {raw: "raw/{dataset}.csv", table: "data/processed/{dataset}.csv"}
    resources: {cpu: 1, memory_gib: 1, minutes: 5}
  experiment:
    notebook: nbs/experiment.ipynb
    for: {dataset: *datasets, detector: [mylib.forest, mylib.threshold], seed: [0, 1]}
    except: [{dataset: b, seed: 1}]
    parameters:
      table: data/processed/{dataset}.csv
      detector: "{detector}"
      seed: "{seed}"
      scores: data/interim/{dataset}-{detector}-{seed}.json
    resources: {memory_gib: 1}
  leaderboard:
    notebook: nbs/leaderboard.ipynb
    parameters:
      scores: {every: experiment.scores}
      ranking: data/processed/ranking.txt
  listen:
    notebook: nbs/listen.ipynb
"""
MODULES = {
    "__init__": "",
    "common": "SCALE = 2  # what every module multiplies by\n\n\ndef scaled(values):\n    return [SCALE * v for v in values]\n",
    "trees": "DEPTH = 3\n",
    "forest": "from mylib.common import scaled\nfrom mylib.trees import DEPTH\n\n\n"
              "def score(values, seed):\n    return sum(scaled(values)) / DEPTH + seed\n",
    "threshold": "from mylib.common import scaled\n\n\ndef score(values, seed):\n    return max(scaled(values)) + seed\n",
    "unrelated": "NOBODY = 'imports this'\n",
}
PREPARE = "from mylib.common import SCALE\nvalues = [float(v) for v in raw.read_text().split(',')]\n" \
          "table.write_text(','.join(str(factor * v) for v in values))\nresult('values', len(values))"
EXPERIMENT = "import importlib\nimport json\nvalues = [float(v) for v in table.read_text().split(',')]\n" \
             "score = importlib.import_module(detector).score(values, seed)\nresult('score', score, better='higher')\n" \
             "scores.write_text(json.dumps([detector, seed, score]))"
LEADERBOARD = "import json\nrows = sorted(json.loads(p.read_text()) for p in scores)\nresult('rows', len(rows))\n" \
              "ranking.write_text('\\n'.join(map(str, rows)))"
LISTEN = "from esa_notebooks.settings import setting\nresult('letters', len(setting('study.name')))"


def prose(source: str) -> dict:
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def code(source: str, *tags: str) -> dict:
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)} if tags else {}, "outputs": [],
            "execution_count": None}


class Project:
    """A project in a folder of its own."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        for folder in ("nbs", "raw", "workflow/profiles"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "pyproject.toml").touch()
        (self.root / "settings.ini").touch()
        (self.root / "tmp").mkdir(exist_ok=True)
        shutil.copy(ROOT / "workflow" / "Snakefile", self.root / "workflow" / "Snakefile")
        shutil.copytree(ROOT / "workflow" / "profiles", self.root / "workflow" / "profiles", dirs_exist_ok=True)

    def file(self, path: str, text: str) -> Path:
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text, encoding="utf-8")
        return full

    def study(self, text: str) -> Path:
        return self.file("workflow/study.yaml", textwrap.dedent(text))

    def notebook(self, name: str, parameters: str, *cells: str | dict, kernel: str = "python3") -> Path:
        """nbs/NAME.ipynb: title, imports, parameters, `cells` (a text is code)."""
        everything = [prose(f"# {name}\n\n> Does it hold?\n\nFor: the tests."), code(IMPORTS), code(parameters, "parameters"),
                      *(c if isinstance(c, dict) else code(c) for c in cells)]
        return self.file(f"nbs/{name}.ipynb", json.dumps(
            {"cells": [{**c, "id": f"c{i}"} for i, c in enumerate(everything)], "nbformat": 4, "nbformat_minor": 5,
             "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}}, indent=1))

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ESA_")}
        return kept | {"TMPDIR": str(self.root / "tmp"), "ESA_DATA_OFFLINE": "true"} | more

    def start(self, *args: str, before: tuple[str, ...] = (), **env: str) -> subprocess.Popen:
        """`esa-notebooks ARGS`, in a process group of its own as a shell would have it."""
        return subprocess.Popen([*before, str(TOOL), *args], cwd=self.root, env=self.environment(**env), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def tool(self, *args: str, before: tuple[str, ...] = (), timeout: float = 120, **env: str) -> SimpleNamespace:
        return ended(self.start(*args, before=before, **env), timeout)

    def run(self, *args: str, **how) -> SimpleNamespace:
        """`esa-notebooks run --cold ARGS`; warm with warm=True."""
        return self.tool("run", *(() if how.pop("warm", False) else ("--cold",)), *args, **how)

    def look(self, *names: str, sets: tuple[str, ...] = (), look_up=in_sight, **settings: str) -> Study:
        """What `plan` would find, asked within this process."""
        given = {f"ESA_{k.upper()}": v for k, v in ({"data_offline": "true"} | settings).items()}
        with chdir(self.root):   # data sources are looked up in the project of the working directory
            return look(load(self.root, given), names, sets, look_up=look_up)

    def stale(self, *names: str, **how) -> dict[str, str]:
        """`{job: why}` of all that is not up to date."""
        return {n: s.why for n, s in self.look(*names, **how).states.items() if s.state != FRESH}

    def records(self) -> list[dict]:
        """Every record, oldest first."""
        paths = sorted((self.root / "reports" / "runs").glob("*/[!.]*/record.json"), key=lambda p: p.parent.name)
        return [json.loads(p.read_text()) | {"folder": p.parent} for p in paths]

    def run_ids(self) -> set[str]:
        return {p.parent.name for p in (self.root / "reports" / "runs").glob("*/[!.]*/record.json")}

    def outputs(self) -> dict[str, bytes]:
        """What lies below data/interim and data/processed, hidden files and staging folders too."""
        return {p.relative_to(self.root).as_posix(): p.read_bytes() for part in ("interim", "processed")
                for p in (self.root / "data" / part).rglob("*") if p.is_file()}

    def left_over(self, within: float = 5) -> list[str]:
        """The command lines of processes that carry this project's path, in their arguments or environment."""
        until, mark = time.monotonic() + within, str(self.root)
        while True:
            found = []
            for p in psutil.process_iter():
                try:
                    if p.pid != os.getpid() and p.status() != psutil.STATUS_ZOMBIE and (
                            any(mark in a for a in p.cmdline()) or any(mark in v for v in p.environ().values())):
                        found.append(f"{p.pid} {' '.join(p.cmdline())[:150]}")
                except psutil.Error:
                    continue
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.1)


def ended(process: subprocess.Popen, timeout: float = 120) -> SimpleNamespace:
    """Code, out, err of a process, once it has ended."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def counts(run: SimpleNamespace) -> dict[str, int]:
    """What the first line of `esa-notebooks run` counts, by outcome."""
    return {word: int(n) for n, word in (part.split(" ", 1) for part in run.out.splitlines()[0].split(", "))}


def small_study(root: Path) -> Project:
    """Two data sets, two detectors, two seeds, a ranking, and a notebook that listens to a source: 10 jobs."""
    project = Project(root)
    project.study(STUDY)
    for name, text in MODULES.items():
        project.file(f"mylib/{name}.py", text)
    for dataset, values in {"a": "1,2,3", "b": "4,5,6"}.items():
        project.file(f"raw/{dataset}.csv", values)
    project.file("requirements/lock.txt", "numpy==2.4.6 \\\n    --hash=sha256:00\npandas==3.1.0\n")
    project.notebook("prepare", "raw: InputFile = Path('raw/a.csv')\ntable: OutputFile = Path('data/processed/a.csv')\n"
                                "factor: int = 3  # what every value is multiplied by", prose("What is written."), PREPARE)
    project.notebook("experiment", "table: InputFile = Path('data/processed/a.csv')\ndetector: Module = 'mylib.forest'\n"
                                   "seed: int = 0\nscores: OutputFile = Path('data/interim/scores.json')", EXPERIMENT)
    project.notebook("leaderboard", "scores: list[InputFile] = []\nranking: OutputFile = Path('data/processed/ranking.txt')",
                     LEADERBOARD)
    project.notebook("listen", "source: DataSource = 'shuttle'", LISTEN)
    return project


PREPARES = {"prepare/a", "prepare/b"}
EXPERIMENTS = {f"experiment/{d}-mylib.{m}-{s}" for d in "ab" for m in ("forest", "threshold") for s in (0, 1) if (d, s) != ("b", 1)}
ALL = PREPARES | EXPERIMENTS | {"leaderboard/all", "listen/all"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The small study, run once. Tests work on copies, or put back what they change."""
    project = small_study(tmp_path_factory.mktemp("finished") / "a {study} of ours")
    project.first = project.run(warm=True)
    return project


@pytest.fixture
def copied(finished, tmp_path) -> Project:
    """A copy of the finished study."""
    shutil.copytree(finished.root, tmp_path / "copied", symlinks=True)
    return Project(tmp_path / "copied")
