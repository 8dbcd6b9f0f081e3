"""partial_folder: beside the result, and removed by nobody but the run that is at it."""

from pathlib import Path

from filelock import FileLock

from im_datasets.scoring.shards import drop_partial, partial_folder


def test_partial_folder_lies_beside_what_a_link_leads_to(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert partial_folder(tmp_path / "link") == tmp_path.resolve() / ".there.partial"
    monkeypatch.chdir(tmp_path)
    assert partial_folder(Path("there/")) == tmp_path.resolve() / ".there.partial"


def test_drop_partial_leaves_what_another_run_is_at(tmp_path):
    partial = partial_folder(tmp_path / "out")
    partial.mkdir()
    (partial / "run.json").touch()
    with FileLock(partial / ".lock"):
        drop_partial(tmp_path / "out")
    assert (partial / "run.json").exists()
    drop_partial(tmp_path / "out")
    assert not partial.exists()
