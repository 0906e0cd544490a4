"""An approval counts for one person, one bundle, one decision and one change, or not at all."""

from datetime import UTC, date, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esa_notebooks.gate.approval import APPROVAL_TYPE, ApprovalError, approve, ask, check_approval
from esa_notebooks.gate.decision import decide
from esa_notebooks.gate.evidence import Finding
from esa_notebooks.gate.pages import who_may
from esa_notebooks.gate.people import parse_people
from esa_notebooks.gate.policy import parse_policy
from esa_notebooks.gate.signing import key_id, public_bytes, public_text, sign, statement

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
BUNDLE, AUTHORS = "b" * 64, ["ada@example.org"]
KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(bytes([n + 1] * 32))
    for n, name in enumerate(("ada", "cleo", "old", "elsewhere", "stranger"))
}
UNTIL = {"old": "2026-11-24"}
PEOPLE = parse_people(
    "schema: esa-notebooks/people/1\nowners: []\napprovers:\n"
    + "".join(
        f"  - {{name: {name}, email: {name}@example.org, key: {public_text(key)}, roles: [owner], "
        f"domains: [{'business' if name == 'elsewhere' else 'operational'}], until: {UNTIL.get(name, '2027-12-31')}}}\n"
        for name, key in KEYS.items()
        if name != "stranger"
    )
)


def decision(n: int = 1, version: str | None = "1", **subject) -> dict:
    policy = parse_policy(
        "schema: esa-notebooks/gate/1\nkinds: {detector: {checks: [{name: files, title: It has files, "
        "needs: {n: {at_least: 1, unit: files}}, reason: It must.}]}}",
        "detector",
    )
    about = {
        "name": "forest",
        "kind": "detector",
        "domain": "operational",
        "detector": "ExtraTrees",
        "sha256": "0" * 64,
        "run_id": "20261125-080000-abc",
        **subject,
    }
    against = {"kind": "champion" if version else "baseline", "name": "tree", "sha256": "1" * 64, "version": version}
    return decide(policy, {"files": Finding("files", {"n": n}, "run", "Counted.")}, about, against, NOW).document()


DECISION = decision()


def says(**change) -> dict:
    return {
        "name": "forest",
        "version": "2",
        "decision": DECISION["digest"],
        "approver": "cleo@example.org",
        "replaces": "1",
        "at": "2026-11-25T08:00:00Z",
        "until": "2027-11-25",
        "comment": "",
        **change,
    }


def envelope(key: str = "cleo", kind: str = APPROVAL_TYPE, bundle: str = BUNDLE, **change) -> dict:
    """What anybody can sign who does not use `approve`."""
    return sign(statement({"bundle": bundle}, kind, says(**change)), KEYS[key])


def check(signed: dict, *, bundle: str = BUNDLE, authors=AUTHORS, at: datetime = NOW, about: dict | None = None):
    return check_approval(signed, PEOPLE, bundle=bundle, decision=about or DECISION, authors=authors, at=at)


def test_the_whole_way():
    request = ask(DECISION, version="2", bundle=BUNDLE, lasts_days=365, report="c" * 64)
    assert "Version 2 of forest" in request.text() and "in place of version 1" in request.text()
    given = check(approve(request, KEYS["cleo"], PEOPLE, decision=DECISION, authors=AUTHORS, at=NOW, comment="Read."))
    assert (given.name, given.version, given.replaces, given.report, given.comment) == (
        "forest",
        "2",
        "1",
        "c" * 64,
        "Read.",
    )
    assert given.approver.email == "cleo@example.org" and given.until == date(2027, 11, 25) and given.at == NOW


def test_a_first_champion_replaces_nothing():
    first = decision(version=None)
    request = ask(first, version="1", bundle=BUNDLE, lasts_days=30)
    signed = approve(request, KEYS["cleo"], PEOPLE, decision=first, authors=AUTHORS, at=NOW)
    assert check(signed, about=first).replaces is None and "nothing is in production yet" in request.text()


@pytest.mark.parametrize(
    "signed, said",
    [
        (envelope("stranger"), "not known here"),
        (envelope("ada", approver="ada@example.org"), "nobody approves their own work"),
        (envelope("ada"), "names cleo@example.org, but ada@example.org signed it"),
        (envelope("stranger", approver="stranger@example.org"), "not known here"),
        (envelope(approver="cloe@example.org"), "Did you mean `cleo@example.org`"),
        (envelope("old", approver="old@example.org"), "was an approver until 2026-11-24.*ask cleo@example.org"),
        (
            envelope("elsewhere", approver="elsewhere@example.org"),
            "approves models of the domain business, not operational",
        ),
        (envelope(bundle="c" * 64), "for the bundle cccccccccccc"),
        (envelope(decision="d" * 64), "for the decision dddddddddddd"),
        (envelope(name="tree"), "is for tree, not for forest"),
        (envelope(replaces="7"), "replacing version 7; the decision compared with version 1"),
        (envelope(replaces=None), "replacing nothing; the decision compared with version 1"),
        (envelope(until="2026-11-24"), "ended on 2026-11-24"),
        (envelope(at="2026-11-25T08:06:00Z"), "still to come"),
        (envelope(at="2026-11-24T08:00:00Z"), "older than the decision"),
        (envelope(at="yesterday"), "are none"),
        (envelope(at="2026-11-25T08:00:00"), "are none"),
        (envelope(until="whenever"), "are none"),
        (envelope(version=2), "does not say its `version`"),
        (envelope(comment=None), "does not say its `comment`"),
        (envelope(kind="urn:esa-notebooks:promotion:1"), "is no approval"),
        ({**envelope(), "signatures": []}, "unsigned"),
        (None, "no DSSE envelope"),
    ],
)
def test_approvals_that_do_not_count(signed, said):
    with pytest.raises(ApprovalError, match=said):
        check(signed)


def test_an_author_is_one_in_any_spelling_and_by_key():
    for authors in (["CLEO@example.org "], [key_id(public_bytes(KEYS["cleo"]))]):
        with pytest.raises(ApprovalError, match="own work"):
            check(envelope(), authors=authors)


def test_it_counts_through_its_last_day():
    assert check(envelope(), at=NOW + timedelta(days=365)).until == date(2027, 11, 25)
    with pytest.raises(ApprovalError, match="ended on 2027-11-25"):
        check(envelope(), at=NOW + timedelta(days=366))


def test_a_refused_or_edited_decision_cannot_be_approved():
    for bad, said in (
        (decision(n=0), "gate refused it.*files"),
        ({**DECISION, "verdict": "refused"}, "edited"),
        ({}, "no decision"),
    ):
        with pytest.raises(ApprovalError, match=said):
            ask(bad, version="2", bundle=BUNDLE, lasts_days=365)
        with pytest.raises(ApprovalError, match=said):
            check_approval(envelope(), PEOPLE, bundle=BUNDLE, decision=bad, authors=AUTHORS, at=NOW)


@pytest.mark.parametrize(
    "who, said",
    [
        ("stranger", "no approver's"),
        ("ada", "own work"),
        ("old", "was an approver until"),
        ("elsewhere", "not operational"),
    ],
)
def test_nobody_signs_what_would_not_count(who, said):
    request = ask(DECISION, version="2", bundle=BUNDLE, lasts_days=365)
    with pytest.raises(ApprovalError, match=said):
        approve(request, KEYS[who], PEOPLE, decision=DECISION, authors=AUTHORS, at=NOW)


@pytest.mark.parametrize(
    "terms",
    [
        {"lasts_days": 0},
        {"lasts_days": -1},
        {"lasts_days": True},
        {"lasts_days": 1.5},
        {"lasts_days": 99999},
        {"bundle": "../x"},
        {"report": "abc"},
    ],
)
def test_requests_that_make_no_sense(terms):
    with pytest.raises(ApprovalError):
        ask(DECISION, **{"version": "2", "bundle": BUNDLE, "lasts_days": 365, **terms})


def test_the_report_names_who_may_and_how():
    told = who_may(PEOPLE, "forest", "operational", AUTHORS, NOW)
    assert "cleo@example.org" in told and "ada@" not in told and "old@" not in told
    assert "esa-notebooks approve forest@challenger" in told
    assert "Nobody who is listed" in who_may(PEOPLE, "forest", "technical", AUTHORS, NOW)
