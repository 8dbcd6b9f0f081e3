"""Lengths of instructions and responses in tokens as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement

_DESCRIPTION = """
Lengths of instruction and response in tokens, under a named tokenizer. The whole text counts, however long; special
tokens that a model puts around a text do not.
"""

_CITATION = """
@article{cao2023instruction,
  title   = {Instruction Mining: Instruction Data Selection for Tuning Large Language Models},
  author  = {Cao, Yihan and Kang, Yanbin and Wang, Chi and Sun, Lichao},
  journal = {arXiv preprint arXiv:2307.06290},
  year    = {2023}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    references: Instructions, one string (or list of messages) per row.
    tokenizer: "embedded" (the default: that of all-MiniLM-L6-v2, which needs no download), a model id of the Hub, or
        a folder with a tokenizer.
    revision: Branch, tag or commit of a Hub model.

Returns:
    im_input_length, im_output_length: Tokens of each instruction and response; NaN where either is empty.
    mean_im_input_length, mean_im_output_length: The means over the scored rows; NaN where there are none.
    unscored_im_input_length, unscored_im_output_length: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> length = im_datasets.metric("length")
    >>> result = length.compute(references=["Name a fruit.", "Say hello."], predictions=["An apple.", "Hello, world!"])
    >>> result["im_input_length"], result["im_output_length"]
    ([4.0, 3.0], [3.0, 4.0])
    >>> result["mean_im_output_length"], result["unscored_im_output_length"]
    (3.5, 0)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImLength(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION, ["https://arxiv.org/abs/2307.06290"])

    def batch_function(self, **settings: Any) -> indicators.Length:
        """The indicator with these settings."""
        return indicators.Length(**settings)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        tokenizer: str | None = None,
        revision: str | None = None,
    ) -> dict[str, Any]:
        return self.measure(predictions, references, tokenizer=tokenizer, revision=revision)
