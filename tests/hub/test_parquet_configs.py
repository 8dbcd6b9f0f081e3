"""What becomes a file: which columns, which rows, in how many shards, always the same bytes."""

from dataclasses import replace

import pytest
from datasets import Dataset, concatenate_datasets
from report_sample import make_record, make_selection

from im_datasets.common.errors import HubError
from im_datasets.hub.parquet_configs import added_columns, scores_table, write_data_files
from im_datasets.scoring.record import IndicatorRecord


def test_write_data_files_gives_the_same_bytes_again(tmp_path):
    first, second = (write_data_files(make_selection(), tmp_path / name, include_dropped=True) for name in "ab")
    assert first.files == second.files


def test_write_data_files_describes_every_shard(tmp_path):
    parts = write_data_files(make_selection(), tmp_path, shard_bytes=200)
    config = parts.configs["kept"]
    assert len(config.files) > 1
    assert config.files == sorted(parts.files)
    assert config.rows == sum(len(Dataset.from_parquet(str(tmp_path / path))) for path in config.files) == 8
    assert parts.infos["kept"].splits["train"].num_examples == 8


def test_write_data_files_refuses_two_rows_of_one_number(tmp_path):
    selection = make_selection()
    twice = concatenate_datasets([selection.kept, selection.kept.select([0])])
    with pytest.raises(HubError, match=r"two rows have the im_row .* select again"):
        write_data_files(replace(selection, kept=twice), tmp_path)
    assert not list(tmp_path.iterdir())


def test_added_columns_knows_those_of_an_own_indicator():
    selection = make_selection(extra={"my_score": ["x"] * 24})
    assert "my_score" not in added_columns(selection)
    own = IndicatorRecord("Mine", "1", ["my_score"], {})
    assert "my_score" in added_columns(replace(selection, record=make_record(indicators=[own])))


def test_scores_table_holds_every_row_once_and_no_text():
    selection = make_selection()
    table = scores_table(selection)
    assert sorted(table["im_row"][:]) == list(range(24))
    assert table["im_kept"][:] == [True] * 8 + [False] * 16
    assert table["im_reason"][:8] == [""] * 8
    assert not {"instruction", "output"} & set(table.column_names)


def test_scores_table_of_a_selection_that_dropped_nothing():
    selection = make_selection(3, 3, unscorable=0, duplicates=0)
    assert scores_table(selection)["im_kept"][:] == [True] * 3


def test_original_columns_alone_need_some(tmp_path):
    selection = make_selection()
    bare = replace(selection, kept=selection.kept.remove_columns(["instruction", "output"]))
    with pytest.raises(HubError, match="no column of the source is left"):
        write_data_files(bare, tmp_path, columns="original")


def test_images_lie_inside_the_shards_and_name_no_path(tmp_path):
    pytest.importorskip("PIL")
    from datasets import Image
    from PIL import Image as Picture

    Picture.new("RGB", (2, 2)).save(tmp_path / "secret-folder-name.png")
    selection = make_selection(1, 1, unscorable=0, duplicates=0)
    pictures = Dataset.from_dict({"image": [str(tmp_path / "secret-folder-name.png")]}).cast_column("image", Image())
    kept = concatenate_datasets([pictures, selection.kept], axis=1)
    parts = write_data_files(replace(selection, kept=kept), tmp_path / "out", media_from=tmp_path)
    content = (tmp_path / "out" / parts.configs["kept"].files[0]).read_bytes()
    assert str(tmp_path).encode() not in content
    assert Dataset.from_parquet(str(tmp_path / "out" / parts.configs["kept"].files[0]))[0]["image"].size == (2, 2)
