"""The base of the modules: what it accepts as rows, how it sums up, and that it stays invisible to evaluate."""

from inspect import isabstract
from math import isnan, nan

import numpy as np
import pytest
from datasets import Dataset

import im_datasets
from im_datasets.common.errors import IndicatorError, ModuleNameError, RuleError
from im_datasets.indicators import metric as measurement
from im_datasets.indicators.metric import as_strings, module_path, summarise
from im_datasets.rules.linear import LinearRule, read_rule

MESSAGES = [{"role": "user", "content": "Zähle: 1, 2, 3."}]


@pytest.fixture(scope="module")
def mtld():
    return im_datasets.metric("mtld", keep_in_memory=True)


@pytest.fixture(scope="module")
def length():
    return im_datasets.metric("length", keep_in_memory=True)


def test_base_is_abstract_so_that_evaluate_passes_it_by():
    assert isabstract(measurement.IndicatorMetric)


def test_summarise_leaves_nan_out_of_the_mean_and_counts_it():
    scores = {"im_mtld": [1.0, nan, 3.0], "im_quality": [nan], "im_unscorable": ["", "no response", ""]}
    result = summarise(scores, ["im_mtld", "im_unscorable"])
    assert list(result) == ["im_mtld", "mean_im_mtld", "unscored_im_mtld"]
    assert (result["mean_im_mtld"], result["unscored_im_mtld"]) == (2.0, 1)
    assert isnan(summarise(scores, ["im_quality"])["mean_im_quality"])


def test_summarise_keeps_an_infinite_value_in_the_mean():
    assert summarise({"im_perplexity": [1.0, float("inf")]}, ["im_perplexity"])["mean_im_perplexity"] == float("inf")


@pytest.mark.parametrize("rows", [("a", "b"), np.array(["a", "b"]), Dataset.from_dict({"t": ["a", "b"]})["t"]])
def test_as_strings_takes_any_sequence_of_strings(rows):
    assert as_strings("predictions", rows) == ["a", "b"]


def test_as_strings_takes_no_messages_for_no_text():
    assert as_strings("predictions", [[], None, ""]) == ["", "", ""]


def test_as_strings_keeps_messages_as_json():
    assert as_strings("references", [MESSAGES]) == ['[{"role": "user", "content": "Zähle: 1, 2, 3."}]']


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, r"inputs are missing: \['predictions'\]"),
        ("text", "predictions is one str; pass a list with one string per row"),
        ({"role": "user"}, "predictions is one dict"),
        (3, "predictions is one int"),
        (["a", 3], r"don't match the expected format.*\npredictions\[1\] is 3 of type int"),
        ([["a", "b"]], r"predictions\[0\] is \['a', 'b'\] of type list"),
    ],
)
def test_as_strings_refuses_other_rows(rows, message):
    with pytest.raises(ValueError, match=message):
        as_strings("predictions", rows)


def test_compute_reads_messages_as_the_batch_function_does(length):
    from im_datasets.indicators import Length

    result = length.compute(predictions=["1, 2, 3"], references=[MESSAGES])
    assert result["im_input_length"] == Length()({"prompt": [MESSAGES], "completion": ["1, 2, 3"]})["im_input_length"]


def test_compute_refuses_a_number_in_any_row(mtld):
    with pytest.raises(ValueError, match="don't match the expected format"):
        mtld.compute(predictions=["a", 3])
    with pytest.raises(ValueError, match="don't match the expected format"):
        mtld.add(prediction=3)
    assert mtld.compute(predictions=["a b"])["im_mtld"] == [2.0]


def test_compute_refuses_a_missing_input_and_other_lengths(length):
    with pytest.raises(ValueError, match="inputs are missing"):
        length.compute(predictions=["a"])
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(1\) and references \(2\)"):
        length.compute(predictions=["a"], references=["b", "c"])


def test_unknown_inputs_and_settings_are_named(mtld):
    with pytest.raises(ValueError, match=r"Bad inputs for evaluation module: \['data'\]"):
        mtld.add_batch(predictions=["a"], data=["b"])
    with pytest.raises(ValueError, match=r"Bad inputs for evaluation module: \['data'\]"):
        mtld.add(prediction="a", data="b")
    with pytest.raises(TypeError, match="unexpected keyword argument 'window'"):
        mtld.compute(predictions=["a"], window=5)
    with pytest.raises(TypeError, match="ImMtld was loaded with window; its settings are threshold"):
        im_datasets.metric("mtld", window=5)


def test_a_setting_out_of_its_range_is_the_indicators_error():
    module = im_datasets.metric("mtld", keep_in_memory=True)
    with pytest.raises(IndicatorError, match=r"threshold 1\.5 is out of its range|threshold 1.5 is out of range"):
        module.compute(predictions=["a"], threshold=1.5)
    assert module.compute(predictions=["a b"])["im_mtld"] == [2.0]


def test_compute_of_no_rows_is_empty(mtld, length):
    result = mtld.compute(predictions=[])
    assert (result["im_mtld"], result["unscored_im_mtld"]) == ([], 0)
    assert isnan(result["mean_im_mtld"])
    assert length.compute(predictions=[], references=[])["im_input_length"] == []


def test_compute_without_rows_says_so():
    with pytest.raises(ValueError, match="call `add` or `add_batch` at least once"):
        im_datasets.metric("mtld").compute()


def test_knn_needs_more_rows_than_k():
    module = im_datasets.metric("knn", keep_in_memory=True)
    with pytest.raises(IndicatorError, match="6"):
        module.compute(predictions=["a"], references=["b"])


def test_read_rule_takes_name_path_json_mapping_and_rule(tmp_path):
    rule = LinearRule.load("v3")
    rule.save(tmp_path / "rule.json")
    text = (tmp_path / "rule.json").read_text()
    forms = ["v3", tmp_path / "rule.json", str(tmp_path / "rule.json"), text, rule.to_dict(), rule]
    assert all(read_rule(form).to_dict() == rule.to_dict() for form in forms)


@pytest.mark.parametrize(
    ("rule", "message"),
    [("nothing", "no rule 'nothing'"), ("{broken", "the rule is not JSON"), ({"name": "x"}, "not a rule")],
)
def test_read_rule_refuses_what_is_none(rule, message):
    with pytest.raises(RuleError, match=message):
        read_rule(rule)


def test_metric_takes_a_name_with_or_without_prefix():
    assert module_path("mtld") == module_path("im_mtld")


def test_metric_names_the_modules_there_are():
    with pytest.raises(ModuleNameError, match=r"no evaluate module 'mtdl'; known: .*im_mtld"):
        im_datasets.metric("mtdl")


def test_metric_says_that_an_installation_lacks_them(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "im_datasets.indicators.metric.__file__", str(tmp_path / "package" / "indicators" / "metric.py")
    )
    with pytest.raises(ModuleNameError, match=r"are missing from .*; reinstall im-datasets"):
        module_path("mtld")
