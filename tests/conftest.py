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


# What takes longest is begun first, so that the workers end at about the same time.
FIRST = ["end_to_end/test_operation.py", "end_to_end", "runs", "llm", "workflow", "registry", "models"]


def _group(nodeid: str) -> str:
    "What one worker does alone: a folder of tests, whose fixtures of a session are dear, or the longest file."
    within = nodeid.partition("::")[0].removeprefix("tests/")
    return within if within in FIRST else within.partition("/")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: n for n, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(_group(item.nodeid), len(FIRST)))   # stable: else as collected


@pytest.hookimpl(optionalhook=True)   # there is no such hook without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByFolder(config, log)


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
