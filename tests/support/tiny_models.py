"""Tiny seeded models and tokenizers, built in memory and saved to a folder: what the model indicators are tested on.

Weights are drawn wider than a model's usual start, so that values differ much from one text to the next.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

END = "<|endoftext|>"
PADDING = "<|padding|>"

SENTENCES = [
    "Bees visit flowers, take nectar from them, and carry the nectar home to the hive.",
    "Rain falls because warm air rises, cools, and can hold less and less water.",
    "First measure the flour, then the sugar, then the salt; first things first.",
    "Öffne die Tür, schließe das Fenster – und geh dann langsam nach Hause.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "Name three fruits and say which one of them you would take on a long walk.",
    "Below is an instruction that describes a task. Write a response to the request.",
]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no such role: ' + message.role) }}{% endif %}"
    "<{{ message.role }}>\n{{ message.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
"""Refuses roles it does not know."""


def byte_level_tokenizer(size: int = 400, chat_template: str | None = None, texts: Iterable[str] = SENTENCES) -> Any:
    """A byte-level BPE tokenizer trained on a few sentences; knows every text, has no unknown token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PADDING)
    made.chat_template = chat_template
    return made


def causal_config(kind: str, vocabulary: int, positions: int = 128) -> Any:
    """A config of two thin layers; ``kind`` is a model type of transformers."""
    from transformers import AutoConfig

    names: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    if kind == "gpt2":
        names = {
            "vocab_size": vocabulary,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": positions,
            "initializer_range": 0.3,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
    if kind == "gemma2":
        names |= {"final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8, "sliding_window": 16}
    if kind == "cohere":
        names |= {"logit_scale": 0.25}
    return AutoConfig.for_model(kind, **names)


def save_causal(
    folder: Path, kind: str = "gpt2", *, positions: int = 128, chat_template: str | None = None, seed: int = 0
) -> Path:
    """Save a seeded causal model and its tokenizer to a folder."""
    from transformers import AutoModelForCausalLM

    tokenizer = byte_level_tokenizer(chat_template=chat_template)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(causal_config(kind, len(tokenizer), positions))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
