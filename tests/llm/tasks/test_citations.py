"""Questions about the project: each has one answer, in one passage, and a citation is not believed for its looks."""
from pathlib import Path

import pytest

from esa_notebooks.llm.tasks.citations import WordRetriever, build_citations, cited, facts_of, normal, passage, recall
from esa_notebooks.llm.tasks.files import TaskError, read_task

ROOT = Path(__file__).resolve().parents[3]
FILES = [*sorted((ROOT / "data/contracts").glob("*.yaml")), *sorted((ROOT / "governance/models").glob("*.yaml")),
         ROOT / "governance/gate.yaml"]


@pytest.fixture(scope="module")
def facts():
    return facts_of(FILES)


def test_every_answer_stands_in_its_passage_and_no_question_twice(facts):
    assert len(facts) > 120 and len({f.group for f in facts}) > 30
    assert [f.questions for f in facts if normal(f.answer).lower() not in f.passage.text.lower()] == []
    asked = [q for f in facts for q in f.questions]
    assert len(set(asked)) == len(asked)
    assert all(f.passage == passage(f.passage.text, f.passage.source) for f in facts)


def test_the_task_is_the_same_for_the_same_files_and_another_for_a_changed_one(tmp_path):
    first, second = build_citations(FILES, tmp_path / "a.jsonl"), build_citations(FILES[::-1], tmp_path / "b.jsonl")
    assert first.digest == second.digest and read_task(tmp_path / "a.jsonl").head == first.head
    gate = tmp_path / "governance" / "gate.yaml"
    gate.parent.mkdir()
    gate.write_text(FILES[-1].read_text().replace("at_most: 500, unit: ms", "at_most: 400, unit: ms"))
    changed = build_citations([*FILES[:-1], gate], tmp_path / "c.jsonl")
    assert changed.head["canary"] != first.head["canary"]
    assert "at most 400 ms" in {i.gold["answer"] for i in changed.items} - {i.gold["answer"] for i in first.items}


def test_groups_stay_on_one_side_and_most_passages_are_shown(tmp_path, facts):
    task = build_citations(FILES, tmp_path / "a.jsonl")
    sides = {split: {i.group for i in task.items if i.split == split} for split in ("train", "test")}
    assert not sides["train"] & sides["test"] and len(sides["test"]) >= 30
    shown = sum(i.gold["passage"] in i.options for i in task.items) / len(task.items)
    print(f"recall at 4 over {len(task.items)} questions: {shown:.3f}")
    assert shown > 0.8, "a model could not cite what it is not shown"


def test_recall_cannot_fall_with_more_passages(facts):
    everything = [f.passage for f in facts]
    found = [recall(WordRetriever(passages=everything, k=k), facts[::5]) for k in (1, 3, 10)]
    assert found == sorted(found)


@pytest.mark.parametrize("citation, answer, wrong", [
    ("ffffffffffff", "7", {"exists", "shown", "holds the answer"}), ("", "7", {"exists", "shown", "holds the answer"}),
    ("other", "31", {"shown"}), ("own", "8", {"holds the answer"}), ("own", "", {"holds the answer"}),
    ("own", "7", set()), ("own", " every  7 ", set()), ("own", "70", {"holds the answer"})])
def test_a_citation_fails_for_its_own_reason(citation, answer, wrong):
    own, other = passage("It is watched every 7 days.", "a"), passage("A month has 31 days.", "b")
    name = {"own": own.id, "other": other.id}.get(citation, citation)
    told = cited([own, other], [own.id], name, answer)
    assert {what for what, right in told.items() if not right} == wrong


def test_a_passage_whose_text_was_changed_does_not_exist():
    own = passage("It is watched every 7 days.", "a")
    forged = type(own)(own.id, "It is watched every 9 days.", "a")
    assert not cited([forged], [own.id], own.id, "9")["exists"]


@pytest.mark.parametrize("name", ["settings.ini", "governance/approvers.yaml", "README.md"])
def test_other_files_are_no_source_of_questions(name):
    with pytest.raises(TaskError, match="no contract, no declaration and not the gate"):
        facts_of([ROOT / name])
