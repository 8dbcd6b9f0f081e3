"""UniEval's naturalness, coherence and understandability as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators as indicators
import im_datasets.indicators.metric as measurement

_DESCRIPTION = """
UniEval: yes/no questions about a response, answered by a T5 that was trained to judge dialogue. A score is
p(Yes) / (p(Yes) + p(No)) at the first word of the answer. Higher is better.
"""

_CITATION = """
@inproceedings{zhong2022towards,
  title     = {Towards a Unified Multi-Dimensional Evaluator for Text Generation},
  author    = {Zhong, Ming and Liu, Yang and Yin, Da and Mao, Yuning and Jiao, Yizhu and Liu, Pengfei and Zhu, Chenguang
               and Ji, Heng and Han, Jiawei},
  booktitle = {Proceedings of EMNLP},
  year      = {2022}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Responses, one string (or list of messages) per row.
    references: Instructions, one string (or list of messages) per row.
    model: A T5 that answers Yes or No: an id of the Hub, or a local folder; "MingZhong/unieval-dialog" by default.
    revision: Branch, tag or commit of a Hub model.
    dtype: "float32", "bfloat16" or "float16"; float32 by default.
    device: "cpu", "cuda", "cuda:1" or "mps"; by default an accelerator where there is one.
    max_tokens: Tokens read of an input; 1,024 by default.
    dimensions: Published dimensions, of naturalness, coherence, understandability (the default), engagingness and
        groundedness; each gives im_<dimension>.
    questions: Questions of your own: key of the result -> the whole input, with {response}, {instruction} and {fact}.
    fact: The fact that engagingness and groundedness judge by, the same for all rows.

Returns:
    im_naturalness, im_coherence, im_understandability: Scores of each pair, 0 to 1; NaN where the row could not
        be scored.
    mean_im_naturalness, mean_im_coherence, mean_im_understandability: The means over the scored rows; NaN where there
        are none.
    unscored_im_naturalness, unscored_im_coherence, unscored_im_understandability: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> unieval = im_datasets.metric("unieval", model="MingZhong/unieval-dialog")
    >>> result = unieval.compute(references=["Name a fruit.", "Say hello."], predictions=["An apple.", ""])
    >>> 0 < result["im_coherence"][0] < 1, result["unscored_im_coherence"]
    (True, 1)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImUnieval(measurement.IndicatorMetric):
    """See the card."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(
            _DESCRIPTION,
            _CITATION,
            _KWARGS_DESCRIPTION,
            ["https://arxiv.org/abs/2210.07197", "https://github.com/maszhongming/UniEval"],
        )

    def batch_function(self, **settings: Any) -> indicators.UniEval:
        """The indicator with these settings."""
        return indicators.UniEval(**settings)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        model: str | None = None,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
        dimensions: list[str] | None = None,
        questions: dict[str, str] | None = None,
        fact: str | None = None,
    ) -> dict[str, Any]:
        return self.measure(
            predictions,
            references,
            model=model,
            revision=revision,
            dtype=dtype,
            device=device,
            max_tokens=max_tokens,
            dimensions=dimensions,
            questions=questions,
            fact=fact,
        )
