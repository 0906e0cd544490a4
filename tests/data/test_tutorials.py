"""Tutorials run from top to bottom, without a network, and leave nothing behind."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb"))


def test_there_is_the_tutorial_on_adding_a_source():
    assert "add_a_source" in {path.stem for path in TUTORIALS}


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # whoever asks the network here is refused
    monkeypatch.setenv("ESA_PROJECT_ROOT", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# ") and "\n> " in notebook.cells[0].source
    before = set(path.parent.iterdir())
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    shown = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in shown if o.output_type == "error"]
    assert not [o for o in shown if o.get("name") == "stderr"], "a newcomer sees warnings"
    assert not list(tmp_path.glob("add-a-source-*"))
    assert set(path.parent.iterdir()) == before
