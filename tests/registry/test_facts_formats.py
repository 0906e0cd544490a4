"""What a model may be made of, and every disguise a pickle was seen in."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile
import zlib

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from esa_notebooks.models.detectors.storing import tensor_bytes
from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.models.served import CODE
from esa_notebooks.registry.facts.formats import LOADER, Limits, contents_of, formats
from esa_notebooks.registry.facts.pickles import pickled


class Caller:
    def __reduce__(self):
        return os.getenv, ("HOME",)


def zipped(members, **options) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def refused(path, **options) -> dict[str, str]:
    return contents_of(path, **options).refused


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.standard_normal((60, 3)), columns=list("abc"))
    y = (X.a + rng.standard_normal(60) > 0).astype(int)
    return ExtraTrees(0, n_estimators=3).fit(X, y).save(tmp_path_factory.mktemp("model") / "detector.zip")


def test_a_stored_detector_is_clean(detector):
    found = contents_of(detector, trusted=ExtraTrees.trusted)
    assert found.refused == {} and found.kinds[".safetensors"] == 1 and found.files > 5


@pytest.mark.parametrize("name", ["a.pkl", "a.json", "a.safetensors", "a.txt", "a.yaml", "MLmodel", "a.skops", "a.zip", "a.npy", "a.py"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_under_any_name(tmp_path, name, protocol):
    (tmp_path / name).write_bytes(pickle.dumps(Caller(), protocol))
    assert "a pickle" in refused(tmp_path)[name]


@pytest.mark.parametrize("coat", [gzip.compress, zlib.compress, bz2.compress, lzma.compress, lambda d: lzma.compress(d, lzma.FORMAT_ALONE)])
def test_a_compressed_pickle(tmp_path, coat):
    (tmp_path / "weights.json").write_bytes(coat(pickle.dumps(Caller())))
    assert "a pickle under" in refused(tmp_path)["weights.json"]


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3)])
def test_joblib(tmp_path, compress):
    joblib.dump({"weights": np.arange(1000.0)}, tmp_path / "model.txt", compress=compress)
    assert "a pickle" in refused(tmp_path)["model.txt"]


def test_a_torch_file_is_named_with_what_is_inside(tmp_path):
    torch.save({"w": torch.zeros(3)}, tmp_path / "model.safetensors")
    found = refused(tmp_path)
    assert "archive" in found["model.safetensors"] and any(n.endswith("data.pkl") and "a pickle" in why for n, why in found.items())


def test_arrays_of_objects_at_any_depth(tmp_path):
    np.save(stream := io.BytesIO(), np.array([Caller()], dtype=object), allow_pickle=True)
    inner = zipped([("schema.json", "{}"), ("1.npy", stream.getvalue())])
    (tmp_path / "outer.zip").write_bytes(zipped([("inner.zip", inner)]))
    assert "objects" in refused(tmp_path)["outer.zip!inner.zip!1.npy"]


def test_a_pickle_three_archives_deep(tmp_path):
    data = pickle.dumps(Caller())
    for name in ("notes.txt", "a.zip", "b.zip"):
        data = zipped([(name, data)])
    (tmp_path / "c.zip").write_bytes(data)
    assert "a pickle" in refused(tmp_path)["c.zip!b.zip!a.zip!notes.txt"]
    (tmp_path / "d.zip").write_bytes(zipped([("c.zip", data)]))
    assert any("depth" in why for name, why in refused(tmp_path).items() if name.startswith("d.zip"))


@pytest.mark.parametrize("name", ["../escape.txt", "a/../../b.txt", "/etc/passwd", "..\\b.txt", "C:/x.txt", "a\\b.txt"])
def test_members_that_lead_out(tmp_path, name):
    (tmp_path / "m.zip").write_bytes(zipped([(name, "x")]))
    assert list(refused(tmp_path).values()) == ["a name that leads out of its folder"]


def test_links_and_doubles_and_locked_members(tmp_path):
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    (tmp_path / "m.zip").write_bytes(zipped([(link, "/etc/passwd")]))
    with pytest.warns(UserWarning, match="Duplicate"):
        (tmp_path / "n.zip").write_bytes(zipped([("a.txt", "1"), ("a.txt", "2")]))
    locked = bytearray(zipped([("a.txt", "1")]))
    locked[6] |= 1
    locked[locked.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "o.zip").write_bytes(locked)
    (tmp_path / "outside.json").symlink_to(tmp_path / "m.zip")
    found = refused(tmp_path)
    assert found["m.zip!link.txt"] == found["outside.json"] == "a link or a device"
    assert found["n.zip!a.txt"] == "a name that occurs twice" and found["o.zip!a.txt"] == "encrypted"


def test_bombs_are_bounded(tmp_path):
    (tmp_path / "m.zip").write_bytes(zipped([("zeros.txt", bytes(10**7))], compression=zipfile.ZIP_DEFLATED))
    assert "unpacks to more" in refused(tmp_path, limits=Limits(bytes=10**6))["m.zip"]
    (tmp_path / "m.zip").write_bytes(zipped([(f"{i}.txt", "") for i in range(50)]))
    assert "members" in refused(tmp_path, limits=Limits(members=20))["m.zip"]
    (tmp_path / "m.zip").unlink()
    (tmp_path / "big.txt").write_bytes(b" " * 2000)
    assert "more than" in refused(tmp_path, limits=Limits(bytes=1000))["big.txt"]


def test_something_before_an_archive(tmp_path, detector):
    (tmp_path / "m.zip").write_bytes(b"#!/bin/sh\n" + detector.read_bytes())
    assert zipfile.is_zipfile(tmp_path / "m.zip") and "before its beginning" in refused(tmp_path)["m.zip"]


def test_a_skops_file_with_a_foreign_type(detector):
    with zipfile.ZipFile(detector) as archive:
        skops = archive.read("model.skops")
    with zipfile.ZipFile(io.BytesIO(skops)) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    schema = json.loads(members["schema.json"])
    schema["__class__"], schema["__module__"] = "Popen", "subprocess"
    members["schema.json"] = json.dumps(schema).encode()
    with io.BytesIO() as stream:
        stream.write(zipped(members.items()))
        path = detector.with_name("foreign.skops")
        path.write_bytes(stream.getvalue())
    assert "subprocess.Popen" in refused(path, trusted=ExtraTrees.trusted)["foreign.skops"]


@pytest.mark.parametrize("name, data, words", [
    ("a.safetensors", tensor_bytes({"a": np.zeros(2)}) + b"more", "belong to no tensor"), ("a.safetensors", b"", "no safetensors"),
    ("a.json", b"{", "no JSON"), ("a.json", b"[" * 100_000, "no JSON"), ("a.yaml", b"a: !!python/name:os.system", "asks for an object"),
    ("a.txt", b"\x1b[2J", "control"), ("a.txt", b"\xff\xfe", "UTF-8"), ("a.py", b"import os", "source code"), ("a.so", b"\x7fELF", "no known kind"),
    ("a.ipynb", b"{}", "no known kind"), ("a.zip", b"PK\x03\x04rest", "damaged"), ("a.npy", b"\x93NUMPY\x01\x00", "no array"),
    ("requirements.txt", b"numpy\n", "exact version"), ("requirements.txt", b"--index" b"-url https://example.org\n", "exact version"),
    ("MLmodel", b"flavors: {python_function: {loader_module: os}}", "opened by 'os'"),
    ("MLmodel", b"flavors: {sklearn: {}}", "other flavours")])
def test_each_kind_is_opened_as_what_it_says(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    assert words in refused(tmp_path)[name]


@pytest.mark.parametrize("name, data", [
    ("a.py", CODE.encode()), ("a.txt", b"MIT License\n"), ("a.txt", b"N.\n"), ("a.json", b"[]"), ("requirements.txt", b"numpy==2.2.0\n"),
    ("MLmodel", f"flavors: {{python_function: {{loader_module: {LOADER}}}}}".encode()),
    *((f"{n}.safetensors", n.to_bytes(8, "little") + b"{}" + b" " * (n - 2)) for n in (640, 0x2E4E))])
def test_what_is_known_passes(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert refused(tmp_path) == {}


def test_a_pickle_behind_the_length_of_a_header():
    """Read as an opcode, the length of a safetensors header swallows itself and thirteen bytes more; then the program begins."""
    program = b"cos\ngetenv\n(S'HOME'\ntR."
    data = (0x1058).to_bytes(8, "little") + b'{"__metadata_' + program
    assert pickled(data.ljust(8 + 0x1058)) == "a pickle"
    assert pickled(data.replace(program, b"x").ljust(8 + 0x1058)) == ""


def test_random_bytes_are_rarely_called_a_pickle():
    rng = np.random.default_rng(0)
    assert sum(bool(pickled(rng.bytes(400))) for _ in range(2000)) <= 2


def test_nothing_to_read(tmp_path):
    assert not formats(tmp_path / "none.zip").found or "none.zip" in formats(tmp_path / "none.zip").values["refused"]
    assert formats(tmp_path).values["files"] == 0
