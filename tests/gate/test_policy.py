"""The policy and its rules: a slip in it is found before it decides anything."""

from datetime import datetime
from pathlib import Path

import pytest

from esa_notebooks.gate.policy import PolicyError, parse_policy, read_policy
from esa_notebooks.gate.rules import RULES, hold, shown

ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 11, 25)
CHECK = "{name: a, title: A, reason: Because., needs: {v: {at_most: 1, unit: ms}}}"


def policy(check: str = CHECK, more: str = ""):
    return parse_policy(
        f"schema: esa-notebooks/gate/1\nkinds:\n  detector:\n    checks:\n      - {check}\n{more}", "detector"
    )


def test_the_committed_policy_has_every_check_of_a_detector_with_a_reason_each():
    checks = read_policy(ROOT / "governance" / "gate.yaml", "detector").checks
    assert [check.name for check in checks] == [
        "contract",
        "leakage",
        "comparison",
        "slices",
        "robustness",
        "calibration",
        "latency",
        "memory",
        "energy",
        "formats",
        "licences",
        "dependencies",
        "reexecution",
        "traceability",
        "monitoring",
        "rollback",
        "expiry",
        "approval",
    ]
    assert all(len(check.reason.split()) >= 6 for check in checks) and [c.name for c in checks if c.human] == [
        "approval"
    ]
    assert not any(check.waived for check in checks)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("at_most: 1, unit: ms", "at_most: 1", "carries its unit"),
        ("at_most: 1", "at_mots: 1", "Did you mean `at_most`"),
        ("at_most: 1", "at_most: .nan", "is no bound"),
        ("at_most: 1", "at_most: .inf", "is no bound"),
        ("at_most: 1", "at_most: true", "must be a number"),
        ("at_most: 1", "at_most: '1'", "must be a number"),
        ("at_most: 1", "at_most: 1, at_least: 0", "one rule is needed"),
        ("at_most: 1, ", "", "one rule is needed"),
        ("at_most: 1, unit: ms", "nothing: false", "asks for nothing"),
        ("at_most: 1, unit: ms", "days_ahead: [9, 1]", "other way round"),
        ("at_most: 1, unit: ms", "among: []", "must not be empty"),
        ("reason: Because., ", "", "lacks `reason`"),
        ("reason: Because.", "reason: ''", "must not be empty"),
        ("reason: Because.", "raeson: Because.", "Did you mean `reason`"),
        ("needs: {v: {at_most: 1, unit: ms}}", "human: true, needs: {v: {given: true}}", "needs and human"),
        (", needs: {v: {at_most: 1, unit: ms}}", "", "has none"),
        ("needs: {v: {at_most: 1, unit: ms}}", "comparison: {margin: 0, amount: 0.1}", "are no terms"),
        ("needs: {v: {at_most: 1, unit: ms}}", "comparison: {margin: 0.1}", "lacks `amount`"),
        ("reason: Because.", "reason: Because., waived: {until: 2027-01-01, by: a@b.c}", "lacks `reason`"),
        ("reason: Because.", "reason: Because., waived: {until: 2027-02-31, reason: r, by: a@b.c}", "2027-02-31"),
        (
            "needs: {v: {at_most: 1, unit: ms}}",
            "human: true, waived: {until: 2027-01-01, reason: r, by: a@b.c}",
            "cannot be waived",
        ),
    ],
)
def test_slips(old, new, said):
    assert old in CHECK
    with pytest.raises(PolicyError, match=said):
        policy(CHECK.replace(old, new))


def test_slips_elsewhere(tmp_path):
    with pytest.raises(PolicyError, match="the check `a` twice"):
        policy(CHECK, f"      - {CHECK}\n")
    with pytest.raises(PolicyError, match="no check `b`"):
        policy().check("b")
    with pytest.raises(PolicyError, match="kinds.llm, a, v: one rule"):  # a kind that was not asked for
        policy(CHECK, f"  llm: {{checks: [{CHECK.replace('at_most: 1, ', '')}]}}\n")
    (tmp_path / "gate.yaml").write_text("kinds: {}")
    with pytest.raises(PolicyError, match="Did you mean `gate.yaml`"):
        read_policy(tmp_path / "gaet.yaml", "detector")


@pytest.mark.parametrize(
    "rule, bound, value, status",
    [
        ("at_most", 1, 1, "passed"),
        ("at_most", 1, 1.0000001, "failed"),
        ("at_least", 1, 1, "passed"),
        ("above", 1, 1, "failed"),
        ("above", -0.02, -0.01, "passed"),
        ("at_most", 1, True, "failed"),
        ("at_most", 1, "0", "failed"),
        ("at_most", 1, None, "missing"),
        ("at_most", 1, float("nan"), "failed"),
        ("at_most", 1, float("-inf"), "failed"),
        ("at_least", 1, float("inf"), "failed"),
        ("above", 1, float("nan"), "failed"),
        ("at_most", 1, [0], "failed"),
        ("equals", "identical", "identical", "passed"),
        ("equals", "identical", "different", "failed"),
        ("equals", 1, True, "failed"),
        ("among", ["a", "b"], "a", "passed"),
        ("among", ["a", "b"], ["a", "c"], "failed"),
        ("among", ["a"], [], "passed"),
        ("nothing", True, [], "passed"),
        ("nothing", True, ["x"], "failed"),
        ("nothing", True, 0, "failed"),
        ("nothing", True, "", "failed"),
        ("nothing", True, None, "missing"),
        ("given", True, "x", "passed"),
        ("given", True, " ", "failed"),
        ("given", True, [], "failed"),
        ("given", True, 0, "passed"),
        ("days_ahead", [1, 400], "2026-11-26", "passed"),
        ("days_ahead", [1, 400], "2026-11-25", "failed"),
        ("days_ahead", [1, 400], "2027-12-30", "passed"),
        ("days_ahead", [1, 400], "2027-12-31", "failed"),
        ("days_ahead", [1, 400], "2026-11-26T08:00:00Z", "passed"),
        ("days_ahead", [1, 400], "soon", "failed"),
        ("days_ahead", [1, 400], 20261126, "failed"),
    ],
)
def test_rules_at_their_edges(rule, bound, value, status):
    assert rule in RULES and hold("v", rule, bound, "", value, AT).status == status


def test_numbers_as_they_are_shown():
    assert [shown(v) for v in (0.01234, -0.5, 1234.6, 1500, True, None, [], list("abcdefg"))] == [
        "0.0123",
        "−0.5",
        "1,235",
        "1,500",
        "yes",
        "not stated",
        "none",
        "a, b, c, d, e and 2 more",
    ]
