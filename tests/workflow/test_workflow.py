"""Bad input, as a user makes it: each is one clear line and exit code 2, nothing is executed, nothing hangs, and nothing is a trace."""
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from esa_notebooks.runs.conductor import memory_gib
from esa_notebooks.runs.workflow import WorkflowError, too_much
from tests.conftest import require
from tests.workflow.conftest import Project, counts

ONE = """
stages:
  make:
    notebook: nbs/make.ipynb
    for: {n: [1, 2]}
    parameters: {n: "{n}", out: "data/interim/{n}.txt"}
  read:
    notebook: nbs/read.ipynb
    parameters: {tables: {every: make.out}}
"""


def two_stages(root) -> Project:
    project = Project(root)
    project.study(ONE)
    project.notebook("make", "n: int = 1\nout: OutputFile = Path('data/interim/1.txt')\ntext: str = ''", "out.write_text(f'{n}{text}')")
    project.notebook("read", "tables: list[InputFile] = []\nout: OutputFile = Path('data/processed/all.txt')",
                     "out.write_text(' '.join(sorted(p.read_text() for p in tables)))")
    project.notebook("copy", "table: InputFile = Path('data/interim/1.txt')\nout: OutputFile = Path('data/interim/2.txt')",
                     "out.write_text(table.read_text())")
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return two_stages(tmp_path / "study")


def stages(text: str) -> str:
    return "stages:\n" + "\n".join("  " + line for line in text.strip("\n").splitlines()) + "\n"


COPY = "notebook: nbs/copy.ipynb, parameters"
REFUSED = {
    "an empty file": ("", "the file is None; it must be a mapping"),
    "no mapping": ("- a\n- b\n", "the file is"),
    "broken YAML": ("stages: {make: [", "cannot be read as YAML: line"),
    "a tab": ("stages:\n\tmake: 1\n", "line 2"),
    "not text": (b"stages: \xff\xfe", "cannot be read as YAML"),
    "a NUL": (b"stages: {a\x00: 1}", "cannot be read as YAML"),
    "a repeated stage": (ONE + "  make:\n    notebook: nbs/read.ipynb\n", "`make` stands twice"),
    "a repeated parameter": (ONE.replace('{n: "{n}", out', '{n: 1, n: "{n}", out'), "`n` stands twice"),
    "a key that is a list": ("stages: {? [a, b] : 1}\n", "study.yaml"),
    "a tag that runs code": ("stages: !!python/object/apply:os.system ['touch harmed']\n", "could not determine a constructor"),
    "an unknown anchor": ("stages: {make: *none}\n", "undefined alias"),
    "an anchor that holds itself": ("stages: &a {make: *a}\n", "study.yaml"),
    "a list nested a hundred thousand deep": ("stages: " + "[" * 100_000, "study.yaml"),
    "no stages": ("title: nothing\n", "lacks `stages`"),
    "stages are empty": ("stages: {}\n", "stages is"),
    "an unknown entry": (ONE.replace("parameters: {n", "paramters: {n"), "Did you mean `parameters`?"),
    "an unknown resource": (ONE + "    resources: {cpus: 2}\n", "Did you mean `cpu`?"),
    "a database that is none": (ONE + "    databases: [trackin]\n", "Did you mean `tracking`?"),
    "a stage without notebook": (stages("make: {about: nothing}"), "stages.make lacks `notebook`"),
    "a notebook that is none": (stages("make: {notebook: nbs/make.py}"), "make.py"),
    "a stage's name": (stages("Make It: {notebook: nbs/make.ipynb}"), "Make It"),
    "a fan-out that is no list": (ONE.replace("for: {n: [1, 2]}", "for: {n: 1}"), "stages.make.for.n is 1"),
    "a fan-out over nothing": (ONE.replace("[1, 2]", "[]"), "stages.make.for.n is []"),
    "a fan-out that repeats": (ONE.replace("[1, 2]", "[1, 1]"), "must not hold a value twice"),
    "a fan-out over lists": (ONE.replace("[1, 2]", "[[1], [2]]"), "stages.make.for.n"),
    "a variable's name": (ONE.replace("for: {n: [1, 2]}", "for: {N: [1, 2]}"), "N"),
    "no processors": (ONE + "    resources: {cpu: 0}\n", "resources.cpu is 0"),
    "half a processor": (ONE + "    resources: {cpu: 0.5}\n", "resources.cpu is 0.5"),
    "no memory": (ONE + "    resources: {memory_gib: 0}\n", "memory_gib is 0"),
    "memory beyond all numbers": (ONE + "    resources: {memory_gib: .inf}\n", "memory"),
    "memory that is no number": (ONE + "    resources: {memory_gib: .nan}\n", "memory"),
    "time beyond all numbers": (ONE + "    resources: {minutes: .inf}\n", "minutes"),
    "more processors than there are": (ONE + "    resources: {cpu: 4096}\n", "stage read asks for 4096 processors; there are"),
    "more memory than there is": (ONE + "    resources: {memory_gib: 900000}\n", "asks for 900000 GiB of memory; there are"),
    "a notebook that is not there": (ONE.replace("nbs/make", "nbs/mkae"), "Did you mean `make.ipynb`?"),
    "a notebook outside": (ONE.replace("nbs/make", "../make"), "make.ipynb"),
    "a parameter that is not there": (ONE.replace('{n: "{n}", out', '{m: "{n}", oot'), "There is no parameter"),
    "a parameter that is not there, near miss": (ONE.replace(', out: "', ', oot: "'), "Did you mean `out`?"),
    "a value of another type": (ONE.replace('{n: "{n}", out', '{n: many, out'), "`n` is 'many' (str); its type is int"),
    "a variable that is not there": (ONE.replace("interim/{n}", "interim/{m}"), "{m} in 'data/interim/{m}.txt' is not a variable"),
    "every of an unknown stage": (ONE.replace("make.out}", "maek.out}"), "Did you mean `make`?"),
    "every of an unknown parameter": (ONE.replace("make.out}", "make.oot}"), "Did you mean `out`?"),
    "every of what is no output": (ONE.replace("make.out}", "make.n}"), "stage make writes no `n`"),
    "every that is none": (ONE.replace("make.out}", "make}"), "stages.read.parameters.tables"),
    "every of itself": (ONE.replace("make.out}", "read.out}"), "in a circle: read → read"),
    "except that leaves nothing": (ONE.replace("    parameters: {n:", "    except: [{n: 1}, {n: 2}]\n    parameters: {n:"), "stage make: its `except` leaves no job"),
    "except of what is no variable": (ONE.replace("    parameters: {n:", "    except: [{m: 1}]\n    parameters: {n:"), "`m`"),
    "a case that sets what is set": (ONE.replace("[1, 2]", "{1: {n: 3}}"), "its case 1 sets `n`, which another variable"),
    "two jobs that write one file": (ONE.replace("interim/{n}.txt", "interim/one.txt"), "Two jobs write data/interim/one.txt: make/1 and make/2"),
    "two stages that write one file": (ONE + "  more:\n    notebook: nbs/make.ipynb\n    parameters: {out: data/interim/2.txt}\n",
                                       "Two jobs write data/interim/2.txt"),
    "two stages that write one file by other names": (
        ONE + "  more:\n    notebook: nbs/make.ipynb\n    parameters: {out: data/interim/../interim/2.txt}\n", "write it without `..`"),
    "an output that is an input": (stages("a: {" + COPY + ": {table: data/interim/x.txt, out: data/interim/x.txt}}"), "x.txt"),
    "a circle of jobs": (stages("a: {" + COPY + ": {table: data/interim/x.txt, out: data/interim/y.txt}}\nb: {" + COPY
                                + ": {table: data/interim/y.txt, out: data/interim/x.txt}}"), "wait for each other in a circle"),
    "a circle of three stages": (stages("\n".join(
        f"{a}: {{notebook: nbs/read.ipynb, parameters: {{tables: {{every: {b}.out}}, out: data/interim/{a}.txt}}}}"
        for a, b in ("ab", "bc", "ca"))), "a → b → c → a"),
    "values whose names collide": (ONE.replace("[1, 2]", '["a/b", "a?b"]').replace('n: "{n}", ', ""), "Two jobs"),
    "a value that differs in type only": (ONE.replace("[1, 2]", '[1, "1"]').replace('n: "{n}", ', ""), "Two jobs"),
    "an output outside": (ONE.replace("data/interim/{n}", "../{n}"), "not inside the project"),
    "an output among the raw data": (ONE.replace("data/interim/{n}", "data/raw/{n}"), "a notebook writes below"),
    "an output among the runs": (ONE.replace("data/interim/{n}", "reports/runs/{n}"), "a notebook writes below"),
    "an output among the keys": (ONE.replace("data/interim/{n}", "reports/workflow/{n}"), "a notebook writes below"),
    "an output in the code": (ONE.replace("data/interim/{n}", "nbs/{n}"), "a notebook writes below"),
    "an absolute output": (ONE.replace("data/interim/{n}", "/tmp/{n}"), "not inside the project"),
    "a value that climbs": (ONE.replace("[1, 2]", "[../../../x]").replace('n: "{n}", ', ""), "not inside the project"),
    "a value with a NUL": (ONE.replace("[1, 2]", '["a\\0b"]').replace('n: "{n}", ', ""), "NUL"),
    "half a character": (ONE.replace("[1, 2]", '["\\ud800"]').replace('n: "{n}", ', ""), "no text in UTF-8"),
    "a value longer than a name": (ONE.replace("[1, 2]", f"[{'x' * 300}]").replace('n: "{n}", ', ""), "255 bytes"),
    "a value whose name fits alone": (ONE.replace("[1, 2]", f"[{'x' * 254}]").replace('n: "{n}", ', "").replace("interim/{n}.txt", "interim/1.txt"),
                                      "254 characters; 200 are possible"),
    "more combinations than anybody runs": (ONE.replace("{n: [1, 2]}", "{n: &r [" + ", ".join(map(str, range(320))) + "], m: *r}")
                                            .replace("interim/{n}", "interim/{n}-{m}"), "102,400"),
}


@pytest.mark.parametrize("text,said", REFUSED.values(), ids=REFUSED)
def test_a_workflow_that_makes_no_sense_is_refused_in_one_line(project, text, said):
    path = project.root / "workflow" / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    began = time.monotonic()
    with pytest.raises(WorkflowError) as refused:
        too_much(project.look().jobs.values(), 2, 8)
    assert said in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 1000
    assert time.monotonic() - began < 30 and not list(project.root.rglob("harmed"))
    assert not (project.root / "reports").exists() and not (project.root / "data").exists()


@pytest.mark.parametrize("name", ["broken YAML", "a repeated stage", "an unknown resource", "a circle of jobs", "two jobs that write one file",
                                  "more memory than there is", "a value of another type"])
def test_the_command_line_says_so_and_ends_with_2(project, name):
    project.study(REFUSED[name][0])
    ended = project.tool("run")
    assert ended.code == 2 and REFUSED[name][1] in ended.err and ended.out == "", ended.out + ended.err
    assert len(ended.err.strip().splitlines()) == 1 and project.records() == [] and project.outputs() == {}


NAMES = {
    "an unknown stage, job or value": (("run", "mkae"), "Did you mean `make`?"),
    "an unknown job": (("run", "make/3"), "Did you mean `make/"),
    "plan of an unknown stage": (("plan", "mkae"), "Did you mean `make`?"),
    "status of an unknown stage": (("status", "mkae"), "Did you mean `make`?"),
    "why an unknown job": (("why", "make/11"), "Did you mean `make/1`?"),
    "why a run that is not there": (("why", "20200101T000000Z-00000000"), "neither a job nor a run"),
    "an unknown workflow": (("run", "--workflow", "workflow/studi.yaml"), "Did you mean `study.yaml`?"),
    "a workflow that is a folder": (("run", "--workflow", "workflow"), "workflow"),
    "no processors": (("run", "--cores", "0"), "--cores"),
    "a key file that is not there": (("execute", "reports/workflow/make/9.key"), "`esa-notebooks plan` writes them"),
    "a parameter for a key file": (("execute", "reports/workflow/make/1.key", "-p", "n=3"), "-p is for notebooks"),
    "force without a key file": (("execute", "nbs/make.ipynb", "--force"), "--force is for key files"),
}


@pytest.mark.parametrize("args,said", NAMES.values(), ids=NAMES)
def test_a_name_nobody_knows_is_refused_with_the_near_miss(project, args, said):
    project.study(ONE)
    ended = project.tool(*args)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err, ended.out + ended.err
    assert project.records() == [] and project.outputs() == {}


def test_resources_are_measured_against_what_is_asked_for(project):
    project.study(ONE + "    resources: {cpu: 2}\n")
    ended = project.tool("run", "--cores", "1")
    assert ended.code == 2 and "stage read asks for 2 processors; there are 1" in ended.err and project.records() == []
    assert 0.1 < memory_gib() < 10**5


def test_an_unknown_profile_and_one_that_cannot_be_read(project):
    project.study(ONE)
    unknown = project.tool("run", ESA_STUDY_PROFILE="slrum")
    assert unknown.code == 2 and "Did you mean `slurm`?" in unknown.err
    missing = project.tool("run", ESA_STUDY_PROFILE="slurm")
    assert missing.code == 2 and "There is no profile workflow/profiles/slurm. There are: default." in missing.err
    assert project.records() == [] and "Traceback" not in missing.err


MISSING = {
    "workflow": "There is no workflow",
    "workflow/study.yaml": "There is no workflow",
    "workflow/Snakefile": "Snakefile",
    "workflow/profiles": "There is no profile",
    "nbs": "There is no notebook",
}


@pytest.mark.parametrize("part,said", MISSING.items(), ids=MISSING)
def test_a_part_of_the_project_is_missing(tmp_path, part, said):
    project = two_stages(tmp_path / "study")
    full = project.root / part
    shutil.rmtree(full) if full.is_dir() else full.unlink()
    ended = project.tool("run")
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err, ended.out + ended.err
    assert project.records() == []


def test_the_schema_is_missing(tmp_path, monkeypatch):
    from esa_notebooks.runs import workflow
    project = two_stages(tmp_path / "study")
    monkeypatch.setattr(workflow, "ASSETS", tmp_path / "nothing")
    workflow._form.cache_clear()
    try:
        with pytest.raises(workflow.WorkflowError, match="workflow.schema.json"):
            workflow.load_workflow(project.root / "workflow/study.yaml")
    finally:
        workflow._form.cache_clear()


# Hostile values that are allowed: they reach the notebook as they are, and nothing else

HOSTILE = ["$(touch harmed)", "`touch harmed`", "; touch harmed;", "it's \"quoted\"", "{}", "{{}}", "a\nb", "*", "~", "-n", "#", "%s", "ä€😀", " ",
           "&& touch harmed", "null", "!", "\\", "{input}", "{n}", "a=b", "|tee harmed"]


def test_hostile_values_reach_the_notebook_and_nothing_else(tmp_path):
    project = two_stages(tmp_path / "a 'quoted' {project} $(touch harmed) & more")
    listed = [json.dumps(part, ensure_ascii=False) for part in (HOSTILE[:12], HOSTILE[12:])]
    project.study(f"""
stages:
  make:
    notebook: nbs/collect.ipynb
    for: {{part: [one, two]}}
    except: [{{part: two}}]
    parameters: {{values: {listed[0]}, out: "data/interim/{{part}} $(touch harmed).txt"}}
  other:
    notebook: nbs/make.ipynb
    for: {{text: {listed[1]}}}
    except: [{{text: "!"}}, {{text: "\\\\"}}, {{text: " "}}, {{text: "&& touch harmed"}}, {{text: "null"}}]
    parameters: {{text: "{{text}}", out: "data/processed/it's {{text}} $x.txt"}}
""")
    project.notebook("collect", "values: list[str] = []\nout: OutputFile = Path('data/interim/1.txt')", "import json\nout.write_text(json.dumps(values))")
    ended = project.run(warm=True)
    assert ended.code == 0, ended.out + ended.err
    assert json.loads(project.outputs()["data/interim/one $(touch harmed).txt"]) == HOSTILE[:12]
    kept = [t for t in HOSTILE[12:] if t not in ("!", "\\", " ", "&& touch harmed", "null")]
    assert sorted(c.decode() for p, c in project.outputs().items() if "it's" in p) == sorted(f"1{t}" for t in kept)
    assert not list(tmp_path.rglob("harmed")) and project.stale() == {}
    assert counts(project.run()) == {"up to date": 1 + len(kept)}


# What lies in the way

@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Project:
    project = two_stages(tmp_path_factory.mktemp("done") / "study")
    ended = project.run(warm=True)
    assert ended.code == 0, ended.err
    return project


@pytest.fixture
def copied(done, tmp_path) -> Project:
    shutil.copytree(done.root, tmp_path / "copied")
    return Project(tmp_path / "copied")


IN_THE_WAY = ["make/1.done", "make/1.key", "read/all.key", "read/all.done", "plan.json", "read/all.state", "lock", "snakemake.log"]
HARMLESS = ["seen.json", "log.txt"]   # nothing depends on them


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_a_folder_where_a_file_is_kept(copied, name):
    """It is said, nothing is executed, and what is up to date stays so."""
    in_the_way(copied, name)
    (copied.root / "data/processed/all.txt").unlink()
    ended = copied.run()
    assert "Traceback" not in ended.err and ended.code in (1, 2) and name.rpartition("/")[2] in ended.err, ended.out + ended.err
    assert set(copied.stale()) == {"read/all"} and len(copied.records()) == 3


def in_the_way(project: Project, name: str) -> None:
    path = project.root / "reports/workflow" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").touch()


def test_a_folder_where_the_memory_or_the_log_is_kept_stops_nothing(copied):
    for name in HARMLESS:
        in_the_way(copied, name)
    (copied.root / "data/processed/all.txt").unlink()
    ended = copied.run()
    assert ended.code == 0 and "log.txt cannot be written" in ended.err and "Traceback" not in ended.err, ended.out + ended.err
    assert copied.stale() == {} and copied.outputs()["data/processed/all.txt"] == b"1 2"


NOT_WRITABLE = {
    "the keys": ("reports/workflow", "reports/workflow/make", "reports/workflow/read"),
    "the runs": ("reports/runs/read",),
    "the tables, and the index": ("data/processed", "reports"),
}
ORDINARY = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.geteuid() == 0 else ()


@pytest.mark.parametrize("folders", NOT_WRITABLE.values(), ids=NOT_WRITABLE)
def test_a_folder_that_may_not_be_written_is_said(copied, folders):
    """root may write everywhere, unless that capability is taken away."""
    probe = subprocess.run([*ORDINARY, "true"], capture_output=True) if not ORDINARY or shutil.which("setpriv") else None
    require("setpriv", probe and probe.returncode == 0, "run by root, whose rights cannot be taken away here")
    (copied.root / "data/processed/all.txt").unlink()
    for folder in folders:
        (copied.root / folder).chmod(0o555)
    try:
        ended = copied.run(before=ORDINARY)
    finally:
        for folder in folders:
            (copied.root / folder).chmod(0o755)
    assert ended.code == 1 and "Traceback" not in ended.err, ended.out + ended.err
    assert "Permission denied" in ended.err and folders[0] in ended.err, ended.err
    assert len(folders) != 2 or re.search("Permission denied: .*/reports/", ended.err), "both are said"
    assert "data/processed/all.txt" not in copied.outputs() and set(copied.stale()) == {"read/all"}


def test_a_project_in_which_nothing_may_be_written(project):
    probe = subprocess.run([*ORDINARY, "true"], capture_output=True) if not ORDINARY or shutil.which("setpriv") else None
    require("setpriv", probe and probe.returncode == 0, "run by root, whose rights cannot be taken away here")
    project.root.chmod(0o555)
    try:
        ended = project.tool("run", before=ORDINARY)
    finally:
        project.root.chmod(0o755)
    assert ended.code == 2 and "reports/workflow cannot be written: Permission denied" in ended.err and "Traceback" not in ended.err
    assert project.records() == []


# No room left

TIGHT = """
stages:
  make:
    notebook: nbs/make.ipynb
    for: {n: [1, 2]}
    parameters: {n: "{n}", out: "data/interim/{n}.txt"}
"""


def in_small_disks(project: Project, script: str) -> str:
    """What a script says that may mount small disks of its own, which nobody else sees."""
    inside = ("unshare", "-rm")
    require("unshare", subprocess.run([*inside, "true"], capture_output=True).returncode == 0, "this machine gives no mount namespace")
    for folder in ("data", "reports"):
        (project.root / folder).mkdir(exist_ok=True)
    cli = f"{sys.executable} -m esa_notebooks.cli"
    return subprocess.run([*inside, "bash", "-c", script.replace("CLI", cli)], cwd=project.root, env=project.environment(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200).stdout


def test_a_full_disk_is_said_and_nothing_half_written_is_taken_for_done(project):
    """Room for one output and a half: then none for records and keys."""
    project.study(TIGHT)
    project.notebook("make", "n: int = 1\nout: OutputFile = Path('data/interim/1.txt')",
                     "with out.open('w') as f:\n    for line in range(40):\n        f.write('x' * 100_000)\n        f.flush()")
    said = in_small_disks(project, """
        mount -t tmpfs -o size=6m none data
        mount -t tmpfs -o size=40m none reports
        CLI run --cold --cores 1; echo "$? with one output and a half"
        find data -type f -printf "left: %p %s\n"
        CLI plan
        mount -o remount,size=60m data
        head -c 100m /dev/zero > reports/full
        CLI run --cold; echo "$? with no room for records"
        rm reports/full
        CLI run --cold; echo "$? with room"
        stat -c "%n %s" data/interim/*
    """)
    assert "Traceback" not in said and said.count("No space left on device") >= 2, said
    assert re.search(r"^No space left on device: ", said, re.M), said
    first, rest = said.split("1 with one output and a half\n")
    second, third = re.split(r"^[12] with no room for records\n", rest, flags=re.M)
    assert "1 failed, 1 succeeded" in first or "1 succeeded, 1 failed" in first, said
    assert re.findall(r"^left: (.*)", second, re.M) in ([f"data/interim/{n}.txt 4000000"] for n in (1, 2)), "what is not whole is gone"
    assert {"1 to run", "1 up to date"} in [set(line.split(", ")) for line in second.splitlines()], said
    assert {"1 succeeded", "1 up to date"} in [set(line.split(", ")) for line in third.splitlines()] and "0 with room" in third, said
    assert third.count(" 4000000\n") == 2, said


def test_no_room_for_anything_from_the_start(project):
    said = in_small_disks(project, """
        mount -t tmpfs -o size=64k none reports
        head -c 60000 /dev/zero > reports/full
        CLI run --cold; echo "$? first"
    """)
    assert "Traceback" not in said and "No space left on device" in said and re.search(r"^[12] first$", said, re.M), said
    assert project.outputs() == {}
