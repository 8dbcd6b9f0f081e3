"""The Open-Assistant Pythia reward models: a GPT-NeoX body, one linear layer, the hidden state of the last token.

Their repositories hold weights and a config of type ``gpt_neox_reward_model``, which transformers does not know, and
no code. ``register`` teaches it to the Auto classes; parameter names are those of the published state dicts.
"""

from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, GPTNeoXConfig, GPTNeoXTokenizer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXModel, GPTNeoXPreTrainedModel
from typing_extensions import override

MODEL_TYPE = "gpt_neox_reward_model"
"""What the published configs call themselves."""


class GPTNeoXRewardModelConfig(GPTNeoXConfig):  # type: ignore[no-untyped-call]
    """A GPT-NeoX config with one label.

    Attributes:
        pooling: Which hidden state is scored: ``"last"``, of the last real token, or ``"mean"``, of all of them.
    """

    model_type = MODEL_TYPE
    pooling: Literal["last", "mean"] | None = "last"

    @override
    def __post_init__(self, **kwargs: Any) -> None:
        self.pooling = self.pooling or "last"
        if self.pooling not in {"last", "mean"}:
            raise ValueError(f"pooling {self.pooling!r} is unknown; known: last, mean")
        if self.id2label is None:
            # The published configs say nothing of labels, and transformers would take that for two.
            kwargs.setdefault("num_labels", 1)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]


class GPTNeoXRewardModel(GPTNeoXPreTrainedModel):  # type: ignore[no-untyped-call]
    """One unbounded score per sequence; only differences between scores carry meaning.

    Padding may stand on either side: positions are counted from the first real token.
    """

    config_class = GPTNeoXRewardModelConfig

    def __init__(self, config: GPTNeoXRewardModelConfig) -> None:
        super().__init__(config)
        self.gpt_neox = GPTNeoXModel(config)
        self.out_proj = nn.Linear(config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    @override
    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Score sequences.

        Args:
            input_ids: Shape (batch, length).
            attention_mask: 1 for a real token, same shape; None where all are.
            kwargs: What else transformers passes on, such as ``output_hidden_states``.

        Returns:
            ``logits`` of shape (batch, 1).
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        # No token follows that would read the keys and values kept.
        kwargs["use_cache"] = False
        body = self.gpt_neox(input_ids, attention_mask=mask, position_ids=places, **kwargs)
        return SequenceClassifierOutput(
            logits=self.out_proj(self._pooled(body.last_hidden_state, mask)),
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )

    def _pooled(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """From (batch, length, hidden) to (batch, hidden)."""
        if self.config.pooling == "mean":
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * weights).sum(1) / weights.sum(1)
        last = (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(-1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]


def register() -> None:
    """Have transformers' Auto classes know config, tokenizer and model of this type; a second time changes nothing."""
    AutoConfig.register(MODEL_TYPE, GPTNeoXRewardModelConfig, exist_ok=True)
    tokenizers: Any = AutoTokenizer
    tokenizers.register(GPTNeoXRewardModelConfig, fast_tokenizer_class=GPTNeoXTokenizer, exist_ok=True)
    AutoModelForSequenceClassification.register(GPTNeoXRewardModelConfig, GPTNeoXRewardModel, exist_ok=True)
