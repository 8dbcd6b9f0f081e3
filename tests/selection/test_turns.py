"""Turns against a naive reading: a full matrix, each target in turn the best row left; for lists of any length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from im_datasets.selection import turns
from im_datasets.selection.turns import TargetOrder


def naive_turns(cosines):
    """(row, target) in order, from the whole matrix."""
    left, order = {row for row in range(len(cosines)) if not np.isnan(cosines[row]).any()}, []
    while left:
        for target in range(cosines.shape[1]):
            if not left:
                break
            best = max(left, key=lambda row: (cosines[row, target], -row))
            left.remove(best)
            order.append((best, target))
    return order + [(row, -1) for row in range(len(cosines)) if np.isnan(cosines[row]).any()]


def in_blocks(cosines, size, passes=None):
    def one_pass():
        if passes is not None:
            passes.append(len(cosines))
        yield from (cosines[start : start + size] for start in range(0, len(cosines), size))

    return one_pass


matrices = st.tuples(st.integers(1, 25), st.integers(1, 5)).flatmap(
    lambda shape: arrays.arrays(
        # Few values, so that many are equal.
        np.float32,
        shape,
        elements=st.sampled_from([-1.0, -0.25, 0.0, 0.5, 0.75, 1.0]),
    )
)


@settings(max_examples=200)
@given(matrices, st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.data())
def test_order_is_the_naive_one_for_lists_of_any_length(cosines, size, block, shortest, data):
    for row in data.draw(st.sets(st.integers(0, len(cosines) - 1), max_size=3)):
        cosines[row] = np.nan
    numbers = np.arange(len(cosines)) * 3 + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "SHORTEST", shortest)
        patch.setattr(turns, "LIST_BYTES", 1)
        order = TargetOrder(numbers, cosines.shape[1], in_blocks(cosines, block), size)
        taken = list(order)
    expected = naive_turns(cosines)
    assert taken == [3 * row + 1 for row, _ in expected]
    assert order.targets_of(np.array(taken)).tolist() == [target for _, target in expected]


def test_order_of_many_rows_is_the_naive_one(monkeypatch):
    monkeypatch.setattr(turns, "SHORTEST", 8)
    cosines = np.random.default_rng(0).normal(size=(600, 7)).astype(np.float32)
    cosines[100:140] = cosines[60:100]
    passes = []
    order = TargetOrder(np.arange(600), 7, in_blocks(cosines, 64, passes), size=30)
    expected = naive_turns(cosines)
    coming = iter(order)
    assert [next(coming) for _ in range(30)] == [row for row, _ in expected[:30]]
    # One pass was enough for as many as were said to be wanted.
    assert len(passes) == 1
    assert list(coming) == [row for row, _ in expected[30:]]
    assert len(passes) > 1


def test_lists_hold_no_more_than_their_share_of_the_memory(monkeypatch):
    monkeypatch.setattr(turns, "SHORTEST", 4)
    monkeypatch.setattr(turns, "LIST_BYTES", turns.ENTRY_BYTES * 3 * 10)
    # To one digit, so that many are equal.
    cosines = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32).round(1)
    order = TargetOrder(np.arange(500), 3, in_blocks(cosines, 50), size=400)
    assert [len(each) for each in order._lists] == [10, 10, 10]
    assert list(order) == [row for row, _ in naive_turns(cosines)]


def test_others_follow_by_their_nearest_target():
    # Row 15 is as near as row 12; row 13 has no cosine.
    cosines = [[0.3, 0.5], [0.9, 0.2], [0.6, 0.0], [np.nan, np.nan], [0.7, 0.7], [0.1, 0.6]]
    order = TargetOrder(np.arange(10, 16), 2, in_blocks(np.array(cosines, dtype=np.float32), 2), size=1)
    assert next(iter(order)) == 11
    assert order.others(np.array([11])).tolist() == [14, 12, 15, 10, 13]


def test_equal_targets_take_one_row_after_the_other():
    cosines = np.array([[0.2] * 3, [0.9] * 3, [0.5] * 3, [0.9] * 3], dtype=np.float32)
    order = TargetOrder(np.arange(4), 3, in_blocks(cosines, 4), size=4)
    assert list(order) == [1, 3, 2, 0]
    assert order.targets_of(np.arange(4)).tolist() == [0, 0, 2, 1]
