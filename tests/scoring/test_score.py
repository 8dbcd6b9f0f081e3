"""score: all rows in their order, the source's columns untouched, a record that tells the truth."""

import importlib.metadata
import json
import math
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from datasets import Dataset

from im_datasets.common.errors import MissingExtraError, OutputError, SourceError
from im_datasets.indicators import MTLD, KNNDistance, Length, Quality, Similarity
from im_datasets.models.embedder import Embedder
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LinearRule, Term
from im_datasets.scoring import assembly, scorer
from im_datasets.scoring import score as scoring
from im_datasets.scoring.score import score


@pytest.fixture(scope="module")
def rows():
    topics = ["tea", "rain", "chess", "bread", "rivers", "clocks", "bees", "salt", "kites"]
    return Dataset.from_dict(
        {
            "instruction": [f"Write a sentence about {topic}." for topic in topics] + ["Say nothing."],
            "input": [""] * 10,
            "output": [f"Here is what I know of {topic}: people like {topic}." for topic in topics] + [None],
            "id": list(range(10)),
        }
    )


@pytest.fixture(scope="module")
def scored(rows):
    return score(rows, progress=False)


def test_score_keeps_rows_columns_and_features(rows, scored):
    assert scored.dataset.select_columns(rows.column_names)[:] == rows[:]
    assert {name: scored.dataset.features[name] for name in rows.column_names} == dict(rows.features)


def test_score_equals_the_batch_functions(rows, scored):
    mining = InstructMining("embedded", indicators=[Length(), MTLD(), Similarity(), KNNDistance(text="both")])
    mapped = rows.map(mining.fit(rows), batched=True, batch_size=3)
    for name in mining.writes[:-1]:
        assert np.array_equal(scored.dataset[name][:], mapped[name][:], equal_nan=True), name
    assert scored.dataset["im_unscorable"][:] == mapped["im_unscorable"][:]


def test_score_is_the_same_in_any_chunks(rows, scored, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 3)
    again = score(rows, progress=False)
    assert again.dataset.to_pandas().equals(scored.dataset.to_pandas())


def test_score_takes_a_shuffled_dataset(rows, scored):
    shuffled = score(rows.shuffle(seed=1), progress=False).dataset
    order = np.argsort(shuffled["id"][:])
    for name in ("im_quality", "im_knn_6", "im_log_loss"):
        assert np.array_equal(np.array(shuffled[name][:])[order], scored.dataset[name][:], equal_nan=True)


def test_score_records_what_was_done(scored):
    record = scored.record
    assert record.rows == 10
    assert list(record.unscorable.values()) == [1]
    assert record.rule.name == "embedded"
    assert {i.name for i in record.indicators} == {"Length", "MTLD", "Similarity", "KNNDistance", "Quality"}
    quality = next(i for i in record.indicators if i.name == "Quality")
    assert quality.model["revision"].startswith("sha256:")
    assert quality.version == Quality.version
    losses = [v for v in scored.dataset["im_log_loss"] if not math.isnan(v)]
    assert record.statistics["im_log_loss"]["mean"] == pytest.approx(np.mean(losses))
    assert record.statistics["im_log_loss"]["count"] == 9
    assert record.to_json()


def test_score_without_description_computes_the_rules_indicators_only(rows):
    written = set(score(rows, describe=False, progress=False).dataset.column_names) - set(rows.column_names)
    assert written == set(InstructMining("embedded").writes)


def test_score_replaces_columns_of_an_earlier_score(scored):
    again = score(scored.dataset, progress=False)
    assert again.dataset.column_names == scored.dataset.column_names


def test_score_too_few_rows_for_neighbours_leaves_the_distance_out(rows):
    few = score(rows.select(range(3)), progress=False)
    assert all(math.isnan(v) for v in few.dataset["im_knn_6"])
    assert not any(math.isnan(v) for v in few.dataset["im_log_loss"])


def test_score_refuses_an_empty_dataset(rows):
    with pytest.raises(SourceError, match="no rows"):
        score(rows.select([]))


def test_score_describes_with_the_encoder_of_the_rule(rows):
    encoder = Embedder(max_tokens=8)
    rule = LinearRule("alike", "", 0.0, (Term("im_similarity", -1.0),))
    record = score(rows, rule, indicators=[Similarity(embedder=encoder)], progress=False).record
    used = {i.name: i.settings["embedder"]["max_tokens"] for i in record.indicators if "embedder" in i.settings}
    assert used == {"Similarity": 8, "KNNDistance": 8}


def test_score_records_how_neighbours_were_searched(scored, rows):
    searches = {indicator.name: indicator.search for indicator in scored.record.indicators}
    assert searches.pop("KNNDistance") == {"method": "exact", "vectors": "float32"}
    assert set(searches.values()) == {None}
    rule = LinearRule("far", "", 0.0, (Term("im_knn_2", -1.0),))
    record = score(rows, rule, indicators=[KNNDistance(k=2, exact_limit=2)], progress=False).record
    search = next(indicator.search for indicator in record.indicators if indicator.name == "KNNDistance")
    assert search == {"method": "scan of distinct rows", "distinct_rows": 9, "vectors": "float16"}
    assert json.loads(record.to_json())["indicators"][0]["search"] == search


def test_score_in_a_folder_is_mapped_and_the_same_and_computes_nothing_again(rows, scored, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(scoring, "SHARD_ROWS", 4)
    for resumed in (0, 3):
        again = score(rows, progress=False, folder=tmp_path / "run")
        assert again.dataset.to_pandas().equals(scored.dataset.to_pandas())
        assert again.record.throughput["resumed_shards"] == resumed
    assert {"filename": str(tmp_path / "run" / "scores.arrow")} in again.dataset.cache_files


def test_score_keeps_half_precision_vectors_beyond_the_exact_limit(rows, scored, tmp_path):
    near = KNNDistance(text="both", exact_limit=5)
    again = score(rows, progress=False, indicators=[near], folder=tmp_path / "run")
    vectors = np.load(tmp_path / "run" / "shard-000000-im_knn_6.npy")
    assert (vectors.dtype, vectors.shape) == (np.float16, (9, 768))
    exact, approximate = scored.dataset["im_knn_6"][:], again.dataset["im_knn_6"][:]
    assert approximate == pytest.approx(exact, abs=2e-3, nan_ok=True)


def test_score_finds_out_before_it_scores_that_the_search_has_no_folder(rows, tmp_path, monkeypatch):
    (tmp_path / "knn").write_text("a file")
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr(scoring.LocalEngine, "run", lambda *_: pytest.fail("scored first"))
    with pytest.raises(OutputError, match=r"cannot write to .*knn .*; set IM_DATASETS_CACHE to a folder with room"):
        score(rows, progress=False, indicators=[KNNDistance(text="both", exact_limit=9)])


def test_score_without_the_extra_for_many_rows(rows, scored, monkeypatch):
    def version(name):
        if name == "pynndescent":
            raise PackageNotFoundError(name)
        return importlib.metadata.version(name)

    assert "pynndescent" in scored.record.versions
    monkeypatch.setattr(scorer, "version", version)
    for package in ("pynndescent", "numba", "llvmlite"):
        monkeypatch.setitem(sys.modules, package, None)
    again = score(rows, progress=False)
    assert again.dataset.to_pandas().equals(scored.dataset.to_pandas())
    assert scored.record.versions.keys() - again.record.versions.keys() == {"pynndescent"}
    monkeypatch.setattr(scoring.LocalEngine, "run", lambda *_: pytest.fail("scored first"))
    with pytest.raises(MissingExtraError, match=r"pip install 'im-datasets\[large\]'"):
        score(rows, progress=False, indicators=[KNNDistance(text="both", exact_limit=9)])


def test_score_gives_each_indicator_its_share_of_the_time(scored):
    shares = [indicator.share for indicator in scored.record.indicators]
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) <= 1
    assert set(scored.record.throughput) == {
        "rows_per_second",
        "tokens_per_second",
        "resumed_shards",
        "workers",
        "shards",
    }
