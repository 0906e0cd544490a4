"""Backup and restore: whole or not at all, verified before it is used, also in another place."""

import errno
import json
import os
import resource
import shutil
import signal

import pytest

from esa_notebooks.files import sha256
from esa_notebooks.registry import backup as module
from esa_notebooks.registry.backup import BackupError, backup, restore, verified
from esa_notebooks.registry.journal import append, check, in_production
from esa_notebooks.registry.store import digest
from tests.registry.registry_world import ADA, NAME, T0, World, timedelta


@pytest.fixture
def saved(again, two, tmp_path):
    backup(tmp_path / "saved", two.folder, again.uri, at=T0)
    return tmp_path / "saved"


def test_back_in_another_place_with_everything_working(saved, again, two, tmp_path, template):
    shutil.rmtree(again.folder / "mlruns")  # the original is lost
    placed = restore(saved, tmp_path / "new", ADA, at=T0)
    new = tmp_path / "new"
    assert sorted(placed) == [new / "mlflow.db", new / "mlruns" / "registry", new / "registry"]
    world = World(tmp_path / "new", f"sqlite:///{tmp_path}/new/mlflow.db", template)
    registry = world.registry()
    assert registry.entries()[-1].event == "restored" and check(registry.entries()) == []
    assert in_production(registry.entries(), NAME) == "2" and registry.audit() == []
    assert digest(registry.store, NAME, "2") == sha256(template / "2.zip")
    assert world.promote(registry, 3, "2", T0 + timedelta(days=2)) == "3" and registry.audit() == []
    assert (tmp_path / "new" / "registry" / "keys" / "builder.key").is_file(), "a new key was made and enrolled"


def test_over_what_is_there_only_by_force_and_set_aside(saved, again, two):
    two.rollback(NAME, ADA, "before the disaster", at=T0 + timedelta(days=2))
    key = (two.folder / "keys" / "builder.key").read_bytes()
    with pytest.raises(BackupError, match="--force"):
        restore(saved, again.folder, ADA)
    assert in_production(again.registry().entries(), NAME) == "1"
    restore(saved, again.folder, ADA, force=True, at=T0)
    other_name = (
        f"sqlite:///{again.folder}/../{again.folder.name}/mlflow.db"  # MLflow keeps what it opened by this process
    )
    registry = World(again.folder, other_name, again.detectors).registry()
    assert in_production(registry.entries(), NAME) == "2" and registry.audit() == []
    assert (registry.folder / "keys" / "builder.key").read_bytes() == key
    aside = sorted(p.name for p in again.folder.iterdir() if ".before-" in p.name)
    assert len(aside) >= 2 and not list(again.folder.glob(".*partial"))


def test_private_keys_are_not_in_it(saved):
    everything = [p for p in saved.rglob("*") if p.is_file()]
    assert not [p for p in everything if "keys" in p.parts or b"PRIVATE KEY" in p.read_bytes()]


def test_every_changed_missing_and_added_file_is_named(saved, tmp_path):
    files = [f["path"] for f in verified(saved)["files"]]
    assert len(files) > 20
    for path in files[:: max(1, len(files) // 12)]:
        whole = (saved / path).read_bytes()
        (saved / path).write_bytes(whole + b" ")
        with pytest.raises(BackupError, match="was changed"):
            restore(saved, tmp_path / "new", ADA)
        (saved / path).unlink()
        with pytest.raises(BackupError, match="is missing"):
            restore(saved, tmp_path / "new", ADA)
        (saved / path).write_bytes(whole)
    (saved / "files" / "more").write_text("x")
    with pytest.raises(BackupError, match="files/more is not listed"):
        restore(saved, tmp_path / "new", ADA)
    (saved / "files" / "more").unlink()
    (saved / path).unlink()
    (saved / path).symlink_to("/etc/hostname")
    with pytest.raises(BackupError, match="is a link"):
        restore(saved, tmp_path / "new", ADA)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("path", ["../outside", "files/../../outside", "/etc/outside", "a\\b", "files//x", ""])
@pytest.mark.parametrize("where", ["file", "folder", "database"])
def test_paths_that_lead_out_are_refused(saved, tmp_path, path, where):
    manifest = json.loads((saved / "manifest.json").read_text())
    if where == "file":
        manifest["files"][0]["path"] = path
    elif where == "folder":
        manifest["folders"][0]["to"] = path
    else:
        manifest["database"] = path
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackupError, match="names the path"):
        restore(saved, tmp_path / "new", ADA)
    assert not (tmp_path / "new").exists() and not (tmp_path / "outside").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "x", "files": [], "folders": [], "database": "a"}'])
def test_what_is_no_backup(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BackupError):
        restore(tmp_path, tmp_path / "new", ADA)


def test_a_full_disk_leaves_nothing(again, two, tmp_path):
    """The child may write files of 20 kB; the database is larger."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            backup(tmp_path / "saved", two.folder, again.uri)
        except BackupError as e:
            code = 0 if "copied" in str(e) or "written" in str(e) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not list(tmp_path.glob("*saved*")) and not list(tmp_path.glob(".saved*"))


def test_no_room_for_the_restored_files(saved, tmp_path, monkeypatch):
    real, calls = module._copied, [0]

    def full(source, target):
        calls[0] += 1
        if calls[0] > 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return real(source, target)

    monkeypatch.setattr(module, "_copied", full)
    with pytest.raises(BackupError, match="No space left.*Nothing was kept"):
        restore(saved, tmp_path / "new", ADA)
    assert list((tmp_path / "new").iterdir()) == []


def test_it_is_not_written_over_nor_into_itself(saved, again, two, tmp_path):
    with pytest.raises(BackupError, match="exists"):
        backup(saved, two.folder, again.uri)
    with pytest.raises(BackupError, match="lies inside"):
        backup(two.folder / "saved", two.folder, again.uri)
    with pytest.raises(BackupError, match="--database postgresql"):
        backup(tmp_path / "other", two.folder, "http://127.0.0.1:5000")


def test_a_journal_that_was_altered_is_not_brought_back(again, two, tmp_path):
    file = two.folder / "journal.jsonl"
    file.write_text(file.read_text().replace(ADA, "eve@example.org"))
    backup(tmp_path / "bad", two.folder, again.uri)
    with pytest.raises(BackupError, match="altered before the backup"):
        restore(tmp_path / "bad", tmp_path / "new", ADA)
    with pytest.raises(ValueError):
        append(file, "alarm", ADA)
