"""Crates: valid after the profiles' own validator and without a network, the same byte for byte, and never pretending."""
import copy
import json
import shutil
import socket
import subprocess
import zipfile
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote

import pytest

from esa_notebooks.runs.crate import write_crate
from esa_notebooks.runs.crate_site import in_order, write_site_crate
from esa_notebooks.runs.parcel import CrateError, content_name
from esa_notebooks.runs.record import RecordError, ingredients_of, key_of, runner
from tests.runs.conftest import Study

BIOSCHEMAS = "https://bioschemas.org/"
MAKE = "Path(made).write_text('x,y\\n' * rows)"
USE = ("from esa_notebooks.runs.declare import answer, measurement, result\n"
       "rows = len(Path(read).read_text().splitlines())\n"
       "answer(f'{rows} rows were read.')\n"
       "result('rows', rows, unit='rows', ci=(rows - 1, rows + 1), better='higher')\n"
       "result('nothing', None, why='there is none')\nresult('word', 'yes')\n"
       "measurement('rows', 3.5, spread=0.5, unit='s')")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Study:
    """Two runs of `make`, three of `use` (one failed), in a git checkout with a lock and a licence."""
    from esa_notebooks.reports.render import render
    study = Study(tmp_path_factory.mktemp("crates") / "study")
    (study.root / "requirements").mkdir()
    (study.root / "requirements/lock.txt").write_text("numpy==2.2.0\n")
    (study.root / "LICENSE").write_text("Anybody may.\n")
    (study.root / ".gitignore").write_text("data/\nreports/\n")
    make = study.write("make", MAKE, parameters="made: OutputFile = 'data/interim/a.csv'\nrows: int = 2   # how many\nof: float = 0.5")
    use = study.write("use", USE, parameters="read: InputFile = 'data/interim/a.csv'   # a table\nwords: list[str] = ['a', 'b']\n"
                                             "note: str | None = None")
    git = ["git", "-C", str(study.root), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(git + args, check=True, capture_output=True)
    runs = [study.run(make), study.run(make, {"made": Path("data/interim/b.csv"), "rows": 5}), study.run(use),
            study.run(use, {"read": Path("data/interim/b.csv")})]
    broken = study.write("broken", "raise KeyError('bus voltage')", parameters="n: int = 1")
    runs.append(study.run(broken))
    for run in runs:
        render(run.folder)
    study.make, study.use, study.failed = runs[:2], runs[2:4], runs[4]
    return study


@pytest.fixture
def folder(project, tmp_path) -> Path:
    """A copy of the first run of `use`, to be damaged."""
    return Path(shutil.copytree(project.use[0].folder, tmp_path / "runs" / "use" / project.use[0].folder.name))


@pytest.fixture
def asked(monkeypatch) -> list:
    """What was asked of the network, which answers nothing."""
    found = []

    def refuse(*args, **_):
        found.append(args)
        raise OSError("no network in this test")
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return found


def graph(crate: Path) -> dict[str, dict]:
    read = zipfile.ZipFile(crate).read("ro-crate-metadata.json") if crate.suffix == ".zip" else (
        crate / "ro-crate-metadata.json").read_bytes()
    return {e["@id"]: e for e in json.loads(read)["@graph"]}


def listed(value) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def edited(folder: Path, honest: bool = True, **changes) -> Path:
    """The record in `folder` with `changes`; `honest`: with the key that they give."""
    record = json.loads((folder / "record.json").read_text()) | changes
    if honest:
        record["key"] = key_of(ingredients_of(record))
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def issues(crate: Path, profile: str, tmp_path: Path, monkeypatch) -> tuple[list[str], set[str]]:
    """What the community's validator has against `crate`, and which addresses it asked for.

    It looks up the RO-Crate context. The one that `rocrate` ships is of version 1.3; version 1.1, which the profiles 0.5
    build on, has the same terms for us but for these four, which were renamed since.
    """
    from rocrate import vocabs
    from rocrate_validator import services
    from rocrate_validator.models import Severity, ValidationSettings
    from rocrate_validator.utils.http import HttpRequester
    context = {**vocabs.RO_CRATE["@context"], "input": f"{BIOSCHEMAS}ComputationalWorkflow#input",
               "output": f"{BIOSCHEMAS}ComputationalWorkflow#output", "FormalParameter": f"{BIOSCHEMAS}FormalParameter",
               "ComputationalWorkflow": f"{BIOSCHEMAS}ComputationalWorkflow"}
    wanted = set()

    class Answer:
        status_code, headers = 200, {"Content-Type": "application/ld+json"}

        @staticmethod
        def json():
            return {"@context": context}

    def get(self, url, *_, **__):
        wanted.add(url)
        assert url == "https://w3id.org/ro/crate/1.1/context", url
        return Answer()
    monkeypatch.setattr(HttpRequester, "get", get, raising=False)
    settings = ValidationSettings(rocrate_uri=str(crate), profile_identifier=profile, requirement_severity=Severity.REQUIRED,
                                  offline=True, cache_path=tmp_path / "cache")
    return [f"{i.check.identifier}: {i.message} {i.violatingEntity}" for i in services.validate(settings).get_issues()], wanted


# --- valid, whole, and the same ---------------------------------------------------------------------------------------

def test_a_run_is_a_valid_workflow_run_crate_without_a_network(project, tmp_path, asked, monkeypatch):
    made = write_crate(project.use[0].folder, tmp_path / "run.zip", project.root)
    assert made.notes == () and asked == []
    assert issues(made.path, "workflow-run-crate", tmp_path, monkeypatch) == ([], {"https://w3id.org/ro/crate/1.1/context"})


def test_the_validator_would_have_seen_it(project, tmp_path, monkeypatch):
    made = write_crate(project.use[0].folder, tmp_path / "run", project.root)
    metadata = json.loads((made.path / "ro-crate-metadata.json").read_text())
    for entity in metadata["@graph"]:
        if entity["@type"] == "CreateAction":
            del entity["instrument"]
    (made.path / "ro-crate-metadata.json").write_text(json.dumps(metadata))
    (made.path / "report.html").unlink()
    found = " ".join(issues(made.path, "workflow-run-crate", tmp_path, monkeypatch)[0])
    assert "instrument" in found and "report.html" in found


def test_a_failed_run_is_valid_too_and_says_what_failed(project, tmp_path, monkeypatch):
    made = write_crate(project.failed.folder, tmp_path / "failed.zip", project.root)
    assert issues(made.path, "workflow-run-crate", tmp_path, monkeypatch)[0] == []
    action = graph(made.path)[f"#run/{project.failed.folder.name}"]
    assert action["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert action["error"].startswith("failed. KeyError: 'bus voltage'") and "cell 4" in action["error"]


def test_the_study_is_a_valid_provenance_run_crate(project, tmp_path, asked, monkeypatch):
    made = write_site_crate(project.root / "reports", tmp_path / "site.zip", project.root)
    assert asked == []
    assert issues(made.path, "provenance-run-crate", tmp_path, monkeypatch) == ([], {"https://w3id.org/ro/crate/1.1/context"})


@pytest.mark.parametrize("which", ["run", "site"])
def test_everything_packed_is_what_it_says_and_every_name_leads_somewhere(project, tmp_path, which):
    made = (write_crate(project.use[0].folder, tmp_path / "c.zip", project.root) if which == "run" else
            write_site_crate(project.root / "reports", tmp_path / "c.zip", project.root))
    entities, archive = graph(made.path), zipfile.ZipFile(made.path)
    packed = {i for i, e in entities.items() if "File" in listed(e["@type"]) and ":" not in i}
    assert {unquote(i) for i in packed} | {"ro-crate-metadata.json"} == set(archive.namelist())
    for i in packed:
        content = archive.read(unquote(i))
        assert entities[i]["sha256"] == sha256(content).hexdigest() and entities[i]["contentSize"] == str(len(content))
    for i, entity in entities.items():
        for name, value in entity.items():
            for one in listed(value):
                if isinstance(one, dict) and not one["@id"].startswith("https://"):
                    assert one["@id"] in entities, (i, name, one)
    assert b"\x00" not in archive.read("ro-crate-metadata.json") and str(project.root) not in archive.read(
        "ro-crate-metadata.json").decode()


def test_rocrate_reads_it_back(project, tmp_path):
    from rocrate.rocrate import ROCrate
    made = write_crate(project.use[0].folder, tmp_path / "run.zip", project.root)
    crate = ROCrate(made.path)
    (action,) = crate.get_by_type("CreateAction")
    assert action["instrument"] is crate.mainEntity and crate.mainEntity["programmingLanguage"]["name"].startswith("Python")
    assert [p["name"] for p in crate.mainEntity["input"]] == ["read", "words", "note"]
    values = {e["name"]: e for e in action["result"] if e.type == "PropertyValue"}
    assert values["word"]["value"] == "yes" and values["nothing"].get("value") is None
    assert crate.root_dataset["license"].id == "LICENSE" and crate.version == "1.1"


def test_the_same_run_gives_the_same_bytes(project, tmp_path, monkeypatch):
    import rocrate.model.root_dataset as root_dataset
    for what in (lambda out: write_crate(project.use[0].folder, out, project.root),
                 lambda out: write_site_crate(project.root / "reports", out, project.root)):
        first = what(tmp_path / "a.zip").path.read_bytes()
        monkeypatch.setattr(root_dataset, "iso_now", lambda: "2031-01-01T00:00:00+00:00")
        (project.use[0].folder / "report.html").touch()
        assert what(tmp_path / "b.zip").path.read_bytes() == first
    ended = project.use[0].record["ended"]
    written = zipfile.ZipFile(write_crate(project.use[0].folder, tmp_path / "a.zip", project.root).path).infolist()[0].date_time
    assert "-".join(f"{n:02}" for n in written[:3]) == ended[:10]


# --- what it says -----------------------------------------------------------------------------------------------------

def test_numbers_lead_into_the_report_with_unit_and_interval(project, tmp_path):
    made = write_crate(project.use[0].folder, tmp_path / "run.zip", project.root)
    entities, run = graph(made.path), project.use[0].folder.name
    page = zipfile.ZipFile(made.path).read("report.html").decode()
    numbers = {i: e for i, e in entities.items() if i.startswith(f"#run/{run}/") and "url" in e}
    assert {e["url"] for e in numbers.values()} == {
        "report.html#result-rows", "report.html#measurement-rows", "report.html#result-nothing", "report.html#result-word"}
    assert all(f'id="{e["url"].partition("#")[2]}"' in page for e in numbers.values())
    rows = numbers[f"#run/{run}/result-rows"]
    assert (rows["value"], rows["unitText"], rows["minValue"], rows["maxValue"]) == (2, "rows", 1, 3)
    assert "measurementTechnique" not in rows and "Measured" in numbers[f"#run/{run}/measurement-rows"]["measurementTechnique"]
    assert "there is none" in numbers[f"#run/{run}/result-nothing"]["description"]
    assert entities[f"#run/{run}"]["description"].startswith("2 rows were read.")


def test_parameters_are_slots_with_type_default_and_help(project, tmp_path):
    entities = graph(write_crate(project.make[1].folder, tmp_path / "run.zip", project.root).path)
    slot = entities["#input/nbs/make.ipynb/rows"]
    assert (slot["additionalType"], slot["defaultValue"], slot["description"]) == ("Integer", "2", "how many (int)")
    assert entities[f"#run/{project.make[1].folder.name}/parameter/rows"]["value"] == 5
    assert entities["#input/nbs/make.ipynb/of"]["additionalType"] == "Float"
    assert entities["#output/nbs/make.ipynb/made"]["additionalType"] == "File"
    assert entities["data/interim/b.csv"]["exampleOfWork"] == {"@id": "#output/nbs/make.ipynb/made"}


def test_steps_stand_in_order_and_are_joined_and_a_shared_file_appears_once(project, tmp_path):
    entities = graph(write_site_crate(project.root / "reports", tmp_path / "site.zip", project.root).path)
    runs = [r.folder.name for r in (*project.make, *project.use)]
    steps = sorted((e for e in entities.values() if e["@type"] == "HowToStep"), key=lambda e: int(e["position"]))
    assert [s["name"].rpartition(" ")[2] for s in steps] == runs
    (joined,) = [e for e in entities.values() if e["@type"] == "ParameterConnection"]
    assert joined["sourceParameter"]["@id"] == "#output/nbs/make.ipynb/made"
    assert joined["targetParameter"]["@id"] == "#input/nbs/use.ipynb/read"
    assert steps[2]["connection"] == steps[3]["connection"] == {"@id": joined["@id"]}
    shared = [e for e in entities.values() if e.get("sha256") == project.use[0].record["inputs"][0]["sha256"]]
    assert len(shared) == 1 and {"@id": "data/interim/a.csv"} in listed(entities[f"#run/{runs[2]}"]["object"])
    assert project.failed.folder.name not in json.dumps(entities)
    assert "study.json" in entities and "no workflow file" in entities["study.json"]["description"]


def test_a_workflow_file_is_the_workflow(project, tmp_path):
    (project.root / "workflow").mkdir()
    try:
        (project.root / "workflow/study.yaml").write_text("stages: {}\n")
        entities = graph(write_site_crate(project.root / "reports", tmp_path / "site", project.root).path)
    finally:
        shutil.rmtree(project.root / "workflow")
    assert entities["./"]["mainEntity"] == {"@id": "workflow/study.yaml"} and "study.json" not in entities


# --- the notebook as it was -------------------------------------------------------------------------------------------

def test_the_notebook_comes_from_its_commit_the_work_tree_or_the_executed_one(project, folder, tmp_path):
    path = project.root / "nbs/use.ipynb"
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"rows were read", b"rows were seen"))
        at_commit = graph(write_crate(folder, tmp_path / "1", project.root).path)["nbs/use.ipynb"]
        assert at_commit["sha256"] == sha256(before).hexdigest() and "commit" in at_commit["description"]
        edited(folder, git={"commit": None, "dirty": None, "why": "no git"})
        executed = graph(write_crate(folder, tmp_path / "2", project.root).path)["nbs/use.ipynb"]
        bare = json.loads((tmp_path / "2/nbs/use.ipynb").read_text())
        assert "executed notebook, without outputs" in executed["description"]
        assert all(not c.get("outputs") for c in bare["cells"]) and len(bare["cells"]) == len(json.loads(before)["cells"])
    finally:
        path.write_bytes(before)
    assert "work tree" in graph(write_crate(folder, tmp_path / "3", project.root).path)["nbs/use.ipynb"]["description"]


def test_a_notebook_that_is_nowhere_as_recorded_is_said_to_be_another(project, folder, tmp_path):
    cells = copy.deepcopy(project.use[0].record["code"]["cells"])
    cells[0]["sha256"] = "0" * 64
    edited(folder, code={**project.use[0].record["code"], "cells": cells})
    made = write_crate(folder, tmp_path / "c", project.root)
    assert "NOT those of the record" in graph(made.path)["nbs/use.ipynb"]["description"] and len(made.notes) == 1
    (folder / "notebook.ipynb").unlink()
    with pytest.raises(CrateError, match="nowhere to be found"):
        write_crate(folder, tmp_path / "d", project.root)


def test_two_versions_of_one_notebook_stand_side_by_side_the_newest_under_its_name(project, tmp_path):
    reports = tmp_path / "reports"
    for run in project.make:
        shutil.copytree(run.folder, reports / "runs" / "make" / run.folder.name)
    older = reports / "runs" / "make" / project.make[0].folder.name
    notebook = json.loads((older / "notebook.ipynb").read_text())
    notebook["cells"][-1]["source"] = "Path(made).write_text('x,y\\n' * rows); pass"
    (older / "notebook.ipynb").write_text(json.dumps(notebook))
    from esa_notebooks.runs.code import cell_digests
    from esa_notebooks.runs.execution import declarations_of
    kept = [c for c in notebook["cells"] if "injected-parameters" not in c["metadata"].get("tags", [])]
    for c in kept:
        c["source"] = "".join(c["source"])
    edited(older, code={**project.make[0].record["code"], "cells": cell_digests({"cells": kept})}, declarations=declarations_of(notebook),
           files={"notebook.ipynb": sha256((older / "notebook.ipynb").read_bytes()).hexdigest()})
    entities = graph(write_site_crate(reports, tmp_path / "site", project.root).path)
    assert entities[f"#run/{project.make[1].folder.name}"]["instrument"] == {"@id": "nbs/make.ipynb"}
    assert entities[f"#run/{older.name}"]["instrument"]["@id"].startswith("versions/")


def test_locks_are_packed_only_when_they_are_the_recorded_ones(project, folder, tmp_path):
    assert "requirements/lock.txt" in graph(write_crate(folder, tmp_path / "1", project.root).path)
    lock = project.root / "requirements/lock.txt"
    try:
        lock.write_text("numpy==9.9.9\n")
        of_commit = write_crate(folder, tmp_path / "2", project.root)
        assert (of_commit.path / "requirements/lock.txt").read_text() == "numpy==2.2.0\n"
        edited(folder, git={"commit": None, "dirty": None, "why": "no git"})
        absent = write_crate(folder, tmp_path / "3", project.root)
        assert "requirements/lock.txt" not in graph(absent.path) and "were not found" in absent.notes[0]
    finally:
        lock.write_text("numpy==2.2.0\n")


# --- what is missing, large, changed or hostile -----------------------------------------------------------------------

def test_what_is_missing_is_said_to_be(project, folder, tmp_path):
    (folder / "report.html").unlink()
    (folder / "notebook.ipynb").unlink()
    made = write_crate(folder, tmp_path / "c", project.root)
    entities = graph(made.path)
    assert len(made.notes) == 2 and "report.html" not in entities and "notebook.ipynb" not in entities
    assert "report is missing" in entities["./"]["description"] and "notebook is missing" in entities[f"#run/{folder.name}"]["description"]
    assert not any("report.html" in str(e.get("url")) for e in entities.values())


def test_an_executed_notebook_changed_after_the_run_is_said_to_be(project, folder, tmp_path):
    notebook = json.loads((folder / "notebook.ipynb").read_text())
    notebook["cells"][0]["source"] = "# Another title"
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    assert "changed after the run" in write_crate(folder, tmp_path / "c", project.root).notes[0]


@pytest.mark.parametrize("how", ["large", "changed", "gone", "source", "outside", "hidden"])
def test_data_that_are_not_packed_are_named_by_their_hash_with_the_reason(project, folder, tmp_path, how):
    record = json.loads((folder / "record.json").read_text())
    (one,) = record["inputs"]
    file, limit = project.root / one["path"], 10**6
    content = file.read_bytes()
    reasons = {"large": "larger than", "changed": "changed since", "gone": "no longer there", "source": "only their owner",
               "outside": "leads out", "hidden": "hidden"}
    paths = {"outside": "../../../etc/hostname", "hidden": ".secrets/token"}
    (project.root / ".secrets").mkdir(exist_ok=True)
    (project.root / ".secrets/token").write_bytes(content)
    try:
        if how == "changed":
            file.write_text("something else")
        elif how == "gone":
            file.unlink()
        limit = 3 if how == "large" else limit
        edited(folder, inputs=[{**one, "path": paths.get(how, one["path"]), "kind": "source" if how == "source" else "file"}])
        made = write_crate(folder, tmp_path / "c.zip", project.root, limit)
    finally:
        file.write_bytes(content)
        shutil.rmtree(project.root / ".secrets")
    told = graph(made.path)[content_name(one["sha256"])]
    assert reasons[how] in told["description"] and told["sha256"] == one["sha256"] and told["contentSize"] == str(len(content))
    assert not {one["path"], "hostname", "token"} & {n.rpartition("/")[2] for n in zipfile.ZipFile(made.path).namelist()}


@pytest.mark.parametrize("change", [
    lambda r: r["declarations"][1].update(value=99), lambda r: r["declarations"].pop(),
    lambda r: r["parameters"][1].update(value=["c"]), lambda r: r["inputs"][0].update(sha256="0" * 64),
    lambda r: r.update(key="0" * 64)], ids=["value", "declaration gone", "parameter", "input", "key"])
def test_a_record_edited_by_hand_is_refused(project, folder, tmp_path, change):
    record = json.loads((folder / "record.json").read_text())
    change(record)
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(CrateError, match="contradicts itself.*esa-notebooks verify"):
        write_crate(folder, tmp_path / "c.zip", project.root)
    assert not (tmp_path / "c.zip").exists()


def test_no_damage_to_a_record_is_more_than_a_refusal(project, folder, tmp_path):
    record = json.loads((folder / "record.json").read_text())
    refused = 0
    for key in record:
        for odd in (7, "x", [1], {"a": 1}, None, [None], [{"name": "x"}]):
            damaged = {**record, key: odd}
            try:
                damaged["key"] = key_of(ingredients_of(damaged))
            except (KeyError, TypeError, AttributeError):
                pass
            (folder / "record.json").write_text(json.dumps(damaged))
            try:
                write_crate(folder, tmp_path / "c.zip", project.root)
            except RecordError as e:
                assert str(e).count("\n") == 0
                refused += 1
    assert refused > 40


def test_a_name_that_is_markup_stays_a_name(project, folder, tmp_path):
    record = json.loads((folder / "record.json").read_text())
    name = '"><script>../../x'
    edited(folder, parameters=[*record["parameters"], {"name": name, "value": "</script>", "type": "str", "origin": "given", "help": ""}])
    entities = graph(write_crate(folder, tmp_path / "c.zip", project.root).path)
    (value,) = [e for e in entities.values() if e.get("name") == name and e["@type"] == "PropertyValue"]
    assert value["value"] == "</script>" and "<" not in value["@id"] and " " not in value["@id"]


def test_a_run_still_at_work_is_not_packed(project, folder, tmp_path):
    edited(folder, ended=None, runner=runner())
    with pytest.raises(CrateError, match="still running"):
        write_crate(folder, tmp_path / "c.zip", project.root)


def test_records_that_made_each_other_are_refused():
    with pytest.raises(CrateError, match="made from one another"):
        in_order({"a": {"inputs": [{"made_by": "b"}]}, "b": {"inputs": [{"made_by": "a"}]}})


# --- places -----------------------------------------------------------------------------------------------------------

def test_an_older_crate_is_replaced_and_anything_else_is_left_alone(project, tmp_path):
    run = project.use[0].folder
    for out in (tmp_path / "c.zip", tmp_path / "c"):
        write_crate(project.make[0].folder, out, project.root)
        write_crate(run, out, project.root)
        assert f"#run/{run.name}" in graph(out)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "d.zip").mkdir()
    for out in (tmp_path / "work", tmp_path / "file", tmp_path / "file" / "c.zip", tmp_path / "d.zip"):
        with pytest.raises(CrateError):
            write_crate(run, out, project.root)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.zip", "d.zip", "file", "work"]
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["c.zip", "c"])
def test_a_full_disk_leaves_the_older_crate(project, tmp_path, monkeypatch, name):
    out = tmp_path / name
    write_crate(project.make[0].folder, out, project.root)
    import rocrate.model.file as file

    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(file.shutil, "copy", full)
    with pytest.raises(CrateError, match="No space left"):
        write_crate(project.use[0].folder, out, project.root)
    assert f"#run/{project.make[0].folder.name}" in graph(out) and [p.name for p in tmp_path.iterdir()] == [name]


def test_the_command_line(project, tmp_path, monkeypatch, capsys):
    import sys

    from esa_notebooks import cli
    monkeypatch.setenv("ESA_PROJECT_ROOT", str(project.root))
    monkeypatch.chdir(project.root)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["esa-notebooks", "report", "crate", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr()
    code, said = call(project.use[0].folder.name)
    assert code == 0 and said.out.strip().endswith(f"reports/crates/{project.use[0].folder.name}.zip")
    assert call()[0] == 0 and (project.root / "reports/crates/site.zip").is_file()
    code, said = call("20991231T000000Z-00000000")
    assert code == 2 and "No run is called" in said.err and said.err.count("\n") == 1
    assert call("latest", "--out", "reports/runs/make/mine.zip")[0] == 2
    code, said = call(project.use[0].folder.name, "--out", str(tmp_path / "c"), "--with-data", "0")
    assert code == 0 and "larger than 0 MiB" in json.dumps(graph(tmp_path / "c"))
