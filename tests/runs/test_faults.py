"""Kernel faults: each has the status, the reason and the remains it must have, and none may look like a success.

The faults run three at a time, each in a kernel of its own; only those that were selected are run.
"""
import json
import os
import re
import signal
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.runs.conftest import Study, code, left_alive, text_of

SPAWN = "import subprocess, sys\n"
STATUSES = {"failed", "timed_out", "killed", "cancelled"}


@dataclass(frozen=True)
class Fault:
    name: str
    cells: tuple
    status: str
    what: str                       # a pattern in reason.what
    settings: dict = field(default_factory=dict)
    kernel: str = "python3"
    where: str = "cell 4"           # title, imports, parameters come first
    pending: bool = True            # a cell after the fault must still be pending


def fault(name: str, source: str | dict | tuple, status: str, what: str, **more) -> Fault:
    return Fault(name, source if isinstance(source, tuple) else (source,), status, what, **more)


FAULTS = [
    fault("exception", "1 / 0", "failed", "ZeroDivisionError: division by zero"),
    fault("exception-without-text", "raise ValueError", "failed", "^ValueError$"),
    fault("base-exception", "class Odd(BaseException): pass\nraise Odd('x')", "failed", "Odd: x"),
    fault("generator-exit", "raise GeneratorExit", "failed", "GeneratorExit"),
    fault("sys-exit-0", "sys.exit(0)", "failed", r"exit\(0\)"),
    fault("sys-exit-3", "sys.exit(3)", "failed", r"exit\(3\)"),
    fault("sys-exit-none", "sys.exit()", "failed", r"exit\("),
    fault("raise-system-exit", "raise SystemExit", "failed", r"exit\("),
    fault("exit-call", "exit()", "failed", "exit"),
    fault("quit-call", "quit()", "failed", "exit"),
    fault("os-exit-0", "os._exit(0)", "failed", r"ended its own kernel \(exit code 0\)"),
    fault("os-exit-7", "os._exit(7)", "failed", r"ended its own kernel \(exit code 7\)"),
    fault("sigkill-itself", "os.kill(os.getpid(), 9)", "killed", "SIGKILL"),
    fault("segmentation-fault", "import ctypes; ctypes.string_at(0)", "killed", "SIGSEGV"),
    fault("abort", "os.abort()", "killed", "SIGABRT"),
    fault("sigterm-itself", "import time; os.kill(os.getpid(), 15); time.sleep(20)", "killed", "SIGTERM"),
    fault("hang", "import time; time.sleep(99)", "timed_out", "longer than 2 s", settings={"run_cell_timeout_s": 2}),
    fault("hang-in-c-deaf-to-sigint", "import ctypes, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
          "ctypes.PyDLL(None).sleep(99)", "timed_out", "longer than 2 s", settings={"run_cell_timeout_s": 2}),
    fault("hang-deaf-to-every-signal", "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
          "time.sleep(99)", "timed_out", "longer than 2 s", settings={"run_cell_timeout_s": 2}),
    fault("busy-loop", "while True: pass", "timed_out", "longer than 2 s", settings={"run_cell_timeout_s": 2}),
    fault("await-for-ever", "import asyncio; await asyncio.sleep(99)", "timed_out", "longer than 2 s",
          settings={"run_cell_timeout_s": 2}),
    fault("stopped", "os.kill(os.getpid(), 19)", "timed_out", "longer than 2 s", settings={"run_cell_timeout_s": 2}),
    fault("total-time", ("import time; time.sleep(0.5)",) * 12, "timed_out", "notebook took longer than 3 s",
          settings={"run_timeout_s": 3}, where=""),
    fault("memory", "import time\nheld = b'x' * (700 * 2**20); time.sleep(20)", "killed", r"may hold 0\.50 GiB",
          settings={"run_memory_gib": 0.5}),
    fault("memory-of-a-child", SPAWN + "subprocess.run([sys.executable, '-c', "
          "'import time; x = b\"x\" * (700 * 2**20); time.sleep(20)'])", "killed", r"may hold 0\.50 GiB",
          settings={"run_memory_gib": 0.5}),
    fault("input", "input('name?')", "failed", "StdinNotImplementedError"),
    fault("keyboard-interrupt", "raise KeyboardInterrupt", "cancelled", "interrupted"),
    fault("sigint-from-outside", SPAWN + "import time\nsubprocess.Popen(f'sleep 0.4; kill -INT {os.getpid()}', shell=True)\n"
          "time.sleep(20)", "cancelled", "interrupted"),
    fault("tag-raises-exception", code("1 / 0", "raises-exception"), "failed", "ZeroDivisionError"),
    fault("tag-skip-execution", code("1 / 0", "skip-execution"), "failed", "ZeroDivisionError"),
    fault("bash-cell", "%%bash\nexit 3", "failed", "CalledProcessError"),
    fault("unknown-kernel", "1", "failed", "kernel did not start.*no-such-kernel", kernel="no-such-kernel",
          where="before the first cell"),
    fault("declaration-too-large", "from esa_notebooks.runs.declare import answer\nanswer('x' * 40 * 2**20)", "failed",
          "declaration of .* MiB is too large"),
    fault("declaration-of-its-own-making", "display({'application/vnd.esa-notebooks.declaration+json': [1]}, raw=True)",
          "failed", "declaration"),
    fault("declaration-twice", "from esa_notebooks.runs.declare import result\nresult('a', 1); result('a', 2)", "failed",
          "declared twice"),
    fault("error-shown", "try: 1 / 0\nexcept Exception: get_ipython().showtraceback()", "failed", "ZeroDivisionError",
          pending=False, where=""),
    fault("iopub-closed", "get_ipython().kernel.iopub_thread.socket.close()", "timed_out", "longer than 4 s",
          settings={"run_timeout_s": 4}, where=""),
    fault("loop-stopped", ("import asyncio; asyncio.get_event_loop().stop()", "import time; time.sleep(1)"), "failed", "",
          settings={"run_cell_timeout_s": 5}, where=""),
    fault("shutdown-from-inside", ("get_ipython().kernel.do_shutdown(False)", "import time; time.sleep(1)"), "failed", "",
          settings={"run_cell_timeout_s": 5}, where="", pending=False),
    fault("exit-with-children", SPAWN + "subprocess.Popen(['sleep', '300'], start_new_session=True); os._exit(0)", "failed",
          "exit code 0"),
    fault("exception-with-children", SPAWN + "subprocess.Popen(['sleep', '300'], start_new_session=True); 1 / 0", "failed",
          "ZeroDivision"),
    fault("timeout-with-children", SPAWN + "subprocess.run(['sh', '-c', 'trap \"\" TERM INT; sleep 300 & sleep 300'])",
          "timed_out", "longer than 2 s", settings={"run_cell_timeout_s": 2}),
]

DAEMON = "for n in range(2):\n    if os.fork(): break\n    os.setsid()\nelse:\n    os.execlp('sleep', 'sleep', '300')\n" \
         "if n: os._exit(0)"
SUCCESSES = {   # what must not be mistaken for a fault, and what it leaves running must be gone
    "child": SPAWN + "subprocess.Popen(['sleep', '300'])",
    "child-in-its-own-session": SPAWN + "subprocess.Popen(['sleep', '300'], start_new_session=True)",
    "child-deaf-to-sigterm": SPAWN + "subprocess.Popen(['sh', '-c', 'trap \"\" TERM INT HUP; sleep 300'])",
    "grandchildren": SPAWN + "[subprocess.Popen(['sh', '-c', 'sleep 300 & sleep 300 & wait']) for _ in range(10)]",
    "daemon": DAEMON,
    "pool": "from multiprocessing import get_context\npool = get_context('fork').Pool(3)",
    "fork-that-returns": "child = os.fork()",
    "thread-that-raises": "import threading\nt = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "atexit": "import atexit; atexit.register(print, 'bye')",
    "atexit-raises": "import atexit; atexit.register(lambda: 1 / 0)",
    "text-100-MB": "for _ in range(100): print('x' * 999_999)",
    "display-100-MB": "for _ in range(10): display({'text/plain': 'x' * 10_000_000}, raw=True)",
    "flood": "for n in range(20_000): display({'text/plain': str(n)}, raw=True)",
    "text-then-result": "from esa_notebooks.runs.declare import result\nfor _ in range(60): print('x' * 999_999)\n"
                        "result('after', 1)",
    "closed-stdout": "os.close(1); os.close(2)",
    "changed-folder": "os.chdir('/')",
    "lone-surrogate": "display({'text/plain': '\\udcff'}, raw=True)",
}


class Campaign:
    def __init__(self, study: Study, names: list[str]):
        self.study, self.pool, self.futures = study, ThreadPoolExecutor(3), {}
        for name in names:
            self.futures[name] = self.pool.submit(self.one, name)

    def one(self, name: str):
        case = next((f for f in FAULTS if f.name == name), None)
        cells = case.cells if case else (SUCCESSES[name],)
        # The last cell makes each key, and so each run's id, its own: processes are told apart by it.
        path = self.study.write(name, *cells, f"print('the last cell of {name}')", kernel=case.kernel if case else "python3")
        started = time.monotonic()
        run = self.study.run(path, **(case.settings if case else {}))
        run.seconds = time.monotonic() - started
        run.alive = left_alive(run.folder.name, within=0.5)
        for p in run.alive:
            p.kill()
        return run

    def __getitem__(self, name: str):
        future: Future = self.futures[name]
        return future.result(timeout=250)


@pytest.fixture(scope="module")
def campaign(request, tmp_path_factory):
    """The selected faults, started at the first question; kernels keep their sockets in a folder of the tests' own."""
    tmp_path_factory.getbasetemp()   # where it is, not below the folder that follows
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        names = [i.callspec.params["name"] for i in request.session.items
                 if i.path == Path(__file__) and "name" in getattr(getattr(i, "callspec", None), "params", {})]
        running = Campaign(Study(tmp_path_factory.mktemp("faults")), list(dict.fromkeys(names)))
        running.folder = Path(folder)
        yield running
        running.pool.shutdown(cancel_futures=True)
        tempfile.tempdir = before


@pytest.mark.parametrize("name", [f.name for f in FAULTS])
def test_fault(campaign, name):
    case, run = next(f for f in FAULTS if f.name == name), campaign[name]
    record = run.record
    assert record["status"] == case.status, record["reason"]
    assert re.search(case.what, record["reason"]["what"], re.S), record["reason"]
    assert case.where in record["reason"]["where"] and record["reason"]["do"]
    assert record["ended"] and record["duration_s"] > 0 and record["outputs"] == []
    assert run.alive == []
    assert run.seconds < 25
    if run.notebook and record["reason"]["where"] != "before the first cell":
        told = [c["metadata"]["papermill"] for c in run.notebook["cells"]]
        assert [c["status"] for c in record["cells"]] == [t["status"] for t in told]
        if case.pending:
            assert told[-1]["status"] == "pending" and "the last cell" not in text_of(run)
            assert run.notebook["cells"][-1]["execution_count"] is None
        assert run.notebook["metadata"]["papermill"]["status"] != "succeeded" or case.name == "error-shown"


@pytest.mark.parametrize("name", list(SUCCESSES))
def test_no_fault(campaign, name):
    run = campaign[name]
    assert run.record["status"] == "succeeded", run.record["reason"]
    assert run.alive == [], "something the notebook started outlived it"
    assert run.seconds < 120   # a busy machine may take its time; what this guards against took many minutes


@pytest.mark.parametrize("name", ["text-100-MB", "display-100-MB"])
def test_too_much_output_is_cut_with_a_notice(campaign, name):
    run = campaign[name]
    saved = (run.folder / "notebook.ipynb").stat().st_size
    assert saved < 2**22 if name.startswith("text") else saved < 2**25 + 2**20
    assert "[Output stops here: a cell may show" in text_of(run)
    assert re.search(r"^Cell 4 showed more than .* MiB; the rest was dropped", run.record["warnings"][0])


@pytest.mark.parametrize("name", ["flood"])
def test_a_flood_arrives_whole_and_in_order(campaign, name):
    outputs = campaign[name].notebook["cells"][3]["outputs"]
    assert ["".join(o["data"]["text/plain"]) for o in outputs] == [str(n) for n in range(20_000)]


@pytest.mark.parametrize("name", ["text-then-result"])
def test_a_result_after_too_much_text_is_not_lost(campaign, name):
    assert [d["name"] for d in campaign[name].record["declarations"]] == ["after"]


@pytest.mark.parametrize("name", ["thread-that-raises"])
def test_what_a_thread_raises_stays_visible(campaign, name):
    shown = "".join("".join(o.get("text", "")) for o in campaign[name].notebook["cells"][3]["outputs"])
    assert "ZeroDivisionError" in shown


@pytest.mark.parametrize("name", ["text-100-MB", "exception", "hang"])
def test_record_tells_time_and_memory(campaign, name):
    record = campaign[name].record
    assert record["peak_memory_bytes"] > 2**24
    assert all(c["duration_s"] is not None for c in record["cells"][:4])


@pytest.mark.parametrize("name", ["hang"])
def test_a_cell_that_ran_out_of_time_is_ended_soon(campaign, name):
    assert 2 <= campaign[name].seconds < 8


def test_no_false_success_over_all_faults(campaign, request):
    ran = [f for f in FAULTS if f.name in campaign.futures]
    statuses = {f.name: campaign[f.name].record["status"] for f in ran}
    assert [n for n, s in statuses.items() if s not in STATUSES] == []
    if not request.config.option.keyword:
        assert len(ran) == len(FAULTS) >= 40


def test_no_socket_folder_is_left(campaign):
    for name in campaign.futures:
        campaign[name]
    assert list(campaign.folder.iterdir()) == []


# --- outputs ----------------------------------------------------------------------------------------------------------

TABLE = 'table: OutputFile = "data/processed/t.csv"'
OUTPUTS = {
    "never-written": ("pass", "failed", r"`table` \(data/processed/t.csv\) was never written"),
    "half-written": ("table.write_text('half'); 1 / 0", "failed", "ZeroDivisionError"),
    "half-written-then-killed": ("table.write_text('half'); os._exit(0)", "failed", "exit code 0"),
    "a-folder": ("table.mkdir()", "failed", "never written"),
    "place-taken-by-a-folder": ("final = Path('data/processed/t.csv'); final.unlink(); final.mkdir()\n"
                                "table.write_text('new')", "failed", "output is missing|cannot"),
}


@pytest.mark.parametrize("way", list(OUTPUTS))
def test_an_undelivered_output_leaves_the_previous_one(study, way):
    source, status, what = OUTPUTS[way]
    place = study.root / "data" / "processed" / "t.csv"
    place.parent.mkdir(parents=True)
    place.write_text("previous")
    run = study.run(study.write("n", source, parameters=TABLE))
    assert run.record["status"] == status and re.search(what, run.record["reason"]["what"]), run.record["reason"]
    assert run.record["outputs"] == []
    if way != "place-taken-by-a-folder":
        assert place.read_text() == "previous"
    assert [p.name for p in place.parent.iterdir()] == ["t.csv"], "staging left behind"


def test_a_declaration_before_the_fault_is_kept_but_the_run_claims_nothing(study):
    run = study.run(study.write("n", "from esa_notebooks.runs.declare import result\nresult('a', 1)", "1 / 0"))
    assert run.record["status"] == "failed" and [d["name"] for d in run.record["declarations"]] == ["a"]


# --- starting a kernel ------------------------------------------------------------------------------------------------

def failing_starts(monkeypatch, times: int) -> list[int]:
    from esa_notebooks.runs.kernel import HonestClient
    real, tried = HonestClient.start_new_kernel, []

    def start(self, *args, **kwargs):
        tried.append(1)
        if len(tried) <= times:
            raise RuntimeError("no room")
        return real(self, *args, **kwargs)
    monkeypatch.setattr(HonestClient, "start_new_kernel", start, raising=False)
    return tried


def test_start_is_tried_again_while_no_cell_has_run(study, monkeypatch):
    tried = failing_starts(monkeypatch, 2)
    run = study.run(study.write("n", "print(1)"))
    assert run.record["status"] == "succeeded" and len(tried) == 3
    assert run.record["warnings"] == [f"The kernel did not start at try {n}: no room" for n in (1, 2)]


def test_a_kernel_that_never_starts_is_a_failure(study, monkeypatch):
    failing_starts(monkeypatch, 99)
    run = study.run(study.write("n", "print(1)"))
    assert run.record["status"] == "failed" and "did not start: no room" in run.record["reason"]["what"]
    assert {c["status"] for c in run.record["cells"]} == {"pending"}


def test_a_kernel_that_starts_and_never_answers_leaves_nobody(study, monkeypatch):
    from esa_notebooks.runs.kernel import HonestClient
    real, kernels = HonestClient.start_new_kernel_client, []

    def silent(self, *args, **kwargs):
        kernels.append(psutil.Process(self.km.provisioner.process.pid))
        if len(kernels) < 3:
            raise RuntimeError("no answer")
        return real(self, *args, **kwargs)
    monkeypatch.setattr(HonestClient, "start_new_kernel_client", silent, raising=False)
    run = study.run(study.write("n", "print(1)"))
    assert run.record["status"] == "succeeded"
    assert left_alive(run.folder.name, within=1) == [], "the kernels of the first tries live on"


def test_a_long_temporary_folder_is_no_obstacle(study, monkeypatch, tmp_path):
    """A Unix socket's path may have 107 bytes; a batch system's TMPDIR is often longer."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    run = study.run(study.write("n", "print(1)"))
    assert run.record["status"] == "succeeded", run.record["reason"]
    assert list(deep.iterdir()) == []


def test_the_channels_of_the_kernel_are_on_no_port(study):
    """ipykernel opens one more: a pipe on loopback for the prints of forked children, guarded by a random key. No channel."""
    path = study.write("n", "import psutil\nprint(*[c.laddr for c in psutil.Process().net_connections('inet')], sep='\\n')\n",
                       "print(get_ipython().kernel.iopub_thread._pipe_port)",
                       "app = __import__('ipykernel.kernelapp', fromlist=['_']).IPKernelApp.instance()\nprint(app.transport)")
    *ports, pipe, transport = text_of(study.run(path)).splitlines()
    assert transport == "ipc" and len(ports) <= 1
    assert all("'127.0.0.1'" in p and f"port={pipe}" in p for p in ports)


def test_outputs_that_do_not_arrive_are_a_failure(study, monkeypatch):
    monkeypatch.setattr("esa_notebooks.runs.kernel.DRAIN_S", 1)
    run = study.run(study.write("n", "get_ipython().kernel.iopub_thread.socket.close()", "print('later')"))
    assert run.record["status"] == "failed" and "Outputs of the cell were still missing" in run.record["reason"]["what"]


def test_text_that_no_message_can_carry_is_not_lost_in_silence(study, monkeypatch):
    """ipykernel cannot send half a surrogate pair: either its complaint is in the notebook, or the run has failed."""
    monkeypatch.setattr("esa_notebooks.runs.kernel.DRAIN_S", 2)
    run = study.run(study.write("n", "print('\\ud800'); display({'text/plain': 'x'}, raw=True)"))
    told = run.record["status"] == "failed" and "Outputs of the cell were still missing" in run.record["reason"]["what"]
    assert told or "UnicodeEncodeError" in json.dumps(run.notebook) or "surrogates not allowed" in json.dumps(run.notebook)


def test_the_runner_listens_on_no_port(study):
    before = {c.laddr for c in psutil.Process().net_connections("inet")}
    study.run(study.write("n", "print(1)"))
    assert {c.laddr for c in psutil.Process().net_connections("inet")} == before


@pytest.mark.parametrize("source, megabytes", [
    ("for _ in range(300): print('x' * 999_999, flush=True)", 60),
    # Printed without a flush, all of it can arrive as one message, which is received, decoded and cut: three copies at most.
    ("for _ in range(100): print('x' * 999_999)", 340),
], ids=["300-MB-in-pieces", "100-MB-at-once"])
def test_memory_of_the_runner_stays_bounded(study, source, megabytes):
    """What a kernel prints in a runner of its own: the runner may not hold more than the message it is reading."""
    path = study.write("n", source)
    program = ("import resource, sys\nfrom esa_notebooks.runs.execution import execute, plan\n"
               "from esa_notebooks.settings import load\nrequest = plan(sys.argv[1], settings=load(sys.argv[2]))\n"
               "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nexecute(request, quiet=True)\n"
               "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)")
    import subprocess
    import sys
    ended = subprocess.run([sys.executable, "-c", program, path, study.root], capture_output=True, text=True, cwd=study.root,
                           check=True)
    assert int(ended.stdout) < megabytes * 1024, "kibibytes more than before"


# --- signals to the runner --------------------------------------------------------------------------------------------

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Four runners, each sent another signal while its kernel works: {signal: (study, run, output)}."""
    at_work = {}
    for number in SIGNALS:
        study = Study(tmp_path_factory.mktemp("signal"))
        path = study.write("n", f"for_{number.name} = 1   # the same key in the same second would give the same id\n"
                           "import subprocess, time\nsubprocess.Popen(['sleep', '300'])\n"
                           "Path('ready').touch(); time.sleep(60)")
        (study.root / "tmp").mkdir()
        at_work[number] = study, study.runner(path, TMPDIR=str(study.root / "tmp"))
    ended = {}
    for number, (study, process) in at_work.items():
        until = time.monotonic() + 60
        while not (study.root / "ready").exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(process.pid, number)
        text, _ = process.communicate(timeout=30)
        ended[number] = study, study.result(study.only_run("n")), text
    return ended


@pytest.mark.parametrize("number", SIGNALS[:3], ids=lambda s: s.name)
def test_a_runner_asked_to_stop_says_cancelled(stopped, number):
    study, run, text = stopped[number]
    assert run.record["status"] == "cancelled" and number.name in run.record["reason"]["what"], text
    assert run.record["ended"] and run.record["reason"]["where"] == "cell 4"
    assert left_alive(run.folder.name, within=1) == []
    assert sorted(p.name for p in run.folder.iterdir()) == ["notebook.ipynb", "record.json"]
    assert list((study.root / "tmp").iterdir()) == [], "the folder of the kernel's sockets is left behind"


def test_a_runner_that_is_killed_has_left_the_truth(stopped):
    from esa_notebooks.runs.record import alive
    study, run, text = stopped[signal.SIGKILL]
    assert run.record["status"] == "killed" and run.record["ended"] is None
    assert run.record["reason"]["what"] == "The runner ended without a word."
    assert not alive(run.record)
    kernels = [p for p in left_alive(run.folder.name, within=3) if "ipykernel" in " ".join(p.cmdline())]
    orphans = left_alive(run.folder.name)
    for p in orphans:
        p.kill()
    assert kernels == []


def test_a_runner_stopped_while_the_kernel_starts(study):
    (study.root / "tmp").mkdir()
    process = study.runner(study.write("n", "import time; time.sleep(60)"), TMPDIR=str(study.root / "tmp"))
    runs = study.root / "reports" / "runs" / "n"
    until = time.monotonic() + 60
    while not list(runs.glob("*/record.json")) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.15)
    process.terminate()
    process.communicate(timeout=30)
    run = study.result(study.only_run("n"))
    assert run.record["status"] in ("cancelled", "killed")
    assert left_alive(run.folder.name, within=2) == []


# --- papermill's own command line -------------------------------------------------------------------------------------

def papermill(study: Study, path: Path, *args: str):
    import subprocess
    import sys
    return subprocess.run([sys.executable, "-m", "papermill", path, study.root / "out.ipynb", "--engine", "esa", *args],
                          capture_output=True, text=True, cwd=study.root)


def test_papermill_with_our_engine(study):
    ended = papermill(study, study.write("n", "print(x + 1)", parameters="x: int = 1"), "-p", "x", "41")
    assert ended.returncode == 0, ended.stderr
    assert '"42\\n"' in (study.root / "out.ipynb").read_text()


def test_papermill_with_our_engine_sees_sys_exit(study):
    ended = papermill(study, study.write("n", "sys.exit(0)", "print('later')"))
    assert ended.returncode != 0 and "failed: The cell called exit(0)" in ended.stderr
    cells = json.loads((study.root / "out.ipynb").read_text())["cells"]
    assert cells[-1]["metadata"]["papermill"]["status"] == "pending"
