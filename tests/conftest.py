"""What all tests share: skips are by name, and CI can turn them into failures."""

import os

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
