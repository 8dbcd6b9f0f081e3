import pyarrow.parquet as pq
import pytest
from datasets import Array2D, ClassLabel, Dataset, Features, List, Value, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.data import arrow as gathering
from im_datasets.data.arrow import laid_out

FEATURES = Features(
    {
        "text": Value("string"),
        "turns": List({"role": Value("string"), "content": Value("string")}),
        "kind": ClassLabel(names=["plain", "code"]),
        "grid": Array2D((2, 2), "float32"),
        "number": Value("float64"),
    }
)


def some_rows(count, first=0):
    rows = range(first, first + count)
    columns = {
        "text": [None if row % 7 == 3 else f"täxt {row} " * (row % 5) for row in rows],
        "turns": [[{"role": "user", "content": f"{row}"}] * (row % 3) for row in rows],
        "kind": [row % 2 for row in rows],
        "grid": [[[row, 1], [2, 3]] for row in rows],
        "number": [float("nan") if row % 4 == 1 else row / 3 for row in rows],
    }
    return Dataset.from_dict(columns, features=FEATURES)


@pytest.fixture(scope="module")
def in_pieces():
    """Three batches, with a column of another cut beside them."""
    beside = Dataset.from_dict({"beside": list(range(30))})
    rows = concatenate_datasets([some_rows(10), some_rows(15, first=10), some_rows(5, first=25)])
    return concatenate_datasets([rows, beside], axis=1)


def written(dataset, path):
    dataset.to_parquet(path)
    return pq.read_table(path)


@given(picked=st.lists(st.integers(0, 29), max_size=40), block=st.sampled_from([1, 300, 2**20]))
def test_rows_that_are_laid_out_are_those_the_library_writes(in_pieces, tmp_path_factory, picked, block):
    folder, picked_rows = tmp_path_factory.mktemp("out"), in_pieces.select(picked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "BLOCK_BYTES", block)
        with laid_out(picked_rows, folder) as lying:
            assert lying.features == picked_rows.features
            ours = written(lying, folder / "ours.parquet")
    theirs = written(picked_rows, folder / "theirs.parquet")
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    assert repr(ours.to_pylist()) == repr(theirs.to_pylist())
    assert ours["beside"].to_pylist() == picked


def test_removed_and_renamed_columns_stay_so(in_pieces, tmp_path):
    picked = in_pieces.select([20, 3, 3]).remove_columns(["turns", "grid"]).rename_column("text", "response")
    with laid_out(picked, tmp_path) as lying:
        assert lying.column_names == picked.column_names
        assert lying["response"][:] == picked["response"][:]


def test_rows_in_order_are_left_as_they_are(in_pieces, tmp_path):
    with laid_out(in_pieces, tmp_path) as lying:
        assert lying is in_pieces


def test_no_file_is_left_whatever_happens(in_pieces, tmp_path):
    with laid_out(in_pieces.select([5, 1]), tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyboardInterrupt), laid_out(in_pieces.select([5, 1]), tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
