"""Whole, matching answer or a damaged one, as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement
import im_datasets.models.embedder as embedding

_DESCRIPTION = """
The logit of a small head over frozen sentence embeddings and surface features of the pair, trained to tell a row's own
response from a damaged one: another row's, cut, scrambled, looped, an echo, an empty phrase, another language. Higher
is better. It says nothing about truth.
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
    device: "cpu", "cuda", "cuda:1" or "mps"; by default an accelerator where there is one.

Returns:
    im_quality: Logit of each pair; NaN where the row could not be scored.
    mean_im_quality: The mean over the scored rows; NaN where there are none.
    unscored_im_quality: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> quality = im_datasets.metric("quality")
    >>> asked = ["How does a mango taste?"] * 3
    >>> answers = ["A ripe mango tastes sweet, with a hint of pine.", "How does a mango taste?", "The train was late."]
    >>> [round(value, 1) for value in quality.compute(references=asked, predictions=answers)["im_quality"]]
    [2.0, -3.8, -4.3]
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImQuality(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION, ["https://arxiv.org/abs/2307.06290"])

    def batch_function(self, **settings: Any) -> indicators.Quality:
        """The indicator with these settings."""
        return indicators.Quality(embedder=embedding.Embedder(**settings))

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        device: str | None = None,
    ) -> dict[str, Any]:
        return self.measure(predictions, references, device=device)
