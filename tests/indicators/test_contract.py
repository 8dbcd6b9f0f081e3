"""What holds for every indicator, under all the ways people call it.

An indicator joins by a line in ``INDICATORS``: an instance to run, and one with another setting (never run).
"""

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import dill
import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from im_datasets.data.columns import Columns
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.knn.indicator import KNNDistance
from im_datasets.indicators.length import Length
from im_datasets.indicators.mtld import MTLD
from im_datasets.indicators.quality import Quality
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.indicators.similarity import Similarity
from im_datasets.indicators.target.indicator import TargetSimilarity
from im_datasets.models.embedder import Embedder
from im_datasets.rules.instruct_mining import InstructMining

INDICATORS: list[tuple[Indicator, Indicator]] = [
    (Length(), Length("someone/other-tokenizer")),
    (Length(columns=Columns("instruction", "output")), Length()),
    (MTLD(), MTLD(threshold=0.7)),
]

UNSCORABLE = [3, 8, 12]
"""Rows of ``rows()`` that hold no pair."""


def rows() -> dict[str, list[Any]]:
    """Good rows, equal rows, and rows without a pair; two columns that no indicator reads."""
    outputs = [
        "A bee visits a flower, takes nectar from it, and carries the nectar home to the hive.",
        "Rain falls because warm air rises, cools, and can hold less and less water.",
        "yes",
        "",
        "Öffne die Tür, schließe das Fenster – und geh.",
        "one two one two one two one two one two",
        "A bee visits a flower, takes nectar from it, and carries the nectar home to the hive.",
        "1, 2, 3: 42!",
        None,
        "def add(a, b):\n    return a + b",
        "word " * 700,
        "花は美しい。",
        " \n ",
        "First measure the flour, then the sugar, then the salt; first things first.",
        "yes",
        "The end.",
    ]
    return {
        "instruction": [f"Answer question {i % 6} in a sentence." for i in range(len(outputs))],
        "output": outputs,
        "id": list(range(len(outputs))),
        "tags": [["a", str(i)] for i in range(len(outputs))],
    }


INDICATORS += [
    (Similarity(), Similarity(embedder=Embedder(max_tokens=64))),
    (KNNDistance().fit(Dataset.from_dict(rows())), KNNDistance(text="both").fit(Dataset.from_dict(rows()))),
    (Quality(), Quality(embedder=Embedder(device="cpu"))),
    (TargetSimilarity(targets=[("a", "yes"), ("b", "no")]), TargetSimilarity(targets=[("a", "yes"), ("b", "never")])),
]

FUNCTIONS: list[Any] = [*(indicator for indicator, _ in INDICATORS), InstructMining("embedded")]
"""What people hand to ``map``: the indicators, and a rule with its own."""

FEATURES = Features(
    {
        "instruction": Value("string"),
        "output": Value("string"),
        "id": Value("int32"),
        "tags": List(Value("string")),
    }
)

each_indicator = pytest.mark.parametrize(
    ("indicator", "changed"),
    INDICATORS,
    ids=[f"{i}-{type(pair[0]).__name__}" for i, pair in enumerate(INDICATORS)],
)


@pytest.fixture
def dataset() -> Dataset:
    return Dataset.from_dict(rows(), features=FEATURES)


def values(scored: Any, indicator: Indicator) -> dict[str, list[float]]:
    """The written columns of a scored dataset, NaN for the null that Arrow may make of it."""
    scored = list(scored)
    return {name: [math.nan if r[name] is None else r[name] for r in scored] for name in indicator.writes}


def same(left: dict[str, list[float]], right: dict[str, list[float]]) -> bool:
    """Bit for bit, NaN equal to NaN."""
    return left.keys() == right.keys() and all(
        np.array_equal(np.array(left[name]), np.array(right[name]), equal_nan=True) for name in left
    )


def pick(all_values: dict[str, list[float]], chosen: list[int]) -> dict[str, list[float]]:
    return {name: [column[row] for row in chosen] for name, column in all_values.items()}


@each_indicator
def test_call_writes_one_float_per_row_in_range(indicator: Indicator, changed: Indicator) -> None:
    written = indicator(rows())
    assert tuple(written) == indicator.writes
    for name, column in written.items():
        assert len(column) == len(rows()["id"])
        assert all(type(value) is float for value in column)
        assert [math.isnan(column[row]) for row in UNSCORABLE] == [True] * len(UNSCORABLE)
        assert any(not math.isnan(value) for value in column)
        assert all(COLUMNS[name].low <= value <= COLUMNS[name].high for value in column if not math.isnan(value))


@each_indicator
def test_call_leaves_its_batch_alone(indicator: Indicator, changed: Indicator) -> None:
    batch = rows()
    before = copy.deepcopy(batch)
    indicator(batch)
    assert batch == before


@each_indicator
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_map_gives_the_same_values_at_any_batch_size(
    indicator: Indicator, changed: Indicator, dataset: Dataset, batch_size: int
) -> None:
    scored = dataset.map(indicator, batched=True, batch_size=batch_size)
    assert same(values(scored, indicator), indicator(rows()))


@each_indicator
def test_map_leaves_input_columns_and_features_untouched(
    indicator: Indicator, changed: Indicator, dataset: Dataset
) -> None:
    scored = dataset.map(indicator, batched=True)
    assert scored.column_names == [*dataset.column_names, *indicator.writes]
    assert scored.select_columns(dataset.column_names).features == FEATURES
    assert scored.select_columns(dataset.column_names).to_dict() == rows()
    assert all(scored.features[name] == Value("float64") for name in indicator.writes)


@each_indicator
def test_map_works_on_a_shuffled_and_filtered_dataset(
    indicator: Indicator, changed: Indicator, dataset: Dataset
) -> None:
    some = dataset.shuffle(seed=1).filter(lambda row: row["id"] % 3 != 0)
    scored = some.map(indicator, batched=True, batch_size=3)
    assert same(values(scored, indicator), pick(indicator(rows()), some["id"][:]))


@each_indicator
def test_map_works_with_remove_columns(indicator: Indicator, changed: Indicator, dataset: Dataset) -> None:
    scored = dataset.map(indicator, batched=True, remove_columns=dataset.column_names)
    assert scored.column_names == list(indicator.writes)
    assert same(values(scored, indicator), indicator(rows()))


@each_indicator
def test_map_works_on_an_iterable_dataset(indicator: Indicator, changed: Indicator, dataset: Dataset) -> None:
    scored = list(dataset.to_iterable_dataset(num_shards=2).map(indicator, batched=True, batch_size=5))
    assert same(values(scored, indicator), indicator(rows()))
    assert [row["id"] for row in scored] == rows()["id"]


@each_indicator
def test_map_passes_a_rank(indicator: Indicator, changed: Indicator, dataset: Dataset) -> None:
    scored = dataset.map(indicator, batched=True, with_rank=True)
    assert same(values(scored, indicator), indicator(rows()))


@each_indicator
def test_call_on_a_batch_without_pairs_is_nan(indicator: Indicator, changed: Indicator) -> None:
    batch = {"instruction": ["a", None], "output": ["", None]}
    assert all(np.isnan(column).all() and len(column) == 2 for column in indicator(batch).values())
    assert indicator({"instruction": [], "output": []}) == {name: [] for name in indicator.writes}


@each_indicator
@pytest.mark.parametrize("pickler", [pickle, dill])
def test_pickle_keeps_the_settings(indicator: Indicator, changed: Indicator, pickler: Any) -> None:
    copied = pickler.loads(pickler.dumps(indicator))
    assert copied == indicator
    assert copied.settings() == indicator.settings()
    assert same(copied(rows()), indicator(rows()))


@each_indicator
def test_hash_is_that_of_the_settings_alone(
    indicator: Indicator, changed: Indicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Hasher.hash(indicator)
    indicator(rows())
    assert Hasher.hash(indicator) == before
    assert Hasher.hash(changed) != before
    monkeypatch.setattr(type(indicator), "version", "another")
    assert Hasher.hash(indicator) != before


@each_indicator
def test_indicator_is_frozen(indicator: Indicator, changed: Indicator) -> None:
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        setattr(indicator, fields(indicator)[0].name, None)


PROBE = """
import json, pickle, sys
from pathlib import Path
import numpy as np
from datasets import load_from_disk
from datasets.fingerprint import Hasher
from im_datasets.indicators.base import Indicator

folder, pickled = map(Path, sys.argv[1:])
calls = 0
score_pairs = Indicator.score_pairs

def counted(self, pairs):
    global calls
    calls += 1
    return score_pairs(self, pairs)

def run(indicator, batch_size=4, **options):
    global calls
    calls, files = 0, set(folder.glob("cache-*"))
    scored = load_from_disk(folder).map(indicator, batched=True, batch_size=batch_size, **options)
    columns = {name: [str(value) for value in scored[name]] for name in indicator.writes}
    return {"calls": calls, "files": len(set(folder.glob("cache-*")) - files), "values": columns}

Indicator.score_pairs = counted
found = []
for indicator in pickle.loads(pickled.read_bytes()):
    seen = {"hash": Hasher.hash(indicator), "map": run(indicator)}
    # Another batch size, since the number of processes is no part of the cache key.
    seen["two"] = run(indicator, batch_size=3, num_proc=2)
    versioned = type(getattr(indicator, "indicators", [indicator])[0])
    version, versioned.version = versioned.version, "another"
    seen["version"] = run(indicator)
    versioned.version = version
    found.append(seen)
print(json.dumps(found))
"""


def probe(folder: Path, pickled: Path) -> list[dict[str, Any]]:
    """Score in a new process: in it, after it with two more, and with another version of the class."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder), str(pickled)],
        stdout=subprocess.PIPE,
        timeout=300,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "random"},
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What a first and a second process saw, for each indicator."""
    folder, pickled = tmp_path_factory.mktemp("dataset"), tmp_path_factory.mktemp("pickle") / "indicators"
    Dataset.from_dict(rows(), features=FEATURES).save_to_disk(folder)
    pickled.write_bytes(pickle.dumps(FUNCTIONS))
    return list(zip(probe(folder, pickled), probe(folder, pickled), strict=True))


@pytest.fixture(params=range(len(FUNCTIONS)), ids=[type(function).__name__ for function in FUNCTIONS])
def place(request: pytest.FixtureRequest) -> int:
    return request.param


def test_hash_is_the_same_in_every_process(probed: Any, place: int) -> None:
    first, second = probed[place]
    assert first["hash"] == second["hash"] == Hasher.hash(FUNCTIONS[place])


def test_cache_is_hit_by_an_identical_call_in_a_new_process(probed: Any, place: int) -> None:
    first, second = probed[place]
    assert (first["map"]["calls"], first["map"]["files"]) == (4, 1)
    assert (second["map"]["calls"], second["map"]["files"]) == (0, 0)
    assert second["map"]["values"] == first["map"]["values"]


def test_cache_is_missed_when_the_version_changes(probed: Any, place: int) -> None:
    first, _ = probed[place]
    assert (first["version"]["calls"], first["version"]["files"]) == (4, 1)


def test_map_with_two_processes_gives_the_same_values(probed: Any, place: int) -> None:
    first, _ = probed[place]
    indicator = FUNCTIONS[place]
    assert first["two"]["files"] == 2
    assert first["two"]["values"] == {
        name: [str(value) for value in column] for name, column in indicator(rows()).items()
    }


def test_map_of_a_rule_works_with_remove_columns(dataset: Dataset) -> None:
    score_fn = InstructMining("embedded")
    scored = dataset.map(score_fn, batched=True, batch_size=5, remove_columns=dataset.column_names)
    assert scored.column_names == list(score_fn.writes) == ["im_quality", "im_log_loss", "im_unscorable"]
    expected = score_fn(rows())
    assert all(list(map(str, scored[name])) == list(map(str, expected[name])) for name in score_fn.writes)
    assert [bool(reason) for reason in scored["im_unscorable"]] == [row in UNSCORABLE for row in range(len(dataset))]


def test_hash_of_a_rule_is_that_of_its_settings(dataset: Dataset) -> None:
    score_fn = InstructMining("embedded")
    before = Hasher.hash(score_fn)
    score_fn(rows())
    assert Hasher.hash(score_fn) == before == Hasher.hash(InstructMining("embedded"))
    assert Hasher.hash(InstructMining("embedded", columns=Columns("instruction", "output"))) != before
    assert Hasher.hash(InstructMining("embedded", indicators=[MTLD()])) != before


def test_cache_is_missed_when_a_setting_changes(tmp_path: Path) -> None:
    Dataset.from_dict(rows(), features=FEATURES).save_to_disk(tmp_path)
    for count, threshold in enumerate((0.72, 0.72, 0.7), 1):
        from datasets import load_from_disk

        load_from_disk(tmp_path).map(MTLD(threshold), batched=True)
        assert len(list(tmp_path.glob("cache-*"))) == max(1, count - 1)
