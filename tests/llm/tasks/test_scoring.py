"""Reading answers: what cannot be read is never right, and dress does not matter."""

import pytest

from esa_notebooks.llm.tasks.files import Item, Task
from esa_notebooks.llm.tasks.scoring import holds, same, score, token_f1

ROLES = ["Context", "Challenge", "Solution", "Benefits", "Steps"]
ROLE = Task({"name": "t", "kind": "classification", "labels": ROLES}, (), "")
LABEL = Item("a", "g", {"text": "x"}, None, "Challenge", "test")


@pytest.mark.parametrize("text", ["Challenge", " challenge.\n", "**Challenge**", '"Challenge"', "Answer: Challenge", "The answer is: challenge.", "Role: Challenge",
                                  '{"label": "Challenge"}', '```json\n{"answer": "challenge"}\n```', "Challenge: it names a problem.", "Challenge\n\nIt says what lacks.",
                                  "Challenge (a problem)", "CHALLENGE - since it lacks", "Ｃhallenge"])  # fmt: skip
def test_a_label_in_any_dress_is_read(text):
    assert score(ROLE, LABEL, text).correct == 1


@pytest.mark.parametrize("text", ["", "   ", "Not Challenge", "Context or Challenge", "Challenge, Context", "Challenge\nContext", "Challenges", "It is a Challenge.",
                                  "Context, Challenge, Solution, Benefits, Steps", "Challenge the world", "Chall", '{"label": "Challenge", "label": "Context"}',
                                  '{"a": "Challenge"}', "\ud800", "\x00", "[" * 100_000])  # fmt: skip
def test_what_names_no_label_or_two_is_invalid(text):
    assert score(ROLE, LABEL, text) .status == "invalid" and score(ROLE, LABEL, text).correct is None


@pytest.mark.parametrize("text", ["I'm sorry, I can't do that.", "I cannot answer that.", "As an AI language model, I", "I don’t know.", "Sorry, no.", "There is not enough information."])
def test_a_refusal_is_told_apart(text):
    assert (score(ROLE, LABEL, text).status, score(ROLE, LABEL, text).correct) == ("refused", None)


def test_a_readable_wrong_answer_is_wrong_and_a_label_that_begins_another_is_not_it():
    assert score(ROLE, LABEL, "Context").correct == 0
    task = Task({"name": "t", "kind": "classification", "labels": ["normal", "normal operation"]}, (), "")
    item = Item("a", "g", {"text": "x"}, None, "normal operation", "test")
    assert score(task, item, "Normal operation.").correct == 1 and score(task, item, "normal").correct == 0


CHOICE = Task({"name": "t", "kind": "multiple choice", "labels": None}, (), "")
QUESTION = Item("a", "g", {"question": "?"}, ["low orbit", "high orbit", "no orbit"], "high orbit", "test")


@pytest.mark.parametrize(("text", "correct"), [("B", 1), ("b)", 1), ("B. high orbit", 1), ("High orbit", 1), ("Answer: B", 1), ("(B)", 1), ("A", 0), ("low orbit", 0),
                                               ("A) high orbit", None), ("D", None), ("A or B", None), ("A, B", None), ("orbit", None), ("Because", None)])  # fmt: skip
def test_a_letter_or_a_text_chooses_and_a_contradiction_does_not(text, correct):
    assert score(CHOICE, QUESTION, text).correct == correct


def test_options_that_are_letters_stand_for_themselves():
    item = Item("a", "g", {"question": "?"}, ["B", "A"], "A", "test")
    assert score(CHOICE, item, "A").correct == 1 and score(CHOICE, item, "B").correct == 0


@pytest.mark.parametrize(("a", "b", "equal"), [("1,733", "1733", True), ("1.733", "1733", False), ("12 March 2019", "2019-03-12", True), ("Mar 12, 2019", "2019-03-12", True),
                                               ("03/04/2021", "2021-04-03", False), ("0.30", ".3", True), ("-5", "5", False), ("The  Wheel.", "the wheel", True), ("12 km", "12", False)])  # fmt: skip
def test_numbers_and_dates_are_the_same_in_another_form(a, b, equal):
    assert same(a, b) is equal


def test_fields_count_one_by_one_and_token_f1_is_asked_for():
    task = Task({"name": "t", "kind": "extraction"}, (), "")
    item = Item("a", "g", {"text": "x"}, None, {"date": "2019-03-12", "mass": 120}, "test")
    assert score(task, item, '{"date": "12 March 2019", "mass": "120"}').correct == 1
    assert score(task, item, '```json\n{"mass": 120}\n```').correct == 0.5
    assert score(task, item, "The mass is 120.").status == "invalid" and score(task, item, "I cannot say.").status == "refused"
    span = Item("a", "g", {"text": "x"}, None, "reaction wheel", "test")
    assert score(task, span, "the reaction wheel").correct == 0
    assert score(Task({"name": "t", "kind": "extraction", "metric": "token F1"}, (), ""), span, "the reaction wheel").correct == pytest.approx(0.8)
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3) and token_f1("a", "b") == 0


def test_an_answer_without_its_passage_is_wrong():
    task = Task({"name": "t", "kind": "retrieval"}, (), "")
    item = Item("a", "g", {"question": "?", "p1": "It is watched every 7 days.", "p2": "A month has 31 days."}, ["p1", "p2"], {"answer": "7", "passage": "p1"}, "test")
    given = {("7", "p1"): 1, ("7", "[p1]"): 1, ("7", "p2"): 0, ("7", "p9"): 0, ("31", "p2"): 0, ("31", "p1"): 0}
    assert {k: score(task, item, '{"answer": "%s", "passage": "%s"}' % k).correct for k in given} == given
    assert score(task, item, "7 [p1]").status == "invalid" and not holds("in 77 days", "7") and not holds("x", "")
