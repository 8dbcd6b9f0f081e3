"""One matrix of many parts: what it reads is what numpy's concatenation would hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.knn.vectors import Matrix


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(1, 7),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.data(),
)
def test_matrix_reads_what_its_parts_hold(sizes, width, block, dtype, data):
    random = np.random.default_rng(0)
    parts = [random.normal(size=(size, width)).astype(dtype) for size in sizes]
    expected = np.concatenate(parts).astype(np.float32)
    matrix = Matrix.of(parts)
    assert (len(matrix), matrix.width) == expected.shape
    assert np.array_equal(matrix.whole(), expected)
    blocks = list(matrix.blocks(block))
    assert all(
        len(rows) <= block and np.array_equal(rows, expected[start : start + len(rows)]) for start, rows in blocks
    )
    assert sum(len(rows) for _, rows in blocks) == len(expected)
    if len(expected):
        rows = np.array(data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=12)), dtype=np.int64)
        assert np.array_equal(matrix.take(rows), expected[rows])


def test_matrix_of_one_float32_matrix_is_no_copy():
    vectors = np.ones((3, 2), dtype=np.float32)
    assert np.shares_memory(Matrix.of(vectors).whole(), vectors)


def test_matrix_of_files_reads_what_they_hold(tmp_path):
    vectors = np.arange(6, dtype=np.float16).reshape(3, 2)
    np.save(tmp_path / "a.npy", vectors)
    matrix = Matrix.of([tmp_path / "a.npy", str(tmp_path / "a.npy")])
    expected = np.concatenate([vectors, vectors]).astype(np.float32)
    assert np.array_equal(matrix.whole(), expected)
    assert np.array_equal(matrix.take(np.array([5, 0, 2])), expected[[5, 0, 2]])
    assert [(start, len(rows)) for start, rows in matrix.blocks(2)] == [(0, 2), (2, 1), (3, 2), (5, 1)]
    assert np.array_equal(Matrix.of([tmp_path / "a.npy"]).whole(), expected[:3])


def test_matrix_of_a_file_that_changes_says_so(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    matrix = Matrix.of([tmp_path / "a.npy"])
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    with pytest.raises(IndicatorError, match=r"the vectors in .*a\.npy changed while they were read"):
        matrix.whole()


def test_matrix_of_what_is_none_says_so(tmp_path):
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(IndicatorError, match=r"the vectors in .*torn\.npy cannot be read .*; compute them again"):
        Matrix.of([tmp_path / "torn.npy"])
    with pytest.raises(IndicatorError, match=r"vectors of shapes .*; pass matrices of one width"):
        Matrix.of([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(IndicatorError, match="pass matrices of one width"):
        Matrix.of(np.ones(3))
