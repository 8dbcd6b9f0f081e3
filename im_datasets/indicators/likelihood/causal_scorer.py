"""A causal language model → how unlikely it finds the tokens it is asked about.

The model's body gives hidden states; its head, by far the widest matrix, meets only the states before scored tokens,
some rows at a time. What the model gives for a constant beginning is computed once and reused. Each of these
shortcuts is tried on the loaded model before it is used.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import ModelError
from im_datasets.models.batching import KERNEL_ROWS
from im_datasets.models.causal_encoder import check_causal, is_close, last_states
from im_datasets.models.checkpoints import Loaded
from im_datasets.models.inference import TensorBatch

if TYPE_CHECKING:
    import torch

LOGITS_BYTES = {"cpu": 26 * 2**20, "cuda": 2**30, "mps": 256 * 2**20}
"""Float32 logits that a batch holds at a time, by device; a vocabulary of 150,000 has 0.6 MB of them a token. On a CPU
less than 32 MiB, which glibc keeps for the next ones: larger ones come from the system anew each time, page by page."""

KeysValues = tuple[tuple["torch.Tensor", "torch.Tensor"], ...]
"""Keys and values of each layer, shape (1, heads, tokens, head width)."""

Logits = Callable[["torch.Tensor"], "torch.Tensor"]
"""From hidden states to logits."""


@dataclass(frozen=True, eq=False)
class CausalScorer:
    """A loaded model, and the shortcuts that hold for it.

    Attributes:
        body: The model without its head.
        logits: What the head, and all that follows it, makes of hidden states.
        rows: Hidden states that meet the head at a time.
        prefix: What the body gives for the constant beginning of the sequences of group 1; empty where there is
            none, or the model's cache is of a kind that cannot be handed on.
    """

    body: Callable[..., Any]
    logits: Logits
    rows: int
    prefix: KeysValues = ()

    def score(self, inputs: TensorBatch) -> "torch.Tensor":
        """Negative log-likelihoods of the tokens from ``starts`` on, in nats.

        Padding stands on the right, where a causal model does not see it: no attention mask is needed.

        Returns:
            Shape (batch, 2), float32: the sum, and the number of tokens it is over.
        """
        import torch

        cache = _cache_of(self.prefix, len(inputs.ids)) if inputs.group else None
        states = last_states(self.body, inputs.ids, cache)
        places = torch.arange(inputs.ids.shape[1], device=inputs.ids.device)
        before = (places >= inputs.starts[:, None] - 1) & (places < inputs.lengths[:, None] - 1)
        losses = torch.zeros(before.shape, device=inputs.ids.device)
        losses[before] = self._losses(states[before], inputs.ids.roll(-1, 1)[before])
        return torch.stack([losses.sum(1), before.sum(1)], dim=1)

    def _losses(self, states: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Negative log-likelihood of each target after its hidden state: shape (n,), float32."""
        import torch

        number = len(states)
        if not number:
            return torch.zeros(0, device=states.device)
        # Filled up with copies, so that a row's bits do not depend on how many there are.
        filled = torch.arange(-(-number // KERNEL_ROWS) * KERNEL_ROWS, device=states.device).clamp(max=number - 1)
        losses = [
            torch.nn.functional.cross_entropy(self.logits(states[rows]).float(), targets[rows], reduction="none")
            for rows in torch.split(filled, self.rows)
        ]
        return torch.cat(losses)[:number]


def causal_scorer(loaded: Loaded, prefix: Sequence[int] = ()) -> CausalScorer:
    """Find out which shortcuts hold for a model.

    Args:
        loaded: A causal language model.
        prefix: Token ids of the constant beginning; empty where there is none.

    Raises:
        ModelError: The model looks ahead, or its logits are not made of its last hidden states alone.
    """
    import torch

    model: Any = loaded.model
    body, name = model.base_model, loaded.checkpoint.model
    with torch.inference_mode():
        ids, states = check_causal(body, loaded.device, name)
        logits = _find_logits(model, ids, states)
        if body is model or logits is None:
            raise ModelError(f"the logits of {name} are not made of its last hidden states; pass another causal model")
        kept = _prefix(body, prefix, ids[:1]) if prefix else ()
    if loaded.checkpoint.compile:
        body = torch.compile(body.forward, dynamic=True)
    limit = LOGITS_BYTES.get(loaded.device.partition(":")[0], LOGITS_BYTES["cpu"])
    vocabulary = int(model.config.get_text_config().vocab_size)
    rows = max(1, limit // (4 * vocabulary * KERNEL_ROWS)) * KERNEL_ROWS
    return CausalScorer(body, logits, rows, kept)


def _find_logits(model: Any, ids: "torch.Tensor", states: "torch.Tensor") -> Logits | None:
    """What makes a model's logits of its last hidden states; None where nothing does."""
    import torch

    # The class's own forward: that of the object may be compiled.
    logits = type(model).forward(model, input_ids=ids, use_cache=False).logits
    head = model.get_output_embeddings()
    # Bit for bit: a soft cap changes small logits by less than any tolerance.
    if head is not None and torch.equal(head(states), logits):
        exact: Logits = head
        return exact
    rest = _without_body(model)
    return rest if is_close(rest(states), logits) else None


def _without_body(model: Any) -> Logits:
    """The model with its body replaced by given hidden states: head, scaling, soft cap, and whatever else it does."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class Given(torch.nn.Module):
        def forward(self, inputs_embeds: torch.Tensor, **_: Any) -> BaseModelOutputWithPast:
            return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)

    rest = copy.copy(model)
    rest.__dict__.pop("forward", None)
    rest._modules = {**model._modules, model.base_model_prefix: Given()}

    def logits(states: torch.Tensor) -> torch.Tensor:
        batch = states if states.ndim == 3 else states[None]
        scores: torch.Tensor = rest(inputs_embeds=batch, use_cache=False).logits
        return scores.reshape(*states.shape[:-1], -1)

    return logits


def _prefix(body: Callable[..., Any], prefix: Sequence[int], probe: "torch.Tensor") -> KeysValues:
    """Keys and values of a beginning; none where going on from them is not the same as reading it again."""
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    start = torch.tensor([list(prefix)], device=probe.device)
    cache: Any = getattr(body(input_ids=start, use_cache=True), "past_key_values", None)
    layers: list[Any] = cache.layers if type(cache) is DynamicCache else []
    # Other layers, those with a sliding window among them, do not keep every token.
    if any(type(layer) is not DynamicLayer for layer in layers):
        return ()
    kept = tuple((layer.keys, layer.values) for layer in layers)
    whole = last_states(body, torch.cat([start, probe], dim=1))[:, len(prefix) :]
    return kept if kept and is_close(last_states(body, probe, _cache_of(kept, 1)), whole) else ()


def _cache_of(prefix: KeysValues, batch: int) -> Any:
    """A cache of its own for one batch: a model's run appends to it and leaves the stored tensors alone."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache([(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v in prefix])
