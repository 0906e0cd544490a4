"""The catalogue over a registry that is one: journal, decisions and bundles made by `registry.promotion`."""

import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from esa_notebooks.commands.catalogue import catalogue_app
from esa_notebooks.registry.catalogue import catalogue_of
from esa_notebooks.registry.catalogue_sources import gather
from tests.registry.registry_world import ADA, NAME, T0


def entry(folder, at=T0):
    made = catalogue_of(gather([], folder / "journal.jsonl"), at)
    assert made.amiss == () and made.journal["known"]
    return next(m for m in made.models if m["name"] == NAME)


def test_what_the_registry_did_is_what_the_catalogue_says(again, two):
    told = entry(two.folder)
    assert told["states"] == ["production", "undeclared"] and told["amiss"] == []
    second, first = told["versions"]
    assert (second["version"], second["state"], second["by"]) == ("2", "production", ADA)
    assert first["state"] == "replaced" and second["verdict"] == "passed" and second["bundle_there"]
    assert told["approval_until"]["date"] == "2026-08-29" and told["approval_until"]["days"] == 181
    assert second["authors"] and second["run_id"] == "20260301-080000-abcd" and not second["lineage"]["complete"]


def test_a_challenger_a_rollback_and_a_refusal(again, two):
    again.challenge(two, 3, "2")
    assert entry(two.folder)["states"] == ["production", "awaiting", "undeclared"]
    two.rollback(NAME, ADA, "too many false alarms", at=T0 + timedelta(days=5))
    told = entry(two.folder)
    assert {v["version"]: v["state"] for v in told["versions"]} == {
        "1": "production",
        "2": "rolled_back",
        "3": "awaiting",
    }
    assert told["history"][0]["event"] == "rolled_back" and told["history"][0]["reason"] == "too many false alarms"
    with pytest.raises(ValueError):
        again.challenge(two, 4, "1", decision=again.evidence(two, 4, "1", verdict="refused")[0], bundle="")
    assert entry(two.folder)["refusals"]


def test_an_alias_moved_behind_the_registrys_back_is_shown_when_the_store_is_asked(again, two, monkeypatch, tmp_path):
    reports, governance = tmp_path / "reports", tmp_path / "governance"
    governance.mkdir()
    (governance / "approvers.yaml").write_text("schema: esa-notebooks/people/1\nowners: []\napprovers: []\n")
    for name, value in {"REGISTRY": two.folder, "GOVERNANCE": governance, "REPORTS": reports}.items():
        monkeypatch.setenv(f"ESA_PATHS_{name}", str(value))
    monkeypatch.setenv("ESA_TRACKING_URI", again.uri)

    def shown():
        assert CliRunner().invoke(catalogue_app, ["build", "--audit"], catch_exceptions=False).exit_code == 0
        told = json.loads((reports / "catalogue/catalogue.json").read_text())
        return next(m for m in told["models"] if m["name"] == NAME)["amiss"]

    assert shown() == []
    two.store.client.set_registered_model_alias(NAME, "champion", "1")
    assert len(shown()) == 1 and "alias champion" in shown()[0]
