"""The whole rule as an `evaluate` metric."""

from typing import Any

import evaluate

import im_datasets.indicators.metric as measurement
import im_datasets.rules.instruct_mining as mining
import im_datasets.rules.linear as linear

_DESCRIPTION = """
InstructMining's prediction of the log of the inference loss that a model finetuned on such rows would have: a linear
rule over indicators, each computed here. Lower is better.
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
    rule: A shipped rule's name ("embedded", the default, which needs no download; "v1", "v3"), the path of a rule's
        JSON, the JSON itself, or a LinearRule.
    indicators: Indicators with settings of your own, taken instead of the rule's default ones.

Returns:
    im_log_loss: The rule's prediction for each row; NaN where the row could not be scored.
    mean_im_log_loss: The mean over the scored rows; NaN where there are none.
    unscored_im_log_loss: How many rows could not be scored.

Examples:
    >>> import im_datasets
    >>> log_loss = im_datasets.metric("log_loss")
    >>> asked = ["What does a mango taste like?"] * 2
    >>> answers = ["A ripe mango tastes sweet, with a hint of pine.", "What does a mango taste like?"]
    >>> [round(value, 1) for value in log_loss.compute(references=asked, predictions=answers)["im_log_loss"]]
    [-2.1, 3.8]
    >>> from im_datasets.rules.linear import LinearRule, Term
    >>> shorter = LinearRule("shorter", "shorter is better", 0.0, (Term("im_output_length", 0.01),))
    >>> log_loss.compute(references=asked, predictions=answers, rule=shorter)["im_log_loss"]
    [0.12, 0.07]
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImLogLoss(measurement.IndicatorMetric):
    """See the card."""

    reports = ("im_log_loss",)

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION, ["https://arxiv.org/abs/2307.06290"])

    def batch_function(self, rule: Any = "embedded", indicators: Any = ()) -> mining.InstructMining:
        """The rule with its indicators, not yet fitted."""
        return mining.InstructMining(linear.read_rule(rule), indicators=indicators)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        rule: Any = None,
        indicators: Any = None,
    ) -> dict[str, Any]:
        return self.measure(predictions, references, rule=rule, indicators=indicators)
