"""Declarations: the committed ones, and what is said of every way to get one wrong."""

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import fastjsonschema
import pytest
import yaml

from esa_notebooks.gate.people import read_people
from esa_notebooks.registry.declaration import ASSETS, Declaration, DeclarationError, missing, overdue, parse, read

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted((ROOT / "governance" / "models").glob("*.yaml"))
AT = datetime(2026, 11, 25, tzinfo=UTC)
TEXT = (ROOT / "governance" / "models" / "opssat-anomalies.yaml").read_text(encoding="utf-8")


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def refusal(text: str, people=None) -> str:
    with pytest.raises(DeclarationError) as said:
        parse(text, people)
    assert "\n" not in str(said.value)
    return str(said.value)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_the_committed_declarations_are_whole(path):
    people = read_people(ROOT / "governance" / "approvers.yaml")
    made = read(path, people, AT)
    assert made.name == path.stem and made.review > AT.date() and made.notes == () and missing(made) == []
    known = {p.stem for p in (ROOT / "data" / "contracts").glob("*.yaml")}
    assert set(made.data) <= known, "a data set that has no contract"
    contract = yaml.safe_load((ROOT / "data" / "contracts" / f"{made.data[0]}.yaml").read_text())
    columns = contract["columns"]
    assert set(made.monitoring.channels) <= set(columns.get("channel", {}).get("values", ())) | set(columns)


def test_there_are_committed_declarations():
    assert {"opssat-anomalies", "shuttle-anomalies"} <= {p.stem for p in COMMITTED}


def test_the_schema_and_the_dataclass_have_the_same_fields():
    schema = json.loads((ASSETS / "declaration.schema.json").read_text())
    assert set(schema["properties"]) | {"notes", "path", "sha256"} == set(Declaration.__dataclass_fields__)
    fastjsonschema.compile(schema)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("purpose:", "purpos:", "no entry `purpos`. Did you mean `purpose`?"),
        ("kind: detector", "kind: detectr", "Did you mean `detector`?"),
        ("domain: operational", "domain: operations", "Did you mean `operational`?"),
        ("data_class: public", "data_class: secret", "It may be public, internal, restricted."),
        ("trl: 4", "trl: 0", "1 or more"),
        ("trl: 4", "trl: 10", "9 or less"),
        ("trl: 4", "trl: yes", "a whole number"),
        ("trl: 4", "trl: 4.5", "a whole number"),
        ("trl: 4", "trl: 4\ntrl: 5", "stands twice"),
        ("review: 2027-05-25", "review: 2027-02-30", "no calendar has"),
        ("review: 2027-05-25", "review: soon", "a day such as 2027-05-25"),
        ("review: 2027-05-25", "review: 2027-05-25T10:00:00Z", "a day such as 2027-05-25"),
        ("lasts_days: 365", "lasts_days: 0", "1 or more"),
        ("name: opssat-anomalies", "name: OPS_SAT", "small letters and digits"),
        ("name: opssat-anomalies", "name: ../opssat", "small letters and digits"),
        ("  every_days: 7", "  every_day: 7", "Did you mean `every_days`?"),
        ("  false_alarms_per_month: 1", "  false_alarms_per_month: 0", "above 0"),
        ("  false_alarms_per_month: 1", "  false_alarms_per_month: .nan", "no rate"),
        ("  false_alarms_per_month: 1", "  false_alarms_per_month: .inf", "no rate"),
        ("data: [opssat]", "data: opssat", "a list"),
        ("data: [opssat]", "data: [opssat, opssat]", "something twice"),
        ("energy: Fitted", "energy: ''\nlimits_: Fitted", "not empty"),
        ("energy: Fitted", "energies: Fitted", "Did you mean `energy`?"),
        ("{name: Weekly telemetry digest, kind: report,", "{name: Weekly telemetry digest,", "consumers.1 lacks kind"),
        ("rollback: To", "rollback: &a To", None),  # an anchor without a reference is only a name
    ],
)
def test_every_slip_is_named_with_its_line(right, wrong, told):
    assert right in TEXT
    text = TEXT.replace(right, wrong, 1)
    if told is None:
        assert parse(text).name == "opssat-anomalies"
        return
    said = refusal(text)
    number = int(re.match(r"line (\d+):", said)[1])
    assert told in said and number in (line_of(TEXT, right), line_of(TEXT, right) + 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the declaration is null; it must be a mapping"),
        ("- a\n- b", "a mapping"),
        ("a: b: c", "not valid YAML"),
        ("a: &x [1]\nb: *x", "line 2: *x refers to another place"),
        ("? [a, b]\n: 1", "line 1: a name is a text"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("[" * 1000, "YAML|nested"),
        ("1: a", "lacks|no entry `1`"),
        ("name: x\n---\nname: y", "not valid YAML"),
    ],
)
def test_what_is_no_declaration(text, told):
    assert any(part in refusal(text) for part in told.split("|"))


def test_a_required_entry_that_is_not_there():
    assert "lacks rollback" in refusal(TEXT.replace("rollback:", "# rollback:"))


def test_an_unknown_owner():
    people = SimpleNamespace(owners=(SimpleNamespace(id="flight-dynamics-dat"), SimpleNamespace(id="others")))
    said = refusal(TEXT, people)
    assert "Did you mean `flight-dynamics-dat`?" in said and said.startswith(f"line {line_of(TEXT, 'owner:')}:")
    assert "knows none" in refusal(TEXT, SimpleNamespace(owners=()))


def test_a_review_is_overdue_from_the_day_after():
    made = parse(TEXT)
    on = [overdue(made, datetime(2027, 5, day, 23, 59, tzinfo=UTC)) for day in (24, 25, 26, 27)]
    assert (
        on[:2] == ["", ""]
        and on[2].endswith("1 day ago.")
        and on[3].endswith("2 days ago.")
        and made.review == date(2027, 5, 25)
    )


def test_the_file_is_named_as_the_model(tmp_path):
    (tmp_path / "other.yaml").write_text(TEXT)
    with pytest.raises(DeclarationError, match="Rename the file to opssat-anomalies.yaml"):
        read(tmp_path / "other.yaml")
    (tmp_path / "opssat-anomalies.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read(tmp_path / "opssat-anomalies.yaml", at=AT).title  # a byte order mark, as some editors write it
    with pytest.raises(DeclarationError, match="Did you mean `opssat-anomalies`"):
        read(tmp_path / "opssat-anomaly.yaml")
    (tmp_path / "opssat-anomalies.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeclarationError, match="cannot be read"):
        read(tmp_path / "opssat-anomalies.yaml")


def test_what_is_left_empty_is_listed():
    bare = yaml.safe_load(TEXT)
    for name in ("out_of_scope", "limits", "energy"):
        del bare[name]
    bare["review"] = str(bare["review"])
    assert missing(parse(yaml.safe_dump(bare))) == ["out_of_scope", "limits", "energy"]
