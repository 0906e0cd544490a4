"""The list of people: who is refused before anybody relies on them."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from esa_notebooks.gate.people import PeopleError, parse_people, read_people
from esa_notebooks.gate.signing import key_id, public_text

ROOT = Path(__file__).resolve().parents[2]


def text(*approvers: str, owners: str = "[{id: unit, title: Unit, contact: unit@example.org}]", more: str = "") -> str:
    lines = "".join(f"  - {one}\n" for one in approvers)
    return f"schema: esa-notebooks/people/1\nowners: {owners}\napprovers:\n{lines or '  []'}\n{more}"


def person(n: int, email: str = "", until: str = "2027-12-31", domains: str = "[technical]", key: str = "") -> str:
    return (
        f"{{name: P{n}, email: {email or f'p{n}@example.org'}, key: {key or public_text(bytes([n] * 32))}, "
        f"roles: [owner], domains: {domains}, until: {until}}}"
    )


def test_the_committed_list_is_one_whose_people_are_marked_as_examples():
    people = read_people(ROOT / "governance" / "approvers.yaml")
    assert all("replace" in a.name and a.email.endswith("@example.org") for a in people.approvers)
    assert {o.id for o in people.owners} >= {"data-ai-unit", "flight-dynamics-data"} and not people.builders


def test_an_approver_counts_through_the_last_day():
    people = parse_people(text(person(1, until="2027-01-31")))
    assert people.may_approve("technical", date(2027, 1, 31))
    assert people.may_approve("technical", datetime(2027, 1, 31, 23, 59, tzinfo=UTC))
    assert not people.may_approve("technical", date(2027, 2, 1)) and not people.may_approve(
        "business", date(2027, 1, 1)
    )


def test_keys_of_approvers_and_builders_are_kept_apart():
    builder = public_text(bytes([9] * 32))
    people = parse_people(text(person(1), person(2), more=f"builders: [{{name: ci, key: {builder}}}]\n"))
    assert set(people.keys()) == {key_id(bytes([1] * 32)), key_id(bytes([2] * 32))}
    assert set(people.builder_keys()) == {key_id(bytes([9] * 32))}


@pytest.mark.parametrize(
    "bad, said",
    [
        (text(person(1), person(2, email="P1@Example.org")), "e-mail address p1@example.org stands twice"),
        (text(person(1), person(2, key=public_text(bytes([1] * 32)))), "the key .* stands twice"),
        (
            text(person(1), more=f"builders: [{{name: ci, key: {public_text(bytes([1] * 32))}}}]\n"),
            "the key .* stands twice",
        ),
        (text(owners="[{id: a, title: A, contact: c}, {id: a, title: B, contact: c}]"), "owner a stands twice"),
        (text(person(1, key="AAAA")), "approvers.0.key: A public Ed25519 key has 32 bytes"),
        (text(person(1, key="nonsense!")), "not base64"),
        (text(person(1, until="2027-02-30")), "2027-02-30"),
        (text(person(1, until="next year")), "must be a date"),
        (text(person(1, domains="[]")), "must not be empty"),
        (text(person(1, domains="[operatonal]")), "Did you mean `operational`"),
        (text(person(1, email="nobody")), "must be an e-mail address"),
        (text(person(1)[:-1] + ", rolls: [x]}"), "no entry `rolls`. Did you mean `roles`"),
        (text("{name: A}"), "lacks `email`"),
        (text() + "approvers: []\n", "`approvers` stands twice"),
        (text().replace("people/1", "people/2"), "schema"),
        ("owners: &a [*a]\n", "aliases"),
        ("- a\n", "a mapping"),
        ("", "a mapping"),
        ("{", "cannot be read as YAML"),
        ("!!python/object:os.system {}", "YAML"),
    ],
    ids=range(20),
)
def test_lists_that_are_refused(bad, said):
    with pytest.raises(PeopleError, match=said):
        parse_people(bad)


def test_who_does_not_stand_in_it(tmp_path):
    people = parse_people(text(person(1)))
    with pytest.raises(PeopleError, match="p2@example.org is no approver. Did you mean `p1@example.org`"):
        people.approver("p2@example.org")
    with pytest.raises(PeopleError, match="Did you mean `unit`"):
        people.owner("unti")
    with pytest.raises(PeopleError, match="There is no list of people"):
        read_people(tmp_path / "approvers.yaml")
    (tmp_path / "approvers.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(PeopleError, match="not text in UTF-8"):
        read_people(tmp_path / "approvers.yaml")
