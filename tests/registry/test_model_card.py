"""The model card: every figure has a place that holds it, nothing in it is markup or script that somebody else wrote."""
import re
from dataclasses import replace
from datetime import date

import pytest

from esa_notebooks.gate.evidence import Finding, absent
from esa_notebooks.registry.declaration import Consumer, Declaration, Monitoring
from esa_notebooks.registry.evidence_pages import card_html
from esa_notebooks.registry.matrix import Document
from esa_notebooks.registry.model_card import card_markdown, model_card

PATH = "runs/experiment/R/record.json"
DECLARED = Declaration("example", "detector", "An example", "To show a card.", "unit", "technical", "public", "minimal", 3,
                       "AUC-PR of 0.9", date(2027, 1, 1), ("t",), Monitoring(7, 1, "a@example.org", "make run"), "Out of service.",
                       365, ("Commanding",), (Consumer("Digest", "report", "d@example.org"),), ("It is made up.",), "A person looks.",
                       "Little.")
ARCHIVE = {"columns": ["mean", "std"], "channels": [], "threshold": 0.5, "options": {"trees": 500}, "libraries": {"scikit-learn": "1.9"},
           "detector": "Forest", "family": "forest", "seed": 0}
RECORD = {"run_id": "R", "notebook": {"path": "nbs/pipeline/experiment.ipynb", "question": "How good?"},
          "git": {"commit": "c" * 40, "dirty": True},
          "inputs": [{"path": "data/processed/t.parquet", "sha256": "a" * 64, "made_by": "P"}],
          "outputs": [{"path": "scores.parquet", "sha256": "b" * 64}],
          "declarations": [
              {"kind": "answer", "text": "It ranks 529 segments."},
              {"kind": "result", "name": "auc_pr", "label": "AUC-PR", "value": 0.98058, "ci": [0.9638, 0.9921], "unit": ""},
              {"kind": "result", "name": "f1", "label": "F1", "value": None, "ci": None},
              {"kind": "table", "name": "channels", "columns": [{"name": "slice"}, {"name": "rows"}, {"name": "auc_pr"}, {"name": "note"}],
               "rows": [["CADC0872", 132, 0.997, ""], ["CADC0884", 36, None, "insufficient: 0 anomalies"]]}]}
FOUND = {"latency": Finding("latency", {"p95_ms": 1.5}, "R#latency", "95 of 100 took at most 1.5 ms."),
         "energy": absent("energy", "There is no meter.")}


def card(declared=DECLARED, record=RECORD, **options):
    return model_card(declared, ARCHIVE, record, FOUND, path=PATH, owner="The unit", **options)


def test_every_figure_stands_where_the_card_says():
    """Follow each source into the record: what stands there is what the card shows, to the digits that it shows."""
    import json
    record = Document(PATH, json.dumps(RECORD).encode())
    figures = next(s for s in card().sections if s.id == "figures").facts
    assert [f.term for f in figures] == ["AUC-PR"]   # what has no value has no figure
    for f in figures:
        file, _, pointer = f.source.partition("#")
        assert file == PATH and f.said == f"{record.look(pointer):.{len(f.said.split('.')[1])}f}" and f.beside == "0.964 to 0.992"
    table = next(s for s in card().sections if s.id == "channels").table
    assert record.look(table.source.partition("#")[2])[1][0] == table.rows[1][0] == "CADC0884" and table.rows[1][2] == "–"


def test_every_fact_and_table_of_the_card_has_a_source_in_the_bundle():
    for s in card().sections:
        for place in [f.source for f in s.facts] + ([s.table.source] if s.table else []):
            assert re.fullmatch(r"(runs|model|governance|decision)/[\w./-]+#\S+", place), place


def test_what_was_not_found_costs_nothing_and_is_said():
    sections = {s.id: s for s in card().sections}
    assert [f.term for f in sections["cost"].facts] == ["Time"]
    assert ("There is no meter.", "not found") in [(f.said, f.beside) for f in sections["gate"].facts]


def test_sections_with_nothing_to_say_are_left_out():
    bare = card(replace(DECLARED, out_of_scope=(), limits=(), consumers=(), human_oversight="", energy=""),
                {**RECORD, "declarations": []})
    ids = {s.id for s in bare.sections}
    assert not ids & {"out-of-scope", "limits", "figures", "channels", "measures"} and {"use", "interface", "built", "watch"} <= ids
    assert all(f.said for s in bare.sections for f in s.facts) and bare.key == ()


@pytest.mark.parametrize("verdict, word", [("passed", "passed the gate"), ("refused", "refused by the gate"), (None, "not decided")])
def test_how_it_stands_is_said_in_words(verdict, word):
    decision = {"verdict": verdict, "rows": [{"check": "latency", "title": "In time", "status": "passed"}]} if verdict else None
    page = card_html(card(decision=decision, stands="It stands." if verdict else ""))
    assert word in page and ("The gate has not decided yet." in page) == (verdict is None)


def test_hostile_texts_stay_texts_in_both_forms():
    evil = '<img src=x onerror="alert(1)"> [here](javascript:alert(1)) `x` | y\n# Heading'
    hostile = card(replace(DECLARED, title=evil, purpose=evil, limits=(evil,), consumers=(Consumer(evil, evil, evil),)))
    page, text = card_html(hostile), card_markdown(hostile)
    assert "<img" not in page and page.count("<script>") == 1 and "javascript:" not in re.findall(r'href="([^"]*)"', page)
    assert "\n# Heading" not in text and not re.search(r"(?<!\\)<img", text) and not re.search(r"(?<!\\)\]\(javascript", text)


def test_the_page_is_self_contained_and_links_only_into_the_bundle():
    page = card_html(card())
    assert "default-src &#39;none&#39;" in page and not re.search(r'(src|href)="(https?:)?//', page)
    links = [link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith("#")]
    assert links and all(link.startswith("../") or link == "model_card.md" for link in links)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)) and {f"#{i}" for i in ids} >= {x for x in re.findall(r'href="(#[^"]*)"', page)}


def test_the_same_evidence_gives_the_same_card():
    assert card_html(card()) == card_html(card()) and card_markdown(card()) == card_markdown(card())
