"""Distance of each row to its k-th nearest other row as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement
import im_datasets.models.embedder as embedding

_DESCRIPTION = """
Distance of each instruction-response pair to its k-th nearest other pair among the rows given, in the space of sentence
embeddings: low where rows resemble each other.
"""

_CITATION = """
@inproceedings{dong2011efficient,
  title     = {Efficient k-nearest neighbor graph construction for generic similarity measures},
  author    = {Dong, Wei and Charikar, Moses and Li, Kai},
  booktitle = {Proceedings of the 20th International Conference on World Wide Web},
  year      = {2011}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    references: Instructions, one string (or list of messages) per row.
    k: Which neighbour, from 1; 6 by default. At least k + 1 rows must be scorable.
    metric: "euclidean" (the default), or "cosine" for 1 - cosine.
    text: What is embedded: "pair" (the default), "instruction", "response", or "both" vectors side by side.
    model: "embedded" (the default: all-MiniLM-L6-v2, which needs no download), a sentence-transformers id, or a folder.
    revision: Branch, tag or commit of a Hub model.
    dtype: "float32" (the default), "bfloat16" or "float16".
    device: "cpu", "cuda", "cuda:1" or "mps"; by default an accelerator where there is one.
    max_tokens: Tokens read of a text; by default the model's own limit.

Returns:
    im_knn_<k>: Distance of each row, 0 or more; NaN where the row could not be scored.
    mean_im_knn_<k>: The mean over the scored rows; NaN where there are none.
    unscored_im_knn_<k>: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> knn = im_datasets.metric("knn")
    >>> asked = ["Name a fruit.", "Name a fruit.", "Name a colour.", "When does the train leave?"]
    >>> answers = ["An apple.", "An apple.", "Blue.", "At noon."]
    >>> [round(value, 2) for value in knn.compute(references=asked, predictions=answers, k=1)["im_knn_1"]]
    [0.0, 0.0, 1.03, 1.3]
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImKnn(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION, ["https://arxiv.org/abs/2307.06290"])

    def batch_function(
        self, k: int = 6, metric: Any = "euclidean", text: Any = "pair", **settings: Any
    ) -> indicators.KNNDistance:
        """The indicator with these settings, not yet fitted."""
        return indicators.KNNDistance(k=k, metric=metric, text=text, embedder=embedding.Embedder(**settings))

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        k: int | None = None,
        metric: str | None = None,
        text: str | None = None,
        model: str | None = None,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
    ) -> dict[str, Any]:
        return self.measure(
            predictions,
            references,
            k=k,
            metric=metric,
            text=text,
            model=model,
            revision=revision,
            dtype=dtype,
            device=device,
            max_tokens=max_tokens,
        )
