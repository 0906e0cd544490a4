"""A judge's count corrected by labels: coverage by simulation, refusals, and estimates that are no shares."""

from itertools import product

import numpy as np
import pytest

from esa_notebooks.llm.evaluation.correction import (
    FEW,
    CorrectionError,
    JudgeRefused,
    beside_people,
    better_than_chance,
    prediction_powered,
    rogan_gladen,
)


def verdicts(rng, right, sensitivity, specificity):
    return np.where(right, rng.random(right.shape) < sensitivity, rng.random(right.shape) >= specificity)


def labels(right_passed, right, wrong_passed, wrong, groups=None):
    passed = (
        [True] * right_passed
        + [False] * (right - right_passed)
        + [True] * wrong_passed
        + [False] * (wrong - wrong_passed)
    )
    return beside_people(passed, [True] * right + [False] * wrong, groups)


def test_the_figures_of_a_judge():
    told = labels(45, 50, 10, 50)
    assert told.sensitivity.value == 0.9 and told.specificity.value == 0.8 and told.gain == pytest.approx(0.7)
    assert told.agreement.value == 0.85 and told.n == 100 and told.interval.low < 0.7 < told.interval.high


def test_newcombe_published_example():
    """Newcombe 1998, table II, example (a): 56/70 less 48/80 is 0.2, by method 10 from 0.0524 to 0.3339."""
    told = labels(56, 70, 48, 80)
    assert told.gain == pytest.approx(0.2) and told.interval == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_rogan_gladen_by_hand():
    """A judge with sensitivity 0.9 and specificity 0.6 that passes 55 %: (0.55 + 0.6 - 1) / 0.5 = 0.3 are right."""
    found = rogan_gladen(np.arange(1000) < 550, labels(90, 100, 40, 100))
    assert found.value == pytest.approx(0.3) and found.naive == 0.55 and not found.clamped and found.notes == ()
    assert found.interval.low < 0.3 < found.interval.high < found.naive_interval.low + 0.1


@pytest.mark.parametrize("passed, value", [(20, 0.0), (999, 1.0)])
def test_an_estimate_that_is_no_share_is_moved_and_says_so(passed, value):
    found = rogan_gladen(np.arange(1000) < passed, labels(80, 100, 30, 100))
    assert found.value == value and found.clamped and "was no share" in found.said()
    assert 0 <= found.interval.low <= found.interval.high <= 1


@pytest.mark.parametrize(
    "counts", [(25, 50, 25, 50), (50, 50, 50, 50), (0, 50, 0, 50), (20, 50, 30, 50), (6, 10, 4, 10)]
)
def test_a_judge_no_better_than_chance_is_refused(counts):
    """A coin, one that passes all, one that passes nothing, one that is wrong, and one with too few labels to tell."""
    told = labels(*counts)
    with pytest.raises(JudgeRefused, match="may be none. Its verdicts are not used"):
        better_than_chance(told)
    with pytest.raises(JudgeRefused):
        rogan_gladen(np.arange(100) < 50, told)


def test_coins_are_seldom_let_through():
    """Of 2,000 coins with 100 labels, 2.5 % lie above chance by chance; at most 4 % are let through."""
    rng, right = np.random.default_rng(0), np.arange(100) < 50
    through = sum(beside_people(rng.random(100) < 0.5, right).interval.low > 0 for _ in range(2000))
    assert through / 2000 <= 0.04


@pytest.mark.parametrize(
    "passed, right, words",
    [
        ([True, False], [True], "do not belong together"),
        ([True] * 9, [True] * 9, "9 answers right and 0 wrong"),
        ([True, False, None, True], [True, True, False, False], "True and False"),
        (["pass"] * 4, [True, True, False, False], "True and False"),
        ([1, 0, 2, 1], [1, 1, 0, 0], "True and False"),
    ],
)
def test_labels_that_say_nothing(passed, right, words):
    with pytest.raises(CorrectionError, match=words):
        beside_people(passed, right)


def test_one_group_of_labels_and_groups_on_one_side_only():
    with pytest.raises(CorrectionError, match="of one group"):
        labels(9, 10, 1, 10, groups=["a"] * 20)
    with pytest.raises(CorrectionError, match="both or neither"):
        prediction_powered(
            [True, False] * 9, [True] * 20 + [False] * 20, [True] * 20 + [False] * 20, groups=list("ab") * 9
        )


def test_few_labels_are_noted():
    few = rogan_gladen(np.arange(100) < 50, labels(10, 10, 0, 10))
    enough = rogan_gladen(np.arange(100) < 50, labels(FEW // 2, FEW // 2, 0, FEW // 2))
    assert len(few.notes) == 1 and "20 labels are few" in few.notes[0] and enough.notes == ()


def test_a_perfect_judge_on_all_labels_does_not_make_the_labels_perfect():
    right = np.arange(60) < 30
    found = prediction_powered(np.arange(1000) < 500, right, right)
    assert (
        found.value == 0.5
        and found.interval.high - found.interval.low > found.naive_interval.high - found.naive_interval.low
    )


SETTINGS = [(p, *judge, n) for p, judge, n in product((0.3, 0.6, 0.9), ((0.9, 0.9), (0.8, 0.7)), (100, 200))]


@pytest.mark.parametrize("prevalence, sensitivity, specificity, n", SETTINGS)
def test_coverage(prevalence, sensitivity, specificity, n):
    """500 simulations a setting (benchmarks/llm/judges.py: 2,000 in 36). Bounds allow for noise: 95 % ± 3."""
    rng, chosen = np.random.default_rng([1, n, int(10 * prevalence), int(10 * sensitivity)]), np.arange(n) < n // 2
    inside = {"elsewhere": [], "same": []}
    for _ in range(500):
        passed, right = (
            verdicts(rng, rng.random(1000) < prevalence, sensitivity, specificity),
            rng.random(n) < prevalence,
        )
        elsewhere, same = (verdicts(rng, where, sensitivity, specificity) for where in (chosen, right))
        try:
            found = {
                "elsewhere": rogan_gladen(passed, beside_people(elsewhere, chosen)),
                "same": prediction_powered(passed, same, right),
            }
        except CorrectionError:  # refused; the benchmark counts how often
            continue
        for name, told in found.items():
            inside[name].append(told.interval.low <= prevalence <= told.interval.high)
    assert len(inside["same"]) > 400 and all(0.92 <= np.mean(told) <= 0.98 for told in inside.values()), {
        name: np.mean(told) for name, told in inside.items()
    }


def test_the_uncorrected_interval_hardly_ever_contains_the_truth():
    """The same judge: sensitivity 0.8, specificity 0.7, 30 % right. 500 simulations."""
    rng, inside, told = np.random.default_rng(2), 0, labels(80, 100, 30, 100)
    for _ in range(500):
        low, high = rogan_gladen(verdicts(rng, rng.random(1000) < 0.3, 0.8, 0.7), told).naive_interval
        inside += low <= 0.3 <= high
    assert inside <= 5


def test_coverage_with_groups_that_labels_and_answers_share():
    """500 simulations: 60 documents with 10 judged and 2 labelled answers each, right or wrong together to a good part.
    Without the groups the interval is too short; with them it is not."""
    rng, document = np.random.default_rng(3), np.repeat(np.arange(60), 12)
    people, inside = np.tile(np.arange(12) < 2, 60), {"grouped": 0, "as rows": 0}
    for _ in range(500):
        right = rng.random(720) < np.repeat(rng.beta(0.6, 0.4, 60), 12)
        passed = verdicts(rng, right, 0.9, 0.85)
        given = dict(groups=document[~people], labelled_groups=document[people])
        for name, groups in (("grouped", given), ("as rows", {})):
            low, high = prediction_powered(passed[~people], passed[people], right[people], **groups).interval
            inside[name] += low <= 0.6 <= high
    assert 0.92 <= inside["grouped"] / 500 <= 0.985 and inside["as rows"] / 500 < 0.9
