"""A module imports only from floors below its own (see CONTRIBUTING)."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "esa_notebooks"
FLOOR = {"settings": 0, "style": 0, "stats": 0, "files": 0, "data": 1, "runs": 1, "models": 2, "reports": 2, "gate": 2, "registry": 3,
         "llm": 3, "databases": 4, "study": 4, "job": 4, "lab": 4, "commands": 4, "cli": 4}
NEVER = {("data", "models"), ("data", "runs"), ("runs", "data"), ("runs", "models"), ("runs", "registry"), ("runs", "llm"),
         ("reports", "models"), ("reports", "registry"), ("reports", "llm"), ("reports", "data"), ("lab", "cli"), ("study", "cli"),
         ("study", "lab"), ("study", "commands"), ("lab", "commands"), ("commands", "cli")}


def imports(path: Path) -> set[str]:
    """The first part below esa_notebooks of every project module that `path` imports."""
    here = ("esa_notebooks", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*(here[: len(here) - node.level] if node.level else ()), *([node.module] if node.module else ())])
            names = [f"{base}.{a.name}" for a in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("esa_notebooks.") and n.split(".")[1] in FLOOR}
    return found


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if not p.name.startswith("_"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_only_go_down(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in FLOOR, f"{own} stands on no floor; name it here and in CONTRIBUTING"
    for other in imports(path) - {own}:
        assert FLOOR[other] < FLOOR[own] or FLOOR[own] == FLOOR[other] == 4, f"{own} (floor {FLOOR[own]}) imports {other}"
        assert (own, other) not in NEVER


def test_the_check_sees_relative_imports():
    assert {"runs", "settings"} <= imports(PACKAGE / "runs" / "planning.py")
