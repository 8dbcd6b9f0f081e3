"""Tiny seeded reward models and their tokenizers, saved as the published ones are."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXModel,
    PreTrainedTokenizerFast,
)

TEXTS = [
    "Why does bread rise in the oven? Yeast feeds on sugar and gives off gas, which the gluten holds.",
    "How do I keep basil alive on a window sill? Give it six hours of light and water it when the soil feels dry.",
    "Explain what a leap year is. It has one day more than other years: February 29.",
    "Translate to German: the bee visits a flower. Die Biene besucht eine Blume.",
    "A train leaves at 9:40 and arrives at 11:05, so the ride takes 1 hour and 25 minutes.",
]
"""What the tokenizers are trained on."""

MARKERS = ["<|endoftext|>", "<|padding|>", "<|prompter|>", "<|assistant|>", "<|system|>"]


def byte_level(special: Iterable[str]) -> Tokenizer:
    """A byte-level BPE of some 350 tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def pythia_config(**changed: Any) -> dict[str, Any]:
    """The fields of the published config.json, with small numbers."""
    return {
        "architectures": ["GPTNeoXRewardModel"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "classifier_dropout": 0.1,
        "hidden_act": "gelu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 256,
        "model_type": "gpt_neox_reward_model",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pooling": "last",
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.29.2",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": 360,
        **changed,
    }


def pythia_reference(config: dict[str, Any], seed: int = 0) -> tuple[GPTNeoXModel, torch.nn.Linear]:
    """Body and head in transformers' and torch's own classes, with weights large enough to tell texts apart."""
    torch.manual_seed(seed)
    own = {"architectures", "model_type", "pooling", "torch_dtype", "transformers_version"}
    body = GPTNeoXModel(GPTNeoXConfig(**{name: value for name, value in config.items() if name not in own})).eval()
    head = torch.nn.Linear(config["hidden_size"], 1)
    enlarge(body, seed)
    return body, head


def save_pythia(folder: Path, *, pickled: bool = False, seed: int = 0, **changed: Any) -> Path:
    """A reward model as Open-Assistant published it: config, state dict under its names, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = pythia_config(**changed)
    body, head = pythia_reference(config, seed)
    weights = {f"gpt_neox.{name}": value.contiguous() for name, value in body.state_dict().items()}
    weights |= {f"out_proj.{name}": value for name, value in head.state_dict().items()}
    for layer in range(config["num_hidden_layers"]):
        # Buffers that older releases of transformers stored beside the weights.
        place = f"gpt_neox.layers.{layer}.attention"
        weights[f"{place}.bias"] = torch.ones(1, 1, 256, 256, dtype=torch.bool).tril()
        weights[f"{place}.masked_bias"] = torch.tensor(-1e9)
        weights[f"{place}.rotary_emb.inv_freq"] = torch.ones(1)
    if pickled:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    save_pythia_tokenizer(folder)
    return folder


def save_pythia_tokenizer(folder: Path, markers: Iterable[str] = MARKERS) -> None:
    byte_level(markers).save(str(folder / "tokenizer.json"))
    settings = {
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|padding|>",
        "clean_up_tokenization_spaces": True,
        "tokenizer_class": "GPTNeoXTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def enlarge(model: torch.nn.Module, seed: int) -> None:
    """Weights large enough that scores differ from text to text."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name.lower():
                weights.normal_(0, 0.2)


def pair_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] first [SEP] second [SEP], the second of type 1."""
    tokenizer = byte_level(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save_deberta(folder: Path, **changed: Any) -> Path:
    """An encoder of the published pair model's kind; ``changed`` replaces config fields."""
    settings: dict[str, Any] = {
        "vocab_size": 360,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "relative_attention": True,
        "position_buckets": 32,
        "max_position_embeddings": 64,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 2,
        "pooler_hidden_size": 32,
        "num_labels": 1,
    }
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**{**settings, **changed})).eval()
    enlarge(model, 1)
    model.save_pretrained(folder)
    pair_tokenizer().save_pretrained(folder)
    return folder


CHATML = (
    "{{ bos_token if bos_token else '' }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
)


def chat_tokenizer(template: str | None = CHATML, **settings: Any) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that adds a beginning token, with a chat template that writes one too."""
    tokenizer = byte_level(["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **settings)
    made.chat_template = template
    return made


def save_decoder(
    folder: Path, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast | None = None, seed: int = 2
) -> Path:
    """A causal classifier of transformers' own with its tokenizer."""
    enlarge(model, seed)
    model.eval().save_pretrained(folder)
    (tokenizer or chat_tokenizer()).save_pretrained(folder)
    return folder
