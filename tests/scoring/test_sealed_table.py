"""Sealed tables: what was written, or a clear error."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from im_datasets.common.errors import OutputError
from im_datasets.scoring.sealed_table import checksum, read_facts, read_sealed, seal

TABLE = pa.table({"a": [0.5, float("nan")], "text": ["", "none"]})


def test_seal_and_read_give_the_table_and_its_facts(tmp_path):
    pq.write_table(seal(TABLE, {"shard": 3}), tmp_path / "t.parquet")
    table, facts = read_sealed(tmp_path / "t.parquet")
    assert table.schema.metadata is None
    assert str(table.to_pylist()) == str(TABLE.to_pylist())
    assert facts["shard"] == 3
    assert read_facts(tmp_path / "t.parquet") == facts


@pytest.mark.parametrize(
    "other", [pa.table({"a": [0.5, 1.0], "text": ["", "none"]}), TABLE.rename_columns(["b", "text"])]
)
def test_read_refuses_a_table_under_the_seal_of_another(tmp_path, other):
    pq.write_table(other.replace_schema_metadata(seal(TABLE, {}).schema.metadata), tmp_path / "t.parquet")
    with pytest.raises(OutputError, match=r"t.parquet cannot be read \(it is damaged\); remove it and run the"):
        read_sealed(tmp_path / "t.parquet")


def test_read_refuses_a_table_without_a_seal_and_a_file_that_is_not_there(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    for read in (read_sealed, read_facts):
        for name in ("t.parquet", "none.parquet"):
            with pytest.raises(OutputError, match=f"{name} cannot be read"):
                read(tmp_path / name)


def test_checksum_tells_shapes_and_values_apart():
    arrays = [np.zeros((2, 3)), np.zeros((3, 2)), np.ones((2, 3)), np.zeros((0, 3)), np.zeros((0, 2))]
    assert len({checksum(array) for array in arrays}) == 5
