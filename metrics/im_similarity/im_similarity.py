"""Closeness of response to instruction as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement
import im_datasets.models.embedder as embedding

_DESCRIPTION = """
Cosine between the sentence embeddings of instruction and response: low where the response speaks of something else,
1 where it repeats the instruction.
"""

_CITATION = """
@inproceedings{reimers2019sentence,
  title     = {Sentence-{BERT}: Sentence Embeddings using {S}iamese {BERT}-Networks},
  author    = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Proceedings of EMNLP-IJCNLP},
  year      = {2019}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    references: Instructions, one string (or list of messages) per row.
    model: "embedded" (the default: all-MiniLM-L6-v2, which needs no download), a sentence-transformers id, or a folder.
    revision: Branch, tag or commit of a Hub model.
    dtype: "float32" (the default), "bfloat16" or "float16".
    device: "cpu", "cuda", "cuda:1" or "mps"; by default an accelerator where there is one.
    max_tokens: Tokens read of a text; by default the model's own limit.

Returns:
    im_similarity: Cosine of each pair, -1 to 1; NaN where the row could not be scored.
    mean_im_similarity: The mean over the scored rows; NaN where there are none.
    unscored_im_similarity: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> similarity = im_datasets.metric("similarity")
    >>> asked = ["Name a fruit.", "Name a fruit."]
    >>> result = similarity.compute(references=asked, predictions=["An apple.", "The train leaves at noon."])
    >>> [round(value, 3) for value in result["im_similarity"]]
    [0.552, 0.072]
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImSimilarity(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION, ["https://www.sbert.net"])

    def batch_function(self, **settings: Any) -> indicators.Similarity:
        """The indicator with these settings."""
        return indicators.Similarity(embedder=embedding.Embedder(**settings))

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        model: str | None = None,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
    ) -> dict[str, Any]:
        return self.measure(
            predictions,
            references,
            model=model,
            revision=revision,
            dtype=dtype,
            device=device,
            max_tokens=max_tokens,
        )
