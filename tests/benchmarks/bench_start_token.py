r"""With which token a text begins for a model: ``python tests/benchmarks/bench_start_token.py --data FILE --starts …``.

IFD compares a response after its instruction with the same response by itself, which has to begin with something. Each
row is scored with its own response and with that of the next row of the sample; the better the start, the better the
two are told apart. What is used, the template with an empty instruction, comes first; ``--starts`` are others. Where
the template begins with no special token, ``--lead`` stands before it. Batches, padding and loss are written out here,
and share nothing with the package's own scorer.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import read_rows
from numpy.typing import NDArray
from scipy.stats import rankdata

from im_datasets.data.columns import Columns
from im_datasets.models.checkpoints import Checkpoint
from im_datasets.models.prompts import prompt_writer

BUDGET = 1024
"""Tokens of a batch, padding included."""

CONTEXT = 256
"""Tokens kept of an instruction, the last ones."""

EMPTY = "the template with an empty instruction"

SHORT = 16
"""Tokens up to which a response counts as short."""


def mean_losses(model: Any, sequences: list[tuple[list[int], list[int]]]) -> NDArray[np.float64]:
    """Mean negative log-likelihood of the second half of each sequence, in nats: shape (n,)."""
    order = sorted(range(len(sequences)), key=lambda place: -sum(map(len, sequences[place])))
    means, start = np.full(len(sequences), np.nan), 0
    while start < len(order):
        width = sum(map(len, sequences[order[start]]))
        batch = order[start : start + max(1, BUDGET // width)]
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for row, place in enumerate(batch):
            whole = [*sequences[place][0], *sequences[place][1]]
            ids[row, : len(whole)] = torch.tensor(whole)
        with torch.inference_mode():
            states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            for row, place in enumerate(batch):
                before, said = map(len, sequences[place])
                logits = model.lm_head(states[row, before - 1 : before + said - 1]).float()
                means[place] = torch.nn.functional.cross_entropy(logits, ids[row, before : before + said]).item()
        start += len(batch)
    return means


def auc(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """The chance that a value of ``high`` is above one of ``low``; ties count half."""
    ranks = rankdata(np.concatenate([low, high]))
    return float((ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))


def main() -> None:
    """Score, and print a line for each start."""
    parser = argparse.ArgumentParser(description="IFD of matching and mismatched rows, by the token a text begins with")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="JSON or JSONL instruction dataset")
    parser.add_argument("--model", default="embedded", help="a causal model: id, folder, GGUF file (%(default)s)")
    parser.add_argument("--template", help="alpaca, chat, plain or a text (the model's own)")
    parser.add_argument("--rows", type=int, default=500, help="rows drawn (%(default)s)")
    parser.add_argument("--tokens", type=int, default=96, help="tokens kept of a response (%(default)s)")
    parser.add_argument("--starts", nargs="+", required=True, help="what may stand before a response by itself")
    parser.add_argument("--lead", default="", help="the token before contexts that begin with no special token")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the results here too")
    options = parser.parse_args()
    loaded = Checkpoint("causal", options.model, dtype="float32", device="cpu").load()
    tokenizer: Any = loaded.tokenizer
    rows = read_rows(options.data)
    batch = {name: [row.get(name) for row in rows] for name in rows[0]}
    pairs = Columns.detect(list(batch)).pairs(batch)
    usable = [place for place, reason in enumerate(pairs.reasons) if not reason]
    sample = random.Random(0).sample(usable, options.rows)
    write = prompt_writer(options.template, tokenizer)

    def ids(text: str) -> list[int]:
        tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    contexts = [ids(write(pairs.contexts[place]) or "")[-CONTEXT:] for place in sample]
    special = set(tokenizer.all_special_ids)

    def led(context: list[int]) -> list[int]:
        return context if context and context[0] in special else [*ids(options.lead), *context]

    contexts = [led(context) for context in contexts]
    starts = {EMPTY: led(ids(write((("user", ""),)) or ""))} | {start: ids(start) for start in options.starts}
    responses = [ids(pairs.responses[place])[: options.tokens] for place in sample]
    others = [*responses[1:], responses[0]]
    own = mean_losses(loaded.model, list(zip(contexts, responses, strict=True)))
    other = mean_losses(loaded.model, list(zip(contexts, others, strict=True)))
    short = np.array([len(said) <= SHORT for said in responses])
    results: dict[str, Any] = {"model": options.model, "rows": options.rows, "short rows": int(short.sum())}
    for start, before in starts.items():
        alone = mean_losses(loaded.model, [(before, said) for said in responses])
        matching, mismatched = np.exp(own - alone), np.exp(other - np.roll(alone, -1))
        results[start] = {
            "AUC": auc(matching, mismatched),
            "AUC of short responses": auc(matching[short], mismatched[np.roll(short, -1)]),
            "mismatched at 1 or more": float((mismatched >= 1).mean()),
            "matching at 1 or more": float((matching >= 1).mean()),
            "median of matching": float(np.median(matching)),
            "median of mismatched": float(np.median(mismatched)),
            "mean loss by itself": float(alone.mean()),
        }
        print(repr(start), json.dumps(results[start]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
