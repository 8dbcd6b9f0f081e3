"""A reward model's score of responses as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement

_DESCRIPTION = """
A reward model's score of a response to its instruction: the bare logit of any sequence-classification model with one
label. Unbounded; only differences between scores of the same model carry meaning. Higher is better.
"""

_CITATION = """
@inproceedings{kopf2023openassistant,
  title     = {{OpenAssistant} Conversations -- Democratizing Large Language Model Alignment},
  author    = {Köpf, Andreas and Kilcher, Yannic and others},
  booktitle = {Advances in Neural Information Processing Systems, Datasets and Benchmarks},
  year      = {2023}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    references: Instructions, one string (or list of messages) per row.
    model: A sequence-classification model with one label: an id of the Hub, or a local folder;
        "OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5" by default.
    revision: Branch, tag or commit of a Hub model.
    dtype: "float32", "bfloat16" or "float16"; by default float32 on a CPU, half precision on a GPU.
    device: "cpu", "cuda", "cuda:1" or "mps"; by default an accelerator where there is one.
    max_tokens: Tokens read of a row; by default the model's own limit, or 2,048 where it has none.
    template: How a pair is written: "oasst", "chat" (the tokenizer's own), "pair", "plain", or a text with
        {instruction} and {response} in it; by default as the model's files say.

Returns:
    im_reward: Score of each pair; NaN where the row could not be scored.
    mean_im_reward: The mean over the scored rows; NaN where there are none.
    unscored_im_reward: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> reward = im_datasets.metric("reward", model="OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5")
    >>> result = reward.compute(references=["Name a fruit.", "Say hello."], predictions=["An apple.", ""])
    >>> result["im_reward"][0] == result["mean_im_reward"], result["unscored_im_reward"]
    (True, 1)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImReward(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(
            _DESCRIPTION,
            _CITATION,
            _KWARGS_DESCRIPTION,
            ["https://arxiv.org/abs/2307.06290", "https://arxiv.org/abs/2304.07327"],
        )

    def batch_function(self, **settings: Any) -> indicators.Reward:
        """The indicator with these settings."""
        return indicators.Reward(**settings)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        model: str | None = None,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
        template: str | None = None,
    ) -> dict[str, Any]:
        return self.measure(
            predictions,
            references,
            model=model,
            revision=revision,
            dtype=dtype,
            device=device,
            max_tokens=max_tokens,
            template=template,
        )
