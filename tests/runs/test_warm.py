"""Warm runs through the real command and a real server: the same results, the same honesty, and nobody left behind."""
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from esa_notebooks.runs import provision
from esa_notebooks.runs.execution import kernel_environment
from esa_notebooks.runs.warm import NEEDED, receive, send, third_party, warm_runner
from tests.runs.conftest import ROOT, Study, text_of
from tests.runs.test_faults import FAULTS, SUCCESSES
from tests.runs.test_honesty import OUT, PROCESS, THREAD

EXECUTE = [sys.executable, "-m", "esa_notebooks.cli", "execute", "--quiet"]
WARM = "print('papermill' in sys.modules)"   # true only in a kernel that was forked from the server


def clean() -> dict[str, str]:
    """The environment of a client. Looked at when it starts, as the server does: other tests' imports set variables."""
    return {k: v for k, v in os.environ.items() if k not in ("ESA_PROJECT_ROOT", "ESA_RUN_ID", "PYTEST_CURRENT_TEST")}


def started(env: dict[str, str]) -> psutil.Process:
    """The server behind `env`."""
    folder = str(Path(env["ESA_WARM"]).parent)
    (server,) = [p for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE and folder in p.cmdline()]
    return server


@contextmanager
def serving(study: Study, modules: list[str]) -> Iterator[SimpleNamespace]:
    """A server for `study`: its environment and process. pytest's own variable is neither in it nor in a client."""
    told = os.environ.pop("PYTEST_CURRENT_TEST")
    with warm_runner(study.root, modules) as env:
        os.environ["PYTEST_CURRENT_TEST"] = told
        yield SimpleNamespace(study=study, env=env, process=started(env))


def offspring(server: psutil.Process, within: float = 2) -> list[psutil.Process]:
    """What is left below the server when `within` seconds have passed, or earlier when nothing is."""
    until = time.monotonic() + within
    while (left := server.children(recursive=True)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def popen(study: Study, path: Path | str, env: dict[str, str], **settings: object) -> subprocess.Popen:
    """The command, started; run_timeout_s=3 stands for ESA_RUN_TIMEOUT_S=3."""
    given = {f"ESA_{k.upper()}": str(v) for k, v in settings.items()}
    return subprocess.Popen([*EXECUTE, str(path)], cwd=study.root, env=clean() | given | env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(study: Study, path: Path, env: dict[str, str], **settings: object) -> SimpleNamespace:
    """The run that the command made, with its exit code and what it said."""
    process = popen(study, path, env, **settings)
    stdout, stderr = process.communicate(timeout=240)
    folder = max((study.root / "reports" / "runs" / path.stem).iterdir(), key=lambda p: p.stat().st_mtime_ns)
    done = study.result(folder)
    done.code, done.stdout, done.stderr = process.returncode, stdout, stderr
    return done


def wait_for(path: Path, process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, "it never began"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(shared):
    """One server for the module: its environment, its process, the study."""
    with serving(shared, [*NEEDED, "pandas", "matplotlib.pyplot", "pyarrow.parquet"]) as running:
        yield running


@pytest.fixture(scope="module")
def campaign(request, server):
    """The selected faults, three at a time: {name: run}."""
    names = [i.callspec.params["fault"] for i in request.session.items
             if i.path == Path(__file__) and "fault" in getattr(getattr(i, "callspec", None), "params", {})]

    def one(name: str) -> SimpleNamespace:
        case = next((f for f in FAULTS if f.name == name), None)
        cells = case.cells if case else (SUCCESSES[name],)
        path = server.study.write(name, WARM, *cells, f"print('the last cell of {name}')")
        return run(server.study, path, server.env, **(case.settings if case else {}))
    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(one, name) for name in dict.fromkeys(names)}


# --- the same as cold -------------------------------------------------------------------------------------------------

DRAWS = "import random, numpy as np, pandas as pd\n" \
        "print(random.random(), np.random.rand(), hash('x'), set('abcdef'), pd.get_option('display.max_columns'))\n" \
        "a = np.random.rand(500, 500); print((a @ a).sum(), pd.DataFrame(a).to_parquet('/dev/null') or 'written')"
FACTS = """
import gc, json, locale, logging, resource, signal, tempfile, threading, time, warnings, __main__
import matplotlib.pyplot as plt, pandas as pd
mask = os.umask(0); os.umask(mask)
app = __import__("ipykernel.kernelapp", fromlist=["_"]).IPKernelApp.instance()
own = ("ESA_RUN_ID", "ESA_KERNEL", "IPYTHONDIR", "JPY_PARENT_PID")
print(json.dumps({
  "arguments": [sys.argv[0], sys.argv[1], len(sys.argv), sys.orig_argv[:4], sys.executable],
  "places": [sys.path, os.getcwd(), tempfile.gettempdir()], "umask": mask,
  "environment": {k: v for k, v in os.environ.items() if k not in own},
  "language": [locale.setlocale(locale.LC_ALL), time.tzname, sys.getfilesystemencoding()],
  "main": [__name__, sorted(k for k in vars(__main__) if k[:2] != "_i"), getattr(__main__, "__file__", None)],
  "prompts": [sys.ps1, sys.ps2, sys.ps3], "flags": [str(sys.flags), sys.dont_write_bytecode, sys.getrecursionlimit()],
  "threads": sorted(t.name for t in threading.enumerate()),
  "signals": {s.name: getattr(signal.getsignal(s), "__qualname__", str(signal.getsignal(s))) for s in signal.Signals},
  "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
  "streams": [type(sys.stdout).__name__, sys.stdout.encoding, sys.__stdout__.encoding, sys.__stdout__.errors,
              sys.__stdout__.line_buffering, sys.stdin.read(), os.fstat(0).st_mode],
  "group": [os.getpgid(0) == os.getpid() == os.getsid(0), app.parent_handle == os.getppid()],
  "limits": [resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith("RLIMIT_")],
  "matplotlib": [plt.get_backend(), str(sorted((k, str(v)) for k, v in plt.rcParams.items())), plt.get_fignums(),
                 str(plt._REPL_DISPLAYHOOK)],
  "pandas": {k: str(pd.get_option(k)) for k in ("display.max_columns", "display.width", "mode.string_storage")},
  "events": {k: len(v) for k, v in get_ipython().events.callbacks.items()},
  "logging": [logging.getLogger().level, str(logging.getLogger().handlers)],
  "filters": sorted(map(str, warnings.filters)), "collector": [gc.isenabled(), gc.get_threshold()],
  "project": sorted(m for m in sys.modules if m.startswith("esa"))}))
"""


@pytest.fixture(scope="module")
def both(server):
    """A notebook of draws and facts: twice warm, once cold."""
    path = server.study.write("both", DRAWS, FACTS, WARM)
    told = [text_of(run(server.study, path, env)).splitlines() for env in (server.env, server.env, {})]
    assert [t[-1] for t in told] == ["True", "True", "False"], "warm, warm, cold"
    return [(t[:-2], json.loads(t[-2])) for t in told]


def test_two_warm_runs_and_a_cold_one_draw_and_compute_the_same(both):
    assert len(both[0][0]) == 2 and both[0][0] == both[1][0] == both[2][0]


def test_a_notebook_cannot_tell_a_warm_kernel_from_a_cold_one(both):
    warm, cold = both[0][1], both[2][1]
    assert set(cold["filters"]) <= set(warm.pop("filters")), "a filter is missing"
    del cold["filters"]   # a warm kernel has those of modules that this notebook does not import, too
    assert warm == cold


def test_the_file_mask_folder_and_output_are_those_of_the_client(server):
    path = server.study.write("mask", "os.umask(m := os.umask(0)); print(oct(m), os.getcwd())", WARM)
    before = os.umask(0o027)
    try:
        done = run(server.study, path, server.env)
    finally:
        os.umask(before)
    assert text_of(done).splitlines() == [f"0o27 {server.study.root}", "True"]
    assert done.stdout.strip() == str(done.folder / "report.html") and done.code == 0
    assert (done.folder / "record.json").stat().st_mode & 0o777 == 0o640


def test_what_a_notebook_does_to_a_library_the_next_does_not_see(server):
    study, imports = server.study, "import pandas as pd, warnings, matplotlib.pyplot as plt"
    spoil = study.write("spoil", imports, "pd.Series.sum = lambda self: 42; warnings.simplefilter('error')\n"
                        "plt.rcParams['lines.linewidth'] = 9; pd.set_option('display.width', 9)\n"
                        "os.chdir('/'); os.umask(0); sys.path.append('/x'); print(pd.Series([1]).sum())", WARM)
    look = study.write("look", imports, "print(pd.Series([1]).sum(), plt.rcParams['lines.linewidth'], "
                       "pd.get_option('display.width'), '/x' in sys.path, os.getcwd())", WARM)
    assert text_of(run(study, spoil, server.env)).split() == ["42", "True"]
    assert text_of(run(study, look, server.env)).split() == ["1", "1.5", "80", "False", str(study.root), "True"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A study with a copy of this package of its own, and a server for it."""
    study = Study(tmp_path_factory.mktemp("elsewhere"))
    shutil.copytree(ROOT / "esa_notebooks", study.root / "esa_notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    with serving(study, list(NEEDED)) as running:
        yield running


def test_an_edited_module_counts_from_the_next_run_in_kernel_and_runner(elsewhere):
    package, lib, told = elsewhere.study.root / "esa_notebooks", elsewhere.study.root / "lib", []
    lib.mkdir()
    (lib / "__init__.py").touch()
    path = elsewhere.study.write("edited", "from esa_notebooks import style; from lib.used import A",
                                 "print(style.EDIT, A)", WARM)
    engine = (package / "runs" / "engine.py").read_text()
    for n in (1, 22):
        (lib / "used.py").write_text(f"A = {n}")
        with (package / "style.py").open("a") as f:
            f.write(f"\nEDIT = {n}\n")
        (package / "runs" / "engine.py").write_text(engine + f"\nimport sys\nprint('engine {n}', file=sys.stderr)\n")
        done = run(elsewhere.study, path, elsewhere.env)
        told += [*text_of(done).split(), re.search(r"engine (\d+)", done.stderr)[1]]
    assert told == ["1", "1", "True", "1", "22", "22", "True", "22"]


def test_a_server_that_is_not_what_is_on_disk_is_not_used(elsewhere):
    with (elsewhere.study.root / "esa_notebooks" / "runs" / "provision.py").open("a") as f:
        f.write("# edited\n")
    assert hand_over(elsewhere) == "None Without the warm runner (its own code has changed meanwhile): " \
                                   "this takes a few seconds longer."


# --- honesty ----------------------------------------------------------------------------------------------------------

FEW = {"exception", "os-exit-7", "sigkill-itself", "hang", "memory-of-a-child", "sigint-from-outside", "daemon", "pool"}
ALL = [f.name for f in FAULTS if f.kernel == "python3"] + list(SUCCESSES)


@pytest.mark.parametrize("fault", [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in ALL])
def test_a_warm_kernel_ends_as_a_cold_one_would(campaign, fault):
    done, case = campaign[fault].result(timeout=250), next((f for f in FAULTS if f.name == fault), None)
    record = done.record
    assert text_of(done).startswith("True") and record["environment"]["kernel_start"] == "warm"
    assert record["status"] == (case.status if case else "succeeded"), record["reason"]
    assert done.code == (0 if record["status"] == "succeeded" else 1), done.stderr
    if case:
        assert re.search(case.what, record["reason"]["what"], re.S), record["reason"]
        assert case.where.replace("cell 4", "cell 5") in record["reason"]["where"]
        assert not case.pending or record["cells"][-1]["status"] == "pending"
    if fault == "flood":
        assert len(done.notebook["cells"][4]["outputs"]) == 20_000


def test_nobody_is_left_after_all_that(campaign, server):
    for waiting in campaign.values():
        waiting.result(timeout=250)
    assert offspring(server.process) == []
    folder = Path(server.env["ESA_WARM"]).parent
    assert {p.name for p in folder.iterdir()} == {"socket", "log", "state.json"}


WRITING = {"thread": (THREAD, "still at work"), "process": (PROCESS, "still open"),
           "open": ("f = out.open('w'); f.write('x')", "still open")}


@pytest.mark.parametrize("way", [pytest.param(w, marks=() if w == "open" else pytest.mark.slow) for w in WRITING])
def test_an_output_still_being_written_is_no_success(server, way):
    source, what = WRITING[way]
    done = run(server.study, server.study.write(f"writing-{way}", source, WARM, parameters=OUT), server.env)
    assert done.record["status"] == "failed" and what in done.record["reason"]["what"], done.record["reason"]
    assert text_of(done) == "True\n" and offspring(server.process) == []


def test_a_child_without_its_environment_does_not_outlive_the_run(server):
    path = server.study.write("bare", "import subprocess\n"
                              "subprocess.run(['env', '-i', 'sh', '-c', 'setsid sleep 303 &'])", WARM)
    assert run(server.study, path, server.env).record["status"] == "succeeded"
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "303"]]


def test_what_is_written_at_exit_is_written(server):
    path = server.study.write("exit", "import atexit, tempfile, weakref\natexit.register(Path('at-exit').touch)\n"
                              "f = open('never-closed', 'w'); f.write('whole')\n"
                              "kept = tempfile.TemporaryDirectory(dir='.', prefix='t-')", WARM)
    assert text_of(run(server.study, path, server.env)) == "True\n"
    assert (server.study.root / "at-exit").exists() and (server.study.root / "never-closed").read_text() == "whole"
    assert list(server.study.root.glob("t-*")) == []


def test_two_at_once_are_both_warm_and_run_side_by_side(server):
    work = "import time; a = time.monotonic(); time.sleep(2); print(a, time.monotonic())"
    paths = [server.study.write(f"twin{n}", work, WARM) for n in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        told = [text_of(r).split() for r in pool.map(lambda p: run(server.study, p, server.env), paths)]
    (a, b, warm1), (c, d, warm2) = told
    assert warm1 == warm2 == "True" and float(a) < float(d) and float(c) < float(b)


# --- cold where warm would not be sound -------------------------------------------------------------------------------

COLD = {"sets": ("os.environ['OMP_NUM_THREADS'] = '1'", {}, "cell 4 sets an environment variable"),
        "given": ("pass", {"PYTHONWARNINGS": "ignore"}, "PYTHONWARNINGS differ")}


@pytest.mark.parametrize("way", list(COLD))
def test_where_an_import_might_have_read_something_else_the_kernel_is_cold(server, way):
    source, env, why = COLD[way]
    done = run(server.study, server.study.write(f"cold-{way}", source, WARM), server.env | env)
    assert done.record["status"] == "succeeded" and text_of(done) == "False\n"
    assert done.record["environment"]["kernel_start"] == "cold"
    assert [w for w in done.record["warnings"] if why in w], done.record["warnings"]
    assert offspring(server.process) == []


def hand_over(server: SimpleNamespace, before: str = "", env: dict[str, str] | None = None, **how: object) -> str:
    """What `hand_over` of a harmless command returns, and says."""
    ask = f"{before}\nfrom esa_notebooks.runs.warm import hand_over; print(hand_over(['x'], 'builtins:dir'))"
    ended = subprocess.run([sys.executable, "-c", ask], cwd=server.study.root, env=clean() | (env or server.env),
                           text=True, capture_output=True, timeout=60, **how)
    return " ".join((ended.stdout + ended.stderr).split())


def test_a_process_with_other_limits_is_refused(server):
    least = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1]))"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
    assert "None Without the warm runner (its limits, processors or priority are not" in hand_over(server, least)
    assert "None Without" in hand_over(server, "import os; os.nice(1)")


def test_a_socket_that_is_gone_means_cold(server):
    assert hand_over(server, env={"ESA_WARM": "/nowhere"}) == \
        "None Without the warm runner (No such file or directory): this takes a few seconds longer."


def test_a_client_that_says_nothing_sensible_does_not_stop_the_server(server):
    for words in (b"", b"\0\0\0\x04oops", b"\0\0\0\xff{"):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(server.env["ESA_WARM"])
            s.sendall(words)
    assert "Without" not in hand_over(server)


def test_the_socket_is_for_its_owner_only(server):
    assert Path(server.env["ESA_WARM"]).parent.stat().st_mode & 0o777 == 0o700


# --- somebody dies ----------------------------------------------------------------------------------------------------

BUSY = "import subprocess, time\nsubprocess.Popen(['sleep', '304'])\nPath('ready-{0}').touch(); time.sleep(60)"


def busy(server: SimpleNamespace, name: str) -> subprocess.Popen:
    """A client whose kernel is at work."""
    process = popen(server.study, server.study.write(name, WARM, BUSY.format(name)), server.env)
    wait_for(server.study.root / f"ready-{name}", process)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
                         ids=lambda s: s.name)
def test_a_client_asked_to_stop_has_the_run_cancelled(server, number):
    process = busy(server, f"asked-{number.name}")
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    record = server.study.result(server.study.only_run(f"asked-{number.name}")).record
    assert record["status"] == "cancelled" and number.name in record["reason"]["what"] and process.returncode == 1, said
    assert offspring(server.process) == []


def test_a_client_that_is_killed_takes_runner_and_kernel_along(server):
    process = busy(server, "client-killed")
    process.kill()
    process.communicate()
    assert offspring(server.process) == []
    record = server.study.result(server.study.only_run("client-killed")).record
    assert record["status"] == "killed" and record["ended"] is None


def test_a_client_ends_as_its_runner_ended(server):
    process = busy(server, "runner-killed")
    (runner,) = server.process.children()
    runner.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL and offspring(server.process) == []


def test_a_fork_that_cannot_become_the_kernel_is_replaced_by_a_cold_one(study, monkeypatch):
    """One that is dead when it is to get its orders, and one that dies with them."""
    for obeys in (False, True):
        here, there = socket.socketpair()
        fork = os.fork()
        if fork == 0:
            here.close()
            if obeys:
                receive(there, 1)
                send(there, {"ready": 1})
            os._exit(1)
        there.close()
        monkeypatch.setattr(provision, "spare", provision.Spare(fork, here, kernel_environment(study.root, "")))
        done = study.run(study.write(f"obeys-{obeys}", WARM))
        assert done.record["status"] == "succeeded" and text_of(done) == "False\n", done.record["reason"]
        assert done.record["environment"]["kernel_start"] == "cold"
        why = "did not start at try 1" if obeys else "started cold: the fork"
        assert any(why in w for w in done.record["warnings"]), done.record["warnings"]
        with pytest.raises(ChildProcessError):
            os.waitpid(fork, 0)   # buried by the runner


def test_a_server_that_dies_in_the_middle_ends_its_runs_and_they_say_so(tmp_path):
    study = Study(tmp_path / "study")
    with warnings.catch_warnings(record=True) as told, serving(study, list(NEEDED)) as alone:
        warnings.simplefilter("always")
        process = busy(alone, "n")
        below = alone.process.children(recursive=True)
        programs = [p for p in below if p.name() == "sleep"]   # beyond any promise, as when cold: all above is killed
        alone.process.kill()
        _, said = process.communicate(timeout=30)
        _, left = psutil.wait_procs([p for p in below if p not in programs], timeout=5)
        for p in programs:
            p.kill()
        assert process.returncode == 1 and "ended in the middle" in said and left == [] and len(programs) == 1
        assert "None Without the warm runner" in hand_over(alone)
    assert study.result(study.only_run("n")).record["status"] == "killed"
    assert any("ended before its time (exit code -9)" in str(w.message) for w in told)
    assert not Path(alone.env["ESA_WARM"]).parent.exists()


def test_a_command_that_is_killed_leaves_no_server_and_its_runs_stop_in_order(tmp_path):
    study = Study(tmp_path / "study")
    program = "import sys, time\nfrom esa_notebooks.runs.warm import NEEDED, warm_runner\n" \
              "with warm_runner(sys.argv[1], NEEDED) as env: print(env['ESA_WARM'], flush=True); time.sleep(100)"
    command = subprocess.Popen([sys.executable, "-c", program, study.root], stdout=subprocess.PIPE, text=True,
                               env=clean())
    env = {"ESA_WARM": command.stdout.readline().strip()}
    alone = SimpleNamespace(study=study, env=env, process=started(env))
    process = busy(alone, "n")
    family = [alone.process, *alone.process.children(recursive=True)]
    command.kill()
    command.communicate()
    process.communicate(timeout=30)
    _, left = psutil.wait_procs(family, timeout=15)
    shutil.rmtree(Path(env["ESA_WARM"]).parent)   # nobody was there to do it
    assert left == [] and study.result(study.only_run("n")).record["status"] == "cancelled"


# --- what is imported -------------------------------------------------------------------------------------------------

def test_modules_that_would_spoil_a_fork_are_left_out_and_named(tmp_path, monkeypatch):
    odd = {"odd_threads": "from threading import Event, Thread\nThread(target=Event().wait, daemon=True).start()",
           "odd_draws": "import random\nrandom.random()", "odd_numpy": "import numpy.random\nnumpy.random.rand()",
           "odd_fails": "1 / 0", "odd_fine": "A = 1"}
    for name, text in odd.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    study = Study(tmp_path / "study")
    path = study.write("n", "print([n for n in sys.modules if n.startswith('odd_')])")
    modules = ["odd_fails", "odd_threads", "odd_draws", "odd_fine.A", "numpy.random", "odd_numpy", "odd_fine.B",
               *NEEDED]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with serving(study, modules) as running:
            assert text_of(run(study, path, running.env | {"PYTHONPATH": str(tmp_path)})) == "['odd_fine']\n"
    said = "\n".join(str(w.message) for w in told)
    for name, why in {"odd_threads": "starts a thread", "odd_draws": "generator of random",
                      "odd_numpy": "generator of numpy", "odd_fails": "ZeroDivisionError"}.items():
        assert re.search(f"left out {name}: .*{why}", said), said
    assert "odd_fine" not in said


def test_what_notebooks_and_the_modules_behind_them_import_is_found(study):
    (study.root / "lib").mkdir()
    (study.root / "lib" / "deep.py").write_text("import scipy.stats\nfrom . import other")
    (study.root / "lib" / "other.py").write_text("def f():\n    from sklearn.svm import SVC")
    found = third_party([study.write("n", "from lib import deep\nimport yaml, json")], study.root)
    assert {"scipy.stats", "sklearn.svm", "yaml", *NEEDED} <= set(found)
    assert not {n.split(".")[0] for n in found} & {"lib", "json", "os", "esa_notebooks"}
