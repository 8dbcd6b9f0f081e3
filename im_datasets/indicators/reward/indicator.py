"""What a reward model says of a response to its instruction."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import override

from im_datasets.common.errors import ModelError
from im_datasets.data.pairs import Pairs, Spoken
from im_datasets.indicators.model import ModelIndicator
from im_datasets.indicators.reward.formats import REFUSED, check_template, choose_template, open_format
from im_datasets.models.batching import KERNEL_ROWS, TokenBatch
from im_datasets.models.checkpoints import Checkpoint, Kind, Loaded
from im_datasets.models.inference import BatchRunner, TensorBatch
from im_datasets.models.meter import count

if TYPE_CHECKING:
    import torch

UNBOUNDED_TOKENS = 2048
"""Tokens read of an input by a model whose positions have no end, unless ``max_tokens`` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Reward(ModelIndicator):
    """A reward model's score of a response: unbounded, only differences carry meaning; higher is better.

    Any sequence-classification model with one label serves. The score is the bare logit that the model gives for the
    one sequence without padding; in bfloat16 or float16 it is rounded as the model rounds it. A causal model is
    pooled where its own class pools it, the last token that is not its padding token; the Open-Assistant Pythia
    models at the last token whichever it is. NaN where the answer is not finite, or the template refuses the turns.

    An over-long pair loses the beginning of its prompt, down to 256 tokens or a quarter of what the model reads, then
    the end of its response, and never the tokens that the score is read from (see ``formats``).

    What runs the model, and where, is set as for every ``ModelIndicator``.

    Attributes:
        model: A model id of the Hub, or a local folder.
        max_tokens: Tokens read of a pair, template included; None is the model's own limit, or ``UNBOUNDED_TOKENS``
            where its positions have no end.
        template: How a pair is written. ``"oasst"``: ``<|prompter|>x<|endoftext|><|assistant|>y<|endoftext|>``, earlier
            turns in the same way; ``"chat"``: the tokenizer's chat template; ``"pair"``: the two texts of a pair, as
            an encoder reads them; ``"plain"``: instruction, blank line, response; or a text with ``{instruction}`` and
            ``{response}``. None chooses by the model's files, as ``choose_template`` says.

    Raises:
        IndicatorError: ``max_tokens`` leaves no room for text, or the template cannot be read.

    Example:
        >>> Reward(template="Q: {instruction} A: {response}").writes
        ('im_reward',)
    """

    version: ClassVar[str] = "1"
    kind: ClassVar[Kind] = "sequence-classification"

    model: str = "OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5"
    template: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template(self.template)

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_reward",)

    @override
    def score_turns(self, pairs: Pairs) -> Mapping[str, ArrayLike]:
        items: list[Spoken] = [
            (*context, ("assistant", response))
            for context, response in zip(pairs.contexts, pairs.responses, strict=True)
        ]
        computed = self.compute(items)
        count(truncated=int(np.count_nonzero(computed.truncated)))
        return {"im_reward": computed.values[:, 0]}

    @override
    def engine(self) -> BatchRunner:
        return _runner(self.checkpoint.resolve(), self.template, self.max_tokens)

    @override
    def space(self) -> dict[str, Any]:
        return {"indicator": "reward", "version": self.version, "template": self.template}

    @override
    def describe(self) -> dict[str, Any]:
        return super().describe() | {"template": self.template or _chosen_template(self.checkpoint.resolve())}


@lru_cache(maxsize=4)
def _runner(checkpoint: Checkpoint, template: str | None, max_tokens: int | None) -> BatchRunner:
    loaded = checkpoint.load()
    config = loaded.model.config
    _check_kind(checkpoint.model, config)
    positions = loaded.max_tokens
    limit = min(bound for bound in (max_tokens or positions or UNBOUNDED_TOKENS, positions) if bound is not None)
    chosen = template or choose_template(config.model_type, loaded.tokenizer)
    padding = config.get_text_config().pad_token_id
    return BatchRunner(
        tokenize=open_format(chosen, loaded.tokenizer, limit).tokenize,
        forward=_forward(loaded, pair=chosen == "pair"),
        width=1,
        # Without a padding token any id will do: the mask hides it.
        pad_id=0 if padding is None else padding,
        device=loaded.device,
        budget=loaded.budget,
        longest=positions,
        size=_size,
    )


def _size(item: Spoken) -> int:
    return sum(len(text) for _, text in item)


@lru_cache(maxsize=32)
def _chosen_template(checkpoint: Checkpoint) -> str:
    """The template that None comes to, found without loading the weights."""
    config, tokenizer = checkpoint.open_files()
    return choose_template(config.model_type, tokenizer)


def _check_kind(model: str, config: Any) -> None:
    if config.is_encoder_decoder:
        raise ModelError(
            f"{model} is an encoder-decoder ({config.model_type}), which Reward does not read; pass a "
            "sequence-classification model with one label"
        )
    if config.num_labels != 1:
        raise ModelError(
            f"{model} has {config.num_labels} labels, a reward model has one; pass a sequence-classification model "
            "that was trained with num_labels=1"
        )


def _forward(loaded: Loaded, *, pair: bool) -> Callable[[TensorBatch], "torch.Tensor"]:
    """From a batch to logits of shape (batch, 1), each that of its sequence alone and without padding.

    transformers' causal classifiers look for the last token that differs from ``config.pad_token_id``. Rows padded
    with that very token therefore keep the place that the class pools without padding. Where the config names no
    padding token the class takes the last place and refuses batches, so the head is applied here.
    """
    accepted = inspect.signature(type(loaded.model).forward).parameters
    # One pass needs no keys and values of earlier tokens, and keeping them takes memory.
    settings: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    typed = pair and _marks_second_text(loaded, accepted)
    unpadded = loaded.model.config.get_text_config().pad_token_id is None and hasattr(loaded.model, "score")
    if not loaded.checkpoint.compile:
        _even_rows(loaded.model)
    run = _pooled_at_the_end(loaded, settings) if unpadded else _own_forward(loaded, settings, typed=typed)

    def forward(inputs: TensorBatch) -> "torch.Tensor":
        if inputs.group == REFUSED:
            # Stand-ins of one token; the model has nothing to say of them.
            return inputs.ids.new_full((len(inputs.ids), 1), 0).float().fill_(float("nan"))
        return run(inputs)

    return forward


def _even_rows(model: Any) -> None:
    """Have linear layers that read one vector per sequence give the same bits however many sequences there are.

    The batcher sees to that for one vector per token only. These layers are the head, and the pooler of BERT's kin.
    """
    import torch

    for name, layer in model.named_modules():
        outside = not name.startswith(f"{model.base_model_prefix}.")
        # A model is opened once per process and may be asked with several templates: one hook is enough.
        if (
            isinstance(layer, torch.nn.Linear)
            and (outside or "pooler" in name)
            and _evened not in layer._forward_hooks.values()
        ):
            layer.register_forward_hook(_evened)


def _evened(layer: "torch.nn.Linear", inputs: tuple["torch.Tensor", ...], output: "torch.Tensor") -> "torch.Tensor":
    """The output computed again with a number of rows at which each gets the same bits."""
    from torch.nn import functional

    rows = inputs[0].shape[0]
    if inputs[0].dim() != 2 or inputs[0].device.type != "cpu" or rows % KERNEL_ROWS == 0:
        return output
    padded = functional.pad(inputs[0], (0, 0, 0, -rows % KERNEL_ROWS))
    return functional.linear(padded, layer.weight, layer.bias)[:rows]


def _own_forward(loaded: Loaded, settings: dict[str, Any], *, typed: bool) -> Callable[[TensorBatch], "torch.Tensor"]:
    import torch

    def run(inputs: TensorBatch) -> "torch.Tensor":
        places = torch.arange(inputs.ids.shape[1], device=inputs.ids.device)
        second = (places >= inputs.starts[:, None]) & (places < inputs.lengths[:, None])
        types = {"token_type_ids": second.long()} if typed else {}
        logits: torch.Tensor = loaded.model(
            input_ids=inputs.ids, attention_mask=inputs.mask, **types, **settings
        ).logits
        return logits

    return run


def _pooled_at_the_end(loaded: Loaded, settings: dict[str, Any]) -> Callable[[TensorBatch], "torch.Tensor"]:
    import torch

    body, head = loaded.model.base_model, cast("torch.nn.Module", loaded.model.score)

    def run(inputs: TensorBatch) -> "torch.Tensor":
        hidden = body(input_ids=inputs.ids, attention_mask=inputs.mask, **settings)[0]
        rows = torch.arange(len(hidden), device=hidden.device)
        logits: torch.Tensor = head(hidden[rows, inputs.lengths - 1])
        return logits

    with torch.inference_mode():
        ids = torch.arange(1, 4, device=loaded.device)[None]
        lengths, row = torch.tensor([3], device=loaded.device), np.zeros(1, dtype=np.int64)
        alone = TokenBatch(ids, torch.ones_like(ids), lengths, ids[:, 0], row)
        own = loaded.model(input_ids=ids, attention_mask=alone.mask, **settings).logits
        if not torch.allclose(own.float(), run(alone).float(), rtol=1e-2, atol=1e-3, equal_nan=True):
            raise ModelError(
                f"{loaded.checkpoint.model} names no padding token and does not score its last token, so it cannot "
                "be run in batches; set pad_token_id in its config.json to the token it was trained with"
            )
    return run


def _marks_second_text(loaded: Loaded, accepted: Mapping[str, Any]) -> bool:
    """Whether the model is told which tokens are of the second text.

    Raises:
        ModelError: It is told in another way than by 0 for the first text and 1 for the second.
    """
    types = loaded.tokenizer("a", "a").get("token_type_ids")
    if types is None or "token_type_ids" not in accepted:
        return False
    if types != sorted(types) or set(types) != {0, 1}:
        raise ModelError(f"{loaded.checkpoint.model} marks the texts of a pair as {types}; pass template='plain'")
    return True
