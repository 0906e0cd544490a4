"""The catalogue: every model is there, whatever is wrong with its files, and nothing is said that is not known."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import fastjsonschema
import pytest

from esa_notebooks.registry import catalogue_pages
from esa_notebooks.registry.catalogue import catalogue_of, sentence
from esa_notebooks.registry.catalogue_sources import Amiss, Material
from esa_notebooks.registry.catalogue_standing import figures, lineage_of, versions
from tests.registry.catalogue_world import AT, World, declaration, showcase, world

VALID = fastjsonschema.compile(json.loads((catalogue_pages.ASSETS / "catalogue.schema.json").read_text()))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return showcase(tmp_path_factory.mktemp("agency")).folder


@pytest.fixture
def agency(original, tmp_path):
    """A copy of the agency to be damaged."""
    shutil.copytree(original, tmp_path / "agency")
    return World(tmp_path / "agency")


def catalogue(agency, at=AT, **more):
    made = catalogue_of(agency.gathered(**more), at)
    VALID(json.loads(json.dumps(made.document(), allow_nan=False)))
    return made


def entry(made, name):
    return next(m for m in made.models if m["name"] == name)


def kinds(made, name):
    return {n["kind"] for n in entry(made, name)["needs"]}


def test_every_state_is_told_apart(agency):
    made = catalogue(agency)
    assert {m["name"]: m["states"] for m in made.models} == {
        "opssat-anomalies": ["production", "awaiting"],
        "shuttle-states": ["production"],
        "bid-summaries": ["awaiting"],
        "mission-questions": ["refused"],
        "triage-prompt": ["out_of_service"],
        "launch-delay": ["retired"],
        "thermal-watch": ["production"],
        "star-tracker": ["declared"],
        "invoice-words": ["declared"],
        "night-reader": ["production", "undeclared"],
        "orbit-words": ["unread"],
    }
    assert sentence(made).startswith(
        "11 models: 4 in production, 2 await approval, 1 without a declaration; 1 alarm is open"
    )


def test_the_versions_of_a_model_have_their_lives_figures_and_evidence(agency):
    third, second, first = entry(catalogue(agency), "opssat-anomalies")["versions"]
    assert [v["state"] for v in (third, second, first)] == ["awaiting", "production", "replaced"]
    assert third["in_production"] == [] and second["in_production"][0][1] is None
    assert first["in_production"] == [["2026-11-06T09:00:00Z", "2026-11-08T09:00:00Z"]]
    assert [f["name"] for f in second["figures"]] == ["auc_pr", "f1"]  # `rows` says no direction in which it is better
    assert second["figures"][0]["low"] < second["figures"][0]["value"] < second["figures"][0]["high"]
    assert second["bundle_there"] and second["verdict"] == "passed" and len(second["document"]["rows"]) == 4
    assert [r["notebook"] for r in second["lineage"]["runs"]] == [
        "nbs/pipeline/prepare.ipynb",
        "nbs/pipeline/experiment.ipynb",
    ]
    assert [d["kind"] for d in second["lineage"]["data"]] == ["file", "source"] and second["lineage"]["complete"]


def test_a_version_that_comes_back_is_in_production_twice():
    told = [("challenger", "1"), ("champion", "1"), ("challenger", "2"), ("champion", "2"), ("rolled_back", "1")]
    life = [{"event": e, "version": v, "at": f"2026-11-0{n}T00:00:00Z", "by": "a"} for n, (e, v) in enumerate(told, 1)]
    second, first = versions(life)
    assert first["state"] == "production" and first["in_production"] == [
        ["2026-11-02T00:00:00Z", "2026-11-04T00:00:00Z"],
        ["2026-11-05T00:00:00Z", None],
    ]
    assert second["state"] == "rolled_back"


def test_an_interrupted_promotion_is_no_promotion():
    told = [("challenger", "1"), ("intends", "1"), ("settled", None)]
    life = [{"event": e, "version": v, "at": "2026-11-01T00:00:00Z", "by": "a"} for e, v in told]
    assert [v["state"] for v in versions(life)] == ["awaiting"]


def test_the_refusals_are_kept_with_their_reasons(agency):
    refused = entry(catalogue(agency), "mission-questions")["refusals"]
    assert len(refused) == 2 and "holds 0" in refused[0]["reasons"][0]


def test_who_may_approve_is_of_the_domain_and_no_author(agency):
    made = catalogue(agency)
    assert entry(made, "bid-summaries")["waiting"]["may_approve"] == ["Grace Example (grace@example.org)"]
    text = agency.people.read_text().replace("grace@example.org", "data-ai-unit@example.org")  # who built it
    agency.people.write_text(text)
    assert entry(catalogue(agency), "bid-summaries")["waiting"]["may_approve"] == []
    who = next(n["who"] for n in entry(catalogue(agency), "bid-summaries")["needs"] if n["kind"] == "awaiting")
    assert who == "nobody who is listed may approve it"


@pytest.mark.parametrize("damage", ["altered", "cut", "not JSON", "a field more", "an entry removed"])
def test_with_a_broken_journal_nobody_claims_to_know_what_is_in_production(agency, damage):
    lines = agency.journal.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if '"champion"' in line)
    if damage == "altered":
        lines[at] = lines[at].replace("2026-", "2025-", 1)
    elif damage == "cut":
        lines[at] = lines[at][:40] + "\n"
    elif damage == "not JSON":
        lines[at] = "\x00\xff hello\n"
    elif damage == "a field more":
        lines[at] = lines[at].replace("{", '{"why": 1, ', 1)
    else:
        del lines[at]
    agency.journal.write_text("".join(lines))
    made = catalogue(agency)
    assert not made.journal["known"] and sentence(made).startswith("The journal cannot be relied on.")
    assert "what is in production is not known" in sentence(made) and made.counts()["production"] == 0
    assert entry(made, "shuttle-states")["states"][0] == "unknown"
    assert any(a["where"] == "journal.jsonl" for a in made.amiss)


def test_a_line_that_was_never_finished_is_no_damage(agency):
    with open(agency.journal, "a") as f:
        f.write('{"n": 99, "at": "2026-')
    assert catalogue(agency).journal["known"]


def test_a_bundle_that_is_gone_is_named(agency):
    bundle = entry(catalogue(agency), "shuttle-states")["versions"][0]["bundle"]
    shutil.rmtree(agency.registry / "bundles" / bundle)
    made = catalogue(agency)
    assert "amiss" in kinds(made, "shuttle-states") and entry(made, "shuttle-states")["states"] == ["production"]
    assert any(bundle[:12] in what for what in entry(made, "shuttle-states")["amiss"])
    assert (
        "evidence bundle" not in entry(made, "shuttle-states")["completeness"]["lacking"]
    )  # it is named, but not there
    assert "decision of the gate" in entry(made, "shuttle-states")["completeness"]["lacking"]


def test_a_decision_that_was_edited_is_not_the_decision_that_was_made(agency):
    bundle = entry(catalogue(agency), "shuttle-states")["versions"][0]["bundle"]
    path = agency.registry / "bundles" / bundle / "decision/decision.json"
    path.write_text(path.read_text().replace("at most 0 broken rules", "at most 9 broken rules"))
    made = catalogue(agency)
    first = entry(made, "shuttle-states")["versions"][0]
    assert first["document"] is None and first["figures"] == []
    assert any("edited" in a["what"] and bundle in a["where"] for a in made.amiss)


@pytest.mark.parametrize("content", ["[1, 2]", "{}", "{", "null", "\x00", '{"rows": 3}', "9" * 5000])
def test_a_decision_may_be_anything(agency, content):
    (agency.registry / "decisions/odd.json").write_text(content)
    assert any(a["where"] == "decisions/odd.json" for a in catalogue(agency).amiss)


@pytest.mark.parametrize(
    "content", ["[1]", "{}", "{", '{"model": 3, "opened": "x"}', '{"model": "a", "opened": "b", "channels": 1}']
)
def test_an_alarm_that_cannot_be_read_may_be_open_and_is_said(agency, content):
    (agency.registry / "alarms/odd.json").write_text(content)
    made = catalogue(agency)
    assert any(a["where"] == "alarms/odd.json" and "may be open" in a["what"] for a in made.amiss)
    assert made.counts()["alarms"] == 1


def test_an_alarm_of_a_model_that_nobody_knows_makes_an_entry(agency):
    agency.alarm("b", "ghost", severity=float("nan"), said=None)
    made = catalogue(agency)
    assert entry(made, "ghost")["states"] == ["undeclared"] and kinds(made, "ghost") == {"alarm"}


def test_a_closed_alarm_is_counted_and_waits_for_nobody(agency):
    watch = entry(catalogue(agency), "opssat-anomalies")["watch"]
    assert watch["open"] == [] and watch["closed"] == 1


@pytest.mark.parametrize("content", ["", "{", "- 1", "name: shuttle-states\n", "name: [1\n", "\tname: x"])
def test_a_model_whose_declaration_has_a_fault_stays_in_the_catalogue(agency, content):
    (agency.models / "shuttle-states.yaml").write_text(content)
    made = catalogue(agency)
    assert entry(made, "shuttle-states")["states"] == ["production", "unread"]
    assert "shuttle-states.yaml" in entry(made, "shuttle-states")["unread"] and "unread" in kinds(
        made, "shuttle-states"
    )


def test_a_model_in_production_without_a_declaration_is_shown_and_asks_for_one(agency):
    made = catalogue(agency)
    assert "undeclared" in kinds(made, "night-reader") and entry(made, "night-reader")["purpose"] is None
    assert entry(made, "night-reader")["versions"][0]["figures"]  # what the journal and the bundle know is there


def test_a_model_that_only_the_tracking_store_knows_is_shown(agency):
    assert entry(catalogue(agency, registered=["somebodys-test"]), "somebodys-test")["states"] == ["undeclared"]


def test_what_an_audit_found_stands_at_its_model(agency):
    made = catalogue(
        agency, amiss=[Amiss("shuttle-states", "The alias champion points at 7."), Amiss("elsewhere", "odd")]
    )
    assert entry(made, "shuttle-states")["amiss"] == ["The alias champion points at 7."]
    assert made.needs()[1]["kind"] == "amiss" and {"where": "elsewhere", "what": "odd"} in made.amiss


def test_an_owner_whom_nobody_lists_is_said(agency):
    agency.people.write_text(agency.people.read_text().replace("id: procurement", "id: purchasing"))
    assert any("no team" in w for w in entry(catalogue(agency), "bid-summaries")["amiss"])


def test_without_a_readable_list_of_people_the_catalogue_says_so(agency):
    agency.people.write_text("owners: 3\n")
    made = catalogue(agency)
    assert any("Who may approve is not known" in a["what"] for a in made.amiss)
    assert entry(made, "shuttle-states")["owner"]["title"] == "data-ai-unit"


def test_days_overdue_are_judged_by_the_day_that_is_given(agency):
    assert "review" in kinds(catalogue(agency), "mission-questions")
    assert "review" not in kinds(catalogue(agency, AT - timedelta(days=90)), "mission-questions")
    until = entry(catalogue(agency), "shuttle-states")["approval_until"]
    assert until["date"] == "2027-11-05" and kinds(catalogue(agency), "shuttle-states") == {"watch"}
    assert "expires" in kinds(catalogue(agency, AT + timedelta(days=340)), "shuttle-states")
    assert "expired" in kinds(catalogue(agency, AT + timedelta(days=400)), "shuttle-states")


def test_the_end_of_an_approval_is_what_the_journal_says():
    told = {
        "n": 1,
        "event": "champion",
        "model": "m",
        "version": "1",
        "previous": None,
        "at": "2026-11-01T00:00:00Z",
        "by": "a",
    }
    told |= {
        "reason": "",
        "decision": None,
        "bundle": None,
        "approval": "c" * 64,
        "details": {"until": "2026-12-01T00:00:00Z"},
    }
    made = catalogue_of(
        Material(declared={"m": {"lasts_days": 365, "owner": "x", "domain": "business"}}, journal=(told,)), AT
    )
    assert made.models[0]["approval_until"]["date"] == "2026-12-01"


def test_the_last_watch_is_the_newest_run_of_the_monitor(agency):
    watch = entry(catalogue(agency), "opssat-anomalies")["watch"]
    assert watch["last"]["run_id"] == "20261123T060000Z-aaaaaaaa" and watch["next"]["date"] == "2026-11-30"
    assert (
        entry(catalogue(agency, reports=None), "opssat-anomalies")["watch"]["next"] is None
    )  # the reports were not read


def test_completeness_names_what_is_lacking(agency):
    made = catalogue(agency)
    assert entry(made, "shuttle-states")["completeness"]["lacking"] == ["energy"]
    told = entry(made, "night-reader")["completeness"]
    assert {"purpose", "owner", "plan of monitoring"} <= set(told["lacking"]) and "lineage" not in told["lacking"]


def test_lineage_without_the_record_of_a_run_is_not_complete():
    told = {"b": {"inputs": [{"path": "t", "sha256": "0", "made_by": "a"}]}}
    assert not lineage_of("b", told)["complete"] and not lineage_of(None, told)["complete"]
    round_ = {"a": {"inputs": [{"path": "t", "sha256": "0", "made_by": "a"}]}}
    assert lineage_of("a", round_)["complete"]  # a run that reads what it wrote ends the walk


@pytest.mark.parametrize("value", [None, float("nan"), "0.9", True, [1]])
def test_a_result_that_is_no_number_is_no_figure(value):
    declared = [{"kind": "result", "name": "auc_pr", "value": value, "better": "higher"}]
    found = figures({"declarations": declared})
    assert found == []


@pytest.mark.parametrize("part", ["inputs", "outputs", "parameters", "declarations", "notebook"])
@pytest.mark.parametrize("value", [3, "x", [1], {"a": 1}])
def test_a_record_may_be_anything(agency, part, value):
    path = next(agency.reports.glob("runs/experiment/*/record.json"))
    run = json.loads(path.read_text())
    other = path.parent.with_name("20261122T000000Z-eeeeeeee")
    other.mkdir()
    (other / "record.json").write_text(json.dumps({**run, "run_id": other.name, part: value}))
    made = catalogue(agency)
    assert len(made.models) == 11 and made.counts()["production"] == 4


def test_the_same_files_give_the_same_bytes(agency):
    first, again = (json.dumps(catalogue(agency).document(), sort_keys=True) for _ in range(2))
    assert first == again


def test_kinds_are_data_and_all_treated_alike(agency):
    for kind in ("detector", "llm", "prompt"):
        name = f"a-{kind}"
        text = declaration(name, "T", kind, "business", "procurement", "high", "tenders", AT.date() + timedelta(days=9))
        (agency.models / f"{name}.yaml").write_text(text)
    made = catalogue(agency)
    assert [entry(made, f"a-{k}")["kind"] for k in ("detector", "llm", "prompt")] == ["detector", "llm", "prompt"]
    assert len({tuple(sorted(entry(made, f"a-{k}"))) for k in ("detector", "llm", "prompt")}) == 1


def test_a_hundred_models_are_all_there(tmp_path):
    made = catalogue(world(tmp_path, 100))
    assert len(made.models) == 100 and made.amiss == ()
    assert made.counts()["production"] == sum(m["states"][0] == "production" for m in made.models) == 34


def test_nothing_at_all_is_a_catalogue_too(tmp_path: Path):
    made = catalogue(World(tmp_path))
    assert sentence(made) == "No model has been declared or registered yet." and made.needs() == []
