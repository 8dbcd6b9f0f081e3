"""Lengths against hand-counted tokens, transformers' own tokenizer, and every way a tokenizer can be missing."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import ModelError
from im_datasets.indicators.length import Length
from im_datasets.models.hub_models import embedded_model_folder
from im_datasets.models.tokenizers import load_tokenizer

LONG = "apple " * 5000


def lengths(indicator: Length, *texts: str) -> list[float]:
    scores = indicator({"instruction": ["x"] * len(texts), "output": list(texts)})
    return scores["im_output_length"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("An apple.", 3),  # an · apple · .
        ("unbelievable", 1),
        ("tokenization", 2),  # token · ##ization
        ("a[SEP]b", 3),  # a marker written in a text is one token
        (LONG, 5000),
    ],
)
def test_length_equals_the_hand_counted_tokens(text: str, expected: int) -> None:
    assert lengths(Length(), text) == [expected]


def test_call_counts_instruction_and_response_apart() -> None:
    batch = {"instruction": ["Name a fruit.", "Say more."], "output": ["An apple.", "Name a fruit."]}
    assert Length()(batch) == {"im_input_length": [4.0, 3.0], "im_output_length": [3.0, 4.0]}


def test_call_encodes_equal_texts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    tokenize = load_tokenizer("embedded", None)
    monkeypatch.setattr(
        "im_datasets.indicators.length.load_tokenizer",
        lambda *_: lambda texts: seen.extend(texts) or tokenize(texts),
    )
    Length()({"instruction": ["same", "same", "other"], "output": ["same", "third", "other"]})
    assert seen == ["same", "other", "third"]


@pytest.fixture(scope="module")
def packaged_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded_model_folder()[0], local_files_only=True)


@given(texts=st.lists(st.text(), min_size=1, max_size=8))
def test_embedded_equals_transformers(packaged_tokenizer: Any, texts: list[str]) -> None:
    expected = packaged_tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    assert load_tokenizer("embedded")(texts) == expected


def test_embedded_needs_neither_network_nor_transformers() -> None:
    program = (
        "import socket, sys\n"
        "socket.socket.connect = socket.getaddrinfo = None\n"
        "from im_datasets.models.tokenizers import load_tokenizer\n"
        "assert len(load_tokenizer('embedded')(['An apple.'])[0]) == 3\n"
        "assert 'transformers' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)


def test_local_tokenizer_counts_whole_texts_without_special_tokens(
    tokenizer_folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its files ask for 4 tokens at most, padding to 8, and [CLS] … [SEP]."""
    settings = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    assert settings["truncation"]["max_length"] == 4
    with caplog.at_level(logging.WARNING):
        assert lengths(Length(str(tokenizer_folder)), "an apple .", "name a fruit an apple .", LONG) == [
            3,
            6,
            5000,
        ]
    assert not caplog.records
    assert "Token indices" not in "".join(capfd.readouterr())


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
