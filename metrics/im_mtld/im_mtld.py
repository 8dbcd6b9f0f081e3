"""MTLD of responses as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement

_DESCRIPTION = """
MTLD, the measure of textual lexical diversity: the mean number of consecutive words over which a text keeps its
type-token ratio above a threshold. Higher is more varied. Values equal those of lexicalrichness.
"""

_CITATION = """
@article{mccarthy2010mtld,
  title   = {{MTLD}, vocd-{D}, and {HD-D}: A validation study of sophisticated approaches to lexical diversity
             assessment},
  author  = {McCarthy, Philip M. and Jarvis, Scott},
  journal = {Behavior Research Methods},
  volume  = {42},
  number  = {2},
  pages   = {381--392},
  year    = {2010}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    threshold: Type-token ratio at or below which a stretch is closed, above 0 and below 1; 0.72 by default.

Returns:
    im_mtld: MTLD of each response in words; NaN for a response without a word.
    mean_im_mtld: The mean over the scored rows; NaN where there are none.
    unscored_im_mtld: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> mtld = im_datasets.metric("mtld")
    >>> mtld.compute(predictions=["To be, or not to be, said he.", "Hello!", "42"])
    {'im_mtld': [8.48, 1.0, nan], 'mean_im_mtld': 4.74, 'unscored_im_mtld': 1}
    >>> mtld.compute(predictions=["To be, or not to be, said he."], threshold=0.5)["im_mtld"]
    [16.0]
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImMtld(measurement.IndicatorMetric):
    """See the card."""

    reads_instruction = False

    def _info(self) -> evaluate.MetricInfo:
        urls = ["https://doi.org/10.3758/BRM.42.2.381"]
        return self.describe(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION, urls)

    def batch_function(self, **settings: Any) -> indicators.MTLD:
        """The indicator with these settings."""
        return indicators.MTLD(**settings)

    def _compute(self, predictions: list[str], threshold: float | None = None) -> dict[str, Any]:
        return self.measure(predictions, threshold=threshold)
