"""A small Llama and its tokenizer, trained from scratch on plain text: the base model of the experiment."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

END, PADDING = "<|endoftext|>", "<|padding|>"


@dataclass(frozen=True)
class Shape:
    """How large the base model is, and how long it is trained."""

    vocabulary: int = 4096
    width: int = 384
    layers: int = 2
    positions: int = 1024
    block: int = 256
    epochs: float = 1.5
    batch: int = 32
    micro_batch: int = 8
    learning_rate: float = 2e-3


TOY = Shape(vocabulary=500, width=32, layers=2, positions=256, block=64, epochs=2.0, batch=8)


def train_base(text: Path, folder: Path, shape: Shape, seed: int = 0, *, bf16: bool | None = None) -> str:
    """Train tokenizer and model on the texts of a file, once: a folder that is there is taken as it is.

    Args:
        text: JSON Lines with ``instruction`` and ``response``; both are read as plain text, one after the other.
        folder: Where the model is saved.
        shape: Size and length of the training.
        seed: Of weights and order.
        bf16: Whether products are computed in bfloat16; None on a CUDA card.
    """
    if (folder / "config.json").is_file():
        return str(folder)
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    texts = _texts(text)
    tokenizer = _tokenizer(texts, shape)
    blocks = _blocks(tokenizer, texts, shape.block)
    set_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=8 * shape.width // 3,
            num_hidden_layers=shape.layers,
            num_attention_heads=max(1, shape.width // 64),
            max_position_embeddings=shape.positions,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    )
    print(f"base model: {model.num_parameters():,} parameters, {len(blocks) * shape.block:,} tokens a pass")
    with TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=shape.epochs,
            learning_rate=shape.learning_rate,
            lr_scheduler_type="cosine",
            weight_decay=0.1,
            warmup_steps=20,
            per_device_train_batch_size=shape.micro_batch,
            gradient_accumulation_steps=shape.batch // shape.micro_batch,
            bf16=torch.cuda.is_available() if bf16 is None else bf16,
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
            save_strategy="no",
            logging_steps=50,
            report_to="none",
            dataloader_pin_memory=False,
        )
        trainer: Any = Trainer(model=model, args=settings, train_dataset=blocks)
        trainer.train()
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _use_eager_attention(folder / "config.json")
    return str(folder)


def _use_eager_attention(config: Path) -> None:
    """Name the attention that is fastest on a CPU at this size, for every process that opens the model."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**settings, "attn_implementation": "eager"}, indent=2), encoding="utf-8")


def _texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [f"{row['instruction']}\n\n{row['response']}" for row in map(json.loads, file)]


def _tokenizer(texts: list[str], shape: Shape) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PADDING)


def _blocks(tokenizer: Any, texts: list[str], length: int) -> list[dict[str, list[int]]]:
    """All texts in one line, an end token before each, cut into blocks; the rest is left out."""
    ids = [token for text in tokenizer(texts)["input_ids"] for token in (0, *text)]
    cuts = (ids[start : start + length] for start in range(0, len(ids) - length + 1, length))
    return [{"input_ids": cut, "labels": cut} for cut in cuts]
