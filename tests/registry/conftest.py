"""What the tests of the registry share: MLflow that keeps to itself, and a registry in a temporary folder."""

import os
import shutil
from datetime import timedelta

import pytest

from esa_notebooks.registry.backup import _moved as moved
from esa_notebooks.registry.store import QUIET
from esa_notebooks.runs.conditions import SILENCE
from tests.registry.registry_world import LEFT, T0, World, table


@pytest.fixture
def silent(monkeypatch):
    """MLflow keeps to itself, and what it changes in the environment of this process is put back."""
    for name, value in {**SILENCE, **QUIET}.items():
        monkeypatch.setenv(name, value)
    for name in LEFT:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A folder with the empty tables of MLflow, which take seconds to make, and four detectors."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in SILENCE.items():
            patched.setenv(name, value)
        from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

        from esa_notebooks.models.detectors.linear import LR

        engine = create_sqlalchemy_engine(f"sqlite:///{folder}/mlflow.db")
        _initialize_tables(engine)
        engine.dispose()
    X, y = table()
    for n in range(1, 5):
        LR().fit(X[n:], y[n:]).save(folder / f"{n}.zip")
    return folder


@pytest.fixture
def world(silent, template, tmp_path):
    shutil.copy(template / "mlflow.db", tmp_path / "mlflow.db")
    return World(tmp_path, f"sqlite:///{tmp_path}/mlflow.db", template)


@pytest.fixture
def environment(silent):
    return {k: v for k, v in os.environ.items() if k not in LEFT}


@pytest.fixture(scope="session")
def original(template, tmp_path_factory):
    """A registry whose version 2 replaced version 1, made once."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copy(template / "mlflow.db", folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**SILENCE, **QUIET}.items():
            patched.setenv(name, value)
        for name in LEFT:
            patched.delenv(name, raising=False)
        world = World(folder, f"sqlite:///{folder}/mlflow.db", template)
        registry = world.registry()
        world.promote(registry, 1)
        world.promote(registry, 2, "1", T0 + timedelta(days=1))
    return folder


@pytest.fixture
def again(silent, template, original, tmp_path):
    """A copy of it, in a place of its own."""
    shutil.copytree(original, tmp_path / "two")
    moved(tmp_path / "two" / "mlflow.db", {str(original / "mlruns"): str(tmp_path / "two" / "mlruns")})
    return World(tmp_path / "two", f"sqlite:///{tmp_path}/two/mlflow.db", template)


@pytest.fixture
def two(again):
    return again.registry()
