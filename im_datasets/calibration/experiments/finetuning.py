"""A base model and some pairs → a finetuned model, by transformers' own Trainer.

The loss counts the response's tokens only, and the end token after them. Tokens are made and cut as those that
``Perplexity`` scores. The model stays in memory; whether it is kept on disk is for the caller.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from im_datasets.common.errors import CalibrationError, MissingExtraError
from im_datasets.common.storage import temporary_folder
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.likelihood.indicator import response_tokens
from im_datasets.models.checkpoints import Checkpoint, Loaded
from im_datasets.models.devices import choose_device
from im_datasets.models.hub_models import quiet_loading

WARM_UP = 0.03
"""Share of the steps in which the learning rate rises."""

VERSION = "2"
"""Of what a training makes of its rows and settings; part of a run's id, and rises whenever numbers change."""

IGNORED = -100
"""The label of a token that the loss does not count."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a base model is finetuned on a subset.

    The defaults are common ones for models of some billion parameters; a small model wants a higher learning rate.

    Attributes:
        epochs: Passes over the subset.
        learning_rate: Its peak; rises over the first 3 % of the steps and falls by a cosine to zero.
        batch_size: Rows per step.
        micro_batch_size: Rows in memory at a time; a step adds up as many of them as it takes.
        max_tokens: Tokens of a row, instruction and response together; of longer ones the instruction loses its
            beginning and the response its end. Evaluation examples are cut by the same rule.
        method: ``"full"`` trains all weights, ``"lora"`` a low-rank addition to the linear layers.
        lora_rank: Rank of the addition; its scale is twice that.
        weight_decay: As AdamW takes it.
        template: How instructions are written, as for ``Perplexity``.
        dtype: Of the weights.
        bf16: Whether products are computed in bfloat16 while the weights stay in ``dtype``; None = float32 weights
            on a CUDA card that has bfloat16. On a CPU it pays where there are instructions for it (AMX, AVX-512 BF16).
        group_by_length: Whether rows of like length meet in a step, so that little is spent on padding; else steps
            are random draws.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``; None takes an accelerator where there is one. A process uses one
            GPU, the first it sees.

    Raises:
        CalibrationError: A number is out of range, or the method unknown.
    """

    epochs: float = 3.0
    learning_rate: float = 2e-5
    batch_size: int = 64
    micro_batch_size: int = 8
    max_tokens: int = 1024
    method: Literal["full", "lora"] = "full"
    lora_rank: int = 16
    weight_decay: float = 0.0
    template: str | None = None
    dtype: str = "float32"
    bf16: bool | None = None
    group_by_length: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        positive = ("epochs", "learning_rate", "batch_size", "micro_batch_size", "lora_rank")
        if wrong := [f"{name}={getattr(self, name)!r}" for name in positive if not getattr(self, name) > 0]:
            raise CalibrationError(f"{', '.join(wrong)}; must be above 0")
        if self.max_tokens < 16 or self.weight_decay < 0:
            raise CalibrationError(
                f"max_tokens={self.max_tokens}, weight_decay={self.weight_decay}; at least 16 and at least 0"
            )
        if self.batch_size % min(self.batch_size, self.micro_batch_size):
            raise CalibrationError(
                f"batch_size={self.batch_size} is no multiple of micro_batch_size={self.micro_batch_size}"
            )
        if self.method not in {"full", "lora"}:
            raise CalibrationError(f"method {self.method!r} is unknown; 'full' or 'lora'")

    def on(self, device: str) -> "Training":
        """The same with ``bf16`` as it comes to on a device: True or False, never None."""
        if self.bf16 is not None:
            return self
        import torch

        mixes = device.startswith("cuda") and self.dtype == "float32" and torch.cuda.is_bf16_supported()
        return replace(self, bf16=mixes)

    def to_dict(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as plain data; the device is one only through ``on``."""
        return {name: value for name, value in asdict(self).items() if name != "device"}


def finetune(base: Checkpoint, pairs: Pairs, training: Training, *, seed: int = 0) -> Loaded:
    """Finetune a base model on instruction-response pairs.

    Args:
        base: A causal language model; its files stay as they are.
        pairs: n scorable pairs.
        training: The settings.
        seed: Of the order of the rows, and of all else that is random.

    Returns:
        The finetuned model, in evaluation mode, and its tokenizer. On a CPU the same arguments give the same
        weights, bit for bit.

    Raises:
        CalibrationError: No pair has a response token left.
        MissingExtraError: accelerate, or for LoRA peft, is not installed.
        ModelError: The base model cannot be had, is not causal, or lacks weights.
    """
    _need("accelerate", "calibrate")
    from transformers import set_seed

    loaded = base.load_anew()
    features = training_rows(loaded, pairs, training)
    model: Any = loaded.model
    # Before the low-rank addition, whose weights are drawn too.
    set_seed(seed)
    if training.method == "lora":
        model = _with_lora(model, training)
    _train(model, features, loaded, training, seed)
    if training.method == "lora":
        model = model.merge_and_unload()
    model = model.eval().to(loaded.device)
    # Gradients take as much memory as the weights, which the evaluation can use.
    for parameter in model.parameters():
        parameter.grad = None
    return Loaded(loaded.checkpoint, model, loaded.tokenizer, loaded.budget)


def base_checkpoint(model: str, training: Training, *, revision: str | None = None) -> Checkpoint:
    """The base model as a training opens it: an id of the Hub or a folder."""
    return Checkpoint("causal", model, revision, training.dtype, choose_device(training.device))


def training_rows(loaded: Loaded, pairs: Pairs, training: Training) -> list[dict[str, list[int]]]:
    """Token ids and labels of each pair, as the Trainer's collator takes them.

    Raises:
        CalibrationError: No pair has a response token left.
        ModelError: The tokenizer lacks a start token or the chat template.
    """
    items = list(zip(pairs.contexts, pairs.responses, strict=True))
    end = loaded.tokenizer.eos_token_id
    features = []
    # Room for the end token.
    limit = min(training.max_tokens, loaded.max_tokens or training.max_tokens) - 1
    for tokens in response_tokens(loaded, items, training.template, limit) if items else ():
        if len(tokens.ids) <= tokens.start:
            continue
        ids = list(tokens.ids)
        # A response that was cut does not end there; one whose instruction was cut does.
        if isinstance(end, int) and not tokens.unfinished:
            ids.append(end)
        labels = [IGNORED] * tokens.start + ids[tokens.start :]
        features.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    if not features:
        raise CalibrationError(f"none of {len(pairs)} pairs has a response token to train on")
    return features


def _train(model: Any, features: Sequence[dict[str, list[int]]], loaded: Loaded, training: Training, seed: int) -> None:
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

    tokenizer: Any = loaded.tokenizer
    # Padding is neither attended to nor counted in the loss, so that any token will do.
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    micro = min(training.micro_batch_size, training.batch_size, len(features))
    steps = training.epochs * -(-len(features) // training.batch_size)
    with temporary_folder() as folder, quiet_loading():
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=training.epochs,
            learning_rate=training.learning_rate,
            lr_scheduler_type="cosine",
            # The first warm-up step has a rate of zero: none where a whole one is more than 3 %.
            warmup_steps=int(WARM_UP * steps),
            weight_decay=training.weight_decay,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=max(1, training.batch_size // micro),
            max_grad_norm=1.0,
            bf16=bool(training.on(loaded.device).bf16),
            use_cpu=loaded.device.partition(":")[0] == "cpu",
            seed=seed,
            data_seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            train_sampling_strategy="group_by_length" if training.group_by_length else "random",
        )
        # Several visible GPUs would make it one model on all of them; here each process takes runs of its own.
        arguments._setup_devices  # noqa: B018 - a property that counts the GPUs
        arguments._n_gpu = min(arguments.n_gpu, 1)
        collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
        trainer: Any = Trainer(model=model, args=arguments, train_dataset=list(features), data_collator=collator)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.accelerator.free_memory()


def _with_lora(model: Any, training: Training) -> Any:
    _need("peft", "lora")
    from peft import LoraConfig, get_peft_model

    rank = training.lora_rank
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    with warnings.catch_warnings():
        # peft asks transformers for a name that it is about to drop.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, config)


def _need(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(
            f"finetuning needs {package}, which is not installed; run: pip install im-datasets[{extra}]"
        )


def save_model(loaded: Loaded, folder: str | Path) -> None:
    """Write a finetuned model and its tokenizer to a folder, as ``from_pretrained`` reads it."""
    with quiet_loading():
        loaded.model.save_pretrained(str(folder))
        loaded.tokenizer.save_pretrained(str(folder))
