"""What a request for a source refuses before anything is read."""

from pathlib import Path

import pytest
from datasets import Dataset

from im_datasets.common.errors import SourceError
from im_datasets.data.request import SourceRequest
from im_datasets.data.source import read_source

ROWS = Dataset.from_dict({"instruction": list("abc"), "output": list("xyz")})


@pytest.mark.parametrize("data", ["rows.jsonl", ROWS])
@pytest.mark.parametrize("limit", [0, -1])
def test_request_refuses_a_limit_below_one(data, limit):
    with pytest.raises(SourceError, match=f"limit is {limit}; it must be at least 1, or left out for all rows"):
        SourceRequest(data, limit=limit)


@pytest.mark.parametrize("data", ["", " ", Path(" ")])
def test_request_refuses_a_name_of_nothing(data):
    with pytest.raises(SourceError, match="the data has an empty name; pass a file, a folder"):
        SourceRequest(data)


@pytest.mark.parametrize(("limit", "rows"), [(None, 3), (2, 2), (9, 3)])
def test_read_source_takes_the_first_rows_of_a_dataset(limit, rows):
    source = read_source(SourceRequest(ROWS, limit=limit))
    assert source.dataset["output"][:] == list("xyz")[:rows]
    assert source.info == {
        "kind": "dataset",
        "fingerprint": source.dataset._fingerprint,
        "rows": rows,
        "limit": limit,
        "seed": None,
    }
