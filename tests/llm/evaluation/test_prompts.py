"""MLflow's registry, and what it would count twice or hand out changed."""

import sqlite3
import threading

import pytest
from mlflow.tracking import MlflowClient

from esa_notebooks.llm.evaluation import prompts
from esa_notebooks.llm.evaluation.prompts import PromptError, PromptVersion, digest_of, load, register


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One real SQLite store for the module: to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


STRANGE = "Is {0} {user} {{x}} {{ unclosed %s %(a)s\r\n\n  \u2028 é <|im_start|>\n"
CHAT = [{"role": "system", "content": "Answer with {{one}} word."}, {"role": "user", "content": "{text}"}]


@pytest.mark.parametrize(("variant", "template"), [("strange", STRANGE), ("chat", CHAT), ("long", "a" * 99_000)])
def test_a_template_comes_back_as_it_was_and_keeps_its_version(uri, variant, template):
    first = register("roundtrip", variant, template, uri)
    assert (
        first
        == PromptVersion(f"roundtrip.{variant}", 1, digest_of(template))
        == register("roundtrip", variant, template, uri)
    )
    assert load(first.name, 1, uri, first.digest) == template


def test_one_letter_more_is_another_version_and_the_old_one_stays(uri):
    texts = ["Answer.", "Answer. ", "Answer.", "Answer!", "Answer. "]
    assert [register("letters", "plain", text, uri).version for text in texts] == [1, 2, 1, 3, 2]
    assert [load("letters.plain", v, uri) for v in (1, 2, 3)] == ["Answer.", "Answer. ", "Answer!"]


def test_two_at_once_end_with_one_version(uri, monkeypatch):
    register("race", "plain", "the first", uri)
    both, seen, first = threading.Barrier(2), prompts._versions, threading.local()

    def slowly(client, name):
        found = seen(client, name)
        if not getattr(first, "done", False):  # both have looked before either registers
            first.done = True
            both.wait(30)
        return found

    monkeypatch.setattr(prompts, "_versions", slowly)
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(register("race", "plain", "the same", uri))) for _ in range(2)
    ]
    [t.start() for t in threads]
    [t.join() for t in threads]
    monkeypatch.undo()
    assert (
        len(set(got)) == 1
        and list(seen(MlflowClient(uri, uri), "race.plain").values()).count(digest_of("the same")) == 1
    )
    assert load("race.plain", got[0].version, uri) == "the same"


def test_a_prompt_that_was_changed_behind_the_registry_s_back_is_an_error(uri):
    made = register("changed", "plain", "Answer honestly.", uri)
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as db:
        changed = db.execute(
            "UPDATE model_version_tags SET value = 'Say PASS.' WHERE value = 'Answer honestly.'"
        ).rowcount
    assert changed == 1
    with pytest.raises(PromptError, match="is not what was registered"):
        load(made.name, made.version, uri)


def test_a_prompt_that_somebody_registered_without_us_has_no_digest_and_is_not_taken(uri):
    MlflowClient(uri, uri).register_prompt("foreign.plain", "Hello")
    with pytest.raises(PromptError, match="none was noted"):
        load("foreign.plain", 1, uri)
    assert register("foreign", "plain", "Hello", uri).version == 2


def test_what_is_not_there_is_said_with_what_there_is(uri):
    register("there", "plain", "text", uri)
    with pytest.raises(PromptError, match=r"'there.plain' has no version 7; there are: 1\."):
        load("there.plain", 7, uri)
    with pytest.raises(PromptError, match=r"'nowhere.plain' has no version 1; there are: none\."):
        load("nowhere.plain", 1, uri)
    with pytest.raises(PromptError, match="was asked for"):
        load("there.plain", 1, uri, digest_of("another"))


@pytest.mark.parametrize(
    ("task", "template", "words"),
    [("a/b", "x", "can only contain"), ("empty", "", "is empty"), ("large", "a" * 100_001, "max length")],
)
def test_what_cannot_be_registered_is_said(uri, task, template, words):
    with pytest.raises(PromptError, match=f"{task}.plain.*{words}"):
        register(task, "plain", template, uri)


def test_a_variant_of_two_words_has_a_name(uri):
    assert register("two words", "without question", "x", uri).name == "two-words.without-question"
