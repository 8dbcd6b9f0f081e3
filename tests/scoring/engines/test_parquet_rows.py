"""RowFiles: any rows of a dataset, from its Parquet files alone, as `datasets` reads them; never another file's."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from im_datasets.common.errors import SourceError
from im_datasets.data.source import load_source
from im_datasets.scoring.engines.parquet_rows import RowFiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 rows in two files, of row groups of 5 and of 4 rows."""
    path = tmp_path_factory.mktemp("rows")
    table = pa.table(
        {
            "n": range(23),
            "text": [f"row {n}" if n % 7 else None for n in range(23)],
            "messages": [[{"role": "user", "content": str(n)}] * (n % 3) for n in range(23)],
        }
    )
    pq.write_table(table[:13], path / "a.parquet", row_group_size=5)
    pq.write_table(table[13:], path / "b.parquet", row_group_size=4)
    return path


@pytest.fixture(scope="module")
def dataset(folder):
    files = sorted(map(str, folder.glob("*.parquet")))
    return load_dataset("parquet", data_files=files, split="train")


@pytest.fixture(scope="module")
def opened(folder, dataset):
    narrow = dataset.select_columns(["messages", "text"])
    return RowFiles.open(sorted(map(str, folder.glob("*.parquet"))), narrow.features)


def test_row_files_know_their_groups(opened):
    assert [file.groups for file in opened.files] == [(5, 5, 3), (4, 4, 2)]
    assert len(opened) == 23
    assert opened.longest_group == 5
    assert opened.are_here()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_span_is_as_datasets_reads_it(opened, dataset, data):
    start = data.draw(st.integers(0, 22))
    span = range(start, data.draw(st.integers(start + 1, 23)))
    expected = dataset.select_columns(["messages", "text"]).with_format("arrow")[span.start : span.stop]
    read = opened.read(span)
    assert read.schema.equals(opened.features.arrow_schema)
    assert read.to_pylist() == expected.to_pylist()
    assert Dataset(read).features == opened.features


def test_file_that_has_changed_is_refused(opened, folder, tmp_path):
    copy = tmp_path / "copy.parquet"
    copy.write_bytes((folder / "a.parquet").read_bytes())
    files = RowFiles.open([str(copy)], opened.features)
    pq.write_table(pq.read_table(folder / "b.parquet"), copy, row_group_size=5)
    with pytest.raises(SourceError, match=r"copy.parquet is not the file it was when the run began"):
        files.read(range(2))
    assert not files.are_here()


def test_file_that_cannot_be_read_is_one_clear_error(opened, tmp_path):
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 and no more")
    for path in (torn, tmp_path / "none.parquet"):
        with pytest.raises(SourceError, match=rf"cannot read .*{path.name} here: "):
            RowFiles.open([str(path)], opened.features)


def test_column_that_a_file_lacks_is_null(folder, opened, tmp_path):
    whole, bare, foreign = (str(tmp_path / name) for name in ("a.parquet", "b.parquet", "c.parquet"))
    table = pq.read_table(folder / "a.parquet")
    pq.write_table(table, whole)
    pq.write_table(table.select(["n", "text"]), bare)
    pq.write_table(table.select(["n"]), foreign)
    found = RowFiles.open([whole, bare, foreign], opened.features).read(range(11, 28))
    assert found.schema.equals(opened.features.arrow_schema)
    assert found["messages"].to_pylist() == [*table["messages"].to_pylist()[11:], *[None] * 15]
    assert found["text"].to_pylist() == ["row 11", "row 12", *table["text"].to_pylist(), None, None]


def test_hub_file_that_cannot_be_read_asks_for_the_token(hub):
    with pytest.raises(SourceError, match=r"cannot read hf://.*; if it is gated or private, set HF_TOKEN on every"):
        RowFiles.open(["hf://datasets/me/none/train.parquet"], Features({}))


def test_load_source_names_parquet_files_only_where_rows_are_theirs(folder, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    files = tuple(sorted(str(file.absolute()) for file in folder.glob("*.parquet")))
    assert load_source(folder).parquet == files
    assert load_source(folder, limit=3).parquet == files
    assert load_source(folder, limit=3, seed=1).parquet == ()
    assert load_source(tmp_path / "rows.jsonl").parquet == ()


def test_rows_of_a_hub_dataset_are_read_by_parts(hub, folder):
    files = {f"data/train-{n}.parquet": path.read_bytes() for n, path in enumerate(sorted(folder.glob("*.parquet")))}
    commit = hub.store.put("me/rows", files)
    source = load_source("me/rows")
    assert source.parquet == tuple(f"hf://datasets/me/rows@{commit.sha}/{name}" for name in sorted(files))
    rows = RowFiles.open(source.parquet, source.dataset.features)
    hub.requests.clear()
    assert rows.read(range(14, 16)).to_pylist() == source.dataset.select(range(14, 16)).to_list()
    assert not [request for request in hub.requests if Path(request.path).name == "train-0.parquet"]
