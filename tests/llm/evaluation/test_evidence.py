"""What the gate is told of a language model: the finding follows from what was measured, and what was not is missing."""
import json
from datetime import date, datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from langchain_core.runnables import RunnableLambda

from esa_notebooks.gate.policy import read_policy as read_gate
from esa_notebooks.llm.audit import Audit
from esa_notebooks.llm.evaluation import evidence
from esa_notebooks.llm.evaluation.campaign import evaluate
from esa_notebooks.llm.evaluation.measures import measures
from esa_notebooks.llm.evaluation.probes import Canary
from esa_notebooks.llm.evaluation.systems import System
from esa_notebooks.llm.policy import read_policy
from esa_notebooks.llm.tasks.files import Item, write_task

ROOT = Path(__file__).resolve().parents[3]
AT = datetime(2026, 11, 25, tzinfo=timezone.utc)
GATE = read_gate(ROOT / "governance" / "gate.yaml", "llm")
POLICY = read_policy(ROOT / "governance" / "policy.yaml")
SERVICE = {"model": "m", "digest": "d" * 64, "build": "cpu", "version": "0.32.0", "flags": ["--dtype", "float32"]}
DECLARED = SimpleNamespace(path="governance/models/m.yaml", out_of_scope=("Any decision",), human_oversight="A person reads it.",
                           monitoring=SimpleNamespace(alarms_to="duty@example.org"), rollback="To the baseline.", lasts_days=180)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    head = {"name": "toy", "version": "1", "kind": "classification", "title": "Toy", "licence": "CC0-1.0", "source": "invented",
            "instructions": "Which?", "made_by": "a test", "labels": ["yes", "no"]}
    items = [Item(f"i{n}", f"g{n // 5}", {"text": f"sentence {n}"}, None, "yes" if n % 2 else "no", "test") for n in range(300)]
    items += [Item(f"t{n}", f"train {n}", {"text": f"training {n}"}, None, "yes" if n % 2 else "no", "train") for n in range(4)]
    return write_task(tmp_path_factory.mktemp("tasks") / "toy.jsonl", head, items)


def campaign(task, right: float, name: str = "m", kind: str = "baseline", word: str = ""):
    """A system that answers this share of the items rightly, the others wrongly or with `word`."""
    def say(item):
        other = {"yes": "no", "no": "yes"}[item.gold]
        return item.gold if int(item.id[1:]) % 100 < 100 * right else word or other

    system = System(name, kind, RunnableLambda(say), {"name": name}, takes="item")
    return evaluate(task, system, None, say=lambda line: None)


def decided(task, model, base, **changed):
    found = {"contamination": evidence.unseen(task, Canary("no sign", 1, 16, 1)), "repeatable": evidence.repeatable(["a"] * 10, ["a"] * 10),
             **evidence.named(SERVICE, "toy.plain, version 1", "Apache-2.0"), **evidence.costs(measures([model], watts=10)),
             **evidence.declared(DECLARED, AT)} | changed
    return evidence.decided(task, model, {"base": base} if base is not None else {}, found, GATE, domain="technical", run_id="r", at=AT)


def status(decision) -> dict[str, str]:
    return {row.check: row.status for row in decision.rows}


def test_a_good_model_is_refused_only_for_what_was_not_shown(task):
    decision = decided(task, campaign(task, 0.9), campaign(task, 0.5, "base"))
    told = status(decision)
    assert told.pop("confinement") == "missing" and told.pop("approval") == "awaiting"
    assert set(told.values()) == {"passed"}, decision.reasons
    assert decision.subject["detector"] == "toy, prompt plain" and decision.against["name"] == "base"


def test_a_model_that_a_baseline_beats_is_refused_by_name(task):
    decision = decided(task, campaign(task, 0.4), campaign(task, 0.9, "base"))
    row = next(row for row in decision.rows if row.check == "comparison")
    assert row.status == "failed" and "worse" in row.why and "base" in row.said and decision.verdict == "refused"


def test_the_best_baseline_is_the_opponent(task):
    found, against = evidence.compared(campaign(task, 0.9), {"weak": campaign(task, 0.3, "weak"), "strong": campaign(task, 0.8, "strong")}, GATE)
    assert against["name"] == "strong" and found.values["against"] == "strong"


def test_without_a_baseline_there_is_no_comparison_and_no_passing(task):
    assert status(decided(task, campaign(task, 1.0), None))["comparison"] == "missing"


@pytest.mark.parametrize("check, changed", [
    ("contamination", lambda t: evidence.unseen(t, Canary("sign", 16, 16, 0))),
    ("contamination", lambda t: evidence.unseen(t, Canary("cannot tell", 9, 16, 9))),
    ("contamination", lambda t: evidence.unseen(t, Canary("no sign", 0, 16, 0), SimpleNamespace(
        verdict="sign", table=__import__("pandas").DataFrame({"items": [0.4], "controls": [0.0]}, index=["verbatim"])))),
    ("repeatable", lambda t: evidence.repeatable(["a"] * 10, ["a"] * 9 + ["b"])),
    ("repeatable", lambda t: evidence.repeatable(["a"] * 9, ["a"] * 9)),
    ("identity", lambda t: evidence.named(SERVICE | {"digest": ""}, "p", None)["identity"]),
    ("licences", lambda t: evidence.named(SERVICE, "p", "CC-BY-NC-4.0")["licences"]),
    ("licences", lambda t: evidence.named(SERVICE, "p", None)["licences"]),
    ("use", lambda t: evidence.declared(SimpleNamespace(**{**vars(DECLARED), "out_of_scope": ()}), AT)["use"]),
    ("expiry", lambda t: evidence.declared(SimpleNamespace(**{**vars(DECLARED), "lasts_days": 900}), AT)["expiry"])])
def test_each_finding_can_refuse(task, check, changed):
    told = status(decided(task, campaign(task, 0.9), campaign(task, 0.5, "base"), **{check: changed(task)}))
    assert told[check] in ("failed", "missing")


def test_what_cannot_be_read_refuses_even_a_model_that_is_often_right(task):
    told = status(decided(task, campaign(task, 0.9, word="perhaps, who knows"), campaign(task, 0.5, "base")))
    assert told["format"] == "failed" and told["comparison"] == "passed"


def test_answers_that_were_all_kept_have_no_latency(task):
    frame = campaign(task, 0.9)
    frame["cached"] = True
    found = evidence.costs(measures([frame], watts=10))
    assert not found["latency"].found and not found["energy"].found


def test_the_sample_is_the_same_for_a_seed_and_all_for_nought(task):
    assert [i.id for i in evidence.drawn(task, 40, 1)] == [i.id for i in evidence.drawn(task, 40, 1)]
    assert {i.id for i in evidence.drawn(task, 40, 1)} != {i.id for i in evidence.drawn(task, 40, 2)}
    assert len(evidence.drawn(task, 0, 1)) == 300 == len(evidence.drawn(task, 10_000, 1))
    assert all(i.split == "test" for i in evidence.drawn(task, 40, 1))


def logged(folder: Path, *, endpoint="local", data_class="restricted", purpose="evaluation") -> Path:
    log = Audit.of(POLICY, folder / "audit.jsonl")
    about = {"request": "req-1", "team": "data-ai-unit", "data_class": data_class, "purpose": purpose, "model": "smollm2-135m-instruct"}
    log.append(at=AT, event="admitted", permitted=["local"], **about)
    log.append(at=AT, event="answered", endpoint=endpoint, attempts=[{"endpoint": endpoint, "outcome": "answered"}], **about)
    return log.path


def test_the_log_is_a_witness_against_the_gateway(tmp_path):
    good = evidence.confined(logged(tmp_path), POLICY, 0)
    assert good.values == {"outside": 0, "chain": [], "logged": 1}
    (tmp_path / "b").mkdir()
    leaked = evidence.confined(logged(tmp_path / "b", endpoint="example-cloud"), POLICY, 0)
    assert leaked.values["outside"] == 1
    (tmp_path / "c").mkdir()
    other = evidence.confined(logged(tmp_path / "c", purpose="processing"), POLICY, 0)
    assert other.values["outside"] == 1, "not for that purpose, though it is the right endpoint"
    assert evidence.confined(logged(tmp_path / "b"), POLICY, 2).values["outside"] == 0, "what was there before the run is not the run's"


def test_a_log_that_was_edited_or_is_not_there_refuses(task, tmp_path):
    path = logged(tmp_path)
    path.write_text(path.read_text().replace("answered", "admitted", 1))
    edited = evidence.confined(path, POLICY, 0)
    assert edited.values["chain"] and status(decided(task, campaign(task, 0.9), campaign(task, 0.5, "base"), confinement=edited))["confinement"] == "failed"
    assert not evidence.confined(tmp_path / "none.jsonl", POLICY, 0).found


def test_the_same_evidence_gives_the_same_decision(task):
    first, second = (decided(task, campaign(task, 0.9), campaign(task, 0.5, "base")).document() for _ in range(2))
    varying = {c.name for c in GATE.checks if c.varies}
    assert [r for r in first["rows"] if r["check"] not in varying] == [r for r in second["rows"] if r["check"] not in varying]
    assert json.loads(json.dumps(first)) and date.fromisoformat(first["findings"]["expiry"]["until"]) > AT.date()
