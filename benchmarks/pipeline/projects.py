"""Small projects to measure on: notebooks in a folder of their own, and records as finished runs would leave them."""
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = "from pathlib import Path\nimport pandas as pd\nfrom esa_notebooks.runs.declare import result\n" \
          "from esa_notebooks.runs.parameters import InputFile, OutputFile"


def notebook(path: Path, parameters: str, code: str) -> None:
    """A notebook with a title, imports, a parameters cell and one cell of code."""
    cells = [("markdown", "# Light\n\n> What does a light notebook cost?", []), ("code", IMPORTS, []),
             ("code", parameters, ["parameters"]), ("code", code, [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {
        "kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}},
        "cells": [{"cell_type": kind, "id": f"c{i}", "source": text, "metadata": {"tags": tags} if tags else {},
                   **({"outputs": [], "execution_count": None} if kind == "code" else {})}
                  for i, (kind, text, tags) in enumerate(cells)]}))


def project(folder: Path, stages: dict) -> Path:
    """A project with this repository's lock and Snakefile, and a workflow of `stages`."""
    folder.mkdir(parents=True)
    for name in ("pyproject.toml", "requirements", "esa_notebooks"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "settings.ini").touch()
    (folder / "workflow").mkdir()
    for name in ("Snakefile", "profiles"):
        (folder / "workflow" / name).symlink_to(ROOT / "workflow" / name)
    (folder / "workflow" / "study.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return folder


def environment() -> dict[str, str]:
    """This process's environment without what belongs to another project."""
    return {k: v for k, v in os.environ.items() if not k.startswith("ESA_")}


def tool(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """`esa-notebooks WORDS` in a project; an error when it fails."""
    return subprocess.run([str(Path(sys.executable).parent / "esa-notebooks"), *words], cwd=folder, env=environment(), check=True,
                          capture_output=True, text=True)
