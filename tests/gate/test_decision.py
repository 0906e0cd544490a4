"""The decision: nothing that is missing, no number, misspelt or edited can look like a yes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from esa_notebooks.gate.comparison import compared
from esa_notebooks.gate.decision import DecisionError, checked, decide, read_decision, save, sentence
from esa_notebooks.gate.evidence import EvidenceError, Finding, absent
from esa_notebooks.gate.pages import evidence_table, glance, glance_alt, marks, parts_table
from esa_notebooks.gate.policy import parse_policy, read_policy
from esa_notebooks.runs.record import canonical

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
SUBJECT = {
    "name": "forest",
    "kind": "detector",
    "domain": "operational",
    "detector": "ExtraTrees",
    "sha256": "0" * 64,
    "run_id": "20261125-080000-abc",
}
CHAMPION = {"kind": "champion", "name": "forest", "sha256": "1" * 64, "version": "3"}
POLICY = """
schema: esa-notebooks/gate/1
kinds:
  detector:
    checks:
      - {name: latency, title: In time, reason: Because.,
         needs: {p95_ms: {at_most: 100, unit: ms}, rows: {at_least: 9, unit: rows}}WAIVED}
      - {name: approval, title: A person, reason: Oversight., human: true}
"""


def policy(waived: str = ""):
    return parse_policy(POLICY.replace("WAIVED", f", waived: {waived}" if waived else ""), "detector")


def found(p95=12.0, rows=100, **more) -> dict:
    return {"latency": Finding("latency", {"p95_ms": p95, "rows": rows, **more}, "run#latency", "It was timed.")}


def decided(findings: dict, at: datetime = NOW, waived: str = ""):
    return decide(policy(waived), findings, SUBJECT, None, at)


def test_a_good_finding_passes_and_awaits_a_person():
    document = decided(found()).document()
    assert document["verdict"] == "passed" and [row["status"] for row in document["rows"]] == ["passed", "awaiting"]
    assert document["policy"]["sha256"] == policy().sha256 and "awaits a person" in sentence(document)
    assert checked(json.loads(json.dumps(document))) == document


@pytest.mark.parametrize(
    "value, said",
    [
        (140.0, "140 ms; at most 100 ms"),
        (float("nan"), "NaN"),
        (float("inf"), "infinite"),
        (None, "not stated"),
        ("fast", "a number is needed"),
        (True, "a number is needed"),
        (np.float32("nan"), "NaN"),
    ],
)
def test_what_does_not_hold_refuses_by_name_and_is_kept(value, said):
    document = decided(found(value)).document()
    assert document["verdict"] == "refused" and said in document["reasons"][0] and "p95 ms" in document["reasons"][0]
    assert "p95_ms" in document["findings"]["latency"] and json.loads(json.dumps(document, allow_nan=False)) == document


def test_a_second_value_that_fails_decides_the_row():
    row = decided(found(rows=8)).rows[0]
    assert (row.status, row.measure, row.value, row.bound) == ("failed", "rows", 8, "at least 9 rows")


@pytest.mark.parametrize(
    "findings",
    [
        {},
        {"latency": absent("latency", "The clock was broken.")},
        {"latency": Finding("latency", {}, "run", "Nothing came out.")},
    ],
)
def test_a_missing_finding_is_not_a_good_one(findings):
    document = decided(findings).document()
    assert document["verdict"] == "refused" and document["rows"][0]["status"] == "missing"


def test_a_finding_nobody_asked_for_is_an_error():
    misspelt = Finding("latencey", {"p95_ms": 1.0}, "run", "Timed.")
    with pytest.raises(DecisionError, match="Did you mean `latency`"):
        decided({"latencey": misspelt})
    with pytest.raises(DecisionError, match="filed under `latency`"):
        decided({"latency": misspelt})


def test_a_waiver_in_force_is_shown_and_one_that_ended_is_said():
    waiver = "{until: 2026-11-25, reason: the new clock comes, by: a@example.org}"
    lived = decided(found(140.0), waived=waiver)
    assert lived.verdict == "passed" and lived.rows[0].status == "waived" and "a@example.org" in lived.rows[0].waiver
    assert "waived (“In time”)" in lived.sentence() and "140" in lived.rows[0].why
    over = decided(found(140.0), NOW + timedelta(days=1), waiver)
    assert over.verdict == "refused" and "ended on 2026-11-25" in over.reasons[0]
    assert decided(found(), waived=waiver).rows[0].status == "passed"  # what holds needs no waiver
    assert decided({}, waived=waiver).rows[0].status == "waived"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"sha256": "abc"}, "sha256 of its file"),
        ({"name": ""}, "lacks `name`"),
        ({"kind": "prompt"}, "is a prompt"),
        ({"rnu_id": "x"}, "Did you mean `run_id`"),
        ({"domain": None}, "lacks `domain`"),
    ],
)
def test_a_subject_that_is_not_described(change, said):
    with pytest.raises(DecisionError, match=said):
        decide(policy(), found(), {**SUBJECT, **change}, None, NOW)


def test_an_opponent_that_is_not_described():
    with pytest.raises(DecisionError, match="has a version"):
        decide(policy(), found(), SUBJECT, {**CHAMPION, "version": None}, NOW)
    with pytest.raises(DecisionError, match="lacks `sha256`"):
        decide(policy(), found(), SUBJECT, {k: v for k, v in CHAMPION.items() if k != "sha256"}, NOW)
    with pytest.raises(DecisionError, match="no zone"):
        decided(found(), NOW.replace(tzinfo=None))


def test_the_digest_follows_from_the_evidence_and_not_from_the_hour():
    one, later, other = decided(found()), decided(found(), NOW + timedelta(days=9)), decided(found(12.1))
    assert one.document()["digest"] == later.document()["digest"] != other.document()["digest"]
    assert one.document()["at"] == "2026-11-25T08:00:00Z"


def test_refusals_are_kept_too_and_the_first_copy_stays(tmp_path):
    refused = decided(found(140.0))
    path = refused.save(tmp_path / "decisions")
    assert path.stem == refused.document()["digest"] and read_decision(path)["verdict"] == "refused"
    assert decided(found(140.0), NOW + timedelta(days=1)).save(tmp_path / "decisions") == path
    assert read_decision(path)["at"] == "2026-11-25T08:00:00Z" and len(list(path.parent.iterdir())) == 1


def test_edited_documents_are_refused(tmp_path):
    document = decided(found(140.0)).document()

    def again(**change) -> dict:
        rest = {k: v for k, v in {**document, **change}.items() if k not in ("at", "digest")}
        return {**rest, "at": document["at"], "digest": canonical(rest)}

    with pytest.raises(DecisionError, match="edited"):
        checked({**document, "verdict": "passed"})
    with pytest.raises(DecisionError, match="its rows say 'refused'"):  # with a digest that fits
        checked(again(verdict="passed", reasons=[]))
    with pytest.raises(DecisionError, match="status 'fine'"):
        checked(again(rows=[{"status": "fine"}]))
    with pytest.raises(DecisionError, match="its rows say"):
        checked(again(rows=[], verdict="passed"))
    for nothing in (None, [], {}, {"schema": "esa-notebooks/decision/2"}):
        with pytest.raises(DecisionError, match="no decision"):
            save(nothing, tmp_path)
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DecisionError, match="cannot be read"):
        read_decision(tmp_path / "a.json")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Finding("latency", {"a": {"deep": 1}}, "run", "x"),
        lambda: Finding("latency", {"a": object()}, "run", "x"),
        lambda: Finding("Latency", {}, "run", "x"),
        lambda: Finding("latency", {"a b": 1}, "run", "x"),
        lambda: Finding("latency", {}, "", "x"),
        lambda: Finding("latency", {}, "run", " "),
        lambda: absent("latency", ""),
        lambda: Finding("latency", {"a": [[1]]}, "run", "x"),
    ],
)
def test_findings_that_cannot_be_kept(make):
    with pytest.raises(EvidenceError):
        make()


# ---- the committed policy, with evidence for all that it asks


def evidence(**change) -> dict[str, Finding]:
    gate = read_policy(ROOT / "governance" / "gate.yaml", "detector")
    gain = 0.03 + 0.004 * np.random.default_rng(0).standard_normal(1000)
    losses = {f"{name}_auc_pr_drop{end}": 0.05 for name in ("noise", "missing", "shift") for end in ("", "_high")}
    values = {
        "contract": {"broken_rules": 0, "rows_broken": 0, "contract_sha256": "a" * 64},
        "leakage": {"shared_segments": 0, "copied_rows": 0, "overlapping": 0, "neighbours_share": 0.6},
        "comparison": compared(
            0.03, gain, metric="AUC-PR", against="forest", n=529, blocks=110, terms=gate.check("comparison").comparison
        ),
        "slices": {"slices": 7, "worst": "A", "worst_difference": -0.02, "worst_low": -0.08, "worst_high": 0.05},
        "robustness": losses | {"missing_above_chance_low": 0.3},
        "calibration": {"calibration_error": 0.04, "low": 0.02, "high": 0.07},
        "latency": {"p50_ms": 20.0, "p95_ms": 31.0, "rows": 500},
        "memory": {"peak_mb": 412.0},
        "energy": {"joules_per_1000": 220.0, "method": "estimated from processor time", "watts_per_core": 10},
        "formats": {"files": 6, "refused": []},
        "licences": {"packages": 31, "unknown": [], "refused": []},
        "dependencies": {"below_floor": [], "denied": []},
        "reexecution": {"run_id": "r", "identical": 14, "different": 0, "verdict": "identical"},
        "traceability": {"clauses": 20, "lacking": []},
        "monitoring": {
            "every_days": 7,
            "false_alarms_per_month": 1.0,
            "channels": "all",
            "alarms_to": "a@example.org",
            "retrain": "esa-notebooks run",
        },
        "rollback": {"target": "version 3"},
        "expiry": {"until": "2027-11-20"},
    }
    return {
        name: Finding(name, {**one, **change.get(name, {})}, "run", "It was found.") for name, one in values.items()
    }


def by_policy(findings):
    gate = read_policy(ROOT / "governance" / "gate.yaml", "detector")
    return decide(gate, findings, SUBJECT, CHAMPION, NOW)


def test_complete_evidence_passes_the_committed_policy():
    decision = by_policy(evidence())
    assert decision.reasons == () and decision.document()["against"] == CHAMPION


@pytest.mark.parametrize(
    "name",
    [check.name for check in read_policy(ROOT / "governance" / "gate.yaml", "detector").checks if not check.human],
)
def test_every_single_missing_check_refuses(name):
    findings = evidence()
    del findings[name]
    decision = by_policy(findings)
    assert decision.verdict == "refused" and len(decision.reasons) == 1
    assert next(row.status for row in decision.rows if row.check == name) == "missing"


@pytest.mark.parametrize(
    "check, change",
    [
        ("contract", {"broken_rules": 1}),
        ("leakage", {"copied_rows": 1}),
        ("slices", {"worst_high": -0.001}),
        ("slices", {"worst_difference": -0.26}),
        ("robustness", {"noise_auc_pr_drop_high": 0.11}),
        ("robustness", {"missing_above_chance_low": 0.0}),
        ("calibration", {"calibration_error": float("nan")}),
        ("latency", {"p95_ms": 501.0}),
        ("memory", {"peak_mb": 1537}),
        ("energy", {"method": "guessed"}),
        ("formats", {"refused": ["weights.pkl"]}),
        ("licences", {"unknown": ["x"]}),
        ("dependencies", {"denied": ["pytorch-lightning 2.6.2"]}),
        ("reexecution", {"different": 1}),
        ("traceability", {"lacking": ["2(c)"]}),
        ("reexecution", {"verdict": "failed"}),
        ("monitoring", {"alarms_to": ""}),
        ("rollback", {"target": None}),
        ("expiry", {"until": "2026-11-25"}),
        ("expiry", {"until": "2036-11-25"}),
        ("comparison", {"low": -0.03}),
        ("comparison", {"difference": 0.009}),
        ("comparison", {"blocks": 29}),
    ],
)
def test_every_check_can_refuse_alone(check, change):
    decision = by_policy(evidence(**{check: change}))
    assert [row.check for row in decision.rows if row.status in ("failed", "missing")] == [check]


def test_a_comparison_needs_a_named_opponent():
    gate = read_policy(ROOT / "governance" / "gate.yaml", "detector")
    with pytest.raises(DecisionError, match="does not say with what"):
        decide(gate, evidence(), SUBJECT, None, NOW)


# ---- how it is shown


def test_the_figure_and_the_tables_say_what_the_decision_says():
    document = by_policy(evidence(memory={"peak_mb": 3072.0}, licences={"unknown": ["x"]})).document()
    placed = {mark.title: mark for mark in marks(document)}
    assert placed["It fits beside others"].place == 1.0  # double of what is allowed
    assert placed["Every licence is known and allowed"].place is None  # a matter of yes or no
    assert all((mark.place or 0) <= 0 for mark in placed.values() if mark.status == "passed")
    table = evidence_table(document)
    assert table.verdict.value_counts().to_dict() == {"holds": 15, "does not hold": 2, "awaits a person": 1}
    assert set(parts_table(document).verdict) == {"holds", "does not hold"}
    alt = glance_alt(document)
    assert all(f"{title}: " in alt for title in table.check) and "3,072" in alt
    fig = glance(document)
    words = [text.get_text() for text in fig.axes[0].texts]
    assert words == table.verdict.tolist()[::-1]


@pytest.mark.parametrize("value", [0.0, -1.0, 1e12, float("nan"), float("inf"), None, "much"])
def test_the_figure_can_draw_any_value(value):
    document = by_policy(evidence(memory={"peak_mb": value})).document()
    fig = glance(document)
    fig.canvas.draw()
    mark = next(mark for mark in marks(document) if mark.title == "It fits beside others")
    assert mark.place is None or -4 <= mark.place <= 4
