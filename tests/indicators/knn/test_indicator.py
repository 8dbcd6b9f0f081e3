"""Distance to the k-th nearest other row: the search against naive float64, the indicator under all its uses."""

import os
import pickle
import subprocess
import sys
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from im_datasets.common.errors import ColumnsError, IndicatorError, NotFittedError, OutputError
from im_datasets.common.storage import cache_folder
from im_datasets.data.columns import Columns
from im_datasets.indicators.knn import indicator as neighbours
from im_datasets.indicators.knn import search as nearest
from im_datasets.indicators.knn.approximate import Descent
from im_datasets.indicators.knn.indicator import (
    FittedKNNDistance,
    KNNDistance,
    pair_keys,
)
from im_datasets.indicators.knn.search import Space, distances_to, search_neighbours
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.models.embedder import Embedder
from im_datasets.models.hub_models import embedded_model_folder

INF = float("inf")


def knn_distances(
    vectors: NDArray[np.float32], k: int, metric: str = "euclidean", exact_limit: int = 100_000
) -> NDArray[np.float64]:
    return search_neighbours(vectors, k, metric, exact_limit=exact_limit).distances


def naive(vectors: NDArray[np.float32], k: int, metric: str = "euclidean") -> NDArray[np.float64]:
    """The definition, row by row in float64."""
    points = vectors.astype(np.float64)
    if metric == "cosine":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    squares = np.array([((points - point) ** 2).sum(axis=1) for point in points])
    np.fill_diagonal(squares, INF)
    kth = np.sort(squares, axis=1)[:, k - 1]
    return np.sqrt(kth) if metric == "euclidean" else kth / 2


def clustered(rows: int, width: int = 24, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around a few centres, at several scales, as embeddings lie."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(2, rows // 40), width))
    spread = random.choice([0.05, 0.3, 1.0], size=(rows, 1))
    vectors = centres[random.integers(len(centres), size=rows)] + spread * random.normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the descent would find with all the time in the world, without half a minute of compilation."""

    def run(self: Descent, points: NDArray[np.float32]) -> NDArray[np.int32]:
        squares = ((points[:, None].astype(np.float64) - points[None]) ** 2).sum(axis=2)
        return np.argsort(squares, axis=1, kind="stable")[:, : self.neighbours].astype(np.int32)

    monkeypatch.setattr(Descent, "run", run)


# The search.


def test_knn_distances_of_a_hand_worked_case():
    # Points 0, 1, 3, 7 on a line. Others sorted by distance: 0 → 1, 3, 7; 1 → 1, 2, 6; 3 → 2, 3, 4; 7 → 4, 6, 7.
    line = np.array([[0, 0], [1, 0], [3, 0], [7, 0]], dtype=np.float32)
    assert knn_distances(line, 1).tolist() == [1, 1, 2, 4]
    assert knn_distances(line, 2).tolist() == [3, 2, 3, 6]
    assert knn_distances(line, 3).tolist() == [7, 6, 4, 7]


def test_knn_distances_by_cosine_of_a_hand_worked_case():
    # Directions 0°, 60°, 180°, of any length: 1 − cos 60° = 1/2, 1 − cos 120° = 3/2, 1 − cos 180° = 2.
    rows = np.array([[5, 0], [1, 3**0.5], [-0.1, 0]], dtype=np.float32)
    assert knn_distances(rows, 1, "cosine") == pytest.approx([0.5, 0.5, 1.5], abs=1e-7)
    assert knn_distances(rows, 2, "cosine") == pytest.approx([2, 1.5, 2], abs=1e-7)


coordinates = st.one_of(st.integers(-3, 3), st.floats(-100, 100, width=32))
matrices = st.tuples(st.integers(2, 40), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=coordinates)
)


@given(matrices, st.data())
def test_knn_distances_equals_the_definition(vectors, data):
    k = data.draw(st.integers(1, len(vectors) - 1))
    np.testing.assert_allclose(knn_distances(vectors, k), naive(vectors, k), rtol=1e-12, atol=1e-30)


@given(matrices.filter(lambda v: (np.linalg.norm(v.astype(np.float64), axis=1) > 1e-3).all()), st.data())
def test_knn_distances_by_cosine_equals_the_definition(vectors, data):
    k = data.draw(st.integers(1, len(vectors) - 1))
    np.testing.assert_allclose(knn_distances(vectors, k, "cosine"), naive(vectors, k, "cosine"), rtol=1e-9, atol=1e-30)


@pytest.mark.parametrize("offset", [0, 1, 300])
def test_knn_distances_is_exact_where_float32_cancels(offset):
    """Far from the origin |x|² + |y|² − 2xy leaves nothing of small differences; here nothing is lost."""
    random = np.random.default_rng(3)
    vectors = (offset + random.normal(scale=1e-3, size=(300, 16))).astype(np.float32)
    np.testing.assert_allclose(knn_distances(vectors, 6), naive(vectors, 6), rtol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 6, 20])
def test_knn_distances_agrees_with_scikit_learn(metric, k):
    vectors = clustered(700)
    found, _ = NearestNeighbors(n_neighbors=k + 1, metric=metric, algorithm="brute").fit(vectors).kneighbors(vectors)
    # scikit-learn rounds in float32: its squares are off by up to 1e-6, and so are its cosines.
    power = 2 if metric == "euclidean" else 1
    np.testing.assert_allclose(knn_distances(vectors, k, metric) ** power, found[:, k] ** power, atol=2e-6)


# Each process compiles the descent anew, half a minute long: they share one.
@pytest.mark.xdist_group("descent")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("exact_limit", [10_000, 10])
def test_knn_distances_does_not_depend_on_row_order(metric, exact_limit):
    vectors = np.concatenate([clustered(600), clustered(40)])
    order = np.random.default_rng(1).permutation(len(vectors))
    distances = knn_distances(vectors, 6, metric, exact_limit)
    assert np.array_equal(knn_distances(vectors[order], 6, metric, exact_limit), distances[order])


@pytest.mark.usefixtures("compared_with_all")
@pytest.mark.parametrize("exact_limit", [10_000, 10])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_knn_distances_counts_identical_copies_as_other_rows(metric, exact_limit):
    vectors = clustered(200)
    copies = np.concatenate([vectors, np.repeat(vectors[:1], 6, axis=0), np.repeat(vectors[1:2], 5, axis=0)])
    distances = knn_distances(copies, 6, metric, exact_limit)
    assert distances[[0, *range(200, 206)]].tolist() == [0] * 7  # seven copies: the sixth other one is a copy
    assert (distances[[1, *range(206, 211)]] > 0).all()  # six copies: the sixth other row is another
    assert np.ptp(distances[[1, *range(206, 211)]]) == 0


@pytest.mark.parametrize("exact_limit", [10_000, 10])
def test_knn_distances_of_many_copies_is_zero(exact_limit):
    assert (knn_distances(np.repeat(clustered(5), 300, axis=0), 6, "euclidean", exact_limit) == 0).all()


@pytest.mark.xdist_group("descent")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_knn_distances_beyond_the_limit_finds_nearly_all_neighbours(metric):
    vectors = clustered(4000, width=48)
    exact = knn_distances(vectors, 6, metric)
    approximate = knn_distances(vectors, 6, metric, exact_limit=3999)
    assert (approximate >= exact).all()
    assert (approximate == exact).mean() >= 0.99
    assert np.array_equal(knn_distances(vectors, 6, metric, exact_limit=4000), exact)


@pytest.mark.usefixtures("compared_with_all")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_knn_distances_beyond_the_limit_is_exact_where_the_graph_holds_too_few(metric, monkeypatch):
    run = Descent.run

    def holey(self, points):
        graph = run(self, points)
        graph[::3, 4:] = -1  # after the row itself three others are left, fewer than the six asked for
        return graph

    monkeypatch.setattr(Descent, "run", holey)
    vectors = np.concatenate([clustered(500), clustered(20)])
    found = search_neighbours(vectors, 6, metric, exact_limit=10, recall=0.5)
    exact = knn_distances(vectors, 6, metric)
    assert found.search["method"] == "nn-descent"
    assert 0.5 < found.search["recall"] < 0.9
    assert (found.distances >= exact).all()
    assert (found.distances == exact).mean() > 0.99


def test_knn_distances_beyond_the_limit_takes_a_k_near_the_number_of_rows():
    vectors = np.repeat(clustered(20), 2, axis=0)
    assert np.array_equal(knn_distances(vectors, 39, "euclidean", exact_limit=10), knn_distances(vectors, 39))


@pytest.mark.usefixtures("compared_with_all")
def test_search_neighbours_measures_its_recall_and_says_how_it_searched():
    vectors = np.concatenate([clustered(900), clustered(900)[:30]])
    found = search_neighbours(vectors, 6, exact_limit=899)
    exact = search_neighbours(vectors, 6)
    assert exact.search == {"method": "exact"}
    assert found.search.pop("threads") == 4
    assert found.search.pop("recall") >= 0.99
    assert found.search == {
        "method": "nn-descent",
        "recall_asked": 0.99,
        "sample": 900,  # the 30 are copies
        "seed": 0,
        "neighbours": 45,
        "candidates": 45,
        "graph_bytes": (2 * 9 * 45 + 16 * 45 + 64) * 900,
        "distinct_rows": 900,
    }


@pytest.mark.usefixtures("compared_with_all")
def test_search_neighbours_widens_until_it_finds_enough(monkeypatch):
    monkeypatch.setattr(nearest, "_recall", lambda graph, nearest, rows: next(recalls))
    recalls = iter([0.5, 0.9, 0.995])
    found = search_neighbours(clustered(600), 6, exact_limit=10)
    assert (found.search["neighbours"], found.search["recall"]) == (90, 0.995)


@pytest.mark.usefixtures("compared_with_all")
def test_search_neighbours_warns_where_the_memory_ends_before_enough_are_found(monkeypatch):
    monkeypatch.setattr(nearest, "_recall", lambda graph, nearest, rows: 0.5)
    message = r"found 50\.0% of the 6 nearest rows, fewer than the 99\.0% asked for; allow it more memory .*, or raise"
    with pytest.warns(UserWarning, match=message):
        found = search_neighbours(clustered(600), 6, exact_limit=10, memory=600 * 580)
    assert found.search["recall"] == 0.5
    assert found.search["neighbours"] < 20


@pytest.mark.usefixtures("compared_with_all")
def test_search_neighbours_asks_for_no_memory_where_its_widest_step_was_tried(monkeypatch):
    monkeypatch.setattr(nearest, "_recall", lambda graph, nearest, rows: 0.5)
    with pytest.warns(UserWarning, match=r"99\.0% asked for; raise exact_limit above 600"):
        found = search_neighbours(clustered(600), 6, exact_limit=10)
    assert found.search["neighbours"] == 90


@pytest.mark.usefixtures("compared_with_all")
def test_search_neighbours_warns_where_its_least_graph_is_larger_than_allowed():
    # 15 neighbours: 2 copies of 9 bytes each, 16 bytes a candidate, and 64: 270 + 240 + 64 = 574 bytes a row.
    with pytest.warns(UserWarning, match=r"takes 0\.00032 GiB .* of 600 rows at least, more than the 0\.00028 GiB"):
        found = search_neighbours(clustered(600), 6, exact_limit=10, recall=0.1, memory=600 * 500)
    assert found.search["graph_bytes"] == 574 * 600


@pytest.mark.parametrize("recall", [0, 1.01])
def test_search_neighbours_refuses_a_recall_out_of_range(recall):
    with pytest.raises(IndicatorError, match=r"it must be above 0 and at most 1"):
        search_neighbours(clustered(10), 1, recall=recall)


@pytest.mark.usefixtures("compared_with_all")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("exact_limit", [10_000, 10])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_search_neighbours_of_shards_is_that_of_the_matrix(metric, exact_limit, dtype, tmp_path):
    vectors = np.concatenate([clustered(500), clustered(40)]).astype(dtype)
    vectors[[3, 300]] = np.nan
    shards: list[Path | NDArray] = []
    for start, stop in ((0, 7), (7, 7), (7, 400), (400, 540)):
        np.save(tmp_path / f"{start}-{stop}.npy", vectors[start:stop])
        shards.append(tmp_path / f"{start}-{stop}.npy")
    whole = search_neighbours(vectors.astype(np.float32), 6, metric, exact_limit=exact_limit)
    mapped = search_neighbours(
        np.memmap(tmp_path / "7-400.npy", dtype, "r", 128, (393, 24)), 6, metric, exact_limit=exact_limit
    )
    np.testing.assert_array_equal(
        mapped.distances, knn_distances(vectors[7:400].astype(np.float32), 6, metric, exact_limit)
    )
    found = search_neighbours(shards, 6, metric, exact_limit=exact_limit)
    np.testing.assert_array_equal(found.distances, whole.distances)
    assert np.flatnonzero(np.isnan(found.distances)).tolist() == [3, 300]
    assert found.search == whole.search


@given(st.integers(1, 6), st.lists(st.integers(0, 5), min_size=8, max_size=60), st.booleans())
def test_search_neighbours_beyond_the_limit_equals_the_definition_where_rows_are_few_of_a_kind(k, rows, by_cosine):
    """Many copies of up to six rows: all kinds are compared, and copies counted."""
    metric = "cosine" if by_cosine else "euclidean"
    vectors = clustered(6)[rows]
    found = search_neighbours(vectors, k, metric, exact_limit=7)
    np.testing.assert_allclose(found.distances, naive(vectors, k, metric), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_neighbours_has_no_file_by_name_that_a_killed_process_could_leave(metric, cache, monkeypatch):
    def run(self, points):
        assert list((cache / "knn").iterdir()) == []
        return np.tile(np.arange(self.neighbours, dtype=np.int32), (len(points), 1))

    monkeypatch.setattr(Descent, "run", run)
    search_neighbours(clustered(600), 6, metric, exact_limit=10, recall=0.001)


@pytest.mark.usefixtures("compared_with_all")
def test_search_neighbours_holds_no_wide_graph_beside_the_next_descent(monkeypatch):
    held = []
    run = Descent.run

    def noted(self, points):
        assert [graph() for graph in held] == [None] * len(held)
        graph = run(self, points)
        held.append(weakref.ref(graph))
        return graph

    monkeypatch.setattr(Descent, "run", noted)
    monkeypatch.setattr(nearest, "_recall", lambda graph, nearest, rows: 0.9 + len(held) / 30)
    assert search_neighbours(clustered(600), 6, exact_limit=10).search["neighbours"] == 90


@pytest.mark.usefixtures("compared_with_all")
def test_search_neighbours_leaves_no_file_behind_and_names_a_folder_that_is_none(cache, monkeypatch):
    search_neighbours(clustered(300), 6, exact_limit=10)
    assert list((cache / "knn").iterdir()) == []
    (cache / "knn").rmdir()
    (cache / "knn").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write vectors to .*; set IM_DATASETS_CACHE to a folder with 0 MiB"):
        search_neighbours(clustered(300), 6, exact_limit=10)


def test_knn_distances_works_in_blocks(monkeypatch):
    vectors = clustered(100)
    whole = knn_distances(vectors, 6), knn_distances(vectors, 6, "cosine", 10)
    for name, size in (("BLOCK", 7), ("PAIRS", 3)):
        monkeypatch.setattr(nearest, name, size)
    assert np.array_equal(knn_distances(vectors, 6), whole[0])
    assert np.array_equal(knn_distances(vectors, 6, "cosine", 10), whole[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e19])
def test_knn_distances_of_a_row_that_is_not_finite_is_nan_and_it_is_nobodys_neighbour(bad):
    vectors = np.array([[0, 0], [bad, 0], [3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(knn_distances(vectors, 1), [5, np.nan, 5])


def test_knn_distances_by_cosine_of_zeros_is_nan():
    vectors = np.array([[1, 0], [0, 0], [0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(knn_distances(vectors, 1, "cosine"), [1, np.nan, 1])


def test_knn_distances_of_too_few_rows_names_the_numbers():
    with pytest.raises(IndicatorError, match="neighbour 6 needs 7 scorable rows; 5 of 6 rows are scorable"):
        knn_distances(np.array([[0.0]] * 5 + [[np.nan]], dtype=np.float32), 6)


def test_knn_distances_refuses_what_it_does_not_know():
    with pytest.raises(IndicatorError, match="k=0 is no neighbour; pass 1 or more"):
        knn_distances(clustered(10), 0)
    with pytest.raises(IndicatorError, match="metric 'manhattan' is unknown; known: euclidean, cosine"):
        knn_distances(clustered(10), 1, "manhattan")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_to_counts_every_row(metric):
    vectors = clustered(300)
    space, _ = Space.of(vectors[100:], metric)
    distances = distances_to(vectors, space, 6)
    expected = [naive(np.concatenate([vector[None], vectors[100:]]), 6, metric)[0] for vector in vectors[:100]]
    np.testing.assert_allclose(distances[:100], expected, rtol=1e-9)
    # A query equal to a row has that row at 0, so its sixth is the row's fifth *other* one.
    assert np.array_equal(distances[100:], knn_distances(vectors[100:], 5, metric))


def test_distances_to_too_few_rows_names_the_numbers():
    space, _ = Space.of(clustered(5), "euclidean")
    with pytest.raises(IndicatorError, match="neighbour 6 needs 6 rows; there are 5"):
        distances_to(clustered(2), space, 6)


# The indicator.

LINE = {"zero": 0.0, "one": 1.0, "three": 3.0, "seven": 7.0}


@dataclass(frozen=True)
class LineEmbedder:
    """Stands for an Embedder: texts are numbers on a line, and a text without a number has none."""

    model: str = "line"

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        return np.array([[LINE.get(text.strip(), np.nan)] for text in texts], dtype=np.float32)

    def weights(self) -> str:
        return "line"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for each test."""
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def on_line(**settings) -> KNNDistance:
    return KNNDistance(**{"text": "response", "embedder": LineEmbedder(), "k": 2, **settings})


def batch(*responses: str) -> dict[str, list[str]]:
    return {"instruction": ["Say a number."] * len(responses), "output": list(responses)}


def line(*responses: str) -> Dataset:
    return Dataset.from_dict(batch(*responses))


SENTENCES = [
    f"{who} {what} {where}."
    for who in ("The baker", "A child", "My neighbour")
    for what in ("sings", "counts coins", "reads a letter")
    for where in ("at noon", "in the garden")
]


@pytest.fixture(scope="module")
def sentences() -> Dataset:
    """18 real pairs, one of them twice, and an unscorable row."""
    responses = [*SENTENCES, SENTENCES[0], ""]
    return Dataset.from_dict({"instruction": ["Write a sentence."] * 20, "output": responses, "id": list(range(20))})


def test_fit_of_a_hand_worked_case():
    # As above: the second nearest other of 0, 1, 3, 7 is at 3, 2, 3, 6.
    fitted = on_line().fit(line("zero", "one", "three", "seven"))
    assert fitted(batch("seven", "zero", "one", "three")) == {"im_knn_2": [6, 3, 2, 3]}


def test_fit_counts_copies_of_a_pair():
    fitted = on_line(k=6).fit(line(*["one"] * 7, *["three"] * 6))
    assert fitted(batch("one", "three"))["im_knn_6"] == [0, 2]


def test_fitted_gives_a_new_row_its_distance_to_the_fitted_ones():
    fitted = on_line().fit(line("zero", "one", "three"))
    # 7 is not fitted: the fitted rows lie at 4, 6 and 7.
    assert fitted(batch("seven", "one"))["im_knn_2"] == [6, 2]


def test_fitted_gives_nan_where_there_is_nothing_to_score_or_no_vector():
    fitted = on_line().fit(line("zero", "", "one", "many", "three"))
    assert fitted.rows == 4
    np.testing.assert_array_equal(fitted(batch("zero", "", "many", "few"))["im_knn_2"], [3, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("name", ["im_knn_3", "im_knn_25"])
def test_column_of_another_number_is_in_the_table(name):
    assert name in COLUMNS
    assert replace(COLUMNS[name], name="", meaning="") == replace(COLUMNS["im_knn_6"], name="", meaning="")
    assert COLUMNS[name].name == name
    assert COLUMNS[name].meaning == f"distance to the nearest row number {name[7:]}"


@pytest.mark.parametrize("name", ["im_knn_0", "im_knn_", "im_knn_x", "knn_3", "im_knn_3 "])
def test_column_of_no_number_is_not_in_the_table(name):
    assert name not in COLUMNS
    with pytest.raises(KeyError, match=name):
        COLUMNS[name]


def test_fit_by_another_number_writes_another_column():
    assert on_line(k=3).writes == on_line(k=3).fit(line("zero", "one", "three", "seven")).writes == ("im_knn_3",)


@pytest.mark.parametrize("rows", [batch("zero"), batch(""), {"instruction": [], "output": []}])
def test_unfitted_call_names_the_fix(rows):
    with pytest.raises(NotFittedError, match=r"fit it first: ds\.map\(KNNDistance\(k=2\)\.fit\(ds\), batched=True\)"):
        on_line()(rows)


def test_fit_of_too_few_rows_names_the_numbers():
    with pytest.raises(IndicatorError, match="neighbour 2 needs 3 scorable rows; 2 of 2 rows are scorable"):
        on_line().fit(line("zero", "one", ""))
    with pytest.raises(IndicatorError, match="neighbour 2 needs 3 scorable rows; 0 of 0 rows are scorable"):
        on_line().fit(line("", ""))


def test_fit_of_several_splits_asks_for_one():
    with pytest.raises(
        IndicatorError, match=r"fit needs one split; got \['test', 'train'\]; pass one, as in ds\['train"
    ):
        on_line().fit(DatasetDict(train=line("zero"), test=line("one")))


def test_fit_of_an_unknown_layout_is_a_columns_error():
    with pytest.raises(ColumnsError):
        on_line().fit(Dataset.from_dict({"a": ["b"]}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k=0 is no neighbour; pass 1 or more"),
        ({"metric": "l1"}, "metric 'l1' is unknown; known: euclidean, cosine"),
        ({"text": "all"}, "text 'all' is unknown; known: pair, instruction, response, both"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings, message):
    with pytest.raises(IndicatorError, match=message):
        KNNDistance(**settings)


def test_vectors_are_of_the_texts_that_the_setting_names():
    class Recorder(LineEmbedder):
        def embed(self, texts):
            return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    def vectors(text):
        return KNNDistance(text=text, embedder=Recorder()).vectors(["a", "bb"], ["ccc", "dddd"]).tolist()

    assert vectors("pair") == [[6, 1], [8, 1]]
    assert vectors("instruction") == [[1, 1], [2, 1]]
    assert vectors("response") == [[3, 1], [4, 1]]
    np.testing.assert_allclose(vectors("both"), np.array([[1, 1, 3, 1], [2, 1, 4, 1]]) / 2**0.5, rtol=1e-7)


def test_vectors_of_both_are_of_length_one_and_embed_what_similarity_embeds():
    knn = KNNDistance(text="both")
    assert np.linalg.norm(knn.vectors(["Name a fruit."], ["An apple."]), axis=1) == pytest.approx([1], abs=1e-6)
    assert knn.embeds(["a"], ["b"]) == ["a", "b"]
    assert KNNDistance().embeds(["a"], ["b"]) == ["a\n\nb"]


@pytest.mark.parametrize("text", ["pair", "both"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_fit_on_real_texts_agrees_with_the_definition(sentences, text, metric):
    knn = KNNDistance(k=3, text=text, metric=metric)
    values = knn.fit(sentences, batch_size=7)(sentences[:])["im_knn_3"]
    expected = naive(knn.vectors(sentences["instruction"][:19], sentences["output"][:19]), 3, metric)
    np.testing.assert_allclose(values[:19], expected, rtol=1e-9)
    assert np.isnan(values[19])


def test_values_do_not_depend_on_how_fit_was_batched_or_rows_were_ordered(sentences, monkeypatch, tmp_path):
    expected = KNNDistance().fit(sentences)(sentences[:])["im_knn_6"]
    for place, (rows, batch_size) in enumerate([(sentences, 1), (sentences.shuffle(seed=5), 6)]):
        monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path / str(place)))
        np.testing.assert_array_equal(KNNDistance().fit(rows, batch_size)(sentences[:])["im_knn_6"], expected)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_rows_are_found_by_content_after_shuffle_and_filter(sentences, batch_size):
    fitted = KNNDistance().fit(sentences)
    expected = fitted(sentences[:])["im_knn_6"]
    some = sentences.shuffle(seed=2).filter(lambda row: row["id"] % 3).map(fitted, batched=True, batch_size=batch_size)
    np.testing.assert_array_equal(some["im_knn_6"][:], [expected[row] for row in some["id"]])


def test_fit_streams(sentences):
    fitted = KNNDistance().fit(sentences.to_iterable_dataset(num_shards=3), batch_size=4)
    assert fitted == KNNDistance().fit(sentences)


def test_fit_reads_the_columns_it_is_told_of():
    knn = on_line(columns=Columns(instruction="q", response="a"))
    rows = {"q": ["?"] * 3, "a": ["zero", "one", "three"], "output": ["x", "y", "z"]}
    assert knn.fit(Dataset.from_dict(rows))(rows) == {"im_knn_2": [3, 2, 3]}


def test_fit_vectors_is_fit_for_rows_already_collected(sentences, cache, monkeypatch, tmp_path):
    fitted = KNNDistance().fit(sentences)
    texts = sentences["instruction"][:19], sentences["output"][:19]
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path / "other"))
    again = KNNDistance().fit_vectors(pair_keys(*texts), KNNDistance().vectors(*texts))
    assert again == fitted
    (left,), (right,) = cache.rglob("*.npys"), (tmp_path / "other").rglob("*.npys")
    assert left.read_bytes() == right.read_bytes()


def test_second_fit_on_the_same_rows_computes_nothing(monkeypatch):
    fitted = on_line().fit(line("zero", "one", "three"))
    for name in ("search_neighbours", "_write_state"):
        monkeypatch.setattr(neighbours, name, lambda *_: pytest.fail("computed again"))
    neighbours._read_state.cache_clear()
    assert on_line().fit(line("three", "zero", "one")) == fitted


PROBE = """
import sys
from datasets import load_from_disk
from datasets.fingerprint import Hasher
from im_datasets.models.embedder import Embedder
from im_datasets.indicators.knn.indicator import KNNDistance

def refuse(*_):
    raise SystemExit("computed again")

if sys.argv[2] == "second":
    Embedder.encode = refuse
dataset = load_from_disk(sys.argv[1])
fitted = KNNDistance().fit(dataset)
print(Hasher.hash(fitted), fitted(dataset[:])["im_knn_6"], len(dataset.map(fitted, batched=True).cache_files))
"""


def test_second_fit_in_a_new_process_computes_nothing_and_has_the_same_fingerprint(sentences, tmp_path):
    sentences.save_to_disk(tmp_path / "dataset")

    def probe(which: str) -> str:
        command = [sys.executable, "-c", PROBE, str(tmp_path / "dataset"), which]
        environment = os.environ | {"PYTHONHASHSEED": "random"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert probe("first") == probe("second") != ""


@pytest.mark.parametrize(
    "changed",
    [
        {"k": 3},
        {"metric": "cosine"},
        {"text": "instruction"},
        {"exact_limit": 2},
        {"embedder": LineEmbedder("other")},
    ],
)
def test_state_is_of_its_settings(changed, monkeypatch):
    monkeypatch.setattr(LineEmbedder, "weights", lambda self: self.model)
    monkeypatch.setitem(LINE, "Say a number.", 5.0)
    rows = line("zero", "one", "three", "seven")
    fitted, other = on_line().fit(rows), on_line(**changed).fit(rows)
    assert fitted.digest != other.digest
    assert Hasher.hash(fitted) != Hasher.hash(other)


def test_state_is_of_its_rows_copies_and_version(monkeypatch):
    digests = {
        on_line().fit(line(*rows)).digest for rows in (["zero", "one", "three"], ["zero", "one", "one", "three"])
    }
    monkeypatch.setattr(KNNDistance, "version", "another")
    digests.add(on_line().fit(line("zero", "one", "three")).digest)
    assert len(digests) == 3


def test_state_does_not_depend_on_how_a_folder_of_weights_is_called(tmp_path):
    (tmp_path / "link").symlink_to(embedded_model_folder()[0])
    folders = [str(embedded_model_folder()[0]), str(tmp_path / "link")]
    keys = pair_keys(["a"], ["b"])
    assert len({KNNDistance(embedder=Embedder(model=folder))._digest(keys) for folder in folders}) == 1


def test_fitted_pickle_is_tiny_and_gives_the_same_values(sentences):
    fitted = KNNDistance().fit(sentences)
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert copy == fitted
    np.testing.assert_array_equal(copy(sentences[:])["im_knn_6"], fitted(sentences[:])["im_knn_6"])


@pytest.mark.parametrize("text", ["pair", "both"])
def test_fitted_maps_known_and_new_rows_in_two_processes(sentences, text):
    """torch and faiss ran in this process; their threads must not hang its forks."""
    fitted = KNNDistance(k=2, text=text).fit(sentences.select(range(12)))
    expected = fitted(sentences[:])["im_knn_2"]
    scored = sentences.map(fitted, batched=True, batch_size=5, num_proc=2)
    np.testing.assert_array_equal(scored["im_knn_2"][:], expected)


def test_fitted_without_its_state_says_where_it_looked(monkeypatch, tmp_path):
    fitted = on_line().fit(line("zero", "one", "three"))
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(
        NotFittedError, match=r"elsewhere.*cannot be read .*fit again here, \.fit\(ds\), or set IM_DATASETS"
    ):
        fitted(batch("zero"))


def test_fit_into_a_full_folder_is_an_error_before_anything_is_written(monkeypatch):
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left on device.*IM_DATASETS_CACHE"):
        on_line(exact_limit=2).fit(line("zero", "one", "three", "seven"))


def test_fit_replaces_a_state_that_was_cut_short(cache):
    rows = line("zero", "one", "three")
    (path,) = [on_line().fit(rows).path]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    neighbours._read_state.cache_clear()
    assert on_line().fit(rows)(batch("zero")) == {"im_knn_2": [3]}
    assert path.read_bytes() == whole
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_fit_says_when_the_cache_folder_cannot_be_written(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"cannot write .*; set IM_DATASETS_CACHE to a folder with 0 MiB of room"):
        on_line().fit(line("zero", "one", "three"))


def test_cache_folder_is_in_the_hugging_face_home_unless_told(monkeypatch, cache):
    from huggingface_hub import constants

    assert cache_folder() == cache
    monkeypatch.delenv("IM_DATASETS_CACHE")
    assert cache_folder() == Path(constants.HF_HOME) / "im_datasets"


def test_pair_keys_tell_pairs_apart_where_their_texts_meet():
    keys = pair_keys(["ab", "a", "ab", ""], ["c", "bc", "c", "abc"])
    assert (keys[0] == keys[2], len(set(keys.tolist()))) == (True, 3)
    assert pair_keys(["\ud800"], ["lone surrogates do not stop it"]).shape == (1,)


def test_settings_of_a_fitted_indicator_are_plain_enough_for_a_record():
    fitted = on_line().fit(line("zero", "one", "three"))
    assert isinstance(fitted, FittedKNNDistance)
    assert fitted.settings() == {**on_line().settings(), "fitted_rows": 3, "fitted_digest": fitted.digest}
    assert fitted.embedder == LineEmbedder()
    assert replace(fitted, columns=Columns(response="output")).digest == fitted.digest
