"""The traceability matrix: what is not there is lacking, whatever stands around it; the governance files are read strictly."""
import json
from pathlib import Path

import pytest
import yaml

from esa_notebooks.registry.evidence_pages import matrix_html
from esa_notebooks.registry.matrix import (
    CLAUSES,
    Document,
    MatrixError,
    document,
    finding,
    read_annex,
    read_crosswalk,
    resolve,
    sentence,
)

GOVERNANCE = Path(__file__).resolve().parents[2] / "governance"
ANNEX, CROSSWALK = read_annex(GOVERNANCE / "annex_iv.yaml"), read_crosswalk(GOVERNANCE / "crosswalk.yaml")


def one(place: dict, files: dict, **options):
    """The evidence for a single place."""
    clauses = [{"clause": c, "asks": "?", "not_applicable": "not here"} for c in CLAUSES]
    clauses[0] = {"clause": "1(a)", "asks": "?", "evidence": [{"shows": "it", **place}]}
    return resolve({**ANNEX, "clauses": clauses}, CROSSWALK, files, "example", **options).rows[0]


def put(value, name="f.json") -> dict:
    return {name: json.dumps(value).encode()}


@pytest.mark.parametrize("value, evidenced", [("text", True), (0, True), (False, True), ([0], True), ({"b": 1}, True),
                                              ("", False), (None, False), ([], False), ({}, False)])
def test_what_is_empty_is_no_evidence_and_zero_is_not_empty(value, evidenced):
    row = one({"file": "f.json", "field": "/a"}, put({"a": value}))
    assert row.status == ("evidenced" if evidenced else "lacking") and bool(row.evidence[0].why) != evidenced


@pytest.mark.parametrize("pointer, evidenced", [("/a/0/b", True), ("/a/1/b", False), ("/a/x", False), ("/b", False), ("/c~1d", True),
                                                ("/e~0f", True), ("/a/0/b/c", False), ("/a/-1", False)])
def test_pointers_are_those_of_the_standard(pointer, evidenced):
    row = one({"file": "f.json", "field": pointer}, put({"a": [{"b": "x"}], "c/d": 1, "e~f": 2}))
    assert (row.status == "evidenced") == evidenced


def test_a_finding_that_was_not_found_is_no_evidence_at_any_depth():
    files = put({"energy": {"found": False, "said": "no meter", "values": {"x": 1}}})
    for pointer in ("/energy/said", "/energy/values", "/energy/values/x"):
        assert "nothing was found" in one({"file": "f.json", "field": pointer}, files).evidence[0].why


def test_a_star_stands_for_one_folder_and_every_file_that_fits_must_have_the_field():
    place = {"file": "runs/*/record.json", "field": "/a"}
    good, bad = json.dumps({"a": 1}).encode(), b"{}"
    assert one(place, {"runs/1/record.json": good, "runs/2/record.json": good}).evidence[0].files == ("runs/1/record.json",
                                                                                                 "runs/2/record.json")
    row = one(place, {"runs/1/record.json": good, "runs/2/record.json": bad})
    assert row.status == "lacking" and "runs/2" in row.evidence[0].why
    assert one(place, {"runs/1/2/record.json": good, "xruns/1/record.json": good}).status == "lacking"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 200_000, b""])
def test_a_file_that_cannot_be_read_is_no_evidence(content):
    for name in ("f.json", "f.ipynb"):
        assert one({"file": name, "field": "/a"}, {name: content}).status == "lacking"
    assert one({"file": "f.yaml", "field": "/a"}, {"f.yaml": b"a: [" if content else content}).status == "lacking"


def test_a_file_that_vanished_or_is_empty_is_no_evidence(tmp_path):
    assert one({"file": "f.txt"}, {"f.txt": tmp_path / "gone"}).status == "lacking"
    (tmp_path / "empty").touch()
    assert one({"file": "f.txt"}, {"f.txt": tmp_path / "empty"}).status == "lacking"


def test_a_section_of_a_page_must_hold_more_than_its_heading():
    page = b'<div id="full"><h2 id="t">Use</h2><p>Read<br>it.</p></div><div id="bare"><h2>Use</h2></div><p>after</p>'
    assert one({"file": "p.html", "field": "#full"}, {"p.html": page}).evidence[0].excerpt == "Read it."
    assert one({"file": "p.html", "field": "#bare"}, {"p.html": page}).status == "lacking"
    assert one({"file": "p.html", "field": "#none"}, {"p.html": page}).status == "lacking"


def test_a_promised_file_counts_until_it_should_be_there():
    place = {"file": "statement.dsse.json"}
    assert one(place, {}).status == "evidenced" and one(place, {}, promised=()).status == "lacking"
    assert one({"file": "other.json"}, {}).status == "lacking"


def test_the_committed_matrix_of_an_empty_bundle_lacks_every_clause_that_asks_for_evidence():
    matrix = resolve(ANNEX, CROSSWALK, {}, "example")
    assert matrix.of("not applicable") == ["1(f)", "8"] and matrix.of("evidenced") == []
    told = finding(matrix)
    assert told.check == "traceability" and told.values["lacking"] == [c for c in CLAUSES if c not in ("1(f)", "8")]
    assert "21 lack evidence" in sentence(matrix)
    assert json.loads(json.dumps(document(matrix)))["counts"] == {"evidenced": 0, "not_applicable": 2, "lacking": 21}


def annex_with(tmp_path, change) -> Path:
    value = yaml.safe_load((GOVERNANCE / "annex_iv.yaml").read_text())
    change(value)
    (tmp_path / "annex_iv.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return tmp_path / "annex_iv.yaml"


@pytest.mark.parametrize("change, said", [
    (lambda v: v["clauses"].pop(13), "lacks 2\\(f\\)"), (lambda v: v["clauses"].append({**v["clauses"][5]}), "twice"),
    (lambda v: v["clauses"].reverse(), "order"), (lambda v: v["clauses"][0].update(clause="1(i)"), "1\\(i\\)"),
    (lambda v: v["clauses"][0].pop("evidence"), "1\\(a\\) needs"), (lambda v: v["clauses"][0].update(not_applicable="x"), "not both"),
    (lambda v: v["clauses"][0].update(evidense=[]), "evidense"), (lambda v: v["clauses"][0].update(evidence=[]), "evidence"),
    (lambda v: v["clauses"][0]["evidence"][0].update(field="purpose"), "no field"),
    (lambda v: v["clauses"][0]["evidence"][0].update(file="../x.json"), "not a file of the bundle"),
    (lambda v: v["clauses"][3]["evidence"][0].update(field="/a"), "no field of model/detector.zip"),
    (lambda v: v.update(schema="esa-notebooks/annex-iv/2"), "schema")])
def test_a_wrong_list_of_clauses_is_named(tmp_path, change, said):
    with pytest.raises(MatrixError, match=said):
        read_annex(annex_with(tmp_path, change))


@pytest.mark.parametrize("change, said", [
    (lambda v: v["rows"][0].update(nist=["MAPS 1.1"]), "MAP 1.1"), (lambda v: v["rows"][0].update(iso=["B.6.2.4"]), "A.6.2.4"),
    (lambda v: v["rows"][0].update(nist=[]), "no number"), (lambda v: v["rows"][0].update(why={"nist": "x"}), "reason"),
    (lambda v: v["rows"].pop(), "lacks 9")])
def test_a_wrong_crosswalk_is_named(tmp_path, change, said):
    value = yaml.safe_load((GOVERNANCE / "crosswalk.yaml").read_text())
    change(value)
    (tmp_path / "crosswalk.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    with pytest.raises(MatrixError, match=said):
        read_crosswalk(tmp_path / "crosswalk.yaml")


def test_a_missing_file_of_clauses_is_named(tmp_path):
    with pytest.raises(MatrixError, match="annex_iv"):
        read_annex(tmp_path / "annex_iv.yaml")


def test_the_page_says_what_it_is_not_and_escapes_what_it_shows():
    row = put({"purpose": "<script>alert(1)</script>"})
    matrix = resolve(ANNEX, CROSSWALK, {"governance/declaration.yaml": next(iter(row.values()))}, "<b>x</b>")
    page = matrix_html(matrix)
    assert "does not claim that the Act applies" in " ".join(page.split()) and page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in page and "<b>x</b>" not in page and "http://" not in page and "https://" not in page
    for row in matrix.rows:
        assert f'id="clause-{row.clause}"' in page
    sections = Document("p.html", page.encode())
    assert "lacks evidence" in sections.look("#clause-9") and "No conformity" not in sections.look("#clause-8")
