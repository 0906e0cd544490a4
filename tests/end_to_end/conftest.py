"""A copy of the project in a temporary folder: the study runs there, and the work tree stays as it is."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from esa_notebooks.runs.workflow import load_workflow

ROOT = Path(__file__).resolve().parents[2]
LISTS = load_workflow(ROOT / "workflow" / "study.yaml")["lists"]
DATASETS, SIGNALS = LISTS["datasets"], LISTS["signals"]   # the second have a page of their own
TOOL = Path(sys.executable).parent / "esa-notebooks"


def copy_project(target: Path) -> Path:
    """The notebooks, library, settings and lock, without history, data or reports."""
    for part in ("nbs", "esa_notebooks", "requirements", "data/contracts", "workflow"):
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for part in ("pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / part, target / part)
    return target


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what could make a copy take itself for something else."""
    return {k: v for k, v in os.environ.items() if k not in ("ESA_PROJECT_ROOT", "ESA_RUN_ID")} | more


def tool(project: Path, *args: str, before: tuple[str, ...] = (), timeout: int = 280, **env: str) -> SimpleNamespace:
    """`esa-notebooks ARGS` in `project`: code, out, err."""
    ended = subprocess.run([*before, str(TOOL), *args], cwd=project, capture_output=True, text=True, timeout=timeout,
                           env=environment(**env))
    return SimpleNamespace(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def counts(ended: SimpleNamespace) -> dict[str, int]:
    """What the first line of `esa-notebooks run` counts, by outcome."""
    return {word: int(n) for n, word in (part.split(" ", 1) for part in ended.out.splitlines()[0].split(", "))}


def records(project: Path, reports: str = "reports") -> list[dict]:
    """Every record, oldest first."""
    paths = sorted((project / reports / "runs").glob("*/*/record.json"), key=lambda p: p.parent.name)
    return [json.loads(p.read_text()) | {"folder": p.parent} for p in paths]


STUDIED = ("telemetry", "shuttle", "opssat", "space-ideas")   # one of each form; all of them run in `make test-full`


@pytest.fixture(scope="session")
def studied(tmp_path_factory) -> SimpleNamespace:
    """A project in which the study of some data sets has been run, without any network where the machine allows it."""
    project = copy_project(tmp_path_factory.mktemp("studied") / "a project {with} spaces")
    alone = ("unshare", "-rn") if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0 else ()
    return SimpleNamespace(project=project, alone=alone, ended=tool(project, "run", *STUDIED, before=alone))
