"""Lengths against hand-counted tokens, transformers' own tokenizer, and every way a tokenizer can be missing."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from im_datasets.indicators.length import Length
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
