"""A function of one's own as an indicator: its columns enter a rule, its mistakes are told."""

import math

import pytest
from datasets import Dataset

from im_datasets import InstructMining, LinearRule
from im_datasets.common.errors import IndicatorError
from im_datasets.indicators import FunctionIndicator
from im_datasets.rules.linear import Term
from im_datasets.scoring.score import score

ROWS = Dataset.from_dict({"prompt": ["Hi.", "Bye.", "?"], "completion": ["Hello? You?", "Bye.", None]})


def questions(batch):
    return {"my_questions": [text.count("?") for text in batch["response"]]}


INDICATOR = FunctionIndicator(function=questions, names=("my_questions",))
RULE = LinearRule("few", "few questions", 1.0, (Term("my_questions", 0.5),))


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_function_enters_a_rule(num_proc):
    mapped = ROWS.map(InstructMining(RULE, indicators=[INDICATOR]), batched=True, num_proc=num_proc)
    assert mapped["im_log_loss"][:2] == [2.0, 1.0]
    assert math.isnan(mapped["im_log_loss"][2])
    assert mapped["im_unscorable"][2] == "missing response"


def test_a_function_is_named_in_the_record():
    record = score(ROWS, RULE, indicators=[INDICATOR], describe=False, progress=False).record
    assert record.indicators[0].settings == {"function": f"{__name__}.questions", "names": ["my_questions"]}


def test_a_function_that_leaves_out_its_column_is_told():
    wrong = FunctionIndicator(function=questions, names=("other",))
    with pytest.raises(IndicatorError, match=r"gave the columns \['my_questions'\] and not 'other'"):
        wrong.score(["a"], ["b"])


def test_a_function_that_gives_too_few_values_is_told():
    wrong = FunctionIndicator(function=lambda batch: {"x": [1.0]}, names=("x",))
    with pytest.raises(IndicatorError, match=r"'x' of shape \(1,\) for 2 rows"):
        wrong.score(["a", "b"], ["c", "d"])
