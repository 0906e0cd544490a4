"""The Makefile: help by default, a clear message without Python 3.11, an instant start when nothing changed."""
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*args: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(["make", *args], cwd=cwd, capture_output=True, text=True, env={**clean, **env}, timeout=120)


def test_help_is_the_default():
    said = make().stdout
    for target in ("run", "test", "test-full", "lab", "docs", "lock", "clean"):
        assert f"make {target} " in said


@pytest.fixture
def fresh(tmp_path) -> Path:
    for part in ("Makefile", "pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / part, tmp_path / part)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def test_missing_python_is_a_clear_message(fresh):
    ended = make("run", "PYTHON=python3.11-not-here", cwd=fresh)
    assert ended.returncode != 0 and "Python 3.11 is needed" in ended.stderr and "PYTHON=" in ended.stderr
    assert not (fresh / ".venv").exists()


def test_another_python_is_a_clear_message(fresh):
    other = fresh / "python-other"
    other.write_text("#!/bin/sh\n[ \"$1\" = --version ] && { echo 'Python 3.9.2'; exit 0; }\nexit 1\n")
    other.chmod(0o755)
    ended = make("run", f"PYTHON={other}", cwd=fresh)
    assert ended.returncode != 0 and "Python 3.9.2" in ended.stderr and "3.11 is needed" in ended.stderr


def test_an_up_to_date_environment_starts_at_once():
    if "MAKELEVEL" not in os.environ:
        pytest.skip("make: these tests were not started by `make test`")
    started = time.monotonic()
    asked = make("--question", ".venv/.ready")
    assert asked.returncode == 0, "the lock is newer than the environment"
    assert time.monotonic() - started < 5   # a set-up takes minutes; this only tells the two apart
