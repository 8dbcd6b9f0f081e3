"""How others score, written as they do: what the indicators with a model are measured against.

Every function takes a loaded model, its tokenizer and texts in the order of the dataset, and gives one value per row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import CrossEntropyLoss


def evaluate_perplexity(
    model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int = 16, max_length: int = 1024
) -> list[float]:
    """The computation of ``evaluate``'s module ``perplexity`` with a start token, model loading left out.

    Source: huggingface/evaluate, ``metrics/perplexity/perplexity.py``: the whole dataset is tokenised and padded in
    one call, to its longest text; logits and losses of all positions are made, padding included, and masked.
    """
    tokenizer.pad_token = tokenizer.pad_token or next(iter(tokenizer.special_tokens_map.values()))
    encodings = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=True,
        truncation=True,
        max_length=max_length - 1,
        return_tensors="pt",
        return_attention_mask=True,
    ).to(model.device)
    perplexities: list[float] = []
    loss = CrossEntropyLoss(reduction="none")
    for start in range(0, len(texts), batch_size):
        ids = encodings["input_ids"][start : start + batch_size]
        mask = encodings["attention_mask"][start : start + batch_size]
        first = torch.full((len(ids), 1), tokenizer.bos_token_id, device=model.device)
        ids, mask = torch.cat([first, ids], dim=1), torch.cat([torch.ones_like(first), mask], dim=1)
        with torch.no_grad():
            logits = model(ids, attention_mask=mask).logits
        shifted = logits[..., :-1, :].contiguous()
        labels, counts = ids[..., 1:].contiguous(), mask[..., 1:].contiguous()
        losses = (loss(shifted.transpose(1, 2), labels) * counts).sum(1) / counts.sum(1)
        perplexities += torch.exp(losses).tolist()
    return perplexities


def mean_losses(
    model: Any, tokenizer: Any, prompts: Sequence[str], responses: Sequence[str], batch_size: int = 1
) -> list[float]:
    """Mean negative log-likelihood of each response: dataset order, padded to the batch's longest, whole softmax.

    One row a call, the default, is what most scripts do: no padding, no batch.
    """
    before = [[tokenizer.bos_token_id, *ids] for ids in _ids(tokenizer, prompts)]
    after = _ids(tokenizer, responses)
    found: list[float] = []
    for start in range(0, len(after), batch_size):
        parts = list(zip(before[start : start + batch_size], after[start : start + batch_size], strict=True))
        found += _losses(model, parts)
    return found


def _losses(model: Any, parts: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    ids, mask = _padded([[*prompt, *response] for prompt, response in parts], 0, model.device)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
    likelihoods = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return [
        -float(likelihoods[row, len(prompt) - 1 : len(prompt) + len(response) - 1].mean())
        for row, (prompt, response) in enumerate(parts)
    ]


def yes_scores(model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int = 8) -> list[float]:
    """One dimension as UniEval's authors score it: dataset order, labels, the whole softmax, twice.

    Source: github.com/maszhongming/UniEval, ``metric/scorer.py``.
    """
    softmax = torch.nn.Softmax(dim=1)
    yes, no = tokenizer("Yes")["input_ids"][0], tokenizer("No")["input_ids"][0]
    scores: list[float] = []
    for start in range(0, len(texts), batch_size):
        some = list(texts[start : start + batch_size])
        source = tokenizer(some, max_length=1024, truncation=True, padding=True, return_tensors="pt").to(model.device)
        target = torch.full((len(some), 1), no, device=model.device)
        with torch.no_grad():
            output = model(
                input_ids=source["input_ids"], attention_mask=source["attention_mask"], labels=target
            ).logits.view(-1, model.config.vocab_size)
        positive, negative = softmax(output)[:, yes].tolist(), softmax(output)[:, no].tolist()
        scores += [one / (one + other) for one, other in zip(positive, negative, strict=True)]
    return scores


def rewards(model: Any, sequences: Sequence[list[int]], pad_id: int, batch_size: int | None = None) -> list[float]:
    """Logits of tokenised pairs in dataset order, padded to the batch's longest; None is the whole set in one batch."""
    size = batch_size or len(sequences)
    found: list[float] = []
    for start in range(0, len(sequences), size):
        ids, mask = _padded(sequences[start : start + size], pad_id, model.device)
        with torch.no_grad():
            found += model(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
    return found


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation; ties in the order they come."""
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
    return found


def _padded(sequences: Sequence[list[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(ids) for ids in sequences])
    longest = int(lengths.max())
    ids = torch.tensor([[*ids, *[pad_id] * (longest - len(ids))] for ids in sequences])
    return ids.to(device), (torch.arange(longest) < lengths[:, None]).long().to(device)
