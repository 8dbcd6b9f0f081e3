"""InstructMining: the rule's indicators and no others, NaN never zero, the user's own indicator in a rule."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from datasets import Dataset
from datasets.fingerprint import Hasher

from im_datasets import InstructMining, LinearRule
from im_datasets.common.errors import NotFittedError, RuleError
from im_datasets.indicators import Indicator, KNNDistance, Quality, UniEval
from im_datasets.indicators.settings import ENTRY_POINTS
from im_datasets.rules.linear import Term

ROWS = {
    "instruction": ["Name a fruit.", "Name a river.", "Say hello.", "Add 2 and 2."],
    "output": ["An apple is a fruit.", "The Nile.", None, "2 and 2 make 4."],
    "source": ["a", "b", "c", "d"],
}


@dataclass(frozen=True)
class Shouting(Indicator):
    """Share of capital letters in the response: a user's own indicator."""

    version: ClassVar[str] = "1"

    @property
    def writes(self):
        return ("my_shouting",)

    def score(self, instructions, responses):
        return {"my_shouting": [sum(c.isupper() for c in text) / len(text) for text in responses]}


@dataclass(frozen=True)
class Constant(Indicator):
    """Writes the reward column without a model."""

    version: ClassVar[str] = "1"

    @property
    def writes(self):
        return ("im_reward",)

    def score(self, instructions, responses):
        return {"im_reward": [math.nan if "Nile" in text else 1.0 for text in responses]}


SHOUTING = LinearRule("quiet", "", 1.0, (Term("my_shouting", 2.0),))


def test_call_adds_a_users_own_indicator_and_the_rule():
    scored = Dataset.from_dict(ROWS).map(InstructMining(SHOUTING, indicators=[Shouting()]), batched=True)
    # "The Nile." has 2 capitals in 9 characters.
    assert scored["my_shouting"][1] == pytest.approx(2 / 9)
    assert scored["im_log_loss"][1] == pytest.approx(1 + 2 * 2 / 9)
    assert scored.column_names == [*ROWS, "my_shouting", "im_log_loss", "im_unscorable"]


def test_call_leaves_unscorable_rows_nan_with_a_reason():
    scored = Dataset.from_dict(ROWS).map(InstructMining(SHOUTING, indicators=[Shouting()]), batched=True)
    assert math.isnan(scored["my_shouting"][2])
    assert math.isnan(scored["im_log_loss"][2])
    assert [bool(reason) for reason in scored["im_unscorable"]] == [False, False, True, False]


def test_call_names_the_column_that_an_indicator_could_not_score():
    rule = LinearRule("r", "", 0.0, (Term("im_reward", 1.0),))
    scored = InstructMining(rule, indicators=[Constant()])(ROWS)
    assert scored["im_unscorable"][1] == "no im_reward"
    assert math.isnan(scored["im_log_loss"][1])
    assert scored["im_log_loss"][0] == 1.0


def test_call_computes_no_indicator_beyond_the_rules():
    assert [type(i) for i in InstructMining("embedded").indicators] == [
        type(i) for i in InstructMining("embedded", indicators=[Quality()]).indicators
    ]
    assert {c for i in InstructMining("embedded").indicators for c in i.writes} == set(
        LinearRule.load("embedded").columns
    )


def test_call_works_in_a_stream():
    stream = Dataset.from_dict(ROWS).to_iterable_dataset()
    rows = list(stream.map(InstructMining(SHOUTING, indicators=[Shouting()]), batched=True, batch_size=3))
    assert rows[1]["im_log_loss"] == pytest.approx(1 + 2 * 2 / 9)


def test_fit_is_needed_for_a_rule_with_neighbours_and_makes_it_a_batch_function():
    rule = LinearRule("r", "", 0.0, (Term("im_knn_1", 1.0),))
    unfitted = InstructMining(rule, indicators=[KNNDistance(k=1)])
    dataset = Dataset.from_dict(ROWS)
    with pytest.raises(NotFittedError, match="fit"):
        unfitted(ROWS)
    scored = dataset.map(unfitted.fit(dataset), batched=True, batch_size=1)
    assert all(v > 0 for v in (scored["im_log_loss"][row] for row in (0, 1, 3)))


def test_a_rule_of_an_unknown_column_says_how_to_bring_it():
    rule = LinearRule("r", "", 0.0, (Term("my_politeness", 1.0),))
    with pytest.raises(RuleError, match=r"needs my_politeness, and no indicator here computes it: pass one"):
        InstructMining(rule)


def test_an_installed_package_brings_an_indicator(tmp_path, monkeypatch):
    (tmp_path / "polite.py").write_text(
        "from dataclasses import dataclass\n"
        "from im_datasets.indicators import Indicator\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Politeness(Indicator):\n"
        "    version = '1'\n"
        "    word: str = 'please'\n"
        "    writes = ('my_politeness',)\n"
        "    def score(self, instructions, responses):\n"
        "        return {'my_politeness': [text.count(self.word) for text in instructions]}\n"
    )
    info = tmp_path / "polite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[im_datasets.indicators]\nPoliteness = polite:Politeness\n")
    monkeypatch.syspath_prepend(tmp_path)
    terms, indicators = (Term("my_politeness", 1.0),), {"Politeness": {"word": "a"}}
    mining = InstructMining(LinearRule("r", "", 0.0, terms, indicators=indicators))
    assert type(mining.indicators[0]).__name__ == "Politeness"
    assert mining({"prompt": ["banana"], "completion": ["x"]})["im_log_loss"] == [3.0]


def test_a_rule_may_not_have_code_of_a_repository_run():
    rule = LinearRule("r", "", 0.0, (Term("im_reward", 1.0),), indicators={"Reward": {"trust_remote_code": True}})
    with pytest.raises(RuleError, match="asks to run code of a repository"):
        InstructMining(rule)


def test_v1_takes_a_reward_of_the_users_own():
    writes = InstructMining("v1", indicators=[Constant()]).writes
    assert set(LinearRule.load("v1").columns) < set(writes)


def test_default_neighbour_distance_takes_k_from_the_column():
    rule = LinearRule("r", "", 0.0, (Term("im_knn_3", 1.0),))
    assert InstructMining(rule).indicators == (KNNDistance(k=3),)


def test_default_unieval_asks_what_the_rule_reads_and_no_more():
    rule = LinearRule("r", "", 0.0, (Term("im_groundedness", 1.0), Term("im_coherence", 1.0)))
    assert InstructMining(rule).indicators == (UniEval(dimensions=("groundedness", "coherence")),)


def test_two_indicators_for_one_column_are_refused():
    with pytest.raises(RuleError, match="two indicators write my_shouting"):
        InstructMining(SHOUTING, indicators=[Shouting(), Shouting()])


def test_hash_depends_on_rule_and_settings_only():
    def fingerprint(rule):
        return Hasher.hash(InstructMining(rule, indicators=[Shouting()]))

    other = LinearRule("quiet", "", 1.0, (Term("my_shouting", 3.0),))
    assert fingerprint(SHOUTING) == fingerprint(SHOUTING)
    assert fingerprint(SHOUTING) != fingerprint(other)


def test_docs_name_the_entry_point_group():
    page = (Path(__file__).parents[2] / "docs/indicators.md").read_text(encoding="utf-8")
    assert f'[project.entry-points."{ENTRY_POINTS}"]' in page
