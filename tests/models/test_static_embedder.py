"""Static encoders: hand-worked means, the same bits in any company, distilled once, clear failures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import ModelError, OutputError
from im_datasets.models import embedder as embedding
from im_datasets.models import static_embedder as static
from im_datasets.models.embedder import Embedder
from im_datasets.models.meter import metering
from im_datasets.models.static_embedder import StaticEncoder, is_static, load_static, static_folder

WORDS = ["[PAD]", "[UNK]", "a", "fruit", "name", "apple", "an", "is"]
TABLE = np.array([[9, 9], [0, -2], [3, 0], [0, 4], [-1, 1], [6, 8], [1, 0], [-3, 0]], dtype=np.float32)


def write_model(path: Path, **tensors: np.ndarray) -> Path:
    """A static model of these words, as model2vec writes it."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(max_length=3)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path / "tokenizer.json"))
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "model2vec", "normalize": true}')
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static model of eight words and two dimensions."""
    return write_model(tmp_path_factory.mktemp("static"), embeddings=TABLE)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of vectors."""
    monkeypatch.setattr(embedding, "_CACHE", embedding._Cache())


def test_vector_is_the_mean_of_the_tokens_at_length_one(folder):
    vectors = Embedder(model=str(folder)).embed(["A fruit", "apple", "an APPLE an"])
    # (3, 0) + (0, 4) is (3, 4), of length 5; (6, 8) is of length 10; (1, 0) + (6, 8) + (1, 0) = (8, 8).
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.6, 0.8], [0.5**0.5, 0.5**0.5]], rtol=1e-7)
    assert vectors.dtype == np.float32


def test_text_without_a_known_token_is_the_unknown_one(folder):
    # Nothing, only unknown words, and words that cancel out: (3, 0) + (−3, 0).
    vectors = Embedder(model=str(folder)).embed(["", "mango", "a is", "\ud800"])
    assert vectors.tolist() == [[0, -1]] * 4


def test_unknown_words_do_not_count_beside_known_ones(folder):
    vectors = Embedder(model=str(folder)).embed(["a mango fruit", "a fruit"])
    assert np.array_equal(vectors[0], vectors[1])


def test_nothing_is_cut_unless_asked(folder):
    encoded = Embedder(model=str(folder)).encode(["a " * 40 + "fruit " * 40, "a fruit"])
    assert encoded.truncated.tolist() == [False, False]
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[1], rtol=1e-6)
    encoded = Embedder(model=str(folder), max_tokens=3).encode(["a a a fruit", "a fruit"])
    assert encoded.truncated.tolist() == [True, False]
    assert encoded.vectors[0].tolist() == [1, 0]


@given(
    st.lists(st.lists(st.sampled_from(WORDS[2:]), max_size=9).map(" ".join), min_size=1, max_size=9), st.integers(1, 5)
)
def test_vectors_have_the_same_bits_in_any_company(folder, texts, size):
    encoder = load_static(folder)
    alone = np.concatenate([encoder.run([text]).values for text in texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static, "SLICE", size)
        assert np.array_equal(encoder.run(texts).values, alone)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_vectors_agree_with_model2vec(folder):
    from model2vec import StaticModel

    texts = ["name a fruit", "an apple is a fruit", "a mango"]
    model = StaticModel.from_pretrained(folder)
    np.testing.assert_allclose(load_static(folder).run(texts).values, model.encode(texts, max_length=None), atol=1e-6)


def test_load_static_reads_weights_and_mapped_tokens(tmp_path):
    mapping = np.array([0, 1, 2, 2, 4, 5, 6, 7])
    write_model(tmp_path, embeddings=TABLE, weights=np.arange(1, 9, dtype=np.float32), mapping=mapping)
    # "fruit" has the vector of "a", (3, 0), with the fourth weight.
    assert load_static(tmp_path).table[3].tolist() == [12, 0]


def test_folder_without_vectors_is_one_clear_error(tmp_path):
    write_model(tmp_path, other=TABLE)
    with pytest.raises(ModelError, match=r"could not be loaded \(its model\.safetensors holds \['other'\] and no em"):
        Embedder(model=str(tmp_path)).embed(["a"])


def test_nothing_goes_into_the_store(folder, monkeypatch):
    monkeypatch.setattr(embedding, "compute", lambda *_, **__: pytest.fail("asked the store"))
    with metering() as meter:
        Embedder(model=str(folder)).embed(["a fruit", "a fruit", "an apple"])
    assert (meter.computed, meter.tokens, meter.reused) == (2, 4, 0)


def test_describe_and_weights_name_the_files(folder):
    embedder = Embedder(model=str(folder))
    assert embedder.describe() == {
        "id": folder.name,
        "revision": embedder.weights(),
        "dtype": "float32",
        "device": "cpu",
    }
    assert embedder.weights().startswith("sha256:")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype 'bfloat16' with a static model, which is a table of float32; leave dtype out"),
        ({"device": "cuda"}, "device 'cuda' with a static model, which only runs on the CPU; leave device out"),
        ({"max_tokens": 2}, "max_tokens=2 leaves no room for text"),
    ],
)
def test_settings_that_mean_nothing_are_refused(folder, settings, message):
    with pytest.raises(ModelError, match=message):
        Embedder(model=str(folder), **settings).embed(["a"])


def test_is_static_tells_by_the_configuration(folder, tmp_path):
    assert is_static(folder)
    assert not is_static(tmp_path)
    for text in ("{}", "[]", "{", '{"model_type": "bert"}'):
        (tmp_path / "config.json").write_text(text)
        assert not is_static(tmp_path)


def write_whole(folder):
    """What stands for a distilled model."""
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"12")
    (folder / "config.json").write_text(
        '{"model_type": "model2vec", "bytes": {"model.safetensors": 2, "tokenizer.json": 2}}'
    )


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_static_model_that_is_torn_is_made_again(tmp_path, monkeypatch, file):
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr(static, "distil", lambda source, folder, width: write_whole(folder))
    (static_folder() / file).write_bytes(b"1")
    made = static_folder()
    assert [(made / name).stat().st_size for name in ("model.safetensors", "tokenizer.json")] == [2, 2]
    assert is_static(made)
    (made / file).unlink()
    assert (static_folder() / file).is_file()


def test_static_model_clears_what_killed_attempts_left(tmp_path, monkeypatch):
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr(static, "distil", lambda source, folder, width: write_whole(folder))
    made = static_folder()
    (made / "config.json").unlink()
    left = made.with_name(f".{made.name}.0123abcd.part")
    (left / "new").mkdir(parents=True)
    (left / "new" / "model.safetensors").write_bytes(b"1")
    assert static_folder() == made
    assert not left.exists()


def test_static_model_on_a_full_disk_is_one_clear_error(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr(static, "embedded_model_folder", lambda: (tiny_bert, ""))
    monkeypatch.setattr(static, "WIDTH", 4)
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(static.os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write the static model to .*No space left.*40 MiB of room"):
        static_folder()
    assert not [path for path in (tmp_path / "static").iterdir() if path.is_dir()]


def test_static_model_is_made_once_and_appears_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    made = []

    def distil(source, folder, width):
        made.append(width)
        assert not any(is_static(path) for path in folder.parent.iterdir() if not path.name.startswith("."))
        write_whole(folder)

    monkeypatch.setattr(static, "distil", distil)
    assert static_folder() == static_folder()
    assert made == [256]
    assert [path.name for path in (tmp_path / "static").iterdir() if path.is_dir()] == [static_folder().name]


def test_static_model_that_failed_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))

    def distil(source, folder, width):
        (folder / "config.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(static, "distil", distil)
    with pytest.raises(OutputError, match=r"cannot write the static model to .*No space left.*40 MiB of room"):
        static_folder()
    assert not [path for path in (tmp_path / "static").iterdir() if path.is_dir()]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded BERT of eleven tokens and eight dimensions."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[2:]]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(path)
    Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")).save(
        str(path / "tokenizer.json")
    )
    return path


def test_distil_gives_each_token_its_own_weighted_vector(tiny_bert, tmp_path):
    """Whole width, so that the principal components are a turn: distances between tokens must stay."""
    import torch
    from safetensors.numpy import load_file
    from transformers import BertModel

    static.distil(tiny_bert, tmp_path, 8)
    table = load_file(tmp_path / "model.safetensors")["embeddings"]
    model = BertModel.from_pretrained(tiny_bert, add_pooling_layer=False).eval()
    tokens = [2, *range(6, 12)]
    with torch.inference_mode():
        alone = [model(torch.tensor([[3, token, 4]])).last_hidden_state[0].mean(0).double().numpy() for token in tokens]
    expected = np.stack(alone) - np.mean(alone, axis=0)
    shares = np.array([1 / place for place in range(2, 9)])
    weights = 1e-4 / (1e-4 + shares / shares.sum())
    found = table[tokens].astype(np.float64) / weights[:, None]
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4 * np.abs(expected).max() ** 2)
    assert not table[[0, 1, 3, 4, 5]].any()
    np.testing.assert_allclose(load_static(tmp_path).fallback, table[2] / np.linalg.norm(table[2]), rtol=1e-6)


def test_distil_twice_gives_the_same_bytes(tiny_bert, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        static.distil(tiny_bert, tmp_path / name, 4)
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert load_static(tmp_path / "a").width == 4


PARTS = """
import hashlib
import numpy as np
from im_datasets.models.static_embedder import principal_parts
print(hashlib.sha256(principal_parts(np.random.default_rng(0).normal(size=(600, 256)), 100).tobytes()).hexdigest())
"""


def test_principal_parts_are_the_same_on_any_number_of_threads():
    def parts(threads: str) -> str:
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", PARTS]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert parts("1") == parts("2") != ""


@pytest.mark.slow
@pytest.mark.xdist_group("static")
def test_distilled_model_points_where_minilm_does():
    """The real one: made offline from the packaged MiniLM, once for all tests of its group."""
    embedding._load.cache_clear()
    static_embedder = Embedder(model="static")
    texts = ["Name three fruits.", "Apples, pears and plums.", "How do I boil an egg?", "Put it in hot water."]
    vectors = static_embedder.embed(texts)
    assert vectors.shape == (4, 256)
    closeness = vectors @ vectors.T
    assert closeness[0, 1] > max(closeness[0, 2], closeness[0, 3])
    assert closeness[2, 3] > max(closeness[1, 2], closeness[0, 3])
    words = ["king", "queen", "doctor", "nurse", "monday", "friday", "apple", "pear"]
    near = static_embedder.embed(words) @ static_embedder.embed(words).T - 2 * np.eye(8)
    assert near.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert static_embedder.describe()["revision"] == static_embedder.weights()
    assert isinstance(embedding._load(static_embedder).runner, StaticEncoder)
    embedding._load.cache_clear()
