"""The report that a decision rests on, made from real questions by a real service: run, read, verified."""
import json
import shutil
import subprocess

import pandas as pd
import pytest

from esa_notebooks.registry.journal import read
from tests.end_to_end.conftest import ROOT, copy_project, counts, records, tool

pytestmark = pytest.mark.timeout(900)
WORKFLOW = """
stages:
  citations:
    notebook: nbs/pipeline/tasks.ipynb
    parameters:
      task: citations
      prepared: [data/contracts/opssat.yaml, data/contracts/telemetry.yaml, governance/models/opssat-anomalies.yaml,
                 governance/models/shuttle-anomalies.yaml, governance/gate.yaml]
      task_file: data/processed/tasks/citations.jsonl
  evaluate_llm:
    notebook: nbs/pipeline/evaluate_llm.ipynb
    parameters: {tasks: [data/processed/tasks/citations.jsonl], per_task: 8, again: 3, max_tokens: 24}
    databases: [tracking, registry]
    services: [llm]
"""


@pytest.fixture(scope="module")
def evaluated(vllm, tmp_path_factory):
    project = copy_project(tmp_path_factory.mktemp("evaluated") / "project")
    shutil.copytree(ROOT / "governance", project / "governance")
    (project / "workflow" / "small.yaml").write_text(WORKFLOW)
    (project / ".gitignore").write_text("data/interim\ndata/processed\nreports\nregistry\nml*\n")
    for words in (("init", "-q"), ("add", "-A"), ("-c", "user.email=a@example.org", "-c", "user.name=A", "commit", "-qm", "x")):
        subprocess.run(["git", *words], cwd=project, check=True)
    env = {"ESA_LLM_ENDPOINT": vllm.url, "ESA_REGISTRY_IDENTITY": "author@example.org"}
    ended = tool(project, "run", "--workflow", "workflow/small.yaml", timeout=800, **env)
    return project, env, ended


def test_the_report_says_for_each_task_what_the_model_may_be_used_for(evaluated):
    project, _, ended = evaluated
    assert ended.code == 0 and counts(ended) == {"succeeded": 2}, ended.out + ended.err
    record = records(project)[-1]
    told = {d.get("name"): d for d in record["declarations"]}
    answer = next(d["text"] for d in record["declarations"] if d["kind"] == "answer")
    assert "smollm2-135m-instruct may be used for none of the 1 tasks" in answer or "may stand for approval" in answer
    assert {"citations_model", "citations_baseline", "citations_gain"} <= set(told)
    page = (record["folder"] / "report.html").read_text()
    for heading in ("How good, and how surely", "What became of the questions", "Where it fails", "What it costs", "The gate", "What it may not be used for"):
        assert heading in page
    assert any(d["kind"] == "measurement" for d in record["declarations"]), "real requests were measured"


def test_every_answer_is_kept_with_how_it_was_scored(evaluated):
    project, *_ = evaluated
    frame = pd.read_parquet(project / "data/interim/llm/answers.parquet")
    model = frame[frame["system"] == "smollm2-135m-instruct"]
    assert len(model) == 8 and set(frame["system"]) == {"smollm2-135m-instruct", "nearest passage"}
    assert model["text"].str.len().gt(0).all() and set(frame["scored"]) <= {"answered", "invalid", "refused", "failed"}


def test_the_gate_decided_and_the_journal_keeps_the_refusal(evaluated):
    project, *_ = evaluated
    document = json.loads((project / "data/interim/llm/decisions.json").read_text())["citations"]
    rows = {row["check"]: row["status"] for row in document["rows"]}
    assert document["verdict"] == "refused" and rows["questions"] == "failed", "eight questions are not enough"
    assert rows["confinement"] == "passed" and rows["approval"] == "awaiting" and rows["use"] == "passed"
    entries = [e for e in read(project / "registry" / "journal.jsonl") if e.model == "smollm2-135m-instruct"]
    assert [e.event for e in entries] == ["refused"] and (project / "registry" / "decisions" / f"{entries[0].decision}.json").is_file()


def test_no_prompt_stands_in_the_log_and_the_log_is_whole(evaluated):
    project, env, _ = evaluated
    checked = tool(project, "llm", "audit", "--check", **env)
    assert checked.code == 0, checked.out + checked.err
    text = (project / "registry/llm/audit.jsonl").read_text()
    assert "column" not in text and "gate" not in text and text.count('"event": "admitted"') >= 8


def test_a_second_run_asks_nothing_and_a_second_execution_is_equal(evaluated):
    project, env, _ = evaluated
    log = project / "registry" / "llm" / "audit.jsonl"
    before = log.read_text().count('"event": "admitted"')
    again = tool(project, "run", "--workflow", "workflow/small.yaml", **env)
    assert again.code == 0 and counts(again) == {"up to date": 2} and log.read_text().count('"event": "admitted"') == before
    run = records(project)[-1]["folder"].name
    verified = tool(project, "verify", run, "--execute", timeout=800, **env)
    assert verified.code == 0 and "different" not in verified.out.replace("0 different", ""), verified.out[-3000:] + verified.err[-2000:]
