"""Local data files → rows: finding them, reading them, and saying what is wrong with them."""

from pathlib import Path

import pytest

from im_datasets.data.files import find_files


@pytest.mark.parametrize("mark", ["record.json", "instructmining.json"])
def test_find_files_parts_selected_rows_by_side(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).write_text("{}")
    names = (
        ["dropped/train-0.parquet", "kept/train-0.parquet"] if mark[0] == "i" else ["dropped.parquet", "kept.parquet"]
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_files(str(tmp_path)) == {"dropped": [tmp_path / names[0]], "kept": [tmp_path / names[1]]}
