"""The folder that ``mine`` leaves: its card opens its files."""

from datasets import load_dataset
from report_sample import make_record, make_selection

from im_datasets.report.card_facts import CardFacts, missing_facts
from im_datasets.report.result_folder import write_card


def test_write_card_writes_card_and_figures_and_the_configs_open(tmp_path):
    selection = make_selection()
    selection.kept.to_parquet(tmp_path / "kept.parquet")
    selection.dropped.to_parquet(tmp_path / "dropped.parquet")
    path = write_card(selection, make_record(), tmp_path, CardFacts.of("mit"))
    assert path == tmp_path / "README.md"
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == [
        "README.md", "dropped.parquet", "figures/indicators.png", "figures/score_distribution.png", "kept.parquet",
    ]  # fmt: skip
    assert load_dataset(str(tmp_path), split="train").to_list() == selection.kept.to_list()
    assert len(load_dataset(str(tmp_path), "dropped", split="train")) == len(selection.dropped)


def test_write_card_tells_what_is_missing(tmp_path, caplog):
    with caplog.at_level("INFO", logger="im_datasets.report.result_folder"):
        write_card(make_selection(), make_record(), tmp_path, CardFacts.of("mit"))
    assert [record.getMessage() for record in caplog.records] == missing_facts("mit", None)


def written(folder, rows, keep):
    """A folder as ``mine`` writes it, over whatever is there."""
    selection = make_selection(rows, keep)
    folder.mkdir(exist_ok=True, parents=True)
    selection.kept.to_parquet(folder / "kept.parquet")
    selection.dropped.to_parquet(folder / "dropped.parquet")
    write_card(selection, make_record(), folder)
    return selection


def test_write_card_gives_the_rows_of_this_run_where_another_one_was_read_before(tmp_path):
    """Same name, same card but for the content: `datasets` looks at nothing else of a local folder."""
    for keep in (8, 9):
        selection = written(tmp_path / "mined", 24, keep)
        for name in ("kept", "dropped"):
            rows = load_dataset(str(tmp_path / "mined"), name, split="train")
            assert rows["im_row"][:] == getattr(selection, name)["im_row"][:]


def test_write_card_gives_the_rows_of_this_folder_where_one_of_its_name_was_read_before(tmp_path):
    for where, keep in (("a", 8), ("b", 9)):
        selection = written(tmp_path / where / "mined", 24, keep)
        assert load_dataset(str(tmp_path / where / "mined"), split="train")["im_row"][:] == selection.kept["im_row"][:]
