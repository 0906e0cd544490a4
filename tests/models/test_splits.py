"""Blocks, folds and re-splits, and what cannot be split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esa_notebooks.models.splits import SplitError, blocks, grouped_folds, stratified_resplits


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 300)), min_size=1, max_size=60), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_blocks_hold_neighbours_of_one_channel(rows, size):
    channel, segment = map(np.array, zip(*rows, strict=True))
    number = blocks(channel, segment, size, gap=50)
    for block in np.unique(number):
        members = np.unique(segment[number == block])
        assert len(set(channel[number == block])) == 1 and len(members) <= size and (np.diff(members) < 50).all()
        own = np.unique(segment[channel == channel[number == block][0]])
        assert np.isin(
            own[(own >= members.min()) & (own <= members.max())], members
        ).all()  # nothing in between is left out
    pairs = set(zip(channel, segment, strict=True))
    assert len(set(zip(channel, segment, number, strict=True))) == len(pairs)  # a segment is in one block


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    channel, segment = rng.choice(["A", "B"], 200), rng.permutation(200)
    order = rng.permutation(200)
    assert (blocks(channel, segment)[order] == blocks(channel[order], segment[order])).all()


@pytest.mark.parametrize("segment", [[1, None, 3], [1, np.nan, 3]])
def test_a_segment_without_a_number(segment):
    with pytest.raises(SplitError, match="Row 1 has no segment number"):
        blocks(["A"] * 3, segment)


def test_impossible_sizes():
    with pytest.raises(SplitError):
        blocks(["A"], [1], size=0)


def test_folds_keep_blocks_whole_and_hold_every_row_out_once():
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(40), 5)
    y = (rng.random(40) < 0.3).astype(int)[number]
    folds = grouped_folds(number, y, 5, seed=3)
    assert sorted(np.concatenate([held for _, held in folds]).tolist()) == list(range(200))
    for fit, held in folds:
        assert not set(number[fit]) & set(number[held]) and abs(y[held].mean() - y.mean()) < 0.12
    again, other = grouped_folds(number, y, 5, seed=3), grouped_folds(number, y, 5, seed=4)
    assert all((a[1] == b[1]).all() for a, b in zip(folds, again, strict=True))
    assert any(len(a[1]) != len(b[1]) or (a[1] != b[1]).any() for a, b in zip(folds, other, strict=True))


@pytest.mark.parametrize(
    "number, y, k, words",
    [
        (np.arange(3), np.array([0, 1, 0]), 5, "cannot make 5 folds"),
        (np.arange(20), np.zeros(20, int), 2, "one label"),
        (np.arange(20) // 10, np.r_[1, np.zeros(19, int)], 2, "too few blocks"),
        (np.arange(20), np.r_[1, np.zeros(18, int)], 2, "cannot make"),
    ],
)
def test_what_cannot_be_folded(number, y, k, words):
    with pytest.raises(SplitError, match=words):
        grouped_folds(number, y, k)


def test_resplits_are_drawn_alike():
    y = np.r_[np.ones(40, int), np.zeros(160, int)]
    pairs = list(stratified_resplits(y, 50, 0.25, seed=1))
    assert len(pairs) == 50 and {int(y[t].sum()) for _, t in pairs} == {10}
    assert all(len(np.intersect1d(a, t)) == 0 and len(a) + len(t) == 200 for a, t in pairs)
    assert len({tuple(sorted(t)) for _, t in pairs}) == 50


@pytest.mark.parametrize(
    "y, share", [(np.zeros(50, int), 0.25), (np.r_[1, np.zeros(50, int)], 0.25), (np.arange(50) % 2, 1.0)]
)
def test_what_cannot_be_resplit(y, share):
    with pytest.raises(SplitError):
        stratified_resplits(y, 5, share)
