"""The commands of the registry: what they say, and the exit code by which a script knows whose turn it is."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

import esa_notebooks.commands.registry  # noqa: F401 (hangs its commands on the application)
from esa_notebooks.commands.app import Exit, app
from esa_notebooks.commands.promote import concluded, held_against
from esa_notebooks.gate.signing import public_text
from esa_notebooks.registry.store import set_alias
from esa_notebooks.settings import load
from tests.registry.registry_world import ADA, AUTHOR, BEN, NAME, T0, World, datetime, key_of, timedelta

ROOT = Path(__file__).resolve().parents[2]
UNTIL = {"roles": ["service owner"], "domains": ["operational"], "until": "2037-12-31"}


def call(*words: str) -> tuple[int, str]:
    """Exit code and everything said."""
    found = CliRunner().invoke(app, list(words))
    if isinstance(found.exception, Exit):
        return found.exception.code, found.output + str(found.exception)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.output


@pytest.fixture
def project(again, monkeypatch, tmp_path):
    """A project whose registry has the champion 2, with Ada, Ben and the author in approvers.yaml."""
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, again.folder / name)
    people = [
        {"name": e, "email": e, "key": public_text(key_of(n)), **UNTIL} for e, n in ((ADA, 1), (BEN, 2), (AUTHOR, 4))
    ]
    owners = [{"id": "flight-dynamics-data", "title": "x", "contact": "owner@example.org"}]
    (again.folder / "governance" / "models").mkdir(parents=True)
    (again.folder / "governance" / "approvers.yaml").write_text(
        json.dumps({"schema": "esa-notebooks/people/1", "owners": owners, "approvers": people})
    )
    declared = yaml.safe_load((ROOT / "governance" / "models" / "opssat-anomalies.yaml").read_text()) | {"name": NAME}
    (again.folder / "governance" / "models" / f"{NAME}.yaml").write_text(yaml.safe_dump(declared))
    for name, value in {"PROJECT_ROOT": str(again.folder), "TRACKING_URI": again.uri, "REGISTRY_IDENTITY": BEN}.items():
        monkeypatch.setenv(f"ESA_{name}", value)
    monkeypatch.chdir(again.folder)
    return again


@pytest.fixture
def key(tmp_path):
    def written(seed: int) -> str:
        file = tmp_path / f"{seed}.key"
        file.touch(0o600)
        file.write_bytes(key_of(seed).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(file)

    return written


def waiting(project: World) -> None:
    """Version 3 awaits approval, from now on."""
    registry = project.registry()
    project.challenge(registry, 3, "2", datetime.now(T0.tzinfo) - timedelta(minutes=1))


def test_a_life_in_commands(project, key, monkeypatch):
    waiting(project)
    code, said = call("registry", "status")
    assert code == 0 and "champion 2" in said and f"esa-notebooks approve {NAME}" in said
    code, said = call("approve", f"{NAME}@challenger", "--key", key(1), "--comment", "read it")
    assert code == 0 and "in place of version 2" in said and f"Version 3 of {NAME} is in production." in said
    code, said = call("rollback", NAME, "--reason", "false alarms at night", "--to", "none")
    assert (code, said) == (0, f"{NAME} is out of service.\n")
    code, said = call("retire", NAME, "3", "--reason", "no good at all")
    assert code == 0 and "Version 3" in said
    code, said = call("journal", NAME)
    assert code == 0 and "rolled_back" in said and "false alarms at night" in said and BEN in said
    assert call("journal", "--check") == (0, "Journal, model registry and evidence agree.\n")


@pytest.mark.parametrize(
    "seed, said", [(4, "nobody approves their own work"), (9, "is no approver's")], ids=["author", "stranger"]
)
def test_refused_approvals(project, key, seed, said):
    waiting(project)
    code, told = call("approve", NAME, "--key", key(seed))
    assert code == 1 and said in told and project.registry().store.model(NAME).aliases["champion"] == "2"


def test_what_is_asked_for_wrongly(project, key):
    waiting(project)
    for words, code, said in [
        (("approve", NAME), 2, "With which key"),
        (("approve", f"{NAME}@champion", "--key", key(1)), 2, "Only a challenger"),
        (("approve", "thermal-anomaly", "--key", key(1)), 2, f"Did you mean `{NAME}`"),
        (("approve", NAME, "--key", "/nowhere/key"), 2, "cannot be read"),
        (("rollback", NAME), 2, "reason"),
        (("rollback", NAME, "--reason", "bad"), 1, "Say why"),
        (("retire", NAME, "2", "--reason", "no good"), 1, "in production"),
        (("restore", "nothing-here"), 3, "no backup"),
    ]:
        found, told = call(*words)
        assert found == code and said in told, (words, told)


def test_nobody_in_particular_takes_nothing_back(project, monkeypatch):
    monkeypatch.setenv("ESA_REGISTRY_IDENTITY", "passer.by@example.org")
    code, said = call("rollback", NAME, "--reason", "because I can")
    assert code == 1 and "no approver" in said


def test_a_store_that_is_not_reachable(project, monkeypatch):
    monkeypatch.setenv("ESA_TRACKING_URI", "http://127.0.0.1:1")
    for words in (("registry", "status"), ("rollback", NAME, "--reason", "a good one"), ("journal", "--check")):
        code, said = call(*words)
        assert code == 3 and "127.0.0.1:1 cannot be used" in said
    code, said = call("journal")
    assert code == 0 and "champion" in said, "what was in production can be read while MLflow is down"


def test_an_alias_moved_behind_the_back(project):
    set_alias(project.registry().store, NAME, "champion", "1")
    code, said = call("journal", "--check")
    assert code == 1 and "alias:" in said and "--repair" in said
    code, said = call("journal", "--repair", "--reason", "found at the review")
    assert code == 0 and "put back to version 2: found at the review" in said
    assert call("journal", "--check")[0] == 0


def test_backup_and_restore(project, tmp_path):
    code, said = call("backup", str(tmp_path / "saved"))
    assert code == 0 and "files" in said
    code, said = call("restore", str(tmp_path / "saved"))
    assert code == 3 and "--force" in said
    code, said = call("restore", str(tmp_path / "saved"), "--into", str(tmp_path / "new"))
    assert code == 0 and str(tmp_path / "new" / "registry") in said


def test_keys(project, tmp_path):
    code, said = call("keys", "new", str(tmp_path / "mine.key"))
    lines = yaml.safe_load("approvers:\n" + "\n".join(x for x in said.splitlines() if not x.startswith("#")))[
        "approvers"
    ]
    assert code == 0 and lines[0]["email"] == BEN and (tmp_path / "mine.key").stat().st_mode & 0o777 == 0o600
    assert call("keys", "show", str(tmp_path / "mine.key")) == (0, lines[0]["key"] + "\n")
    assert "PRIVATE" not in said
    assert call("keys", "new", str(tmp_path / "mine.key"))[0] == 2
    assert (
        call("keys", "new", str(project.folder / "inside.key"))[0] == 2 and not (project.folder / "inside.key").exists()
    )


def test_what_is_in_production_is_compared_with_out_of_its_bundle(project):
    settings, (address,) = load(), {e.bundle for e in project.registry().entries() if e.version == "2" and e.bundle}
    with pytest.raises(Exit, match=r"model/scores\.parquet is not among its files"):
        held_against(settings, NAME, {})
    with pytest.raises(Exit, match=r"Version 2 .* README\.md was changed") as told:
        (project.folder / "registry" / "bundles" / address / "README.md").write_bytes(b"evidencf\n")
        held_against(settings, NAME, {})
    assert told.value.code == 1
    assert held_against(settings, NAME, {"against": "x.parquet"}) == {}, "who names a file names its version too"
    assert held_against(settings, "never-promoted", {}) == {}
    call("rollback", NAME, "--reason", "out of service", "--to", "none")
    assert held_against(settings, NAME, {}) == {}, "nothing is in production: a baseline, as for a first model"
    assert not (project.folder / "data").exists()


@pytest.mark.parametrize("status, code", [("failed", 3), ("timed_out", 3), ("killed", 3), ("cancelled", 130)])
def test_a_promotion_that_broke_off_is_no_refusal(project, status, code):
    (project.folder / "decision.json").write_text(json.dumps({"verdict": "passed"}))   # of an earlier run
    record = {"status": status, "reason": {"what": "No room.", "where": "cell 3", "do": "Make some."}}
    bound = {"decision": SimpleNamespace(value=Path("decision.json")), "dry_run": SimpleNamespace(value=False)}
    with pytest.raises(Exit, match=rf"{status}: No room\. \(cell 3\) Make some\.") as told:
        concluded(load(), NAME, record, bound)
    assert told.value.code == code
