import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from im_datasets.common.errors import SelectionError
from im_datasets.selection import duplicates
from im_datasets.selection.duplicates import TOLERANCE, Bound, KeptVectors

# Axes and halves: unit vectors in four dimensions whose cosines (0, 0.5, 1 and their negatives) are exact in
# float32, so that every way of computing them gives the same answer.
AXES = np.vstack([np.eye(4), -np.eye(4)])
HALVES = np.array(np.meshgrid(*[[-0.5, 0.5]] * 4)).reshape(4, -1).T
EXACT = np.vstack([AXES, HALVES]).astype(np.float32)


def prune(vectors: np.ndarray, threshold: float, block_size: int) -> tuple[list[int], dict[int, int]]:
    """Offer rows 0, 1, 2 … in blocks: the kept ones, and the dropped ones with their twins."""
    kept, kept_rows, twins = KeptVectors(threshold), [], {}
    for start in range(0, len(vectors), block_size):
        rows = np.arange(start, min(start + block_size, len(vectors)))
        block = kept.compare(rows, vectors[rows])
        for row in rows.tolist():
            twin = block.twin(row)
            if twin >= 0:
                twins[row] = twin
            else:
                block.keep(row)
                kept_rows.append(row)
    return kept_rows, twins


def prune_naively(vectors: np.ndarray, threshold: float) -> tuple[list[int], dict[int, int]]:
    """One pair at a time, in float64: the oracle."""
    kept, twins = [], {}
    for row, vector in enumerate(vectors.astype(np.float64)):
        alike = [k for k in kept if vector @ vectors[k].astype(np.float64) >= threshold - TOLERANCE]
        if alike:
            twins[row] = alike[0]
        else:
            kept.append(row)
    return kept, twins


def unit(*angles: float) -> np.ndarray:
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_prune_keeps_the_better_row_and_names_it() -> None:
    # cos 10 degrees = 0.985, cos 90 degrees = 0: only row 1 repeats row 0.
    assert prune(unit(0, 10, 90), 0.9, 8) == ([0, 2], {1: 0})


@pytest.mark.parametrize("block_size", [1, 2, 8])
def test_prune_compares_with_kept_rows_only(block_size: int) -> None:
    # cos 20 = 0.94 and cos 40 = 0.77 against 0.9: row 1 repeats row 0; row 2 is like row 1 but row 1 was
    # dropped, so row 2 stays; row 3 is like row 2.
    assert prune(unit(0, 20, 40, 60), 0.9, block_size) == ([0, 2], {1: 0, 3: 2})


def test_prune_names_the_best_of_several_twins() -> None:
    # Rows 0 and 1 are 30 degrees apart (0.87 < 0.9) and both kept; row 2 at 15 degrees (0.97) is like both.
    assert prune(unit(0, 30, 15), 0.9, 8) == ([0, 1], {2: 0})


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, [0]), (0.51, [0, 1])])
def test_prune_drops_at_the_threshold(threshold: float, kept: list[int]) -> None:
    # (1, 0, 0, 0) and (½, ½, ½, ½): cosine exactly 0.5.
    assert prune(np.array([[1, 0, 0, 0], [0.5] * 4], dtype=np.float32), threshold, 8)[0] == kept


def test_threshold_of_one_means_equal_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 384))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert prune(np.vstack([vectors, vectors]), 1.0, 16) == (list(range(50)), {50 + i: i for i in range(50)})


@given(
    st.lists(st.sampled_from(range(len(EXACT))), max_size=40),
    st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.75, 1.0]),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_prune_equals_the_naive_greedy_exactly(picks: list[int], threshold: float, block_size: int, chunk: int) -> None:
    vectors = EXACT[picks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "CHUNK", chunk)
        assert prune(vectors, threshold, block_size) == prune_naively(vectors, threshold)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.2, 0.99), st.integers(1, 20))
def test_prune_equals_the_naive_greedy_on_random_vectors(
    seed: int, count: int, threshold: float, block_size: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    assume(np.abs(cosines - (threshold - TOLERANCE)).min() > 1e-6)
    kept, twins = prune(vectors, threshold, block_size)
    assert (kept, twins) == prune_naively(vectors, threshold)
    among_kept = cosines[np.ix_(kept, kept)] - np.eye(len(kept))
    assert among_kept.max(initial=-1) < threshold


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((3, 4)), r"shape \(3, 4\) for 2 texts"),
        (np.ones(2), r"shape \(2,\) for 2 texts"),
        (np.array([[2.0, 0], [1, 0]]), r"lengths 1 to 2; near-duplicates need unit vectors"),
        (np.array([[np.nan, 0], [1, 0]]), r"lengths nan to nan"),
        (np.zeros((2, 2)), r"lengths 0 to 0"),
    ],
)
def test_compare_refuses_what_is_not_one_unit_vector_per_row(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        KeptVectors(0.9).compare(np.array([0, 1]), vectors)


def spread(rows: int, width: int, seed: int) -> np.ndarray:
    """Unit vectors around a few centres, copies and near-copies among them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, width))
    vectors = centres[rng.integers(5, size=rows)] + rng.choice([0.0, 0.1, 1.0], size=(rows, 1)) * rng.normal(
        size=(rows, width)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(
    st.integers(0, 10**6),
    st.integers(2, 60),
    st.sampled_from([3, 40]),
    st.sampled_from([0.3, 0.8, 0.95, 1.0]),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.02, 1.0]),
)
def test_prune_by_the_bound_is_pruning_one_by_one(seed, rows, width, threshold, block_size, dense) -> None:
    vectors = spread(rows, width, seed)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    assume(np.abs(cosines - (threshold - TOLERANCE)).min() > 5e-7 or threshold == 1.0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FILTER_FROM", 2), ("CHUNK", 4), ("DIRECTIONS", 2), ("PAIRS", 3), ("DENSE", dense)):
            patch.setattr(duplicates, name, value)
        assert prune(vectors, threshold, block_size) == prune_naively(vectors, threshold)


@given(st.integers(0, 10**6), st.sampled_from([3, 40, 384]))
def test_bound_is_above_every_cosine(seed, width) -> None:
    vectors = spread(50, width, seed)
    outlines = Bound.of(vectors[:20]).outlines(vectors)
    assert (outlines @ outlines.T >= vectors @ vectors.T - duplicates.SLACK / 10).all()


def test_compare_holds_the_numbers_of_kept_rows_as_an_array() -> None:
    """A list of Python numbers, made an array for every block, would take longer than the comparison."""
    kept = KeptVectors(0.9)
    vectors = np.zeros((100_000, 2), dtype=np.float32)
    vectors[:, 0] = 1
    kept._rows.append(np.arange(7, 100_007))
    kept._vectors.append(vectors)
    assert kept._rows.held.dtype == np.int64
    assert kept.compare(np.array([3]), vectors[:1]).twin(3) == 7


def test_bound_leaves_few_pairs_of_vectors_that_spread_in_few_directions() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(500, 24)) @ rng.normal(size=(24, 384))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    outlines = Bound.of(vectors).outlines(vectors)
    assert ((outlines @ outlines.T >= 0.9).sum() - 500) <= (vectors @ vectors.T >= 0.89).sum()
