"""Ways in which a run could claim more than is true, each found by trying, and closed."""
import threading
import time

import pytest

from tests.runs.conftest import code

OUT = 'out: OutputFile = Path("data/processed/t.txt")  # written'
IN = 'table: InputFile = Path("data/raw/t.txt")  # read'
THREAD = """import threading, time
def work():
    with out.open("w") as f:
        for n in range(400):
            f.write(f"{n}\\n"); f.flush(); time.sleep(0.1)
threading.Thread(target=work).start()"""
PROCESS = """import subprocess, time
p = subprocess.Popen(["sh", "-c", 'exec > "$0"; for i in 1 2 3 4 5 6; do echo $i; sleep 5; done', str(out)])
time.sleep(1)"""


def test_a_thread_still_writing_is_no_success(study, monkeypatch):
    monkeypatch.setattr("esa_notebooks.runs.kernel.LEAVE_S", 2)
    run = study.run(study.write("n", THREAD, parameters=OUT))
    assert run.record["status"] == "failed" and "still at work" in run.record["reason"]["what"]
    assert not (study.root / "data/processed/t.txt").exists()


def test_a_thread_that_finishes_is_waited_for(study):
    run = study.run(study.write("n", THREAD.replace("400", "10"), parameters=OUT))
    assert run.record["status"] == "succeeded", run.record["reason"]
    assert len((study.root / "data/processed/t.txt").read_text().split()) == 10


def test_a_file_left_open_is_no_success(study):
    run = study.run(study.write("n", "f = out.open('w'); f.write('x')", parameters=OUT))
    assert run.record["status"] == "failed" and "still open" in run.record["reason"]["what"]


def test_a_process_still_writing_is_no_success(study):
    run = study.run(study.write("n", PROCESS, parameters=OUT))
    assert run.record["status"] == "failed" and "still open" in run.record["reason"]["what"]


@pytest.mark.parametrize("path,parameters", [("data/raw/t.txt", IN), ("lib/used.py", "n: int = 1  # x")])
def test_what_changes_while_the_notebook_runs_is_no_success(study, path, parameters):
    for name, text in {"data/raw/t.txt": "a", "lib/__init__.py": "", "lib/used.py": "A = 1"}.items():
        (study.root / name).parent.mkdir(parents=True, exist_ok=True)
        (study.root / name).write_text(text)
    notebook = study.write("n", code("import lib.used, time; time.sleep(3)"), parameters=parameters)

    def change() -> None:
        time.sleep(1.5)
        (study.root / path).write_text("A = 2")
    changer = threading.Thread(target=change)
    changer.start()
    run = study.run(notebook)
    changer.join()
    assert run.record["status"] == "failed" and "Changed while the notebook ran" in run.record["reason"]["what"]


def test_a_file_beside_the_output_is_named(study):
    run = study.run(study.write("n", "out.write_text('x'); out.with_suffix('.meta').write_text('y')", parameters=OUT))
    assert run.record["status"] == "failed" and "t.meta" in run.record["reason"]["what"]
    assert not (study.root / "data/processed/t.txt").exists()


def test_start_up_files_of_a_user_have_no_part_in_a_result(study, monkeypatch, tmp_path):
    start = tmp_path / "ipython" / "profile_default" / "startup"
    start.mkdir(parents=True)
    (start / "00.py").write_text("import math; math.sqrt = lambda x: 42.0")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    run = study.run(study.write("n", "import math\nfrom esa_notebooks.runs.declare import result\nresult('x', math.sqrt(4))"))
    assert [d["value"] for d in run.record["declarations"]] == [2.0]


def test_a_child_without_its_environment_does_not_outlive_the_run(study):
    import psutil
    run = study.run(study.write("n", "import subprocess\nprint(subprocess.Popen(['env', '-i', 'setsid', 'sleep', '301']).pid)"))
    assert run.record["status"] == "succeeded"
    time.sleep(0.2)
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "301"]
                and p.status() != psutil.STATUS_ZOMBIE]
