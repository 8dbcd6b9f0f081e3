"""A tiny seeded T5 with a tokenizer that tells Yes from No, saved to a folder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from im_datasets.indicators.unieval import DIMENSIONS


def save_tokenizer(folder: Path, texts: Iterable[str] = ()) -> Path:
    """T5's own kind of tokenizer: the words of some texts, and letters."""
    from transformers import T5Tokenizer

    texts = (*texts, *DIMENSIONS.values(), "Yes", "No")
    words = sorted({word for text in texts for word in text.split()} - {"</s>"})
    pieces = [(f"▁{word}", -5.0) for word in words] + [("▁", -8.0)] + [(chr(code), -9.0) for code in range(33, 127)]
    tokenizer = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces], extra_ids=0)
    tokenizer.save_pretrained(folder)
    return folder


def make_model(folder: Path, tokenizer: Path, **settings: Any) -> Path:
    """A T5 of two thin layers beside a tokenizer; ``settings`` are fields of its config."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    own = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(own),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=6,
        decoder_start_token_id=0,
        **settings,
    )
    model = T5ForConditionalGeneration(config).eval()
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) / 4)
    if config.scale_decoder_outputs:
        model.lm_head.weight = model.shared.weight
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


def save_unieval(folder: Path) -> Path:
    """Model and tokenizer in one folder, with an own head and gated layers as the published one."""
    return make_model(folder, save_tokenizer(folder), feed_forward_proj="gated-gelu")
