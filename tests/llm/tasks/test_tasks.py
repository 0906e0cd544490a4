"""Prompts, baselines and the two generated tasks: only the input is shown, only training items teach, and gold can be reached."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data.tables import Column, Meta, load_table, save_table
from esa_notebooks.llm.evaluation.prompts import digest_of
from esa_notebooks.llm.tasks.baselines import BASELINES, BaselineError, baseline
from esa_notebooks.llm.tasks.files import Item, Task, TaskError, read_task
from esa_notebooks.llm.tasks.ideas import build_ideas
from esa_notebooks.llm.tasks.prompts import VARIANTS, PromptVariantError, digest, messages, shots, template
from esa_notebooks.llm.tasks.scoring import score
from esa_notebooks.llm.tasks.tables import Question, build_tables, flaw_of, questions

STRANGE = "{0} {{x}} %s {gold} <b> \\ \u202e"


def labelled(n=24):
    items = tuple(Item(f"i{i}", f"g{i // 3}", {"text": f"{'red green blue'.split()[i % 3]} {i} {STRANGE}"}, None, "abc"[i % 3] * 3, "test" if i > 17 else "train") for i in range(n))
    return Task({"name": "t", "kind": "classification", "labels": ["aaa", "bbb", "ccc"], "instructions": STRANGE}, items, "")


def test_user_text_is_shown_as_it_is_and_gold_never():
    task = labelled()
    secret = replace(task.items[-1], gold="SECRET", id="SECRET", group="SECRET", split="SECRET")
    for variant in VARIANTS:
        told = messages(task, secret, variant)
        assert "SECRET" not in str(told) and [m["role"] for m in (told[0], told[-1])] == ["system", "user"] and STRANGE in told[0]["content"]
        assert (secret.input["text"] in told[-1]["content"]) is (variant != "without question")


def test_examples_are_training_items_and_do_not_depend_on_their_order():
    task = labelled()
    backwards = replace(task, items=task.items[::-1])
    assert shots(task) == shots(backwards) and {i.split for i in shots(task)} == {"train"} and len({i.gold for i in shots(task)}) == 3
    with pytest.raises(PromptVariantError, match="no training item"):
        messages(replace(task, items=task.items[18:]), task.items[20], "examples")
    with pytest.raises(PromptVariantError, match="Did you mean `reworded`"):
        messages(task, task.items[0], "rewordet")


def test_the_digest_is_that_of_the_template_and_follows_the_words():
    task = labelled()
    assert all(digest(task, v) == digest_of(template(task, v)) for v in VARIANTS) and len({digest(task, v) for v in VARIANTS}) == len(VARIANTS)
    assert digest(replace(task, items=task.items[::-1])) == digest(task) != digest(replace(task, head=task.head | {"instructions": "Other."}))


def test_baselines_learn_from_training_items_alone():
    task = labelled()
    lied = replace(task, items=tuple(replace(i, gold="aaa") if i.split == "test" else i for i in task.items))
    for name in BASELINES["classification"]:
        said = [[baseline(name, one).invoke(i) for i in task.items[18:]] for one in (task, lied)]
        assert said[0] == said[1]
    assert [score(task, i, baseline("words", task).invoke(i)).correct for i in task.items[18:]] == [1] * 6
    with pytest.raises(BaselineError, match="Did you mean `majority`"):
        baseline("majorty", task)
    with pytest.raises(BaselineError, match="no training item"):
        baseline("words", replace(task, items=task.items[18:]))


@pytest.fixture
def prepared(tmp_path):
    paths, rng = [], np.random.default_rng(5)
    for name in ("one-a", "two", "three"):
        df = pd.DataFrame({"unit": rng.choice(["A", "B'C", "D"], 90), "value": rng.normal(0, 3, 90).round(2), "time": pd.date_range("2024-01-01", periods=90, tz="UTC").as_unit("us")})
        df.loc[3:7, "value"] = np.nan
        columns = (Column("unit", "attribute", title="Unit"), Column("value", "attribute", "°C", "Temperature"), Column("time", "time", "UTC", "Time"))
        paths.append(save_table(df, tmp_path / f"{name}.parquet", Meta(name, name, "reading", "synthetic", columns, "CC0-1.0", "made up", {"t": "0" * 64}, period_s=86400.0)))
    return paths


def test_tables_are_the_same_for_the_same_release_and_other_questions_for_another(prepared, tmp_path):
    first, again = build_tables(prepared, tmp_path / "a" / "t.jsonl"), build_tables(prepared[::-1], tmp_path / "b" / "t.jsonl")
    assert first.digest == again.digest and (tmp_path / "a/t.sqlite").read_bytes() == (tmp_path / "b/t.sqlite").read_bytes()
    assert [score(first, i, i.gold["sql"] + ";").correct for i in first.items] == [1.0] * len(first.items) and len(first.items) > 30
    assert all(i.gold["sql"] not in str(messages(first, i)) for i in first.items)
    df, meta = load_table(prepared[1])
    save_table(df.assign(value=df["value"] + 0.01), prepared[1], meta)
    other = build_tables(prepared, tmp_path / "c" / "t.jsonl")
    assert other.head["release"] != first.head["release"] and {i.input["question"] for i in other.items} != {i.input["question"] for i in first.items}


def test_a_changed_database_and_too_few_tables_are_refused(prepared, tmp_path):
    build_tables(prepared, tmp_path / "t.jsonl")
    data = (tmp_path / "t.sqlite").read_bytes()
    (tmp_path / "t.sqlite").write_bytes(data.replace(b"B'C", b"B'D", 1))
    with pytest.raises(TaskError, match="not the one the answers were computed from"):
        read_task(tmp_path / "t.jsonl")
    with pytest.raises(TaskError, match="Three different tables"):
        build_tables(prepared[:2], tmp_path / "u.jsonl")


def test_a_question_on_which_sql_and_pandas_disagree_is_not_asked(prepared, tmp_path):
    build_tables(prepared, tmp_path / "t.jsonl")
    base = tmp_path / "t.sqlite"
    cases = {"disagree": Question("?", "SELECT count(*) FROM two", [[89]]), None: Question("?", "SELECT count(*) FROM two", [[90]]),
             "empty": Question("?", "SELECT avg(value) FROM two WHERE unit = 'Z'", [[float("nan")]]), "tie": Question("in the most rows?", "SELECT 'A'", [["A"], ["D"]])}  # fmt: skip
    assert {why: flaw_of(question, base) for why, question in cases.items()} == {why: why for why in cases}


def test_no_question_is_drawn_twice(prepared):
    drawn = questions(*load_table(prepared[0]), 99, np.random.default_rng(0))
    assert max(Counter(q.words for q in drawn).values()) == 1


def test_ideas_keep_documents_whole_and_other_tables_are_refused(tmp_path):
    df = pd.DataFrame([(f"d{d}", s, f"Idea {d}", f"Sentence {s} of {d}.", "Context", "test" if d else "train") for d in range(3) for s in (1, 2, 3)],
                      columns=["document", "sentence", "title", "text", "role", "split"])  # fmt: skip
    meta = Meta("space-ideas", "Ideas", "sentence", "synthetic", (), "CC0-1.0", "made up", {"t": "0" * 64})
    task = build_ideas(df, meta, tmp_path / "ideas.jsonl")
    assert [list(i.input) for i in task.items[:3]] == [["title", "sentence", "sentence after"], ["title", "sentence before", "sentence", "sentence after"], ["title", "sentence before", "sentence"]]
    assert {i.group: i.split for i in task.items} == {"d0": "train", "d1": "test", "d2": "test"}
    with pytest.raises(TaskError, match="this is 'launches'"):
        build_ideas(df, replace(meta, dataset="launches"), tmp_path / "x.jsonl")
