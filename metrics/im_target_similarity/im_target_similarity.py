"""Nearness of each row to some target examples as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement
import im_datasets.models.embedder as embedding

_DESCRIPTION = """
Cosine of each instruction-response pair to the nearest of some target examples: how close a row is to the job that
these show. By sentence embeddings, or by a causal model's position-weighted hidden states (RDS+).
"""

_CITATION = """
@misc{ivison2025large,
  title         = {Large-Scale Data Selection for Instruction Tuning},
  author        = {Ivison, Hamish and Zhang, Muru and Brahman, Faeze and Koh, Pang Wei and Dasigi, Pradeep},
  year          = {2025},
  eprint        = {2503.01807},
  archiveprefix = {arXiv}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    references: Instructions, one string (or list of messages) per row.
    targets: The examples: a list of (instruction, response) pairs or of rows, a Dataset, a file, or a Hub id.
    model: "embedded" (the default, which needs no download), or an id or a folder of a model of that kind.
    kind: "sentence" (the default), an encoder of sentences; "causal", a language model (RDS+).
    revision: Branch, tag or commit of a Hub model.
    dtype: "float32" (the default), "bfloat16" or "float16".
    device: "cpu", "cuda", "cuda:1" or "mps"; by default an accelerator where there is one.
    max_tokens: Tokens read of a row; by default the model's own limit, of a causal one at most 2,048.

Returns:
    im_target_similarity: Cosine of each pair to its nearest target, -1 to 1; NaN where the row could not be scored.
    mean_im_target_similarity: The mean over the scored rows; NaN where there are none.
    unscored_im_target_similarity: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> similarity = im_datasets.metric("target_similarity", targets=[("Name a fruit.", "An apple.")])
    >>> asked, answers = ["Name a berry.", "When does the train leave?"], ["A currant.", "At noon."]
    >>> [round(value, 2) for value in similarity.compute(references=asked, predictions=answers)["im_target_similarity"]]
    [0.6, 0.08]
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImTargetSimilarity(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION, ["https://arxiv.org/abs/2503.01807"])

    def batch_function(self, targets: Any = None, **settings: Any) -> indicators.TargetSimilarity:
        """The indicator with these settings."""
        return indicators.TargetSimilarity(targets=targets, embedder=embedding.Embedder(**settings))

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        targets: Any = None,
        model: str | None = None,
        kind: str | None = None,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
    ) -> dict[str, Any]:
        return self.measure(
            predictions,
            references,
            targets=targets,
            model=model,
            kind=kind,
            revision=revision,
            dtype=dtype,
            device=device,
            max_tokens=max_tokens,
        )
