"""LinearRule: prediction, explanation, storage, and the shipped rules against their published numbers."""

import json
import math

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import RuleError
from im_datasets.rules.linear import LinearRule, Term

FINITE = st.floats(-1e6, 1e6)


def test_predict_hand_worked():
    rule = LinearRule("r", "", 1.0, (Term("a", 2.0), Term("b", -0.5, low=0, high=10)))
    # 1 + 2·3 − 0.5·4 = 5; 1 + 2·0 − 0.5·10 (clipped from 12) = −4; 1 + 2·1 − 0.5·0 (clipped from −7) = 3
    assert rule.predict({"a": [3, 0, 1], "b": [4, 12, -7]}).tolist() == [5.0, -4.0, 3.0]


def test_predict_keeps_nan():
    rule = LinearRule("r", "", 0.0, (Term("a", 1.0, low=0, high=1), Term("b", 1.0)))
    assert [math.isnan(v) for v in rule.predict({"a": [math.nan, 1], "b": [1, math.nan]})] == [True, True]


def test_v1_gives_the_published_formula():
    # 1.0694 − 0.1498·2 + 8.257e-5·100 − 0.9350·0.5
    row = {"im_reward": [2.0], "im_output_length": [100], "im_knn_6": [0.5]}
    assert LinearRule.load("v1").predict(row)[0] == pytest.approx(0.310557, abs=1e-9)


def test_v3_gives_the_published_formula():
    # 0.0274 − 0.0078·1 + 0.4421·0.9 − 0.3212·0.8 − 0.1520·0.7
    row = {"im_reward": [1], "im_understandability": [0.9], "im_naturalness": [0.8], "im_coherence": [0.7]}
    assert LinearRule.load("v3").predict(row)[0] == pytest.approx(0.05413, abs=1e-9)


def test_load_takes_v2_as_v3():
    assert LinearRule.load("v2") == LinearRule.load("v3")


@pytest.mark.parametrize("name", LinearRule.names())
def test_shipped_rules_state_provenance_and_caveats(name):
    rule = LinearRule.load(name)
    assert rule.name == name
    assert rule.provenance["source"]
    assert rule.caveats


def test_embedded_says_that_it_is_not_from_the_paper():
    rule = LinearRule.load("embedded")
    assert "im_quality" in rule.columns
    assert any("not from the InstructMining paper" in caveat for caveat in rule.caveats)


@given(FINITE, FINITE, FINITE, FINITE)
def test_explain_sums_to_the_prediction(intercept, coefficient, a, b):
    rule = LinearRule("r", "", intercept, (Term("a", coefficient, high=5.0), Term("b", 2.0)))
    parts = rule.explain({"a": a, "b": b})
    total = parts.pop("im_log_loss")
    assert total == pytest.approx(sum(parts.values()), rel=1e-9, abs=1e-6)
    assert total == rule.predict({"a": [a], "b": [b]})[0]


def test_save_load_round_trip(tmp_path):
    rule = LinearRule.load("v1")
    rule.save(tmp_path / "rule.json")
    assert LinearRule.load(tmp_path / "rule.json") == rule
    assert [p.name for p in tmp_path.iterdir()] == ["rule.json"]


def test_rule_maps_over_columns_that_are_there():
    rows = Dataset.from_dict({"im_reward": [1.0, None], "im_output_length": [10.0, 10.0], "im_knn_6": [0.5, 0.5]})
    scored = rows.map(LinearRule.load("v1"), batched=True)
    assert scored["im_log_loss"][0] == pytest.approx(1.0694 - 0.1498 + 8.257e-4 - 0.4675)
    assert math.isnan(scored["im_log_loss"][1])


def test_predict_names_the_indicator_to_run():
    with pytest.raises(RuleError, match=r"im_reward \(run the indicator Reward\), im_knn_6 \(run the indicator KNN"):
        LinearRule.load("v1").predict({"im_output_length": [1.0]})


def test_predict_says_when_a_column_is_the_users_own():
    with pytest.raises(RuleError, match=r"my_score \(a column of your own\); found no columns"):
        LinearRule("r", "", 0.0, (Term("my_score", 1.0),)).predict({})


def test_load_lists_the_shipped_rules_for_an_unknown_name():
    with pytest.raises(RuleError, match="no rule 'v9'; pass one of embedded, v1, v3, or the path"):
        LinearRule.load("v9")


def test_load_refuses_what_is_not_json(tmp_path):
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(RuleError, match="is not JSON"):
        LinearRule.load(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version 99; known: 1"),
        ({"terms": [{"column": "a"}]}, "not a rule: .*coefficient"),
        ({"surprise": 1}, "not a rule: .*surprise"),
        ({"terms": []}, "needs at least one term"),
        ({"terms": [{"column": "a", "coefficient": 1}, {"column": "a", "coefficient": 2}]}, "each column once"),
        ({"intercept": math.inf}, "not a finite number"),
        ({"intercept": True}, "not a finite number"),
        ({"intercept": 10**400}, "not a finite number"),
        ({"terms": [{"column": "a", "coefficient": -1e308}]}, "not a finite number"),
        ({"name": {"a": 1}}, "the name of a rule is .*; it must be a text"),
        ({"title": None}, "the title of a rule is None; it must be a text"),
        ({"caveats": "beware"}, "the caveats of a rule are 'beware'; they must be a list of texts"),
        ({"caveats": [["beware"]]}, "has a caveat that is no text"),
        ({"provenance": ["a"]}, "needs an object as its provenance"),
        ({"indicators": 5}, "needs an object as its provenance and for each of its indicators"),
        ({"indicators": {"Length": 5}}, "needs an object as its provenance and for each of its indicators"),
        ({"terms": [{"column": "a", "coefficient": True}]}, "not a finite number"),
        ({"terms": [{"column": "a", "coefficient": 1, "high": "a"}]}, "clips a at what is not a finite number"),
        ({"terms": [{"column": "a", "coefficient": 1, "low": False}]}, "clips a at what is not a finite number"),
        ({"terms": [{"column": ["a"], "coefficient": 1}]}, "each must be a text"),
        ({"terms": [{"column": "a", "coefficient": 1, "low": 2, "high": 1}]}, "clips a to an empty range"),
    ],
)
def test_load_refuses_a_malformed_rule(tmp_path, change, message):
    (tmp_path / "r.json").write_text(json.dumps(LinearRule.load("v1").to_dict() | change))
    with pytest.raises(RuleError, match=message):
        LinearRule.load(tmp_path / "r.json")
