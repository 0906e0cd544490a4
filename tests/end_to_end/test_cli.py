"""The command line with good and bad input: what it says, and its exit code."""
import pytest

from tests.end_to_end.conftest import records, tool

REFUSED = {
    "no such notebook, near miss": (("execute", "nbs/pipeline/prepair.ipynb"), "Did you mean `prepare.ipynb`?"),
    "unknown parameter, near miss": (("execute", "nbs/pipeline/prepare.ipynb", "-p", "dataste=shuttle"), "Did you mean `dataset`?"),
    "wrong type": (("execute", "nbs/pipeline/prepare.ipynb", "-p", "seed=soon"), "its type is int"),
    "not name=value": (("execute", "nbs/pipeline/prepare.ipynb", "-p", "seed"), "name=value"),
    "given twice": (("execute", "nbs/pipeline/prepare.ipynb", "-p", "seed=1", "-p", "seed=2"), "given twice"),
    "unknown source": (("execute", "nbs/pipeline/prepare.ipynb", "-p", "dataset=shutle"), "Did you mean `shuttle`?"),
    "missing input": (("execute", "nbs/pipeline/explore.ipynb", "-p", "prepared=data/processed/telemetri.parquet"),
                      "Did you mean `telemetry.parquet`?"),
    "output outside": (("execute", "nbs/pipeline/prepare.ipynb", "-p", "prepared=../x.parquet"), "not inside the project"),
    "unknown data set": (("run", "telemetri"), "Did you mean `telemetry`?"),
    "unknown run": (("verify", "2020"), "No run is called"),
    "the contract of another data set": (("execute", "nbs/pipeline/prepare.ipynb", "-p", "contract=data/contracts/teleme.yaml"),
                                         "Did you mean `telemetry.yaml`?"),
    "no such table": (("data", "validate", "data/processed/telemetry.parket"), "telemetry"),
    "a table without a contract": (("data", "validate", "data/processed/telemetri.parquet"), "Did you mean `telemetry`?"),
    "lineage of an unknown file": (("data", "lineage", "telemetri.parquet"), "telemetri.parquet"),
    "data fetch of an unknown source": (("data", "fetch", "opsat"), "Did you mean `opssat`?"),
    "data check of an unknown source": (("data", "check", "opsat"), "Did you mean `opssat`?"),
}


@pytest.mark.parametrize("args,said", REFUSED.values(), ids=REFUSED)
def test_refused_with_the_near_miss_and_no_trace(studied, args, said):
    before = len(records(studied.project))
    ended = tool(studied.project, *args)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err
    assert len(records(studied.project)) == before


def test_a_bad_setting_stops_every_command(studied):
    ended = tool(studied.project, "run", ESA_DATA_MIROR="/x")
    assert ended.code == 2 and "Did you mean `ESA_DATA_MIRROR`?" in ended.err


def test_where_leads_to_notebook_and_cell(studied):
    ended = tool(studied.project, "where", "near_miss")
    assert ended.code == 0 and "nbs/settings.ipynb" in ended.out and "cell " in ended.out
    missed = tool(studied.project, "where", "near_mis")
    assert missed.code == 1 and "Did you mean `near_miss`?" in missed.err


def test_data_list_and_check(studied):
    listed = tool(studied.project, "data", "list")
    assert listed.code == 0 and all(n in listed.out for n in ("telemetry", "shuttle", "opssat"))
    checked = tool(studied.project, "data", "check")
    assert checked.code == 0 and "identical" in checked.out


def test_data_validate_holds_a_table_against_its_contract(studied, tmp_path):
    table = "data/processed/shuttle.parquet"
    held = tool(studied.project, "data", "validate", table)
    assert held.code == 0 and "broken" not in held.out and "Labels are 0 or 1" in held.out
    strict = tmp_path / "shuttle.yaml"
    strict.write_text((studied.project / "data/contracts/shuttle.yaml").read_text().replace("f1: {low: -32768", "f1: {low: 30"))
    broken = tool(studied.project, "data", "validate", table, "--contract", str(strict))
    assert broken.code == 1 and "outside 30 to 32767" in broken.err and "Traceback" not in broken.err


def test_data_validate_in_chunks(studied):
    ended = tool(studied.project, "data", "validate", "--in-chunks", "data/processed/telemetry.parquet")
    assert ended.code == 0 and "Time increases within a channel" in ended.out


def test_data_lineage_leads_to_the_raw_file_and_to_what_was_made(studied):
    up = tool(studied.project, "data", "lineage", "data/processed/shuttle.parquet")
    assert up.code == 0 and "shuttle.csv.gz" in up.out and "prepare.ipynb" in up.out
    down = tool(studied.project, "data", "lineage", "data/contracts/shuttle.yaml")
    assert "shuttle.croissant.json" in down.out.split("to be made again")[1]


def test_data_check_names_a_changed_file(studied, tmp_path):
    raw = tmp_path / "raw"
    assert tool(studied.project, "data", "fetch", "shuttle", ESA_PATHS_RAW=str(raw)).code == 0
    file = next((raw / "shuttle").glob("*.gz"))
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    ended = tool(studied.project, "data", "check", "shuttle", ESA_PATHS_RAW=str(raw))
    assert ended.code == 1 and "changed" in ended.out


def test_settings_say_where_a_value_came_from(studied):
    ended = tool(studied.project, "settings", ESA_STUDY_PROFILE="slurm")
    assert "environment variable ESA_STUDY_PROFILE" in ended.out


def test_parameters_are_listed(studied):
    ended = tool(studied.project, "parameters", "nbs/pipeline/prepare.ipynb")
    assert ended.code == 0 and "dataset" in ended.out and "DataSource" in ended.out


def test_report_build_renders_again(studied):
    page = records(studied.project)[0]["folder"] / "report.html"
    page.unlink()
    assert tool(studied.project, "report", "build").code == 0 and page.is_file()


def test_report_open_prints_the_page(studied):
    ended = tool(studied.project, "report", "open", DISPLAY="", WAYLAND_DISPLAY="", BROWSER="")
    assert ended.code == 0 and ended.out.strip().endswith("index.html")


def test_gc_never_removes_the_latest_success(studied):
    before = {r["run_id"] for r in records(studied.project)}
    ended = tool(studied.project, "gc", "--days", "0", "--keep", "0")
    assert ended.code == 0 and {r["run_id"] for r in records(studied.project)} == before


def test_verify_with_nothing_to_verify(tmp_path):
    from tests.end_to_end.conftest import copy_project
    ended = tool(copy_project(tmp_path), "verify")
    assert ended.code == 3 and "esa-notebooks run" in ended.err


def test_tidy_clears_outputs_and_keeps_tags(tmp_path):
    import json

    from tests.end_to_end.conftest import copy_project
    project = copy_project(tmp_path)
    (project / "README.md").touch()
    path = project / "nbs" / "pipeline" / "prepare.ipynb"
    clean = path.read_text()
    notebook = json.loads(clean)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(execution_count=7, outputs=[{"output_type": "stream", "name": "stdout", "text": ["x"]}])
    path.write_text(json.dumps(notebook, indent=1))
    assert tool(project, "tidy", "--check").code == 1
    assert path.read_text() == clean and '"parameters"' in clean
    again = tool(project, "tidy", "--check")
    assert again.code == 0, again.out + again.err
