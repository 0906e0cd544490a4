"""Sources: where they come from, and everything that can go wrong on the way."""

import hashlib
import http.server
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
from esa_notebooks.data.sources import ChecksumError, File, NotObtained, Source, SourceError, obtain

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


def test_every_source_is_fully_described():
    for source in sources.SOURCES.values():
        assert (
            source.title and source.licence and source.citation and source.how in ("download", "package", "generated")
        )
        assert all(re.fullmatch(r"[0-9a-f]{64}", f.sha256) and f.size > 0 for f in source.files)
        assert all(f.url.startswith("https://") for f in source.files if source.how == "download")


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
