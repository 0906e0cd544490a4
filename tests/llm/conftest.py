"""What the tests of the language model stage share: one real service for all of them."""

import socket
from pathlib import Path

import pytest

from esa_notebooks.llm import environment, model, service
from esa_notebooks.settings import Settings, load
from tests.conftest import require

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def vllm_settings(tmp_path_factory) -> Settings:
    """This project's settings with a port, state and log of their own; environment and model are the project's."""
    found = load(ROOT)
    if found.get("llm.endpoint"):
        return found
    build = environment.detected()
    require("vllm", environment.whole(ROOT, build), ".venv-llm is not made; `esa-notebooks llm env` makes it")
    model.embedded(found)
    interim = tmp_path_factory.mktemp("vllm")
    (interim / "llm").mkdir()
    (interim / "llm" / "models").symlink_to(found.path("paths.interim") / "llm" / "models")
    values = {"llm.port": free_port(), "paths.interim": str(interim), "llm.model": model.NAME}
    return Settings(ROOT, found.values | values, found.origins)


@pytest.fixture(scope="session")
def vllm(vllm_settings):
    """A real vLLM service that answers, started once for the whole folder (or the one that llm.endpoint names)."""
    with service.served(vllm_settings) as it:
        yield it
