"""What a T5 decoder says first, for little beside the encoder.

At the first step there is one query. A decoder's cross-attention would project every encoder state to a key and a
value for it; here the query meets the states themselves, and only their weighted mean is projected:
q · (K h) = (Kᵀ q) · h, and Σ aᵢ (V hᵢ) = V (Σ aᵢ hᵢ). The same numbers up to rounding, without a seventh of all the
work of a T5-base.
"""

from typing import TYPE_CHECKING, Any

from im_datasets.models.batching import KERNEL_ROWS

if TYPE_CHECKING:
    from torch import Tensor


def first_decoder_state(model: Any, states: "Tensor", mask: "Tensor") -> "Tensor":
    """The decoder's output at its start token, as the head reads it.

    Args:
        model: A ``T5ForConditionalGeneration`` in evaluation mode.
        states: What its encoder gave, shape (batch, length, width).
        mask: 1 for a real token, shape (batch, length).

    Returns:
        Shape (batch, width).
    """
    # A multiple of the rows at which a matrix product gives each row the same bits, whatever the batch.
    rows = -(-len(states) // KERNEL_ROWS) * KERNEL_ROWS
    hidden = model.decoder.embed_tokens.weight[model.config.decoder_start_token_id].expand(rows, -1)
    hidden_keys = mask[:, None, :] == 0
    for block in model.decoder.block:
        own, cross, feed_forward = block.layer
        # One position attends to itself with weight 1: its value is all that comes of it.
        hidden = hidden + own.SelfAttention.o(own.SelfAttention.v(own.layer_norm(hidden)))
        hidden = hidden + _attend(cross.EncDecAttention, cross.layer_norm(hidden), states, hidden_keys)
        hidden = feed_forward(hidden)
    hidden = model.decoder.final_layer_norm(hidden[: len(states)])
    scaled: Tensor = hidden * model.model_dim**-0.5 if model.config.scale_decoder_outputs else hidden
    return scaled


def _attend(attention: Any, query: "Tensor", states: "Tensor", hidden_keys: "Tensor") -> "Tensor":
    """One query's attention to the encoder's states.

    Args:
        attention: The decoder layer's ``T5Attention`` to the encoder.
        query: Shape (rows, width), at least as many rows as ``states``.
        states: Shape (batch, length, width).
        hidden_keys: True where there is padding, shape (batch, 1, length).

    Returns:
        Shape (rows, width); rows beyond the batch hold nothing of use.
    """
    import torch

    rows, batch, heads = len(query), len(states), attention.n_heads
    by_head = attention.q(query).view(rows, heads, -1).transpose(0, 1)
    seeking = torch.bmm(by_head, attention.k.weight.view(heads, -1, query.shape[-1])).transpose(0, 1)[:batch]
    scores = torch.bmm(seeking, states.transpose(1, 2)).float().masked_fill(hidden_keys, float("-inf"))
    means = torch.bmm(torch.softmax(scores, dim=-1).to(states.dtype), states)
    filled = torch.cat([means, means.new_zeros(rows - batch, *means.shape[1:])]).transpose(0, 1)
    values = torch.bmm(filled, attention.v.weight.view(heads, -1, query.shape[-1]).transpose(1, 2))
    attended: Tensor = attention.o(values.transpose(0, 1).reshape(rows, -1))
    return attended
