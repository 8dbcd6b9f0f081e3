"""Where models come from: id and revision → folder or commit; every failure one clear line."""

from pathlib import Path

import pytest

from im_datasets.models.hub_models import folder_digest


@pytest.mark.parametrize("name", ["modeling_own.py", "qwen.tiktoken", "weights.pth", "sub/vocab.bpe"])
def test_folder_digest_heeds_every_file_that_the_model_is_made_of(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a = 1")
    before = folder_digest(tmp_path)
    (tmp_path / name).write_text("a = 22")
    assert folder_digest(tmp_path) != before


@pytest.mark.parametrize("name", ["README.md", ".git/index", "__pycache__/a.pyc", ".gitattributes"])
def test_folder_digest_leaves_out_what_the_model_is_not_made_of(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = folder_digest(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a = 1")
    assert folder_digest(tmp_path) == before
