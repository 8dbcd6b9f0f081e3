"""Static sentence encoders: a text's vector is the mean of its tokens' vectors, without any forward pass.

Such a model is a folder as model2vec writes it. ``"static"`` is the one that is distilled here from the packaged
MiniLM, offline, on first use, by the recipe of model2vec; it then lies in the cache folder for every process. (Its own
distillation asks for an older transformers.) How much it agrees with MiniLM stands in ``tests/benchmarks``.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im_datasets.common.errors import ModelError
from im_datasets.common.storage import cache_folder, made_once
from im_datasets.models.batching import Computed
from im_datasets.models.devices import one_thread_per_batch
from im_datasets.models.hub_models import EMBEDDED_SHA256, embedded_model_folder, quiet_loading
from im_datasets.models.meter import count, report
from im_datasets.models.tokenizers import plain_tokenizer

STATIC = "static"
"""The name of the model that is distilled from the packaged MiniLM."""

RECIPE = 2
"""Rises whenever the model is distilled in another way."""

WIDTH = 256
"""Principal components that are kept of MiniLM's 384 dimensions."""

SIF = 1e-4
"""Share of a token at which it counts half; the usual choice."""

TOKENS = 128
"""Tokens that go through the encoder at a time, each alone."""

MODEL, TOKENIZER = "model.safetensors", "tokenizer.json"
"""The files of a static model beside its ``config.json``."""

_MARKERS = re.compile(r"\[(PAD|CLS|SEP|MASK|unused\d+)\]")
"""Tokens that stand for nothing in a text."""

SLICE = 1024
"""Texts tokenised at a time."""


@dataclass(frozen=True, eq=False)
class StaticEncoder:
    """A loaded static model.

    Attributes:
        tokenizer: Of the `tokenizers` library; neither cuts nor pads.
        table: The weighted vector of each token, shape (tokens, width), float32; zeros for the token that stands for
            what the tokenizer does not know, which does not count.
        fallback: The unit vector of a text without any known token, shape (width,), float32.
        max_tokens: Tokens read of a text; None reads all.
    """

    tokenizer: Any
    table: NDArray[np.float32]
    fallback: NDArray[np.float32]
    max_tokens: int | None = None
    device: str = "cpu"

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.table.shape[1])

    def run(self, texts: Sequence[str]) -> Computed:
        """Unit vectors of some texts, shape (n, width), float32, and which of them were cut.

        A text's vector is the same whatever else is in the call. Runs on as many threads as torch has.
        """
        computed = Computed(np.empty((len(texts), self.width), dtype=np.float32), np.zeros(len(texts), dtype=np.bool_))

        def compute(start: int) -> int:
            part = slice(start, start + SLICE)
            computed.values[part], computed.truncated[part], tokens = self._embed(texts[part])
            return tokens

        with one_thread_per_batch("cpu") as workers, _plain_tokenizers(), ThreadPoolExecutor(workers) as pool:
            for number, tokens in enumerate(pool.map(compute, range(0, len(texts), SLICE)), start=1):
                done = min(number * SLICE, len(texts))
                count(tokens=tokens, computed=min(SLICE, len(texts) - (number - 1) * SLICE))
                report(done, len(texts))
        return computed

    def _embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[bool], int]:
        import torch

        # What is no character of its own, such as half of a pair, stops the tokenizer; it reads as a question mark.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(clean, add_special_tokens=False)]
        cut = [self.max_tokens is not None and len(one) > self.max_tokens for one in ids]
        if self.max_tokens is not None:
            ids = [one[: self.max_tokens] for one in ids]
        lengths = np.array([len(one) for one in ids], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(lengths.sum()))
        starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        with torch.inference_mode():
            table = torch.from_numpy(self.table)
            sums = torch.nn.functional.embedding_bag(torch.from_numpy(flat), table, starts, mode="sum").numpy()
        return self._unit(sums), cut, len(flat)

    def _unit(self, sums: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors = sums.astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        has_vector = lengths > 0
        unit = np.tile(self.fallback, (len(sums), 1))
        unit[has_vector] = vectors[has_vector] / lengths[has_vector, None]
        return unit


@contextmanager
def _plain_tokenizers() -> Iterator[None]:
    """Let a tokenizer run in the thread that calls it: threads of its own inside ours would only wait."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def is_static(folder: Path) -> bool:
    """Whether a folder holds a static model, by its ``config.json``."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "model2vec"


def load_static(folder: Path, max_tokens: int | None = None) -> StaticEncoder:
    """Open a folder that model2vec wrote; needs nothing of model2vec.

    Raises:
        OSError, ValueError, SafetensorError: The folder holds no static model.
    """
    from safetensors.numpy import load_file

    tensors = load_file(folder / MODEL)
    text = (folder / TOKENIZER).read_text(encoding="utf-8")
    tokenizer = plain_tokenizer(text)
    if "embeddings" not in tensors:
        raise ValueError(f"its {MODEL} holds {sorted(tensors)} and no embeddings")
    table = tensors["embeddings"].astype(np.float64)
    if "mapping" in tensors:
        table = table[tensors["mapping"]]
    if "weights" in tensors:
        table = table * tensors["weights"].astype(np.float64)[:, None]
    unknown = _unknown(json.loads(text)["model"], tokenizer)
    # Without such a token any direction will do, so long as it is the same each time.
    vector = table[unknown] if unknown is not None and table[unknown].any() else np.eye(1, table.shape[1])[0]
    fallback = (vector / np.linalg.norm(vector)).astype(np.float32)
    if unknown is not None:
        table[unknown] = 0
    return StaticEncoder(tokenizer, np.ascontiguousarray(table, dtype=np.float32), fallback, max_tokens)


def _unknown(model: dict[str, Any], tokenizer: Any) -> int | None:
    """The token that stands for what a tokenizer does not know."""
    if (number := model.get("unk_id")) is not None:
        return int(number)
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


def static_folder() -> Path:
    """The folder of the model distilled from the packaged MiniLM, made when it is first asked for.

    Raises:
        ModelError: The packaged MiniLM is missing.
        OutputError: The cache folder cannot be written.
    """
    folder = cache_folder() / "static" / f"minilm-{EMBEDDED_SHA256[:12]}-{WIDTH}-{RECIPE}"
    if _is_whole(folder):
        return folder
    source = embedded_model_folder()[0]
    return made_once(folder, lambda empty: distil(source, empty, WIDTH), "the static model", 40, _is_whole)


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds all of a model that ``distil`` wrote: its ``config.json``, written last, has the sizes."""
    if not is_static(folder):
        return False
    try:
        sizes = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("bytes") or {}
        return set(sizes) == {MODEL, TOKENIZER} and all((folder / n).stat().st_size == sizes[n] for n in sizes)
    except OSError:
        return False


def distil(source: Path, folder: Path, width: int) -> None:
    """Distil a BERT encoder into a static model, as model2vec does; half a minute of one core for MiniLM.

    Every token of the vocabulary goes through the encoder alone. Its vector is centred, turned to the principal
    components of all, and weighted by how rare the token is, which its place in the vocabulary tells by Zipf's law
    (SIF, Arora, Liang and Ma 2017). Nothing is drawn at random, every batch goes through the encoder on one thread, and
    so do the principal components: the same versions on the same kind of processor give the same bytes, however many
    cores and threads there are.

    Args:
        source: Folder of the encoder, with ``tokenizer.json``.
        folder: Where the static model is written.
        width: Principal components to keep.

    Raises:
        OSError: The folder cannot be written.
    """
    from safetensors.numpy import save

    tokenizer = plain_tokenizer((source / TOKENIZER).read_text(encoding="utf-8"))
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = np.array([number for token, number in vocabulary if not _MARKERS.fullmatch(token)])
    parts = principal_parts(_alone(source, tokens, tokenizer), width)
    table = np.zeros((len(vocabulary), parts.shape[1]), dtype=np.float32)
    table[tokens] = parts * rarity(len(tokens))[:, None]
    files = {MODEL: save({"embeddings": table}), TOKENIZER: tokenizer.to_str(pretty=True).encode()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    sizes = {name: len(content) for name, content in files.items()}
    config = {"model_type": "model2vec", "normalize": True, "apply_pca": width, "sif_coefficient": SIF, "bytes": sizes}
    # Last: its sizes say that the other files are whole.
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _alone(source: Path, tokens: NDArray[np.int64], tokenizer: Any) -> NDArray[np.float64]:
    """The mean state of each token between the markers of beginning and end: shape (len(tokens), hidden size)."""
    import torch
    from transformers import BertModel

    with quiet_loading(), one_thread_per_batch("cpu"), torch.inference_mode():
        model: Any = BertModel.from_pretrained(source, local_files_only=True, add_pooling_layer=False)
        model = model.eval()
        begin, end = (tokenizer.token_to_id(marker) for marker in ("[CLS]", "[SEP]"))
        ids = torch.from_numpy(np.stack([np.full_like(tokens, begin), tokens, np.full_like(tokens, end)], axis=1))
        batches = torch.split(ids, TOKENS)
        states = [model(input_ids=batch).last_hidden_state.double().mean(1) for batch in batches]
        vectors: NDArray[np.float64] = torch.cat(states).numpy()
    return vectors


def principal_parts(vectors: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Vectors about their mean along the directions in which they spread most: shape (n, min(width, dimensions)).

    On one thread: how BLAS and LAPACK add up, and so the last bits, depends on the number of theirs.

    Example:
        >>> principal_parts(np.array([[1.0, 5.0], [3.0, 5.0]]), 1).tolist()
        [[-1.0], [1.0]]
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        centred = vectors - vectors.mean(axis=0)
        _, directions = np.linalg.eigh(centred.T @ centred)
        directions = directions[:, ::-1][:, :width]
        # An eigenvector may point either way: its largest number is made positive.
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
        parts: NDArray[np.float64] = centred @ (directions * np.sign(largest))
    return parts


def rarity(tokens: int) -> NDArray[np.float64]:
    """What each of some tokens, the most frequent first, counts: shape (tokens,), in (0, 1).

    Example:
        >>> rarity(2).round(6).tolist()  # Zipf's shares from the second place on: 1/2 and 1/3 of 5/6
        [0.000167, 0.00025]
    """
    shares = 1 / np.arange(2, tokens + 2)
    shares /= shares.sum()
    return SIF / (SIF + shares)


def check_settings(dtype: str, device: str | None) -> None:
    """Refuse what a static model has no use for.

    Raises:
        ModelError: Another dtype than float32, or another device than the CPU.
    """
    if dtype != "float32":
        raise ModelError(f"dtype {dtype!r} with a static model, which is a table of float32; leave dtype out")
    if device is not None and device != "cpu":
        raise ModelError(f"device {device!r} with a static model, which only runs on the CPU; leave device out")
