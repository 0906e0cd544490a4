"""Promotion, withdrawal and audit: who may, what is compared, and what is found when somebody goes around."""

import json
from datetime import date, timedelta

import pytest

from esa_notebooks.files import sha256
from esa_notebooks.gate.approval import ApprovalError
from esa_notebooks.registry.change import Disagreement, Refused, RegistryConflict, RegistryError
from esa_notebooks.registry.journal import check, in_production, timeline
from esa_notebooks.registry.store import StoreError, set_alias
from esa_notebooks.registry.tags import TagError
from tests.registry.registry_world import (
    ADA,
    AUTHOR,
    BEN,
    NAME,
    OLD,
    OWNER,
    T0,
    TAGS,
    decision_about,
    key_of,
    people_of,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def aliases(registry) -> dict:
    return dict(registry.store.model(NAME).aliases)


def kinds(registry) -> list[str]:
    return [d.kind for d in registry.audit()]


def test_a_whole_life(world):
    registry = world.registry()
    assert world.challenge(registry, 1) == "1" and aliases(registry) == {"challenger": "1"}
    assert list(registry.standing().challenger) == ["1"] and registry.audit() == []
    assert registry.approve(NAME, world.signed(registry, "1"), T0 + HOUR) == "1"
    assert aliases(registry) == {"champion": "1"} and registry.standing().next.iloc[0].startswith(("", "the approval"))
    world.promote(registry, 2, "1", T0 + DAY)
    assert aliases(registry) == {"champion": "2"}
    assert registry.rollback(NAME, OWNER, "too many false alarms", at=T0 + 2 * DAY) == "1"
    registry.retire(NAME, "2", BEN, "it was wrong", at=T0 + 2 * DAY)
    assert aliases(registry) == {"champion": "1"} and registry.audit() == [] and check(registry.entries()) == []
    told = timeline(registry.entries(), NAME)
    assert told.version.tolist() == ["1", "2", "1"] and told.by.tolist() == [ADA, ADA, OWNER]
    assert in_production(registry.entries(), NAME, T0 + DAY + 2 * HOUR) == "2"
    model = registry.store.model(NAME)
    assert TAGS.items() <= model.tags.items() and model.versions["1"]["esa.sha256"] == sha256(world.detector(1))
    assert registry.rollback(NAME, ADA, "nothing before it", at=T0 + 3 * DAY) is None
    assert aliases(registry) == {} and registry.standing().champion.tolist() == [None] and registry.audit() == []


def test_what_the_gate_refuses_is_journalled_and_not_registered(world):
    registry = world.registry()
    document, bundle = world.evidence(registry, verdict="refused")
    with pytest.raises(Refused, match="no better than the champion"):
        world.challenge(registry, decision=document, bundle=bundle)
    last = registry.entries()[-1]
    assert last.event == "refused" and last.by == AUTHOR and "no better" in last.reason
    assert json.loads((registry.folder / "decisions" / f"{last.decision}.json").read_text()) == document
    assert registry.store.names() == []


def test_a_version_is_not_written_beside_figures_of_something_else(again):
    registry = again.registry()
    against = {"kind": "champion", "name": NAME, "sha256": "1" * 64, "version": "2"}
    document, bundle = again.evidence(registry, 3, against=against)
    with pytest.raises(Refused, match=r"111111111111….* is not in the evidence of that version"):
        again.challenge(registry, 3, decision=document, bundle=bundle, at=T0 + 2 * DAY)
    (address,) = {e.bundle for e in registry.entries() if e.version == "2" and e.bundle}
    manifest = registry.folder / "bundles" / address / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(sha256(again.detector(2)).encode(), b"1" * 64))
    with pytest.raises(Refused, match="gone or was changed"):
        again.challenge(registry, 3, decision=document, bundle=bundle, at=T0 + 2 * DAY)
    assert aliases(registry) == {"champion": "2"} and registry.entries()[-1].event == "refused"


def nan(document):
    return {**document, "rows": [{**document["rows"][0], "value": float("nan")}]}


@pytest.mark.parametrize(
    "spoil, said",
    [
        (nan, "JSON"),
        (lambda d: {**d, "verdict": "passed", "reasons": ["x"]}, "digest"),
        (lambda d: decision_about(d["subject"]["sha256"], name="other-anomalies"), "about other-anomalies"),
        (lambda d: decision_about("3" * 64), "judged a file"),
        (lambda d: decision_about(d["subject"]["sha256"], findings={"x": {}}), "another decision"),
        (lambda d: {"verdict": "passed"}, "no decision"),
    ],
    ids=["nan", "edited", "other-model", "other-file", "other-bundle", "nothing"],
)
def test_a_decision_that_does_not_hold(world, spoil, said):
    registry = world.registry()
    document, bundle = world.evidence(registry)
    with pytest.raises(Refused, match=said):
        world.challenge(registry, decision=spoil(document), bundle=bundle)
    assert registry.entries()[-1].event == "refused" and registry.store.names() == []


def test_evidence_that_was_touched_or_signed_by_a_stranger(world):
    registry = world.registry()
    document, bundle = world.evidence(registry)
    file = registry.folder / "bundles" / bundle / "README.md"
    file.write_text("better\n")
    with pytest.raises(Refused, match=r"README\.md"):
        world.challenge(registry, decision=document, bundle=bundle)
    file.write_text("evidence\n")
    file.parent.rename(registry.folder / "bundles" / ("4" * 64))
    with pytest.raises(Refused, match="is not in"):
        world.challenge(registry, decision=document, bundle=bundle)
    (registry.folder / "bundles" / ("4" * 64)).rename(file.parent)
    (registry.folder / "journal.jsonl").unlink()  # nobody enrolled the key here
    with pytest.raises(Refused, match="key"):
        world.challenge(registry, decision=document, bundle=bundle)


@pytest.mark.parametrize("tags", [{**TAGS, "trl": "12"}, {**TAGS, "risk": "high"}, {"owner": "x"}])
def test_tags_of_another_form(world, tags):
    registry = world.registry()
    with pytest.raises(TagError):
        world.challenge(registry, tags=tags)
    assert registry.store.names() == [] and registry.entries()[-1].event == "refused"


def test_approvals_that_do_not_count(world):
    registry = world.registry()
    version = world.challenge(registry)
    good = world.signed(registry, version)
    bad = {**good, "payload": good["payload"][:-8] + "AAAA" + good["payload"][-4:]}
    stranger = world.signed(registry, version, seed=9, people=people_with(9))
    mine = world.signed(registry, version, seed=4, authors=())  # the author's own key
    was = world.signed(registry, version, seed=3, people=people_with(3, OLD), at=T0)
    for envelope, at, said in [
        (bad, T0 + HOUR, "altered|signature"),
        ({**good, "signatures": []}, T0 + HOUR, "unsigned"),
        (stranger, T0 + HOUR, "not known"),
        (mine, T0 + HOUR, "own work"),
        (was, T0 + HOUR, "until 2026-01-31"),
        (good, T0 + 200 * DAY, "ended"),
    ]:
        with pytest.raises(ApprovalError, match=said):
            registry.approve(NAME, envelope, at)
        assert registry.entries()[-1].event == "refused" and aliases(registry) == {"challenger": version}
    assert registry.approve(NAME, good, T0 + HOUR) == version


def people_with(seed: int, email: str = "stranger@example.org"):
    from dataclasses import replace

    from esa_notebooks.gate.people import Approver
    from esa_notebooks.gate.signing import public_bytes

    people = people_of()
    rest = tuple(a for a in people.approvers if a.email != email)
    domains = ("operational",)
    more = Approver(email, email, public_bytes(key_of(seed)), ("reviewer",), domains, date(2027, 1, 1))
    return replace(people, approvers=(*rest, more))


def test_who_signed_the_first_challenger_does_not_approve_the_second(world):
    registry = world.registry()
    first = world.challenge(registry, 1)
    envelope = world.signed(registry, first)
    world.challenge(registry, 2)
    with pytest.raises(ApprovalError, match="another|not for"):
        registry.approve(NAME, envelope, T0 + HOUR)
    assert registry.audit() == []


def test_a_decision_about_yesterdays_champion(two, again):
    with pytest.raises(RegistryConflict, match=rf"compared with version 1.*version 2 since .* by {ADA}"):
        again.challenge(two, 3, "1")
    with pytest.raises(RegistryConflict, match="compared with no champion"):
        again.challenge(two, 3)


def test_the_champion_changed_between_signature_and_approval(two, again):
    version = again.challenge(two, 3, "2", T0 + 2 * DAY)
    envelope = again.signed(two, version, at=T0 + 2 * DAY)
    two.rollback(NAME, ADA, "in the meantime", at=T0 + 2 * DAY)
    with pytest.raises(RegistryConflict, match="version 2, but in production is version 1"):
        two.approve(NAME, envelope, T0 + 2 * DAY + HOUR)
    assert aliases(two) == {"champion": "1", "challenger": "3"}


def test_nothing_awaits_approval(two, again):
    with pytest.raises(RegistryConflict, match=f"Version 2 was approved by {ADA}"):
        two.approve(NAME, {})


@pytest.mark.parametrize("who, said", [("nobody@example.org", "no approver"), (OLD, "until 2026-01-31")])
def test_who_may_take_back(two, who, said):
    with pytest.raises(Refused, match=said):
        two.rollback(NAME, who, "because I can", at=T0)
    with pytest.raises(Refused, match=said):
        two.retire(NAME, "1", who, "so it is", at=T0)
    assert aliases(two) == {"champion": "2"}


def test_rollbacks_that_make_no_sense(two, again):
    for to, said in [("2", "already"), ("9", "never approved")]:
        with pytest.raises(RegistryError, match=said):
            two.rollback(NAME, ADA, "to be tried", to, at=T0)
    with pytest.raises(RegistryError, match="Say why"):
        two.rollback(NAME, ADA, "", at=T0)
    with pytest.raises(Refused, match="expired at 2026-08-28.*none"):
        two.rollback(NAME, ADA, "half a year later", at=T0 + 300 * DAY)
    assert two.rollback(NAME, ADA, "half a year later", "none", at=T0 + 300 * DAY) is None
    with pytest.raises(RegistryError, match="nothing to take back"):
        two.rollback(NAME, ADA, "once more again", at=T0)


def test_a_champion_is_not_retired(two):
    with pytest.raises(RegistryConflict, match="rollback"):
        two.retire(NAME, "2", ADA, "no good", at=T0)
    with pytest.raises(RegistryError, match="knows no version 7"):
        two.retire(NAME, "7", ADA, "no good", at=T0)
    two.retire(NAME, "1", ADA, "no good", at=T0)
    with pytest.raises(RegistryError, match="retired already"):
        two.retire(NAME, "1", ADA, "no good", at=T0)
    with pytest.raises(Refused, match="retired"):
        two.rollback(NAME, ADA, "back to it", "1", at=T0)
    assert two.rollback(NAME, ADA, "what it replaced is retired", at=T0) is None


@pytest.mark.parametrize("moved", ["1", None])
def test_an_alias_moved_behind_the_journals_back(two, again, moved):
    set_alias(two.store, NAME, "champion", moved)  # as anybody with MLflow's client could
    (found,) = two.audit()
    assert found.kind == "alias" and "by the journal it is version 2" in found.what and "--repair" in found.do
    with pytest.raises(Disagreement, match="--repair"):
        again.challenge(two, 3, "2")
    done, left = two.repair(ADA, "found in the audit", T0 + 3 * DAY)
    assert [e.event for e in done] == ["settled"] and left == [] and aliases(two) == {"champion": "2"}
    assert again.promote(two, 3, "2", T0 + 3 * DAY) == "3"


def test_a_rollback_does_not_wait_for_a_repair(two):
    set_alias(two.store, NAME, "champion", "1")
    assert two.rollback(NAME, ADA, "bad in any case", "none", at=T0) is None
    assert two.audit() == [] and aliases(two) == {}


def test_a_model_put_into_production_past_the_gate(two):
    two.store.client.create_registered_model("other-anomalies")
    source = two.store.client.get_model_version(NAME, "1").source
    two.store.client.create_model_version("other-anomalies", source)
    assert two.audit() == [], "somebody else's model is their business"
    set_alias(two.store, "other-anomalies", "champion", "1")
    assert kinds(two) == ["alias", "unknown"]
    assert two.repair(ADA)[1][0].kind == "unknown" and two.store.model("other-anomalies").aliases == {}


def test_a_deleted_champion(two, again):
    two.store.client.delete_model_version(NAME, "2")
    (found,) = two.audit()
    assert found.kind == "deleted" and "version 2" in found.what and "rollback" in found.do
    with pytest.raises(Disagreement, match="deleted"):
        again.challenge(two, 3, "2")
    assert two.repair(ADA)[1] == [found], "what is gone cannot be put back"
    assert two.rollback(NAME, ADA, "version 2 was deleted", at=T0 + 2 * DAY) == "1" and two.audit() == []


def test_a_deleted_challenger_and_a_deleted_way_back(two, again):
    again.challenge(two, 3, "2", T0 + 2 * DAY)
    two.store.client.delete_model_version(NAME, "3")
    with pytest.raises(Disagreement, match="deleted"):
        two.approve(NAME, {}, T0 + 2 * DAY)
    done, left = two.repair(ADA)
    assert [e.event for e in done] == ["retired"] and left == []
    two.store.client.delete_model_version(NAME, "1")
    with pytest.raises(StoreError, match="no version 1"):
        two.rollback(NAME, ADA, "to what is gone", at=T0 + 2 * DAY)
    assert aliases(two) == {"champion": "2"}


def test_a_deleted_model_can_be_taken_out_of_service(two):
    two.store.client.delete_registered_model(NAME)
    assert "deleted" in kinds(two)
    assert two.rollback(NAME, ADA, "it is gone", "none", at=T0) is None and two.audit() == []


def test_a_journal_that_was_cut(two, again):
    file = two.folder / "journal.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:5]))
    assert "cut" in kinds(two)
    with pytest.raises(Disagreement, match="cut off|older copy"):
        again.challenge(two, 3, "1")
    file.write_text("".join(lines[:4] + lines[5:]))
    assert kinds(two)[0] == "journal"
    with pytest.raises(ValueError, match="altered|missing"):
        again.challenge(two, 3, "2")
    file.write_text("".join(lines))
    assert two.audit() == []


def test_bytes_that_were_exchanged_in_mlflow(two, again):
    stored = next((again.folder / "mlruns").rglob("2.zip"))
    stored.write_bytes(again.detector(4).read_bytes())
    (found,) = two.audit()
    assert found.kind == "bytes" and "version 2" in found.what
    version = again.challenge(two, 3, "2", T0 + 2 * DAY)
    stored = next((again.folder / "mlruns").rglob("3.zip"))
    stored.write_bytes(again.detector(4).read_bytes())
    with pytest.raises(Refused, match="the gate judged"):
        two.approve(NAME, again.signed(two, version, at=T0 + 2 * DAY), T0 + 2 * DAY + HOUR)
    assert aliases(two) == {"champion": "2", "challenger": "3"}


def test_a_tampered_bundle_is_named(two):
    for entry in [e for e in two.entries() if e.event == "champion"]:
        (two.folder / "bundles" / entry.bundle / "README.md").write_text("other")
    found = two.audit()
    assert {(d.kind, d.version) for d in found} == {("bundle", "1"), ("bundle", "2")} and "README.md" in found[0].what


def test_a_store_that_fails_in_the_middle(two, again, monkeypatch):
    """A challenger is registered and the alias cannot be set: the version is taken away again, at once."""

    def refuse(*_):
        raise StoreError("no space left")

    monkeypatch.setattr("esa_notebooks.registry.promotion.carry_out", refuse)
    with pytest.raises(StoreError, match="no space"):
        again.challenge(two, 3, "2")
    monkeypatch.undo()
    assert sorted(two.store.model(NAME).versions) == ["1", "2"] and two.audit() == []
    assert two.entries()[-1].event == "settled"
