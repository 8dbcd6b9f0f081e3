"""The vector of RDS+ read off its definition: one text at a time, the whole model, a loop over the tokens."""

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def slow_vector(folder: str, text: str, limit: int) -> np.ndarray:
    """Each token's last hidden state times its place, added up, over the sum of the places; then of length 1.

    Args:
        folder: Of a causal model and its tokenizer.
        text: What is read, with an end token behind it.
        limit: Tokens read of that.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id][:limit]
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].double().numpy()
    total = np.zeros(states.shape[1])
    for place, state in enumerate(states, start=1):
        total += place * state
    mean = total / sum(range(1, len(states) + 1))
    return mean / np.sqrt((mean**2).sum())
