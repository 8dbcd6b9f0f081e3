"""score: all rows in their order, the source's columns untouched, a record that tells the truth."""

import math

import numpy as np
import pytest
from datasets import Dataset

from im_datasets import scoring
from im_datasets.errors import SourceError
from im_datasets.indicators import MTLD, KNNDistance, Length, Quality, Similarity
from im_datasets.mining import InstructMining
from im_datasets.scoring import score


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
    assert record.rule["name"] == "embedded"
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
