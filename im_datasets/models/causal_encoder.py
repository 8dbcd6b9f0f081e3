"""Texts → unit vectors by a causal language model: the position-weighted mean of its last hidden states, as in RDS+.

Token i of L weighs i / (1 + … + L): later tokens have seen more of the text. The paper is Ivison et al. (2025),
"Large-Scale Data Selection for Instruction Tuning", arXiv 2503.01807; the weights are those of SGPT (Muennighoff 2022,
arXiv 2202.08904). As in the authors' code the states are those behind the model's last norm, all tokens of a text
count, an end token closes it, and an over-long text loses its end. Two things are this project's own: which text
stands for a row is for the caller to say (the authors write ``<|user|>`` and ``<|assistant|>`` before the turns), and
padding weighs nothing (their batches are of one text, or weigh padding too). The head never runs.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import ModelError
from im_datasets.models.batching import Tokens
from im_datasets.models.checkpoints import Checkpoint
from im_datasets.models.devices import one_thread_per_batch
from im_datasets.models.inference import BatchRunner, TensorBatch

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 2048
"""Tokens read of a text where nobody says how many, as in the authors' code; fewer where the model has fewer."""

VERSION = "1"
"""Of the vectors; part of what the store finds them by."""


def causal_runner(checkpoint: Checkpoint, max_tokens: int | None = None) -> BatchRunner:
    """How texts become unit vectors.

    Args:
        checkpoint: A causal language model.
        max_tokens: Tokens read of a text; None is ``MOST_TOKENS``, or the model's own limit where that is less.

    Raises:
        ModelError: The model cannot be had, is of another kind, or looks ahead.
    """
    loaded = checkpoint.load()
    body: Any = loaded.model.base_model
    tokenizer: Any = loaded.tokenizer
    limit = min(max_tokens or MOST_TOKENS, loaded.max_tokens or MOST_TOKENS)
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    pad_id = (end or [0])[0]  # Any id will do: a causal model does not see what stands behind a token.

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        # verbose=False: a text longer than the model reads is cut here, which needs no warning.
        return [_closed(ids, end, pad_id, limit) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]

    # One thread: this may be a forked process.
    with one_thread_per_batch(loaded.device):
        width = check_causal(body, loaded.device, checkpoint.model)[1].shape[-1]

    def forward(inputs: TensorBatch) -> "torch.Tensor":
        return weighted_mean(last_states(body, inputs.ids), inputs.mask)

    return BatchRunner(tokenize, forward, width, pad_id, loaded.device, loaded.budget, loaded.max_tokens)


def weighted_mean(states: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """Mean of hidden states in which token i, counted from 1, weighs i; brought to length 1.

    Args:
        states: Shape (batch, length, width).
        mask: 1 for a token and 0 for the padding behind it, shape (batch, length).

    Returns:
        Shape (batch, width), float32.
    """
    import torch

    weights = torch.arange(1, states.shape[1] + 1, device=states.device) * mask
    shares = (weights / weights.sum(1, keepdim=True)).float()
    # Of length 1 in the end, so that a product of two is their cosine.
    return torch.nn.functional.normalize((states.float() * shares[..., None]).sum(1), dim=-1)


def _closed(ids: list[int], end: list[int], pad_id: int, limit: int) -> Tokens:
    """A text's tokens with the end token behind them, or cut to the limit."""
    closed = ids if ids[-1:] == end else [*ids, *end]
    # A tokenizer may make nothing of a text, and have no end token.
    return Tokens(closed[:limit] or [pad_id], truncated=len(closed) > limit)


def last_states(body: Callable[..., Any], ids: "torch.Tensor", cache: Any = None) -> "torch.Tensor":
    """What a causal model without its head makes of some tokens.

    Args:
        body: The model without its head.
        ids: Shape (batch, length); padding stands on the right, where it is not seen.
        cache: Keys and values of what stands before; None where nothing does.

    Returns:
        Last hidden states, shape (batch, length, width).
    """
    settings = {"use_cache": False} if cache is None else {"past_key_values": cache, "use_cache": True}
    states: torch.Tensor = body(input_ids=ids, **settings).last_hidden_state
    return states


def check_causal(body: Callable[..., Any], device: str, name: str) -> tuple["torch.Tensor", "torch.Tensor"]:
    """See that no token's state depends on the tokens behind it.

    Args:
        body: The model without its head.
        device: Where it is.
        name: The model's, for the error.

    Returns:
        Tokens that it was tried on, shape (2, 8), and their last hidden states.

    Raises:
        ModelError: A state does.
    """
    import torch

    with torch.inference_mode():
        # Two rows with the same first four tokens: states there differ only where a model looks ahead.
        ids = torch.arange(2, 10, device=device).repeat(2, 1)
        ids[1, 4:] += 1
        states = last_states(body, ids)
    if not is_close(states[0, :4], states[1, :4]):
        raise ModelError(f"{name} looks ahead: it is not a causal language model; pass one, such as gpt2")
    return ids, states


def is_close(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    """Whether two results of a model are equal up to the rounding of their precision."""
    import torch

    tolerance = 1e-4 if one.dtype == torch.float32 else 5e-2
    return one.shape == other.shape and bool((one - other).abs().max() <= tolerance * other.abs().max())
