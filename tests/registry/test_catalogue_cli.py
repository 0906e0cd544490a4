"""`esa-notebooks catalogue`: what it prints, and how it ends."""

import json

import pytest
from typer.testing import CliRunner

from esa_notebooks.commands.app import Exit, app
from esa_notebooks.commands.catalogue import catalogue_app
from tests.registry.catalogue_world import showcase


@pytest.fixture
def agency(tmp_path, monkeypatch):
    made = showcase(tmp_path)
    monkeypatch.setenv("ESA_PATHS_REGISTRY", str(made.registry))
    monkeypatch.setenv("ESA_PATHS_GOVERNANCE", str(made.folder / "governance"))
    monkeypatch.setenv("ESA_PATHS_REPORTS", str(made.reports))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    return made


def ran(*words):
    result = CliRunner().invoke(catalogue_app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_hangs_on_the_one_application():
    assert "catalogue" in {g.name for g in app.registered_groups}


def test_build_writes_the_site_and_says_how_things_stand(agency):
    said = ran("build")
    assert "catalogue/index.html" in said and "4 in production, 2 await approval" in said
    assert (agency.reports / "catalogue/models/opssat-anomalies.html").is_file()
    assert ran("open").strip().endswith("index.html")
    assert ran("open", "shuttle-states").strip().endswith("models/shuttle-states.html")


def test_open_says_what_to_do_when_there_is_no_page(agency):
    with pytest.raises(Exit, match="catalogue build"):
        ran("open")
    ran("build")
    with pytest.raises(Exit, match="Did you mean `shuttle-states`"):
        ran("open", "shuttle-state")
    with pytest.raises(Exit, match="no page"):
        ran("open", "../../../index")


def test_show_answers_first_and_knows_near_misses(agency):
    said = ran("show", "opssat-anomalies").splitlines()
    assert (
        said[1]
        .replace("\xa0", " ")
        .startswith("In production as version 2 since 8 November 2026. Version 3 awaits approval.")
    )
    assert any("AUC-PR 0.948 (0.927 to 0.965)" in line for line in said) and any(
        "not for: Commanding" in line for line in said
    )
    assert json.loads(ran("show", "night-reader", "--json"))["states"] == ["production", "undeclared"]
    with pytest.raises(Exit, match="Did you mean `thermal-watch`") as e:
        ran("show", "thermal-wach")
    assert e.value.code == 2


@pytest.mark.parametrize(
    "name", ["night-reader", "orbit-words", "triage-prompt", "mission-questions", "launch-delay", "star-tracker"]
)
def test_every_kind_of_model_can_be_shown(agency, name):
    assert name in ran("show", name)


def test_impact_is_in_the_order_of_work(agency):
    said = ran("impact", "opssat", "--column", "CADC0872").splitlines()
    assert [line.split()[0] for line in said] == ["If", "run", "run", "decide", "decide", "tell", "tell"]
    assert "prepare.ipynb" in said[1] and "reads the whole file" in said[1] and "watches the column" in said[3]
    assert json.loads(ran("impact", "data/contracts/opssat.yaml", "--json"))["kind"] == "contract"
    with pytest.raises(Exit, match="Did you mean `opssat`") as e:
        ran("impact", "opsat")
    assert e.value.code == 2


def test_a_project_without_a_registry_has_a_catalogue(tmp_path, monkeypatch):
    for name in ("REGISTRY", "GOVERNANCE", "REPORTS"):
        monkeypatch.setenv(f"ESA_PATHS_{name}", str(tmp_path / name))
    assert "No model has been declared or registered yet." in ran("build")


def test_build_with_an_audit_says_when_the_store_cannot_be_asked(agency, monkeypatch):
    monkeypatch.setenv("ESA_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Exit) as e:
        ran("build", "--audit")
    assert e.value.code == 3 and "127.0.0.1:9" in str(e.value)
    assert not (agency.reports / "catalogue").exists()
