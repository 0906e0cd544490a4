"""The repository itself: what is generated is up to date, what is pinned agrees, and nothing private is committed."""
import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts)
PIPELINE = [p for p in NOTEBOOKS if p.parent.name == "pipeline"]
LIBRARY = [p for p in NOTEBOOKS if p.parent.name not in ("pipeline", "tutorials")]


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def name(path: Path) -> str:
    return path.relative_to(ROOT / "nbs").as_posix()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project's notebooks and library, copied: the tools are tried on them without touching the work tree."""
    root = tmp_path_factory.mktemp("copy")
    for part in ("nbs", "esa_notebooks"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for part in ("pyproject.toml", "settings.ini", "README.md"):
        shutil.copy(ROOT / part, root / part)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for part in ("nbs", "esa_notebooks")
            for p in sorted((root / part).rglob("*")) if p.is_file() and "__pycache__" not in p.parts}


@pytest.mark.parametrize("tool", ["nbdev-export", "nbdev-clean"])
def test_generating_and_cleaning_change_nothing(copy, tool):
    before = files(copy)
    subprocess.run([BIN / tool], cwd=copy, check=True, capture_output=True, text=True)
    after = files(copy)
    assert [n for n in {*before, *after} if before.get(n) != after.get(n)] == []


def test_a_change_in_a_notebook_would_be_noticed(copy):
    """The test above can fail: a notebook edited without exporting shows up as a difference."""
    path = copy / "nbs" / "settings.ipynb"
    path.write_text(path.read_text().replace("near_miss", "near_mess"))
    before = files(copy)
    subprocess.run([BIN / "nbdev-export"], cwd=copy, check=True, capture_output=True)
    assert before["esa_notebooks/settings.py"] != files(copy)["esa_notebooks/settings.py"]


def test_every_module_comes_from_a_notebook():
    made = {p for p in (ROOT / "esa_notebooks").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py")}
    exported = set()
    for path in LIBRARY:
        target = re.search(r"^#\| default_exp (\S+)", "\n".join("".join(c["source"]) for c in cells(path)), re.M)
        assert target, f"{name(path)} exports nothing and is neither a pipeline notebook nor a tutorial"
        exported.add(ROOT / "esa_notebooks" / f"{target[1].replace('.', '/')}.py")
    assert made == exported


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_carry_no_noise(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
        assert set(cell["metadata"]) <= {"tags"}


@pytest.mark.parametrize("path", PIPELINE, ids=name)
def test_pipeline_notebooks_keep_exactly_one_parameters_cell(copy, path):
    cleaned = cells(copy / path.relative_to(ROOT))   # the copy has been through nbdev-clean
    tagged = [i for i, c in enumerate(cleaned) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1 and tagged[0] < 5


def test_there_are_pipeline_notebooks():
    assert {"prepare", "explore"} <= {p.stem for p in PIPELINE}


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_library_notebooks_are_literature(path):
    code = [c for c in cells(path) if c["cell_type"] == "code"]
    prose = " ".join("".join(c["source"]) for c in cells(path) if c["cell_type"] == "markdown")
    lines = [line for c in code for line in "".join(c["source"]).splitlines() if line.strip()]
    first = "".join(cells(path)[0]["source"])
    assert re.match(r"# .+\n\n> .+", first), "starts with a title and a one-line summary"
    assert max(len("".join(c["source"]).splitlines()) for c in code) <= 45
    assert len(prose.split()) / len(lines) >= 0.7, f"{len(prose.split())} words for {len(lines)} lines of code"
    assert any(re.search(r"^\s*assert |test_eq|test_fail", "".join(c["source"]), re.M) for c in code
               if "#| export" not in "".join(c["source"])), "no lesson cell shows and asserts anything"


@pytest.mark.parametrize("path", sorted((ROOT / "esa_notebooks").rglob("*.py")),
                         ids=lambda p: p.relative_to(ROOT / "esa_notebooks").as_posix())
def test_modules_are_small_and_documented(path):
    source = path.read_text()
    tree = ast.parse(source)
    if path.name != "_modidx.py":
        assert len(source.splitlines()) <= 420
    undocumented = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))
                    and not n.name.startswith("_") and not ast.get_docstring(n)]
    assert undocumented == []


def test_conda_environment_agrees_with_the_project():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert conda["name"] == project["name"].replace("-", "_")
    assert project["requires-python"] == ">=3.11,<3.12" and "python=3.11" in conda["dependencies"]
    assert {d.split("=")[0] for d in conda["dependencies"]} == {"python", "pip", "make", "git"}, "versions belong in the lock"


def test_the_lock_pins_and_hashes_everything_but_torch():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    text = (ROOT / "requirements" / "lock.txt").read_text()
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+) \\$", text, re.M))
    blocks = re.split(r"^(?=[A-Za-z0-9._-]+==)", text, flags=re.M)[1:]
    assert len(blocks) == len(pins) > 200 and all("--hash=sha256:" in b for b in blocks)
    assert "torch" not in pins and not any(p.startswith(("nvidia", "triton")) for p in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(d) for d in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert [r.name for r in wanted if r.name != "torch" and pins.get(canonicalize_name(r.name)) not in r.specifier] == []
    torch = (ROOT / "requirements" / "torch.txt").read_text()
    assert re.search(r"^torch==2\.13\.0$", torch, re.M)


def test_the_environment_is_the_locked_one():
    from esa_notebooks.runs.record import differs_from_lock
    assert differs_from_lock(ROOT) == []


def test_top_level_is_what_the_readme_says():
    there = {p.name for p in ROOT.iterdir()}
    assert {"nbs", "esa_notebooks", "data", "reports", "tests", "governance", "deploy", "settings.ini", "pyproject.toml", "environment.yml",
            "Makefile", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md"} <= there
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme[:1500] and "make test" in readme[:1500]
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", readme):
        assert (ROOT / link).exists(), f"README links to {link}, which is not there"


def test_ci_executes_the_notebooks_and_publishes_the_reports():
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [s for job in flow["jobs"].values() for s in job["steps"]]
    assert any("make run" in s.get("run", "") for s in steps) and any("verify --execute" in s.get("run", "") for s in steps)
    assert any(s.get("with", {}).get("path") == "reports" for s in steps)


def test_nothing_private_is_committed():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git: not a checkout")
    private = re.compile(r"/(root|home/\w+|work|opt/pypi)/|--(extra-)?index-url|files\.pythonhosted|pypi\.org|"
                         r"BEGIN (RSA|OPENSSH|EC) PRIVATE KEY|AKIA[0-9A-Z]{16}|ghp_\w{30}")
    hits = []
    for file in filter(None, listed.stdout.split("\0")):
        path = ROOT / file
        if path.suffix in (".png", ".jpg") or not path.is_file() or path == Path(__file__):
            continue
        hits += [f"{file}: {m[0]}" for m in private.finditer(path.read_text(encoding="utf-8", errors="replace"))]
    assert hits == []
