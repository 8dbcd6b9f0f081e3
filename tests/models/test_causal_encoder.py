"""RDS+ against its definition: loops over one text at a time, in any company, at any length, for several models."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_rds import slow_vector
from tiny_models import END, SENTENCES, save_causal
from transformers import AutoTokenizer, BertConfig, BertLMHeadModel

from im_datasets.common.errors import ModelError
from im_datasets.models import embedder as embedding
from im_datasets.models.causal_encoder import weighted_mean
from im_datasets.models.embedder import Embedder
from im_datasets.models.value_store import using_store

POSITIONS = 128
TEXTS = [
    *SENTENCES,
    "x",
    "",
    "Name a fruit.\n\nAn apple.",
    "User: Say hello.\n\nAssistant: Hi.\n\nUser: Again.\n\nHello again.",
    "Name a fruit.\n\nAn apple.",
    "a much longer answer, which goes on and on and on, " * 20,
    "花は美しい。",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kinds = ("gpt2", "llama", "gpt_neox", "gemma2")
    return {kind: str(save_causal(tmp_path_factory.mktemp(kind), kind, positions=POSITIONS)) for kind in kinds}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vectors from an earlier test."""
    monkeypatch.setattr(embedding, "_CACHE", embedding._Cache())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_vectors_are_those_of_the_definition(kind, folders):
    vectors = Embedder(folders[kind], kind="causal").embed(TEXTS)
    expected = np.array([slow_vector(folders[kind], text, POSITIONS) for text in TEXTS])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=2e-5)


def test_weighted_mean_by_hand():
    # Weights 1/6, 2/6, 3/6 of (6, 0), (0, 6), (2, 2): (1 + 1, 2 + 1) = (2, 3); of the first two alone (2, 4).
    states = torch.tensor([[[6.0, 0.0], [0.0, 6.0], [2.0, 2.0]]] * 2)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    expected = np.array([[2, 3], [2, 4]]) / np.sqrt([[13], [20]])
    np.testing.assert_allclose(weighted_mean(states, mask).numpy(), expected, rtol=1e-6)


def test_an_over_long_text_loses_its_end_and_is_counted(folders):
    embedder = Embedder(folders["gpt2"], kind="causal", max_tokens=20)
    texts = [*TEXTS, *("x" * length for length in range(1, 40))]
    encoded = embedder.encode(texts)
    expected = np.array([slow_vector(folders["gpt2"], text, limit=20) for text in texts])
    np.testing.assert_allclose(encoded.vectors, expected, atol=2e-5)
    # With the end token, which is what a text of twenty loses first.
    lengths = [len(ids) + 1 for ids in AutoTokenizer.from_pretrained(folders["gpt2"])(texts)["input_ids"]]
    assert {20, 21} <= set(lengths)
    assert encoded.truncated.tolist() == [length > 20 for length in lengths]


def test_a_text_that_brings_its_end_token_gets_no_second_one(folders):
    embedder = Embedder(folders["gpt2"], kind="causal")
    one, other = embedder.embed(["An apple.", f"An apple.{END}"])
    assert np.array_equal(one, other)


@settings(max_examples=15)
@given(st.permutations(range(len(TEXTS))), st.integers(1, len(TEXTS)))
def test_a_vector_has_the_same_bits_in_any_company(folders, order, size):
    embedder = Embedder(folders["llama"], kind="causal")
    with using_store(None):
        embedding._CACHE = embedding._Cache()
        together = embedder.embed(TEXTS)
        embedding._CACHE = embedding._Cache()
        parts = [
            embedder.embed([TEXTS[i] for i in order[start : start + size]]) for start in range(0, len(order), size)
        ]
    assert np.array_equal(np.concatenate(parts), together[list(order)])


def test_vectors_are_kept_in_the_store_apart_from_those_of_sentences(folders, tmp_path, monkeypatch):
    embedder = Embedder(folders["gpt2"], kind="causal")
    with using_store(tmp_path):
        before = embedder.embed(TEXTS)
        monkeypatch.setattr(embedding, "_CACHE", embedding._Cache())
        monkeypatch.setattr("im_datasets.models.inference.BatchRunner.run", None)
        assert np.array_equal(embedder.embed(TEXTS), before)


def test_embedded_names_the_packaged_language_model():
    embedder = Embedder(kind="causal")
    assert embedder.weights() != Embedder().weights()
    assert embedder.weights().startswith("sha256:")


def test_a_model_that_looks_ahead_is_refused(folders, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folders["gpt2"])
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"looks ahead: it is not a causal language model; pass one, such as gpt2"):
        Embedder(str(tmp_path), kind="causal").embed(["a"])


def test_an_unknown_kind_is_refused():
    with pytest.raises(ModelError, match="kind 'static' is unknown; known: sentence, causal"):
        Embedder(kind="static")


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="none"):
        Embedder(str(tmp_path / "none"), kind="causal").embed(["a"])
