"""One loader for the models that score: id, revision, dtype and device → model and tokenizer, once per process.

Weights come from safetensors where there are any, else through torch's weights-only unpickler. A checkpoint without
weights for some part of the model is refused: a head drawn at random would give plausible numbers.
"""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from im_datasets.common.errors import ModelError
from im_datasets.models.batching import TokenBudget
from im_datasets.models.devices import choose_device, choose_dtype, torch_dtype
from im_datasets.models.gguf_files import PACKAGED_SHA256, from_gguf, packaged_folder
from im_datasets.models.hub_models import (
    EMBEDDED,
    hub_revision,
    is_gguf,
    local_digest,
    model_facts,
    one_line_errors,
    quiet_loading,
)
from im_datasets.models.tokenizers import open_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Kind = Literal["causal", "sequence-classification", "seq2seq"]

KINDS: dict[Kind, tuple[str, str]] = {
    "causal": ("AutoModelForCausalLM", "a causal language model"),
    "sequence-classification": ("AutoModelForSequenceClassification", "a sequence-classification model"),
    "seq2seq": ("AutoModelForSeq2SeqLM", "an encoder-decoder model"),
}
"""Kind → the class of transformers that opens it, and its name in words."""

TOKEN_BUDGET = {"cpu": 512, "cuda": 32_768, "mps": 4_096}
"""Tokens per batch by device; on a CPU a small batch that stays in the cache is the fastest."""

_NO_TOKENIZER = "save one beside the model"


@dataclass(frozen=True)
class Checkpoint:
    """Which model, and how it runs.

    Attributes:
        kind: What it is opened as.
        model: A model id of the Hub, a local folder, a causal model's GGUF file, or ``"embedded"``, the packaged
            causal one.
        revision: Branch, tag or commit of a Hub model; None is the default branch.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; None chooses by device.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None takes an accelerator where there is one.
        trust_remote_code: Whether code that the model's repository holds may run.
        compile: Whether the model goes through ``torch.compile``.
    """

    kind: Kind
    model: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    trust_remote_code: bool = False
    compile: bool = False

    def resolve(self) -> "Checkpoint":
        """The same with the device, dtype and commit that it comes to here.

        Raises:
            ModelError: The device is not there, the dtype unknown, or the model cannot be had.
        """
        return _resolved(replace(self, device=choose_device(self.device)))

    def weights(self) -> str:
        """Which weights these are, found without loading them: a Hub commit, or the digest of a folder.

        Raises:
            ModelError: The model cannot be had.
        """
        return self.resolve().revision or local_digest(self.model)

    def describe(self) -> dict[str, Any]:
        """Model, revision, dtype and device as they are resolved here, for a record.

        Raises:
            ModelError: The model cannot be had.
        """
        resolved = self.resolve()
        return model_facts(self.model, self.weights(), resolved.dtype, resolved.device)

    def open_files(self) -> tuple[Any, "PreTrainedTokenizerBase"]:
        """Config and tokenizer, without the weights.

        Raises:
            ModelError: The model cannot be had.
        """
        from transformers import AutoConfig

        checkpoint = self.resolve()
        _make_known(checkpoint.kind)
        source, own = _files(checkpoint)
        with one_line_errors(checkpoint.model), quiet_loading():
            config = AutoConfig.from_pretrained(source, **own)
            return config, open_tokenizer(source, _NO_TOKENIZER, **own)

    def load(self) -> "Loaded":
        """The model, in this process's memory once.

        Raises:
            ModelError: The model cannot be had, is of another kind, or lacks weights.
        """
        return _load(self.resolve())

    def load_anew(self) -> "Loaded":
        """The model, loaded again from its files: the caller may change its weights.

        Raises:
            ModelError: The model cannot be had, is of another kind, or lacks weights.
        """
        return _open(self.resolve())


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to run.

    Attributes:
        checkpoint: What it was loaded from, resolved.
        model: In evaluation mode, on its device.
        tokenizer: The tokenizer beside it.
        budget: Tokens per batch on its device; shrinks when a batch does not fit.
    """

    checkpoint: Checkpoint
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    budget: TokenBudget

    @property
    def device(self) -> str:
        """The device it is on."""
        return str(self.checkpoint.device)

    @property
    def max_tokens(self) -> int | None:
        """Tokens that its positions reach; None where they have no end."""
        config = self.model.config.get_text_config()
        limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
        # T5 states n_positions of its training and reads on beyond it: relative positions have no end.
        if getattr(config, "relative_attention_num_buckets", None):
            return None
        # DeBERTa has absolute positions beside its relative ones only where this is set.
        if getattr(config, "relative_attention", False) and not getattr(config, "position_biased_input", True):
            return None
        limit = next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)
        return limit if limit is None else limit - _positions_spent_on_padding(self.model)


def _positions_spent_on_padding(model: "torch.nn.Module") -> int:
    """Positions that no token has: RoBERTa and its kin count from the one after their padding position."""
    tables = (module for name, module in model.named_modules() if name.endswith("embeddings.position_embeddings"))
    padding = [getattr(table, "padding_idx", None) for table in tables]
    return next((place + 1 for place in padding if place is not None), 0)


@lru_cache(maxsize=32)
def _resolved(checkpoint: Checkpoint) -> Checkpoint:
    """Asked once per process: a branch that moves meanwhile does not change the model under a run."""
    if checkpoint.model == EMBEDDED:
        revision: str | None = _packaged(checkpoint)
    else:
        with one_line_errors(checkpoint.model):
            revision = hub_revision(checkpoint.model, checkpoint.revision)
        if revision is None and checkpoint.revision is not None:
            raise ModelError(
                f"{checkpoint.model} is on this machine and has no revision {checkpoint.revision!r}; leave it out"
            )
        if revision is None and is_gguf(checkpoint.model) and checkpoint.kind != "causal":
            raise ModelError(f"{checkpoint.model} is a GGUF file, read only as {KINDS['causal'][1]}; pass a folder")
    return replace(checkpoint, dtype=choose_dtype(checkpoint.dtype, str(checkpoint.device)), revision=revision)


@lru_cache(maxsize=4)
def _load(checkpoint: Checkpoint) -> Loaded:
    return _open(checkpoint)


def _open(checkpoint: Checkpoint) -> Loaded:
    import transformers

    # Off: transformers would ask the Hub's conversion service for safetensors of a repository that has none.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    _make_known(checkpoint.kind)
    opener = getattr(transformers, KINDS[checkpoint.kind][0])
    source, own = _files(checkpoint)
    with one_line_errors(checkpoint.model, KINDS[checkpoint.kind][1]), quiet_loading():
        tokenizer = open_tokenizer(source, _NO_TOKENIZER, **own)
        dtype = torch_dtype(str(checkpoint.dtype))
        model, report = opener.from_pretrained(source, dtype=dtype, output_loading_info=True, **own)
    _check_weights(checkpoint, report)
    model = model.eval().to(checkpoint.device)
    if checkpoint.compile:
        import torch

        # Dynamic: else each new length is compiled anew, for seconds at a time.
        model.forward = torch.compile(model.forward, dynamic=True)
    budget = TokenBudget.on(str(checkpoint.device), TOKEN_BUDGET)
    return Loaded(checkpoint, model, tokenizer, budget)


def _make_known(kind: Kind) -> None:
    """Teach transformers the class that the Open-Assistant Pythia reward models name."""
    if kind == "sequence-classification":
        from im_datasets.models.oasst_reward import register

        register()


def _packaged(checkpoint: Checkpoint) -> str:
    """What stands for a revision of the packaged model: the digest of its file."""
    digest = f"sha256:{PACKAGED_SHA256}"
    if checkpoint.kind != "causal":
        raise ModelError(
            f"{EMBEDDED!r} is {KINDS['causal'][1]}, not {KINDS[checkpoint.kind][1]}; pass an id of the Hub, or a folder"
        )
    if checkpoint.revision not in (None, digest):
        raise ModelError(f"{EMBEDDED!r} is not on the Hub: no revision {checkpoint.revision!r}; leave it out")
    return digest


def _files(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Where a resolved checkpoint's files are, and the options with which they open."""
    if checkpoint.model == EMBEDDED:
        return str(packaged_folder()), {}
    if is_gguf(checkpoint.model):
        return from_gguf(checkpoint.model)
    return checkpoint.model, {"revision": checkpoint.revision, "trust_remote_code": checkpoint.trust_remote_code}


def _check_weights(checkpoint: Checkpoint, report: Any) -> None:
    missing = sorted(report.get("missing_keys") or [])
    wrong = sorted(str(key) for key in report.get("mismatched_keys") or [])
    if missing or wrong:
        raise ModelError(
            f"{checkpoint.model} is not {KINDS[checkpoint.kind][1]} with all its weights: it has none for "
            f"{', '.join([*missing, *wrong][:3])}; pass a checkpoint that was trained as one"
        )
