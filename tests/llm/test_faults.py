"""The campaign of benchmarks/llm/faults.py: sixty cases every day, all of them with the slow tests."""

from collections import Counter

import pytest

from benchmarks.llm.faults import FAULTS, campaign, cases, expected, summary


def held(rows):
    wrong = [r for r in rows if not r["as expected"] or not r["log agrees"]]
    assert wrong == []
    told = summary(rows)
    assert told["restricted_prompts_seen_by_the_cloud"] == told["of_these_seen_by_the_cloud"] == 0
    assert told["delivered"] == told["deliverable"] > 0 and told["restricted_prompts"] > 0
    return told


def test_nothing_leaves_and_everything_else_arrives(tmp_path):
    chosen = cases(60)
    assert set(Counter(c.fault for c in chosen)) == set(FAULTS)
    assert held(campaign(chosen, tmp_path))["cases"] == 60


@pytest.mark.slow
def test_nothing_leaves_in_all_cases(tmp_path):
    assert held(campaign(cases(), tmp_path))["cases"] >= 500


def test_what_is_expected_never_lets_a_restricted_prompt_out():
    ends = {c: expected(c) for c in cases()}
    assert all("cloud" not in sees for c, (_, sees) in ends.items() if c.data_class == "restricted")
    assert len(ends) == 624 and Counter(end for end, _ in ends.values())["answered"] > 150


def test_a_campaign_would_notice_a_leak(tmp_path, monkeypatch):
    """With a gateway whose policy lets everything out, the same campaign fails."""
    from tests.llm import gateway_world

    loose = gateway_world.policy_of

    def opened(*args, **more):
        policy = loose(*args, **more)
        for row in policy.allow.values():
            row["cloud"] = ("evaluation", "assistance")
        return policy

    monkeypatch.setattr(gateway_world, "policy_of", opened)
    chosen = [c for c in cases() if c.data_class == "restricted" and c.fault == 500 and c.cloud_lives]
    told = summary(campaign(chosen, tmp_path))
    assert told["restricted_prompts_seen_by_the_cloud"] == len(chosen) > 0
