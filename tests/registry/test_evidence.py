"""Bundles of evidence: every way of tampering is named by its file, and nothing unfit gets in."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esa_notebooks.files import sha256
from esa_notebooks.gate.signing import KeyFileError, key_id, public_bytes, sign, statement
from esa_notebooks.registry import evidence
from esa_notebooks.registry.evidence import (
    KIND,
    MANIFEST,
    PREDICATE,
    STATEMENT,
    BundleError,
    as_json,
    build,
    builder_key,
    enrolment,
    find_bundle,
    report_on,
    trusted_keys,
    verify_bundle,
)
from esa_notebooks.runs.record import canonical

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = {key_id(public_bytes(KEY)): public_bytes(KEY)}
PREDICATED = {"name": "example", "kind": "detector", "authors": ["a@example.org"], "at": "2026-11-25T00:00:00Z", "runs": []}
FILES = {"README.md": b"Read me.\n", "model/detector.zip": bytes(range(256)) * 40, "decision/decision.json": b'{"verdict": "passed"}',
         "runs/experiment/1/report.html": b"<p>report</p>", "runs/experiment/1/record.json": b"{}", "empty.txt": b""}
MEMBERS = sorted({*FILES, PREDICATE})


@pytest.fixture
def bundle(tmp_path):
    return build(tmp_path / "bundles", FILES, PREDICATED, KEY)


def wrong(bundle, trusted=TRUSTED) -> dict[str, str]:
    return {c.path: c.what for c in verify_bundle(bundle.folder, trusted)}


def edit_manifest(folder: Path, change) -> None:
    entries = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(as_json(change(entries)))


def test_a_fresh_bundle_is_intact_and_named_after_its_content(bundle, tmp_path):
    assert verify_bundle(bundle.folder, TRUSTED) == []
    assert bundle.folder.name == bundle.address == sha256(bundle.folder / MANIFEST)
    assert canonical(json.loads((bundle.folder / MANIFEST).read_bytes())) == bundle.address
    assert [p.name for p in (tmp_path / "bundles").iterdir()] == [bundle.address]   # nothing beside
    assert {n: (bundle.folder / n).read_bytes() for n in FILES} == FILES


def test_the_same_content_has_the_same_address_whatever_its_order_and_origin(bundle, tmp_path):
    (tmp_path / "file").write_bytes(FILES["model/detector.zip"])
    again = build(tmp_path / "elsewhere", {**dict(reversed(FILES.items())), "model/detector.zip": tmp_path / "file"}, PREDICATED, KEY)
    assert again.address == bundle.address
    assert (again.folder / STATEMENT).read_bytes() == (bundle.folder / STATEMENT).read_bytes()
    assert build(tmp_path / "bundles", FILES, PREDICATED, KEY) == bundle   # a second time, at the same place


@pytest.mark.parametrize("changed", ["files", "predicate"])
def test_another_content_has_another_address(bundle, tmp_path, changed):
    files = {**FILES, "README.md": b"Read me!\n"} if changed == "files" else FILES
    said = {**PREDICATED, "authors": []} if changed == "predicate" else PREDICATED
    assert build(tmp_path / "bundles", files, said, KEY).address != bundle.address


@pytest.mark.parametrize("path", MEMBERS)
def test_a_changed_file_is_named(bundle, path):
    (bundle.folder / path).write_bytes((bundle.folder / path).read_bytes() + b" ")
    found = wrong(bundle)
    assert path in found and "was changed" in found[path] and set(found) <= {path, PREDICATE}
    assert report_on(bundle.folder, TRUSTED)[1] == 1 and any(path in line for line in report_on(bundle.folder, TRUSTED)[0])


@pytest.mark.parametrize("path", [p for p in MEMBERS if p != "empty.txt"])
def test_a_file_changed_within_its_length_is_named(bundle, path):
    content = bytearray((bundle.folder / path).read_bytes())
    content[-2] ^= 1
    (bundle.folder / path).write_bytes(bytes(content))
    assert "was changed" in wrong(bundle)[path]


@pytest.mark.parametrize("path", MEMBERS)
def test_a_missing_file_is_named(bundle, path):
    (bundle.folder / path).unlink()
    assert "is missing" in wrong(bundle)[path]


def test_a_renamed_file_is_named_with_both_names(bundle):
    (bundle.folder / "model/detector.zip").rename(bundle.folder / "model/other.zip")
    assert wrong(bundle) == {"model/detector.zip": "is missing: it is now called model/other.zip."}


@pytest.mark.parametrize("path", ["added.txt", "model/added.txt", ".hidden", "new/folder/file"])
def test_an_added_file_is_named(bundle, path):
    (bundle.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (bundle.folder / path).write_text("new")
    assert wrong(bundle) == {path: "was added: the manifest does not list it."}


def test_an_added_folder_a_link_and_a_pipe_are_named(bundle, tmp_path):
    (bundle.folder / "void").mkdir()
    (bundle.folder / "README.md").unlink()
    (bundle.folder / "README.md").symlink_to(tmp_path / "elsewhere.md")
    (bundle.folder / "up").symlink_to("..")
    os.mkfifo(bundle.folder / "pipe")
    found = {(c.path, c.what) for c in verify_bundle(bundle.folder, TRUSTED)}
    assert ("void", "was added: an empty folder.") in found and ("pipe", "is no ordinary file.") in found
    assert sum("symbolic link" in what for _, what in found) == 2 and ("README.md", "is missing.") in found


def test_a_link_to_the_same_content_is_still_named(bundle, tmp_path):
    (tmp_path / "copy").write_bytes(FILES["README.md"])
    (bundle.folder / "README.md").unlink()
    (bundle.folder / "README.md").symlink_to(tmp_path / "copy")
    assert "symbolic link" in " ".join(c.what for c in verify_bundle(bundle.folder, TRUSTED))


def test_two_exchanged_files_are_both_named(bundle):
    a, b = bundle.folder / "runs/experiment/1/report.html", bundle.folder / "runs/experiment/1/record.json"
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two), b.write_bytes(one)
    assert set(wrong(bundle)) == {"runs/experiment/1/report.html", "runs/experiment/1/record.json"}


def test_a_manifest_corrected_after_the_file_gives_both_away(bundle):
    (bundle.folder / "README.md").write_bytes(b"Trust me")
    edit_manifest(bundle.folder, lambda es: [{**e, "sha256": sha256(bundle.folder / e["path"]),
                                              "bytes": (bundle.folder / e["path"]).stat().st_size} for e in es])
    found = wrong(bundle)
    assert set(found) == {MANIFEST, "README.md"} and "not what was signed" in found["README.md"]
    shutil.move(bundle.folder, bundle.folder.with_name(sha256(bundle.folder / MANIFEST)))   # now the address fits as well
    moved = bundle._replace(folder=bundle.folder.with_name(sha256(bundle.folder.with_name(
        next(p.name for p in bundle.folder.parent.iterdir())) / MANIFEST)))
    assert set(wrong(moved)) == {STATEMENT, "README.md"}


def test_a_file_dropped_from_manifest_and_folder_was_still_signed(bundle):
    (bundle.folder / "empty.txt").unlink()
    edit_manifest(bundle.folder, lambda es: [e for e in es if e["path"] != "empty.txt"])
    assert wrong(bundle)["empty.txt"] == "was signed, but the manifest does not list it."


@pytest.mark.parametrize("content, said", [
    (b"not json", "cannot be read as JSON"), (b"{}", "no list of files"), (b"[1]", "no list of files"), (b"null", "no list"),
    (b'[{"path": "a"}]', "no list of files"), (b"[" * 100_000, "cannot be read as JSON"), (b'"x"', "no list of files"),
    (b'[{"path": ["a"], "sha256": "", "bytes": 1}]', "no list of files")])
def test_a_manifest_that_is_none_is_named_and_the_files_are_still_checked(bundle, content, said):
    (bundle.folder / MANIFEST).write_bytes(content)
    (bundle.folder / "README.md").write_bytes(b"Trust me")
    found = [c for c in verify_bundle(bundle.folder, TRUSTED)]
    assert any(c.path == MANIFEST and said in c.what for c in found) and "README.md" in {c.path for c in found}


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/hostname", "a/../../outside.txt", "C:\\x", "a\x00b"])
def test_a_manifest_that_points_out_of_the_bundle_is_not_followed(bundle, tmp_path, path, monkeypatch):
    (tmp_path / "bundles" / "outside.txt").write_text("secret")
    looked = []
    monkeypatch.setattr(evidence, "sha256", lambda p: looked.append(Path(p).resolve()) or sha256(p))
    edit_manifest(bundle.folder, lambda es: [*es, {"path": path, "sha256": "0" * 64, "bytes": 6}])
    assert any("may not list it" in c.what for c in verify_bundle(bundle.folder, TRUSTED))
    assert looked and all(p.is_relative_to(bundle.folder.resolve()) for p in looked)


def test_an_unsigned_bundle_is_refused(bundle):
    (bundle.folder / STATEMENT).unlink()
    assert wrong(bundle) == {STATEMENT: "is missing: the bundle is unsigned."}
    (bundle.folder / STATEMENT).write_bytes(as_json({"payload": "", "payloadType": "application/vnd.in-toto+json", "signatures": []}))
    assert "unsigned" in wrong(bundle)[STATEMENT]


def test_a_bundle_signed_again_by_an_unknown_key_is_refused(bundle):
    told = json.loads((bundle.folder / MANIFEST).read_bytes())
    subjects = {e["path"]: e["sha256"] for e in told} | {"bundle": bundle.address}
    (bundle.folder / STATEMENT).write_bytes(as_json(sign(statement(subjects, KIND, PREDICATED), OTHER)))
    assert set(wrong(bundle)) == {STATEMENT} and "not known here" in wrong(bundle)[STATEMENT]
    assert wrong(bundle, {key_id(public_bytes(OTHER)): public_bytes(OTHER)}) == {}   # it is the signer that is not trusted
    assert STATEMENT in wrong(bundle, {})


@pytest.mark.parametrize("what", ["payload", "signature", "junk", "another bundle", "another predicate", "another kind"])
def test_an_edited_statement_is_named(bundle, tmp_path, what):
    path = bundle.folder / STATEMENT
    envelope, entries = json.loads(path.read_bytes()), json.loads((bundle.folder / MANIFEST).read_bytes())
    subjects = {e["path"]: e["sha256"] for e in entries} | {"bundle": bundle.address}
    if what == "payload":
        envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="
    elif what == "signature":
        envelope["signatures"][0]["sig"] = "A" * 86 + "=="
    elif what == "another bundle":
        envelope = json.loads((build(tmp_path / "b", {"x": b"1"}, PREDICATED, KEY).folder / STATEMENT).read_bytes())
    elif what == "another predicate":
        envelope = sign(statement(subjects, KIND, {**PREDICATED, "authors": []}), KEY)
    elif what == "another kind":
        envelope = sign(statement(subjects, "urn:other:1", PREDICATED), KEY)
    path.write_bytes(b"junk" if what == "junk" else as_json(envelope))
    assert {STATEMENT, PREDICATE} & set(wrong(bundle)), wrong(bundle)
    assert (PREDICATE if what == "another predicate" else STATEMENT) in wrong(bundle)


def test_a_renamed_bundle_is_named(bundle):
    bundle.folder.rename(bundle.folder.with_name("0" * 64))
    found = wrong(bundle._replace(folder=bundle.folder.with_name("0" * 64)))
    assert set(found) == {MANIFEST, STATEMENT}


def test_a_link_to_a_bundle_and_a_place_without_one_are_no_bundle(bundle, tmp_path):
    (tmp_path / "link").symlink_to(bundle.folder)
    for place in (tmp_path / "link", tmp_path / "nowhere", bundle.folder / "README.md"):
        assert [c.path for c in verify_bundle(place, TRUSTED)] == ["."]
    (tmp_path / "void").mkdir()
    assert {c.path for c in verify_bundle(tmp_path / "void", TRUSTED)} == {MANIFEST, STATEMENT}


@pytest.mark.parametrize("path", ["../x", "a/../b", "/x", "a\\b", "a//b", "./a", "a/.", "", "a\nb", "C:/x", "a" * 256, "cafe\u0301",
                                  MANIFEST, STATEMENT, PREDICATE, "bundle"])
def test_paths_that_are_not_fit_are_refused(tmp_path, path):
    with pytest.raises(BundleError, match="path|name"):
        build(tmp_path / "bundles", {path: b"x"}, PREDICATED, KEY)
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("files", [{"a": b"", "A": b""}, {"a": b"", "a/b": b""}, {"x/A": b"", "x/a/b": b""}])
def test_paths_that_would_cover_each_other_are_refused(tmp_path, files):
    with pytest.raises(BundleError):
        build(tmp_path / "bundles", files, PREDICATED, KEY)


@pytest.mark.parametrize("source", ["missing", "folder", "pipe", "device"])
def test_a_source_that_is_no_file_is_refused_and_nothing_is_left(tmp_path, source):
    path = Path("/dev/null") if source == "device" else tmp_path / source
    if source == "folder":
        path.mkdir()
    if source == "pipe":
        os.mkfifo(path)
        keep = os.open(path, os.O_RDWR)   # or opening it would wait for a writer
    with pytest.raises(BundleError, match="f.bin"):
        build(tmp_path / "bundles", {"a.txt": b"x", "f.bin": path}, PREDICATED, KEY)
    if source == "pipe":
        os.close(keep)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_predicate_with_a_nan_is_refused(tmp_path):
    with pytest.raises(BundleError, match="JSON"):
        build(tmp_path / "bundles", FILES, {"value": float("nan")}, KEY)
    assert not (tmp_path / "bundles").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    code = ("import resource, signal, sys; from pathlib import Path\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
            "from esa_notebooks.registry.evidence import BundleError, build\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
            "try: build(Path(sys.argv[1]), {'a.txt': b'x', 'm.bin': Path(sys.argv[2])}, {}, Ed25519PrivateKey.generate())\n"
            "except BundleError as e: print(e)\n")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bundles", tmp_path / "large"], capture_output=True, text=True)
    assert "cannot be written" in done.stdout and "Nothing was kept" in done.stdout, done.stderr
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        build(tmp_path / "file", FILES, PREDICATED, KEY)


def test_a_damaged_bundle_is_not_overwritten(bundle, tmp_path):
    (bundle.folder / "README.md").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="README.md"):
        build(tmp_path / "bundles", FILES, PREDICATED, KEY)
    assert (bundle.folder / "README.md").read_bytes() == b"damaged"


def test_a_kill_in_the_middle_leaves_no_bundle(tmp_path):
    """The process dies after the last file and before the renaming: the address does not exist, and the next build makes it."""
    code = ("import os, sys; from pathlib import Path\n"
            "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
            "from esa_notebooks.registry import evidence\n"
            "evidence._settled = lambda *a: os.kill(os.getpid(), 9)\n"
            "evidence.build(Path(sys.argv[1]), {'a.txt': b'x'}, {}, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))\n")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bundles"])
    assert done.returncode == -9 and all(p.name.startswith(".") for p in (tmp_path / "bundles").iterdir())
    made = build(tmp_path / "bundles", {"a.txt": b"x"}, {}, KEY)
    assert verify_bundle(made.folder, TRUSTED) == []


def test_a_large_file_is_streamed(tmp_path):
    with open(tmp_path / "large", "wb") as f:
        f.truncate(100 << 20)
    code = ("import sys; from pathlib import Path\n"
            "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
            "from esa_notebooks.registry.evidence import build, verify_bundle\n"
            "def peak():\n"   # not ru_maxrss, which begins with the memory of the process that started this one
            "    told = dict(line.split(':') for line in Path('/proc/self/status').read_text().splitlines())\n"
            "    return int(told['VmHWM'].split()[0])\n"
            "before = peak()\n"
            "verify_bundle(build(Path(sys.argv[1]), {'m.bin': Path(sys.argv[2])}, {}, Ed25519PrivateKey.generate()).folder, {})\n"
            "print(peak() - before)\n")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bundles", tmp_path / "large"], capture_output=True, text=True)
    assert int(done.stdout) < 50 << 10, done.stderr   # KiB
    shutil.rmtree(tmp_path / "bundles")


def test_the_builders_key_is_ones_own_and_refused_when_others_may_read_it(tmp_path):
    key = builder_key(tmp_path / "registry")
    path = tmp_path / "registry" / "keys" / "builder.key"
    assert path.stat().st_mode & 0o777 == 0o600 and public_bytes(builder_key(tmp_path / "registry")) == public_bytes(key)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        builder_key(tmp_path / "registry")


def test_a_key_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "registry").write_text("a file where a folder should be")
    with pytest.raises(KeyFileError, match="cannot be made"):
        builder_key(tmp_path / "registry")


def test_keys_are_trusted_from_the_journal_and_from_the_builders():
    class Entry:
        def __init__(self, event, details):
            self.event, self.details = event, details

    class Builder:
        key = public_bytes(OTHER)

    found = trusted_keys([Entry("began", {}), Entry("enrolled", enrolment(KEY)), Entry("alarm", {"key": "junk"})], [Builder])
    assert found == {**TRUSTED, key_id(public_bytes(OTHER)): public_bytes(OTHER)}
    with pytest.raises(KeyFileError):
        trusted_keys([Entry("enrolled", {"key": "short"})])


def test_bundles_are_found_by_address_or_folder(bundle, tmp_path):
    bundles = tmp_path / "bundles"
    assert find_bundle(bundles, bundle.address) == find_bundle(bundles, bundle.address[:12]) == bundle.folder
    assert find_bundle(bundles, str(bundle.folder)) == bundle.folder
    assert find_bundle(bundles, "latest") is find_bundle(bundles, bundle.address[:7]) is find_bundle(bundles, "../..") is None
    lines, code = report_on(bundle.folder, TRUSTED)
    assert code == 0 and len(lines) == 1 and "intact" in lines[0] and "detector example" in lines[0]
