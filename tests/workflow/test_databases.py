"""Databases are whole before the first worker connects; eight at once would each create one otherwise, and most would crash."""
import json
import sqlite3
import subprocess
import sys

import pytest

from esa_notebooks import databases
from esa_notebooks.databases import create_databases
from esa_notebooks.settings import load
from tests.workflow.conftest import Project, counts

URIS = {"tracking": "sqlite:///mlflow.db", "tuning": "sqlite:///data/interim/optuna.db"}
EIGHT = """
import json, multiprocessing, os, sys
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import optuna
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def connect(kind, uri, barrier, told):
    barrier.wait()
    try:
        if kind == "tracking":
            SqlAlchemyStore(uri, "artifacts").create_experiment(f"from {os.getpid()}")
        else:
            optuna.create_study(storage=uri, study_name=f"from {os.getpid()}")
        told.put("")
    except Exception as e:
        told.put(f"{type(e).__name__}: {str(e)[:200]}")


context = multiprocessing.get_context("fork")
for kind, uri, until in json.loads(sys.argv[1]):
    barrier, told = context.Barrier(8), context.Queue()
    workers = [context.Process(target=connect, args=(kind, uri, barrier, told)) for _ in range(8)]
    for w in workers:
        w.start()
    complaints = sorted(filter(None, (told.get() for _ in workers)))
    print(json.dumps([kind, complaints]), flush=True)
    for w in workers:
        w.join()
    if until == "a complaint" and complaints:
        break
"""


def settings_of(project: Project, **more: str):
    return load(project.root, {f"ESA_{k}": v for k, v in ({"TRACKING_URI": URIS["tracking"], "TUNING_STORAGE": URIS["tuning"]} | more).items()})


def eight_at_once(project: Project, *stores: tuple[str, str, str]) -> list[list]:
    """`[[kind, complaints]]` of eight processes that connect to each store (kind, uri, until) at the same moment."""
    ended = subprocess.run([sys.executable, "-c", EIGHT, json.dumps(stores)], cwd=project.root, env=project.environment(),
                           capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[")]


def tables(path) -> set[str]:
    with sqlite3.connect(path) as connection:
        return {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}


def test_eight_workers_at_once_succeed_where_the_databases_were_created_and_crash_where_not(tmp_path):
    project = Project(tmp_path)
    assert create_databases(["tracking", "tuning"], settings_of(project)) == ["tracking", "tuning"]
    assert {"experiments", "runs"} <= tables(project.root / "mlflow.db") and "trials" in tables(project.root / "data/interim/optuna.db")
    never = [("tracking", f"sqlite:///none{n}.db", "a complaint") for n in range(4)]
    with_us, *without = eight_at_once(project, ("tuning", URIS["tuning"], ""), ("tracking", URIS["tracking"], ""), *never)
    assert with_us == ["tuning", []] and without.pop(0) == ["tracking", []]
    with sqlite3.connect(project.root / "mlflow.db") as connection:
        assert connection.execute("select count(*) from experiments where name like 'from %'").fetchone() == (8,)
    assert any(complaints for _, complaints in without), "the fault this module is there for no longer exists: it may go"
    before = {p.name for p in project.root.rglob("*")}
    assert create_databases(["tracking", "tuning"], settings_of(project)) == [] and {p.name for p in project.root.rglob("*")} == before


def whole(uri: str) -> None:
    """Stands in for MLflow, which takes seconds to create its tables."""
    sqlite3.connect(uri.removeprefix("sqlite:///")).execute("create table experiments (name)")


def test_only_what_is_asked_for_and_only_files(tmp_path, monkeypatch):
    project = Project(tmp_path)
    monkeypatch.setattr(databases, "_tracking", whole)
    assert create_databases([], settings_of(project)) == []
    assert create_databases(["tracking", "tuning"], settings_of(project, TRACKING_URI="https://example.org", TUNING_STORAGE="journal:///x.log")) == []
    assert not list(project.root.rglob("*.db")) and not list(project.root.rglob("x.log"))
    inside = settings_of(project, TRACKING_URI=f"sqlite:///{project.root}/deep/er/m.db?timeout=20")
    assert create_databases(["tracking"], inside) == ["tracking"] and [p.name for p in (project.root / "deep/er").iterdir()] == ["m.db"]
    assert create_databases(["tracking"], inside) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space"), RuntimeError("no")], ids=["Ctrl-C", "disk", "other"])
def test_an_interrupted_creation_leaves_nothing_behind(tmp_path, monkeypatch, error):
    project = Project(tmp_path)

    def interrupted(uri: str) -> None:
        whole(uri)
        raise error

    monkeypatch.setattr(databases, "_tracking", interrupted)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        create_databases(["tracking"], settings_of(project))
    assert not [p for p in project.root.rglob("*") if "mlflow" in p.name]
    monkeypatch.setattr(databases, "_tracking", whole)
    assert create_databases(["tracking"], settings_of(project)) == ["tracking"]


def test_the_workflow_creates_what_its_stages_connect_to_before_any_of_them_starts(tmp_path):
    project = Project(tmp_path / "study")
    project.study("""
        stages:
          log: {notebook: nbs/log.ipynb, databases: [tracking, tuning]}
    """)
    project.notebook("log", "n: int = 1", "import sqlite3\nnames = sqlite3.connect('file:tuning.db?mode=ro', uri=True).execute(\n"
                                          "    'select count(*) from sqlite_master').fetchone()\nassert names[0] > 8, names")
    ended = project.run(ESA_TUNING_STORAGE="sqlite:///tuning.db", ESA_TRACKING_URI="https://tracking.example.org")
    assert ended.code == 0 and counts(ended) == {"succeeded": 1}, ended.out + ended.err
    assert "created the databases tuning\n" in ended.err, "a server has its own administrator"
