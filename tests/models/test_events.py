"""Events, ranges, affiliation and Telemanom: small cases by hand, invariances, and a million samples."""

import time

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import smap
from esa_notebooks.data.sources import obtain_configured
from esa_notebooks.models.evaluation.affiliation import affiliation, zones
from esa_notebooks.models.evaluation.definitions import Series, definitions, sample_counts
from esa_notebooks.models.evaluation.events import (
    checked_events,
    event_counts,
    events_of,
    f_score,
    flags_of,
    overlaps,
)
from esa_notebooks.models.evaluation.metrics import EvaluationError
from esa_notebooks.models.evaluation.ranges import BIASES, range_scores
from esa_notebooks.models.evaluation.telemanom import Rules, alarms, pruned, telemanom_counts, threshold
from esa_notebooks.models.forecast import channel_errors, judged, lagged, prediction_errors


def random_events(rng, n=400, share=0.2, smooth=6):
    return events_of(np.convolve(rng.random(n) < share / smooth, np.ones(smooth), mode="same") > 0)


# events


def test_events_and_flags_are_inverse():
    rng = np.random.default_rng(0)
    for _ in range(20):
        flags = rng.random(50) < rng.random()
        assert (flags_of(events_of(flags), 50) == flags).all()
    assert events_of([]).shape == (0, 2) and events_of([1, 1]).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    "events, says",
    [
        ([[3, 3]], "number 0, 3 to 3, is empty"),
        ([[5, 2]], "reversed"),
        ([[0, 5], [4, 8]], "number 1, 4 to 8, begins before"),
        ([[5, 8], [0, 2]], "begins before"),
        ([[-1, 3]], "not within"),
        ([[8, 11]], "not within the 10 samples"),
        ([[0.5, 2.0]], "integers"),
        ([1, 2], "shape"),
        ([[1, 2, 3]], "shape"),
    ],
)
def test_events_that_are_none_are_named(events, says):
    with pytest.raises(EvaluationError, match=says):
        checked_events(events, 10)


def test_flags_other_than_zero_and_one_are_refused():
    with pytest.raises(EvaluationError, match="0 or 1"):
        events_of([0, 2, 1])
    with pytest.raises(EvaluationError, match="0 or 1"):
        events_of([0.0, np.nan])


def test_overlaps_are_those_found_by_comparing_all_pairs():
    rng = np.random.default_rng(1)
    for _ in range(30):
        a, b = random_events(rng), random_events(rng)
        slow = [
            (i, j, max(s, t), min(e, f))
            for i, (s, e) in enumerate(a)
            for j, (t, f) in enumerate(b)
            if max(s, t) < min(e, f)
        ]
        found = zip(*(part.tolist() for part in overlaps(a, b)), strict=True)
        assert list(found) == [tuple(map(int, one)) for one in slow]


def test_events_that_only_touch_do_not_meet():
    assert event_counts([[5, 10]], [[0, 5], [10, 12]]) == (0, 1, 0, 2)


def test_counts_without_anomalies_or_alarms():
    calm, silent = event_counts([], [[1, 2]]), event_counts([[1, 2]], [])
    assert calm.recall is None and calm.precision == 0 and silent.precision is None and silent.recall == 0
    assert f_score(None, 0.0) == 0 and f_score(0.5, None) is None
    assert calm + silent == (0, 1, 0, 1)


def test_f_score_with_a_small_beta_leans_to_precision():
    assert f_score(1.0, 0.5, 0.5) > f_score(1.0, 0.5) > f_score(1.0, 0.5, 2) == pytest.approx(5 / 9)


# ranges


def test_the_example_worked_by_hand():
    """Two anomalies of 10 and 4 samples; alarms cover 3 + 2 of the first in two pieces, and all of the second."""
    told = range_scores([[0, 10], [20, 24]], [[0, 3], [5, 7], [18, 26]])
    assert told.anomalies.tolist() == [0.5 / 2, 1.0] and told.alarms.tolist() == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("bias", BIASES)
def test_a_complete_overlap_is_worth_one_and_none_nothing(bias):
    told = range_scores([[3, 10], [20, 21], [40, 48]], [[3, 10], [20, 21], [60, 61]], bias=bias)
    assert told.anomalies.tolist() == [1, 1, 0]


def test_bias_sums_are_the_sums_of_their_weights():
    weights = {
        "flat": lambda i, n: 1,
        "front": lambda i, n: n - i + 1,
        "back": lambda i, n: i,
        "middle": lambda i, n: i if i <= n / 2 else n - i + 1,
    }
    for name, weight in weights.items():
        for n in (1, 2, 5, 8):
            expected = np.cumsum([weight(i, n) for i in range(1, n + 1)])
            assert BIASES[name](np.arange(1, n + 1), np.full(n, n)).tolist() == expected.tolist()


def test_existence_and_pieces():
    touched = range_scores([[0, 10]], [[0, 1], [5, 6]], alpha=1.0)
    whole = range_scores([[0, 10]], [[0, 1], [5, 6]], pieces="one")
    assert touched.recall == 1 and whole.recall == 0.2 and range_scores([[0, 10]], [[0, 1], [5, 6]]).recall == 0.1


@pytest.mark.parametrize(
    "knobs, says",
    [
        ({"alpha": 1.5}, "alpha"),
        ({"bias": "frnt"}, "Did you mean `front`"),
        ({"pieces": "two"}, "Known: reciprocal, one"),
    ],
)
def test_unknown_knobs_are_named(knobs, says):
    with pytest.raises(EvaluationError, match=says):
        range_scores([[0, 1]], [[0, 1]], **knobs)


# affiliation


def test_what_is_perfect_and_what_is_absent():
    truth = [[10, 20], [50, 51]]
    assert affiliation(truth, truth, 100)[0].tolist() == [1, 1] == affiliation(truth, truth, 100)[1].tolist()
    silent = affiliation(truth, [], 100)
    assert silent.precision is None and silent.recall == 0
    calm = affiliation([], [[1, 2]], 100)
    assert calm.precision is None and calm.recall is None


def test_a_case_by_hand():
    """Anomaly 4 to 6 in a series of 10, alarm 8 to 9. Over the alarm the distance d runs from 2 to 3, and a point of
    the series is within it with probability (2 + 2 d) / 10: precision 1 - 0.7. For a point y of the anomaly the alarm
    is 8 - y away, and [2 y - 8, 8] is within the series for all of them: recall 1 - mean of (16 - 2 y) / 10 = 0.4."""
    told = affiliation([[4, 6]], [[8, 9]], 10)
    assert told.precision == pytest.approx(0.3) and told.recall == pytest.approx(0.4)


def test_the_zones_meet_in_the_middle():
    """As in the authors' tests: 1 to 8, 16 to 17, 25 to 28 and 29 to 31 have borders at 12, 21 and 28.5."""
    assert zones(np.array([[1, 8], [16, 17], [25, 28], [29, 31]]), 31)[:, 1].tolist() == [12, 21, 28.5, 31]
    told = affiliation([[1, 8], [16, 17], [25, 28], [29, 31]], [[1, 3], [6, 18], [25, 26]], 40)
    assert told.each_precision[2] == 1 and np.isnan(told.each_precision[3])
    assert told.each_recall[1] == 1 and told.each_recall[3] == 0


def test_affiliation_does_not_depend_on_direction_unit_or_cuts():
    rng = np.random.default_rng(2)
    for _ in range(40):
        truth, alarm = random_events(rng, share=0.1), random_events(rng)
        if not len(truth):
            continue
        told = affiliation(truth, alarm, 400)
        turned = affiliation(400 - truth[::-1, ::-1], 400 - alarm[::-1, ::-1], 400)
        larger = affiliation(truth * 7, alarm * 7, 2800)
        for other in ([t[::-1] for t in turned], larger):
            assert np.allclose(told.each_precision, other[0], equal_nan=True) and np.allclose(
                told.each_recall, other[1]
            )
        cut = np.sort(np.concatenate([alarm, alarm.mean(axis=1, keepdims=True).astype(int)], axis=1), axis=1)
        pieces = np.concatenate([cut[:, :2], cut[:, 1:]])
        pieces = pieces[pieces[:, 0] < pieces[:, 1]]
        again = affiliation(truth, pieces[np.argsort(pieces[:, 0])], 400)
        assert np.allclose(told.each_precision, again[0], equal_nan=True) and np.allclose(told.each_recall, again[1])
        assert (told.each_recall >= 0).all() and (told.each_recall <= 1 + 1e-12).all()


def test_affiliation_against_its_definition_by_numbers():
    """Precision and recall by sampling the two probabilities of the paper on a fine grid."""
    truth, alarm, n = np.array([[12, 20]]), np.array([[2, 4], [15, 16], [30, 37]]), 40
    fine = np.arange(0, n, 0.02) + 0.01

    def away(at, events):
        return np.maximum(np.maximum(events[:, 0] - at[:, None], at[:, None] - events[:, 1]), 0).min(axis=1)

    there = fine[flags_of(alarm, n)[fine.astype(int)]]
    inside = fine[flags_of(truth, n)[fine.astype(int)]]
    d = away(there, truth)
    precision = np.where(d == 0, 1, (away(fine, truth) > d[:, None]).mean(axis=1)).mean()
    recall = (np.abs(fine - inside[:, None]) > away(inside, alarm)[:, None]).mean()
    told = affiliation(truth, alarm, n)
    assert told.precision == pytest.approx(precision, abs=2e-3) and told.recall == pytest.approx(recall, abs=2e-3)


def test_nearer_is_better_until_it_meets():
    recalls = [affiliation([[50, 60]], [[at, at + 5]], 200).recall for at in (150, 100, 70, 62, 57, 52)]
    assert recalls == sorted(recalls)


def test_touching_anomalies_have_no_border():
    with pytest.raises(EvaluationError, match="touch"):
        affiliation([[1, 2], [2, 3]], [], 10)


# all of them


def test_a_million_samples_take_a_moment():
    rng = np.random.default_rng(3)
    truth, alarm = random_events(rng, 1_000_000, 0.05, 20), random_events(rng, 1_000_000, 0.2, 8)
    began = time.process_time()
    told = definitions([Series(truth, alarm, 1_000_000)])
    assert len(truth) > 2000 and len(alarm) > 20_000 and told.notna().all(axis=None)
    assert time.process_time() - began < 5


def test_definitions_add_over_series_and_refuse_none():
    one, two = Series([[2, 4]], [[3, 6]], 10), Series([], [], 10)
    told = definitions([one, two]).set_index("definition")
    assert sample_counts(one) == (1, 1, 1, 2) and told.precision["samples"] == 1 / 3 and told.recall_of["events"] == 1
    with pytest.raises(EvaluationError, match="no series"):
        definitions([])
    with pytest.raises(EvaluationError, match="not within the 10 samples"):
        definitions([Series([[2, 40]], [], 10)])


# Telemanom


def test_alarms_do_not_change_with_the_future():
    """What has been said stands: a longer recording begins with the same alarms, the last window excepted."""
    rng = np.random.default_rng(4)
    errors, values = np.abs(0.05 * rng.standard_normal(7000)), np.sin(np.arange(7000) / 30)
    errors[3000:3060] += 1
    errors[6000:6100] += 3
    step = Rules().step
    short = alarms(errors[: 2100 + 30 * step], values[: 2100 + 30 * step])
    whole = alarms(errors, values)
    end = 2100 + 29 * step
    assert (flags_of(short, 7000)[:end] == flags_of(whole, 7000)[:end]).all() and len(short) == 1 and len(whole) == 2


def test_constant_errors_and_small_ones_raise_no_alarm():
    values = np.sin(np.arange(3000) / 30)
    assert len(alarms(np.zeros(3000), values)) == len(alarms(np.full(3000, 0.7), values)) == 0
    tiny = np.zeros(3000)
    tiny[2000:2100] = 0.01  # far beyond the rest, and not worth a look
    assert len(alarms(tiny, values)) == 0


def test_the_first_samples_are_passed_over():
    errors = np.full(3000, 0.01) + 0.001 * np.random.default_rng(0).random(3000)
    errors[100:200] = 2
    assert len(alarms(errors, np.sin(np.arange(3000.0)))) == 0


def test_a_threshold_with_too_many_sequences_is_not_admissible():
    smooth = np.full(2100, 0.1)
    smooth[::100] = 1.0  # 21 spikes: with buffers of 10 they are 21 sequences
    rules = Rules(buffer=10)
    assert threshold(smooth, rules) == pytest.approx(smooth.mean() + 12 * smooth.std())


def test_pruning_by_hand():
    assert pruned([1.0, 0.8, 0.79], 0.5).tolist() == [True, True, True]  # the last gap is clear: all stay
    assert pruned([0.79, 1.0, 0.78], 0.75).tolist() == [False, True, False]  # only the gap after 1.0 is
    assert pruned([1.0, 0.95], 0.9).tolist() == [False, False] and pruned([], 0.5).tolist() == []
    assert pruned([0.5], 0.0).tolist() == [True]  # nothing else to compare with


@pytest.mark.parametrize(
    "errors, values, says",
    [
        (np.ones(500), np.ones(400), "shapes"),
        (np.ones(20), np.ones(20), "70 or more"),
        (np.full(500, np.nan), np.ones(500), "finite"),
    ],
)
def test_errors_that_cannot_be_judged(errors, values, says):
    with pytest.raises(EvaluationError, match=says):
        alarms(errors, values)


def test_rules_that_cannot_be():
    with pytest.raises(EvaluationError, match="step"):
        Rules(step=0)
    with pytest.raises(EvaluationError, match="p from 0"):
        Rules(p=1.0)


def test_telemanom_counts_an_anomaly_once():
    assert telemanom_counts([[10, 90]], [[5, 12], [20, 30], [95, 99]]) == {
        "true_positives": 1,
        "false_positives": 1,
        "false_negatives": 0,
    }


# forecast


def test_a_prediction_sees_nothing_of_its_own_time():
    values, commands = np.arange(20.0), np.zeros((20, 2))
    commands[7, 1] = 1
    inputs, target = lagged(values, commands, 5)
    assert inputs.shape == (15, 9) and target.tolist() == list(range(5, 20))
    assert inputs[0, :5].tolist() == [0, 1, 2, 3, 4]
    assert inputs[2, 6] == 0 and inputs[3, 6] == 1  # target 8 is the first that knows of the command at 7
    assert inputs[:, 8].tolist() == [0, 0, 0] + [0.2] * 5 + [0] * 7


def test_a_constant_channel_is_predicted_without_error():
    flat = (np.full(300, 0.5), np.zeros((300, 3)))
    assert np.abs(prediction_errors(flat, flat, window=20)).max() < 1e-9


def table(n=120):
    rng = np.random.default_rng(0)
    wave, bits = np.sin(np.arange(n) / 5).astype("f4"), rng.integers(0, 2, (n, 3))
    return smap.as_table([smap.Channel("A-1", wave, bits, wave, bits, np.zeros(n, dtype="u1"))])


def test_a_channel_that_is_too_short_or_lacks_a_part_is_named():
    with pytest.raises(EvaluationError, match="Channel A-1: 120 samples are too few for a window of 119"):
        list(channel_errors(table(), window=119))
    df = table()
    with pytest.raises(EvaluationError, match="Channel A-1 has no train part"):
        list(channel_errors(df[df.split == "test"]))


def test_five_channels_of_smap(require):
    """The real data, a few channels: most anomalies are met, and the figures are those of counting by hand."""
    obtained = None
    try:
        obtained = obtain_configured("smap")
    except Exception as e:  # no mirror, no network: the reason is shown
        require("smap", False, str(e))
    packed, labels = (next(p for n, p in obtained.files.items() if n.endswith(end)) for end in (".npz", ".csv"))
    df, _ = smap.read(packed, labels)
    few = df[df.channel.isin(["A-2", "D-1", "E-5", "P-1", "T-1"])]
    series, told = judged(channel_errors(few))
    counts = pd.DataFrame([telemanom_counts(s.truth, s.predicted) for s in series.values()]).sum()
    row = told.set_index("definition").loc["Telemanom"]
    assert row.recall == counts.true_positives / (counts.true_positives + counts.false_negatives) > 0.4
    assert row.precision == counts.true_positives / (counts.true_positives + counts.false_positives)
    assert all((s.predicted[:, 0] >= 250).all() for s in series.values())
