"""Probes: rotations, options alone, contamination, wording."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from esa_notebooks.llm.evaluation.probes import (
    ProbeError,
    blind,
    canary_probe,
    contamination,
    fresh_canaries,
    halves,
    rotated,
    rotations,
    verbatim,
    wording,
)
from esa_notebooks.llm.tasks.files import Item, canary_of


def quiz(n=40, k=4):
    return [Item(f"q{i}", f"d{i // 2}", {"question": "?"}, [f"o{j}" for j in range(k)], "o0", "test") for i in range(n)]


def campaign(items, given):
    return pd.DataFrame(
        {
            "item": [i.id for i in items],
            "group": [i.group for i in items],
            "status": "ok",
            "scored": ["answered" if g else "invalid" for g in given],
            "correct": [float(g == i.gold) if g else np.nan for g, i in zip(given, items)],
        }
    )


# ---- rotations


def test_every_option_stands_once_in_every_place():
    turned = rotations(quiz(3, 5))
    assert len(turned) == 15 and turned[0].id == "q0@0" and turned[0].options == [f"o{j}" for j in range(5)]
    for place in range(5):
        assert {t.options[place] for t in turned if t.id.startswith("q0@")} == {f"o{j}" for j in range(5)}
    assert {t.group for t in turned} == {"d0", "d1"}
    assert rotations([replace(quiz(1)[0], options=("a", "b"))])[1].options == ("b", "a")  # a tuple stays one


@pytest.mark.parametrize("options", [None, [], ["one"], ["a", "a", "b"]])
def test_what_cannot_be_rotated(options):
    with pytest.raises(ProbeError, match="'q0' has the options"):
        rotations([replace(quiz(1)[0], options=options)])


@pytest.mark.parametrize("gold_place", [0, 3])
def test_a_model_that_knows_shows_no_position_wherever_gold_stands(gold_place):
    items = [replace(i, gold=f"o{gold_place}") for i in quiz()]
    turned = rotations(items)
    found = rotated(turned, campaign(turned, [t.gold for t in turned]), [t.gold for t in turned])
    assert found.accuracy.value == 1 and found.consistency == 1 and (found.positions["excess"].abs() < 1e-12).all()
    assert found.interval.low < 1  # forty questions are not all questions


def test_a_model_that_takes_a_place_is_at_chance_and_found_out():
    turned = rotations(quiz())
    given = [t.options[2] for t in turned]
    found = rotated(turned, campaign(turned, given), given)
    assert found.accuracy.value == 0.25 and found.consistency == 0 and found.positions["excess"].idxmax() == 3
    assert found.positions.loc[3, "excess"] == 0.75


def test_guessing_shows_a_position_in_few_cases():
    """120 guessing models: Holm over four places finds a position in 5 % of them; by chance in 12 % at most."""
    rng, turned, alarms = np.random.default_rng(0), rotations(quiz(30)), 0
    frame = campaign(turned, [t.gold for t in turned])
    for _ in range(120):
        given = [t.options[i] for t, i in zip(turned, rng.integers(0, 4, len(turned)))]
        alarms += rotated(turned, frame, given).positions["p_holm"].min() < 0.05
    assert alarms / 120 <= 0.12


def test_unanswered_rotations_are_not_alike_and_leave_the_positions():
    turned = rotations(quiz(10))
    given = [None if t.id == "q3@1" else t.gold for t in turned]
    found = rotated(turned, campaign(turned, given), given)
    assert found.consistency == 0.9 and found.questions == 9 and found.asked == 10
    nobody = rotated(turned, campaign(turned, [None] * 40), [None] * 40)
    assert nobody.consistency == 0 and nobody.questions == 0 and nobody.positions.empty


def test_a_lost_row_is_named():
    turned = rotations(quiz(4))
    frame = campaign(turned, [t.gold for t in turned])
    with pytest.raises(ProbeError, match="one row and one answer"):
        rotated(turned, frame.iloc[1:], [t.gold for t in turned][1:])


# ---- without the question


def test_options_that_tell_nothing_are_at_chance():
    rng, tells = np.random.default_rng(1), 0
    for _ in range(100):
        items = quiz(60)
        tells += blind(items, campaign(items, [f"o{j}" for j in rng.integers(0, 4, 60)])).tell
    assert tells / 100 <= 0.08  # one-sided: 2.5 % promised


def test_chance_is_that_of_each_item_and_missing_rows_are_named():
    items = quiz(20, 2) + [replace(i, id="x" + i.id) for i in quiz(20, 5)]
    found = blind(items, campaign(items, ["o0"] * 40))
    assert found.chance == pytest.approx((0.5 + 0.2) / 2) and found.accuracy == 1 and found.tell
    with pytest.raises(ProbeError, match="one row for each item"):
        blind(items, campaign(items[1:], ["o0"] * 39))


# ---- contamination

CANARY = canary_of("tables", "0" * 64)


def test_fresh_canaries_have_the_form_and_none_of_the_digits():
    fresh = fresh_canaries(CANARY, 20)
    assert len(set(fresh)) == 20 and fresh == fresh_canaries(CANARY, 20) != fresh_canaries(CANARY, 20, seed=1)
    for one in fresh:
        assert one.startswith("esa-notebooks task canary ") and [len(p) for p in one.split("-")] == [
            len(p) for p in CANARY.split("-")
        ]
        assert one.rsplit(" ")[-1][:8] != CANARY.rsplit(" ")[-1][:8]
    with pytest.raises(ProbeError, match="32 are needed"):
        fresh_canaries("canary 1234abcd")


def remembers(texts, otherwise="no idea"):
    def answer(messages):
        start = messages[1]["content"]
        return AIMessage(
            next((text[len(start) :] for text in texts if text.startswith(start) and text != start), otherwise)
        )

    return RunnableLambda(answer)


def test_the_canary_is_continued_by_whoever_met_it():
    found = canary_probe(remembers([CANARY]), CANARY)
    assert found.verdict == "sign" and found.digits == found.of == 16
    assert canary_probe(remembers([]), CANARY).verdict == "no sign"
    echo = RunnableLambda(lambda m: m[1]["content"] + remembers([CANARY]).invoke(m).content)
    assert canary_probe(echo, CANARY).verdict == "sign"  # the beginning repeated first


def test_a_model_that_continues_fresh_canaries_makes_the_probe_useless():
    everything = [CANARY, *fresh_canaries(CANARY)]
    assert canary_probe(remembers(everything), CANARY).verdict == "cannot tell"


def texts(seed, n=160, words=24):
    rng = np.random.default_rng(seed)
    return [
        (f"{seed}-{i // 2}", " ".join(rng.choice(["ion", "keel", "lens", "dish", "gyro", "joint"], words)))
        for i in range(n)
    ]


def test_the_three_verdicts():
    items, controls = texts(1), texts(2)
    recited = [text for _, text in items[:40]]
    found = contamination(remembers(recited), items, controls)
    assert (
        found.verdict == "sign"
        and found.table.loc["recited", "items"] == 0.25
        and found.table.loc["recited", "controls"] == 0
    )
    assert contamination(remembers([]), items, controls).verdict == "no sign"
    assert contamination(remembers([]), items[:10], controls[:10]).verdict == "cannot tell"


def test_a_good_guesser_is_not_accused():
    """A model that continues controls as well as items has not met them. 30 guessers: at most 3 are accused."""
    accused = 0
    for seed in range(30):
        items, controls = texts(10 + seed, 60), texts(1000 + seed, 60)
        rng = np.random.default_rng(seed)
        lucky = [text for _, text in items + controls if rng.random() < 0.3]
        accused += contamination(remembers(lucky), items, controls).verdict == "sign"
    assert accused <= 3


def test_controls_have_to_match_and_short_texts_are_counted():
    items = texts(1) + [("s", "too short")]
    found = contamination(remembers([]), items, texts(2, words=80))
    assert found.verdict == "cannot tell" and "not matched" in found.notes[0] and found.short == 1
    with pytest.raises(ProbeError, match="Of 1 controls, 0 are long enough"):
        contamination(remembers([]), items, [("s", "too short")])
    with pytest.raises(ProbeError, match="between 0 and 1"):
        contamination(remembers([]), items, items, worth=0)


def test_a_failed_request_is_not_taken_for_forgetting():
    def down(messages):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        contamination(RunnableLambda(down), texts(1), texts(2))


@pytest.mark.parametrize(
    "said, share", [("a b c d", 1.0), ("a b x d", 0.5), ("b a", 0.0), ("", 0.0), ("a  b\nc d and more", 1.0)]
)
def test_words_are_counted_from_the_beginning(said, share):
    assert verbatim(said, "a b c d") == share


def test_halves():
    assert halves("a " * 15) is None and halves(" ".join("abcdefghijklmnopq")) == (
        "a b c d e f g h",
        "i j k l m n o p q",
    )


# ---- wording


def test_the_same_scores_have_no_spread():
    items = quiz()
    frame = campaign(items, ["o0", "o1"] * 20)
    told = wording({"plain": frame, "again": frame})
    assert told.spread == 0 and np.isnan(told.p_holm) and told.table["value"].tolist() == [0.5, 0.5]
