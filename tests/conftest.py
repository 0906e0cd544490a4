"""What all tests share: skips are by name, and CI can turn them into failures."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def require(name: str, present: object, why: str) -> None:
    """Skip the test as `name: why` where `present` is false; fail it instead when ESA_REQUIRE lists `name`."""
    if present:
        return
    if name in os.environ.get("ESA_REQUIRE", "").split(","):
        pytest.fail(f"{name}: {why} (required by ESA_REQUIRE)", pytrace=False)
    pytest.skip(f"{name}: {why}")


@pytest.fixture(name="require")
def _require():
    return require


CHROMIUM = Path("/usr/bin/chromium")
ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests: a second one would not start in the same process."""
    found = CHROMIUM.exists() or shutil.which("chromium")
    require("chromium", found, "no Chromium at /usr/bin/chromium")
    require("chromium", importlib.util.find_spec("playwright"), "playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        started = p.chromium.launch(executable_path=str(CHROMIUM if CHROMIUM.exists() else found), args=ARGS)
        yield started
        started.close()
