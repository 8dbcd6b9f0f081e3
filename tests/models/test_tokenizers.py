"""A tokenizer's name → a function from texts to token ids; every failure one clear line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import ModelError
from im_datasets.models.hub_models import embedded_model_folder
from im_datasets.models.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def packaged_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded_model_folder()[0], local_files_only=True)


@given(texts=st.lists(st.text(), min_size=1, max_size=8))
def test_embedded_equals_transformers(packaged_tokenizer: Any, texts: list[str]) -> None:
    expected = packaged_tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    assert load_tokenizer("embedded")(texts) == expected


def test_load_tokenizer_keeps_one_per_name(tokenizer_folder: Path) -> None:
    assert load_tokenizer(str(tokenizer_folder)) is load_tokenizer(str(tokenizer_folder))


@pytest.mark.parametrize("name", ["embedded", "folder"])
def test_load_tokenizer_refuses_a_revision_where_there_is_none(name: str, tokenizer_folder: Path) -> None:
    with pytest.raises(ModelError, match="is not on the Hub and has no revision 'main'; leave revision out"):
        load_tokenizer(str(tokenizer_folder) if name == "folder" else name, "main")


def test_load_tokenizer_out_of_reach_says_so() -> None:
    with pytest.raises(ModelError, match=r"^someone/something is not in the local cache and the Hub is out of reach"):
        load_tokenizer("someone/something")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "could not be loaded"),
        ({"tokenizer.json": "{"}, "could not be loaded"),
        ({"tokenizer.json": "{}"}, "holds no readable tokenizer"),
        ({"tokenizer.json": '{"added_tokens": [], "model": {"type": "None"}}'}, "holds no readable tokenizer"),
        ({"config.json": '{"model_type": "bert"}'}, "holds no tokenizer .its vocabulary is empty"),
        (
            {"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["its.Own", null]}}'},
            "contains custom code",
        ),
    ],
)
def test_load_tokenizer_refuses_what_is_none(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "pass a model id of the Hub or a local folder" in str(caught.value)


def test_load_tokenizer_of_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="absent is no folder here"):
        load_tokenizer(str(tmp_path / "absent"))
