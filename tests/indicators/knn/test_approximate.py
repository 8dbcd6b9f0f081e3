"""NN-Descent: right neighbours for the most part, the same ones every time, as wide as the memory allows."""

import sys

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import MissingExtraError
from im_datasets.indicators.knn.approximate import COPIES, LEAST, Descent, check_installed, descents
from im_datasets.indicators.knn.indicator import KNNDistance
from im_datasets.indicators.knn.search import check_room, search_neighbours

ADVICE = r"pip install 'im-datasets\[large\]', or pass KNNDistance\(exact_limit=…\) above the number of rows"


@pytest.fixture
def small_install(monkeypatch):
    """As if the extra ``large`` were not there: importing any of its packages is an error."""
    for package in ("pynndescent", "numba", "llvmlite"):
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.usefixtures("small_install")
def test_up_to_the_limit_nothing_of_the_extra_is_needed():
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    exact = search_neighbours(vectors, 2).distances
    assert np.array_equal(search_neighbours(np.repeat(vectors, 3, axis=0), 6, exact_limit=50).distances[::3], exact)
    rows = Dataset.from_dict({"instruction": ["Name a fruit."] * 3 + ["Name a hill."], "response": list("aaab")})
    assert KNNDistance(k=1, exact_limit=2).fit(rows)(rows[:2]) == {"im_knn_1": [0.0, 0.0]}


@pytest.mark.usefixtures("small_install")
def test_beyond_the_limit_a_missing_extra_is_told_before_anything_is_embedded(monkeypatch):
    many = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    for search in (check_installed, check_room, lambda: search_neighbours(many, 1, exact_limit=8)):
        with pytest.raises(MissingExtraError, match=ADVICE):
            search()
    monkeypatch.setattr(KNNDistance, "vectors", lambda *_: pytest.fail("embedded first"))
    rows = Dataset.from_dict({"instruction": list("abcd"), "response": list("efgh")})
    with pytest.raises(MissingExtraError, match=ADVICE):
        KNNDistance(k=1, exact_limit=3).fit(rows)


def test_run_finds_nearly_all_neighbours_and_the_same_ones_again():
    points = np.random.default_rng(0).normal(size=(700, 6)).astype(np.float32)
    graph = Descent(30, 15).run(points)
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    nearest = np.argsort(squares, axis=1, kind="stable")[:, :10]
    assert graph.shape == (700, 30)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(graph[:, :10], nearest, strict=True)]) > 9.9
    assert np.array_equal(graph, Descent(30, 15).run(points))


@given(st.integers(1, 10**8), st.integers(2, 80), st.integers(0, 2**40))
def test_descents_stay_within_the_memory_but_for_the_least_one(points, at_least, memory):
    tries = descents(points, at_least, memory)
    widths = [descent.neighbours for descent in tries]
    assert widths == sorted(set(widths))
    assert all(descent.neighbours >= at_least for descent in tries)
    if tries[0].neighbours > max(LEAST, at_least):
        assert all(descent.bytes_per_point() * points <= memory for descent in tries)


def test_bytes_per_point_worked_by_hand():
    # 60 neighbours of an id (4), a distance (4) and a flag (1); 30 candidates of two kinds, an id and a rank (8) each.
    assert Descent(60, 30).bytes_per_point() == COPIES * 60 * 9 + 2 * 30 * 8 + 64 == 1624
