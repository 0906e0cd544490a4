"""Jobs that speak to a service: last of all, only while it answers, and named where it cannot be had."""
import json

import pytest

from tests.llm.endpoints import Endpoint

from .conftest import Project, counts

STUDY = """
    stages:
      ask: {notebook: nbs/ask.ipynb, services: [llm], parameters: {table: data/processed/t.csv, said: data/interim/said.txt}}
      after: {notebook: nbs/after.ipynb, parameters: {said: data/interim/said.txt}}
      make: {notebook: nbs/make.ipynb, parameters: {table: data/processed/t.csv}}
      other: {notebook: nbs/other.ipynb}
"""


@pytest.fixture
def project(tmp_path) -> Project:
    made = Project(tmp_path / "study")
    made.study(STUDY)
    made.notebook("make", "table: OutputFile = Path('data/processed/t.csv')", "table.write_text('1')")
    made.notebook("other", "n: int = 1", "result('n', n)")
    made.notebook("ask", "table: InputFile = Path('x')\nsaid: OutputFile = Path('y')", "said.write_text(table.read_text() + ' asked')")
    made.notebook("after", "said: InputFile = Path('y')", "result('letters', len(said.read_text()))")
    return made


def absent(project: Project) -> list[dict]:
    return json.loads((project.root / "reports" / "not-obtained.json").read_text())


def test_they_come_last_and_what_stands_on_them_too(project):
    with Endpoint(models=("smollm2-135m-instruct",)) as service:
        ended = project.run(ESA_LLM_ENDPOINT=service.url)
        assert ended.code == 0 and counts(ended) == {"succeeded": 4}, ended.out + ended.err
        assert len(service.seen) >= 1, "the service was asked whether it answers before the first job that needs it"
    order = [r["stage"] for r in project.records()]
    assert set(order[:2]) == {"make", "other"} and order[2:] == ["ask", "after"] and absent(project) == []


def test_with_nothing_to_do_the_service_is_not_asked(project):
    with Endpoint(models=("smollm2-135m-instruct",)) as service:
        assert project.run(ESA_LLM_ENDPOINT=service.url).code == 0
        asked = len(service.seen)
        ended = project.run(ESA_LLM_ENDPOINT=service.url)
        assert counts(ended) == {"up to date": 4} and len(service.seen) == asked
    gone = project.run(ESA_LLM_ENDPOINT=service.url)   # nobody answers there any more, and nobody needs to
    assert gone.code == 0 and counts(gone) == {"up to date": 4}


def test_where_it_cannot_be_made_the_rest_is_done_and_the_index_says_why(project):
    ended = project.run()   # this project has no lock to make an environment from
    assert ended.code == 0 and counts(ended) == {"succeeded": 2, "not obtained": 2}, ended.out + ended.err
    assert "after/all  not obtained  It stands on ask/all." in ended.err
    (said,) = absent(project)
    assert said["what"] == "the service llm" and "llm-cpu.txt is missing" in said["why"] and said["do"]
    index = (project.root / "reports" / "index.html").read_text()
    assert "the service llm" in index and "llm-cpu.txt is missing" in index
    with Endpoint(models=("smollm2-135m-instruct",)) as service:
        later = project.run(ESA_LLM_ENDPOINT=service.url)
    assert later.code == 0 and counts(later) == {"up to date": 2, "succeeded": 2} and absent(project) == []
    assert "the service llm" not in (project.root / "reports" / "index.html").read_text()


def test_an_endpoint_that_does_not_answer_is_refused_by_name(project):
    with Endpoint(fault=500) as service:
        ended = project.run(ESA_LLM_ENDPOINT=service.url)
    assert ended.code != 0 and counts(ended)["succeeded"] == 2 and "does not serve smollm2-135m-instruct" in ended.err
    assert "ask/all  refused" in ended.err and "Traceback" not in ended.err


def test_they_are_skipped_when_what_they_stand_on_failed(project):
    project.notebook("make", "table: OutputFile = Path('data/processed/t.csv')", "raise ValueError('no table')")
    with Endpoint(models=("smollm2-135m-instruct",)) as service:
        ended = project.run(ESA_LLM_ENDPOINT=service.url)
        assert counts(ended) == {"succeeded": 1, "failed": 1, "skipped": 2} and service.seen == []


def test_an_unknown_service_is_refused_with_the_near_miss(project):
    project.study(STUDY.replace("services: [llm]", "services: [lml]"))
    ended = project.run()
    assert ended.code != 0 and "Did you mean `llm`?" in ended.err and project.records() == []
