"""Parquet files that say more than they are."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Array2D, Dataset, Features, Image, Json, List, Value

from im_datasets.common.errors import UntrustedError
from im_datasets.data import parquet_bounds
from im_datasets.data.parquet_bounds import COMPRESSION, check_parquet

# In a process of its own: the peak of a pool is that of all before.
PEAK = """
import sys
from pathlib import Path
import pyarrow as pa
from im_datasets.data.parquet_bounds import check_parquet
try:
    check_parquet({"the file": Path(sys.argv[1])})
except ValueError as error:
    print(error)
print(pa.default_memory_pool().max_memory())
"""


@pytest.fixture
def small_floor(monkeypatch):
    monkeypatch.setattr(parquet_bounds, "FLOOR_BYTES", 2**20)


def repeated(value, times, kind=None):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, dtype=np.int32)), pa.array([value], kind))


def nested_dictionary():
    inner = repeated("x" * 1000, 10_000)
    return pa.ListArray.from_arrays([0, 10_000], inner)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ({"a": repeated("x" * 10_000, 1000)}, {}),
        ({"a": repeated(b"x" * 10_000, 1000)}, {}),
        ({"a": nested_dictionary()}, {}),
        ({"a": pa.StructArray.from_arrays([repeated("x" * 10_000, 1000)], ["b"])}, {}),
        ({"a": pa.array(np.zeros(1_000_000))}, {}),
        ({"a": pa.nulls(1_000_000)}, {}),
        ({"a": pa.array([[0] * 1_000_000])}, {}),
        ({"a": pa.array([[[]] * 1_000_000], pa.list_(pa.list_(pa.int8())))}, {}),
        ({"a": pa.array(["x" * 2_000_000])}, {"use_dictionary": False, "compression": "zstd"}),
    ],
    ids=["texts", "bytes", "in lists", "in structs", "numbers", "nulls", "one long list", "empty lists", "zstd"],
)
def test_check_parquet_refuses_what_comes_to_more_than_it_may(tmp_path, small_floor, table, options):
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table(table), path, **options)
    assert path.stat().st_size < 15_000
    with pytest.raises(UntrustedError, match=r"the file, .* would come to more than [0-9,]+ bytes"):
        check_parquet({"the file": path})


def test_check_parquet_holds_what_it_reads_in_memory_within_the_bound(tmp_path):
    path = tmp_path / "bomb.parquet"
    # Without Arrow's schema, by which every reader would keep the texts in their dictionary.
    pq.write_table(pa.table({"a": repeated("x" * 50_000, 50_000)}), path, store_schema=False)
    ended = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    message, peak = ended.stdout.splitlines()
    assert "would come to more than" in message
    # Written out, a batch of 4096 such texts takes 200 MB.
    assert 0 < int(peak) < 2**22


@pytest.mark.parametrize(
    ("table", "options", "match"),
    [
        ({f"c{n}": [1] for n in range(10_001)}, {}, "has 10,001 columns; more than 10,000"),
        ({"a": ["x"]}, {"compression": "zstd"}, "is compressed by ZSTD, which no push uses"),
        ({"a": ["x"]}, {"compression": "brotli"}, "is compressed by BROTLI"),
    ],
    ids=["columns", "zstd", "brotli"],
)
def test_check_parquet_refuses_what_no_push_writes(tmp_path, table, options, match):
    pq.write_table(pa.table(table), tmp_path / "x.parquet", **options)
    with pytest.raises(UntrustedError, match=match):
        check_parquet({"the file": tmp_path / "x.parquet"}, compression=COMPRESSION)


def test_check_parquet_refuses_types_of_others_and_metadata_that_is_too_deep(tmp_path):
    kind = pa.opaque(pa.binary(), "x\ny", "vendor")
    pq.write_table(pa.table({"a": pa.ExtensionArray.from_storage(kind, pa.array([b"x"]))}), tmp_path / "type.parquet")
    with pytest.raises(UntrustedError, match=r"the column 'a' of it is of the type arrow\.opaque, not read"):
        check_parquet({"it": tmp_path / "type.parquet"})
    deep = pa.table({"a": [1]}).replace_schema_metadata({"huggingface": "[" * 100_000})
    pq.write_table(deep, tmp_path / "deep.parquet")
    with pytest.raises(UntrustedError, match="what `datasets` wrote into it is nested deeper than 64"):
        check_parquet({"it": tmp_path / "deep.parquet"})


def test_check_parquet_passes_what_people_publish(tmp_path):
    features = Features(
        {
            "text": Value("string"),
            "large": Value("large_string"),
            "talk": List({"role": Value("string"), "content": Value("string")}),
            "json": Json(),
            "image": Image(),
            "grid": Array2D((2, 2), "float32"),
            "blob": Value("binary"),
            "flag": Value("bool"),
            "none": Value("null"),
            "when": Value("timestamp[s]"),
        }
    )
    row = {
        **{"text": "ä", "large": "b", "talk": [{"role": "user", "content": "x"}], "json": {"a": [1]}, "image": None},
        **{"grid": [[1.0, 2.0], [3.0, 4.0]], "blob": b"x", "flag": True, "none": None, "when": None},
    }
    rows = Dataset.from_list([row, {**row, "talk": [], "text": None, "json": None}] * 3000, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    check_parquet({"it": tmp_path / "rows.parquet"}, compression=COMPRESSION)
    assert Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path)).to_list() == rows.to_list()
    assert json.loads(pq.read_schema(tmp_path / "rows.parquet").metadata[b"huggingface"])


def test_check_parquet_counts_all_files_together(tmp_path, small_floor):
    files = {}
    for number in range(30):
        files[f"file {number}"] = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"a": repeated("x" * 100, 1000)}), files[f"file {number}"])
    check_parquet({"one": files["file 0"]})
    with pytest.raises(UntrustedError, match=r"file \d+, and what is read before it"):
        check_parquet(files)


@pytest.mark.parametrize("rows", [20_000, 700], ids=["one row group", "several row groups"])
def test_conversations_of_which_a_part_lies_in_a_dictionary_are_read(tmp_path, rows):
    turns = [
        [{"role": "user", "content": f"{n} " + "word " * 40}, {"role": "assistant", "content": "Yes."}]
        for n in range(7000)
    ]
    pq.write_table(
        pa.table({"messages": turns, "tags": [[str(n), "a"] for n in range(7000)]}), tmp_path / "a", row_group_size=rows
    )
    encodings = pq.read_metadata(tmp_path / "a").row_group(0).column(0).encodings
    assert "RLE_DICTIONARY" in encodings
    check_parquet({"a": tmp_path / "a"})
