"""Models of published shapes with seeded random weights, and tokenizers trained on the data, built once into a folder.

What a forward costs depends on shapes, not on what was learned; how long texts are in tokens depends on the
tokenizer, which is trained on the very texts. The weights are drawn wider than a fresh model's, so that scores differ
from row to row as a trained model's do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

END = "<|endoftext|>"
OASST = ("<|padding|>", "<|prompter|>", "<|assistant|>", "<|system|>")
TRAINED_ON = 20_000
"""Texts that a tokenizer is trained on at most."""


def made(name: str, cache: Path, data: str, texts: Sequence[str]) -> Path:
    """The folder of a model with its tokenizer, built if it is not there.

    Args:
        name: A key of ``BUILDERS``.
        cache: Where models are kept.
        data: Name of the dataset, part of the folder's name: the tokenizer depends on it.
        texts: What the tokenizer is trained on.
    """
    folder = cache / f"{name}-{data}"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        BUILDERS[name](folder, list(texts)[:TRAINED_ON])
    return folder


def _gpt2(folder: Path, texts: Sequence[str]) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    _byte_level(texts, 50_257).save_pretrained(folder)
    GPT2LMHeadModel(GPT2Config(initializer_range=0.06)).save_pretrained(folder)


def _pythia(folder: Path, texts: Sequence[str]) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    _byte_level(texts, 50_304).save_pretrained(folder)
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50_304, **_PYTHIA_160M)).save_pretrained(folder)


def _pythia_reward(folder: Path, texts: Sequence[str]) -> None:
    from im_datasets.models.oasst_reward import GPTNeoXRewardModel, GPTNeoXRewardModelConfig

    tokenizer = _byte_level(texts, 50_288, OASST)
    tokenizer.save_pretrained(folder)
    pad = tokenizer.convert_tokens_to_ids(OASST[0])
    config = GPTNeoXRewardModelConfig(vocab_size=50_288, pad_token_id=pad, **_PYTHIA_160M)
    GPTNeoXRewardModel(config).save_pretrained(folder)


def _deberta(folder: Path, texts: Sequence[str]) -> None:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    _unigram(texts, 32_000, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]).save_pretrained(folder)
    config = DebertaV2Config(
        vocab_size=128_100,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        layer_norm_eps=1e-7,
        max_relative_positions=-1,
        position_biased_input=False,
        pad_token_id=0,
        num_labels=1,
        initializer_range=0.06,
    )
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)


def _t5(folder: Path, texts: Sequence[str]) -> None:
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    pieces = _unigram_pieces([*texts, *["Yes", "No"] * 1000], 32_000, ["<pad>", "</s>", "<unk>"])
    T5Tokenizer(vocab=pieces, extra_ids=100).save_pretrained(folder)
    config = T5Config(
        vocab_size=32_128,
        d_model=768,
        d_kv=64,
        d_ff=2048,
        num_layers=12,
        num_heads=12,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    # A head of its own, as of T5 1.1; of unit logits, so that answers are neither sure nor equal.
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 768**-0.5)
    model.save_pretrained(folder)


_PYTHIA_160M: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
    "initializer_range": 0.06,
}

BUILDERS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "gpt2": _gpt2,
    "pythia-160m": _pythia,
    "pythia-160m-reward": _pythia_reward,
    "deberta-base": _deberta,
    "t5-base": _t5,
}
"""Shape → what builds it; T5 is that of version 1.1, as UniEval's, DeBERTa that of version 3."""


def _byte_level(texts: Sequence[str], vocabulary: int, special: Sequence[str] = ()) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    padding = {"pad_token": special[0]} if special else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        extra_special_tokens=[*special[1:]],
        **padding,
    )


def _unigram(texts: Sequence[str], vocabulary: int, special: Sequence[str]) -> Any:
    """A tokenizer of one text or two with ``[CLS]`` and ``[SEP]``, as DeBERTa's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram(_unigram_pieces(texts, vocabulary, special), unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _unigram_pieces(texts: Sequence[str], vocabulary: int, special: Sequence[str]) -> list[tuple[str, float]]:
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=[*special], unk_token=special[-1], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
