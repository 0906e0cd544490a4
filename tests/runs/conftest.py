"""A small project in a temporary folder, notebooks written in a line, and one way to run them and look at what is left."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from esa_notebooks.runs.execution import execute, no_sources, plan
from esa_notebooks.runs.record import read_record
from esa_notebooks.settings import load

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = "import os, sys\nfrom pathlib import Path\nfrom typing import Literal, Optional, Union\n" \
          "from datetime import date, datetime\n" \
          "from esa_notebooks.runs.parameters import DataSource, InputFile, OutputFile, Secret"


def code(source: str, *tags: str) -> dict:
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)} if tags else {}, "outputs": [],
            "execution_count": None}


def prose(source: str, *tags: str) -> dict:
    return {"cell_type": "markdown", "source": source, "metadata": {"tags": list(tags)} if tags else {}}


def left_alive(run_id: str, within: float = 0) -> list[psutil.Process]:
    """The processes that carry the run's id in their environment: its kernel, and whatever came from it."""
    until = time.monotonic() + within
    while True:
        found = []
        for p in psutil.process_iter():
            try:
                if p.environ().get("ESA_RUN_ID") == run_id and p.status() != psutil.STATUS_ZOMBIE:
                    found.append(p)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.1)


class Study:
    """A project of its own, with `write` for notebooks, `plan`, `run` and `remains`."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        (self.root / "nbs").mkdir(parents=True, exist_ok=True)
        (self.root / "pyproject.toml").touch()
        (self.root / "settings.ini").touch()

    def write(self, name: str, *cells: str | dict, parameters: str | None = "", kernel: str = "python3") -> Path:
        """The notebook nbs/NAME.ipynb: title, imports, parameters (none for None), then `cells` (a text is code)."""
        all_ = [prose(f"# {name}\n\n> Does it hold?\n\nFor: the tests."), code(IMPORTS)]
        all_ += [] if parameters is None else [code(parameters, "parameters")]
        all_ += [c if isinstance(c, dict) else code(c) for c in cells]
        notebook = {"cells": [{**c, "id": f"c{i}"} for i, c in enumerate(all_)], "nbformat": 4, "nbformat_minor": 5,
                    "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}}
        path = self.root / "nbs" / f"{name}.ipynb"
        path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
        return path

    def settings(self, **values: object):
        """The study's settings; run_timeout_s=3 stands for ESA_RUN_TIMEOUT_S=3."""
        return load(self.root, {f"ESA_{k.upper()}": str(v) for k, v in values.items()})

    def plan(self, path: Path | str, given: dict | None = None, *, text: bool = False, sources=no_sources, **settings):
        return plan(path, given or {}, text=text, settings=self.settings(**settings), sources=sources)

    def run(self, path: Path | str, given: dict | None = None, **how) -> SimpleNamespace:
        """Plan and execute: folder, record, notebook (None when it was never saved)."""
        return self.result(execute(self.plan(path, given, **how), quiet=True))

    @staticmethod
    def result(folder: Path) -> SimpleNamespace:
        saved = folder / "notebook.ipynb"
        return SimpleNamespace(folder=folder, record=read_record(folder),
                               notebook=json.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else None)

    def remains(self) -> list[str]:
        """All files but notebooks and project files, relative to the root."""
        return sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()
                      and p.relative_to(self.root).parts[0] not in ("nbs", "pyproject.toml", "settings.ini"))

    def runner(self, path: Path, **env: str) -> subprocess.Popen:
        """A process of its own that executes the notebook at `path`."""
        program = ("import sys\nfrom esa_notebooks.runs.execution import execute, plan\n"
                   "from esa_notebooks.settings import load\n"
                   "execute(plan(sys.argv[1], settings=load(sys.argv[2])), quiet=True)\n")
        clean = {k: v for k, v in os.environ.items() if k not in ("ESA_PROJECT_ROOT", "ESA_RUN_ID")}
        return subprocess.Popen([sys.executable, "-c", program, str(path), str(self.root)], cwd=self.root,
                                env=clean | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def only_run(self, stage: str) -> Path:
        (folder,) = (self.root / "reports" / "runs" / stage).iterdir()
        return folder


def text_of(run: SimpleNamespace) -> str:
    """Everything the notebook's cells printed to stdout."""
    return "".join("".join(o["text"]) for c in run.notebook["cells"] for o in c.get("outputs", [])
                   if o["output_type"] == "stream" and o["name"] == "stdout")


@pytest.fixture
def study(tmp_path) -> Study:
    return Study(tmp_path / "study")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Study:
    """One project for a whole module."""
    return Study(tmp_path_factory.mktemp("shared"))
